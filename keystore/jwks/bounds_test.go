package jwks_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

// The numbers here are those of docs/jwks.md, written out: a test that took them from
// the code would follow whatever they become.

func stepOf(err error) jwks.Step {
	e := new(jwks.Error)
	if !errors.As(err, &e) {
		return ""
	}
	return e.Step
}

// attempted waits until the first attempt has ended, and returns its error.
func attempted(s *jwks.Source) error {
	for s.Status().NextFetch.IsZero() {
		time.Sleep(time.Millisecond)
	}
	return s.Status().LastError
}

func TestBodyOfExactlyTheLimit(t *testing.T) {
	const limit = 256 << 10
	zip := func(body string) string {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		io.WriteString(z, body)
		z.Close()
		return b.String()
	}
	for _, tt := range []struct {
		size int
		good bool
	}{{limit, true}, {limit + 1, false}} {
		for _, zipped := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d bytes, gzip %v", tt.size, zipped), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					set := jwkstest.Set(w.a)
					body := set + strings.Repeat(" ", tt.size-len(set))
					if zipped {
						body = zip(body)
						w.issuer.SetHeader("Content-Encoding", "gzip")
					}
					w.issuer.PublishBody(body)
					s := w.open(jwks.SourceConfig{})
					synctest.Wait()
					switch err := s.Status().LastError; {
					case tt.good && err != nil:
						t.Fatalf("refused: %v", err)
					case tt.good:
						w.wantKey(s, w.a)
					case stepOf(err) != jwks.StepBody:
						t.Errorf("%v, want step body", err)
					}
				})
			})
		}
	}
}

// Who asked to be left alone is, by callers with unknown kids too.
func TestRetryAfterHoldsOnDemand(t *testing.T) {
	const wait = time.Minute
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		w.issuer.Misbehave(jwkstest.RetryAfter(http.StatusServiceUnavailable, "60"))
		w.wantRefresh(s, "c", keystore.ErrUnavailable)
		told := time.Now()
		w.issuer.Behave()
		w.issuer.Publish(w.a, w.b, jwkstest.NewKey("c", "ES256"))
		for i := range 3 { // the bucket has one less, and gets one back meanwhile
			start := time.Now()
			w.wantRefresh(s, fmt.Sprint("c", i), keystore.ErrUnavailable)
			if time.Since(start) != 0 {
				t.Errorf("waited for %v", time.Since(start))
			}
			w.wantKey(s, w.a)
			time.Sleep(wait / 4)
		}
		time.Sleep(time.Until(told.Add(wait)) - time.Millisecond)
		w.wantRefresh(s, "c", keystore.ErrUnavailable)
		w.wantFetches(2)
		time.Sleep(time.Millisecond)
		if err := s.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "c"}); err != nil {
			t.Errorf("after %v: %v", wait, err)
		}
	})
}

// A name that does not resolve, or an address that does not answer, ends the attempt
// after two seconds, before its five are over.
func TestConnectingTakesTwoSeconds(t *testing.T) {
	hang := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	addresses := func(all ...string) func(context.Context, string, string) ([]netip.Addr, error) {
		return func(context.Context, string, string) (addrs []netip.Addr, _ error) {
			for _, a := range all {
				addrs = append(addrs, netip.MustParseAddr(a))
			}
			return addrs, nil
		}
	}
	for _, tt := range []struct {
		name   string
		lookup func(context.Context, string, string) ([]netip.Addr, error)
		step   jwks.Step
	}{
		{"the address", addresses("2d00::7"), jwks.StepConnect},
		{"all three of them", addresses("2d00::7", "2d00::8", "2d00::9"), jwks.StepConnect},
		{"the resolver", func(ctx context.Context, _, _ string) ([]netip.Addr, error) { return nil, hang(ctx) }, jwks.StepDNS},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := jwks.New(jwks.Config{
					LookupNetIP: tt.lookup,
					DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return nil, hang(ctx) },
				})
				defer client.Close(t.Context())
				s, err := client.Open("acme", "https://issuer.example/jwks.json", jwks.SourceConfig{})
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(2*time.Second - time.Millisecond)
				synctest.Wait()
				if st := s.Status(); st.Failures != 0 {
					t.Fatalf("failed before two seconds were over: %v", st.LastError)
				}
				time.Sleep(2 * time.Millisecond)
				synctest.Wait()
				if st := s.Status(); st.Failures != 1 || stepOf(st.LastError) != tt.step {
					t.Errorf("after two seconds: %d failures, %v, want step %q", st.Failures, st.LastError, tt.step)
				}
			})
		})
	}
}

