package server

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// HTTP/2 frames its path, so that it may hold a space. In HTTP/1.1 a space ends it: the service would read
// another version, and take the body for a request of its own, with any identity in it.
func TestSpaceInAPathOfHTTP2(t *testing.T) {
	ca := newCA(t, "ca")
	p := startProxy(t, startTCP(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"), func(c *Config) {
		c.TLS, c.Upstream.PassPreflight = &TLS{Certificate: ca.issue(t, "127.0.0.1")}, true
	})
	at, err := url.Parse(p.url)
	if err != nil {
		t.Fatal(err)
	}
	client := ca.client(nil, true)
	defer client.CloseIdleConnections()
	for _, target := range []string{"/a HTTP/1.0", "/a?b HTTP/1.0", "/a|b c", "/ ", "/a?| "} {
		for _, method := range []string{"POST", "OPTIONS"} {
			r := &http.Request{
				Method: method, URL: &url.URL{Scheme: "https", Host: at.Host, Opaque: target}, Body: io.NopCloser(strings.NewReader("hi")),
				Header: http.Header{"Origin": {"https://app.example"}, "Access-Control-Request-Method": {"POST"}, "Authorization": {"Bearer " + testToken(time.Hour, "")}},
			}
			res, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if res.ProtoMajor != 2 || res.StatusCode != http.StatusBadRequest || !bytes.Contains(body, []byte("invalid_request")) {
				t.Errorf("%s %q over HTTP/%d = %d %s", method, target, res.ProtoMajor, res.StatusCode, body)
			}
		}
	}
}

// Anyone can begin a handshake that fails, so the log has few lines of that.
func TestHandshakeErrorsAreBounded(t *testing.T) {
	ca := newCA(t, "ca")
	log := new(logBuffer)
	s := running(t, Config{TLS: &TLS{Certificate: ca.issue(t, "127.0.0.1"), ClientCAs: ca.pool()}, Logger: slog.New(slog.NewTextHandler(log, nil))})
	for range 60 {
		c, err := net.Dial("tcp", s.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		io.WriteString(c, "\x16\x03\x01\x00\x01\x00 no handshake")
		io.Copy(io.Discard, c)
		c.Close()
	}
	refuse := s.onlyAdmitted(http.NotFoundHandler())
	for range 60 { // these have no certificate
		refuse.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	}
	for _, text := range []string{"TLS handshake error", "no longer admitted"} {
		if lines := strings.Count(log.String(), text); lines == 0 || lines > 55 {
			t.Errorf("%d lines:\n%s", lines, log)
		}
	}
}
