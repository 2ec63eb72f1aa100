package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/proxytest"
)

// A serviceSeen is what the service behind a proxy got of a request.
type serviceSeen struct {
	method, uri string
	header      http.Header
	body        int
}

// newService returns a service behind a proxy, which tells what it sees. It echoes what comes over an
// upgraded connection, and /sse sends an event before the client asks for another.
func newService(t *testing.T) (addr string, seen chan serviceSeen) {
	t.Helper()
	seen = make(chan serviceSeen, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.Copy(io.Discard, r.Body)
		seen <- serviceSeen{r.Method, r.RequestURI, r.Header.Clone(), int(body)}
		switch {
		case r.Header.Get("Upgrade") != "":
			c, buffered, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer c.Close()
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+r.Header.Get("Upgrade")+"\r\n\r\n")
			io.Copy(c, buffered)
		case r.URL.Path == "/sse":
			w.Header().Set("Content-Type", "text/event-stream")
			io.WriteString(w, "data: 1\n\n")
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		default:
			io.WriteString(w, "the service")
		}
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://"), seen
}

// A gate is a proxy with keyturn beside it and a service behind it.
type gate struct {
	addr string
	seen chan serviceSeen
}

// newGate starts keyturn with the profiles of docs/proxies, a service, and the proxy by start.
func newGate(t *testing.T, start func(testing.TB, proxytest.Config) *proxytest.Proxy, cfg proxytest.Config) *gate {
	t.Helper()
	config, err := os.ReadFile("../../docs/proxies/keyturn.yaml")
	if err != nil {
		t.Fatal(err)
	}
	// A tenant whose keys cannot be fetched: keyturn cannot tell whether its tokens are good.
	text := string(config) + "  - {id: away, kind: jwks, jwks_url: 'http://127.0.0.1:1/jwks', allow_loopback: true, algorithms: [ES256], issuer: https://away.example, audiences: [api]}\n"
	s := startServeAlone(t, nil, "--config", configFolder(t, text, map[string]string{"acme.secret": testSecret}))
	f := new(gate)
	var service string
	service, f.seen = newService(t)
	cfg.Listen, cfg.Replace = "127.0.0.1:8080", map[string]string{"127.0.0.1:4111": strings.TrimPrefix(s.url, "http://"), "127.0.0.1:3000": service}
	f.addr = start(t, cfg).Addr
	return f
}

// exchange sends a request of this text, and returns the answer with its connection, which is closed at
// the end of the test.
func (f *gate) exchange(t *testing.T, line, headers, body string) (*http.Response, net.Conn) {
	t.Helper()
	c, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	method, _, _ := strings.Cut(line, " ")
	if body != "" {
		headers += fmt.Sprintf("Content-Length: %d\r\n", len(body))
	}
	go io.WriteString(c, line+" HTTP/1.1\r\nHost: "+f.addr+"\r\n"+headers+"\r\n"+body)
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return resp, c
}

// want sends a request, and compares the status. It returns what the service has seen, which is nothing
// unless the request got through.
func (f *gate) want(t *testing.T, line, headers, body string, statuses ...int) (serviceSeen, *http.Response) {
	t.Helper()
	resp, c := f.exchange(t, line, headers, body)
	defer c.Close()
	answer, _ := io.ReadAll(resp.Body)
	matched := false
	for _, s := range statuses {
		matched = matched || resp.StatusCode == s
	}
	if !matched {
		t.Errorf("%s with %.60q: %d %v %s, want %d", line, headers, resp.StatusCode, resp.Header, answer, statuses)
	}
	select {
	case seen := <-f.seen:
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s with %.60q: %d, and the service has seen it", line, headers, resp.StatusCode)
		}
		return seen, resp
	default:
		if resp.StatusCode == http.StatusOK {
			t.Errorf("%s with %.60q: 200 %s, and the service has not seen it", line, headers, answer)
		}
		return serviceSeen{}, resp
	}
}

