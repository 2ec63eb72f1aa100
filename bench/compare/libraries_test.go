package compare

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	josejwt "github.com/go-jose/go-jose/v4/jwt"
	golangjwt "github.com/golang-jwt/jwt/v5"
	"github.com/lestrrat-go/jwx/v2/jwa"
	jwxjwt "github.com/lestrrat-go/jwx/v2/jwt"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
)

// A library verifies and signs as its own documentation says. Work that does not depend on the
// token is done before, where the library has a place for it.
type library struct {
	name string

	// verifier returns a function that accepts a good token: alg, signature, exp, nbf, iss, aud.
	verifier func(testing.TB, key) func(token string) error

	// signer returns a function that signs claims(), with kid and typ in the header.
	signer func(testing.TB, key) func() (string, error)

	// structSigner is signer for the same claims in a struct, nil if the library takes none.
	structSigner func(testing.TB, key) func() (string, error)

	// lacks are algorithms that the library does not know.
	lacks []string
}

var libraries = []library{
	{
		name: "keyturn",
		verifier: func(tb testing.TB, k key) func(string) error {
			v, ctx := k.keyturn(tb), tb.Context()
			return func(token string) error {
				_, err := v.Verify(ctx, token)
				return err
			}
		},
		signer: func(tb testing.TB, k key) func() (string, error) {
			s, err := rotation.NewStaticSigner(id, keystore.Algorithm(k.alg), k.private, rotation.SignerConfig{})
			if err != nil {
				tb.Fatal(err)
			}
			ctx, claims := tb.Context(), claims()
			return func() (string, error) { return s.Sign(ctx, tenant, claims) }
		},
		structSigner: func(tb testing.TB, k key) func() (string, error) {
			s, err := rotation.NewStaticSigner(id, keystore.Algorithm(k.alg), k.private, rotation.SignerConfig{})
			if err != nil {
				tb.Fatal(err)
			}
			ctx, claims := tb.Context(), newClaimsStruct()
			return func() (string, error) { return s.Sign(ctx, tenant, claims) }
		},
	},
	{
		name:  "golang-jwt",
		lacks: []string{"Ed25519"},
		verifier: func(tb testing.TB, k key) func(string) error {
			return func(token string) error {
				_, err := golangjwt.Parse(token,
					func(*golangjwt.Token) (any, error) { return k.public, nil },
					golangjwt.WithValidMethods([]string{k.alg}),
					golangjwt.WithIssuer(issuer),
					golangjwt.WithAudience(audience),
					golangjwt.WithExpirationRequired())
				return err
			}
		},
		signer: func(tb testing.TB, k key) func() (string, error) {
			method, claims := golangjwt.GetSigningMethod(k.alg), claims()
			return func() (string, error) {
				token := golangjwt.NewWithClaims(method, golangjwt.MapClaims(claims))
				token.Header["kid"] = kid
				return token.SignedString(k.private)
			}
		},
		structSigner: func(_ testing.TB, k key) func() (string, error) {
			at := golangjwt.NewNumericDate(time.Unix(issued, 0))
			method, claims := golangjwt.GetSigningMethod(k.alg), golangJWTClaims{
				RegisteredClaims: golangjwt.RegisteredClaims{
					Issuer: issuer, Subject: "user-31415", Audience: golangjwt.ClaimStrings{audience},
					ExpiresAt: golangjwt.NewNumericDate(time.Unix(expires, 0)), NotBefore: at, IssuedAt: at,
					ID: "3f0d8c1e-6b7a-4c52-9e1f-2a8b5d7c9e04",
				},
				Scope: "orders:read orders:write", TID: tenant,
			}
			return func() (string, error) {
				token := golangjwt.NewWithClaims(method, claims)
				token.Header["kid"] = kid
				return token.SignedString(k.private)
			}
		},
	},
	{
		name:  "jwx",
		lacks: []string{"Ed25519"},
		verifier: func(tb testing.TB, k key) func(string) error {
			return func(token string) error {
				_, err := jwxjwt.Parse([]byte(token),
					jwxjwt.WithKey(jwa.SignatureAlgorithm(k.alg), k.public),
					jwxjwt.WithIssuer(issuer),
					jwxjwt.WithAudience(audience),
					jwxjwt.WithRequiredClaim("exp"))
				return err
			}
		},
		signer: func(tb testing.TB, k key) func() (string, error) {
			signing := jwxKey(tb, k)
			return func() (string, error) {
				b := jwxjwt.NewBuilder().Issuer(issuer).Subject("user-31415").Audience([]string{audience}).
					Expiration(time.Unix(expires, 0)).NotBefore(time.Unix(issued, 0)).IssuedAt(time.Unix(issued, 0)).
					JwtID("3f0d8c1e-6b7a-4c52-9e1f-2a8b5d7c9e04").Claim("scope", "orders:read orders:write").Claim("tid", tenant)
				token, err := b.Build()
				if err != nil {
					return "", err
				}
				signed, err := jwxjwt.Sign(token, jwxjwt.WithKey(jwa.SignatureAlgorithm(k.alg), signing))
				return string(signed), err
			}
		},
	},
	{
		name:  "go-jose",
		lacks: []string{"Ed25519"},
		verifier: func(tb testing.TB, k key) func(string) error {
			return func(token string) error {
				parsed, err := josejwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(k.alg)})
				if err != nil {
					return err
				}
				var claims josejwt.Claims
				if err := parsed.Claims(k.public, &claims); err != nil {
					return err
				}
				if claims.Expiry == nil {
					return errors.New("no exp")
				}
				return claims.Validate(josejwt.Expected{Issuer: issuer, AnyAudience: josejwt.Audience{audience}, Time: time.Now()})
			}
		},
		signer: func(tb testing.TB, k key) func() (string, error) {
			s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(k.alg), Key: k.private},
				(&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", kid))
			if err != nil {
				tb.Fatal(err)
			}
			claims := claims()
			return func() (string, error) { return josejwt.Signed(s).Claims(claims).Serialize() }
		},
		structSigner: func(tb testing.TB, k key) func() (string, error) {
			s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(k.alg), Key: k.private},
				(&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", kid))
			if err != nil {
				tb.Fatal(err)
			}
			claims := newClaimsStruct()
			return func() (string, error) { return josejwt.Signed(s).Claims(claims).Serialize() }
		},
	},
}

