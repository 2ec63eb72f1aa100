package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

// profiles are those of most tests here.
var profiles = map[string]middleware.Profile{
	"default": {}, "orders-write": {Scopes: []string{"orders:write", "orders:read"}}, "admin": {Audiences: []string{"admin"}}, "acme": {Tenant: "acme"}, "default.v2": {},
}

func newDoor(t *testing.T, opts ...middleware.Option) http.Handler {
	t.Helper()
	return middleware.ForwardAuth(newVerifier(t, "acme", "globex"), middleware.ForwardAuthConfig{Profiles: profiles}, opts...)
}

// The answers to one question each.
func TestForwardAuth(t *testing.T) {
	orders := good("acme", "scope", "orders:read orders:write")
	door := newDoor(t)
	for _, tt := range []struct {
		name, path string
		headers    []string
		status     int
		challenge  string
	}{
		{"good", "/authz", bearer(good("acme")), 200, ""},
		{"the default by its name", "/authz/default", bearer(good("acme")), 200, ""},
		{"no token", "/authz", nil, 401, `Bearer realm="api"`},
		{"another scheme", "/authz", []string{"Authorization", "Basic YTpi"}, 401, `Bearer realm="api"`},
		{"expired", "/authz", bearer(good("acme", "exp", 1)), 401, `error="invalid_token"`},
		{"bad signature", "/authz", bearer(badSignature(good("acme"))), 401, `error="invalid_token"`},
		{"two headers", "/authz", append(bearer(orders), bearer(orders)...), 401, `error="invalid_request"`},
		{"two tokens", "/authz", []string{"Authorization", "Bearer " + orders + " " + orders}, 401, `error="invalid_request"`},
		{"two tokens, as Envoy joins them", "/authz", []string{"Authorization", "Bearer " + orders + ",Bearer " + orders}, 401, `error="invalid_request"`},
		{"malformed", "/authz", bearer("not a token"), 401, `error="invalid_request"`},
		{"larger than any token", "/authz", bearer(strings.Repeat("a", 20<<10)), 401, `error="invalid_token"`},
		{"both scopes", "/authz/orders-write", bearer(orders), 200, ""},
		{"one scope", "/authz/orders-write", bearer(good("acme", "scope", "orders:write")), 403, `scope="orders:write orders:read"`},
		{"no scope", "/authz/orders-write", bearer(good("acme")), 403, `error="insufficient_scope"`},
		{"audience", "/authz/admin", bearer(good("acme", "aud", "admin")), 200, ""},
		{"another audience", "/authz/admin", bearer(good("acme")), 403, `error="insufficient_scope"`},
		{"its tenant", "/authz/acme", bearer(good("acme")), 200, ""},
		{"another tenant", "/authz/acme", bearer(good("globex")), 401, `error="invalid_token"`},
		{"too large an identity", "/authz", bearer(good("acme", "sub", strings.Repeat("s", 2000))), 403, `error="identity_too_large"`},
		{"no such profile", "/authz/none", bearer(orders), 404, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := serve(door, request("GET", tt.path, tt.headers...))
			if w.Code != tt.status || !strings.Contains(w.Header().Get("WWW-Authenticate"), tt.challenge) {
				t.Errorf("got %s, want %d with %s", answerOf(w), tt.status, tt.challenge)
			}
			if (w.Code == 200) != (w.Header().Get("X-Auth-Tenant") != "") || (w.Code == 200) != (w.Body.Len() == 0) || w.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("got %s", answerOf(w))
			}
		})
	}
}

