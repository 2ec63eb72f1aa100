package jwks_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

// A far is any number of hosts in memory that are some latency away, and keep their connections.
type far struct {
	latency time.Duration
	answer  func(r *http.Request) string // "" is 404
	once    bool                         // it closes a connection after its first answer, without a word

	serving sync.WaitGroup

	mu       sync.Mutex
	requests map[string]int // by host and path
	dials    int
	open     int
	most     int // requests at once
	running  int
}

func (f *far) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	select { // one round trip for TCP, and one for what TLS would take
	case <-time.After(2 * f.latency):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	client, server := net.Pipe()
	f.count(func() { f.dials++; f.open++ })
	f.serving.Go(func() {
		defer f.count(func() { f.open-- })
		defer server.Close()
		in := bufio.NewReader(server)
		for {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			f.count(func() {
				if f.requests == nil {
					f.requests = make(map[string]int)
				}
				f.requests[r.Host+r.URL.Path]++
				f.running++
				f.most = max(f.most, f.running)
			})
			time.Sleep(f.latency)
			f.count(func() { f.running-- })
			status, body := 200, f.answer(r)
			if body == "" {
				status = 404
			}
			fmt.Fprintf(server, "HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body)
			if f.once {
				return
			}
		}
	})
	return client, nil
}

func (f *far) count(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// asked returns how many requests there were for hosts and paths that hold part.
func (f *far) asked(part string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for where, times := range f.requests {
		if strings.Contains(where, part) {
			n += times
		}
	}
	return n
}

// load returns how many connections were made, how many of them are open, and how many requests there
// were at once.
func (f *far) load() (dials, open, most int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dials, f.open, f.most
}

// realms answers as a host of many issuers does, each with metadata and a set of its own. at is the
// origin.
func realms(at, set string) func(r *http.Request) string {
	return func(r *http.Request) string {
		if issuer, ok := strings.CutSuffix(r.URL.Path, "/.well-known/openid-configuration"); ok {
			return fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, at+issuer, at+issuer+"/certs")
		}
		return set
	}
}

// firstTokens opens sources for so many tenants, and looks for the key of one token of each at once.
// It returns how many were not found, and how long it took.
func firstTokens(t *testing.T, tenants int, open func(tenant string, i int) (*jwks.Source, error)) (failed int, took time.Duration) {
	t.Helper()
	start := time.Now()
	var mu sync.Mutex
	var callers sync.WaitGroup
	for i := range tenants {
		tenant := fmt.Sprint("tenant-", i)
		s, err := open(tenant, i)
		if err != nil {
			t.Fatal(err)
		}
		callers.Go(func() {
			id := keystore.ID{Tenant: tenant, KID: "a"}
			err := s.Refresh(t.Context(), id)
			if err == nil {
				_, err = s.Lookup(id, keystore.ES256)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed++
			}
		})
	}
	callers.Wait()
	return failed, time.Since(start)
}

// A service that starts with 300 tenants of one host, 80 ms away, refuses the first token of none.
func TestColdStartAtOneHost(t *testing.T) {
	parallel(t)
	const at = "http://127.0.0.1"
	set := jwkstest.Set(jwkstest.NewKey("a", "ES256"))
	for _, tt := range []struct {
		name     string
		discover bool
		cfg      jwks.Config
		within   time.Duration
		requests int
		failed   bool
	}{
		{name: "by Open", within: time.Second, requests: 300},
		{name: "by Discover", discover: true, within: 2 * time.Second, requests: 600},
		{name: "by Discover, two at once as before", discover: true, cfg: jwks.Config{PerHost: 2, Fetches: 16}, within: time.Minute, requests: 600, failed: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				f := &far{latency: 80 * time.Millisecond, answer: realms(at, set)}
				defer f.serving.Wait()
				tt.cfg.DialContext = f.dial
				client := jwks.New(tt.cfg)
				defer client.Close(t.Context())
				var all []*jwks.Source
				start := time.Now()
				failed, took := firstTokens(t, 300, func(tenant string, i int) (s *jwks.Source, err error) {
					cfg := jwks.SourceConfig{AllowLoopback: true}
					if tt.discover {
						s, err = client.Discover(tenant, fmt.Sprint(at, "/", i), cfg)
					} else {
						s, err = client.Open(tenant, fmt.Sprint(at, "/", i), cfg)
					}
					all = append(all, s)
					return s, err
				})
				for _, s := range all {
					if err := s.WaitReady(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
				dials, _, most := f.load()
				t.Logf("%d first tokens failed, %v; all ready after %v; %d connections", failed, took, time.Since(start), dials)
				if got := time.Since(start); got > tt.within || failed > 0 != tt.failed {
					t.Errorf("%d first tokens failed; all ready after %v, want %v", failed, got, tt.within)
				}
				if got := f.asked("/"); got != tt.requests {
					t.Errorf("%d requests, want %d", got, tt.requests)
				}
				if most > 32 || dials > 2*32 {
					t.Errorf("%d requests at once, over %d connections", most, dials)
				}
			})
		})
	}
}

