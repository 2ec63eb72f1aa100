package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// What went wrong in other proxies, by the names of the reports. Each row is a request and what becomes
// of it: the status, and the headers that the upstream gets. Rows with more to do have tests of their
// own: TestGHSA_vjrc_mh2v_45x6_NoAliasReachesTheUpstream, TestGolangGo80416_NoH2CSmuggling,
// TestStreamEndsWithItsToken, TestTrustedProxies and TestProxyPublic.
func TestReports(t *testing.T) {
	good := "Authorization: Bearer " + testToken(time.Hour, "")
	scoped := "Authorization: Bearer " + testToken(time.Hour, `,"scope":"user"`)
	for _, tt := range []struct {
		reports string
		request string
		lines   []string
		status  int
		header  http.Header // of the request that reaches the upstream
	}{
		{"Caddy GHSA-7r4p-vjf4-gxv4, apache/apisix#13183, apache/apisix#11738: a header that the token lacks is not the client's", "GET /",
			[]string{good, "X-Auth-Scopes: admin", "X-Auth-Token-Id: 1", "X-Auth-Assertion: a.b.c", "X-Auth-Email: root@example.com"}, 200,
			http.Header{"X-Auth-Scopes": {""}, "X-Auth-Token-Id": {""}, "X-Auth-Assertion": nil, "X-Auth-Email": nil}},
		{"golang/go#50580, ory/oathkeeper#1098, traefik/traefik#11077: Connection drops nothing of ours", "GET /",
			[]string{good, "Connection: X-Auth-Subject, X-Auth-Tenant, X-Forwarded-For"}, 200,
			http.Header{"X-Auth-Subject": {"ann"}, "X-Auth-Tenant": {"acme"}, "X-Forwarded-For": {"127.0.0.1"}}},
		{"Envoy GHSA-ghc4-35x6-crw5: a repeated header is not joined with ours", "GET /",
			[]string{scoped, "X-Auth-Scopes: admin", "x-auth-scopes: admin"}, 200, http.Header{"X-Auth-Scopes": {"user"}}},
		{"Traefik GHSA-6384-m2mw-rf54, Oathkeeper GHSA-vhr5-ggp3-qq85: X-Forwarded-* of a client", "GET /",
			[]string{good, "X-Forwarded-Proto: https", "X-Forwarded-Prefix: /x", "X-Forwarded-Uri: /y", "X-Forwarded-Host: evil.example", "X_Forwarded_Proto: https"}, 200,
			http.Header{"X-Forwarded-Proto": {"http"}, "X-Forwarded-Prefix": nil, "X-Forwarded-Uri": nil, "X-Forwarded-Host": {"shop.example"}, "X_forwarded_proto": nil}},
		{"oauth2-proxy GHSA-7x63-xv5r-3p2x, oauth2-proxy/oauth2-proxy#3506: a skip rule and X-Forwarded-Uri", "GET /admin",
			[]string{"X-Forwarded-Uri: /robots.txt", "X-Original-Url: /robots.txt", "X-Rewrite-Url: /robots.txt"}, 401, nil},
		{"Oathkeeper GHSA-p224-6x5r-fjpm: /public/../admin", "GET /robots.txt/../admin", nil, 401, nil},
		{"Oathkeeper GHSA-p224-6x5r-fjpm: encoded", "GET /robots.txt%2f..%2fadmin", nil, 401, nil},
		{"istio/istio#29024: no token", "GET /", nil, 401, nil},
		{"istio/istio#29024: no scheme", "GET /", []string{strings.Replace(good, "Bearer ", "", 1)}, 401, nil},
		{"authelia GHSA-68wm-pfjf-wqp6, authentik GHSA-fj56-5763-j8pp: a malformed request", "GET /", []string{"Authorization: Bearer a b", "Cookie: =;;"}, 400, nil},
		{"authelia GHSA-68wm-pfjf-wqp6: another method", "PROPFIND /", []string{"Authorization: Bearer a"}, 401, nil},
		{"kubernetes/ingress-nginx#2427, vouch/vouch-proxy#426: an identity that is too large", "GET /",
			[]string{"Authorization: Bearer " + testToken(time.Hour, `,"scope":"`+strings.Repeat("a ", 700)+`"`)}, 403, nil},
		{"traefik/traefik#3039, traefik/traefik#3907: a WebSocket without a token", "GET /", []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"}, 401, nil},
	} {
		t.Run(tt.reports, func(t *testing.T) {
			var reached []http.Header
			p := startProxy(t, startHandler(t, func(w http.ResponseWriter, r *http.Request) { reached = append(reached, r.Header) }), func(c *Config) {
				c.Upstream.Public = []PublicRoute{{"GET", "/robots.txt"}}
			})
			res, body := p.raw(t, tt.request+" HTTP/1.1", tt.lines...)
			p.stop() // the upstream has returned
			if res.StatusCode != tt.status || len(reached) != map[bool]int{true: 1}[tt.status == 200] {
				t.Fatalf("answer = %d %s, want %d; the upstream got %v", res.StatusCode, body, tt.status, reached)
			}
			for name, want := range tt.header {
				if got := reached[0][name]; !slices.Equal(got, want) {
					t.Errorf("%s = %q, want %q", name, got, want)
				}
			}
		})
	}
}

// A decision is not remembered beyond its rule: Oathkeeper GHSA-4mq7-pvjg-xp2r and GHSA-qvp4-rpmr-xwrr,
// dadrus/heimdall#3452. A token that was good is refused at once when its tenant is suspended.
func TestGHSA_4mq7_pvjg_xp2r_NoDecisionOutlivesItsRule(t *testing.T) {
	p := startProxy(t, startEcho(t))
	token := "Authorization: Bearer " + testToken(time.Hour, "")
	for _, tt := range []struct {
		change func(string) error
		status int
	}{{p.verifier.Resume, 200}, {p.verifier.Suspend, 401}, {p.verifier.Resume, 200}, {p.verifier.Remove, 401}} {
		if err := tt.change("acme"); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if res, body := p.raw(t, "GET / HTTP/1.1", token); res.StatusCode != tt.status {
				t.Errorf("answer = %d %s, want %d", res.StatusCode, body, tt.status)
			}
		}
	}
}

