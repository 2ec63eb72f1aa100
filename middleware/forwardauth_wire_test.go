package middleware_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/middleware"
)

// exchange sends text over a connection of its own, and returns the answer to the request. It fails
// if that takes long: the server waits for a body that does not come.
func exchange(t *testing.T, addr, text string) *http.Response {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(text, " ")
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%.60q: %v", text, err)
	}
	return resp
}

// What a proxy, or a client through it, can put on the wire.
func TestForwardAuthOnTheWire(t *testing.T) {
	server := httptest.NewUnstartedServer(newDoor(t))
	server.Config.DisableGeneralOptionsHandler = true // or net/http answers "OPTIONS *" itself, with 200
	server.Start()
	defer server.Close()
	token := "Authorization: Bearer " + good("acme", "aud", "admin") + "\r\n"
	long := "Authorization: Bearer " + good("acme", "aud", "admin", "pad", strings.Repeat("p", 5<<10)) + "\r\n"
	websocket := "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	for _, tt := range []struct {
		name, line, headers string
		status              int
	}{
		{"GET", "GET /authz HTTP/1.1", token, 200},
		{"HTTP/1.0", "GET /authz HTTP/1.0", token, 200},
		{"HEAD", "HEAD /authz HTTP/1.1", token, 200},
		{"OPTIONS", "OPTIONS /ext-authz/admin/x HTTP/1.1", token, 200},
		{"a method that is not known", "PROPFIND /ext-authz/admin/x HTTP/1.1", token, 200},
		{"a preflight", "OPTIONS /authz HTTP/1.1", "Origin: https://x.example\r\nAccess-Control-Request-Method: POST\r\n", 401},
		{"OPTIONS of the server", "OPTIONS * HTTP/1.1", token, 404},
		{"CONNECT of a host", "CONNECT x.example:443 HTTP/1.1", token, 404},
		{"CONNECT of a path", "CONNECT /ext-authz/admin/x HTTP/1.1", token, 200},
		{"an absolute URL", "GET http://x.example/authz HTTP/1.1", token, 200},
		{"a bad escape", "GET /ext-authz/admin/%zz HTTP/1.1", token, 400},
		{"a body that does not come", "POST /authz HTTP/1.1", token + "Content-Length: 300000\r\n", 200},
		{"a small body that does not come", "POST /authz HTTP/1.1", token + "Content-Length: 3\r\n", 200},
		{"chunks that do not come", "POST /authz HTTP/1.1", token + "Transfer-Encoding: chunked\r\n", 200},
		{"a body that does not come, and no token", "POST /authz HTTP/1.1", "Content-Length: 300000\r\n", 401},
		{"a body that does not come, for no profile", "POST /authz/x HTTP/1.1", "Content-Length: 300000\r\n", 404},
		{"a body that waits for leave", "POST /authz HTTP/1.1", token + "Content-Length: 3\r\nExpect: 100-continue\r\n", 200},
		{"a length of zero, as Envoy sends", "POST /ext-authz/admin/x HTTP/1.1", token + "Content-Length: 0\r\n", 200},
		{"traefik_3039_caddyserver_5430_websocket", "GET /authz HTTP/1.1", token + websocket, 200},
		{"traefik_3907_websocket without a token", "GET /authz HTTP/1.1", websocket, 401},
		{"golang_80416_h2c", "GET /authz HTTP/1.1", token + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n", 200},
		{"7 KiB of token", "GET /authz HTTP/1.1", long, 200},
		{"golang_50580_oathkeeper_1098_Connection names the token", "GET /authz HTTP/1.1", token + "Connection: Authorization, X-Auth-Subject\r\n", 200},
		{"a second token folded into the line", "GET /authz HTTP/1.1", strings.TrimSuffix(token, "\r\n") + "\r\n x\r\n", 400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp := exchange(t, server.Listener.Addr().String(), tt.line+"\r\nHost: x.example\r\n"+tt.headers+"\r\n")
			body, _ := io.ReadAll(resp.Body)
			status := resp.StatusCode
			if status == 401 && tt.status == 400 {
				status = 400 // net/http joins a folded line, and a header with a space is malformed
			}
			if status != tt.status || status == 200 && (len(body) > 0 || resp.Header.Get("X-Auth-Subject") != "ann") || resp.Header.Get("Upgrade") != "" {
				t.Errorf("got %d %v %q, want %d", resp.StatusCode, resp.Header, body, tt.status)
			}
			if bodies := strings.Contains(tt.name, "not come"); bodies && !resp.Close {
				t.Error("the connection stays open, and the body may still come")
			} else if !bodies && status == 200 && resp.Close && resp.ProtoMinor == 1 && !strings.Contains(tt.headers, "Expect") {
				t.Error("the connection is closed, although it can be used again")
			}
		})
	}
}