// acmeToken returns an Authorization line with a good token of acme.
func acmeToken(more string) string {
	return "Authorization: Bearer " + hs256(testSecret, plainHeader, in(time.Hour, `,"iss":"https://acme.example","aud":"api","sub":"ann"`+more)) + "\r\n"
}

// identityNames are the headers that the service may believe.
var identityNames = []string{"X-Auth-Tenant", "X-Auth-Subject", "X-Auth-Scopes", "X-Auth-Expires", "X-Auth-Token-Id", "X-Auth-Assertion"}

// aliases returns lines with every spelling of the identity's headers, and a few duplicates.
func aliases() string {
	var b strings.Builder
	for _, name := range identityNames {
		last := strings.LastIndex(name, "-")
		for _, spelt := range []string{name, name, strings.ToLower(name), strings.ToUpper(name), strings.ReplaceAll(name, "-", "_"), strings.ReplaceAll(name, "-", "."), strings.ToLower(strings.ReplaceAll(name, "-", "_")),
			strings.Replace(name, "-", "_", 1), name[:last] + "_" + name[last+1:], name[:last] + "." + name[last+1:]} {
			b.WriteString(spelt + ": eve\r\n")
		}
	}
	return b.String()
}

// wantIdentity checks that no header in any spelling tells of another caller.
func (s *serviceSeen) wantIdentity(t *testing.T, scopes string) {
	t.Helper()
	want := map[string]string{"x-auth-tenant": "acme", "x-auth-subject": "ann", "x-auth-scopes": scopes, "x-auth-token-id": "", "x-auth-assertion": ""}
	for name, values := range s.header {
		folded := strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(name))
		if folded == "x-auth-expires" && len(values) == 1 && len(values[0]) == 10 {
			continue
		}
		if expected, ok := want[folded]; ok && (name != http.CanonicalHeaderKey(folded) || len(values) != 1 || values[0] != expected) || !ok && strings.HasPrefix(folded, "x-auth-") {
			t.Errorf("the service sees %s: %q", name, values)
		}
	}
	if s.header.Get("X-Auth-Subject") != "ann" || s.header.Get("X-Auth-Tenant") != "acme" || s.header.Get("X-Auth-Scopes") != scopes || s.header.Get("Authorization") != "" {
		t.Errorf("the service sees %v", s.header)
	}
	if strings.Contains(fmt.Sprint(s.header), "eve") {
		t.Errorf("the service sees what the client wrote: %v", s.header)
	}
}

