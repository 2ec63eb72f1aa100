package jose

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/lestrrat-go/jwx/v2/jwk"
)

// Types of key ("kty") that can be read.
const (
	TypeRSA = "RSA" // RFC 7518, section 6.3
	TypeEC  = "EC"  // RFC 7518, section 6.2
	TypeOKP = "OKP" // RFC 8037, section 2
	TypeOct = "oct" // RFC 7518, section 6.4
)

// wire is a JWK with the members that a public key needs, and no others: a
// private member cannot be written by accident.
type wire struct {
	Type  string `json:"kty"`
	Curve string `json:"crv,omitzero"`
	N     string `json:"n,omitzero"`
	E     string `json:"e,omitzero"`
	X     string `json:"x,omitzero"`
	Y     string `json:"y,omitzero"`
}

// errDisagree reports that jwx made another key of the members than we read.
var errDisagree = errors.New("its members make no key")

// Public returns the public key of an RSA, EC or OKP JWK: an *rsa.PublicKey, an
// *ecdsa.PublicKey on P-256, P-384 or P-521, or an ed25519.PublicKey. It does
// not judge an RSA key beyond that its exponent fits an int.
func (k *JWK) Public() (crypto.PublicKey, error) {
	switch {
	case k.Err != nil:
		return nil, k.Err
	case k.Type == TypeRSA:
		return k.rsa()
	case k.Type == TypeEC:
		return k.ec()
	case k.Type == TypeOKP:
		return k.okp()
	case k.Type == TypeOct:
		return nil, errors.New("a secret has no public key")
	}
	return nil, fmt.Errorf("unknown kty %s", Quote(k.Type))
}

func (k *JWK) rsa() (crypto.PublicKey, error) {
	n, encN, err := k.octets("n")
	if err != nil {
		return nil, err
	}
	e, encE, err := k.octets("e")
	if err != nil {
		return nil, err
	}
	// RFC 7518, section 2, wants no leading zero bytes in Base64urlUInt values.
	// Many producers write them all the same, and they change nothing.
	exponent := new(big.Int).SetBytes(e)
	if exponent.Cmp(big.NewInt(math.MaxInt32)) > 0 {
		return nil, fmt.Errorf("an RSA exponent of %d bits", exponent.BitLen())
	}

	var pub rsa.PublicKey
	if err := materialize(wire{Type: TypeRSA, N: encN, E: encE}, &pub); err != nil {
		return nil, err
	}
	modulus := new(big.Int).SetBytes(n)
	if pub.N == nil || pub.N.Cmp(modulus) != 0 || int64(pub.E) != exponent.Int64() {
		return nil, errDisagree
	}
	return &rsa.PublicKey{N: modulus, E: pub.E}, nil
}

// curves are those that have a "crv" value (RFC 7518, section 6.2.1.1), which is
// their name in package elliptic too.
var curves = [...]elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()}

// curveNamed returns the curve of a "crv" value, or nil.
func curveNamed(crv string) elliptic.Curve {
	for _, c := range curves {
		if c.Params().Name == crv {
			return c
		}
	}
	return nil
}

func (k *JWK) ec() (crypto.PublicKey, error) {
	curve := curveNamed(k.Curve)
	if curve == nil {
		return nil, fmt.Errorf("unknown crv %s", Quote(k.Curve))
	}
	x, encX, err := k.octets("x")
	if err != nil {
		return nil, err
	}
	y, encY, err := k.octets("y")
	if err != nil {
		return nil, err
	}
	// Coordinates have the full size of the curve, leading zeros included (RFC
	// 7518, section 6.2.1.2).
	if size := (curve.Params().BitSize + 7) / 8; len(x) != size || len(y) != size {
		return nil, fmt.Errorf("coordinates of %d and %d bytes: %s wants %d (RFC 7518, section 6.2.1.2)", len(x), len(y), k.Curve, size)
	}
	point := slices.Concat([]byte{4}, x, y) // uncompressed (SEC 1, section 2.3.3)
	own, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		return nil, fmt.Errorf("the coordinates are no point on %s", k.Curve)
	}

	var pub ecdsa.PublicKey
	if err := materialize(wire{Type: TypeEC, Curve: k.Curve, X: encX, Y: encY}, &pub); err != nil {
		return nil, err
	}
	if !own.Equal(&pub) {
		return nil, errDisagree
	}
	return own, nil
}

func (k *JWK) okp() (crypto.PublicKey, error) {
	if k.Curve != "Ed25519" {
		return nil, fmt.Errorf("unsupported crv %s: only Ed25519 of the OKP curves", Quote(k.Curve))
	}
	x, encX, err := k.octets("x")
	if err != nil {
		return nil, err
	}
	if len(x) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("an Ed25519 key of %d bytes: want %d", len(x), ed25519.PublicKeySize)
	}
	var pub ed25519.PublicKey
	if err := materialize(wire{Type: TypeOKP, Curve: k.Curve, X: encX}, &pub); err != nil {
		return nil, err
	}
	if !bytes.Equal(pub, x) {
		return nil, errDisagree
	}
	return ed25519.PublicKey(x), nil
}

// Secret returns the secret of an oct JWK, which is never empty.
func (k *JWK) Secret() ([]byte, error) {
	if k.Err != nil {
		return nil, k.Err
	}
	if k.Type != TypeOct {
		return nil, fmt.Errorf("kty %s has no secret", Quote(k.Type))
	}
	// jwx would add nothing here but another copy of the secret.
	secret, _, err := k.octets("k")
	return secret, err
}

// materialize lets jwx make the key, from members that are known to be sound.
func materialize(w wire, key any) error {
	doc, err := json.Marshal(w)
	if err != nil {
		return errDisagree
	}
	parsed, err := jwk.ParseKey(doc)
	if err != nil {
		return errDisagree
	}
	if parsed.Raw(key) != nil {
		return errDisagree
	}
	return nil
}