// raw dials an issuer in memory that speaks http as answer says, one request for each
// connection.
func raw(t *testing.T, answer func(conn net.Conn, r *http.Request)) func(context.Context, string, string) (net.Conn, error) {
	var answering sync.WaitGroup
	t.Cleanup(answering.Wait)
	return func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		answering.Go(func() {
			defer server.Close()
			if r, err := http.ReadRequest(bufio.NewReader(server)); err == nil {
				answer(server, r)
			}
		})
		return client, nil
	}
}

// openRaw opens a source of such an issuer.
func openRaw(t *testing.T, answer func(conn net.Conn, r *http.Request)) *jwks.Source {
	t.Helper()
	client := jwks.New(jwks.Config{DialContext: raw(t, answer)})
	t.Cleanup(func() { client.Close(context.Background()) })
	s, err := client.Open("acme", "http://127.0.0.1/jwks.json", jwks.SourceConfig{AllowLoopback: true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A body that begins when the first second is over must bring a KiB in each that
// follows.
func TestBodyThatDrips(t *testing.T) {
	const each = 50 * time.Millisecond
	for _, tt := range []struct {
		rate float64 // of a KiB in a second
		good bool
	}{{0.9, false}, {1.1, true}} {
		t.Run(fmt.Sprint(tt.rate, " KiB/s"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				key := jwkstest.NewKey("a", "ES256")
				body := jwkstest.Set(key)
				body += strings.Repeat(" ", 3<<10-len(body)) // within five seconds at either rate
				var began time.Time
				s := openRaw(t, func(conn net.Conn, _ *http.Request) {
					fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(body))
					began = time.Now()
					time.Sleep(time.Second - each)
					size := int(tt.rate * 1024 * each.Seconds())
					for chunk := range slices.Chunk([]byte(body), size) {
						if _, err := conn.Write(chunk); err != nil {
							return
						}
						time.Sleep(each)
					}
				})
				failed := attempted(s)
				if tt.good {
					if failed != nil {
						t.Errorf("failed after %v: %v", time.Since(began), failed)
					}
					return
				}
				if stepOf(failed) != jwks.StepBody || time.Since(began) > 2*time.Second {
					t.Errorf("%v after %v, want step body within two seconds", failed, time.Since(began))
				}
			})
		})
	}
}

// Keys that are gone from where they were, by either of the statuses that say so,
// make the issuer's metadata be asked for again, in the same attempt. Others do not.
func TestGoneMeansMoved(t *testing.T) {
	for _, tt := range []struct {
		status int
		moved  bool
	}{{http.StatusNotFound, true}, {http.StatusGone, true}, {http.StatusForbidden, false}, {http.StatusServiceUnavailable, false}} {
		t.Run(fmt.Sprint("status ", tt.status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const issuer, metadata = "http://127.0.0.1", "/.well-known/openid-configuration"
				set := jwkstest.Set(jwkstest.NewKey("a", "ES256"))
				var mu sync.Mutex
				var paths []string
				path := "/old"
				client := jwks.New(jwks.Config{DialContext: raw(t, func(conn net.Conn, r *http.Request) {
					mu.Lock()
					paths = append(paths, r.URL.Path)
					at := path
					mu.Unlock()
					status, body := http.StatusOK, set
					switch r.URL.Path {
					case metadata:
						body = fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, issuer, issuer+at)
					case at:
					default:
						status, body = tt.status, ""
					}
					fmt.Fprintf(conn, "HTTP/1.1 %d x\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body)
				})})
				defer client.Close(t.Context())
				s, err := client.Discover("acme", issuer, jwks.SourceConfig{AllowLoopback: true})
				if err != nil {
					t.Fatal(err)
				}
				if err := s.WaitReady(t.Context()); err != nil {
					t.Fatal(err)
				}
				mu.Lock()
				path = "/new"
				mu.Unlock()
				want := []string{metadata, "/old", "/old"}
				if tt.moved {
					want = append(want, metadata, "/new")
				}
				if err := jwks.Reload(t.Context(), s); (err == nil) != tt.moved {
					t.Errorf("fetch = %v", err)
				}
				mu.Lock()
				defer mu.Unlock()
				if !slices.Equal(paths, want) {
					t.Errorf("asked for %q, want %q", paths, want)
				}
			})
		})
	}
}

