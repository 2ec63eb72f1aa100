// Package token writes signed tokens: compact JWS (RFC 7515, section 7.1) whose payload is a set of
// claims (RFC 7519).
//
//	claims  --SetClaims-->    a JSON object
//	        --AddDefaults-->  and iat, exp, jti, iss and aud, where they are missing
//	        --Sign-->         header.payload.signature
//
// A [Buffer] is the memory for one token, and is used again for the next one. A [Key] signs, and
// has the header of its tokens encoded already. The package knows no ring and no policy: package
// rotation decides which key signs and how long the token may live.
//
// Most claims are a map of strings, numbers and lists of strings. A few lines write those about
// twice as fast as the general JSON encoder, and check the types of the registered claims while the
// values are at hand. All other claims go through the encoder, and its output is then read once for
// the same checks. The defaults are appended to the JSON text, so the claims are never decoded into
// a map.
package token
