package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
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

func TestRequireAnyScope(t *testing.T) {
	v := newVerifier(t, "acme")
	h := middleware.RequireAnyScope("orders:read", "orders:write")(whoami)
	for _, tt := range []struct {
		changes []any
		status  int
	}{
		{[]any{"scope", "orders:write"}, 200},
		{[]any{"scope", "x orders:read"}, 200},
		{[]any{"scp", []string{"orders:write"}}, 200},
		{[]any{"scope", "orders:read2 Orders:read"}, 403},
		{[]any{"scope", ""}, 403},
		{nil, 403},
	} {
		w := serve(middleware.Require(v)(h), request("GET", "/", bearer(good("acme", tt.changes...))...))
		const lacking = `Bearer realm="api", error="insufficient_scope", error_description="the token lacks a scope that is needed here", scope="orders:read"`
		if got := w.Header().Get("WWW-Authenticate"); w.Code != tt.status || (got == lacking) != (tt.status == 403) {
			t.Errorf("%v: got %d %s, want %d", tt.changes, w.Code, got, tt.status)
		}
	}
}

func TestRequireFunc(t *testing.T) {
	v := newVerifier(t, "acme")
	own := errors.New("bob alone may")
	for _, tt := range []struct {
		name   string
		err    error
		status int
	}{
		{"allowed", nil, 200},
		{"refused", own, 403},
		{"refused with an error that means another status", middleware.ErrNoToken, 403},
		{"refused with a verdict", &verifier.Error{Reason: verifier.ReasonExpired, Err: verifier.ErrExpired}, 403},
		{"cannot tell, among others", errors.Join(own, verifier.ErrInvalid, verifier.ErrUnavailable), 503},
		{"refused for its context", context.Canceled, 403},
		{"a scope", middleware.ErrScope, 403},
		{"cannot tell", fmt.Errorf("no answer: %w", verifier.ErrUnavailable), 503},
		{"the verifier cannot tell", &verifier.Error{Reason: verifier.ReasonUnavailable, Err: verifier.ErrUnavailable}, 503},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := middleware.RequireFunc(func(token *verifier.Token) error {
				if token.Subject() != "ann" {
					t.Errorf("asked about %v", token)
				}
				return tt.err
			})(whoami)
			var c capture
			r := request("GET", "/", bearer(good("acme"))...)
			w := serve(middleware.Require(v, middleware.WithErrorHandler(c.handle))(h), r)
			if w.Code != tt.status || !errors.Is(c.err, tt.err) {
				t.Errorf("got %d %v, want %d %v", w.Code, c.err, tt.status, tt.err)
			}
			// An error handler may wrap the error before it asks for the status.
			if c.err != nil && middleware.Status(fmt.Errorf("x: %w", errors.Join(c.err))) != tt.status {
				t.Errorf("Status of the wrapped error is not %d", tt.status)
			}
			if tt.err == own && !errors.Is(c.err, middleware.ErrForbidden) {
				t.Errorf("error %v, want ErrForbidden", c.err)
			}
			if w := serve(middleware.Require(v)(h), r); tt.status == 403 && !strings.HasPrefix(w.Header().Get("WWW-Authenticate"), `Bearer realm="api", error="insufficient_scope", `) {
				t.Errorf("answer %s", answerOf(w))
			}
		})
	}
}

func TestDemandsWithoutRequire(t *testing.T) {
	for name, h := range map[string]http.Handler{
		"any scope": middleware.RequireAnyScope("a")(whoami),
		"claim":     middleware.RequireClaim("sub", "ann")(whoami),
		"func":      middleware.RequireFunc(func(*verifier.Token) error { t.Error("asked without a token"); return nil })(whoami),
		"scope":     middleware.RequireScope("a")(whoami),
		"audience":  middleware.RequireAudience("a")(whoami),
	} {
		w := serve(h, request("GET", "/", bearer(good("acme", "scope", "a", "aud", "a"))...))
		if w.Code != 401 || w.Header().Get("WWW-Authenticate") != `Bearer realm="api"` {
			t.Errorf("%s: got %d %v, want 401", name, w.Code, w.Header())
		}
	}
}
