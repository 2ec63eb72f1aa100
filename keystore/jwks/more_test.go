package jwks_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
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

func (w *world) discover(cfg jwks.SourceConfig) *jwks.Source {
	w.t.Helper()
	s, err := w.client.Discover("acme", w.issuer.Issuer(), cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// paths returns what was asked for, in order.
func (w *world) paths() (all []string) {
	for _, r := range w.issuer.Requests() {
		all = append(all, r.Path)
	}
	return all
}

func TestDiscovery(t *testing.T) {
	const metadata = "/.well-known/openid-configuration"
	t.Run("once a day", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			s := w.discover(jwks.SourceConfig{})
			synctest.Wait()
			w.busy(s, w.a, 25*time.Hour)
			paths := w.paths()
			var asked int
			for _, p := range paths {
				if p == metadata {
					asked++
				}
			}
			if paths[0] != metadata || asked != 2 {
				t.Errorf("asked for the metadata %d times in 25 hours", asked)
			}
		})
	})
	t.Run("the keys move", func(t *testing.T) {
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
			if got := w.paths(); !slices.Equal(got, []string{metadata, "/jwks.json", "/jwks.json", metadata, "/elsewhere"}) {
				t.Errorf("asked for %q", got)
			}
		})
	})
	refused := []struct {
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
	for _, tt := range refused {
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
				if got := w.paths(); !slices.Equal(got, []string{metadata}) {
					t.Errorf("asked for %q", got)
				}
				w.wantLookup(s, "a", keystore.ErrUnavailable)
			})
		})
	}
	t.Run("no metadata", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			w.issuer.Misbehave(jwkstest.Status(http.StatusNotFound))
			s := w.discover(jwks.SourceConfig{})
			synctest.Wait()
			e := new(jwks.Error)
			if !errors.As(s.Status().LastError, &e) || e.Status != 404 || !strings.Contains(e.Error(), "discovery") {
				t.Errorf("%v, want 404 of discovery", s.Status().LastError)
			}
		})
	})
}

func TestLastGoodSetOnDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sets")
	file := ""
	// restart runs a new process, as it were, so many hours after the first.
	restart := func(name string, after time.Duration, test func(t *testing.T, w *world, s *jwks.Source)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(after)
				w := newWorld(t, jwkstest.NewInMemory(t), jwks.Config{Dir: dir})
				if file != "" {
					w.issuer.Misbehave(jwkstest.Status(500))
				}
				test(t, w, w.open(jwks.SourceConfig{}))
			})
		})
	}
	restart("saves", 0, func(t *testing.T, w *world, s *jwks.Source) {
		if err := s.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		file = filepath.Join(dir, jwks.File(s))
		info, err := os.Stat(file)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("%v, %v: want mode 0600", info, err)
		}
		if info, _ := os.Stat(dir); info.Mode().Perm() != 0o700 {
			t.Errorf("the folder has mode %v", info.Mode())
		}
		entries, _ := os.ReadDir(dir)
		if len(entries) != 1 {
			t.Errorf("left over: %v", entries)
		}
	})
	first, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	restart("comes back stale, with its age", time.Hour, func(t *testing.T, w *world, s *jwks.Source) {
		if st := s.Status(); st.State != jwks.Stale || st.Age != time.Hour {
			t.Errorf("state %v, age %v", st.State, st.Age)
		}
		if _, err := get(s, "a"); err != nil {
			t.Fatal(err)
		}
		w.wantLookup(s, "unknown", keystore.ErrUnavailable)
		if err := s.WaitReady(t.Context()); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if got := w.issuer.Requests()[0].Header.Get("If-None-Match"); got != "" {
			t.Errorf("the first request was conditional: %q", got)
		}
		for s.Status().State == jwks.Stale {
			if _, err := get(s, "a"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(30 * time.Second)
		}
		if age := s.Status().Age; age != 4*time.Hour {
			t.Errorf("expired after %v", age)
		}
		// It is the issuer's again once that answers.
		w.issuer.Behave()
		time.Sleep(6 * time.Minute)
		w.wantKey(s, w.a)
	})
	unusable := func(name string, after time.Duration, mode os.FileMode, content string) {
		if err := errors.Join(os.WriteFile(file, []byte(content), 0o600), os.Chmod(file, mode)); err != nil {
			t.Fatal(err)
		}
		restart(name, after, func(t *testing.T, w *world, s *jwks.Source) {
			w.wantState(s, jwks.Cold)
			w.wantLookup(s, "a", keystore.ErrUnavailable)
			if !strings.Contains(w.log.String(), "not used") {
				t.Error("nobody was told")
			}
		})
	}
	unusable("too old", 4*time.Hour, 0o600, string(first))
	unusable("of the future", 0, 0o600, strings.Replace(string(first), `"2000-`, `"2001-`, 1))
	unusable("others may write it", time.Hour, 0o622, string(first))
	unusable("torn", time.Hour, 0o600, string(first[:len(first)/2]))
	unusable("of another source", time.Hour, 0o600, strings.Replace(string(first), `"source":"`, `"source":"0`, 1))
	unusable("empty", time.Hour, 0o600, "")
	if err := errors.Join(os.Remove(file), os.WriteFile(file+"2", first, 0o600), os.Symlink(file+"2", file)); err != nil {
		t.Fatal(err)
	}
	restart("a link", time.Hour, func(t *testing.T, w *world, s *jwks.Source) { w.wantState(s, jwks.Cold) })
}

