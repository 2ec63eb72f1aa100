package jwks_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

// A site is any number of plain hosts in memory, which note the requests that they get.
type site struct {
	answer func(addr string, r *http.Request) (status int, header, body string)
	wg     sync.WaitGroup

	mu   sync.Mutex
	seen []*http.Request // guarded by mu; Host is the address that was dialled
}

func (s *site) dial(_ context.Context, _, addr string) (net.Conn, error) {
	client, server := net.Pipe()
	s.wg.Go(func() {
		defer server.Close()
		r, err := http.ReadRequest(bufio.NewReader(server))
		if err != nil {
			return
		}
		s.mu.Lock()
		r.Host = addr
		s.seen = append(s.seen, r)
		s.mu.Unlock()
		status, header, body := s.answer(addr, r)
		fmt.Fprintf(server, "HTTP/1.1 %d x\r\n%sContent-Length: %d\r\nConnection: close\r\n\r\n%s", status, header, len(body), body)
	})
	return client, nil
}

// requests returns each request so far as "address path authorization".
func (s *site) requests() (all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.seen {
		all = append(all, strings.TrimSpace(r.Host+" "+r.URL.Path+" "+r.Header.Get("Authorization")))
	}
	return all
}

// client returns a Client that reaches the site, with what it logs.
func (s *site) client(t *testing.T, cfg jwks.Config) (*jwks.Client, *locked) {
	log := new(locked)
	cfg.DialContext, cfg.Logger = s.dial, slog.New(slog.NewTextHandler(log, nil))
	client := jwks.New(cfg)
	t.Cleanup(func() {
		client.Close(context.Background())
		s.wg.Wait()
	})
	return client, log
}

const bearer = "Bearer s3cr3t"

func bearing(context.Context) (http.Header, error) {
	return http.Header{"authorization": {bearer}}, nil // the spelling does not matter
}

var onLoopback = jwks.SourceConfig{AllowLoopback: true}

func withHeader(h func(context.Context) (http.Header, error)) jwks.SourceConfig {
	return jwks.SourceConfig{AllowLoopback: true, AllowRedirects: true, Header: h}
}

func oneSet() string { return jwkstest.Set(jwkstest.NewKey("a", "ES256")) }

func TestHeaderGoesToItsOriginAlone(t *testing.T) {
	const here = "http://127.0.0.1:80"
	for _, tt := range []struct {
		name, jwksURI, redirect string
		want                    []string
	}{
		{"the same origin", here + "/keys", "", []string{"127.0.0.1:80 /keys " + bearer}},
		{"spelled otherwise", "http://127.0.0.1/keys", "", []string{"127.0.0.1:80 /keys " + bearer}},
		{"another port", "http://127.0.0.1:81/keys", "", []string{"127.0.0.1:81 /keys"}},
		{"another host", "http://127.0.0.2/keys", "", []string{"127.0.0.2:80 /keys"}},
		{"a redirect at the same origin", here + "/old", "/keys", []string{"127.0.0.1:80 /old " + bearer, "127.0.0.1:80 /keys " + bearer}},
		{"a redirect to another origin", here + "/old", "http://127.0.0.2/keys", []string{"127.0.0.1:80 /old " + bearer}},
		{"a redirect of another origin to itself", "http://127.0.0.2/old", "/keys", []string{"127.0.0.2:80 /old", "127.0.0.2:80 /keys"}},
		{"a redirect back", "http://127.0.0.2/old", here + "/keys", []string{"127.0.0.2:80 /old"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				set := oneSet()
				s := &site{answer: func(_ string, r *http.Request) (int, string, string) {
					switch r.URL.Path {
					case "/.well-known/openid-configuration":
						return 200, "", fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, "http://127.0.0.1", tt.jwksURI)
					case "/old":
						return 302, "Location: " + tt.redirect + "\r\n", ""
					}
					return 200, "", set
				}}
				client, _ := s.client(t, jwks.Config{})
				source, err := client.Discover("acme", "http://127.0.0.1", withHeader(bearing))
				if err != nil {
					t.Fatal(err)
				}
				failed := attempted(source)
				want := append([]string{"127.0.0.1:80 /.well-known/openid-configuration " + bearer}, tt.want...)
				if got := s.requests(); strings.Join(got, ", ") != strings.Join(want, ", ") {
					t.Errorf("requests %q, want %q (%v)", got, want, failed)
				}
			})
		})
	}
}