// A 200 has every header of the identity, once: Envoy joins what comes twice (GHSA-ghc4-35x6-crw5),
// and Caddy passes on its own placeholder for one that is missing.
func TestForwardAuth_GHSA_ghc4_35x6_crw5_EachHeaderOnce(t *testing.T) {
	w := serve(newDoor(t), request("GET", "/authz", bearer(good("acme", "sub", nil, "scope", "a"))...))
	want := http.Header{"Cache-Control": {"no-store"}, "X-Auth-Tenant": {"acme"}, "X-Auth-Subject": {""}, "X-Auth-Scopes": {"a"}, "X-Auth-Expires": {fmt.Sprint(now + 600)}, "X-Auth-Token-Id": {""},
		"X-Envoy-Auth-Headers-To-Remove": {"authorization,x-auth-subject,x-auth-token-id"}}
	if w.Code != 200 || fmt.Sprint(w.Header()) != fmt.Sprint(want) {
		t.Errorf("got %d %v, want %v", w.Code, w.Header(), want)
	}
	cfg := middleware.ForwardAuthConfig{ForwardToken: true, Identity: middleware.Identity{Prefix: "Who-", Claims: map[string]string{"Email": "email"}}}
	w = serve(middleware.ForwardAuth(newVerifier(t, "acme"), cfg), request("GET", "/authz", bearer(good("acme", "email", "a@b.example", "scope", "a", "jti", "1"))...))
	if h := w.Header(); h.Get("Who-Email") != "a@b.example" || h["X-Envoy-Auth-Headers-To-Remove"] != nil || h["X-Auth-Subject"] != nil {
		t.Errorf("got %v", h)
	}
}

// The profile is that of the configuration, whatever the client has put behind it, and a name has
// one spelling.
func TestForwardAuth_GHSA_p224_6x5r_fjpm_PathsOfTheClient(t *testing.T) {
	cfg := middleware.ForwardAuthConfig{Profiles: profiles}
	var asked string
	cfg.Observe = func(_ *http.Request, profile string, _ int, _ error) { asked = profile }
	server := httptest.NewServer(middleware.ForwardAuth(newVerifier(t, "acme"), cfg))
	defer server.Close()
	for path, profile := range map[string]string{
		"/authz": "default", "/authz?profile=admin&scope=x": "default", "/authz/admin": "admin", "/authz/default.v2": "default.v2", "/authz/": "", "//authz": "", "/authz/admin/": "", "/authz//admin": "", "/authz/admin/x": "",
		"/AUTHZ": "", "/authz/Admin": "", "/authz/%61dmin": "", "/%61uthz": "", "/authz/x%2Fadmin": "", "/authz/../authz/admin": "", "/authz/admin%00": "", "/authz/admin;x": "", "/authz%2Fadmin": "",
		"/authzadmin": "", "/": "", "/api/x": "", "/ext-authz": "", "/ext-authz/": "", "/ext-authz//admin": "",
		"/ext-authz/admin": "admin", "/ext-authz/admin/": "admin", "/ext-authz/admin/a/b?scope=x": "admin", "/ext-authz/admin//": "admin", "/ext-authz/admin/../default/x": "admin", "/ext-authz/admin/%2e%2e/default/x": "admin",
		"/ext-authz/admin/..%2f..%2fdefault": "admin", "/ext-authz/admin/%00": "admin", "/ext-authz/admin?/../default": "admin", "/ext-authz/admin*": "", "/ext-authz/admin%2F..%2Fdefault": "", "/ext-authz/%61dmin/x": "", "/ext-authz/default.v2/x": "default.v2",
		"/ext-authz/admin%2e/x": "", "/ext-authz/./default": "", "/ext-authz/../authz/default": "",
	} {
		asked = ""
		r := mustRequest(t, "GET", server.URL+"/", nil)
		r.URL.Opaque = path // sent as it is
		r.Header.Set("Authorization", "Bearer "+good("acme", "aud", "admin"))
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if want := map[bool]int{true: 200, false: 404}[profile != ""]; resp.StatusCode != want || asked != profile {
			t.Errorf("%s: %d, profile %q; want %d, %q", path, resp.StatusCode, asked, want, profile)
		}
	}
}

