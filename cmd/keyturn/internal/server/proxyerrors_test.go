package server

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/freeport"
)

// wantError checks an error of the proxy's own.
func wantError(t *testing.T, res *http.Response, body string, status int, code string) {
	t.Helper()
	var got struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	err := json.Unmarshal([]byte(body), &got)
	if err != nil || res.StatusCode != status || got.Error != code || got.Description == "" || res.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("answer = %d %v %s, want %d %s", res.StatusCode, res.Header, body, status, code)
	}
}

// hangs is an upstream that begins no answer.
func hangs(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

func TestProxyErrors(t *testing.T) {
	token := "Authorization: Bearer " + testToken(time.Hour, "")
	nowhere, err := freeport.Addr()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name     string
		upstream string
		change   func(*Config)
		lines    []string
		status   int
		code     string
	}{
		{"dial refused", "http://" + nowhere, nil, nil, 502, "bad_gateway"},
		{"no HTTP", startTCP(t, "hello\r\n\r\n"), nil, nil, 502, "bad_gateway"},
		{"closed without an answer", startTCP(t, ""), nil, nil, 502, "bad_gateway"},
		{"first byte late", startHandler(t, hangs), func(c *Config) { c.Upstream.FirstByte = 50 * time.Millisecond }, nil, 504, "gateway_timeout"},
		{"body too large", startEcho(t), func(c *Config) { c.Upstream.MaxBody = 3 }, []string{"Transfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n0\r\n\r\n"}, 413, "content_too_large"},
		{"body late", startEcho(t), func(c *Config) { c.Upstream.Idle = 200 * time.Millisecond }, []string{"Content-Length: 4\r\n\r\nfo"}, 408, "timeout"},
		{"upstream takes no body", startTCP(t, "wait"), func(c *Config) { c.Upstream.FirstByte = 200 * time.Millisecond },
			[]string{"Content-Length: 4\r\n\r\nfour"}, 504, "gateway_timeout"},
		{"an upgrade that no client asked for", startTCP(t, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"), nil, nil, 502, "bad_gateway"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := startProxy(t, tt.upstream, func(c *Config) {
				if tt.change != nil {
					tt.change(c)
				}
			})
			res, body := p.raw(t, "POST /secret-path HTTP/1.1", append([]string{token}, tt.lines...)...)
			wantError(t, res, body, tt.status, tt.code)
			p.stop()
			if log := p.log.String(); !strings.Contains(log, fmt.Sprintf("status=%d", tt.status)) || strings.Contains(log, "eyJ") || strings.Contains(log, "secret-path") {
				t.Errorf("log = %s", log)
			}
		})
	}
}