// traefik does as ForwardAuth of Traefik 3 does (pkg/middlewares/auth/forward.go): the question has the
// client's headers except for those of the connection, and of the answer the named headers replace the
// client's.
func traefik(address string, preserveMethod bool, answerHeaders []string, next http.Handler) http.Handler {
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		method := http.MethodGet
		if preserveMethod {
			method = r.Method
		}
		ask, err := http.NewRequestWithContext(r.Context(), method, address, nil)
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		ask.Header = r.Header.Clone()
		for _, list := range r.Header["Connection"] {
			for name := range strings.SplitSeq(list, ",") {
				ask.Header.Del(strings.TrimSpace(name))
			}
		}
		for _, name := range []string{"Connection", "Keep-Alive", "Te", "Trailers", "Transfer-Encoding", "Upgrade"} {
			ask.Header.Del(name)
		}
		ask.Header.Set("X-Forwarded-Method", r.Method)
		ask.Header.Set("X-Forwarded-Proto", "http")
		ask.Header.Set("X-Forwarded-Host", r.Host)
		ask.Header.Set("X-Forwarded-Uri", r.URL.RequestURI())
		answer, err := client.Do(ask)
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		defer answer.Body.Close()
		if answer.StatusCode < 200 || answer.StatusCode >= 300 {
			for name, values := range answer.Header {
				w.Header()[name] = values
			}
			w.WriteHeader(answer.StatusCode)
			io.Copy(w, answer.Body)
			return
		}
		for _, name := range answerHeaders {
			r.Header.Del(name)
			if values := answer.Header.Values(name); len(values) > 0 {
				r.Header[http.CanonicalHeaderKey(name)] = values
			}
		}
		next.ServeHTTP(w, r)
	})
}

func TestForwardAuthBehindTraefik(t *testing.T) {
	authz := httptest.NewServer(newDoor(t))
	defer authz.Close()
	var seen http.Header
	app := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = r.Header })
	headers := []string{"X-Auth-Tenant", "X-Auth-Subject", "X-Auth-Scopes", "X-Auth-Expires", "X-Auth-Token-Id"}
	for _, preserve := range []bool{false, true} {
		for _, method := range []string{"GET", "POST", "HEAD", "OPTIONS", "DELETE"} {
			door := httptest.NewServer(traefik(authz.URL+"/authz/admin", preserve, headers, app))
			for name, tt := range map[string]struct {
				headers []string
				status  int
			}{
				"good":             {append(bearer(good("acme", "aud", "admin")), "X-Auth-Subject", "eve", "X-Auth-Token-Id", "eve", "X-Forwarded-Uri", "/public"), 200},
				"none":             {[]string{"X-Auth-Subject", "eve", "X-Forwarded-Method", "OPTIONS"}, 401},
				"audience":         {bearer(good("acme")), 403},
				"alias underscore": {append(bearer(good("acme", "aud", "admin")), "X_auth_subject", "eve"), 401},
				"alias dot":        {append(bearer(good("acme", "aud", "admin")), "X.auth.subject", "eve"), 401},
				"websocket":        {append(bearer(good("acme", "aud", "admin")), "Connection", "Upgrade", "Upgrade", "websocket"), 200},
				// traefik/traefik#11077: then the token is one of the connection's, and is not asked about.
				"Connection names it": {append(bearer(good("acme", "aud", "admin")), "Connection", "Authorization"), 401},
			} {
				seen = nil
				r := mustRequest(t, method, door.URL+"/x/../y?scope=admin", strings.NewReader("body"))
				for i := 0; i < len(tt.headers); i += 2 {
					r.Header[tt.headers[i]] = append(r.Header[tt.headers[i]], tt.headers[i+1])
				}
				resp, err := http.DefaultTransport.RoundTrip(r)
				if err != nil {
					t.Fatal(err)
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != tt.status || (seen != nil) != (tt.status == 200) {
					t.Errorf("%s %s: %d, want %d", method, name, resp.StatusCode, tt.status)
				}
				if seen != nil && (seen.Get("X-Auth-Subject") != "ann" || len(seen["X-Auth-Subject"]) != 1 || seen.Get("X-Auth-Token-Id") != "") {
					t.Errorf("%s %s: the service sees %v", method, name, seen)
				}
			}
			door.Close()
		}
	}
}