// A decision for one profile is not one for another, although the token's verification is cached.
func TestForwardAuth_GHSA_4mq7_pvjg_xp2r_CachedForAnotherRule(t *testing.T) {
	v := newVerifier(t, "acme")
	door := middleware.ForwardAuth(v, middleware.ForwardAuthConfig{Profiles: profiles})
	token := good("acme", "aud", "api")
	for range 3 {
		for path, want := range map[string]int{"/authz": 200, "/authz/orders-write": 403, "/authz/admin": 403, "/authz/acme": 200} {
			if w := serve(door, request("GET", path, bearer(token)...)); w.Code != want {
				t.Errorf("%s: %d, want %d", path, w.Code, want)
			}
		}
	}
	if v.CacheStats().Hits == 0 {
		t.Error("the verification was not cached")
	}
}

// Nothing that a client can write but the token decides.
func TestForwardAuth_GHSA_7x63_xv5r_3p2x_ForwardedHeaders(t *testing.T) {
	door := newDoor(t)
	for _, headers := range [][]string{{"X-Forwarded-Uri", "/public"}, {"X-Original-Url", "/public"}, {"X-Forwarded-Method", "OPTIONS"}, {"X-Forwarded-Prefix", "/public"}, {"X-Forwarded-Proto", "https"},
		{"X-Forwarded-For", "127.0.0.1"}, {"X-Real-Ip", "127.0.0.1"}, {"X-Forwarded-Host", "localhost"}, {"X-Http-Method-Override", "OPTIONS"}, {"X-Auth-Subject", "ann"}, {"X-Auth-Tenant", "acme"},
		{"X-Forwarded-Authorization", "Bearer " + good("acme")}, {"Proxy-Authorization", "Bearer " + good("acme")}, {"Cookie", "token=" + good("acme")}, {"X-Envoy-Original-Path", "/public"}} {
		for path, token := range map[string]string{"/authz": "", "/authz/admin": good("acme"), "/authz/acme": good("globex")} {
			without, with := request("GET", path), request("GET", path, headers...)
			if token != "" {
				without.Header.Set("Authorization", "Bearer "+token)
				with.Header.Set("Authorization", "Bearer "+token)
			}
			if got, want := answerOf(serve(door, with)), answerOf(serve(door, without)); got != want || strings.HasPrefix(got, "200") {
				t.Errorf("%s with %s: %s, want %s", path, headers[0], got, want)
			}
		}
	}
}

// RequestAuthentication of Istio lets requests without a token pass. Here nothing does.
func TestForwardAuth_istio_29024_NoToken(t *testing.T) {
	door := newDoor(t)
	for _, header := range []string{"", "Bearer", "Bearer ", good("acme"), "bearer" + good("acme"), "JWT " + good("acme"), "Basic x", "null", "Bearer null", "Bearer undefined", "Bearer .."} {
		for _, method := range []string{"GET", "HEAD", "POST", "OPTIONS", "TRACE", "PURGE"} {
			if w := serve(door, request(method, "/authz", "Authorization", header)); w.Code != 401 {
				t.Errorf("%s %q: %d", method, header, w.Code)
			}
		}
	}
}

// No other status than nginx and Envoy can pass on, whatever fails (nginx/nginx#941,
// oauth2-proxy/oauth2-proxy#3314, goauthentik/authentik#19839).
func TestForwardAuth_nginx_941_CannotTell(t *testing.T) {
	for _, err := range []error{keystore.ErrUnavailable, errors.New("hush"), context.DeadlineExceeded} {
		w := serve(middleware.ForwardAuth(downVerifier(t, err), middleware.ForwardAuthConfig{}), request("GET", "/authz", bearer(good("acme"))...))
		if w.Code != 503 || w.Header().Get("Retry-After") != "1" || strings.Contains(answerOf(w), "hush") {
			t.Errorf("%v: %s", err, answerOf(w))
		}
		closed := middleware.ForwardAuth(downVerifier(t, err), middleware.ForwardAuthConfig{CannotTell: 403})
		if w := serve(closed, request("GET", "/authz", bearer(good("acme"))...)); w.Code != 403 {
			t.Errorf("envoyproxy/envoy#5672: %s", answerOf(w))
		}
	}
}

