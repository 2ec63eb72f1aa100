package server

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier"
)

// tokenOf returns a token of the test's secret, with an hour to live and these claims too.
func tokenOf(claims string) string {
	b64 := base64.RawURLEncoding.EncodeToString
	signed := b64([]byte(`{"alg":"HS256"}`)) + "." + b64(fmt.Appendf(nil, `{"exp":%d,%s}`, time.Now().Add(time.Hour).Unix(), claims))
	mac := hmac.New(sha256.New, []byte(testSecret))
	mac.Write([]byte(signed))
	return signed + "." + b64(mac.Sum(nil))
}

// ask sends a request of one line to the handler as the wire would, and returns the answer.
func ask(t *testing.T, h http.Handler, line, token string) *httptest.ResponseRecorder {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(line + " HTTP/1.1\r\nHost: x.example\r\n\r\n")))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func newAuthzServer(t *testing.T, change func(*Config)) *Server {
	t.Helper()
	cfg := Config{Addr: "127.0.0.1:0", Tenants: []Tenant{static(t, "acme")}, Identity: middleware.Identity{Claims: map[string]string{"Email": "email"}},
		Authz: middleware.ForwardAuthConfig{Profiles: map[string]middleware.Profile{"default": {}, "write": {Scopes: []string{"write"}}}}}
	if change != nil {
		change(&cfg)
	}
	s, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}

