package jwks_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

// reset ends a TCP connection with RST, not FIN.
func reset(conn net.Conn) {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
}

// hijacked returns a handler that writes to the connection by itself, and then resets it.
func hijacked(t *testing.T, then func(conn net.Conn)) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		then(conn)
		reset(conn)
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// A connection in memory cannot be refused or reset by the kernel. Sockets can, at every step.
func TestSocketsThatBreak(t *testing.T) {
	set := jwkstest.Set(jwkstest.NewKey("a", "ES256"))
	for _, tt := range []struct {
		name string
		url  func(t *testing.T) string // "" is that of handler
		then http.HandlerFunc
		step jwks.Step
		text string
	}{
		{name: "closed port", step: jwks.StepConnect, text: "refused", url: func(t *testing.T) string {
			l := listen(t)
			l.Close()
			return "https://" + l.Addr().String()
		}},
		{name: "reset before TLS", step: jwks.StepTLS, url: func(t *testing.T) string {
			l := listen(t)
			go func() {
				for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
					io.ReadFull(conn, make([]byte, 1))
					reset(conn)
				}
			}()
			return "https://" + l.Addr().String()
		}},
		{name: "http where TLS belongs", step: jwks.StepTLS, url: func(t *testing.T) string {
			plain := httptest.NewServer(http.NotFoundHandler())
			t.Cleanup(plain.Close)
			return strings.Replace(plain.URL, "http:", "https:", 1)
		}},
		{name: "reset after the request", step: jwks.StepResponse, then: hijacked(t, func(net.Conn) {})},
		{name: "reset in the header", step: jwks.StepResponse, then: hijacked(t, func(conn net.Conn) {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-")
		})},
		{name: "reset in the body", step: jwks.StepBody, then: hijacked(t, func(conn net.Conn) {
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(set), set[:len(set)/2])
		})},
		{name: "reset after the body, whose length it did not say", step: jwks.StepBody, then: hijacked(t, func(conn net.Conn) {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"+set)
		})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			issuer := httptest.NewUnstartedServer(tt.then)
			issuer.Config.ErrorLog = log.New(io.Discard, "", 0)
			issuer.StartTLS()
			defer issuer.Close()
			roots := x509.NewCertPool()
			roots.AddCert(issuer.Certificate())
			url := issuer.URL
			if tt.url != nil {
				url = tt.url(t)
			}
			client := jwks.New(jwks.Config{TLS: &tls.Config{RootCAs: roots}})
			defer client.Close(t.Context())
			s, err := client.Open("acme", url, jwks.SourceConfig{AllowLoopback: true})
			if err != nil {
				t.Fatal(err)
			}
			if err := attempted(s); stepOf(err) != tt.step || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%v, want step %q, %s", err, tt.step, tt.text)
			}
			_, err = get(s, "a")
			wantOnly(t, "Lookup", err, keystore.ErrUnavailable)
		})
	}
}

// An issuer that takes the request and is silent, over sockets, costs an attempt its five seconds,
// and does not affect known kids.
func TestSilenceOverSockets(t *testing.T) {
	t.Parallel()
	w := newWorld(t, jwkstest.New(t), jwks.Config{})
	s := w.ready(jwks.SourceConfig{})
	w.issuer.Misbehave(jwkstest.HangHeader())
	if err := jwks.Reload(t.Context(), s); stepOf(err) != jwks.StepResponse {
		t.Errorf("fetch = %v, want step %q", err, jwks.StepResponse)
	}
	w.wantKey(s, w.a)
	w.wantLookup(s, "unknown", keystore.ErrUnavailable)
}
