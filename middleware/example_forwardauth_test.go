package middleware_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/keyturn/keyturn/middleware"
)

// nginx, Caddy, Traefik and Envoy ask this server about each request, by the path of a profile. The
// client's own path is not what decides.
func ExampleForwardAuth() {
	v, token := exampleVerifier() // of a token with the scope orders:read
	door := middleware.ForwardAuth(v, middleware.ForwardAuthConfig{
		Profiles: map[string]middleware.Profile{
			"default":      {},
			"orders-write": {Scopes: []string{"orders:write"}},
		},
	})
	server := &http.Server{Handler: door, DisableGeneralOptionsHandler: true}
	// server.Serve(listener) is left out here.

	for _, path := range []string{"/authz", "/authz/orders-write", "/authz/none"} {
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		server.Handler.ServeHTTP(w, r)
		fmt.Printf("%s: %d, subject %q\n", path, w.Code, w.Header().Get("X-Auth-Subject"))
	}
	// Output:
	// /authz: 200, subject "ann"
	// /authz/orders-write: 403, subject ""
	// /authz/none: 404, subject ""
}
