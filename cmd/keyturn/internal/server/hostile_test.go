package server

import (
	"bufio"
	"bytes"
	"crypto/tls"
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

// A stream ends with the certificate of its client too.
func TestStreamEndsWithItsClientCertificate(t *testing.T) {
	ca, next := newCA(t, "ca"), newCA(t, "next")
	secure := TLS{Certificate: ca.issue(t, "127.0.0.1"), ClientCAs: ca.pool()}
	p := startProxy(t, startHandler(t, streamsHandler(nil)), quick, func(c *Config) { c.TLS = &secure })
	cert := ca.issue(t, "gw.example")
	for _, h2 := range []bool{false, true} {
		client := ca.client(&cert, h2)
		defer client.CloseIdleConnections()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+"/sse", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+testToken(time.Hour, ""))
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		lines := bufio.NewReader(res.Body)
		wantEvent(t, lines, "hello ann")
		reload := func(of TLS) {
			if _, err := p.reload(t.Context(), Config{Tenants: []Tenant{static(t, "acme")}, TLS: &of, Upstream: p.cfg.Upstream, Admin: p.cfg.Admin}); err != nil {
				t.Fatal(err)
			}
		}
		reload(TLS{Certificate: secure.Certificate, ClientCAs: ca.pool(), ClientNames: []string{"gw.example"}})
		ends := len(p.meter.ended())
		reload(TLS{Certificate: secure.Certificate, ClientCAs: next.pool()})
		until(t, "the stream ends", func() bool { return len(p.meter.ended()) > ends })
		if _, err := lines.ReadString('\n'); err == nil || p.meter.ended()[ends] != StreamRevoked {
			t.Errorf("HTTP/2 %v: Read = %v, ended: %v", h2, err, p.meter.ended())
		}
		reload(secure)
	}
}

// A client of HTTP/2 that lets no byte of an answer through holds memory for each of its streams. Without a
// token it does so for seconds only.
func TestRefusedClientThatDoesNotRead(t *testing.T) {
	t.Parallel()
	ca := newCA(t, "ca")
	p := startProxy(t, startEcho(t), func(c *Config) { c.TLS = &TLS{Certificate: ca.issue(t, "127.0.0.1")} })
	c, err := tls.Dial("tcp", p.listener.Addr().String(), &tls.Config{RootCAs: ca.pool(), NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	// RFC 9113: the preface, SETTINGS with INITIAL_WINDOW_SIZE 0, and HEADERS of GET https / that end stream 1.
	io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+
		"\x00\x00\x06\x04\x00\x00\x00\x00\x00"+"\x00\x04\x00\x00\x00\x00"+
		"\x00\x00\x03\x01\x05\x00\x00\x00\x01"+"\x82\x87\x84")
	const rstStream = 3
	for head := make([]byte, 9); ; {
		if _, err := io.ReadFull(c, head); err != nil {
			t.Fatalf("the stream is not ended: %v", err)
		}
		if head[3] == rstStream {
			return
		}
		if _, err := io.CopyN(io.Discard, c, int64(head[0])<<16|int64(head[1])<<8|int64(head[2])); err != nil {
			t.Fatal(err)
		}
	}
}
