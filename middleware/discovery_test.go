package middleware_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/middleware"
)

// The metadata has the members that readers need, and the issuer byte for byte.
func TestDiscovery(t *testing.T) {
	src := &published{maxAge: time.Minute, keys: []*keystore.Key{
		publicKey(t, "acme", "1", keystore.ES256), publicKey(t, "acme", "2", keystore.EdDSA), publicKey(t, "acme", "3", keystore.ES256), secretKey(t, "acme", "s"),
	}}
	for issuer, uri := range map[string]string{
		"https://acme.example":      "https://acme.example/.well-known/jwks.json",
		"https://acme.example/":     "https://acme.example/.well-known/jwks.json",
		"https://host.example/acme": "https://host.example/acme/.well-known/jwks.json",
	} {
		h := middleware.Discovery(src, middleware.OneTenant("acme"), issuerIs(issuer))
		w := askSet(t, h, "GET")
		want := `{"issuer":"` + issuer + `","jwks_uri":"` + uri + `","response_types_supported":["id_token"],"subject_types_supported":["public"],` +
			`"id_token_signing_alg_values_supported":["ES256","EdDSA"]}`
		if w.Code != http.StatusOK || w.Body.String() != want {
			t.Errorf("%d %s, want %s", w.Code, w.Body, want)
		}
		if got := w.Header(); got.Get("Content-Type") != "application/json" || got.Get("Cache-Control") != "public, max-age=60" || got.Get("ETag") == "" {
			t.Errorf("header = %v", got)
		}
		if w := askSet(t, h, "GET", "If-None-Match", w.Header().Get("ETag")); w.Code != http.StatusNotModified {
			t.Errorf("If-None-Match: %d", w.Code)
		}
		if w := askSet(t, h, "POST"); w.Code != http.StatusMethodNotAllowed {
			t.Errorf("POST = %d", w.Code)
		}
	}
}

func TestDiscoveryWithoutKeys(t *testing.T) {
	acme := middleware.OneTenant("acme")
	for name, tt := range map[string]struct {
		src    published
		issuer string
		want   int
	}{
		"no issuer":   {published{keys: []*keystore.Key{publicKey(t, "acme", "1", keystore.ES256)}}, "", 404},
		"not found":   {published{err: keystore.ErrNotFound}, "https://acme.example", 404},
		"unavailable": {published{err: keystore.ErrUnavailable}, "https://acme.example", 503},
		"a secret":    {published{keys: []*keystore.Key{secretKey(t, "acme", "s")}}, "https://acme.example", 503},
	} {
		if w := askSet(t, middleware.Discovery(&tt.src, acme, issuerIs(tt.issuer)), "GET"); w.Code != tt.want || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v, want %d", name, w.Code, w.Header(), tt.want)
		}
	}
	for name, build := range map[string]func(){
		"source": func() { middleware.Discovery(nil, acme, issuerIs("x")) },
		"tenant": func() { middleware.Discovery(new(published), nil, issuerIs("x")) },
		"issuer": func() { middleware.Discovery(new(published), acme, nil) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("nil %s: no panic", name)
				}
			}()
			build()
		}()
	}
}

// Our own reader finds the keys by the issuer alone.
func TestDiscoveryByOurReader(t *testing.T) {
	src := &published{maxAge: time.Minute, keys: []*keystore.Key{publicKey(t, "acme", "1", keystore.ES256)}}
	tenant := func(r *http.Request) (string, error) { return r.PathValue("tenant"), nil }
	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	defer srv.Close()
	mux.Handle("/{tenant}/.well-known/jwks.json", middleware.JWKS(src, tenant))
	mux.Handle("/{tenant}/.well-known/openid-configuration", middleware.Discovery(src, tenant, func(tenant string) string { return srv.URL + "/" + tenant }))

	client := jwks.New(jwks.Config{})
	defer client.Close(t.Context())
	source, err := client.Discover("theirs", srv.URL+"/acme", jwks.SourceConfig{AllowLoopback: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := source.WaitReady(t.Context()); err != nil || !source.HasKey("1") {
		t.Errorf("WaitReady = %v; %+v", err, source.Status())
	}
}