// Connections are kept for two seconds, and Close ends them.
func TestConnectionsEnd(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := &far{latency: time.Millisecond, answer: realms("http://127.0.0.1", jwkstest.Set(jwkstest.NewKey("a", "ES256")))}
		client := jwks.New(jwks.Config{DialContext: f.dial})
		open := func(path string) {
			t.Helper()
			s, err := client.Open("acme", "http://127.0.0.1/"+path, jwks.SourceConfig{AllowLoopback: true})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.WaitReady(t.Context()); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		open("a")
		open("b")
		if dials, kept, _ := f.load(); dials != 1 || kept != 1 {
			t.Errorf("%d connections for two fetches, %d open", dials, kept)
		}
		time.Sleep(2100 * time.Millisecond)
		synctest.Wait()
		if _, kept, _ := f.load(); kept != 0 {
			t.Error("a connection is kept for more than two seconds")
		}
		open("c")
		if dials, kept, _ := f.load(); dials != 2 || kept != 1 {
			t.Errorf("%d connections, %d open", dials, kept)
		}
		if err := client.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.serving.Wait() // the peer sees the end
	})
}

// A connection that one source was allowed to make serves no source that is allowed less, or other
// things.
func TestConnectionsServeOneGuard(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := &far{latency: time.Millisecond, answer: realms("", jwkstest.Set(jwkstest.NewKey("a", "ES256")))}
		defer f.serving.Wait()
		r := &recorder{addrs: [][]string{{"10.1.2.3"}}}
		client := jwks.New(jwks.Config{LookupNetIP: r.lookup, DialContext: f.dial})
		defer client.Close(t.Context())
		wider := cluster("10.1.0.0/16")
		wider.AllowCIDR = append(wider.AllowCIDR, allowCIDR("10.7.0.0/16").AllowCIDR...)
		for i, cfg := range []jwks.SourceConfig{cluster("10.1.0.0/16"), cluster("10.0.0.0/8"), wider, cluster("10.2.0.0/16"), cluster("10.1.0.0/16")} {
			s, err := client.Open("acme", fmt.Sprint("http://keycloak:8080/", i), cfg)
			if err != nil {
				t.Fatal(err)
			}
			if err := attempted(s); (err != nil) != (i == 3) || err != nil && stepOf(err) != jwks.StepAddress {
				t.Errorf("source %d: %v", i, err)
			}
		}
		synctest.Wait()
		if dials, _, _ := f.load(); dials != 3 {
			t.Errorf("%d connections, want one for each of three guards", dials)
		}
	})
}

// What a connection may bring is counted for each request: many large sets pass over one connection,
// and one that is too large does not, however late it comes. A connection that the issuer closes
// between two requests does not fail the second.
func TestKeptConnectionsAreBounded(t *testing.T) {
	large := strings.TrimSuffix(jwkstest.Set(jwkstest.NewKey("a", "ES256")), "}") + `,"x":"` + strings.Repeat("x", 900<<10) + `"}`
	for _, once := range []bool{false, true} {
		virtual(t, func(t *testing.T) {
			f := &far{latency: time.Millisecond, once: once, answer: func(r *http.Request) string {
				if strings.HasSuffix(r.URL.Path, "endless") {
					return strings.Repeat(" ", 3<<20)
				}
				return large
			}}
			defer f.serving.Wait()
			client := jwks.New(jwks.Config{DialContext: f.dial})
			defer client.Close(t.Context())
			for _, path := range []string{"a", "b", "c", "d", "e", "endless", "f"} {
				s, err := client.Open("acme", "http://127.0.0.1/"+path, jwks.SourceConfig{AllowLoopback: true})
				if err != nil {
					t.Fatal(err)
				}
				if err := attempted(s); (err != nil) != (path == "endless") || err != nil && stepOf(err) != jwks.StepBody {
					t.Errorf("%s: %v", path, err)
				}
			}
			synctest.Wait()
			want := map[bool]int{false: 2, true: 7}[once]
			if dials, _, _ := f.load(); dials != want {
				t.Errorf("%d connections, want %d", dials, want)
			}
		})
	}
}