// testGate holds a proxy to what A10 of the design says: the same for each.
func testGate(t *testing.T, f *gate) {
	t.Run("good", func(t *testing.T) {
		seen, _ := f.want(t, "GET /a/b?c=1", acmeToken(""), "", 200)
		seen.wantIdentity(t, "")
		if seen.uri != "/a/b?c=1" {
			t.Errorf("the service sees %s", seen.uri)
		}
	})
	t.Run("decisions", func(t *testing.T) { testGateDecisions(t, f) })
	t.Run("bodies", func(t *testing.T) {
		for _, size := range []int{1, 300_000} {
			seen, _ := f.want(t, "POST /a", acmeToken(""), strings.Repeat("b", size), 200)
			if seen.wantIdentity(t, ""); seen.method != "POST" || seen.body != size {
				t.Errorf("the service sees %s with %d bytes, want %d", seen.method, seen.body, size)
			}
		}
		seen, _ := f.want(t, "POST /a", acmeToken("")+"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", "", 200)
		if seen.body != 3 {
			t.Errorf("the service sees %d bytes in chunks, want 3", seen.body)
		}
		f.want(t, "POST /a", "", strings.Repeat("b", 1000), 401)
		seen, _ = f.want(t, "HEAD /a", acmeToken(""), "", 200)
		if seen.method != "HEAD" {
			t.Errorf("the service sees %s", seen.method)
		}
	})
	t.Run("large tokens", func(t *testing.T) {
		seen, _ := f.want(t, "GET /a", acmeToken(fmt.Sprintf(`,"pad":"%s"`, strings.Repeat("p", 5<<10))), "", 200)
		seen.wantIdentity(t, "")
		f.want(t, "GET /a", acmeToken(fmt.Sprintf(`,"pad":"%s"`, strings.Repeat("p", 11<<10))), "", 200)
		// kubernetes/ingress-nginx#2427, vouch/vouch-proxy#426: the answer's headers have room in nginx.
		f.want(t, "GET /a", acmeToken(fmt.Sprintf(`,"jti":"%s","scope":"%[1]s"`, strings.Repeat("j", 990))), "", 200)
		f.want(t, "GET /a", acmeToken(fmt.Sprintf(`,"jti":"%s"`, strings.Repeat("j", 1025))), "", 403)
	})
	t.Run("identity", func(t *testing.T) {
		seen, _ := f.want(t, "GET /a", aliases()+acmeToken(""), "", 200)
		seen.wantIdentity(t, "")
		f.want(t, "GET /a", aliases(), "", 401)
		seen, _ = f.want(t, "GET /a", acmeToken(`,"scope":"{env.HOME} $host é"`), "", 200)
		seen.wantIdentity(t, "{env.HOME} $host %C3%A9")
	})
	t.Run("where the client came in", func(t *testing.T) {
		seen, _ := f.want(t, "GET /a", "Forwarded: for=eve;host=eve\r\nX-Forwarded-Host: eve\r\nX-Forwarded-Proto: eve\r\nX-Forwarded-For: eve\r\nX-Forwarded-Port: eve\r\nX-Forwarded-Prefix: /eve\r\n"+
			"X-Real-IP: eve\r\nX-Original-URL: /eve\r\nX-Rewrite-URL: /eve\r\n"+acmeToken(""), "", 200)
		seen.wantIdentity(t, "") // and nothing of eve
	})
	t.Run("Connection", func(t *testing.T) {
		resp, c := f.exchange(t, "GET /a", acmeToken("")+"Connection: X-Auth-Subject, x-auth-tenant\r\n", "")
		c.Close()
		if resp.StatusCode == 200 { // or the proxy refuses it
			seen := <-f.seen
			seen.wantIdentity(t, "")
		} else if resp.StatusCode != 400 {
			t.Errorf("got %d", resp.StatusCode)
		}
	})
	t.Run("streams", func(t *testing.T) { testGateStreams(t, f) })
}