// envoy asks as ext_authz of Envoy does over HTTP (ext_authz_http_impl.cc): the client's method, its
// path after a prefix, its Authorization headers as one, and a length of zero. It returns what Envoy
// makes of the answer: the status for the client, and the headers for the service.
func envoy(t *testing.T, url, prefix, method, path string, client http.Header) (status int, upstream http.Header) {
	t.Helper()
	r := mustRequest(t, method, url, http.NoBody)
	r.URL.Opaque = prefix + path
	r.Header.Set("Content-Length", "0")
	if values := client.Values("Authorization"); len(values) > 0 {
		r.Header.Set("Authorization", strings.Join(values, ","))
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	switch {
	case resp.StatusCode >= 500:
		return 503, nil // status_on_error, with failure_mode_allow: false
	case resp.StatusCode != 200:
		return resp.StatusCode, nil
	}
	upstream = client.Clone()
	for name, values := range resp.Header {
		if strings.HasPrefix(name, "X-Auth-") { // allowed_upstream_headers
			upstream[name] = values
		}
	}
	for name := range strings.SplitSeq(resp.Header.Get("X-Envoy-Auth-Headers-To-Remove"), ",") {
		upstream.Del(strings.TrimSpace(name))
	}
	return 200, upstream
}

func TestForwardAuthBehindEnvoy(t *testing.T) {
	server := httptest.NewServer(newDoor(t))
	defer server.Close()
	paths := []string{"/", "/orders?scope=x", "/../default/x", "/%2e%2e/default", "//", "/a%2Fb", "/?/../authz", "/;x", "/a b"[:2], "/*"}
	for _, method := range []string{"GET", "POST", "HEAD", "OPTIONS", "CONNECT", "TRACE", "BREW"} {
		for _, path := range paths {
			for _, prefix := range []string{"/ext-authz/admin/", "/ext-authz/admin"} {
				client := http.Header{"Authorization": {"Bearer " + good("acme", "aud", "admin")}, "X-Auth-Subject": {"eve"}, "X-Auth-Token-Id": {"eve"}, "X-Auth-Scopes": {"all"}}
				if method == "CONNECT" {
					resp := exchange(t, server.Listener.Addr().String(), "CONNECT "+prefix+path+" HTTP/1.1\r\nHost: x\r\ncontent-length: 0\r\nauthorization: "+client.Get("Authorization")+"\r\n\r\n")
					if resp.StatusCode != 200 {
						t.Errorf("CONNECT %s%s: %d", prefix, path, resp.StatusCode)
					}
					continue
				}
				status, up := envoy(t, server.URL, prefix, method, path, client)
				if status != 200 || up.Get("X-Auth-Subject") != "ann" || up["X-Auth-Token-Id"] != nil || up["X-Auth-Scopes"] != nil || up["Authorization"] != nil {
					t.Errorf("%s %s%s: %d, the service sees %v", method, prefix, path, status, up)
				}
				client.Set("Authorization", "Bearer "+good("acme"))
				if status, _ := envoy(t, server.URL, prefix, method, path, client); status != 403 {
					t.Errorf("%s %s%s for another audience: %d", method, prefix, path, status)
				}
				client.Add("Authorization", "Bearer "+good("acme", "aud", "admin"))
				if status, _ := envoy(t, server.URL, prefix, method, path, client); status != 401 {
					t.Errorf("%s %s%s with two tokens: %d", method, prefix, path, status)
				}
				if status, _ := envoy(t, server.URL, prefix, method, path, nil); status != 401 {
					t.Errorf("%s %s%s without a token: %d", method, prefix, path, status)
				}
			}
		}
	}
}

// Where Envoy lets pass what it cannot ask about, no answer of ours may be one of those.
func TestForwardAuth_envoyproxy_5672_FailureModeAllow(t *testing.T) {
	for name, door := range map[string]http.Handler{
		"cannot tell": middleware.ForwardAuth(downVerifier(t, io.ErrUnexpectedEOF), middleware.ForwardAuthConfig{CannotTell: 403}),
		"a panic": middleware.ForwardAuth(newVerifier(t, "acme"), middleware.ForwardAuthConfig{CannotTell: 403,
			Observe: func(*http.Request, string, int, error) { panic(http.ErrAbortHandler) }}),
		"an assertion that is not signed": middleware.ForwardAuth(newVerifier(t, "acme"), middleware.ForwardAuthConfig{CannotTell: 403,
			Identity: middleware.Identity{Asserter: assertFails{io.EOF}, AssertTenant: "x"}}),
	} {
		server := httptest.NewServer(door)
		resp := exchange(t, server.Listener.Addr().String(), "GET /ext-authz/default/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+good("acme")+"\r\n\r\n")
		if resp.StatusCode != 403 {
			t.Errorf("%s: %d, want 403", name, resp.StatusCode)
		}
		server.Close()
	}
}
