package middleware_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

func TestRequire(t *testing.T) {
	token := good("acme")
	const (
		anonymous = `Bearer realm="api"`
		malformed = `Bearer realm="api", error="invalid_request", error_description="the Authorization header is not the word Bearer, one space and a token"`
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
		{"two spaces", []string{"Authorization", "Bearer  " + token}, 400, malformed, middleware.ErrRequest},
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
		{"too large", bearer(strings.Repeat("A", 9000)), 401, refused, verifier.ErrTooLarge},
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

// Whatever is wrong with a token, a client that tries them cannot tell.
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

func TestCookieAndQuery(t *testing.T) {
	v, token := newVerifier(t, "acme"), good("acme")
	cookie, query := middleware.FromCookie("session"), middleware.FromQuery("access_token")
	at := func(token string) string { return "/?access_token=" + token }
	tests := []struct {
		name    string
		opts    []middleware.Option
		target  string
		headers []string
		status  int
	}{
		{"both off", nil, at(token), []string{"Cookie", "session=" + token}, 401},
		{"cookie", []middleware.Option{cookie}, "/", []string{"Cookie", "a=b; session=" + token + "; c=d"}, 200},
		{"cookie on a second line", []middleware.Option{cookie}, "/", []string{"Cookie", "a=b", "Cookie", "session=" + token}, 200},
		{"cookie of another name", []middleware.Option{cookie}, "/", []string{"Cookie", "Session=" + token + "; xsession=" + token}, 401},
		{"cookie, empty", []middleware.Option{cookie}, "/", []string{"Cookie", "session="}, 401},
		{"cookie, not a token", []middleware.Option{cookie}, "/", []string{"Cookie", "session=a b"}, 400},
		{"cookie, quoted", []middleware.Option{cookie}, "/", []string{"Cookie", `session="` + token + `"`}, 400},
		{"cookie, bad token", []middleware.Option{cookie}, "/", []string{"Cookie", "session=" + badSignature(token)}, 401},
		{"two cookies", []middleware.Option{cookie}, "/", []string{"Cookie", "session=" + token + "; session=" + token}, 400},
		{"two cookies, one malformed", []middleware.Option{cookie}, "/", []string{"Cookie", "session=a b; session=" + token}, 400},
		{"two cookies, one empty", []middleware.Option{cookie}, "/", []string{"Cookie", "session=; session=" + token}, 400},
		{"two cookies, one without a value", []middleware.Option{cookie}, "/", []string{"Cookie", "session =" + token + ";session"}, 400},
		{"two cookies on two lines", []middleware.Option{cookie}, "/", []string{"Cookie", "session=" + token, "Cookie", "session=" + token}, 400},
		{"cookie and header", []middleware.Option{cookie}, "/", append(bearer(token), "Cookie", "session="+token), 400},
		{"cookie and another scheme", []middleware.Option{cookie}, "/", []string{"Authorization", "Basic eDp5", "Cookie", "session=" + token}, 200},
		{"cookie and a malformed header", []middleware.Option{cookie}, "/", []string{"Authorization", "Bearer", "Cookie", "session=" + token}, 400},
		{"empty cookie and header", []middleware.Option{cookie}, "/", append(bearer(token), "Cookie", "session="), 200},
		{"query", []middleware.Option{query}, at(token), nil, 200},
		{"query, escaped", []middleware.Option{query}, at(strings.ReplaceAll(token, ".", "%2E")), nil, 200},
		{"query, empty", []middleware.Option{query}, at(""), nil, 400},
		{"query, not a token", []middleware.Option{query}, at("a%20b"), nil, 400},
		{"query, of another name", []middleware.Option{query}, "/?Access_token=" + token, nil, 401},
		{"query, twice", []middleware.Option{query}, at(token + "&access_token=" + token), nil, 400},
		{"query and header", []middleware.Option{query}, at(token), bearer(token), 400},
		{"query and cookie", []middleware.Option{query, cookie}, at(token), []string{"Cookie", "session=" + token}, 400},
		{"both on, header", []middleware.Option{query, cookie}, "/", bearer(token), 200},
		{"both on, none", []middleware.Option{query, cookie}, "/", nil, 401},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := serve(middleware.Require(v, tt.opts...)(whoami), request("GET", tt.target, tt.headers...))
			if w.Code != tt.status {
				t.Errorf("got %d %s, want %d", w.Code, w.Body, tt.status)
			}
			want := "no-store"
			if w.Code == 200 {
				want = ""
				if strings.HasPrefix(tt.name, "query") {
					want = "private, no-store"
				}
			}
			if got := w.Header().Get("Cache-Control"); got != want {
				t.Errorf("Cache-Control %q, want %q", got, want)
			}
		})
	}
}

