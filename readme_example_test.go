package keyturn_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/verifier"
)

// TestReadme holds the programs of the README to those of this file.

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func Example() {
	secret := []byte("at least 32 bytes; keep it elsewhere") // from a file: cut off the line end, which counts
	key := must(keystore.NewSecret(keystore.ID{Tenant: "acme", KID: "2026-11"}, keystore.HS256, secret))
	v := must(verifier.New(verifier.Config{Tenants: []verifier.Tenant{{
		ID: "acme", Keys: must(keystore.NewStatic(key)), Algorithms: []keystore.Algorithm{keystore.HS256},
		Issuer: "https://acme.example", Audiences: []string{"api"}, // Leeway: 30s after exp, unless you set it
	}}}))
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, _ := middleware.TokenFrom(r.Context())
		fmt.Fprintf(w, "hello %s of %s\n", token.Subject(), token.Tenant())
	})
	mux := http.NewServeMux()
	mux.Handle("/hello", middleware.Require(v)(hello)) // then http.ListenAndServe(":8080", mux)

	signer := must(rotation.NewStaticSigner(key.ID(), keystore.HS256, secret, rotation.SignerConfig{}))
	good := must(signer.Sign(context.Background(), "acme", map[string]any{"sub": "ann", "iss": "https://acme.example", "aud": "api"}))
	for _, token := range []string{"x" + good, good} {
		r := httptest.NewRequest("GET", "/hello", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		fmt.Println(w.Code, strings.TrimSpace(w.Body.String()))
	}
	// Output:
	// 401 {"error":"invalid_token","error_description":"the token is not accepted"}
	// 200 hello ann of acme
}

func TestReadmeIssuer(t *testing.T) {
	const issuer = "https://login.acme.example"
	client := jwks.New(jwks.Config{Logger: slog.Default()}) // one per process; without a Logger, failed fetches are silent
	keys := must(client.Discover("acme", issuer, jwks.SourceConfig{}))
	acme := verifier.Tenant{ID: "acme", Keys: keys, Issuer: issuer, Audiences: []string{"api"}, Algorithms: []keystore.Algorithm{keystore.RS256}}
	if _, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{acme}}); err != nil {
		t.Error(err)
	}
	if err := client.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestReadmeRotation(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	url := "redis://" + miniredis.RunT(t).Addr()
	kek := []byte("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlBQkNERUY=")
	createRing(ctx, t, url, kek)

	store := must(rediskeys.New(must(rediskeys.Open(url)), rediskeys.Config{})) // redis://, redis-sentinel:// or redis-cluster://
	keys := must(rotation.Open(ctx, store, rotation.Config{KEKs: must(rotation.ParseKEKs(kek)), Tenants: []string{"acme"}}))
	go must(rotation.NewRotator(keys)).Run(ctx) // in as many instances as you like
	err := keys.WaitReady(ctx)                  // then serve; keys is also the Keys of a verifier.Tenant
	signer := must(rotation.NewSigner(keys, rotation.SignerConfig{}))
	token := must(signer.Sign(ctx, "acme", map[string]any{"sub": "ann", "iss": "https://acme.example", "aud": "api"}))
	if err != nil {
		t.Fatal(err)
	}

	v := must(verifier.New(verifier.Config{Tenants: []verifier.Tenant{{
		ID: "acme", Keys: keys, Algorithms: []keystore.Algorithm{keystore.HS256},
		Issuer: "https://acme.example", Audiences: []string{"api"},
	}}}))
	if _, err := v.Verify(ctx, token); err != nil {
		t.Error(err)
	}
	if err := keys.Close(ctx); err != nil {
		t.Error(err)
	}
}

// createRing makes a ring whose instances poll every second, so that one that starts is ready soon. A call has
// a thirtieth of the Freshness.
func createRing(ctx context.Context, t *testing.T, url string, kek []byte) {
	t.Helper()
	store := must(rediskeys.New(must(rediskeys.Open(url)), rediskeys.Config{}))
	keys := must(rotation.Open(ctx, store, rotation.Config{KEKs: must(rotation.ParseKEKs(kek)), Tenants: []string{"acme"}, OneShot: true}))
	rotator := must(rotation.NewRotator(keys))
	if _, err := rotator.Create(ctx, "acme", rotation.Policy{Every: time.Minute, Freshness: 3 * time.Second}); err != nil {
		t.Fatal(err)
	}
	if err := keys.Close(ctx); err != nil {
		t.Error(err)
	}
}