// A folder that cannot be written costs nothing but the file.
func TestNoFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, jwkstest.NewInMemory(t), jwks.Config{Dir: filepath.Join(file, "x")})
		s := w.ready(jwks.SourceConfig{})
		w.busy(s, w.a, time.Hour)
	})
}

// crowd is any number of issuers on http, without a server: each connection
// answers one request by itself.
type crowd struct {
	mu            sync.Mutex
	running, most int
	times         []time.Time
	body          string
}

// stats returns when each request came, and how many there were at once.
func (c *crowd) stats() (times []time.Time, most int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.times), c.most
}

func (c *crowd) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	go func() {
		defer server.Close()
		if _, err := http.ReadRequest(bufio.NewReader(server)); err != nil {
			return
		}
		c.mu.Lock()
		c.times = append(c.times, time.Now())
		c.running++
		c.most = max(c.most, c.running)
		c.mu.Unlock()
		time.Sleep(20 * time.Millisecond)
		c.mu.Lock()
		c.running--
		c.mu.Unlock()
		fmt.Fprintf(server, "HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(c.body), c.body)
	}()
	return client, nil
}

func TestTenThousandSources(t *testing.T) {
	const sources = 10_000
	synctest.Test(t, func(t *testing.T) {
		c := &crowd{body: jwkstest.Set(jwkstest.NewKey("a", "EdDSA"))}
		client := jwks.New(jwks.Config{DialContext: c.dial})
		before := runtime.NumGoroutine()
		var all []*jwks.Source
		for i := range sources {
			url := fmt.Sprintf("http://127.%d.%d.1/jwks.json", i/250+1, i%250)
			s, err := client.Open(fmt.Sprint("tenant-", i), url, jwks.SourceConfig{AllowLoopback: true})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, s)
		}
		for _, s := range all {
			if err := s.WaitReady(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if times, most := c.stats(); most > 16 || len(times) != sources {
			t.Errorf("%d fetches, %d at once", len(times), most)
		}
		synctest.Wait()
		if more := runtime.NumGoroutine() - before; more > 5 {
			t.Errorf("%d goroutines for %d sources", more, sources)
		}

		// They expire together, and are spread over a sixth of their TTL at least.
		time.Sleep(time.Hour)
		synctest.Wait()
		times, most := c.stats()
		second := slices.SortedFunc(slices.Values(times[sources:]), time.Time.Compare)
		if len(second) != sources || most > 16 {
			t.Fatalf("%d fetches the second time, %d at once", len(second), most)
		}
		if spread := second[len(second)-1].Sub(second[0]); spread < 9*time.Minute {
			t.Errorf("refreshed within %v", spread)
		}
		// Nobody asks any more: they sleep, and are not even on the agenda.
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if n := jwks.Scheduled(client); n != 0 {
			t.Errorf("%d idle sources are scheduled", n)
		}
		if err := client.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// However many issuers hang, another tenant's key is fetched at once.
func TestBrokenTenantsStallNobody(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.client.Close(t.Context())
		dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr == "[2d00::7]:443" {
				return w.issuer.DialContext(ctx, network, addr)
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}
		client := jwks.New(jwks.Config{TLS: w.issuer.TLS(), LookupNetIP: w.issuer.LookupNetIP, DialContext: dial})
		defer client.Close(t.Context())
		for i := range 200 {
			if _, err := client.Open(fmt.Sprint("broken-", i), fmt.Sprintf("https://203.0.114.%d/", i), jwks.SourceConfig{}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute) // each has failed once at least
		s, err := client.Open("acme", w.issuer.URL(), jwks.SourceConfig{})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := s.WaitReady(t.Context()); err != nil || time.Since(start) > time.Second {
			t.Errorf("ready after %v, %v", time.Since(start), err)
		}
	})
}

// A flood on one tenant delays nothing of another's.
func TestFloodLeavesOthersAlone(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		flooded, err := w.client.Open("globex", w.issuer.URL()+"?other", jwks.SourceConfig{})
		if err != nil {
			t.Fatal(err)
		}
		s := w.ready(jwks.SourceConfig{})
		if err := flooded.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		stop := make(chan struct{})
		var flood sync.WaitGroup
		for g := range 50 {
			flood.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					case <-time.After(10 * time.Millisecond):
					}
					_ = flooded.Refresh(t.Context(), keystore.ID{Tenant: "globex", KID: fmt.Sprint(g, "-", i)})
				}
			})
		}
		time.Sleep(time.Second)
		c := jwkstest.NewKey("c", "ES256")
		w.issuer.Publish(w.a, c)
		start := time.Now()
		if err := s.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "c"}); err != nil || time.Since(start) > 100*time.Millisecond {
			t.Errorf("Refresh = %v after %v", err, time.Since(start))
		}
		close(stop)
		flood.Wait()
	})
}