func TestTenant(t *testing.T) {
	v := newVerifier(t, "acme", "globex")
	hosts := middleware.TenantFromHost(map[string]string{"ACME.example": "acme", "globex.example.": "globex", "[::1]": "acme"})
	path := middleware.TenantFromPath("tenant")
	failing := func(err error) middleware.Option {
		return middleware.TenantFunc(func(*http.Request) (string, error) { return "acme", err })
	}
	tests := []struct {
		name   string
		opt    middleware.Option
		target string // its host is what is asked
		token  string
		status int
		err    error
	}{
		{"host", hosts, "http://acme.example/", good("acme"), 200, nil},
		{"host with port, final dot and another case", hosts, "http://Acme.EXAMPLE.:8080/", good("acme"), 200, nil},
		{"host in IPv6", hosts, "http://[::1]:8080/", good("acme"), 200, nil},
		{"another tenant's host", hosts, "http://globex.example/", good("acme"), 401, verifier.ErrIssuer},
		{"unknown host", hosts, "http://evil.example/", good("acme"), 401, verifier.ErrUnknownTenant},
		{"a host under it", hosts, "http://x.acme.example/", good("acme"), 401, verifier.ErrUnknownTenant},
		{"a host that begins with it", hosts, "http://acme.example.evil.example/", good("acme"), 401, verifier.ErrUnknownTenant},
		{"path", path, "/t/acme/x", good("acme"), 200, nil},
		{"another tenant's path", path, "/t/globex/x", good("acme"), 401, verifier.ErrIssuer},
		{"unknown tenant in the path", path, "/t/initech/x", good("acme"), 401, verifier.ErrUnknownTenant},
		{"tenant of another case", path, "/t/Acme/x", good("acme"), 401, verifier.ErrUnknownTenant},
		{"no tenant in the path", path, "/u/acme", good("acme"), 401, verifier.ErrUnknownTenant},
		{"func", failing(nil), "/", good("acme"), 200, nil},
		{"func says another tenant", failing(nil), "/", good("globex"), 401, verifier.ErrIssuer},
		{"func cannot tell", failing(errors.New("no answer")), "/", good("acme"), 503, verifier.ErrUnavailable},
		{"func's context ended", failing(context.DeadlineExceeded), "/", good("acme"), 503, context.DeadlineExceeded},
		{"func knows no such tenant", failing(verifier.ErrUnknownTenant), "/", good("acme"), 401, verifier.ErrUnknownTenant},
		{"func calls it malformed", failing(fmt.Errorf("%w: a \"\r\nX: y", middleware.ErrRequest)), "/", good("acme"), 400, middleware.ErrRequest},
		{"func finds no token", failing(middleware.ErrNoToken), "/", good("acme"), 401, middleware.ErrNoToken},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for kind, wrap := range map[string]func(*verifier.Verifier, ...middleware.Option) func(http.Handler) http.Handler{
				"Require": middleware.Require, "Optional": middleware.Optional,
			} {
				var c capture
				h := wrap(v, tt.opt, middleware.WithErrorHandler(c.handle))(whoami)
				mux := http.NewServeMux()
				mux.Handle("/t/{tenant}/x", h)
				mux.Handle("/", h)
				w := serve(mux, request("GET", tt.target, append(bearer(tt.token), "X-Forwarded-Host", "acme.example")...))
				if w.Code != tt.status || !errors.Is(c.err, tt.err) {
					t.Errorf("%s: got %d %v, want %d %v", kind, w.Code, c.err, tt.status, tt.err)
				}
				if strings.ContainsAny(w.Header().Get("WWW-Authenticate"), "\r\n") {
					t.Errorf("%s: WWW-Authenticate %q", kind, w.Header().Get("WWW-Authenticate"))
				}
			}
		})
	}
}

