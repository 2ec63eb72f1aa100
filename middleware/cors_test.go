package middleware_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/middleware"
)

// Scripts of any origin may read what is public: each answer says so, errors too, since a
// browser hides an error without it. A preflight request says the same for every tenant.
func TestPublicDocumentsAllowAnyOrigin(t *testing.T) {
	src := &published{keys: []*keystore.Key{publicKey(t, "acme", "1", keystore.ES256)}, maxAge: time.Minute}
	down := &published{err: keystore.ErrUnavailable}
	acme, nobody := middleware.OneTenant("acme"), func(*http.Request) (string, error) { return "", nil }
	resource := middleware.ResourceMetadata(middleware.Resource{URL: "https://api.example", AuthorizationServers: []string{"https://acme.example"}})
	for name, tt := range map[string]struct {
		h      http.Handler
		status int // of GET
	}{
		"keys":               {middleware.JWKS(src, acme), 200},
		"keys of no tenant":  {middleware.JWKS(src, nobody), 404},
		"keys, unavailable":  {middleware.JWKS(down, acme), 503},
		"metadata":           {middleware.Discovery(src, acme, issuerIs("https://acme.example")), 200},
		"metadata of nobody": {middleware.Discovery(src, acme, issuerIs("")), 404},
		"resource":           {resource, 200},
	} {
		t.Run(name, func(t *testing.T) {
			want := map[string]int{"GET": tt.status, "HEAD": tt.status, "POST": 405, "OPTIONS": 204}
			for method, status := range want {
				w := askSet(t, tt.h, method, "Origin", "https://x.example", "Cookie", "a=b")
				h := w.Header()
				if w.Code != status || len(h.Values("Access-Control-Allow-Origin")) != 1 || h.Get("Access-Control-Allow-Origin") != "*" ||
					h.Get("Access-Control-Allow-Credentials") != "" || h.Get("X-Content-Type-Options") != "nosniff" {
					t.Errorf("%s: %s", method, answerOf(w))
				}
				if public := status == 200; public != (h.Get("Cache-Control") != "no-store") || public != (h.Get("ETag") != "") {
					t.Errorf("%s: Cache-Control %q, ETag %q", method, h.Get("Cache-Control"), h.Get("ETag"))
				}
			}
			w := askSet(t, tt.h, "OPTIONS", "Origin", "https://x.example", "Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", "mcp-protocol-version")
			wanted := `204 map["Access-Control-Allow-Headers":["*"] "Access-Control-Allow-Methods":["GET, HEAD"] "Access-Control-Allow-Origin":["*"] ` +
				`"Access-Control-Max-Age":["86400"] "Allow":["GET, HEAD, OPTIONS"] "Cache-Control":["no-store"] "X-Content-Type-Options":["nosniff"]] `
			if got := answerOf(w); got != wanted {
				t.Errorf("preflight:\n got %s\nwant %s", got, wanted)
			}
		})
	}
	// A CORS middleware further out has its say on its own routes, not on these.
	w := serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Access-Control-Allow-Origin", "https://x.example")
		middleware.JWKS(src, acme).ServeHTTP(w, r)
	}), request("GET", "/"))
	if got := w.Header().Values("Access-Control-Allow-Origin"); len(got) != 1 || got[0] != "*" {
		t.Errorf("Access-Control-Allow-Origin = %q", got)
	}
}
