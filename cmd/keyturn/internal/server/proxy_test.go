package server

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/fold"
)

// testToken returns a token that expires after ttl. It uses nothing of ours.
func testToken(ttl time.Duration, claims string) string {
	b64 := base64.RawURLEncoding.EncodeToString
	signed := b64([]byte(`{"alg":"HS256"}`)) + "." + b64(fmt.Appendf(nil, `{"sub":"ann","exp":%d%s}`, time.Now().Add(ttl).Unix(), claims))
	mac := hmac.New(sha256.New, []byte(testSecret))
	mac.Write([]byte(signed))
	return signed + "." + b64(mac.Sum(nil))
}

// A logBuffer is a log that is read while it is written.
type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// A proxied is a running server in front of an upstream.
type proxied struct {
	*Server
	url   string
	log   *logBuffer
	meter *countingMeter
	stop  func()
}

// startProxy runs a server in front of the service at upstream.
func startProxy(t *testing.T, upstream string, change ...func(*Config)) *proxied {
	t.Helper()
	u, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxied{log: new(logBuffer), meter: new(countingMeter)}
	cfg := Config{
		Addr: "127.0.0.1:0", Admin: "127.0.0.1:0", Tenants: []Tenant{static(t, "acme")}, Upstream: &Upstream{URL: u},
		Logger: slog.New(slog.NewTextHandler(p.log, nil)), Meter: p.meter,
	}
	for _, f := range change {
		f(&cfg)
	}
	if p.Server, err = New(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	t.Cleanup(p.stop)
	p.url = p.Endpoint().URL
	return p
}

// A countingMeter counts as a Meter is told to.
type countingMeter struct {
	silentMeter
	mu     sync.Mutex
	codes  []int
	opened int
	ends   []string
}

func (m *countingMeter) Request(_ string, code int, _ time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.codes = append(m.codes, code)
}

func (m *countingMeter) StreamOpened() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.opened++
}

func (m *countingMeter) StreamEnded(reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ends = append(m.ends, reason)
}

// ended returns how the streams have ended.
func (m *countingMeter) ended() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.ends...)
}

// An echo is what the upstream of these tests says of a request.
type echo struct {
	Method, Target, Host, Body string
	Header, Trailer            http.Header
}

func echoHandler(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(echo{r.Method, r.RequestURI, r.Host, string(body), r.Header, r.Trailer})
}

func startEcho(t *testing.T) string { return startHandler(t, echoHandler) }

// startHandler runs a handler as an upstream.
func startHandler(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

// raw sends the lines of a request as they are, with Host and the end of the headers added, and returns
// the answer with its body.
func (p *proxied) raw(t *testing.T, request string, lines ...string) (*http.Response, string) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	head := strings.Join(append([]string{request, "Host: shop.example"}, lines...), "\r\n")
	if !strings.Contains(head, "\r\n\r\n") {
		head += "\r\n\r\n"
	}
	io.WriteString(conn, head)
	method, _, _ := strings.Cut(request, " ")
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

// echoed is raw with a good token, for a request that must reach the echo.
func (p *proxied) echoed(t *testing.T, request string, lines ...string) echo {
	t.Helper()
	res, body := p.raw(t, request, append([]string{"Authorization: Bearer " + testToken(time.Hour, "")}, lines...)...)
	var e echo
	if err := json.Unmarshal([]byte(body), &e); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s = %d %s", request, res.StatusCode, body)
	}
	return e
}

func TestProxyIdentity(t *testing.T) {
	p := startProxy(t, startEcho(t))
	e := p.echoed(t, "POST /orders?n=1 HTTP/1.1", "Content-Type: application/json", "Content-Length: 2\r\n\r\n{}")
	want := map[string]string{
		"X-Auth-Tenant": "acme", "X-Auth-Subject": "ann", "X-Auth-Scopes": "", "Authorization": "",
		"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "shop.example", "Content-Type": "application/json",
	}
	for name, value := range want {
		if got := e.Header.Get(name); got != value {
			t.Errorf("%s = %q, want %q", name, got, value)
		}
	}
	if e.Method != "POST" || e.Target != "/orders?n=1" || e.Host != "shop.example" || e.Body != "{}" {
		t.Errorf("the upstream got %+v", e)
	}
	for _, line := range []string{"X-None: 1", "Authorization: Bearer a.b.c", "Authorization: Basic YTpi"} {
		if res, body := p.raw(t, "GET / HTTP/1.1", line); res.StatusCode != http.StatusUnauthorized || res.Header.Get("Www-Authenticate") == "" || body != `{"error":"Invalid or expired token"}` {
			t.Errorf("%s: answer = %d %v %s", line, res.StatusCode, res.Header, body)
		}
	}
	for _, path := range []string{"/healthz", "/readyz", JWKSPath, "/metrics"} {
		if res, _ := p.raw(t, "GET "+path+" HTTP/1.1"); res.StatusCode != http.StatusUnauthorized {
			t.Errorf("GET %s without a token = %d, want 401: it is the upstream's", path, res.StatusCode)
		}
	}
	if log := p.log.String(); strings.Contains(log, "eyJ") || strings.Contains(log, "a.b.c") {
		t.Errorf("a token is in the log: %s", log)
	}
}

