package keystore

import (
	"crypto"
	_ "crypto/sha256" // Hash returns hashes that can be used
	_ "crypto/sha512"
)

// An Algorithm is a JWS "alg" value for signatures and MACs (RFC 7518, section
// 3.1; RFC 8037; RFC 9864). "none" is not one of them.
type Algorithm string

// The algorithms that a [Key] can verify.
const (
	HS256   Algorithm = "HS256"   // HMAC with SHA-256
	HS384   Algorithm = "HS384"   // HMAC with SHA-384
	HS512   Algorithm = "HS512"   // HMAC with SHA-512
	RS256   Algorithm = "RS256"   // RSASSA-PKCS1-v1_5 with SHA-256
	RS384   Algorithm = "RS384"   // RSASSA-PKCS1-v1_5 with SHA-384
	RS512   Algorithm = "RS512"   // RSASSA-PKCS1-v1_5 with SHA-512
	PS256   Algorithm = "PS256"   // RSASSA-PSS with SHA-256
	PS384   Algorithm = "PS384"   // RSASSA-PSS with SHA-384
	PS512   Algorithm = "PS512"   // RSASSA-PSS with SHA-512
	ES256   Algorithm = "ES256"   // ECDSA on P-256 with SHA-256
	ES384   Algorithm = "ES384"   // ECDSA on P-384 with SHA-384
	ES512   Algorithm = "ES512"   // ECDSA on P-521 with SHA-512
	EdDSA   Algorithm = "EdDSA"   // Ed25519 under its older, polymorphic name (RFC 8037)
	Ed25519 Algorithm = "Ed25519" // Ed25519 under its fully specified name (RFC 9864)
)

// Algorithms returns every algorithm that a [Key] can verify, symmetric ones
// first. The slice is the caller's.
func Algorithms() []Algorithm {
	return []Algorithm{HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA, Ed25519}
}

// Known reports whether a is an algorithm that a [Key] can verify. Names are
// compared byte for byte.
func (a Algorithm) Known() bool {
	switch a {
	case HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA, Ed25519:
		return true
	}
	return false
}

// Symmetric reports whether a is one of HS256, HS384 and HS512: the secret that
// verifies can also sign.
func (a Algorithm) Symmetric() bool {
	return a == HS256 || a == HS384 || a == HS512
}

// Same reports whether a and b name one algorithm: EdDSA, the older and polymorphic name, stands
// for Ed25519 here (RFC 9864, section 2.2), and every other algorithm has one name. Ed448 is not
// supported under either.
func (a Algorithm) Same(b Algorithm) bool { return a.plain() == b.plain() }

// plain returns Ed25519 for EdDSA, and a for every other algorithm.
func (a Algorithm) plain() Algorithm {
	if a == EdDSA {
		return Ed25519
	}
	return a
}

// twin returns the other name of a, or "" if it has none.
func (a Algorithm) twin() Algorithm {
	switch a {
	case EdDSA:
		return Ed25519
	case Ed25519:
		return EdDSA
	}
	return ""
}

// Hash returns the hash function that a is built on (RFC 7518, section 3.1). It
// is 0 for EdDSA and Ed25519, which sign the message and not its hash, and for an
// unknown algorithm; a [crypto.Signer] takes it as it is.
func (a Algorithm) Hash() crypto.Hash {
	switch a {
	case HS256, RS256, PS256, ES256:
		return crypto.SHA256
	case HS384, RS384, PS384, ES384:
		return crypto.SHA384
	case HS512, RS512, PS512, ES512:
		return crypto.SHA512
	}
	return 0
}
