package jwks

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"math/big"
	"slices"
	"testing"
)

func TestRSA(t *testing.T) {
	n := b64(odd2048.Bytes())
	e := func(hex string) string {
		v, _ := new(big.Int).SetString(hex, 16)
		b := v.Bytes()
		if len(hex)/2 > len(b) {
			b = append(make([]byte, len(hex)/2-len(b)), b...)
		}
		return b64(b)
	}
	tests := []struct {
		name    string
		members string
		e       int // 0: refused
	}{
		{name: "65537", members: `"n":"` + n + `","e":"AQAB"`, e: 65537},
		{name: "e = 3 is for others to judge", members: `"n":"` + n + `","e":"Aw"`, e: 3},
		{name: "e = 1 is for others to judge", members: `"n":"` + n + `","e":"AQ"`, e: 1},
		{name: "leading zero in n", members: `"n":"` + b64(append([]byte{0}, odd2048.Bytes()...)) + `","e":"AQAB"`, e: 65537},
		{name: "leading zero in e", members: `"n":"` + n + `","e":"` + e("00010001") + `"`, e: 65537},
		{name: "e = 2^31 - 1", members: `"n":"` + n + `","e":"` + e("7fffffff") + `"`, e: 1<<31 - 1},
		{name: "e = 2^31", members: `"n":"` + n + `","e":"` + e("80000000") + `"`},
		{name: "e = 2^32 + 65537", members: `"n":"` + n + `","e":"` + e("0100010001") + `"`},
		{name: "e = 2^64 + 65537 must not wrap", members: `"n":"` + n + `","e":"` + e("010000000000010001") + `"`},
		{name: "e of 1000 bytes", members: `"n":"` + n + `","e":"` + b64(bytes.Repeat([]byte{1}, 1000)) + `"`},
		{name: "no e", members: `"n":"` + n + `"`},
		{name: "E", members: `"n":"` + n + `","E":"AQAB"`},
		{name: "empty e", members: `"n":"` + n + `","e":""`},
		{name: "e a number", members: `"n":"` + n + `","e":65537`},
		{name: "no n", members: `"e":"AQAB"`},
		{name: "N", members: `"N":"` + n + `","e":"AQAB"`},
		{name: "empty n", members: `"n":"","e":"AQAB"`},
		{name: "n null", members: `"n":null,"e":"AQAB"`},
		{name: "padded e", members: `"n":"` + n + `","e":"AQAB="`},
		{name: "escaped, which is the same text", members: `"\u006e":"` + n + `","e":"\u0041QAB"`, e: 65537},
		{name: "N beside n is ignored", members: `"n":"` + n + `","N":"AQAB","e":"AQAB","E":"Aw"`, e: 65537},
		{name: "a chain that is not one", members: `"n":"` + n + `","e":"AQAB","x5c":["!"],"x5t":1,"x5u":null`, e: 65537},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := readOne(t, `{"kty":"RSA",`+tt.members+`}`)
			pub, err := k.publicKey()
			if tt.e == 0 {
				if err == nil || pub != nil {
					t.Errorf("publicKey = %v, %v, want an error", pub, err)
				}
				return
			}
			if want := (&rsa.PublicKey{N: odd2048, E: tt.e}); err != nil || !want.Equal(pub) {
				t.Errorf("publicKey = %v, %v, want exponent %d", pub, err, tt.e)
			}
		})
	}
}

func TestRSAZeroExponent(t *testing.T) {
	k := readOne(t, `{"kty":"RSA","n":"`+b64(odd2048.Bytes())+`","e":"AA"}`)
	pub, err := k.publicKey()
	if err != nil || pub.(*rsa.PublicKey).E != 0 {
		t.Errorf("publicKey = %v, %v: want exponent 0, for keystore to refuse", pub, err)
	}
}

