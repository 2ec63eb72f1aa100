package server

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
)

// many returns a server's tenants, each with a name that a stranger must not learn.
func many(t *testing.T, n int) []Tenant {
	t.Helper()
	var all []Tenant
	for i := range n {
		one := static(t, fmt.Sprintf("customer-%04d", i))
		one.Rules.AnyIssuer, one.Rules.Issuer = false, fmt.Sprintf("https://%d.example", i)
		all = append(all, one)
	}
	return all
}

func get(h http.Handler, method, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w
}

// A stranger learns how many tenants there are, and no name of one: 5000 names were 174 KB.
func TestPublicReadinessNamesNoTenant(t *testing.T) {
	s, err := New(t.Context(), Config{Addr: "127.0.0.1:0", Tenants: many(t, 5000)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for _, path := range []string{"/readyz", "/healthz"} {
		for _, method := range []string{"GET", "HEAD", "POST"} {
			w := get(s.routes(), method, path)
			if strings.Contains(w.Body.String(), "customer") || w.Body.Len() > 200 {
				t.Errorf("%s %s = %d bytes: %.200s", method, path, w.Body.Len(), w.Body)
			}
		}
	}
	if w := get(s.routes(), "GET", "/readyz"); w.Code != http.StatusOK || w.Body.String() != `{"status":"ready","ready":5000,"degraded":0,"not_ready":0}`+"\n" {
		t.Errorf("/readyz = %d %s", w.Code, w.Body)
	}
	if at, _, ok := s.Admin(); ok {
		t.Errorf("there is an admin listener, unasked: %v", at)
	}
}

// The admin listener names each tenant. It answers GET and HEAD, and has nothing of the API.
func TestAdminRoutes(t *testing.T) {
	s, err := New(t.Context(), Config{Addr: "127.0.0.1:0", Admin: "127.0.0.1:0", Tenants: []Tenant{static(t, "acme")}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	const ready = `{"status":"ready","ready":1,"degraded":0,"not_ready":0,"tenants":{"acme":{"status":"ready"}}}` + "\n"
	for _, tt := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/readyz", 200, ready},
		{"HEAD", "/readyz", 200, ready}, // net/http drops the body
		{"GET", "/healthz", 200, `{"status":"ok"}` + "\n"},
		{"POST", "/readyz", 405, `{"error":"Method not allowed"}` + "\n"},
		{"DELETE", "/healthz", 405, `{"error":"Method not allowed"}` + "\n"},
		{"GET", "/api/x", 404, `{"error":"Not found"}` + "\n"},
		{"GET", "/readyz/", 404, `{"error":"Not found"}` + "\n"},
		{"GET", JWKSPath, 404, `{"error":"Not found"}` + "\n"},
	} {
		w := get(s.adminRoutes(), tt.method, tt.path)
		if w.Code != tt.status || w.Body.String() != tt.body {
			t.Errorf("%s %s = %d %s, want %d %s", tt.method, tt.path, w.Code, w.Body, tt.status, tt.body)
		}
		if h := w.Header(); h.Get("Cache-Control") != "no-store" || h.Get("Content-Type") != "application/json" || tt.status == 405 && h.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s %s: headers = %v", tt.method, tt.path, h)
		}
	}
}

func TestAdminExposed(t *testing.T) {
	for addr, want := range map[string]bool{"127.0.0.1:0": false, "[::1]:0": false, "0.0.0.0:0": true, ":0": true} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if _, exposed, ok := (&Server{admin: l}).Admin(); !ok || exposed != want {
			t.Errorf("%s: exposed = %v, %v, want %v", addr, exposed, ok, want)
		}
	}
}

// inFlight sends a request without its body, and returns once the handler waits for that.
func inFlight(t *testing.T, s *Server) net.Conn {
	t.Helper()
	id := keystore.ID{Tenant: "acme"}
	signer, err := rotation.NewStaticSigner(id, keystore.HS256, []byte(testSecret), rotation.SignerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	token, err := signer.Sign(t.Context(), id.Tenant, map[string]any{"sub": "ann"})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", s.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "POST /api/x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n", token)
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	answer := make([]byte, len("HTTP/1.1 100 Continue\r\n\r\n"))
	if _, err := io.ReadFull(conn, answer); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 100") {
		t.Fatalf("answer = %q, %v", answer, err)
	}
	return conn
}

// While requests in flight end, the admin listener tells load balancers to send no more. Afterwards
// neither listener is left.
func TestAdminWhileStopping(t *testing.T) {
	running := goleak.IgnoreCurrent()
	draining := make(chan struct{})
	s, err := New(t.Context(), Config{
		Addr: "127.0.0.1:0", Admin: "127.0.0.1:0", Tenants: []Tenant{static(t, "acme")}, Drain: 20 * time.Second,
		Notify: func(e Event) {
			if _, ok := e.(Draining); ok {
				close(draining)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	conn := inFlight(t, s)
	at, _, _ := s.Admin()
	ask := func() (int, string) {
		res, err := http.Get(at.URL + "/readyz")
		if err != nil {
			return 0, err.Error()
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(body)
	}
	if status, body := ask(); status != 200 {
		t.Errorf("/readyz = %d %s", status, body)
	}
	cancel()
	<-draining
	if status, body := ask(); status != 503 || !strings.HasPrefix(body, `{"status":"stopping","ready":1,`) {
		t.Errorf("while it stops, /readyz = %d %s", status, body)
	}
	io.WriteString(conn, "0123456789")
	if err := <-ended; err != nil {
		t.Errorf("Run = %v", err)
	}
	if status, body := ask(); status != 0 {
		t.Errorf("afterwards, /readyz = %d %s", status, body)
	}
	http.DefaultClient.CloseIdleConnections()
	goleak.VerifyNone(t, running)
}

// If one listener breaks, the server ends, and takes the other one with it.
func TestRunEndsWithEitherListener(t *testing.T) {
	running := goleak.IgnoreCurrent()
	for _, broken := range []func(*Server) net.Listener{
		func(s *Server) net.Listener { return s.listener },
		func(s *Server) net.Listener { return s.admin },
	} {
		s, err := New(t.Context(), Config{Addr: "127.0.0.1:0", Admin: "127.0.0.1:0", Tenants: []Tenant{static(t, "acme")}})
		if err != nil {
			t.Fatal(err)
		}
		broken(s).Close()
		if err := s.Run(t.Context()); err == nil {
			t.Error("Run = nil, want the error of the listener")
		}
		for _, l := range []net.Listener{s.listener, s.admin} {
			if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
				c.Close()
				t.Errorf("%v still listens", l.Addr())
			}
		}
	}
	goleak.VerifyNone(t, running)
}

// However many ask, a value that costs time is computed once a second.
func TestRecent(t *testing.T) {
	var r recent[int]
	computed := 0
	at := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		after time.Duration
		want  int
	}{{0, 1}, {999 * time.Millisecond, 1}, {time.Second, 2}, {1900 * time.Millisecond, 2}, {-time.Hour, 3}, {-time.Hour, 3}} {
		if got := r.get(at.Add(tt.after), func() int { computed++; return computed }); got != tt.want {
			t.Errorf("after %v: value %d, want %d", tt.after, got, tt.want)
		}
	}
}
