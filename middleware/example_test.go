package middleware_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier"
)

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

	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("GET", "/hello", nil))
	fmt.Println(w.Code, w.Header().Get("WWW-Authenticate"))
	// Output: 401 Bearer realm="api"
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

// exampleVerifier returns a verifier, and a token that is good for it.
func exampleVerifier() (*verifier.Verifier, string) {
	key := must(keystore.NewSecret(keystore.ID{Tenant: "acme", KID: "1"}, keystore.HS256, secretOf("acme")))
	v := must(verifier.New(verifier.Config{Tenants: []verifier.Tenant{{
		ID: "acme", Keys: must(keystore.NewStatic(key)), Algorithms: []keystore.Algorithm{keystore.HS256},
		Issuer: "https://acme.example", Audiences: []string{"api"},
	}}}))
	return v, sign(secretOf("acme"), "1", claimsOf("acme", "scope", "orders:read", "exp", time.Now().Add(time.Hour).Unix()))
}