func TestEC(t *testing.T) {
	x, _ := base64.RawURLEncoding.DecodeString(p256X)
	y, _ := base64.RawURLEncoding.DecodeString(p256Y)
	flipped := append(bytes.Clone(y[:31]), y[31]^1)
	zero := make([]byte, 32)
	key := func(crv string, x, y []byte) string {
		return `{"kty":"EC","crv":"` + crv + `","x":"` + b64(x) + `","y":"` + b64(y) + `"}`
	}
	tests := []struct {
		name string
		key  string
		ok   bool
	}{
		{name: "RFC 7515, A.3", key: key("P-256", x, y), ok: true},
		{name: "off the curve", key: key("P-256", x, flipped)},
		{name: "swapped", key: key("P-256", y, x)},
		{name: "infinity", key: key("P-256", zero, zero)},
		{name: "P-256 coordinates under P-384", key: key("P-384", x, y)},
		{name: "the same, filled up", key: key("P-384", append(make([]byte, 16), x...), append(make([]byte, 16), y...))},
		{name: "x with a leading zero too many", key: key("P-256", append([]byte{0}, x...), y), ok: true},
		{name: "y with a leading zero too many", key: key("P-256", x, append([]byte{0}, y...)), ok: true},
		{name: "y with two leading zeros too many", key: key("P-256", x, append([]byte{0, 0}, y...))},
		{name: "y with another byte in front", key: key("P-256", x, append([]byte{4}, y...))},
		{name: "y with a zero at its end", key: key("P-256", x, append(bytes.Clone(y), 0))},
		{name: "x a byte short", key: key("P-256", x[1:], y)},
		{name: "y a byte short at its end", key: key("P-256", x, y[:31])},
		{name: "a point as SEC 1 has it", key: key("P-256", slices.Concat([]byte{4}, x, y), y)},
		{name: "empty y", key: key("P-256", x, nil)},
		{name: "secp256k1", key: key("secp256k1", x, y)},
		{name: "P-224", key: key("P-224", x[:28], y[:28])},
		{name: "p-256", key: key("p-256", x, y)},
		{name: "no curve", key: key("", x, y)},
		{name: "Ed25519 under EC", key: key("Ed25519", x, y)},
		{name: "no crv", key: `{"kty":"EC","x":"` + p256X + `","y":"` + p256Y + `"}`},
		{name: "CRV", key: `{"kty":"EC","CRV":"P-256","x":"` + p256X + `","y":"` + p256Y + `"}`},
		{name: "Y", key: `{"kty":"EC","crv":"P-256","x":"` + p256X + `","Y":"` + p256Y + `"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := readOne(t, tt.key)
			pub, err := k.publicKey()
			if (err == nil) != tt.ok || (pub != nil) != tt.ok {
				t.Errorf("publicKey = %v, %v, want ok %v", pub, err, tt.ok)
			}
		})
	}
}

// A coordinate with a leading zero keeps it (RFC 7518, section 6.2.1.2). Without, it is the same.
func TestECLeadingZero(t *testing.T) {
	for {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		point, err := key.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if point[1] != 0 {
			continue
		}
		x, y := point[1:33], point[33:]
		k := readOne(t, `{"kty":"EC","crv":"P-256","x":"`+b64(x)+`","y":"`+b64(y)+`"}`)
		if pub, err := k.publicKey(); err != nil || !key.PublicKey.Equal(pub) {
			t.Errorf("publicKey = %v, %v", pub, err)
		}
		k = readOne(t, `{"kty":"EC","crv":"P-256","x":"`+b64(x[1:])+`","y":"`+b64(y)+`"}`)
		if pub, err := k.publicKey(); err != nil || !key.PublicKey.Equal(pub) || len(k.irregular) != 1 {
			t.Errorf("without the zero: publicKey = %v, %v, irregular %q", pub, err, k.irregular)
		}
		return
	}
}

func TestOKP(t *testing.T) {
	x, _ := base64.RawURLEncoding.DecodeString(edX)
	tests := []struct {
		name string
		crv  string
		x    []byte
		ok   bool
	}{
		{name: "RFC 8037, A.2", crv: "Ed25519", x: x, ok: true},
		{name: "31 bytes", crv: "Ed25519", x: x[:31]},
		{name: "33 bytes", crv: "Ed25519", x: append(bytes.Clone(x), 0)},
		{name: "X25519", crv: "X25519", x: x},
		{name: "Ed448", crv: "Ed448", x: make([]byte, 57)},
		{name: "ed25519", crv: "ed25519", x: x},
		{name: "P-256", crv: "P-256", x: x},
		{name: "none", crv: "", x: x},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := readOne(t, `{"kty":"OKP","crv":"`+tt.crv+`","x":"`+b64(tt.x)+`"}`)
			pub, err := k.publicKey()
			if (err == nil) != tt.ok || (pub != nil) != tt.ok {
				t.Errorf("publicKey = %v, %v, want ok %v", pub, err, tt.ok)
			}
		})
	}
}

func TestSecretsAndPublicKeysDoNotMix(t *testing.T) {
	k := readOne(t, `{"kty":"oct","k":"AAAA","n":"AQAB","e":"AQAB"}`)
	if pub, err := k.publicKey(); err == nil {
		t.Errorf("publicKey of an oct key = %v", pub)
	}
	k = readOne(t, `{"kty":"OKP","crv":"Ed25519","x":"`+edX+`","k":"AAAA"}`)
	keys, err := k.judge("acme", reading{secrets: true})
	if err == nil || len(keys) > 0 {
		t.Errorf("judge of an OKP key with a secret = %v, %v, want none, as without secrets", keys, err)
	}
	k = readOne(t, `{"kty":"oct","K":"AAAA"}`)
	if secret, err := k.octKey(); err == nil {
		t.Errorf("K was taken for k: %v", secret)
	}
}
