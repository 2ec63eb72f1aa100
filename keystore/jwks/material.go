package jwks

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"

	"github.com/go-json-experiment/json"

	"github.com/keyturn/keyturn/internal/jose"
)

// This file reads the key of a JWK. Whether that key is good enough, in size and exponent, is
// decided by package keystore.

// Types of key ("kty") that can be read.
const (
	typeRSA = "RSA" // RFC 7518, section 6.3
	typeEC  = "EC"  // RFC 7518, section 6.2
	typeOKP = "OKP" // RFC 8037, section 2
	typeOct = "oct" // RFC 7518, section 6.4
)

// octKey returns the secret of an oct JWK, which is never empty.
func (k *jwk) octKey() ([]byte, error) { return k.octets("k") }

// publicKey returns the key of an RSA, EC or OKP JWK: an *rsa.PublicKey, an *ecdsa.PublicKey on
// P-256, P-384 or P-521, or an ed25519.PublicKey. An RSA exponent fits an int; beyond that an RSA
// key is not judged.
func (k *jwk) publicKey() (crypto.PublicKey, error) {
	switch k.kty.value {
	case typeRSA:
		return k.rsaKey()
	case typeEC:
		return k.ecKey()
	case typeOKP:
		return k.okpKey()
	}
	return nil, fmt.Errorf("unknown kty %s", quote(k.kty.value))
}

func (k *jwk) rsaKey() (crypto.PublicKey, error) {
	n, err := k.octets("n")
	if err != nil {
		return nil, err
	}
	e, err := k.octets("e")
	if err != nil {
		return nil, err
	}
	// RFC 7518, section 2, wants no leading zero bytes in Base64urlUInt values. Many producers
	// write them all the same, and they change nothing.
	exponent := new(big.Int).SetBytes(e)
	if exponent.Cmp(big.NewInt(math.MaxInt32)) > 0 {
		return nil, fmt.Errorf("an RSA exponent of %d bits", exponent.BitLen())
	}
	key := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent.Int64())}
	return confirm(key, members{Type: typeRSA, N: base64url(n), E: base64url(e)})
}

func (k *jwk) ecKey() (crypto.PublicKey, error) {
	crv := k.crv.value
	curve := curveNamed(crv)
	if curve == nil {
		return nil, fmt.Errorf("unknown crv %s", quote(crv))
	}
	x, err := k.octets("x")
	if err != nil {
		return nil, err
	}
	y, err := k.octets("y")
	if err != nil {
		return nil, err
	}
	// Coordinates have the full size of the curve, leading zeros included (RFC 7518, section
	// 6.2.1.2).
	if size := (curve.Params().BitSize + 7) / 8; len(x) != size || len(y) != size {
		return nil, fmt.Errorf("coordinates of %d and %d bytes: %s wants %d (RFC 7518, section 6.2.1.2)", len(x), len(y), crv, size)
	}
	point := slices.Concat([]byte{4}, x, y) // uncompressed (SEC 1, section 2.3.3)
	key, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		return nil, fmt.Errorf("the coordinates are no point on %s", crv)
	}
	return confirm(key, members{Type: typeEC, Curve: crv, X: base64url(x), Y: base64url(y)})
}

// curveNamed returns the curve of a "crv" value (RFC 7518, section 6.2.1.1), or nil. That value is
// also the curve's name in package elliptic.
func curveNamed(crv string) elliptic.Curve {
	for _, c := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		if c.Params().Name == crv {
			return c
		}
	}
	return nil
}

func (k *jwk) okpKey() (crypto.PublicKey, error) {
	if k.crv.value != "Ed25519" {
		return nil, fmt.Errorf("unsupported crv %s: only Ed25519 of the OKP curves", quote(k.crv.value))
	}
	x, err := k.octets("x")
	if err != nil {
		return nil, err
	}
	if len(x) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("an Ed25519 key of %d bytes: want %d", len(x), ed25519.PublicKeySize)
	}
	return confirm(ed25519.PublicKey(x), members{Type: typeOKP, Curve: "Ed25519", X: base64url(x)})
}

// members are the members of a JWK that a public key needs. There are no others, so that a private
// member cannot reach jwx.
type members struct {
	Type  string `json:"kty"`
	Curve string `json:"crv,omitzero"`
	N     string `json:"n,omitzero"`
	E     string `json:"e,omitzero"`
	X     string `json:"x,omitzero"`
	Y     string `json:"y,omitzero"`
}

// confirm returns our reading of a key, if jwx makes the same key of its members.
func confirm(key interface{ Equal(crypto.PublicKey) bool }, of members) (crypto.PublicKey, error) {
	disagree := errors.New("its members make no key")
	doc, err := json.Marshal(of)
	if err != nil {
		return nil, disagree
	}
	if theirs, err := jose.PublicKey(doc); err != nil || !key.Equal(theirs) {
		return nil, disagree
	}
	return key, nil
}

// base64url spells out bytes that a member held. It had no other spelling: see [jwk.octets].
func base64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