// A header that cannot be had, or is not one, is a failed attempt. Its values are shown nowhere.
func TestHeaderThatIsNotOne(t *testing.T) {
	missing := errors.New("no token file")
	for name, h := range map[string]func(context.Context) (http.Header, error){
		"no token file":                         func(context.Context) (http.Header, error) { return http.Header{"A": {"s3cr3t"}}, missing },
		"Authorization has a line end":          func(context.Context) (http.Header, error) { return http.Header{"Authorization": {"s3cr3t\n"}}, nil },
		"Authorization is empty":                func(context.Context) (http.Header, error) { return http.Header{"Authorization": {""}}, nil },
		"a name that is not one of a header":    func(context.Context) (http.Header, error) { return http.Header{"s3cr3t token": {"x"}}, nil },
		"host is for the client itself":         func(context.Context) (http.Header, error) { return http.Header{"host": {"s3cr3t"}}, nil },
		"Range is for the client itself":        func(context.Context) (http.Header, error) { return http.Header{"Range": {"s3cr3t"}}, nil },
		"Proxy-Authorization is for the client": func(context.Context) (http.Header, error) { return http.Header{"Proxy-Authorization": {"s3cr3t"}}, nil },
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				s := &site{answer: func(string, *http.Request) (int, string, string) { return 200, "", oneSet() }}
				client, log := s.client(t, jwks.Config{})
				source, err := client.Open("acme", "http://127.0.0.1/keys", withHeader(h))
				if err != nil {
					t.Fatal(err)
				}
				err = attempted(source)
				if stepOf(err) != jwks.StepHeader || !strings.Contains(err.Error(), name) {
					t.Errorf("error %v, want %q", err, name)
				}
				if name == "no token file" && !errors.Is(err, missing) {
					t.Errorf("%v does not wrap the error of Header", err)
				}
				if len(s.requests()) > 0 || strings.Contains(log.String()+fmt.Sprintf("%+v %v", source.Status(), err), "s3cr3t") {
					t.Errorf("requests %q, log %s", s.requests(), log)
				}
			})
		})
	}
}

// Sources of one URL share a fetch only without a Header. The func is asked at each fetch, and its
// values are not on disk, not even in the name of the file.
func TestHeaderIsOfOneSource(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sets")
	virtual(t, func(t *testing.T) {
		set := oneSet()
		s := &site{answer: func(_ string, r *http.Request) (int, string, string) {
			if r.Header.Get("Authorization") == "" {
				return 401, "", ""
			}
			return 200, "Cache-Control: max-age=60\r\n", set
		}}
		client, log := s.client(t, jwks.Config{Dir: dir})
		var sources []*jwks.Source
		asked := 0
		for i, cfg := range []jwks.SourceConfig{
			withHeader(func(context.Context) (http.Header, error) {
				asked++
				return http.Header{"Authorization": {fmt.Sprintf("Bearer %d", asked)}}, nil
			}), withHeader(bearing), withHeader(nil),
		} {
			source, err := client.Open(fmt.Sprintf("tenant %d", i), "http://127.0.0.1/keys", cfg)
			if err != nil {
				t.Fatal(err)
			}
			sources = append(sources, source)
		}
		synctest.Wait()
		if got := len(s.requests()); got != 3 {
			t.Fatalf("%d requests of three sources, want 3: %q", got, s.requests())
		}
		if err := sources[2].Status().LastError; stepOf(err) != jwks.StepStatus {
			t.Errorf("the source without Header: %v", err)
		}
		if a, b := jwks.File(sources[0]), jwks.File(sources[1]); a == b {
			t.Error("two tenants with a Header have one file")
		}
		time.Sleep(3 * time.Minute)
		if all := strings.Join(s.requests(), ","); !strings.Contains(all, "Bearer 3") {
			t.Errorf("the Header is not asked at each fetch: %s", all)
		}
		if strings.Contains(log.String()+fmt.Sprintf("%+v", sources[1].Status()), "s3cr3t") {
			t.Errorf("the header is in the log or status: %s", log)
		}
		file := jwks.File(sources[0])
		if err := sources[0].Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		again, err := client.Open("tenant 0", "http://127.0.0.1/keys", withHeader(bearing))
		if err != nil || jwks.File(again) != file {
			t.Errorf("%v: after a restart, the file of a source with a Header has another name", err)
		}
	})
}

