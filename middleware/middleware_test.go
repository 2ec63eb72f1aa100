package middleware_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

func TestRequire(t *testing.T) {
	token := good("acme")
	const (
		anonymous = `Bearer realm="api"`
		malformed = `Bearer realm="api", error="invalid_request", error_description="the Authorization header is not the word Bearer, a space and a token"`
		refused   = `Bearer realm="api", error="invalid_token", error_description="the token is not accepted"`
	)
	tests := []struct {
		name      string
		headers   []string
		status    int
		challenge string
		err       error
	}{
		{"good", bearer(token), 200, "", nil},
		{"scheme in any case", []string{"Authorization", "bEARER " + token}, 200, "", nil},
		{"none", nil, 401, anonymous, middleware.ErrNoToken},
		{"empty", []string{"Authorization", ""}, 401, anonymous, middleware.ErrNoToken},
		{"another scheme", []string{"Authorization", "Basic " + token}, 401, anonymous, middleware.ErrNoToken},
		{"no scheme", []string{"Authorization", token}, 401, anonymous, middleware.ErrNoToken},
		{"no space", []string{"Authorization", "Bearer" + token}, 401, anonymous, middleware.ErrNoToken},
		{"another scheme that begins like it", []string{"Authorization", "Bearer2 " + token}, 401, anonymous, middleware.ErrNoToken},
		{"a letter that folds to one of Bearer's", []string{"Authorization", "Bearer\u017f " + token}, 400, malformed, middleware.ErrRequest},
		{"Bearer in the middle of the token", []string{"Authorization", "Bearer x Bearer " + token}, 400, malformed, middleware.ErrRequest},
		{"Bearer within the token", []string{"Authorization", "Bearer xBearer " + token}, 400, malformed, middleware.ErrRequest},
		{"Bearer after another scheme", []string{"Authorization", "Basic Bearer " + token}, 401, anonymous, middleware.ErrNoToken},
		{"Bearer twice", []string{"Authorization", "Bearer Bearer " + token}, 400, malformed, middleware.ErrRequest},
		{"two spaces", []string{"Authorization", "Bearer  " + token}, 200, "", nil},
		{"tab", []string{"Authorization", "Bearer\t" + token}, 400, malformed, middleware.ErrRequest},
		{"no-break space", []string{"Authorization", "Bearer\u00a0" + token}, 400, malformed, middleware.ErrRequest},
		{"colon", []string{"Authorization", "Bearer: " + token}, 400, malformed, middleware.ErrRequest},
		{"a space after it", []string{"Authorization", "Bearer " + token + " "}, 400, malformed, middleware.ErrRequest},
		{"quotes", []string{"Authorization", `Bearer "` + token + `"`}, 400, malformed, middleware.ErrRequest},
		{"two tokens", []string{"Authorization", "Bearer " + token + ", Bearer " + token}, 400, malformed, middleware.ErrRequest},
		{"only padding", []string{"Authorization", "Bearer ==="}, 400, malformed, middleware.ErrRequest},
		{"padding within", []string{"Authorization", "Bearer a=b"}, 400, malformed, middleware.ErrRequest},
		{"padding", []string{"Authorization", "Bearer " + token + "="}, 401, refused, verifier.ErrMalformed},
		{"two headers", []string{"Authorization", "Bearer " + token, "Authorization", "Bearer " + token}, 400,
			`Bearer realm="api", error="invalid_request", error_description="more than one Authorization header"`, middleware.ErrRequest},
		{"two headers, one empty", []string{"Authorization", "Bearer " + token, "Authorization", ""}, 400,
			`Bearer realm="api", error="invalid_request", error_description="more than one Authorization header"`, middleware.ErrRequest},
		{"not a JWT", bearer("null"), 401, refused, verifier.ErrMalformed},
		{"too large", bearer(strings.Repeat("A", 16<<10+1)), 401, refused, verifier.ErrTooLarge},
		{"expired", bearer(good("acme", "exp", now)), 401, refused, verifier.ErrExpired},
		{"signature", bearer(badSignature(token)), 401, refused, verifier.ErrSignature},
		{"another tenant's key", bearer(sign(secretOf("globex"), "kid-acme", claimsOf("acme"))), 401, refused, verifier.ErrSignature},
		{"unknown kid", bearer(sign(secretOf("acme"), "other", claimsOf("acme"))), 401, refused, verifier.ErrUnknownKey},
		{"unknown tenant", bearer(good("initech")), 401, refused, verifier.ErrUnknownTenant},
	}
	v := newVerifier(t, "acme", "globex")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := serve(middleware.Require(v)(whoami), request("GET", "/", tt.headers...))
			if w.Code != tt.status || w.Header().Get("WWW-Authenticate") != tt.challenge {
				t.Errorf("got %d %q, want %d %q", w.Code, w.Header().Get("WWW-Authenticate"), tt.status, tt.challenge)
			}
			if passed := w.Body.String() == "ann of acme"; passed != (tt.status == 200) {
				t.Errorf("body %q", w.Body)
			}
			var c capture
			serve(middleware.Require(v, middleware.WithErrorHandler(c.handle))(whoami), request("GET", "/", tt.headers...))
			if !errors.Is(c.err, tt.err) {
				t.Errorf("error %v, want %v", c.err, tt.err)
			}
		})
	}
}

