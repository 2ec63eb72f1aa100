// Package jose makes Go keys of JWKs with github.com/lestrrat-go/jwx. It is the only package that
// imports that module.
//
// Version 2 of jwx is deprecated upstream, and it is lenient where a verifier must not be. It
// ignores the case of member names, takes the last of two members with one name, accepts padded and
// standard base64 and line ends, lets an RSA exponent wrap at 64 bits, does not look at the length
// of coordinates, and fails a whole set for one odd key. So package keystore/jwks reads and checks
// each member itself. It gives this package a JWK of nothing but checked members, and compares the
// key that comes back with the one that it read. A move to a later major version of jwx changes
// this package alone.
//
// Of jwx it uses ParseKey and Key.Raw. Nothing else may be used.
package jose

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"

	"github.com/lestrrat-go/jwx/v2/jwk"
)

// PublicKey returns the public key of one JWK: an *rsa.PublicKey, an *ecdsa.PublicKey or an
// ed25519.PublicKey. The caller must have checked every member of it: see the package comment. A
// private key or a secret is an error. The error quotes nothing of the JWK.
func PublicKey(checked []byte) (crypto.PublicKey, error) {
	parsed, err := jwk.ParseKey(checked)
	if err != nil {
		return nil, errors.New("jose: its members make no key")
	}
	var key any
	if parsed.Raw(&key) != nil {
		return nil, errors.New("jose: its members make no key")
	}
	switch key.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey:
		return key, nil
	}
	return nil, errors.New("jose: not a public key")
}
