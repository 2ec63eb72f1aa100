package middleware_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier"
)

// must is for examples. A program handles the error.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func Example() {
	secret := []byte("at least 32 bytes; keep it elsewhere")
	key := must(keystore.NewSecret(keystore.ID{Tenant: "acme", KID: "2026-11"}, keystore.HS256, secret))
	v := must(verifier.New(verifier.Config{Tenants: []verifier.Tenant{{
		ID: "acme", Keys: must(keystore.NewStatic(key)), Algorithms: []keystore.Algorithm{keystore.HS256},
		Issuer: "https://acme.example", Audiences: []string{"api"},
	}}}))
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, _ := middleware.TokenFrom(r.Context())
		fmt.Fprintf(w, "hello %s of %s\n", token.Subject(), token.Tenant())
	})
	mux := http.NewServeMux()
	mux.Handle("/hello", middleware.Require(v)(hello))

	// A request without a token, and one with a good token.
	signer := must(rotation.NewStaticSigner(key.ID(), keystore.HS256, secret, rotation.SignerConfig{}))
	token := must(signer.Sign(context.Background(), "acme", map[string]any{"sub": "ann", "iss": "https://acme.example", "aud": "api"}))
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("GET", "/hello", nil))
	fmt.Println(w.Code, w.Header().Get("WWW-Authenticate"))
	r := httptest.NewRequest("GET", "/hello", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	w = httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	fmt.Println(w.Code, w.Body)
	// Output:
	// 401 Bearer realm="api"
	// 200 hello ann of acme
}

// A page greets users by name, and visitors without a token as strangers. A bad token is
// refused.
func ExampleOptional() {
	v, token := exampleVerifier()
	page := middleware.Optional(v)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := "stranger"
		if t, ok := middleware.TokenFrom(r.Context()); ok {
			name = t.Subject()
		}
		io.WriteString(w, "hello "+name)
	}))
	for _, header := range []string{"", "Bearer " + token, "Bearer x" + token} {
		r := httptest.NewRequest("GET", "/", nil)
		if header != "" {
			r.Header.Set("Authorization", header)
		}
		w := httptest.NewRecorder()
		page.ServeHTTP(w, r)
		fmt.Println(w.Code, w.Body)
	}
	// Output:
	// 200 hello stranger
	// 200 hello ann
	// 401 {"error":"invalid_token","error_description":"the token is not accepted"}
}

// fixedKeys is a [middleware.PublicKeySource] of keys that never change. A service that
// rotates its keys passes a Keyring of package rotation instead.
type fixedKeys []*keystore.Key

func (f fixedKeys) PublicKeys(context.Context, string) ([]*keystore.Key, time.Duration, error) {
	return f, time.Hour, nil
}

// One service signs and publishes its public key. Another one reads the key and verifies.
func ExampleJWKS() {
	private := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	id := keystore.ID{Tenant: "acme", KID: "2026-11"}
	public := must(keystore.NewPublic(id, keystore.ES256, private.Public()))
	mux := http.NewServeMux()
	mux.Handle("/.well-known/jwks.json", middleware.JWKS(fixedKeys{public}, middleware.OneTenant("acme")))

	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("GET", "/.well-known/jwks.json", nil))
	fmt.Println(w.Code, w.Header().Get("Content-Type"), w.Header().Get("Cache-Control"))

	// A program reads the set with a jwks.Client, which keeps it up to date.
	keys, _, err := jwks.Parse("acme", w.Body.Bytes())
	if err != nil {
		panic(err)
	}
	v := must(verifier.New(verifier.Config{Tenants: []verifier.Tenant{{
		ID: "acme", Keys: must(keystore.NewStatic(keys...)), Algorithms: []keystore.Algorithm{keystore.ES256},
		Issuer: "https://acme.example", Audiences: []string{"api"},
	}}}))
	signer := must(rotation.NewStaticSigner(id, keystore.ES256, private, rotation.SignerConfig{}))
	token := must(signer.Sign(context.Background(), "acme", map[string]any{"sub": "ann", "iss": "https://acme.example", "aud": "api"}))
	fmt.Println(v.Verify(context.Background(), token))
	// Output:
	// 200 application/jwk-set+json public, max-age=3600
	// token of "acme", key "2026-11" (ES256) <nil>
}

func ExampleRequireScope() {
	v, token := exampleVerifier()
	list := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "orders") })

	mux := http.NewServeMux()
	mux.Handle("GET /orders", middleware.RequireScope("orders:read")(list))
	mux.Handle("POST /orders", middleware.RequireScope("orders:write")(list))
	protected := middleware.Require(v)(mux)

	for _, method := range []string{"GET", "POST"} {
		r := httptest.NewRequest(method, "/orders", nil)
		r.Header.Set("Authorization", "Bearer "+token) // with the scope orders:read
		w := httptest.NewRecorder()
		protected.ServeHTTP(w, r)
		fmt.Println(method, w.Code, w.Body)
	}
	// Output:
	// GET 200 orders
	// POST 403 {"error":"insufficient_scope","error_description":"the token lacks a scope that is needed here"}
}

func ExampleTransport() {
	v, _ := exampleVerifier()
	server := httptest.NewServer(middleware.Require(v)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, _ := middleware.TokenFrom(r.Context())
		fmt.Fprintf(w, "hello %s", token.Subject())
	})))
	defer server.Close()

	signer := must(rotation.NewStaticSigner(keystore.ID{Tenant: "acme", KID: "1"}, keystore.HS256, secretOf("acme"), rotation.SignerConfig{
		Issuer:   func(tenant string) string { return "https://" + tenant + ".example" },
		Audience: func(string) []string { return []string{"api"} },
	}))
	client := &http.Client{Transport: &middleware.Transport{Source: signer.Source("acme", map[string]any{"sub": "orders-service"})}}
	resp := must(client.Get(server.URL))
	defer resp.Body.Close()
	fmt.Println(resp.StatusCode, string(must(io.ReadAll(resp.Body))))
	// Output: 200 hello orders-service
}

// exampleVerifier returns a verifier, and a token that it accepts.
func exampleVerifier() (*verifier.Verifier, string) {
	key := must(keystore.NewSecret(keystore.ID{Tenant: "acme", KID: "1"}, keystore.HS256, secretOf("acme")))
	v := must(verifier.New(verifier.Config{Tenants: []verifier.Tenant{{
		ID: "acme", Keys: must(keystore.NewStatic(key)), Algorithms: []keystore.Algorithm{keystore.HS256},
		Issuer: "https://acme.example", Audiences: []string{"api"},
	}}}))
	return v, exampleToken("scope", "orders:read")
}

// exampleToken returns a token with this claim that the verifier of exampleVerifier accepts.
func exampleToken(claim string, value any) string {
	return sign(secretOf("acme"), "1", claimsOf("acme", claim, value, "exp", time.Now().Add(time.Hour).Unix()))
}
