package jwk_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/jwk"
	"github.com/keyturn/keyturn/keystore/jwks"
)

// Keys of RFC 7515, appendix A.3; RFC 8037, appendix A.2; and RFC 7638, section 3.1.
const (
	p256X = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"
	p256Y = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
	edX   = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
	rsaN  = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMs" +
		"tn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
)

// odd2048 is an odd number of 2048 bits.
var odd2048 = new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 2047), big.NewInt(12345))

func edKey() ed25519.PublicKey { return decode(edX) }

func ecKey(t *testing.T) *ecdsa.PublicKey {
	t.Helper()
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, decode(p256X)...), decode(p256Y)...))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func rsaKey() *rsa.PublicKey {
	return &rsa.PublicKey{N: new(big.Int).SetBytes(decode(rsaN)), E: 65537}
}

func decode(s string) []byte {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

func TestMarshalSet(t *testing.T) {
	tests := []struct {
		name string
		keys []jwk.Public
		want string
	}{
		{name: "no keys", want: `{"keys":[]}`},
		{
			name: "Ed25519",
			keys: []jwk.Public{{KID: "1", Algorithm: "EdDSA", Key: edKey()}},
			want: `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"` + edX + `","kid":"1","use":"sig","alg":"EdDSA"}]}`,
		},
		{
			name: "P-256",
			keys: []jwk.Public{{KID: "1", Algorithm: "ES256", Key: ecKey(t)}},
			want: `{"keys":[{"kty":"EC","crv":"P-256","x":"` + p256X + `","y":"` + p256Y + `","kid":"1","use":"sig","alg":"ES256"}]}`,
		},
		{
			name: "RSA",
			keys: []jwk.Public{{KID: "1", Algorithm: "RS256", Key: rsaKey()}},
			want: `{"keys":[{"kty":"RSA","n":"` + rsaN + `","e":"AQAB","kid":"1","use":"sig","alg":"RS256"}]}`,
		},
		{
			name: "no kid, no alg",
			keys: []jwk.Public{{Key: edKey()}},
			want: `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"` + edX + `","use":"sig"}]}`,
		},
		{
			name: "a kid that must be escaped",
			keys: []jwk.Public{{KID: "a\"b\\\n\x01<é>&\u2028\x7f", Key: edKey()}},
			want: `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"` + edX + `","kid":"a\"b\\\n\u0001<é>&` + "\u2028\x7f" + `","use":"sig"}]}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if doc, err := jwk.MarshalSet(tt.keys...); err != nil || string(doc) != tt.want {
				t.Errorf("MarshalSet = %s, %v, want %s", doc, err, tt.want)
			}
		})
	}
}

func TestMarshalSetRoundTrip(t *testing.T) {
	keys := []jwk.Public{
		{KID: "a\"b\n<é>", Algorithm: "EdDSA", Key: edKey()},
		{KID: "r", Algorithm: "RS256", Key: &rsa.PublicKey{N: odd2048, E: 65537}},
	}
	for alg, curve := range map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, jwk.Public{KID: curve.Params().Name, Algorithm: alg, Key: &key.PublicKey})
	}
	doc, err := jwk.MarshalSet(keys...)
	if err != nil {
		t.Fatal(err)
	}
	read, skipped, err := jwks.Parse("acme", doc)
	if err != nil || len(read) != len(keys) || len(skipped) > 0 {
		t.Fatalf("Parse = %d keys, skipped %v, %v", len(read), skipped, err)
	}
	for i, k := range read {
		pub, _ := k.Public()
		if want := keys[i].Key.(interface{ Equal(crypto.PublicKey) bool }); !want.Equal(pub) {
			t.Errorf("key %d: read %v", i, pub)
		}
		if k.ID().KID != keys[i].KID || string(k.Algorithm()) != keys[i].Algorithm {
			t.Errorf("key %d: read %v", i, k)
		}
	}
}

// A coordinate has the size of its curve, whatever it begins with (RFC 7518, section 6.2.1.2), and
// a thumbprint covers it as it is written.
func TestLeadingZeroStays(t *testing.T) {
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
		x := base64.RawURLEncoding.EncodeToString(point[1:33])
		doc, err := jwk.MarshalSet(jwk.Public{Key: &key.PublicKey})
		if err != nil || !strings.Contains(string(doc), `"x":"`+x+`"`) {
			t.Errorf("MarshalSet = %s, %v, want x %s", doc, err, x)
		}
		return
	}
}

func TestOnlyPublicKeysAreWritten(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	//lint:ignore SA1019 a key that the standard library would not make
	off := &ecdsa.PublicKey{Curve: elliptic.P256(), X: big.NewInt(1), Y: big.NewInt(1)}
	for _, key := range []crypto.PublicKey{
		nil, ec, ed, &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: odd2048, E: 65537}, D: big.NewInt(3)}, []byte("secret"), "secret",
		&p224.PublicKey, off, (*ecdsa.PublicKey)(nil), &ecdsa.PublicKey{}, &ecdsa.PublicKey{Curve: elliptic.P256()}, *off,
		(*rsa.PublicKey)(nil), &rsa.PublicKey{}, &rsa.PublicKey{N: odd2048}, &rsa.PublicKey{N: new(big.Int), E: 3}, rsa.PublicKey{N: odd2048, E: 3},
		ed25519.PublicKey(nil), ed25519.PublicKey(make([]byte, 31)),
	} {
		if doc, err := jwk.MarshalSet(jwk.Public{KID: "1", Key: key}); err == nil || doc != nil {
			t.Errorf("MarshalSet of a %T = %s", key, doc)
		}
		if print, err := jwk.Thumbprint(key); err == nil || print != "" {
			t.Errorf("Thumbprint of a %T = %s", key, print)
		}
	}
}

func TestMarshalSetErrors(t *testing.T) {
	if doc, err := jwk.MarshalSet(jwk.Public{KID: "\xff", Key: edKey()}); err == nil || doc != nil {
		t.Errorf("MarshalSet of a kid that is not UTF-8 = %s", doc)
	}
	_, err := jwk.MarshalSet(jwk.Public{KID: "a\n" + strings.Repeat("x", 1<<20), Key: "secret"})
	if got, want := fmt.Sprint(err), `jwk: key "a\n`+strings.Repeat("x", 62)+`"...: string is not a public key that can be written`; got != want {
		t.Errorf("error = %s, want %s", got, want)
	}
}

func TestThumbprint(t *testing.T) {
	tests := []struct {
		name string
		key  crypto.PublicKey
		want string
	}{
		{"RFC 7638, section 3.1", rsaKey(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"},
		{"RFC 8037, appendix A.3", edKey(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"},
		{"the key of RFC 7515, appendix A.3", ecKey(t), "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := jwk.Thumbprint(tt.key); err != nil || got != tt.want {
				t.Errorf("Thumbprint = %s, %v, want %s", got, err, tt.want)
			}
		})
	}
}