// What was missing from one set may be in the next.
func TestChangeOfTheSetClearsWhatIsMissing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		for range 2 {
			w.wantRefresh(s, "c", keystore.ErrNotFound)
		}
		w.wantFetches(2) // it is remembered
		if err := jwks.Reload(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		w.wantRefresh(s, "c", keystore.ErrNotFound)
		w.wantFetches(3) // also past an answer with the same set

		c := jwkstest.NewKey("c", "ES256")
		w.issuer.Publish(w.a)
		if err := jwks.Reload(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if got := jwks.Missing(s); got != 0 {
			t.Errorf("%d kids are remembered", got)
		}
		w.issuer.Publish(w.a, c)
		if err := s.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "c"}); err != nil {
			t.Errorf("Refresh = %v", err)
		}
		w.wantKey(s, c)
	})
}

// At most 4096 callers wait for a URL; one more is told at once.
func TestCrowdOfWaiters(t *testing.T) {
	const most = 4096
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		w.issuer.Misbehave(jwkstest.HangHeader())
		var callers sync.WaitGroup
		for i := range most {
			callers.Go(func() {
				start := time.Now()
				err := s.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: fmt.Sprint("unknown-", i)})
				if !errors.Is(err, keystore.ErrUnavailable) || time.Since(start) != 2*time.Second {
					t.Errorf("Refresh = %v after %v", err, time.Since(start))
				}
			})
		}
		synctest.Wait()
		start := time.Now()
		w.wantRefresh(s, "one-more", keystore.ErrUnavailable)
		if time.Since(start) != 0 {
			t.Errorf("one more than %d waited %v", most, time.Since(start))
		}
		callers.Wait()
		w.wantRefresh(s, "one-more", keystore.ErrUnavailable) // there is room again
		if time.Since(start) <= 2*time.Second {
			t.Error("it did not wait")
		}
	})
}

func TestHeaderOfTheIssuer(t *testing.T) {
	for _, tt := range []struct {
		size int
		good bool
	}{{60 << 10, true}, {80 << 10, false}} {
		t.Run(fmt.Sprint(tt.size, " bytes"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				set := jwkstest.Set(jwkstest.NewKey("a", "ES256"))
				s := openRaw(t, func(conn net.Conn, _ *http.Request) {
					fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nX: %s\r\nContent-Length: %d\r\n\r\n%s", strings.Repeat("x", tt.size), len(set), set)
				})
				err := attempted(s)
				if tt.good && err != nil || !tt.good && stepOf(err) != jwks.StepResponse {
					t.Errorf("fetch = %v", err)
				}
			})
		})
	}
}

// A fetch that somebody waits for goes before those that nobody does.
func TestQueuedFetchIsHurried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, c := jwkstest.NewKey("a", "ES256"), jwkstest.NewKey("c", "ES256")
		var slow atomic.Bool
		network := &network{set: func(string, *http.Request) string {
			if !slow.Load() {
				return jwkstest.Set(a)
			}
			time.Sleep(500 * time.Millisecond)
			return jwkstest.Set(a, c)
		}}
		defer network.answering.Wait()
		client := jwks.New(jwks.Config{DialContext: network.dial})
		defer client.Close(t.Context())
		var sources []*jwks.Source
		for i := range 200 {
			sources = append(sources, network.open(t, client, fmt.Sprint("other-", i), fmt.Sprintf("127.1.%d.1", i)))
		}
		s := network.open(t, client, "acme", "127.9.0.1")
		slow.Store(true)
		var schedule sync.WaitGroup
		defer schedule.Wait()
		for _, s := range append(sources, s) { // sixteen at once: six seconds
			schedule.Go(func() { _ = jwks.Reload(t.Context(), s) })
			synctest.Wait()
		}
		start := time.Now()
		if err := s.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "c"}); err != nil || time.Since(start) > 1100*time.Millisecond {
			t.Errorf("Refresh = %v after %v", err, time.Since(start))
		}
	})
}

