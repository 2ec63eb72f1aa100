package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

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
		target string // its host is that of the request
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

func TestPanicsWhenBuilt(t *testing.T) {
	v := newVerifier(t, "acme")
	tenant := func(*http.Request) (string, error) { return "acme", nil }
	handler := func(http.ResponseWriter, *http.Request, error) {}
	panicsWhenBuilt(t, map[string]func(){
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
	})
}

func TestPlacesAndDemandsPanicWhenBuilt(t *testing.T) {
	v := newVerifier(t, "acme")
	found := func(*http.Request) string { return "" }
	metadata := middleware.WithResourceMetadata("https://api.example/x")
	panicsWhenBuilt(t, map[string]func(){
		"FromHeader without a name":      func() { middleware.FromHeader("") },
		"FromHeader with a bad name":     func() { middleware.FromHeader("X Jwt") },
		"FromHeader with a line end":     func() { middleware.FromHeader("X-Jwt\r\n") },
		"FromHeader outside ASCII":       func() { middleware.FromHeader("X-J\u212a") },
		"FromHeader not UTF-8":           func() { middleware.FromHeader("X-J\xff") },
		"FromHeader of Authorization":    func() { middleware.FromHeader("authorization") },
		"FromHeader of Cookie":           func() { middleware.FromHeader("cookie") },
		"FromHeader of Connection":       func() { middleware.FromHeader("connection") },
		"FromHeader that proxies keep":   func() { middleware.FromHeader("proxy-authorization") },
		"FromHeader of Host":             func() { middleware.FromHeader("host") },
		"FromHeader twice":               func() { middleware.Require(v, middleware.FromHeader("X-Jwt"), middleware.FromHeader("x-jwt")) },
		"nil FromFunc":                   func() { middleware.FromFunc(nil) },
		"FromFunc twice":                 func() { middleware.Require(v, middleware.FromFunc(found), middleware.FromFunc(found)) },
		"no place for a token":           func() { middleware.Require(v, middleware.WithoutAuthorization()) },
		"no place, authenticator":        func() { middleware.Authenticator(v, middleware.WithoutAuthorization()) },
		"nil verifier, authenticator":    func() { middleware.Authenticator(nil) },
		"nil option in Refuse":           func() { middleware.Refuse(httptest.NewRecorder(), request("GET", "/"), nil, nil) },
		"metadata without https":         func() { middleware.WithResourceMetadata("http://api.example/x") },
		"metadata with a relative URL":   func() { middleware.WithResourceMetadata("/x") },
		"metadata with a quote":          func() { middleware.WithResourceMetadata(`https://api.example/"`) },
		"metadata with a backslash":      func() { middleware.WithResourceMetadata(`https://api.example/\`) },
		"metadata with a line end":       func() { middleware.WithResourceMetadata("https://api.example/\r\nX: y") },
		"metadata outside ASCII":         func() { middleware.WithResourceMetadata("https://b\u00fccher.example/") },
		"metadata with a space":          func() { middleware.WithResourceMetadata("https://api.example/a b") },
		"metadata with a user":           func() { middleware.WithResourceMetadata("https://a:b@api.example/") },
		"metadata without a host":        func() { middleware.WithResourceMetadata("https:///x") },
		"metadata with a port alone":     func() { middleware.WithResourceMetadata("https://:443/x") },
		"metadata with a fragment":       func() { middleware.WithResourceMetadata("https://api.example/#") },
		"empty metadata":                 func() { middleware.WithResourceMetadata("") },
		"metadata twice":                 func() { middleware.Require(v, metadata, metadata) },
		"RequireAnyScope without scopes": func() { middleware.RequireAnyScope() },
		"RequireAnyScope with a quote":   func() { middleware.RequireAnyScope("a", `b"`) },
		"RequireClaim without a name":    func() { middleware.RequireClaim("", "a") },
		"RequireClaim without values":    func() { middleware.RequireClaim("a") },
		"RequireClaim with an empty one": func() { middleware.RequireClaim("a", "b", "") },
		"nil RequireFunc":                func() { middleware.RequireFunc(nil) },
		"nil handler in RequireFunc":     func() { middleware.RequireFunc(func(*verifier.Token) error { return nil })(nil) },
		"Ready without tenants":          func() { middleware.Ready(middleware.Readiness{}) },
	})
}

func panicsWhenBuilt(t *testing.T, builds map[string]func()) {
	t.Helper()
	for name, build := range builds {
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