// An unknown kid is waited for no longer than a proxy waits.
func TestForwardAuthWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, err := verifier.New(verifier.Config{Now: func() time.Time { return time.Unix(now, 0) }, Tenants: []verifier.Tenant{tenantOf("acme", waitStore{})}})
		if err != nil {
			t.Fatal(err)
		}
		for wait, want := range map[time.Duration]time.Duration{0: 150 * time.Millisecond, time.Second: time.Second} {
			began := time.Now()
			w := serve(middleware.ForwardAuth(v, middleware.ForwardAuthConfig{Wait: wait}), request("GET", "/authz", bearer(good("acme"))...))
			if took := time.Since(began); w.Code != 503 || took != want {
				t.Errorf("%s after %v, want 503 after %v", answerOf(w), took, want)
			}
		}
	})
}

// Whatever an error handler does, no proxy takes a refusal for leave.
func TestForwardAuth_GHSA_68wm_pfjf_wqp6_RefusalIsNeverOpen(t *testing.T) {
	for name, handler := range map[string]func(w http.ResponseWriter, r *http.Request, err error){
		"GHSA_fj56_5763_j8pp_writes nothing": func(http.ResponseWriter, *http.Request, error) {},
		"writes a body alone":                func(w http.ResponseWriter, _ *http.Request, _ error) { io.WriteString(w, "no") },
		"200":                                func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(200) },
		"204":                                func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(204) },
		"redirects":                          func(w http.ResponseWriter, r *http.Request, _ error) { http.Redirect(w, r, "/login", http.StatusFound) },
		"103, and nothing":                   func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(103) },
		"101": func(w http.ResponseWriter, _ *http.Request, _ error) {
			w.Header().Set("Upgrade", "x")
			w.WriteHeader(101)
		},
		"twice": func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(500); w.WriteHeader(200) },
		"hijacks": func(w http.ResponseWriter, _ *http.Request, _ error) {
			if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
				io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
				c.Close()
			}
		},
		"panics": func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			for cannotTell, want := range map[int]int{503: 500, 403: 403} {
				door := middleware.ForwardAuth(newVerifier(t, "acme"), middleware.ForwardAuthConfig{CannotTell: cannotTell},
					middleware.WithErrorHandler(func(w http.ResponseWriter, r *http.Request, err error) {
						w.Header().Set("Set-Cookie", "a=b")
						handler(w, r, err)
					}))
				server := httptest.NewServer(door)
				resp, err := http.DefaultTransport.RoundTrip(mustRequest(t, "GET", server.URL+"/authz", nil))
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				server.Close()
				if resp.StatusCode != want || resp.Header.Get("Set-Cookie")+resp.Header.Get("Location") != "" {
					t.Errorf("got %d %v, want %d", resp.StatusCode, resp.Header, want)
				}
			}
		})
	}
	source, err := os.ReadFile("forwardauth.go")
	if n := strings.Count(string(source), "WriteHeader(http.StatusOK)"); err != nil || n != 1 {
		t.Errorf("a request is let in at %d places, want 1; %v", n, err)
	}
}

// An alias of an identity's header is refused, since a proxy that passes it to us passes it on. All
// other headers are let by.
func TestForwardAuth_GHSA_vjrc_mh2v_45x6_UnderscoreAlias(t *testing.T) {
	door := newDoor(t)
	for name, want := range map[string]int{"X_Auth_Subject": 401, "X-Auth_Tenant": 401, "x.auth.scopes": 401, "X.Auth.Token-Id": 401, "X-Auth-Token_Id": 401, "X~Auth-Expires": 401,
		"X-Auth-Subject": 200, "x-auth-subject": 200, "X_Auth_Other": 200, "X_Request_Id": 200, "X-Auth-Other": 200} {
		r := request("GET", "/authz", bearer(good("acme"))...)
		r.Header[name] = []string{"eve"}
		w := serve(door, r)
		if w.Code != want || strings.Contains(answerOf(w), "eve") || want == 401 && !strings.Contains(w.Header().Get("WWW-Authenticate"), "invalid_request") {
			t.Errorf("%s: %s, want %d", name, answerOf(w), want)
		}
	}
}

