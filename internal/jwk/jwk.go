// Package jwk writes public keys as JWKs (RFC 7517; RFC 7518, section 6; RFC 8037, section 2)
// and computes their thumbprints (RFC 7638).
//
// It takes RSA keys, elliptic curve keys on P-256, P-384 and P-521, and Ed25519 keys. A private key
// or a secret is an error, and no member of a private key can be written: the type that is encoded
// has no field for one.
package jwk

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"strconv"

	"github.com/go-json-experiment/json"
)

// A Public is a signature key to publish.
type Public struct {
	KID       string
	Algorithm string           // "alg"
	Key       crypto.PublicKey // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
}

// MarshalSet writes a JWK Set of keys, in this order, each with its kid, its alg and the use "sig".
// For no keys it writes an empty set. The error names the key that cannot be written, or says that
// a kid or alg is not UTF-8.
func MarshalSet(keys ...Public) ([]byte, error) {
	set := struct {
		Keys []element `json:"keys"`
	}{Keys: make([]element, 0, len(keys))}
	for _, k := range keys {
		m, err := membersOf(k.Key)
		if err != nil {
			return nil, fmt.Errorf("jwk: key %s: %w", quote(k.KID), err)
		}
		set.Keys = append(set.Keys, element{m.kty, m.crv, m.n, m.e, m.x, m.y, k.KID, "sig", k.Algorithm})
	}
	doc, err := json.Marshal(set)
	if err != nil {
		return nil, errors.New("jwk: a kid or alg is not valid UTF-8")
	}
	return doc, nil
}

// Thumbprint returns the SHA-256 thumbprint of a public key (RFC 7638) in base64url, which usually
// becomes the key's kid.
func Thumbprint(pub crypto.PublicKey) (string, error) {
	m, err := membersOf(pub)
	if err != nil {
		return "", fmt.Errorf("jwk: %w", err)
	}
	doc, err := json.Marshal(canonical{m.crv, m.e, m.kty, m.n, m.x, m.y})
	if err != nil {
		return "", fmt.Errorf("jwk: no thumbprint of a %T", pub)
	}
	sum := sha256.Sum256(doc)
	return base64url(sum[:]), nil
}

// An element is one JWK of a set. Its fields are written in this order.
type element struct {
	Type      string `json:"kty"`
	Curve     string `json:"crv,omitzero"`
	N         string `json:"n,omitzero"`
	E         string `json:"e,omitzero"`
	X         string `json:"x,omitzero"`
	Y         string `json:"y,omitzero"`
	KID       string `json:"kid,omitzero"`
	Use       string `json:"use,omitzero"`
	Algorithm string `json:"alg,omitzero"`
}

// canonical has the members that a thumbprint covers, in the lexicographic order of their names
// (RFC 7638, sections 3.2 and 3.3).
type canonical struct {
	Curve string `json:"crv,omitzero"`
	E     string `json:"e,omitzero"`
	Type  string `json:"kty"`
	N     string `json:"n,omitzero"`
	X     string `json:"x,omitzero"`
	Y     string `json:"y,omitzero"`
}

// members are the required members of a public key, as they are written. One that the key's type
// lacks is empty.
type members struct{ kty, crv, n, e, x, y string }

func membersOf(pub crypto.PublicKey) (members, error) {
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		return rsaMembers(pub)
	case *ecdsa.PublicKey:
		return ecMembers(pub)
	case ed25519.PublicKey:
		if len(pub) != ed25519.PublicKeySize {
			return members{}, fmt.Errorf("an Ed25519 key of %d bytes: want %d", len(pub), ed25519.PublicKeySize)
		}
		return members{kty: "OKP", crv: "Ed25519", x: base64url(pub)}, nil
	}
	return members{}, fmt.Errorf("%T is not a public key that can be written", pub)
}

// rsaMembers writes both numbers without leading zero bytes (RFC 7518, section 2, Base64urlUInt).
func rsaMembers(pub *rsa.PublicKey) (members, error) {
	if pub == nil || pub.N == nil || pub.N.Sign() <= 0 || pub.E <= 0 {
		return members{}, errors.New("an RSA key without modulus or exponent")
	}
	e := big.NewInt(int64(pub.E))
	return members{kty: "RSA", n: base64url(pub.N.Bytes()), e: base64url(e.Bytes())}, nil
}

// ecMembers writes coordinates of the full size of the curve, leading zeros included (RFC 7518,
// section 6.2.1.2).
func ecMembers(pub *ecdsa.PublicKey) (members, error) {
	//lint:ignore SA1019 Bytes panics on nil coordinates
	if pub == nil || !hasCRV(pub.Curve) || pub.X == nil || pub.Y == nil {
		return members{}, errors.New("an elliptic curve key that is not on P-256, P-384 or P-521")
	}
	point, err := pub.Bytes() // 4, x, y: uncompressed (SEC 1, section 2.3.3)
	if err != nil {
		return members{}, errors.New("an elliptic curve key that is not on its curve")
	}
	size := len(point) / 2
	return members{
		kty: "EC", crv: pub.Curve.Params().Name,
		x: base64url(point[1 : 1+size]), y: base64url(point[1+size:]),
	}, nil
}

// hasCRV reports whether a curve has a "crv" value (RFC 7518, section 6.2.1.1). That value is also
// the curve's name in package elliptic.
func hasCRV(c elliptic.Curve) bool {
	return c == elliptic.P256() || c == elliptic.P384() || c == elliptic.P521()
}

func base64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// quote quotes a kid for a message, cut to a length that fits into a log line.
func quote(kid string) string {
	const most = 64
	if len(kid) <= most {
		return strconv.Quote(kid)
	}
	return strconv.Quote(kid[:most]) + "..."
}
