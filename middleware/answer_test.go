package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

// All bad tokens get the same answer, so that a client which tries tokens learns nothing.
func TestSameAnswerForEveryBadToken(t *testing.T) {
	v := newVerifier(t, "acme")
	server := httptest.NewServer(middleware.Require(v)(whoami))
	defer server.Close()
	answer := func(method, token string) string {
		r, err := http.NewRequest(method, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		resp.Header.Del("Date")
		return fmt.Sprint(resp.StatusCode, resp.Header, string(body))
	}
	for _, method := range []string{"GET", "HEAD", "POST"} {
		want := answer(method, badSignature(good("acme")))
		if !strings.HasPrefix(want, "401 ") || !strings.Contains(want, "Content-Length:[74]") {
			t.Errorf("%s: %s", method, want)
		}
		for name, token := range map[string]string{
			"unknown kid": sign(secretOf("acme"), "other", claimsOf("acme")),
			"expired":     good("acme", "exp", 1),
			"malformed":   "x.y",
			"audience":    good("acme", "aud", "other"),
			"tenant":      good("globex"),
		} {
			if got := answer(method, token); got != want {
				t.Errorf("%s, %s:\n got %s\nwant %s", method, name, got, want)
			}
		}
	}
}

func TestDetail(t *testing.T) {
	v := newVerifier(t, "acme")
	kid := `x", error="insufficient_scope", realm="pwned` + "\r\nSet-Cookie: a=b"
	tests := []struct{ name, token, want string }{
		{"expired", good("acme", "exp", 1), "the token is not accepted: expired"},
		{"claim", good("acme", "exp", nil), "the token is not accepted: missing_claim"},
		{"kid", sign(secretOf("acme"), kid, claimsOf("acme")), "the token is not accepted: unknown_key"},
		{"a name that the sender chose", good("acme", "I\u017fs", "x"), "the token is not accepted: claim"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := serve(middleware.Require(v, middleware.WithDetail())(whoami), request("GET", "/", bearer(tt.token)...))
			want := `Bearer realm="api", error="invalid_token", error_description="` + tt.want + `"`
			if got := w.Header().Get("WWW-Authenticate"); got != want {
				t.Errorf("WWW-Authenticate %s, want %s", got, want)
			}
			if want := `{"error":"invalid_token","error_description":"` + tt.want + `"}` + "\n"; w.Body.String() != want {
				t.Errorf("body %s, want %s", w.Body, want)
			}
		})
	}
}

func TestUnavailable(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	waiting, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{{ID: "acme", Keys: waitStore{}, AnyIssuer: true,
		AnyAudience: true, AllowNoExpiry: true, Algorithms: []keystore.Algorithm{keystore.HS256}}}})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		v    *verifier.Verifier
		ctx  context.Context
		is   error
	}{
		{"the store says so", downVerifier(t, fmt.Errorf("down: %w", keystore.ErrUnavailable)), t.Context(), verifier.ErrUnavailable},
		{"the store breaks its contract", downVerifier(t, errors.New(`broken "kid-acme"`)), t.Context(), verifier.ErrUnavailable},
		{"the context ends", waiting, ended, context.Canceled},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var c capture
			r := request("GET", "/", bearer(good("acme", "exp", now+1))...).WithContext(tt.ctx)
			w := serve(middleware.Require(tt.v)(whoami), r)
			serve(middleware.Require(tt.v, middleware.WithErrorHandler(c.handle))(whoami), r)
			if w.Code != 503 || w.Header().Get("Retry-After") != "1" || w.Header().Get("WWW-Authenticate") != "" {
				t.Errorf("got %d %v, want 503 with Retry-After", w.Code, w.Header())
			}
			if want := `{"error":"temporarily_unavailable","error_description":"the token cannot be checked now"}` + "\n"; w.Body.String() != want {
				t.Errorf("body %q, want %q", w.Body, want)
			}
			if !errors.Is(c.err, verifier.ErrUnavailable) || !errors.Is(c.err, tt.is) || errors.Is(c.err, verifier.ErrInvalid) {
				t.Errorf("error %v", c.err)
			}
		})
	}
}

func TestErrorHandler(t *testing.T) {
	var c capture
	h := middleware.Require(newVerifier(t, "acme"), middleware.WithErrorHandler(c.handle), middleware.Realm(`a "b\`))(whoami)
	w := serve(h, request("GET", "/"))
	want := http.Header{
		"Www-Authenticate":       {`Bearer realm="a \"b\\"`},
		"Cache-Control":          {"no-store"},
		"X-Content-Type-Options": {"nosniff"},
	}
	if got := w.Result().Header; !maps.EqualFunc(got, want, slices.Equal) || w.Body.Len() != 0 {
		t.Errorf("headers before the handler: %v, want %v", got, want)
	}
}

func TestStatus(t *testing.T) {
	// The error of a tenant's Check may be any error. It does not decide the answer.
	check := &verifier.Error{Reason: verifier.ReasonClaim, Err: errors.Join(verifier.ErrClaim, middleware.ErrScope, verifier.ErrUnavailable)}
	for _, tt := range []struct {
		err  error
		want int
	}{
		{middleware.ErrNoToken, 401},
		{fmt.Errorf("x: %w", middleware.ErrRequest), 400},
		{middleware.ErrScope, 403},
		{verifier.ErrInvalid, 401},
		{verifier.ErrRevoked, 401},
		{verifier.ErrUnavailable, 503},
		{&verifier.Error{Reason: verifier.ReasonUnavailable, Err: verifier.ErrUnavailable}, 503},
		{check, 401},
		{context.Canceled, 503},
		{io.EOF, 503},
	} {
		if got := middleware.Status(tt.err); got != tt.want {
			t.Errorf("Status(%v) = %d, want %d", tt.err, got, tt.want)
		}
	}
}

func TestMastraErrors(t *testing.T) {
	handler := middleware.WithErrorHandler(middleware.MastraErrors)
	v := newVerifier(t, "acme")
	tests := []struct {
		name    string
		v       *verifier.Verifier
		headers []string
		status  int
		body    string
		header  string
		value   string
	}{
		{"none", v, nil, 401, `{"error":"Invalid or expired token"}`, "WWW-Authenticate", `Bearer realm="api"`},
		{"malformed", v, []string{"Authorization", "Bearer"}, 400, `{"error":"Invalid or expired token"}`, "Cache-Control", "no-store"},
		{"expired", v, bearer(good("acme", "exp", 1)), 401, `{"error":"Invalid or expired token"}`, "WWW-Authenticate", `Bearer realm="api", error="invalid_token", error_description="the token is not accepted"`},
		{"scope", v, bearer(good("acme")), 403, `{"error":"Access denied"}`, "Content-Type", "application/json"},
		{"store down", downVerifier(t, keystore.ErrUnavailable), bearer(good("acme")), 503, `{"error":"Authorization error"}`, "Retry-After", "1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := serve(middleware.Require(tt.v, handler)(middleware.RequireScope("x")(whoami)), request("GET", "/", tt.headers...))
			if w.Code != tt.status || w.Body.String() != tt.body || w.Header().Get(tt.header) != tt.value {
				t.Errorf("got %d %s %v, want %d %s %s: %s", w.Code, w.Body, w.Header(), tt.status, tt.body, tt.header, tt.value)
			}
		})
	}
}