// claimsStruct are claims() for libraries that sign any struct.
type claimsStruct struct {
	Issuer   string `json:"iss"`
	Subject  string `json:"sub"`
	Audience string `json:"aud"`
	Expires  int64  `json:"exp"`
	From     int64  `json:"nbf"`
	Issued   int64  `json:"iat"`
	ID       string `json:"jti"`
	Scope    string `json:"scope"`
	TID      string `json:"tid"`
}

func newClaimsStruct() claimsStruct {
	return claimsStruct{issuer, "user-31415", audience, expires, issued, issued,
		"3f0d8c1e-6b7a-4c52-9e1f-2a8b5d7c9e04", "orders:read orders:write", tenant}
}

// golangJWTClaims are the same claims for golang-jwt.
type golangJWTClaims struct {
	Scope string `json:"scope"`
	TID   string `json:"tid"`
	golangjwt.RegisteredClaims
}

// libraryNamed returns one of libraries.
func libraryNamed(tb testing.TB, name string) library {
	tb.Helper()
	for _, l := range libraries {
		if l.name == name {
			return l
		}
	}
	tb.Fatalf("no library %q", name)
	return library{}
}

// knows reports whether the library has alg.
func (l library) knows(alg string) bool {
	for _, a := range l.lacks {
		if a == alg {
			return false
		}
	}
	return true
}

// stdlib returns the bare verification of the same bytes: the hash and the signature. Everything
// that can be decoded before is. No library can be faster.
func stdlib(tb testing.TB, k key, token string) func() bool {
	tb.Helper()
	dot := strings.LastIndexByte(token, '.')
	signed := token[:dot]
	sig, err := base64.RawURLEncoding.DecodeString(token[dot+1:])
	if err != nil {
		tb.Fatal(err)
	}
	switch public := k.public.(type) {
	case *rsa.PublicKey:
		return func() bool { return rsa.VerifyPKCS1v15(public, k.hash(), k.digest(signed), sig) == nil }
	case *ecdsa.PublicKey:
		r, s := new(big.Int).SetBytes(sig[:len(sig)/2]), new(big.Int).SetBytes(sig[len(sig)/2:])
		der, err := asn1.Marshal(struct{ R, S *big.Int }{r, s})
		if err != nil {
			tb.Fatal(err)
		}
		return func() bool { return ecdsa.VerifyASN1(public, k.digest(signed), der) }
	case ed25519.PublicKey:
		message := []byte(signed)
		return func() bool { return ed25519.Verify(public, message, sig) }
	}
	tb.Fatalf("no bare verification for %s", k.alg)
	return nil
}