func TestTenantFuncIsNotAskedWithoutToken(t *testing.T) {
	opt := middleware.TenantFunc(func(*http.Request) (string, error) { t.Error("asked"); return "", nil })
	if w := serve(middleware.Require(newVerifier(t, "acme"), opt)(whoami), request("GET", "/")); w.Code != 401 {
		t.Errorf("got %d, want 401", w.Code)
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
		// The outer one takes the header, at which the inner one looks too.
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

// The innermost Require says who the caller is.
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
	// The error of a tenant's Check may be anything, and is no verdict of ours.
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

func TestPanicsWhenBuilt(t *testing.T) {
	v := newVerifier(t, "acme")
	tenant := func(*http.Request) (string, error) { return "acme", nil }
	handler := func(http.ResponseWriter, *http.Request, error) {}
	for name, build := range map[string]func(){
		"nil verifier":                func() { middleware.Require(nil) },
		"nil verifier, optional":      func() { middleware.Optional(nil) },
		"nil option":                  func() { middleware.Require(v, nil) },
		"nil handler":                 func() { middleware.Require(v)(nil) },
		"nil handler in RequireScope": func() { middleware.RequireScope("a")(nil) },
		"two tenant options":          func() { middleware.Require(v, middleware.TenantFromPath("t"), middleware.TenantFunc(tenant)) },
		"tenant option twice":         func() { middleware.Require(v, middleware.TenantFromPath("t"), middleware.TenantFromPath("t")) },
		"nil TenantFunc":              func() { middleware.TenantFunc(nil) },
		"empty path name":             func() { middleware.TenantFromPath("") },
		"no hosts":                    func() { middleware.TenantFromHost(nil) },
		"empty host":                  func() { middleware.TenantFromHost(map[string]string{"": "acme"}) },
		"host without tenant":         func() { middleware.TenantFromHost(map[string]string{"a.example": ""}) },
		"host with port":              func() { middleware.TenantFromHost(map[string]string{"a.example:80": "acme"}) },
		"host outside ASCII":          func() { middleware.TenantFromHost(map[string]string{"bücher.example": "acme"}) },
		"host twice":                  func() { middleware.TenantFromHost(map[string]string{"a.example": "acme", "A.example.": "acme"}) },
		"nil error handler":           func() { middleware.WithErrorHandler(nil) },
		"two error handlers": func() {
			middleware.Require(v, middleware.WithErrorHandler(handler), middleware.WithErrorHandler(handler))
		},
		"empty cookie name":     func() { middleware.FromCookie("") },
		"bad cookie name":       func() { middleware.FromCookie("a=b") },
		"two cookies":           func() { middleware.Require(v, middleware.FromCookie("a"), middleware.FromCookie("b")) },
		"empty query name":      func() { middleware.FromQuery("") },
		"two queries":           func() { middleware.Require(v, middleware.FromQuery("a"), middleware.FromQuery("b")) },
		"empty realm":           func() { middleware.Realm("") },
		"realm with a line end": func() { middleware.Realm("a\r\nb") },
		"realm outside ASCII":   func() { middleware.Realm("é") },
		"two realms":            func() { middleware.Require(v, middleware.Realm("a"), middleware.Realm("b")) },
		"no scopes":             func() { middleware.RequireScope() },
		"empty scope":           func() { middleware.RequireScope("a", "") },
		"two scopes in one":     func() { middleware.RequireScope("a b") },
		"scope with a quote":    func() { middleware.RequireScope(`a"`) },
		"scope with a line end": func() { middleware.RequireScope("a\n") },
		"no audience":           func() { middleware.RequireAudience() },
		"empty audience":        func() { middleware.RequireAudience("") },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if text, ok := recover().(string); !ok || !strings.HasPrefix(text, "middleware: ") {
					t.Errorf("panic %v, want one that says why", text)
				}
			}()
			build()
		})
	}
}