// No spelling of a header reaches the upstream that could be taken for one of the identity.
func FuzzUnwantedHeaders(f *testing.F) {
	for _, name := range []string{"X-Auth-Subject", "x_auth_subject", "X.Auth~Subject", "X-Forwarded-For", "Forwarded", "X-Author", "XAuth-Subject", "Authorization", "Accept"} {
		f.Add(name)
	}
	u := newUnwanted(Config{}.Identity, nil, false)
	f.Fuzz(func(t *testing.T, name string) {
		// As CGI makes a variable of it (RFC 3875, section 4.1.18), here of every odd character too.
		variable := strings.Map(func(r rune) rune {
			if r < 128 && (r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z') {
				return r
			}
			return '_'
		}, strings.ToUpper(name))
		h := http.Header{name: {"forged"}}
		u.remove(h)
		for _, prefix := range []string{"X_AUTH_", "X_FORWARDED_", "X_ORIGINAL_", "X_REWRITE_", "X_ENVOY_"} {
			if strings.HasPrefix(variable, prefix) && len(h) != 0 && isASCII(name) {
				text, _ := json.Marshal(h)
				t.Errorf("%s stays: a program may read it as %s", text, variable)
			}
		}
		if kept := fmt.Sprint(h); kept == "map[]" && (strings.EqualFold(name, "Accept") || strings.EqualFold(name, "Content-Type")) {
			t.Errorf("%s is gone", name)
		}
	})
}

// isASCII reports whether s could be the name of a header at all (RFC 9110, section 5.1).
func isASCII(s string) bool { return !strings.ContainsFunc(s, func(r rune) bool { return r > '~' }) }