// Also where none has been asked yet, as after a restart.
func TestColdFetchIsHurried(t *testing.T) {
	token := func(ctx context.Context, s *jwks.Source) error {
		return s.Refresh(ctx, keystore.ID{Tenant: "acme", KID: "a"})
	}
	ready := func(ctx context.Context, s *jwks.Source) error { return s.WaitReady(ctx) }
	own := func(i int) string { return fmt.Sprintf("127.1.%d.1", i) }
	for _, tt := range []struct {
		name string
		host func(i int) string
		one  bool // tenant has all the others
		wait func(ctx context.Context, s *jwks.Source) error
	}{
		{"by a token", own, false, token},
		{"by WaitReady", own, false, ready},
		{"by a token, behind a tenant of many issuers", own, true, token},
		{"by WaitReady, behind a tenant of many issuers", own, true, ready},
		{"by a token, at a host that all use", func(int) string { return "127.9.0.1" }, false, token},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				set := jwkstest.Set(jwkstest.NewKey("a", "ES256"))
				network := &network{set: func(string, *http.Request) string {
					time.Sleep(500 * time.Millisecond)
					return set
				}}
				defer network.answering.Wait()
				client := jwks.New(jwks.Config{DialContext: network.dial})
				defer client.Close(t.Context())
				open := func(tenant, host, path string) *jwks.Source {
					s, err := client.Open(tenant, "http://"+host+path, jwks.SourceConfig{AllowLoopback: true})
					if err != nil {
						t.Fatal(err)
					}
					return s
				}
				for i := range 200 { // fourteen at once: seven seconds
					tenant := fmt.Sprint("other-", i)
					if tt.one {
						tenant = "big"
					}
					open(tenant, tt.host(i), fmt.Sprint("/", i))
				}
				s := open("acme", "127.9.0.1", "/jwks.json")
				start := time.Now()
				if err := tt.wait(t.Context(), s); err != nil || time.Since(start) > 1100*time.Millisecond {
					t.Errorf("%v after %v", err, time.Since(start))
				}
			})
		})
	}
}

// A 304 that does not say for how long it is fresh is as long as what it confirms
// (RFC 9111, section 4.3.4).
func TestBare304KeepsTheTTL(t *testing.T) {
	const said = 20 * time.Minute
	synctest.Test(t, func(t *testing.T) {
		set := jwkstest.Set(jwkstest.NewKey("a", "ES256"))
		s := openRaw(t, func(conn net.Conn, r *http.Request) {
			if r.Header.Get("If-None-Match") != "" {
				fmt.Fprint(conn, "HTTP/1.1 304 Not Modified\r\n\r\n")
				return
			}
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nCache-Control: max-age=1200\r\nContent-Length: %d\r\n\r\n%s", len(set), set)
		})
		if err := s.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			time.Sleep(time.Minute)
			if err := jwks.Reload(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			if st := s.Status(); st.TTL != said || st.Age != 0 || st.ETag != `"1"` {
				t.Errorf("TTL %v, age %v, ETag %s", st.TTL, st.Age, st.ETag)
			}
		}
	})
}

// TLS before 1.2 is refused (RFC 8996), even where Config.TLS would take it.
func TestOldTLS(t *testing.T) {
	for version, good := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			issuer := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				io.WriteString(w, jwkstest.Set(jwkstest.NewKey("a", "ES256")))
			}))
			issuer.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: version}
			issuer.Config.ErrorLog = log.New(io.Discard, "", 0)
			issuer.StartTLS()
			defer issuer.Close()
			roots := x509.NewCertPool()
			roots.AddCert(issuer.Certificate())
			client := jwks.New(jwks.Config{TLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS10}})
			defer client.Close(t.Context())
			s, err := client.Open("acme", issuer.URL, jwks.SourceConfig{AllowLoopback: true})
			if err != nil {
				t.Fatal(err)
			}
			err = attempted(s)
			if good && err != nil || !good && stepOf(err) != jwks.StepTLS {
				t.Errorf("fetch = %v", err)
			}
		})
	}
}
