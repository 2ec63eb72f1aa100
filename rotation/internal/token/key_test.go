package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/keystore"
)

// TestKeySigns: a signature by each algorithm verifies, and the header says which key and
// algorithm.
func TestKeySigns(t *testing.T) {
	id := keystore.ID{Tenant: "acme", KID: `a "kid"`}
	for alg, private := range privateKeys(t) {
		key, err := NewKey(id, alg, private, "JWT")
		if err != nil {
			t.Errorf("%s: %v", alg, err)
			continue
		}
		var public *keystore.Key
		if secret, ok := private.([]byte); ok {
			public, err = keystore.NewSecret(id, alg, secret)
		} else {
			public, err = keystore.NewPublic(id, alg, private.(crypto.Signer).Public())
		}
		if err != nil {
			t.Fatal(err)
		}
		message := []byte("header.payload")
		if sig, err := key.Sign(message); err != nil || !public.Verify(message, sig) || public.Verify([]byte("another"), sig) {
			t.Errorf("%s: signature %x, %v", alg, sig, err)
		}
		header, err := base64.RawURLEncoding.DecodeString(string(key.header))
		if want := `{"alg":"` + string(alg) + `","kid":"a \"kid\"","typ":"JWT"}`; err != nil || string(header) != want {
			t.Errorf("header %s, %v, want %s", header, err, want)
		}
	}
}

// TestHeaderWithoutKID: an empty kid is left out of the header.
func TestHeaderWithoutKID(t *testing.T) {
	key, err := NewKey(keystore.ID{Tenant: "acme"}, keystore.HS256, secret32(), "at+jwt")
	if err != nil {
		t.Fatal(err)
	}
	if header, err := base64.RawURLEncoding.DecodeString(string(key.header)); string(header) != `{"alg":"HS256","typ":"at+jwt"}` || err != nil {
		t.Errorf("header %s, %v", header, err)
	}
}

// TestNewKeyRefuses: a key that cannot sign by its algorithm is refused, and the error names its
// type.
func TestNewKeyRefuses(t *testing.T) {
	var none *ecdsa.PrivateKey
	for _, tt := range []struct {
		alg  keystore.Algorithm
		key  any
		want string // "" if the error is that of package keystore
	}{
		{keystore.HS256, nil, "<nil> cannot sign HS256: want a []byte"},
		{keystore.HS256, "secret", "string cannot sign HS256: want a []byte"},
		{keystore.ES256, secret32(), "[]uint8 cannot sign ES256: want a crypto.Signer"},
		{keystore.ES256, none, "an empty or cut *ecdsa.PrivateKey"},
		{keystore.EdDSA, ed25519.PrivateKey{1}, "an empty or cut ed25519.PrivateKey"},
		{keystore.HS256, secret32()[:31], ""},
		{"none", secret32(), ""},
	} {
		key, err := NewKey(keystore.ID{Tenant: "acme"}, tt.alg, tt.key, "JWT")
		unfit := new(UnfitError)
		if key != nil || err == nil || errors.As(err, &unfit) != (tt.want != "") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s with a %T: %v, want an error with %q", tt.alg, tt.key, err, tt.want)
		}
	}
}

// TestRawECDSA: a signature that is not the ASN.1 of two positive numbers of the curve's size is
// refused. A number that is shorter is padded.
func TestRawECDSA(t *testing.T) {
	der := func(r, s *big.Int) []byte {
		b, err := asn1.Marshal(struct{ R, S *big.Int }{r, s})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	one, large := big.NewInt(1), new(big.Int).Lsh(big.NewInt(1), 256)
	raw, err := rawECDSA(keystore.ES256, der(one, one))
	if err != nil || len(raw) != 64 || raw[31] != 1 || raw[63] != 1 {
		t.Errorf("%x, %v", raw, err)
	}
	for name, bad := range map[string][]byte{
		"empty":           nil,
		"not ASN.1":       []byte("rubbish"),
		"trailing data":   append(der(one, one), 0),
		"R is zero":       der(new(big.Int), one),
		"S is negative":   der(one, big.NewInt(-1)),
		"R is too large":  der(large, one),
		"S is too large":  der(one, large),
		"one number only": der(one, one)[:5],
	} {
		if raw, err := rawECDSA(keystore.ES256, bad); err == nil {
			t.Errorf("%s: %x", name, raw)
		}
	}
}