// The places of the token are those of the options, and no option lets the client choose more.
func TestForwardAuthOptions(t *testing.T) {
	token := good("acme")
	door := newDoor(t, middleware.FromHeader("X-Jwt"), middleware.FromCookie("s"), middleware.Realm("r"))
	for _, headers := range [][]string{{"X-Jwt", token}, {"Cookie", "s=" + token}, bearer(token)} {
		if w := serve(door, request("GET", "/authz", headers...)); w.Code != 200 {
			t.Errorf("%.20q: %s", headers, answerOf(w))
		}
	}
	if w := serve(door, request("GET", "/authz", append(bearer(token), "X-Jwt", good("acme", "sub", "eve"))...)); w.Code != 401 {
		t.Errorf("two tokens: %s", answerOf(w))
	}
	for name, opt := range map[string]middleware.Option{"query": middleware.FromQuery("t"), "host": middleware.TenantFromHost(map[string]string{"x.example": "acme"}), "path": middleware.TenantFromPath("x")} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			newDoor(t, opt)
		}()
	}
}

func TestForwardAuthObserve(t *testing.T) {
	var seen []string
	cfg := middleware.ForwardAuthConfig{Profiles: profiles, CannotTell: 403, Observe: func(_ *http.Request, profile string, status int, err error) {
		seen = append(seen, fmt.Sprint(profile, " ", status, " ", err != nil && !errors.Is(err, middleware.ErrNoProfile)))
	}}
	door := middleware.ForwardAuth(newVerifier(t, "acme"), cfg)
	for _, path := range []string{"/authz", "/authz/orders-write", "/authz/none", "/ext-authz/admin/x"} {
		w := serve(door, request("GET", path, bearer(good("acme"))...))
		if !strings.Contains(seen[len(seen)-1], fmt.Sprint(" ", w.Code, " ")) {
			t.Errorf("%s: %d, observed as %s", path, w.Code, seen[len(seen)-1])
		}
	}
	serve(door, request("GET", "/authz", "Authorization", "Bearer x y"))
	serve(middleware.ForwardAuth(downVerifier(t, keystore.ErrUnavailable), cfg), request("GET", "/authz", bearer(good("acme"))...))
	want := []string{"default 200 false", "orders-write 403 true", " 404 false", "admin 403 true", "default 401 true", "default 403 true"}
	if !slices.Equal(seen, want) {
		t.Errorf("observed %q, want %q", seen, want)
	}
}

func TestForwardAuthValidate(t *testing.T) {
	good := middleware.ForwardAuthConfig{Profiles: maps.Clone(profiles), Wait: time.Second, CannotTell: 403, Prefix: "/a/b", EnvoyPrefix: "/c"}
	if err := errors.Join(good.Validate(), middleware.ForwardAuthConfig{}.Validate()); err != nil {
		t.Error(err)
	}
	named := func(name string, p middleware.Profile) middleware.ForwardAuthConfig {
		return middleware.ForwardAuthConfig{Profiles: map[string]middleware.Profile{name: p}}
	}
	for i, bad := range []middleware.ForwardAuthConfig{
		{Wait: -1}, {CannotTell: 200}, {CannotTell: 500}, {Prefix: "authz"}, {Prefix: "/"}, {Prefix: "/a/"}, {Prefix: "/a%20"}, {Prefix: "/a//b"}, {Prefix: "/.."}, {Prefix: "/ext-authz"}, {EnvoyPrefix: "/x?"},
		{Identity: middleware.Identity{Prefix: "X"}}, named("", middleware.Profile{}), named("a/b", middleware.Profile{}), named("a%20b", middleware.Profile{}), named("é", middleware.Profile{}), named("..", middleware.Profile{}),
		named("a", middleware.Profile{Scopes: []string{"a b"}}), named("a", middleware.Profile{Scopes: []string{""}}), named("a", middleware.Profile{Audiences: []string{""}}),
	} {
		if bad.Validate() == nil {
			t.Errorf("%d: %+v is accepted", i, bad)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("ForwardAuth does not panic")
		}
	}()
	middleware.ForwardAuth(newVerifier(t, "acme"), middleware.ForwardAuthConfig{Wait: -1})
}