// Path and query pass byte for byte.
func TestProxyTarget(t *testing.T) {
	p := startProxy(t, startEcho(t))
	for _, target := range []string{
		"/", "/a/b", "//a//b/", "/a/../b", "/a/./b", "/%2e%2e/b", "/a%2Fb", "/a%2fb", "/a;b=1/c", "/%C3%A9", "/a|b", "/x%2Fy/{z}", `/a"b`,
		"/a?", "/a?q=1;2", "/a?q=%zz", "/a?q=%2F/&&=", "/a?x=http://evil/../", "/a?b#c", "/\xc3\xa9", "/a%00b", "/a+b", "/a%20b", "/[x]",
	} {
		if e := p.echoed(t, "GET "+target+" HTTP/1.1"); e.Target != target {
			t.Errorf("the upstream got %q, want %q", e.Target, target)
		}
	}
	for sent, want := range map[string]string{
		"http://other.example/a%2Fb?q=1;2": "/a%2Fb?q=1;2", "http://other.example": "/", "http://u:p@other.example/x|y": "/x|y", "http://other.example?a=/b": "/?a=/b",
	} {
		e := p.echoed(t, "GET "+sent+" HTTP/1.1")
		if e.Target != want || e.Header.Get("Authorization") != "" {
			t.Errorf("for %s the upstream got %q %v, want %q", sent, e.Target, e.Header, want)
		}
	}
	token := "Authorization: Bearer " + testToken(time.Hour, "")
	for request, status := range map[string]int{"GET //a|b HTTP/1.1": 400, "CONNECT shop.example:443 HTTP/1.1": 405} {
		if res, _ := p.raw(t, request, token); res.StatusCode != status {
			t.Errorf("%s = %d, want %d", request, res.StatusCode, status)
		}
	}
}

// A route is public in one spelling only, and brings no credentials to the upstream. Others decided on
// one spelling of a path, and routed another: Oathkeeper GHSA-p224-6x5r-fjpm, oauth2-proxy
// GHSA-7x63-xv5r-3p2x.
func TestProxyPublic(t *testing.T) {
	p := startProxy(t, startEcho(t), func(c *Config) {
		c.Upstream.Public = []PublicRoute{{"GET", "/robots.txt"}, {"POST", "/hook%2Fin"}}
	})
	res, body := p.raw(t, "GET /robots.txt HTTP/1.1", "Authorization: Bearer x", "Cookie: s=1", "X-Auth-Subject: root", "x_auth_subject: root")
	var e echo
	if err := json.Unmarshal([]byte(body), &e); err != nil || res.StatusCode != 200 || e.Target != "/robots.txt" {
		t.Fatalf("answer = %d %s", res.StatusCode, body)
	}
	for name := range e.Header {
		if f := fold.Name(name); strings.HasPrefix(f, "x-auth-") || f == "authorization" || f == "cookie" {
			t.Errorf("the upstream got %s: %q", name, e.Header[name])
		}
	}
	if res, body := p.raw(t, "POST /hook%2Fin HTTP/1.1", "Content-Length: 2\r\n\r\nhi"); res.StatusCode != 200 || !strings.Contains(body, `"hi"`) {
		t.Errorf("answer = %d %s", res.StatusCode, body)
	}
	for _, request := range []string{
		"HEAD /robots.txt", "POST /robots.txt", "GET /robots.txt?", "GET /robots.txt?a=1", "GET //robots.txt", "GET /robots.txt/", "GET /Robots.txt",
		"GET /x/../robots.txt", "GET /robots%2etxt", "GET /robots.txt/../admin", "GET /robots.txt%2f..%2fadmin", "GET http://shop.example/robots.txt",
		"POST /hook/in", "POST /hook%2fin", "GET /robots.txt;x",
	} {
		res, _ := p.raw(t, request+" HTTP/1.1", "X-Forwarded-Uri: /robots.txt", "X-Original-URL: /robots.txt", "X-Forwarded-Method: GET")
		if res.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s = %d, want 401", request, res.StatusCode)
		}
	}
}