// startTCP runs an upstream that reads a request's head, and answers with text; for "wait" it does
// nothing more.
func startTCP(t *testing.T, text string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for r := bufio.NewReader(conn); ; {
					if line, err := r.ReadString('\n'); err != nil || line == "\r\n" {
						break
					}
				}
				if text == "wait" {
					io.Copy(io.Discard, conn)
				}
				io.WriteString(conn, text)
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// A token that ends while the upstream thinks is answered with 401.
func TestTokenEndsBeforeTheAnswer(t *testing.T) {
	p := startProxy(t, startHandler(t, hangs), quick)
	time.AfterFunc(200*time.Millisecond, func() { p.verifier.Suspend("acme") })
	for _, body := range []string{"X-None: 1", "Content-Length: 4\r\n\r\nfo"} {
		res, text := p.raw(t, "POST / HTTP/1.1", "Authorization: Bearer "+testToken(time.Hour, ""), body)
		if res.StatusCode != http.StatusUnauthorized || text != `{"error":"Invalid or expired token"}` {
			t.Errorf("answer = %d %s", res.StatusCode, text)
		}
		p.verifier.Resume("acme")
		time.AfterFunc(200*time.Millisecond, func() { p.verifier.Suspend("acme") })
	}
}

// A client that goes away is not the upstream's failure.
func TestClientGone(t *testing.T) {
	reached := make(chan struct{})
	p := startProxy(t, startHandler(t, func(w http.ResponseWriter, r *http.Request) {
		close(reached)
		<-r.Context().Done()
	}))
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", testToken(time.Hour, ""))
	<-reached
	conn.Close()
	until(t, "the log says so", func() bool {
		return strings.Contains(p.log.String(), "level=INFO") && strings.Contains(p.log.String(), "status=499")
	})
}

// An upstream that breaks its answer off is not made to look whole.
func TestUpstreamBreaksOff(t *testing.T) {
	p := startProxy(t, startTCP(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n"))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+testToken(time.Hour, ""))
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err == nil || string(body) != "four" {
		t.Errorf("body = %q, %v, want an error", body, err)
	}
	until(t, "the log says so", func() bool { return strings.Contains(p.log.String(), "reason=upstream") })
}

// The answer of the upstream passes as it is.
func TestProxyAnswer(t *testing.T) {
	p := startProxy(t, startHandler(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "" {
			t.Errorf("Accept-Encoding = %q, which the client has not sent", r.Header.Get("Accept-Encoding"))
		}
		w.Header().Set("Link", "</a.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header()["Content-Type"] = nil
		w.Header().Add("Set-Cookie", "a=1")
		w.Header().Add("Set-Cookie", "b=2")
		w.Header().Set("Connection", "X-Hop")
		w.Header().Set("X-Hop", "1")
		w.WriteHeader(http.StatusTeapot)
		io.WriteString(w, "<html>")
	}))
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer %s\r\n\r\n", testToken(time.Hour, ""))
	r := bufio.NewReader(conn)
	early, err := http.ReadResponse(r, nil)
	if err != nil || early.StatusCode != http.StatusEarlyHints || early.Header.Get("Link") == "" {
		t.Fatalf("early = %v, %v", early, err)
	}
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusTeapot || string(body) != "<html>" || len(res.Header["Set-Cookie"]) != 2 {
		t.Errorf("answer = %d %v %s, %v", res.StatusCode, res.Header, body, err)
	}
	for _, name := range []string{"Content-Type", "X-Hop", "Content-Security-Policy", "Cache-Control"} {
		if v, ok := res.Header[name]; ok {
			t.Errorf("%s = %q, which the upstream has not sent", name, v)
		}
	}
}

// Only the upgrade of a WebSocket reaches the upstream: through h2c a client could send requests
// past the proxy (golang/go#80416, Traefik GHSA-w4v4-9rw7-5326).
func TestGolangGo80416_NoH2CSmuggling(t *testing.T) {
	upgraded := make(chan string, 10)
	up := startHandler(t, func(w http.ResponseWriter, r *http.Request) {
		upgraded <- r.Header.Get("Upgrade") + r.Header.Get("Http2-Settings") + r.Header.Get("Connection")
		if strings.EqualFold(r.Header.Get("Upgrade"), "h2c") {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
				conn.Close()
			}
		}
	})
	p := startProxy(t, up)
	for _, lines := range [][]string{
		{"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"},
		{"Connection: Upgrade", "Upgrade: H2C", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"},
		{"Connection: Upgrade", "Upgrade: websocket, h2c"},
		{"Connection: Upgrade", "Upgrade: websocket", "Upgrade: h2c"},
		{"Connection: Upgrade", "Upgrade: TLS/1.2"},
		{"Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"},
	} {
		res, _ := p.raw(t, "GET / HTTP/1.1", append(lines, "Authorization: Bearer "+testToken(time.Hour, ""))...)
		if got := <-upgraded; res.StatusCode != http.StatusOK || got != "" {
			t.Errorf("%q: status = %d, the upstream got %q", lines, res.StatusCode, got)
		}
	}
	for _, request := range []string{"POST / HTTP/1.1", "GET / HTTP/1.0"} { // RFC 6455, section 4.1
		res, _ := p.raw(t, request, "Connection: Upgrade", "Upgrade: websocket", "Content-Length: 0", "Authorization: Bearer "+testToken(time.Hour, ""))
		if got := <-upgraded; res.StatusCode != http.StatusOK || got != "" && request[0] == 'P' {
			t.Errorf("%s: status = %d, the upstream got %q", request, res.StatusCode, got)
		}
	}
}

// Through h2c a gRPC call passes, with its trailers, and both directions at once.
func TestH2CUpstream(t *testing.T) {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Protocols: protocols, Handler: http.HandlerFunc(grpcEcho)}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	p := startProxy(t, "h2c://"+l.Addr().String())
	client := &http.Transport{Protocols: protocols}
	defer client.CloseIdleConnections()

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	body, sends := io.Pipe()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url+"/pkg.Service/Chat", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"Authorization": {"Bearer " + testToken(time.Hour, "")}, "Content-Type": {"application/grpc"}, "Te": {"trailers"}, "X_auth_subject": {forged}}
	res, err := client.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answer := make([]byte, 9)
	for _, text := range []string{"one", "two"} {
		io.WriteString(sends, text)
		if _, err := io.ReadFull(res.Body, answer); err != nil || string(answer) != "ann: "+text+"\n" {
			t.Fatalf("answer = %q, %v", answer, err)
		}
	}
	sends.Close()
	if rest, err := io.ReadAll(res.Body); err != nil || len(rest) != 0 {
		t.Errorf("rest = %q, %v", rest, err)
	}
	if res.ProtoMajor != 2 || res.Trailer.Get("Grpc-Status") != "0" || res.Trailer.Get("Grpc-Message") != "fine" {
		t.Errorf("HTTP/%d, trailers = %v", res.ProtoMajor, res.Trailer)
	}
	req, _ = http.NewRequestWithContext(ctx, http.MethodPost, p.url+"/pkg.Service/Chat", strings.NewReader("x"))
	if res, err = client.RoundTrip(req); err != nil || res.StatusCode != http.StatusUnauthorized {
		t.Fatalf("without a token: %v, %v", res, err)
	}
	res.Body.Close()
}

// grpcEcho answers each read at once.
func grpcEcho(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/grpc")
	w.WriteHeader(http.StatusOK)
	control := http.NewResponseController(w)
	control.Flush()
	buf := make([]byte, 3)
	for {
		if _, err := io.ReadFull(r.Body, buf); err != nil {
			break
		}
		fmt.Fprintf(w, "%s: %s\n", r.Header.Get("X-Auth-Subject"), buf)
		control.Flush()
	}
	w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	w.Header().Set(http.TrailerPrefix+"Grpc-Message", "fine")
}

// An upstream may answer before it has read the whole body. The client gets that answer at once, although
// it sends nothing more, and it holds neither the connection nor the end of the server.
func TestAnswerBeforeTheBodyEnds(t *testing.T) {
	for _, length := range []string{"Content-Length: 100000", "Transfer-Encoding: chunked"} {
		p := startProxy(t, startTCP(t, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nmuch"))
		conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n%s\r\n\r\n4\r\nfour\r\n", testToken(time.Hour, ""), length)
		r := bufio.NewReader(conn)
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		body := make([]byte, 4)
		if _, err := io.ReadFull(res.Body, body); err != nil || res.StatusCode != 413 || string(body) != "much" {
			t.Errorf("answer = %d %s, %v", res.StatusCode, body, err)
		}
		if _, err := r.ReadByte(); err == nil || isTimeout(err) {
			t.Errorf("the connection: %v, want its end", err)
		}
		began := time.Now()
		if p.stop(); time.Since(began) > 9*time.Second {
			t.Errorf("the server ended after %v", time.Since(began))
		}
	}
}

// A refused request whose body does not come holds no connection.
func TestRefusedBodyThatDoesNotCome(t *testing.T) {
	p := startProxy(t, startEcho(t))
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nfour")
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 401 ") {
		t.Errorf("answer = %q, %v, want 401 and the end of the connection", answer, err)
	}
}
