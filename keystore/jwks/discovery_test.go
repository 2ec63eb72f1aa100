package jwks_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
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

// metadataPath is where an issuer has its metadata.
const metadataPath = "/.well-known/openid-configuration"

func TestMetadataIsFetchedOnceADay(t *testing.T) {
	parallel(t)
	bubble(t, func(t *testing.T, w *world) {
		s := w.discover(jwks.SourceConfig{})
		synctest.Wait()
		w.busy(s, w.a, 25*time.Hour)
		paths := w.paths()
		var asked int
		for _, p := range paths {
			if p == metadataPath {
				asked++
			}
		}
		if paths[0] != metadataPath || asked != 2 {
			t.Errorf("asked for the metadata %d times in 25 hours", asked)
		}
	})
}

func TestDiscoveryFollowsKeys(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.discover(jwks.SourceConfig{})
		synctest.Wait()
		a := w.wantKey(s, w.a)
		c := jwkstest.NewKey("c", "ES256")
		w.issuer.MoveSet("/elsewhere")
		w.issuer.Publish(w.a, c)
		if err := s.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "c"}); err != nil {
			t.Fatal(err)
		}
		if w.wantKey(s, w.a) != a {
			t.Error("the key lost its pointer")
		}
		if got := w.paths(); !slices.Equal(got, []string{metadataPath, "/jwks.json", "/jwks.json", metadataPath, "/elsewhere"}) {
			t.Errorf("asked for %q", got)
		}
	})
}

func TestMetadataIsRefused(t *testing.T) {
	tests := []struct {
		name string
		doc  string // %s is the issuer
		step jwks.Step
	}{
		{"another issuer", `{"issuer":"https://evil.test","jwks_uri":"%s/jwks.json"}`, jwks.StepDiscovery},
		{"a slash more", `{"issuer":"%[1]s/","jwks_uri":"%[1]s/jwks.json"}`, jwks.StepDiscovery},
		{"another case", `{"issuer":"HTTPS://issuer.test","jwks_uri":"%s/jwks.json"}`, jwks.StepDiscovery},
		{"issuer twice", `{"issuer":"%[1]s","issuer":"%[1]s","jwks_uri":"%[1]s/jwks.json"}`, jwks.StepDiscovery},
		{"another case of the name", `{"Issuer":"%[1]s","jwks_uri":"%[1]s/jwks.json"}`, jwks.StepDiscovery},
		{"no jwks_uri", `{"issuer":"%s"}`, jwks.StepDiscovery},
		{"jwks_uri by http", `{"issuer":"%s","jwks_uri":"http://issuer.test/jwks.json"}`, jwks.StepDiscovery},
		{"jwks_uri inside", `{"issuer":"%s","jwks_uri":"https://169.254.169.254/jwks.json"}`, jwks.StepDiscovery},
		{"jwks_uri with a password", `{"issuer":"%s","jwks_uri":"https://u:p@issuer.test/jwks.json"}`, jwks.StepDiscovery},
		{"HTML", `<html>%s`, jwks.StepDiscovery},
		{"nothing", ``, jwks.StepDiscovery},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				doc := strings.ReplaceAll(strings.ReplaceAll(tt.doc, "%[1]s", w.issuer.Issuer()), "%s", w.issuer.Issuer())
				w.issuer.Misbehave(jwkstest.Body("metadata", doc))
				s := w.discover(jwks.SourceConfig{})
				synctest.Wait()
				e := new(jwks.Error)
				if !errors.As(s.Status().LastError, &e) || e.Step != tt.step {
					t.Errorf("%v, want step %q", s.Status().LastError, tt.step)
				}
				if got := w.paths(); !slices.Equal(got, []string{metadataPath}) {
					t.Errorf("asked for %q", got)
				}
				w.wantLookup(s, "a", keystore.ErrUnavailable)
			})
		})
	}
}

func TestMetadataIsMissing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.issuer.Misbehave(jwkstest.Status(http.StatusNotFound))
		s := w.discover(jwks.SourceConfig{})
		synctest.Wait()
		e := new(jwks.Error)
		if !errors.As(s.Status().LastError, &e) || e.Status != 404 || !strings.Contains(e.Error(), "discovery") {
			t.Errorf("%v, want 404 of discovery", s.Status().LastError)
		}
	})
}

// Metadata that is a day old is fetched again. If that fails, the keys are read from their last
// URL.
func TestOldMetadata(t *testing.T) {
	parallel(t)
	const host, issuer = "127.9.0.1", "http://127.9.0.1"
	metadata := func(issuer, path string) string {
		return fmt.Sprintf(`{"issuer":%q,"jwks_uri":"http://%s%s"}`, issuer, host, path)
	}
	for _, tt := range []struct {
		name   string
		hangs  bool
		answer string // once the metadata is a day old
		want   bool   // whether the keys stay in sync
	}{
		{name: "hangs", hangs: true, answer: metadata(issuer, "/v2"), want: true},
		{name: "names another issuer", answer: metadata("http://127.9.0.2", "/v1")},
		{name: "names another place", answer: metadata(issuer, "/v2"), want: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				var old, well atomic.Bool
				var asked, moved atomic.Int64
				network := &network{maxAge: 900, set: func(_ string, r *http.Request) string {
					switch {
					case r.URL.Path == "/v2":
						moved.Add(1)
						fallthrough
					case r.URL.Path == "/v1":
						return jwkstest.Set(jwkstest.NewKey("a", "ES256")) // another one each time
					case old.Load():
						asked.Add(1)
						if tt.hangs && !well.Load() {
							time.Sleep(10 * time.Second)
						}
						return tt.answer
					}
					return metadata(issuer, "/v1")
				}}
				defer network.answering.Wait()
				client := jwks.New(jwks.Config{DialContext: network.dial})
				defer client.Close(t.Context())
				s, err := client.Discover("acme", issuer, jwks.SourceConfig{AllowLoopback: true})
				if err != nil {
					t.Fatal(err)
				}
				busy := func(d time.Duration) {
					for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(30 * time.Second) {
						_, _ = get(s, "a")
					}
				}
				busy(time.Hour)
				old.Store(true)
				busy(25 * time.Hour)
				if got := inSync(s); got != tt.want || asked.Load() == 0 {
					t.Errorf("in step: %v, want %v; asked %d times; %v", got, tt.want, asked.Load(), s.Status().LastError)
				}
				if !tt.hangs {
					return
				}
				// It is asked for with each attempt, until it answers.
				before := asked.Load()
				busy(150 * time.Minute)
				if got := asked.Load() - before; got < 10 {
					t.Errorf("asked %d times while ten sets expired, want each time", got)
				}
				well.Store(true)
				busy(15 * time.Minute)
				if moved.Load() == 0 {
					t.Error("what it says was not heard")
				}
			})
		})
	}
}

// Status 404 or 410 for the keys makes the same attempt fetch the issuer's metadata again. Other
// statuses do not.
func TestGoneMeansMoved(t *testing.T) {
	for _, tt := range []struct {
		status int
		moved  bool
	}{{http.StatusNotFound, true}, {http.StatusGone, true}, {http.StatusForbidden, false}, {http.StatusServiceUnavailable, false}} {
		t.Run(fmt.Sprint("status ", tt.status), func(t *testing.T) {
			virtual(t, func(t *testing.T) {
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
				synctest.Wait() // Reload would join a fetch that has not quite ended
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