func TestProxyPreflight(t *testing.T) {
	lines := []string{"Origin: https://app.example", "Access-Control-Request-Method: POST", "Authorization: Bearer x", "Cookie: a=b", "X-Auth-Subject: root", "Content-Length: 2\r\n\r\nhi"}
	closed := startProxy(t, startEcho(t))
	if res, _ := closed.raw(t, "OPTIONS /a HTTP/1.1", lines...); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("by default: %d, want 401", res.StatusCode)
	}
	open := startProxy(t, startEcho(t), func(c *Config) { c.Upstream.PassPreflight = true })
	res, body := open.raw(t, "OPTIONS /a HTTP/1.1", lines...)
	var e echo
	if err := json.Unmarshal([]byte(body), &e); err != nil || res.StatusCode != 200 || e.Method != "OPTIONS" || e.Body != "" || e.Header.Get("Origin") == "" {
		t.Fatalf("answer = %d %s", res.StatusCode, body)
	}
	for _, name := range []string{"Authorization", "Cookie", "X-Auth-Subject", "Content-Length"} {
		if v := e.Header[name]; v != nil && v[0] != "0" {
			t.Errorf("the upstream got %s: %q", name, v)
		}
	}
	for _, request := range []string{"OPTIONS /a", "GET /a"} {
		if res, _ := open.raw(t, request+" HTTP/1.1", "Origin: https://app.example"); res.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s that is no preflight = %d, want 401", request, res.StatusCode)
		}
	}
}

// keyturn sets X-Forwarded-*. It keeps those of trusted proxies alone.
func TestTrustedProxies(t *testing.T) {
	said := []string{"X-Forwarded-For: 6.6.6.6, 1.2.3.4, 127.0.0.9", "X-Forwarded-Proto: https", "X-Forwarded-Host: www.example", "X-Forwarded-Prefix: /x", "X-Real-IP: 6.6.6.6", "Forwarded: for=6.6.6.6"}
	tests := []struct {
		name              string
		trusted           string
		lines             []string
		addr, proto, host string
	}{
		{"GHSA-6384-m2mw-rf54 GHSA-vhr5-ggp3-qq85: no proxy is trusted", "", said, "127.0.0.1", "http", "shop.example"},
		{"another network is", "10.0.0.0/8", said, "127.0.0.1", "http", "shop.example"},
		{"the caller is, and the hop before it", "127.0.0.0/8", said, "1.2.3.4, 127.0.0.9, 127.0.0.1", "https", "www.example"},
		{"only the caller is", "127.0.0.1/32", said, "127.0.0.9, 127.0.0.1", "https", "www.example"},
		{"in several lines", "127.0.0.0/8", []string{"X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: http, HTTPS"}, "1.2.3.4, 127.0.0.1", "https", "shop.example"},
		{"not an address", "127.0.0.0/8", []string{"X-Forwarded-For: 1.2.3.4, unknown, 127.0.0.3"}, "127.0.0.3, 127.0.0.1", "http", "shop.example"},
		{"mapped", "127.0.0.0/8", []string{"X-Forwarded-For: ::ffff:127.0.0.3"}, "::ffff:127.0.0.3, 127.0.0.1", "http", "shop.example"},
		{"nonsense", "127.0.0.0/8", []string{"X-Forwarded-For: ,", "X-Forwarded-Proto: gopher", "X-Forwarded-Host: a b"}, "127.0.0.1", "http", "shop.example"},
		{"silent", "127.0.0.0/8", nil, "127.0.0.1", "http", "shop.example"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := startProxy(t, startEcho(t), func(c *Config) {
				if tt.trusted != "" {
					c.Upstream.TrustedProxies = []netip.Prefix{netip.MustParsePrefix(tt.trusted)}
				}
			})
			e := p.echoed(t, "GET / HTTP/1.1", tt.lines...)
			want := map[string]string{"X-Forwarded-For": tt.addr, "X-Forwarded-Proto": tt.proto, "X-Forwarded-Host": tt.host, "X-Forwarded-Prefix": "", "X-Real-Ip": "", "Forwarded": ""}
			for name, value := range want {
				if got := strings.Join(e.Header[name], "; "); got != value {
					t.Errorf("%s = %q, want %q", name, got, value)
				}
			}
		})
	}
}