func TestOptional(t *testing.T) {
	acme, globex := newVerifier(t, "acme"), newVerifier(t, "globex")
	tests := []struct {
		name    string
		headers []string
		status  int
		body    string
	}{
		{"none", nil, 200, "nobody"},
		{"another scheme", []string{"Authorization", "Basic eDp5"}, 200, "nobody"},
		{"good", bearer(good("acme")), 200, "ann of acme"},
		{"bad", bearer(badSignature(good("acme"))), 401, ""},
		{"malformed", []string{"Authorization", "Bearer"}, 400, ""},
		{"twice", append(bearer(good("acme")), bearer(good("acme"))...), 400, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := serve(middleware.Optional(acme)(whoami), request("GET", "/", tt.headers...))
			if w.Code != tt.status || tt.body != "" && w.Body.String() != tt.body {
				t.Errorf("got %d %s, want %d %s", w.Code, w.Body, tt.status, tt.body)
			}
		})
	}
	t.Run("hides the identity around it", func(t *testing.T) {
		h := middleware.Require(globex)(middleware.Optional(acme, middleware.FromCookie("session"))(whoami))
		// The outer one uses the header, and the inner one sees the header too.
		if w := serve(h, request("GET", "/", bearer(good("globex"))...)); w.Code != 401 {
			t.Errorf("got %d %s, want 401: the token is not good for the inner one", w.Code, w.Body)
		}
		h = middleware.Require(globex, middleware.FromCookie("outer"))(middleware.Optional(acme)(whoami))
		if w := serve(h, request("GET", "/", "Cookie", "outer="+good("globex"))); w.Code != 200 || w.Body.String() != "nobody" {
			t.Errorf("got %d %s, want 200 nobody", w.Code, w.Body)
		}
	})
	t.Run("RequireScope inside", func(t *testing.T) {
		w := serve(middleware.Optional(acme)(middleware.RequireScope("a")(whoami)), request("GET", "/"))
		if w.Code != 401 || w.Header().Get("WWW-Authenticate") != `Bearer realm="api"` {
			t.Errorf("got %d %v, want 401", w.Code, w.Header())
		}
	})
}

// The token of the innermost Require counts.
func TestNested(t *testing.T) {
	acme, globex := newVerifier(t, "acme"), newVerifier(t, "globex")
	h := middleware.Require(acme)(middleware.Require(globex, middleware.Realm("inner"))(whoami))
	w := serve(h, request("GET", "/", bearer(good("acme"))...))
	if got := w.Header().Get("WWW-Authenticate"); w.Code != 401 || !strings.HasPrefix(got, `Bearer realm="inner", error="invalid_token"`) {
		t.Errorf("got %d %s", w.Code, got)
	}
}