// A roundTrip is an [http.RoundTripper].
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Whatever Wrap does with a request, it goes where the guard let it go, and Wrap sees no header of
// SourceConfig.Header.
func TestWrapStaysOutsideTheGuard(t *testing.T) {
	for _, tt := range []struct {
		name string
		wrap func(r *http.Request)
		good bool
	}{
		{"a trace", func(r *http.Request) { r.Header.Set("Traceparent", "00-1-2-01") }, true},
		{"another path", func(r *http.Request) { r.URL.Path = "/other" }, true},
		{"another address", func(r *http.Request) { r.URL.Host = "169.254.169.254" }, false},
		{"another loopback address", func(r *http.Request) { r.URL.Host = "127.0.0.2" }, false},
		{"another port", func(r *http.Request) { r.URL.Host = "127.0.0.1:6379" }, false},
		{"another scheme", func(r *http.Request) { r.URL.Scheme = "https" }, false},
		{"another virtual host", func(r *http.Request) { r.Host = "internal.example" }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				set := oneSet()
				s := &site{answer: func(string, *http.Request) (int, string, string) { return 200, "", set }}
				seen := ""
				client, _ := s.client(t, jwks.Config{Wrap: func(next http.RoundTripper) http.RoundTripper {
					return roundTrip(func(r *http.Request) (*http.Response, error) {
						r = r.Clone(r.Context())
						tt.wrap(r)
						resp, err := next.RoundTrip(r)
						seen += r.Header.Get("Authorization")
						return resp, err
					})
				}})
				source, err := client.Open("acme", "http://127.0.0.1/keys", withHeader(bearing))
				if err != nil {
					t.Fatal(err)
				}
				err = attempted(source)
				if (err == nil) != tt.good || !tt.good && (stepOf(err) != jwks.StepURL || len(s.requests()) > 0) {
					t.Errorf("%v, requests %q", err, s.requests())
				}
				if tt.good && (s.seen[0].Header.Get("Authorization") != bearer || tt.name == "a trace" && s.seen[0].Header.Get("Traceparent") == "") {
					t.Errorf("the issuer got %v", s.seen[0].Header)
				}
				if seen != "" {
					t.Error("Wrap sees the header of SourceConfig.Header")
				}
			})
		})
	}
}

func TestWrapThatReturnsNil(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s := &site{answer: func(string, *http.Request) (int, string, string) { return 200, "", oneSet() }}
		client, _ := s.client(t, jwks.Config{Wrap: func(http.RoundTripper) http.RoundTripper { return nil }})
		source, err := client.Open("acme", "http://127.0.0.1/keys", onLoopback)
		if err != nil {
			t.Fatal(err)
		}
		if err := attempted(source); err == nil || !strings.Contains(err.Error(), "Config.Wrap returned nil") || len(s.requests()) > 0 {
			t.Errorf("%v, requests %q", err, s.requests())
		}
	})
}
