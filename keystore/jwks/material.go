package jwks

import (
	"bytes"
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
	"strings"
	"unicode"
	"unicode/utf8"

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
//
// Numbers are read in any spelling that stands for one number alone, since the operator chooses a
// key, and not the sender of a token. Spellings of one number give equal keys. k.irregular then says
// which member was spelled otherwise than the RFCs want.
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
	n, err := k.number("n")
	if err != nil {
		return nil, err
	}
	e, err := k.number("e")
	if err != nil {
		return nil, err
	}
	if what := notAModulus(k, n); what != "" {
		return nil, fmt.Errorf(`"n" holds %s, and not a number in base64url (RFC 7518, section 6.3.1.1)`, what)
	}
	exponent := new(big.Int).SetBytes(e)
	if exponent.Cmp(big.NewInt(math.MaxInt32)) > 0 {
		return nil, fmt.Errorf("an RSA exponent of %d bits", exponent.BitLen())
	}
	key := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent.Int64())}
	return confirm(key, members{Type: typeRSA, N: base64url(n), E: base64url(e)})
}

// number returns the bytes of a Base64urlUInt value. RFC 7518, section 2, wants no leading zero
// bytes, and one for zero. Many producers write them all the same, Java's BigInteger among them, and
// they change nothing.
func (k *jwk) number(name string) ([]byte, error) {
	b, err := k.looseOctets(name)
	if err != nil || b[0] != 0 || len(b) == 1 {
		return b, err
	}
	trimmed := bytes.TrimLeft(b, "\x00")
	k.note("%q has leading zero bytes (RFC 7518, section 2)", name)
	if len(trimmed) == 0 {
		return b[:1], nil
	}
	return trimmed, nil
}

// notAModulus says what the "n" of a JWK holds if that is a modulus in another form, or "". Read as
// base64url, such a text makes a number too, but that is not the product of two large primes. It
// often has small factors, and then anyone can find the private key. Issuers have published n in
// decimal and in hex, in base64 or not, and as a DER or SSH key (docs/jwks.md).
func notAModulus(k *jwk, n []byte) string {
	switch text, _ := k.text("n"); {
	case len(n) < 64: // too short for a key in any form
		return ""
	case isHex(text.value):
		return "decimal or hexadecimal digits"
	case isText(n):
		return "text"
	case isDER(n):
		return "a key in DER"
	case bytes.HasPrefix(n, []byte("\x07ssh-rsa")): // its length of four bytes begins with zeros
		return "an SSH key"
	}
	return ""
}

func isHex(s string) bool {
	return strings.Trim(s, "0123456789abcdefABCDEF") == ""
}

// isText reports whether b is UTF-8 without control characters but white space. Of 64 random bytes,
// not one in 10^15 is.
func isText(b []byte) bool {
	return utf8.Valid(b) && !bytes.ContainsFunc(b, func(r rune) bool { return unicode.IsControl(r) && !unicode.IsSpace(r) })
}

// isDER reports whether b is a SEQUENCE of exactly its length (X.690, sections 8.1.3 and 8.9).
func isDER(b []byte) bool {
	switch {
	case b[0] != 0x30:
		return false
	case b[1] == 0x81:
		return int(b[2]) == len(b)-3
	case b[1] == 0x82:
		return int(b[2])<<8|int(b[3]) == len(b)-4
	}
	return int(b[1]) == len(b)-2
}

func (k *jwk) ecKey() (crypto.PublicKey, error) {
	crv := k.crv.value
	curve := curveNamed(crv)
	if curve == nil {
		return nil, fmt.Errorf("unknown crv %s", quote(crv))
	}
	x, err := k.looseOctets("x")
	if err != nil {
		return nil, err
	}
	y, err := k.looseOctets("y")
	if err != nil {
		return nil, err
	}
	// Coordinates have the full size of the curve, leading zeros included (RFC 7518, section
	// 6.2.1.2). Producers that treat them as numbers leave zeros out, or write one too many.
	size := (curve.Params().BitSize + 7) / 8
	lengths := ""
	if len(x) != size || len(y) != size {
		lengths = fmt.Sprintf("coordinates of %d and %d bytes: %s wants %d (RFC 7518, section 6.2.1.2)", len(x), len(y), crv, size)
	}
	if x, y = k.coordinate("x", x, size), k.coordinate("y", y, size); x == nil || y == nil {
		return nil, errors.New(lengths)
	}
	point := slices.Concat([]byte{4}, x, y) // uncompressed (SEC 1, section 2.3.3)
	key, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	switch {
	case err != nil && lengths != "":
		return nil, fmt.Errorf("%s, and with zeros they are no point on it", lengths)
	case err != nil:
		return nil, fmt.Errorf("the coordinates are no point on %s", crv)
	}
	return confirm(key, members{Type: typeEC, Curve: crv, X: base64url(x), Y: base64url(y)})
}

// coordinate returns a coordinate in its full size, or nil if it is too long.
func (k *jwk) coordinate(name string, b []byte, size int) []byte {
	switch {
	case len(b) == size:
		return b
	case len(b) < size:
		k.note("%q lacks leading zero bytes (RFC 7518, section 6.2.1.2)", name)
		return append(make([]byte, size-len(b)), b...)
	case len(b) == size+1 && b[0] == 0:
		k.note("%q has a leading zero byte too many (RFC 7518, section 6.2.1.2)", name)
		return b[1:]
	}
	return nil
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
	x, err := k.looseOctets("x")
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

// base64url spells out bytes that a member held, as RFC 7515, section 2, wants it.
func base64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
