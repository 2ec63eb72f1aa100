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
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

// A body that decodes to nothing is bounded on the connection.
func TestGzipOfNothing(t *testing.T) {
	var empty bytes.Buffer
	if err := gzip.NewWriter(&empty).Close(); err != nil {
		t.Fatal(err)
	}
	members := bytes.Repeat(empty.Bytes(), 1000)
	virtual(t, func(t *testing.T) {
		sent := make(chan int, 1)
		dial := func(context.Context, string, string) (net.Conn, error) {
			client, server := net.Pipe()
			go func() {
				defer server.Close()
				_, err := http.ReadRequest(bufio.NewReader(server))
				total := 0
				if err == nil {
					total, err = fmt.Fprint(server, "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n")
				}
				for n := 0; err == nil && total < 64*jwks.MaxRaw; total += n {
					n, err = server.Write(members)
				}
				sent <- total
			}()
			return client, nil
		}
		client := jwks.New(jwks.Config{DialContext: dial})
		defer client.Close(t.Context())
		s, err := client.Open("acme", "http://127.9.0.1/jwks.json", jwks.SourceConfig{AllowLoopback: true})
		if err != nil {
			t.Fatal(err)
		}
		if got := <-sent; got > jwks.MaxRaw {
			t.Errorf("%d bytes were taken, want at most %d", got, jwks.MaxRaw)
		}
		synctest.Wait()
		e := new(jwks.Error)
		if err := s.Status().LastError; !errors.As(err, &e) || e.Step != jwks.StepBody || !strings.Contains(e.Error(), "on the connection") {
			t.Errorf("%v, want step body", err)
		}
		client.Close(t.Context()) // before it tries again
	})
}

func TestBodyOfExactLimit(t *testing.T) {
	const limit = jwks.MaxBody
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

// An issuer that sent Retry-After is left alone, by callers with unknown kids too.
func TestRetryAfterHoldsOnDemand(t *testing.T) {
	const wait = time.Minute
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		w.issuer.Misbehave(jwkstest.RetryAfter(http.StatusServiceUnavailable, "60"))
		w.wantRefresh(s, "c", keystore.ErrUnavailable)
		told := time.Now()
		w.issuer.Behave()
		w.issuer.Publish(w.a, w.b, jwkstest.NewKey("c", "ES256"))
		for i := range 3 { // the budget has one less, and gets one back meanwhile
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

// If the name does not resolve, or no address answers, the attempt ends after two seconds and not
// after its five.
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
			virtual(t, func(t *testing.T) {
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

// A body that begins after the first second must bring a KiB in each second that follows.
func TestBodyThatDrips(t *testing.T) {
	const each = 50 * time.Millisecond
	for _, tt := range []struct {
		rate float64 // in KiB per second
		good bool
	}{{0.9, false}, {1.1, true}} {
		t.Run(fmt.Sprint(tt.rate, " KiB/s"), func(t *testing.T) {
			virtual(t, func(t *testing.T) {
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

func TestIssuerHeader(t *testing.T) {
	for _, tt := range []struct {
		size int
		good bool
	}{{60 << 10, true}, {80 << 10, false}} {
		t.Run(fmt.Sprint(tt.size, " bytes"), func(t *testing.T) {
			virtual(t, func(t *testing.T) {
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

// A 304 that does not say for how long it is fresh is fresh for as long as the answer that it
// confirms (RFC 9111, section 4.3.4).
func TestBare304KeepsTTL(t *testing.T) {
	const said = 20 * time.Minute
	virtual(t, func(t *testing.T) {
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

// TLS before 1.2 is refused (RFC 8996), even if Config.TLS allows it.
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

// TestSetsOfManyKeys: keys without kid, of which none can serve beside the others, are not compared
// each with each, as their reason shows. Of 8192 RSA keys, which SourceConfig.MaxKeys allows, that
// took a minute.
func TestSetsOfManyKeys(t *testing.T) {
	keys := make([]string, 17)
	for i := range keys {
		keys[i] = edMembers(byte(i))
	}
	r, err := jwks.Inspect("acme", set(keys...))
	if err != nil || len(r.Keys) != 0 || len(r.Skipped) != len(keys) {
		t.Fatalf("%d keys, %d skipped, %v", len(r.Keys), len(r.Skipped), err)
	}
	for _, s := range r.Skipped {
		if want := "more than 16 keys without kid share its alg, which is too costly for one token (at most 8 checks): EdDSA, Ed25519"; s.Reason != want {
			t.Errorf("%s, want %s", s.Reason, want)
		}
	}
}