func testGateDecisions(t *testing.T, f *gate) {
	t.Run("refused", func(t *testing.T) {
		_, resp := f.want(t, "GET /a", "", "", 401)
		if c := resp.Header.Get("WWW-Authenticate"); c != `Bearer realm="api"` {
			t.Errorf("WWW-Authenticate: %s", c)
		}
		_, resp = f.want(t, "GET /a", "Authorization: Bearer "+hs256("another secret of 32 bytes and more", plainHeader, in(time.Hour, `,"iss":"https://acme.example","aud":"api"`))+"\r\n", "", 401)
		if c := resp.Header.Get("WWW-Authenticate"); !strings.Contains(c, "invalid_token") {
			t.Errorf("WWW-Authenticate: %s", c)
		}
		_, resp = f.want(t, "GET /a", "Authorization: Bearer bad bad\r\n", "", 401)
		if c := resp.Header.Get("WWW-Authenticate"); !strings.Contains(c, "invalid_request") {
			t.Errorf("WWW-Authenticate: %s", c)
		}
		f.want(t, "GET /a", acmeToken("")+acmeToken(""), "", 400, 401)
		f.want(t, "GET /a", acmeToken("")+acmeToken(`,"jti":"2"`), "", 400, 401)
		f.want(t, "GET /a", strings.TrimSuffix(acmeToken(""), "\r\n")+","+strings.TrimPrefix(acmeToken(""), "Authorization: "), "", 401)
		for _, method := range []string{"HEAD", "OPTIONS", "POST", "DELETE", "PROPFIND"} {
			f.want(t, method+" /a", "", "", 401)
		}
		f.want(t, "GET /_authz", acmeToken(""), "", 404, 200) // 200 is the service's
	})
	t.Run("scope", func(t *testing.T) {
		f.want(t, "GET /orders/1", acmeToken(`,"scope":"orders:read"`), "", 403)
		f.want(t, "GET /x/../orders/1", acmeToken(`,"scope":"orders:read"`), "", 403)
		f.want(t, "GET /%6frders/1", acmeToken(`,"scope":"orders:read"`), "", 403)
		f.want(t, "GET //orders/1", acmeToken(`,"scope":"orders:read"`), "", 403)
		seen, _ := f.want(t, "GET /orders/1", acmeToken(`,"scope":"a orders:write"`), "", 200)
		seen.wantIdentity(t, "a orders:write")
	})
	t.Run("cannot tell", func(t *testing.T) {
		_, resp := f.want(t, "GET /a", "Authorization: Bearer "+hs256(testSecret, `{"alg":"ES256","kid":"1"}`, in(time.Hour, `,"iss":"https://away.example","aud":"api"`))+"\r\n", "", 503)
		if resp.Header.Get("Retry-After") != "1" {
			t.Errorf("got %v", resp.Header)
		}
	})
}

func testGateStreams(t *testing.T, f *gate) {
	upgrade := "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	f.want(t, "GET /ws", upgrade, "", 401)
	resp, c := f.exchange(t, "GET /ws", upgrade+acmeToken(""), "")
	if resp.StatusCode != 101 {
		t.Fatalf("websocket: %d", resp.StatusCode)
	}
	seen := <-f.seen
	seen.wantIdentity(t, "")
	io.WriteString(c, "hello")
	echo := make([]byte, 5)
	if _, err := io.ReadFull(c, echo); err != nil || string(echo) != "hello" {
		t.Errorf("websocket: %q, %v", echo, err)
	}
	resp, _ = f.exchange(t, "GET /sse", acmeToken(""), "")
	if line, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil || line != "data: 1\n" {
		t.Errorf("event stream: %q, %v", line, err)
	}
	seen = <-f.seen
	seen.wantIdentity(t, "")
	// golang/go#80416, Traefik GHSA-w4v4-9rw7-5326: a tunnel past the proxy. A service needs the settings
	// to take it (RFC 7540, section 3.2.1).
	f.exchange(t, "GET /h2c", acmeToken("")+"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n", "")
	if seen = <-f.seen; seen.header.Get("Upgrade") != "" && seen.header.Get("HTTP2-Settings") != "" {
		t.Errorf("the service can leave HTTP/1.1: it sees %v", seen.header)
	}
}

// A profile that keyturn does not have lets none through, whatever becomes of its 404: a name that was
// mistyped in the proxy's file would else be an open door.
func TestUnknownProfileIsClosed(t *testing.T) {
	for name, tt := range map[string]struct {
		start func(testing.TB, proxytest.Config) *proxytest.Proxy
		file  string
		old   string
	}{
		"nginx": {proxytest.Nginx, nginxFile, "/_authz/orders-write;"},
		"Caddy": {proxytest.Caddy, caddyFile, "import keyturn orders-write\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newGate(t, tt.start, proxytest.Config{File: tt.file, Edit: func(text string) string {
				return strings.Replace(text, tt.old, strings.Replace(tt.old, "write", "wrote", 1), 1)
			}})
			for range 2 {
				f.want(t, "GET /orders/1", acmeToken(`,"scope":"orders:write"`), "", 404, 503)
				f.want(t, "GET /orders/1", "", "", 404, 503)
			}
			f.want(t, "GET /a", acmeToken(""), "", 200)
		})
	}
}