// Where auth by a list of paths or by trust in the request goes wrong.
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
				// And with the handler itself, however a router gets there.
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
		// Good for acme, whose iss it has; asked for as globex.
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

// Nothing that is written holds the token; the kid is in errors alone, quoted.
func TestNothingLeaks(t *testing.T) {
	v := newVerifier(t, "acme", "globex")
	const kid = "evil-kid\r\n\"X: y"
	var requests []func() *http.Request
	var parts []string // of tokens
	for _, token := range []string{
		good("acme"), badSignature(good("acme")), good("acme", "exp", 1), good("acme", "aud", "admin"), good("globex"), good("initech"),
		sign(secretOf("acme"), kid, claimsOf("acme")), sign(secretOf("acme"), kid, "x"), good("acme")[:40], strings.Repeat("eyJ", 4000),
	} {
		for part := range strings.SplitSeq(token, ".") {
			if len(part) > 4 {
				parts = append(parts, part)
			}
		}
		for _, header := range [][]string{
			bearer(token), {"Authorization", token}, {"Authorization", "Bearer" + token}, {"Authorization", "Bearer " + token + " " + token},
			{"Authorization", "Bearer " + token + "\r\nX: y"}, append(bearer(token), bearer(token)...), {"Cookie", "session=" + token},
			{"Cookie", "session=" + token + "; session=" + token}, append(bearer(token), "Cookie", "session="+token),
		} {
			requests = append(requests, func() *http.Request { return request("GET", "/?t="+token[:5], header...) })
		}
	}
	find := func(what, text string, parts ...string) {
		for _, part := range parts {
			if strings.Contains(text, part) {
				t.Errorf("%s holds %q: %.200s", what, part, text)
			}
		}
	}
	demands := middleware.RequireAudience("admin")(middleware.RequireScope("x")(whoami))
	cookie := middleware.FromCookie("session")
	for _, opts := range [][]middleware.Option{{cookie}, {cookie, middleware.WithDetail()}, {cookie, middleware.WithErrorHandler(middleware.MastraErrors)},
		{cookie, middleware.TenantFromPath("tenant")}, {cookie, middleware.FromQuery("t"), middleware.WithDetail()}} {
		for _, r := range requests {
			w := serve(middleware.Require(v, opts...)(demands), r())
			out := fmt.Sprintf("%d %q %s", w.Code, w.Header(), w.Body)
			if w.Code < 400 {
				t.Errorf("passed: %s", out)
			}
			find("the answer", out, parts...)
			find("the answer", out, "evil", "kid-acme", "https://", "ann", "\\r", "\\n\"")
		}
	}
	for _, r := range requests {
		var c capture
		serve(middleware.Require(v, cookie, middleware.WithErrorHandler(c.handle))(demands), r())
		text := fmt.Sprintf("%v %+v %s", c.err, c.err, c.err)
		find("the error", text, parts...)
		find("the error", strings.ReplaceAll(text, strconv.Quote(kid), ""), "evil", "\r", "\n", "https://", "ann")
	}
}