// Issuers that lead to one jwks_uri cause one request for it, also on different hosts, and sources of
// one issuer with different settings one for its metadata.
func TestOneRequestForWhatManyName(t *testing.T) {
	const common = "http://127.0.0.1/common"
	set := jwkstest.Set(jwkstest.NewKey("a", "ES256"))
	issuers := func(r *http.Request) string {
		if issuer, ok := strings.CutSuffix(r.URL.Path, "/.well-known/openid-configuration"); ok {
			return fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, "http://"+r.Host+issuer, common)
		}
		return set
	}
	for name, issuer := range map[string]func(i int) string{
		"on one host":   func(i int) string { return fmt.Sprint("http://127.0.0.1/", i) },
		"on many hosts": func(i int) string { return fmt.Sprintf("http://127.1.%d.1", i) },
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				f := &far{latency: 80 * time.Millisecond, answer: issuers}
				defer f.serving.Wait()
				client := jwks.New(jwks.Config{DialContext: f.dial})
				defer client.Close(t.Context())
				failed, took := firstTokens(t, 200, func(tenant string, i int) (*jwks.Source, error) {
					// The second hundred has the same issuers with other settings.
					return client.Discover(tenant, issuer(i%100), jwks.SourceConfig{AllowLoopback: true, AcceptEmpty: i >= 100})
				})
				t.Logf("%d failed, %v", failed, took)
				if failed > 0 || f.asked("/common") != 1 || f.asked(".well-known") != 100 {
					t.Errorf("%d tokens failed; %d requests for the set, %d for metadata", failed, f.asked("/common"), f.asked(".well-known"))
				}
			})
		})
	}
}

// A source that is closed while others wait for its request leaves them to ask again, and an answer is
// never older than the attempt that takes it.
func TestSharedRequestsAreNotLost(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := &far{latency: 500 * time.Millisecond, answer: func(*http.Request) string { return jwkstest.Set(jwkstest.NewKey("a", "ES256")) }}
		defer f.serving.Wait()
		client := jwks.New(jwks.Config{DialContext: f.dial})
		defer client.Close(t.Context())
		open := func(stale time.Duration) *jwks.Source {
			s, err := client.Open("acme", "http://127.0.0.1/", jwks.SourceConfig{AllowLoopback: true, StaleIfError: stale})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		first := open(time.Hour)
		synctest.Wait()
		second := open(2 * time.Hour)
		time.Sleep(1200 * time.Millisecond) // the request of the first is under way
		if n := f.asked("/"); n != 1 {
			t.Fatalf("%d requests", n)
		}
		if err := first.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := second.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		third := open(3 * time.Hour)
		if err := third.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n, attempts := f.asked("/"), second.Status().Fetches; n != 3 || attempts != 1 {
			t.Errorf("%d requests, want 3; %d attempts of the second source, want 1", n, attempts)
		}
	})
}

// The same over sockets and TLS: first tokens pass, over connections that are kept.
func TestColdStartOverSockets(t *testing.T) {
	set := jwkstest.Set(jwkstest.NewKey("a", "ES256"))
	var mu sync.Mutex
	conns := 0
	server := httptest.NewUnstartedServer(nil)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		if state == http.StateNew {
			conns++
		}
	}
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(10 * time.Millisecond)
		io.WriteString(w, realms(server.URL, set)(r))
	})
	server.StartTLS()
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	client := jwks.New(jwks.Config{TLS: &tls.Config{RootCAs: roots}})
	defer client.Close(t.Context())
	failed, took := firstTokens(t, 40, func(tenant string, i int) (*jwks.Source, error) {
		return client.Discover(tenant, fmt.Sprint(server.URL, "/", i), jwks.SourceConfig{AllowLoopback: true})
	})
	mu.Lock()
	defer mu.Unlock()
	t.Logf("%v over %d connections", took, conns)
	if failed > 0 || conns > 2*32 {
		t.Errorf("%d first tokens failed, over %d connections", failed, conns)
	}
}