// Behind /ext-authz is the path of the client. What else the server has at such a path must not answer
// in place of the decision: Envoy takes every 200 for leave.
func TestAuthzOwnsTheClientsPath(t *testing.T) {
	h := newAuthzServer(t, nil).routes()
	token := tokenOf(`"sub":"ann","scope":"read"`)
	for _, path := range []string{"", "/", "/x", "/healthz", "/readyz", "/api/x", "/../../healthz", "/../../api/x", "/%2e%2e/%2e%2e/api/x", "/..%2f../api/x", "//api/x", "/acme/.well-known/jwks.json",
		"/.well-known/openid-configuration", "/../../authz", "/../default/x"} {
		for _, method := range []string{"GET", "HEAD", "OPTIONS", "CONNECT"} {
			if w := ask(t, h, method+" /ext-authz/write"+path, token); w.Code != 403 {
				t.Errorf("%s %s without the scope: %d %v", method, path, w.Code, w.Header())
			}
			if w := ask(t, h, method+" /ext-authz/write"+path, ""); w.Code != 401 {
				t.Errorf("%s %s without a token: %d", method, path, w.Code)
			}
		}
	}
	for path, want := range map[string]int{"/authz": 200, "/authz/default": 200, "/authz/write": 403, "/authz/none": 404, "/authz/": 404, "/ext-authz/none/api/x": 404, "/ext-authz": 404, "/authz/write/": 404, "/api/x": 200} {
		if w := ask(t, h, "GET "+path, token); w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
}

func TestAuthzIdentity(t *testing.T) {
	meter := new(listMeter)
	var log strings.Builder
	s := newAuthzServer(t, func(c *Config) {
		c.Meter, c.Logger = meter, slog.New(slog.NewTextHandler(&log, nil))
		c.TokenHeaders = []string{"X-Jwt", "Authorization"}
	})
	w := ask(t, s.routes(), "GET /authz", tokenOf(`"sub":"ann","email":"a@b.example"`))
	if h := w.Header(); w.Code != 200 || h.Get("X-Auth-Tenant") != "acme" || h.Get("X-Auth-Subject") != "ann" || h.Get("X-Auth-Email") != "a@b.example" || len(h["X-Auth-Scopes"]) != 1 {
		t.Errorf("got %d %v", w.Code, h)
	}
	r := httptest.NewRequest("GET", "/authz", nil)
	r.Header.Set("X-Jwt", tokenOf(`"sub":"bob"`))
	w = httptest.NewRecorder()
	if s.routes().ServeHTTP(w, r); w.Code != 200 || w.Header().Get("X-Auth-Subject") != "bob" {
		t.Errorf("from X-Jwt: %d %v", w.Code, w.Header())
	}
	ask(t, s.routes(), "GET /authz/write", tokenOf(`"sub":"ann"`))
	ask(t, s.routes(), "GET /authz/secret-name", tokenOf(`"sub":"ann"`))
	if told := strings.Join(meter.told(), ";"); !strings.Contains(told, "authz 200") || !strings.Contains(told, "authz 403") || !strings.Contains(told, "authz 404") || strings.Contains(told, "api") {
		t.Errorf("counted %s", told)
	}
	if text := log.String(); !strings.Contains(text, "profile write of /authz") || !strings.Contains(text, "no such profile") || strings.Contains(text, "secret-name") {
		t.Errorf("log: %s", text)
	}
}

// net/http answers "OPTIONS *" by itself, with 200, unless it is told not to.
func TestAuthzOptionsOfTheServer(t *testing.T) {
	s := newAuthzServer(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	c, err := net.Dial("tcp", s.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(c, "OPTIONS * HTTP/1.1\r\nHost: x.example\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 404 {
		t.Errorf("got %v, %v, want 404", resp, err)
	}
}

// An assertion is signed by a ring, and is a token for the service alone.
func TestAuthzAssertion(t *testing.T) {
	keks, err := rotation.NewKEKs([]byte("0123456789abcdef0123456789ABCDEF"))
	if err != nil {
		t.Fatal(err)
	}
	policy := rotation.Policy{Algorithm: keystore.ES256}
	ring := Tenant{Ring: true, Rules: verifier.Tenant{ID: "internal", Audiences: []string{"service", "api"}}}
	s := newAuthzServer(t, func(c *Config) {
		c.Tenants = []Tenant{ring}
		c.Rings = &Rings{KEKs: keks}
		c.Demo = &Demo{Rings: []DemoRing{{Tenant: "internal", User: "ann", Policy: policy}}, FreshEvery: time.Hour}
		c.Assertion = &Assertion{Tenant: "internal", Audience: "service"}
	})
	issuer := s.Endpoint().URL + "/internal"
	w := ask(t, s.routes(), "GET /authz", s.DemoTokens()[0].Text)
	assertion := w.Header().Get("X-Auth-Assertion")
	if w.Code != 200 || assertion == "" {
		t.Fatalf("got %d %v %s", w.Code, w.Header(), w.Body)
	}
	upstream, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{{ID: "internal", Keys: s.live.Load().tenants.rings.keyring,
		Algorithms: []keystore.Algorithm{keystore.ES256}, Issuer: issuer, Audiences: []string{"service"}, Types: []string{AssertionType}}}})
	if err != nil {
		t.Fatal(err)
	}
	token, err := upstream.Verify(t.Context(), assertion)
	if err != nil {
		t.Fatal(err)
	}
	claims, err := verifier.Claims[map[string]any](token)
	if left := time.Until(token.Expires()); err != nil || token.Subject() != "ann" || claims["tenant"] != "internal" || left > time.Minute || left < 30*time.Second {
		t.Errorf("claims %v, %v left, %v", claims, left, err)
	}
	if w := ask(t, s.routes(), "GET /authz", assertion); w.Code != 401 {
		t.Errorf("the assertion is good as a token: %d", w.Code)
	}
}

func TestAuthzConfig(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"prefix":                   func(c *Config) { c.Identity.Prefix = "X-" },
		"cannot tell":              func(c *Config) { c.Authz.CannotTell = 200 },
		"tenant without a ring":    func(c *Config) { c.Assertion = &Assertion{Tenant: "acme", Audience: "x"} },
		"assertion of no audience": func(c *Config) { c.Assertion = &Assertion{Tenant: "ring"} },
		"assertion for too long":   func(c *Config) { c.Assertion = &Assertion{Tenant: "ring", Audience: "x", TTL: time.Hour} },
	} {
		cfg := Config{Addr: "127.0.0.1:0", Tenants: []Tenant{static(t, "acme"), {Ring: true, Rules: verifier.Tenant{ID: "ring", Issuer: "https://x.example", AnyAudience: true}}}}
		change(&cfg)
		_, err := New(t.Context(), cfg)
		for _, err := range []error{err, Check(cfg)} {
			if e := new(Error); !errors.As(err, &e) || e.Part != PartAuthz {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
