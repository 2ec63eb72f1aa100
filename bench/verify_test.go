package bench

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier"
)

const (
	issuer   = "https://auth.acme.example"
	audience = "https://api.acme.example"
)

var id = keystore.ID{Tenant: "acme", KID: "2026-11-a"}

// claims, with those that a signer adds, make nine; with HS256 the token is of
// 413 bytes.
func claims() map[string]any {
	return map[string]any{
		"sub": "user-31415", "nbf": 1767225600, "iat": 1767225600, "exp": 4102444800,
		"jti": "3f0d8c1e-6b7a-4c52-9e1f-2a8b5d7c9e04", "scope": "orders:read orders:write", "tid": "acme",
	}
}

// A pair is a signer and the key that verifies its tokens.
type pair struct {
	signer *rotation.Signer
	key    *keystore.Key
}

func newPair(b *testing.B, alg keystore.Algorithm) pair {
	b.Helper()
	var private any
	var err error
	switch alg {
	case keystore.HS256:
		private = []byte(strings.Repeat("k", 32))
	case keystore.RS256:
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	case keystore.ES256:
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case keystore.EdDSA:
		_, private, err = ed25519.GenerateKey(rand.Reader)
	}
	check(b, err)
	var p pair
	p.signer, err = rotation.NewStaticSigner(id, alg, private, rotation.SignerConfig{
		Issuer:   func(string) string { return issuer },
		Audience: func(string) []string { return []string{audience} },
	})
	check(b, err)
	if secret, ok := private.([]byte); ok {
		p.key, err = keystore.NewSecret(id, alg, secret)
	} else {
		p.key, err = keystore.NewPublic(id, alg, private.(crypto.Signer).Public())
	}
	check(b, err)
	return p
}

func (p pair) sign(b *testing.B, claims map[string]any) string {
	b.Helper()
	token, err := p.signer.Sign(b.Context(), id.Tenant, claims)
	check(b, err)
	return token
}

func (p pair) verifier(b *testing.B) *verifier.Verifier {
	b.Helper()
	keys, err := keystore.NewStatic(p.key)
	check(b, err)
	v, err := verifier.New(verifier.Config{
		CacheTTL: -1,
		Tenants: []verifier.Tenant{{ID: id.Tenant, Keys: keys, Algorithms: []keystore.Algorithm{p.key.Algorithm()},
			Issuer: issuer, Audiences: []string{audience}}},
	})
	check(b, err)
	return v
}

func check(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

var algorithms = []keystore.Algorithm{keystore.HS256, keystore.ES256, keystore.RS256, keystore.EdDSA}

// BenchmarkVerify measures the full check of a good token.
func BenchmarkVerify(b *testing.B) {
	for _, alg := range algorithms {
		p := newPair(b, alg)
		token := p.sign(b, claims())
		if alg == keystore.HS256 && len(token) != 413 {
			b.Fatalf("the token is of %d bytes", len(token))
		}
		v := p.verifier(b)
		b.Run("alg="+string(alg)+"/cache=off", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(b.Context(), token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkReject measures bad tokens, and a good one for comparison.
func BenchmarkReject(b *testing.B) {
	p := newPair(b, keystore.HS256)
	other := pair{signer: newOther(b), key: p.key}
	good := p.sign(b, claims())
	v := p.verifier(b)
	expired := claims()
	expired["exp"] = time.Now().Add(-time.Hour).Unix()
	for _, tt := range []struct {
		why, token string
		want       error
	}{
		{"none", good, nil},
		{"garbage", strings.Repeat("garbage", 59), verifier.ErrMalformed},
		{"not-base64", strings.Repeat("!", 20) + good[20:], verifier.ErrMalformed},
		{"forged", other.sign(b, claims()), verifier.ErrSignature},
		{"expired", p.sign(b, expired), verifier.ErrExpired},
		{"too-large", strings.Repeat("A", 1<<20), verifier.ErrTooLarge},
	} {
		b.Run("why="+tt.why, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(b.Context(), tt.token); !errors.Is(err, tt.want) {
					b.Fatal(err)
				}
			}
		})
	}
}

func newOther(b *testing.B) *rotation.Signer {
	s, err := rotation.NewStaticSigner(id, keystore.HS256, []byte(strings.Repeat("x", 32)), rotation.SignerConfig{
		Issuer:   func(string) string { return issuer },
		Audience: func(string) []string { return []string{audience} },
	})
	check(b, err)
	return s
}

// BenchmarkSign signs the caller's claims.
func BenchmarkSign(b *testing.B) {
	for _, alg := range algorithms {
		b.Run("alg="+string(alg), func(b *testing.B) {
			p := newPair(b, alg)
			c := struct {
				Sub   string `json:"sub"`
				Scope string `json:"scope"`
			}{"user-31415", "orders:read orders:write"}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.signer.Sign(b.Context(), id.Tenant, c); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
