// Package token writes signed tokens: compact JWS (RFC 7515, section 7.1) whose payload is a set of
// claims (RFC 7519).
//
// A [Buffer] takes the claims, checks the types of the registered ones, adds those that are missing
// and signs the result with a [Key]. It knows no ring and no policy: package rotation decides which
// key signs, and how long the token may live.
package token