func TestClaimsFrom(t *testing.T) {
	type claims struct {
		Sub string `json:"sub"`
		Org string `json:"org"`
	}
	got, err := claims{}, error(nil)
	h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got, err = middleware.ClaimsFrom[claims](r.Context())
	})
	serve(middleware.Require(newVerifier(t, "acme"))(h), request("GET", "/", bearer(good("acme", "org", "o1"))...))
	if err != nil || got != (claims{"ann", "o1"}) {
		t.Errorf("ClaimsFrom = %v, %v", got, err)
	}
	serve(middleware.Require(newVerifier(t, "acme"))(h), request("GET", "/", bearer(good("acme", "org", 1))...))
	if err == nil || got != (claims{}) {
		t.Errorf("ClaimsFrom of claims that do not fit = %v, %v", got, err)
	}
	if _, err := middleware.ClaimsFrom[claims](t.Context()); err != middleware.ErrNoToken {
		t.Errorf("ClaimsFrom without a token: %v, want ErrNoToken", err)
	}
}

// Requests that pass a middleware which trusts a list of paths, or the request itself.
func TestTraps(t *testing.T) {
	v := newVerifier(t, "acme", "globex")
	guarded := middleware.Require(v)(whoami)
	mux := http.NewServeMux()
	mux.Handle("/api/", guarded)
	mux.Handle("GET /v1.0/users", guarded)
	mux.Handle("GET /t/{tenant}/x", middleware.Require(v, middleware.TenantFromPath("tenant"))(whoami))

	t.Run("no path, method or spelling opens a protected handler", func(t *testing.T) {
		for _, method := range []string{"GET", "HEAD", "POST", "OPTIONS", "TRACE", "get", "BREW"} {
			for _, target := range []string{"/api", "/api/", "/api/x", "/api/x/../y", "//api/x", "/api//x", "/API/x", "/api/%2e%2e/api/x", "/api/x;y", "/apiary",
				"/v1.0/users", "/v1x0/users", "/v1.0/users/", "/public/../api/x", "/api/x?public=1", "/api/health", "/api/x.css"} {
				w := serve(mux, request(method, target))
				if w.Code == 200 || strings.Contains(w.Body.String(), "nobody") {
					t.Errorf("%s %s: got %d %s", method, target, w.Code, w.Body)
				}
				// Also with the bare handler, as another router would call it.
				if w := serve(guarded, request(method, target)); w.Code != 401 {
					t.Errorf("%s %s, unrouted: got %d", method, target, w.Code)
				}
			}
		}
	})
	t.Run("HEAD is GET", func(t *testing.T) {
		server := httptest.NewServer(mux)
		defer server.Close()
		resp, err := http.Head(server.URL + "/v1.0/users")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		want := strconv.Itoa(len(`{"error":"unauthorized","error_description":"a bearer token is required"}` + "\n"))
		if got := resp.Header.Get("Content-Length"); resp.StatusCode != 401 || got != want {
			t.Errorf("got %d, Content-Length %s, want 401, %s", resp.StatusCode, got, want)
		}
	})
	t.Run("one tenant's denial is final", func(t *testing.T) {
		// The token is good for acme, and the request is for globex.
		if w := serve(mux, request("GET", "/t/globex/x", bearer(good("acme"))...)); w.Code != 401 {
			t.Errorf("got %d %s, want 401", w.Code, w.Body)
		}
		if err := v.Suspend("acme"); err != nil {
			t.Fatal(err)
		}
		defer v.Resume("acme")
		for _, target := range []string{"/t/acme/x", "/t/globex/x", "/api/x"} {
			if w := serve(mux, request("GET", target, bearer(good("acme"))...)); w.Code != 401 {
				t.Errorf("suspended, %s: got %d %s, want 401", target, w.Code, w.Body)
			}
		}
	})
	t.Run("identity comes from the token alone", func(t *testing.T) {
		const claims = "sub=root&tenant=globex&user=root"
		r := httptest.NewRequest("POST", "/api/x?"+claims, strings.NewReader(claims))
		for name, value := range map[string]string{
			"Content-Type": "application/x-www-form-urlencoded", "X-Auth-Subject": "root", "X-Auth-Tenant": "globex",
			"X-Forwarded-User": "root", "Cookie": "sub=root; tenant=globex", "X-Original-Authorization": "Bearer " + good("globex"),
		} {
			r.Header.Set(name, value)
		}
		if w := serve(mux, r); w.Code != 401 {
			t.Errorf("without a token: got %d %s", w.Code, w.Body)
		}
		r.Header.Set("Authorization", "Bearer "+good("acme"))
		if w := serve(mux, r); w.Body.String() != "ann of acme" {
			t.Errorf("got %s, want ann of acme", w.Body)
		}
	})
}