// A proxy is used if it is given, and then it alone is dialled.
func TestProxy(t *testing.T) {
	issuer := jwkstest.New(t)
	key := jwkstest.NewKey("a", "ES256")
	issuer.Publish(key)
	var asked atomic.Value
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.Method + " " + r.Host)
		up, err := net.Dial("tcp", issuer.Addr())
		if err != nil {
			t.Error(err)
			return
		}
		defer up.Close()
		w.WriteHeader(http.StatusOK)
		down, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer down.Close()
		go io.Copy(up, buf)
		io.Copy(down, up)
	}))
	defer proxy.Close()
	at, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	client := jwks.New(jwks.Config{TLS: issuer.TLS(), Proxy: at})
	defer client.Close(t.Context())
	s, err := client.Open("acme", issuer.URL(), jwks.SourceConfig{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	if got := asked.Load(); got != "CONNECT "+jwkstest.Host+":443" {
		t.Errorf("the proxy was asked for %q", got)
	}
	if _, err := client.Open("acme", "https://127.0.0.1/", jwks.SourceConfig{}); err == nil {
		t.Error("a proxy made a literal loopback address pass")
	}
}

// The proxy variables of the environment are not read.
func TestProxyVariablesAreIgnored(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://203.0.113.99:3128")
	t.Setenv("ALL_PROXY", "http://203.0.113.99:3128")
	w := newWorld(t, jwkstest.New(t), jwks.Config{})
	w.ready(jwks.SourceConfig{})
	if w.issuer.Dials() != 1 {
		t.Error("the issuer was not dialled")
	}
}

// Known keys are found as fast as ever, whatever the issuer does. Both are measured in
// turns, in the same run: the metric is the ratio. Fetches are under way all the time,
// as many as the callers that wait can cause and more, of a good issuer or of the other.
func BenchmarkLookupUnderFault(b *testing.B) {
	for _, fault := range []jwkstest.Fault{
		{Name: "none"}, // how much the ratio says by itself
		jwkstest.HangHeader(), jwkstest.Status(http.StatusInternalServerError), jwkstest.ResetBody(),
		jwkstest.Endless(), jwkstest.RedirectLoop(),
	} {
		b.Run(fault.Name, func(b *testing.B) { benchmarkUnderFault(b, fault) })
	}
}

func benchmarkUnderFault(b *testing.B, fault jwkstest.Fault) {
	key := jwkstest.NewKey("a", "ES256")
	open := func(b *testing.B) (*jwkstest.Server, *jwks.Source) {
		issuer := jwkstest.New(b)
		issuer.Publish(key)
		client := jwks.New(jwks.Config{TLS: issuer.TLS(), LookupNetIP: issuer.LookupNetIP, DialContext: issuer.DialContext})
		b.Cleanup(func() { client.Close(context.Background()) })
		s, err := client.Open("acme", issuer.URL(), jwks.SourceConfig{})
		if err != nil {
			b.Fatal(err)
		}
		if err := s.WaitReady(b.Context()); err != nil {
			b.Fatal(err)
		}
		return issuer, s
	}
	_, good := open(b)
	issuer, bad := open(b)
	issuer.Misbehave(fault)
	sources := []*jwks.Source{good, bad}

	ended, cancel := context.WithCancel(context.Background())
	var callers sync.WaitGroup
	defer callers.Wait()
	defer cancel()
	var turn atomic.Int32
	for i := range 8 {
		callers.Go(func() {
			for n := 0; ended.Err() == nil; n++ {
				s := sources[turn.Load()]
				ctx, done := context.WithTimeout(ended, 20*time.Millisecond)
				if i == 0 {
					_ = jwks.Reload(ctx, s) // past the budget of the others
				} else {
					_ = s.Refresh(ctx, keystore.ID{Tenant: "acme", KID: fmt.Sprint(i, "-", n)})
				}
				done()
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	id := keystore.ID{Tenant: "acme", KID: "a"}
	var samples [2][]time.Duration // of a hundred lookups each
	for b.Loop() {
		for i, s := range sources {
			turn.Store(int32(i))
			time.Sleep(25 * time.Millisecond) // until the callers have turned
			for end := time.Now().Add(50 * time.Millisecond); time.Now().Before(end); {
				for range 20 {
					start := time.Now()
					for range 100 {
						if _, err := s.Lookup(id, keystore.ES256); err != nil {
							b.Fatal(err)
						}
					}
					samples[i] = append(samples[i], time.Since(start))
				}
				time.Sleep(time.Millisecond) // or the system takes its turn amid a hundred
			}
		}
	}
	at := func(i, percent int) float64 {
		slices.Sort(samples[i])
		return float64(samples[i][(len(samples[i])-1)*percent/100]) / 100
	}
	b.ReportMetric(0, "ns/op") // of a turn: says nothing
	b.ReportMetric(at(0, 99), "p99-ns/good")
	b.ReportMetric(at(1, 99), "p99-ns/fault")
	b.ReportMetric(at(1, 50)/at(0, 50), "p50-ratio")
	b.ReportMetric(at(1, 99)/at(0, 99), "p99-ratio")
	b.ReportMetric(float64(bad.Status().Fetches), "fetches")
}
