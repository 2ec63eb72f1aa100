package middleware_test

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"testing"

	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

func TestRequireScope(t *testing.T) {
	v := newVerifier(t, "acme")
	const lacking = `Bearer realm="api", error="insufficient_scope", error_description="the token lacks a scope that is needed here", scope="orders:read orders:write"`
	tests := []struct {
		name    string
		changes []any
		status  int
	}{
		{"both", []any{"scope", "orders:write x orders:read"}, 200},
		{"scp", []any{"scp", []string{"orders:write", "orders:read"}}, 200},
		{"one", []any{"scope", "orders:read"}, 403},
		{"none", nil, 403},
		{"longer ones", []any{"scope", "orders:read2 orders:write2"}, 403},
		{"another case", []any{"scope", "Orders:read Orders:write"}, 403},
		{"not a string", []any{"scope", map[string]any{"orders:read": true, "orders:write": true}}, 403},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := request("GET", "/", bearer(good("acme", tt.changes...))...)
			h := middleware.RequireScope("orders:read", "orders:write")(whoami)
			w := serve(middleware.Require(v)(h), r)
			if w.Code != tt.status {
				t.Errorf("got %d %s, want %d", w.Code, w.Body, tt.status)
			}
			var c capture
			serve(middleware.Require(v, middleware.WithErrorHandler(c.handle))(h), r)
			if tt.status == 200 {
				if c.err != nil {
					t.Errorf("error %v", c.err)
				}
				return
			}
			if got := w.Header().Get("WWW-Authenticate"); got != lacking {
				t.Errorf("WWW-Authenticate %s, want %s", got, lacking)
			}
			if !errors.Is(c.err, middleware.ErrScope) || errors.Is(c.err, verifier.ErrInvalid) {
				t.Errorf("error %v, want ErrScope", c.err)
			}
		})
	}
}

func TestRequireAudience(t *testing.T) {
	v := newVerifier(t, "acme")
	h := middleware.RequireAudience("admin", "ops")(whoami)
	for _, tt := range []struct {
		name   string
		aud    any
		status int
	}{
		{"it", "admin", 200},
		{"among others", []string{"api", "admin"}, 200},
		{"another of the tenant's", "api", 401},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var c capture
			r := request("GET", "/", bearer(good("acme", "aud", tt.aud))...)
			w := serve(middleware.Require(v, middleware.WithErrorHandler(c.handle))(h), r)
			if w.Code != tt.status || (tt.status == 401) != errors.Is(c.err, verifier.ErrAudience) {
				t.Errorf("got %d %v, want %d", w.Code, c.err, tt.status)
			}
			want := serve(middleware.Require(v)(whoami), request("GET", "/", bearer("x.y.z")...))
			got := serve(middleware.Require(v)(h), r)
			if tt.status == 401 && (got.Body.String() != want.Body.String() || !maps.EqualFunc(got.Header(), want.Header(), slices.Equal)) {
				t.Errorf("a token for another audience: %v %s, want what any bad token gets", got.Header(), got.Body)
			}
		})
	}
}

func TestDemandsWithoutRequire(t *testing.T) {
	for name, h := range map[string]http.Handler{
		"scope":    middleware.RequireScope("a")(whoami),
		"audience": middleware.RequireAudience("a")(whoami),
	} {
		w := serve(h, request("GET", "/", bearer(good("acme", "scope", "a", "aud", "a"))...))
		if w.Code != 401 || w.Header().Get("WWW-Authenticate") != `Bearer realm="api"` {
			t.Errorf("%s: got %d %v, want 401", name, w.Code, w.Header())
		}
	}
}