func FuzzAuthorization(f *testing.F) {
	token := good("acme")
	for _, seed := range []string{"", "Bearer", "Bearer ", "Bearer " + token, "bearer " + token, "Bearer  " + token, "Bearer " + token + " x", "Bearer" + token,
		token, "Basic eDp5", "Basic x, Bearer " + token, "Bearer null", "Bearer " + token + "\n", "Bearer a=b", "Bearer \"", "\x00", "Bearer\t" + token} {
		f.Add(seed)
	}
	h := middleware.Require(newVerifier(f, "acme"))(whoami)
	f.Fuzz(func(t *testing.T, value string) {
		w := serve(h, request("GET", "/", "Authorization", value))
		isGood := len(value) > 7 && strings.EqualFold(value[:7], "Bearer ") && value[7:] == token
		if (w.Code == 200) != isGood {
			t.Errorf("%q: status %d", value, w.Code)
		}
		if w.Code == 200 {
			return
		}
		if w.Code != 400 && w.Code != 401 {
			t.Errorf("%q: status %d", value, w.Code)
		}
		if c := w.Header().Values("WWW-Authenticate"); len(c) != 1 || !challengeSyntax.MatchString(c[0]) || len(c[0]) > 200 {
			t.Errorf("%q: WWW-Authenticate %q", value, c)
		}
		if !json.Valid(w.Body.Bytes()) || w.Body.Len() > 200 {
			t.Errorf("%q: body %q", value, w.Body)
		}
	})
}

// A request costs a bounded number of allocations, however long its header is.
func TestLongHeaderIsCheap(t *testing.T) {
	h := middleware.Require(newVerifier(t, "acme"))(whoami)
	for _, value := range []string{"Bearer " + strings.Repeat("A", 1<<20), strings.Repeat("A", 1<<20), "Bearer" + strings.Repeat(" ", 1<<20)} {
		r := request("GET", "/", "Authorization", value)
		if n := testing.AllocsPerRun(2, func() { serve(h, r) }); n > 60 {
			t.Errorf("%.20s...: %v allocations", value, n)
		}
	}
}

// TestQueriesInDisguise: a second token, or a malformed one, does not hide behind
// what net/url leaves out.
func TestQueriesInDisguise(t *testing.T) {
	v, good := exampleVerifier()
	for _, tt := range []struct {
		query, header string
		want          int // 200 as Require and Optional, or the status of both
	}{
		{query: "access_token=" + good, want: 200},
		{query: "a=b&access_token=" + good + "&c=%zz", want: 200},
		{query: "access%5Ftoken=" + good, want: 200},
		{query: "access_token=" + good + "&access_token=x%zz", want: 400},
		{query: "access_token=" + good + "&access_token=other;a=b", want: 400},
		{query: "a;access_token=other&access_token=" + good, want: 400},
		{query: "access_token=" + good + "&access%5ftoken=x", want: 400},
		{query: "access_token=bad%zz", want: 400},
		{query: "access_token=", want: 400},
		{query: "access_token", want: 400},
		{query: "access_token=x%zz", header: "Bearer " + good, want: 400},
	} {
		for _, guard := range []func(*verifier.Verifier, ...middleware.Option) func(http.Handler) http.Handler{middleware.Require, middleware.Optional} {
			h := guard(v, middleware.FromQuery("access_token"))(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if _, ok := middleware.TokenFrom(r.Context()); !ok {
					t.Errorf("%s: served without identity", tt.query)
				}
			}))
			r := httptest.NewRequest("GET", "/", nil)
			r.URL.RawQuery = tt.query
			if tt.header != "" {
				r.Header.Set("Authorization", tt.header)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != tt.want {
				t.Errorf("%s: %d, want %d", tt.query, w.Code, tt.want)
			}
		}
	}
}

// TestHostInBrackets: brackets are for IPv6 addresses, not for names.
func TestHostInBrackets(t *testing.T) {
	v, good := exampleVerifier()
	h := middleware.Require(v, middleware.TenantFromHost(map[string]string{"acme.example": "acme", "[::1]": "acme"}))(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for host, want := range map[string]int{"acme.example": 200, "ACME.example:80": 200, "[acme.example]": 401, "[acme.example]:80": 401, "[::1]:80": 200, "[::1]": 200, "": 401} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = host
		r.Header.Set("Authorization", "Bearer "+good)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%q: %d, want %d", host, w.Code, want)
		}
	}
}
