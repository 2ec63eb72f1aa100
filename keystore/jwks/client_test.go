package jwks_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
	"github.com/keyturn/keyturn/keystore/keystoretest"
)

// A world is an issuer with two keys, and a client that reads them.
type world struct {
	t      *testing.T
	issuer *jwkstest.Server
	client *jwks.Client
	a, b   *jwkstest.Key
	log    *locked
}

// bubble runs test in virtual time, with an issuer in memory.
func bubble(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		t.Helper()
		test(t, newWorld(t, jwkstest.NewInMemory(t), jwks.Config{}))
	})
}

func newWorld(t *testing.T, issuer *jwkstest.Server, cfg jwks.Config) *world {
	w := &world{
		t: t, issuer: issuer, log: new(locked),
		a: jwkstest.NewKey("a", "ES256"), b: jwkstest.NewKey("b", "ES256"),
	}
	issuer.Publish(w.a, w.b)
	cfg.TLS, cfg.LookupNetIP, cfg.DialContext = issuer.TLS(), issuer.LookupNetIP, issuer.DialContext
	cfg.Logger = slog.New(slog.NewTextHandler(w.log, nil))
	w.client = jwks.New(cfg)
	t.Cleanup(func() {
		if err := w.client.Close(context.Background()); err != nil {
			t.Errorf("Close = %v", err)
		}
	})
	return w
}

// locked lets several goroutines write, and read.
type locked struct {
	mu sync.Mutex
	w  bytes.Buffer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.String()
}

func (w *world) open(cfg jwks.SourceConfig) *jwks.Source { return w.openFor("acme", cfg) }

func (w *world) openFor(tenant string, cfg jwks.SourceConfig) *jwks.Source {
	w.t.Helper()
	s, err := w.client.Open(tenant, w.issuer.URL(), cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// ready opens a source and waits for its first set.
func (w *world) ready(cfg jwks.SourceConfig) *jwks.Source {
	w.t.Helper()
	s := w.open(cfg)
	if err := s.WaitReady(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	return s
}

// get returns what Lookup of a kid finds.
func get(s *jwks.Source, kid string) (*keystore.Key, error) {
	keys, err := s.Lookup(keystore.ID{Tenant: "acme", KID: kid}, keystore.ES256)
	if err != nil {
		return nil, err
	}
	return keys[0], nil
}

func (w *world) wantKey(s *jwks.Source, key *jwkstest.Key) *keystore.Key {
	w.t.Helper()
	k, err := get(s, key.KID)
	if err != nil {
		w.t.Fatalf("Lookup(%s) = %v, want the key (state %v)", key.KID, err, s.Status().State)
	}
	msg := []byte("a message")
	if !k.Verify(msg, key.Sign(msg)) {
		w.t.Fatalf("Lookup(%s) returned a key that does not verify", key.KID)
	}
	if !k.Usable(time.Now()) {
		w.t.Fatalf("Lookup(%s) returned a key that is not usable", key.KID)
	}
	return k
}

func (w *world) wantLookup(s *jwks.Source, kid string, want error) {
	w.t.Helper()
	_, err := get(s, kid)
	wantOnly(w.t, "Lookup("+kid+")", err, want)
}

func (w *world) wantRefresh(s *jwks.Source, kid string, want error) {
	w.t.Helper()
	wantOnly(w.t, "Refresh("+kid+")", s.Refresh(w.t.Context(), keystore.ID{Tenant: "acme", KID: kid}), want)
}

// wantOnly checks that an error is one verdict, and not the other.
func wantOnly(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s = %v, want %v", what, err, want)
	}
	for _, other := range []error{keystore.ErrNotFound, keystore.ErrUnavailable} {
		if other != want && errors.Is(err, other) {
			t.Fatalf("%s = %v, which is %v too", what, err, other)
		}
	}
}

func (w *world) wantState(s *jwks.Source, want jwks.State) {
	w.t.Helper()
	if got := s.Status().State; got != want {
		w.t.Fatalf("state %v, want %v", got, want)
	}
}

// wantFetches checks how many requests for the set there were.
func (w *world) wantFetches(most int) {
	w.t.Helper()
	if got := len(w.issuer.Requests()); got > most {
		w.t.Fatalf("%d requests, want at most %d", got, most)
	}
}

// busy lets d pass while a source is asked for key all the time.
func (w *world) busy(s *jwks.Source, key *jwkstest.Key, d time.Duration) {
	w.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(30 * time.Second) {
		w.wantKey(s, key)
	}
	synctest.Wait()
}

func TestSourceKeepsTheContract(t *testing.T) {
	keystoretest.Run(t, func(t *testing.T) keystoretest.Subject {
		w := newWorld(t, jwkstest.New(t), jwks.Config{})
		s := w.ready(jwks.SourceConfig{AcceptEmpty: true})
		keys := []*jwkstest.Key{w.a}
		reload := func(t *testing.T) {
			t.Helper()
			w.issuer.Publish(keys...)
			if err := jwks.Reload(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
		return keystoretest.Subject{
			Store: s, Tenant: "acme", Reload: reload,
			Add: func(t *testing.T) keystoretest.Signing {
				k := jwkstest.NewKey(fmt.Sprintf("kid-%d", len(keys)), "ES256")
				keys = append(keys, k)
				reload(t)
				return keystoretest.Signing{ID: keystore.ID{Tenant: "acme", KID: k.KID}, Algorithm: keystore.ES256, Sign: k.Sign}
			},
			Remove: func(t *testing.T, id keystore.ID) {
				for i, k := range keys {
					if k.KID == id.KID {
						keys = append(keys[:i:i], keys[i+1:]...)
						break
					}
				}
				reload(t)
			},
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	loopback := jwks.SourceConfig{AllowLoopback: true}
	tests := []struct {
		name, url string
		cfg       jwks.SourceConfig
		want      string // "" is no error
	}{
		{name: "https", url: "https://issuer.example/jwks.json"},
		{name: "a query", url: "https://issuer.example/jwks.json?p=policy"},
		{name: "http", url: "http://issuer.example/jwks.json", want: "want https"},
		{name: "http on loopback, not allowed", url: "http://127.0.0.1:80/jwks.json", want: "want https"},
		{name: "http on loopback, allowed", url: "http://127.0.0.1:80/jwks.json", cfg: loopback},
		{name: "http on localhost, allowed", url: "http://localhost/jwks.json", cfg: loopback},
		{name: "http on ::1, allowed", url: "http://[::1]/jwks.json", cfg: loopback},
		{name: "http elsewhere, loopback allowed", url: "http://issuer.example/", cfg: loopback, want: "loopback host only"},
		{name: "http on what begins like loopback", url: "http://127.0.0.1.issuer.example/", cfg: loopback, want: "loopback host only"},
		{name: "file", url: "file:///etc/passwd", want: "absolute https URL"},
		{name: "another scheme", url: "ftp://issuer.example/x", want: "want https"},
		{name: "no scheme", url: "issuer.example/jwks.json", want: "absolute https URL"},
		{name: "no host", url: "https:///jwks.json", want: "absolute https URL"},
		{name: "opaque", url: "https:issuer.example", want: "absolute https URL"},
		{name: "userinfo", url: "https://user:hunter2@issuer.example/", want: "password"},
		{name: "fragment", url: "https://issuer.example/#x", want: "fragment"},
		{name: "an empty fragment", url: "https://issuer.example/#", want: "fragment"},
		{name: "too long", url: "https://issuer.example/" + strings.Repeat("x", 2048), want: "at most 2048"},
		{name: "loopback", url: "https://127.0.0.1/", want: "refused"},
		{name: "metadata of a cloud", url: "https://169.254.169.254/", want: "refused"},
		{name: "private", url: "https://10.0.0.1/", want: "refused"},
		{name: "IPv6 loopback", url: "https://[::1]/", want: "refused"},
		{name: "mapped", url: "https://[::ffff:8.8.8.8]/", want: "written as IPv6"},
		{name: "fullwidth digits", url: "https://①⑥⑨.254.169.254/", want: "beyond ASCII"},
		{name: "fullwidth digits, escaped", url: "https://%EF%BC%91%EF%BC%92%EF%BC%97.0.0.1/", want: "beyond ASCII"},
		{name: "a host in its own letters", url: "https://bücher.example/", want: "xn--"},
		{name: "a host in the letters of DNS", url: "https://xn--bcher-kva.example/"},
		{name: "a decimal number", url: "https://2852039166/", want: "is a number"},
		{name: "a hexadecimal number", url: "https://0xA9FEA9FE/", want: "is a number"},
		{name: "0x alone", url: "https://127.0x/", want: "is a number"},
		{name: "octal parts", url: "https://0251.0376.0251.0376/", want: "is a number"},
		{name: "two parts", url: "https://127.1/", want: "is a number"},
		{name: "a number at the end", url: "https://issuer.example.1/", want: "is a number"},
		{name: "a number at the end, and a dot", url: "https://127.1./", want: "is a number"},
		{name: "a dot at the end of an address", url: "https://169.254.169.254./", want: "refused"},
		{name: "two dots at the end of an address", url: "https://169.254.169.254../", want: "is a number"},
		{name: "a dot at the end of a name", url: "https://issuer.example./"},
		{name: "a name that begins with a number", url: "https://4.issuer.example/"},
		{name: "a name that is nearly a number", url: "https://issuer.0xg/"},
		{name: "localhost", url: "https://localhost/", want: "refused"},
		{name: "localhost in capitals, and a dot", url: "https://LocalHost./", want: "refused"},
		{name: "below localhost", url: "https://x.localhost/", want: "refused"},
		{name: "localhost, allowed", url: "https://localhost/", cfg: loopback},
		{name: "localhost, allowed by its address", url: "https://localhost/", cfg: jwks.SourceConfig{AllowCIDR: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}},
		{name: "what ends like localhost", url: "https://notlocalhost/"},
		{name: "a zone", url: "https://[fe80::1%25eth0]/", want: "refused"},
		{name: "a kept time that is too long", url: "https://issuer.example/", cfg: jwks.SourceConfig{StaleIfError: 25 * time.Hour}, want: "at most 24h"},
	}
	client := jwks.New(jwks.Config{DialContext: noDial(t), LookupNetIP: jwkstest.New(t).LookupNetIP})
	defer client.Close(t.Context())
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := client.Open("acme", tt.url, tt.cfg)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("Open = %v, want %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("Open = %v, which holds a password", err)
			}
		})
	}
	if _, err := client.Open("", "https://issuer.example/", jwks.SourceConfig{}); err == nil {
		t.Error("Open took an empty tenant")
	}
	if _, err := client.Discover("acme", "https://issuer.example/?x=1", jwks.SourceConfig{}); err == nil {
		t.Error("Discover took an issuer with a query")
	}
	insecure := jwkstest.New(t).TLS()
	insecure.InsecureSkipVerify = true
	if _, err := jwks.New(jwks.Config{TLS: insecure}).Open("acme", "https://issuer.example/", jwks.SourceConfig{}); err == nil {
		t.Error("Open took InsecureSkipVerify")
	}
}

// A known kid goes on through every fault; what an unknown one is told, and how
// often the issuer is asked, is bounded; and nothing but what was published serves.
func TestFaultsWhileBusy(t *testing.T) {
	for _, fault := range jwkstest.Faults() {
		t.Run(fault.Name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, w *world) {
				s := w.ready(jwks.SourceConfig{})
				k := w.wantKey(s, w.a)
				before := runtime.NumGoroutine()
				w.issuer.Misbehave(fault)

				const hours = 2
				w.busy(s, w.a, hours*time.Hour)
				// 5 minutes at most between attempts, half of that on average; a TTL
				// of a minute is refreshed every 48 s.
				if got := s.Status().Fetches; got < 3 || got > hours*100 {
					t.Errorf("%d fetches in %d hours", got, hours)
				}
				if more := runtime.NumGoroutine() - before; more > 20 {
					t.Errorf("%d more goroutines", more)
				}
				if got := w.wantKey(s, w.a); got != k {
					t.Error("the key lost its pointer")
				}
				w.wantLookup(s, "bad", map[bool]error{true: keystore.ErrNotFound, false: keystore.ErrUnavailable}[inSync(s)])
				if fault.Name == "status 304" { // good, where there is something to compare with
					w.wantRefresh(s, "unknown", keystore.ErrUnavailable)
					return
				}
				if fault.Usable {
					return
				}
				w.wantState(s, jwks.Stale)
				w.wantRefresh(s, "unknown", keystore.ErrUnavailable)
				w.wantLookup(s, "unknown", keystore.ErrUnavailable)
				for s.Status().Age < 4*time.Hour-time.Minute {
					w.wantKey(s, w.a)
					time.Sleep(30 * time.Second)
				}
				time.Sleep(time.Minute)
				w.wantState(s, jwks.Expired)
				w.wantLookup(s, "a", keystore.ErrUnavailable)
				w.wantRefresh(s, "a", keystore.ErrUnavailable)
				if k.Usable(time.Now()) {
					t.Error("a cached token outlives its source")
				}

				w.issuer.Behave()
				time.Sleep(10*time.Minute + 10*time.Second) // the longest Retry-After
				if !inSync(s) {
					t.Fatalf("the issuer is well, and %+v", s.Status())
				}
				if got := w.wantKey(s, w.a); got != k {
					t.Error("the key lost its pointer in the outage")
				}
				w.wantRefresh(s, "unknown", keystore.ErrNotFound)
			})
		})
	}
}

func inSync(s *jwks.Source) bool {
	st := s.Status()
	return st.Failures == 0 && (st.State == jwks.Fresh || st.State == jwks.Aging)
}

// steps says what a fault is reported as.
var steps = map[string]jwks.Step{
	"DNS failure": jwks.StepDNS, "refused": jwks.StepConnect, "accept then silence": jwks.StepTLS,
	"TLS expired": jwks.StepTLS, "TLS wrong host": jwks.StepTLS, "TLS unknown CA": jwks.StepTLS,
	"request then silence": jwks.StepResponse, "headers then silence": jwks.StepBody, "1 byte/s": jwks.StepBody,
	"reset in the body": jwks.StepBody, "truncated JSON": jwks.StepSet, "endless chunked body": jwks.StepBody,
	"gzip bomb": jwks.StepBody, "redirect loop": jwks.StepRedirect, "status 500": jwks.StepStatus,
	"status 304": jwks.StepStatus, "status 204": jwks.StepStatus, "HTML with 200": jwks.StepSet, "null": jwks.StepSet, "[]": jwks.StepSet,
	"{}": jwks.StepSet, "keys null": jwks.StepSet, "keys an object": jwks.StepSet, "no keys": jwks.StepSet, "nothing": jwks.StepSet,
	"trailing garbage": jwks.StepSet, "duplicate members": jwks.StepSet, "depth 10k": jwks.StepSet, "10k keys": jwks.StepSet,
	"a kid of 1 MB": jwks.StepBody, "an older answer after a newer one": jwks.StepResponse,
}

// From a cold start a fault is unavailable, never not found, and says where it
// went wrong; a fault that a careful reader can live with brings the keys.
func TestFaultsFromCold(t *testing.T) {
	for _, fault := range jwkstest.Faults() {
		t.Run(fault.Name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, w *world) {
				w.issuer.Misbehave(fault)
				s := w.open(jwks.SourceConfig{})
				w.wantLookup(s, "a", keystore.ErrUnavailable)
				if !fault.Usable {
					w.wantRefresh(s, "a", keystore.ErrUnavailable)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
				defer cancel()
				err := s.WaitReady(ctx)
				if fault.Usable {
					if err != nil {
						t.Fatalf("WaitReady = %v", err)
					}
					w.wantKey(s, w.a)
					w.wantLookup(s, "bad", keystore.ErrNotFound)
					return
				}
				wantOnly(t, "WaitReady", err, keystore.ErrUnavailable)
				w.wantState(s, jwks.Cold)
				w.wantLookup(s, "a", keystore.ErrUnavailable)
				e := new(jwks.Error)
				if want, ok := steps[fault.Name]; ok && (!errors.As(s.Status().LastError, &e) || e.Step != want) {
					t.Errorf("step %q, want %q: %v", e.Step, want, s.Status().LastError)
				}
				// At most 15 s between attempts, but what takes its 5 s takes them; or
				// as long as the issuer asked for.
				if got := s.Status().Fetches; got < 1 || got > 60 {
					t.Errorf("%d fetches in two minutes", got)
				}
				w.issuer.Behave()
				time.Sleep(10*time.Minute + 10*time.Second)
				w.wantKey(s, w.a)
			})
		})
	}
}

// The transport's faults, once more, over sockets.
func TestFaultsOverSockets(t *testing.T) {
	for _, fault := range []jwkstest.Fault{
		jwkstest.Refused(), jwkstest.Mute(), jwkstest.CertificateExpired(), jwkstest.CertificateOfAnotherHost(),
		jwkstest.CertificateUnknown(), jwkstest.HangBody(), jwkstest.ResetBody(), jwkstest.Endless(), jwkstest.GzipBomb(), jwkstest.Drip(),
	} {
		t.Run(fault.Name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, jwkstest.New(t), jwks.Config{})
			s := w.ready(jwks.SourceConfig{})
			w.issuer.Misbehave(fault)
			e := new(jwks.Error)
			if err := jwks.Reload(t.Context(), s); !errors.As(err, &e) || e.Step != steps[fault.Name] {
				t.Errorf("fetch = %v, want step %q", err, steps[fault.Name])
			}
			w.wantKey(s, w.a)
			w.wantLookup(s, "unknown", keystore.ErrUnavailable)
		})
	}
}

func TestUnknownKidFlood(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for i := range 100_000 {
			if i%10_000 == 0 {
				time.Sleep(300 * time.Millisecond)
			}
			w.wantRefresh(s, fmt.Sprint("flood-", i), keystore.ErrNotFound)
		}
		w.wantFetches(4) // the first among them
		runtime.GC()
		runtime.ReadMemStats(&after)
		if more := int64(after.HeapAlloc) - int64(before.HeapAlloc); more > 1<<20 {
			t.Errorf("the flood left %d bytes", more)
		}
		if got := jwks.Missing(s); got > 256 {
			t.Errorf("%d kids are remembered", got)
		}
		w.wantKey(s, w.a)

		// A key that is really new is learned within 10 s, flood or not.
		c := jwkstest.NewKey("c", "ES256")
		w.issuer.Publish(w.a, w.b, c)
		published := time.Now()
		for i := 0; !s.HasKey("c"); i++ {
			if time.Since(published) > 10*time.Second {
				t.Fatal("the new key was not learned within 10 s")
			}
			_ = s.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: fmt.Sprint("more-", i)})
			time.Sleep(10 * time.Millisecond)
		}
		w.wantKey(s, c)
		w.wantFetches(6)
	})
}

// The same unknown kid costs one fetch in ten seconds, and one of another tenant
// or of an impossible length none.
func TestUnknownKidIsRemembered(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		for range 100 {
			w.wantRefresh(s, "c", keystore.ErrNotFound)
			w.wantRefresh(s, strings.Repeat("x", 257), keystore.ErrNotFound)
			wantOnly(t, "Refresh", s.Refresh(t.Context(), keystore.ID{Tenant: "other", KID: "c"}), keystore.ErrNotFound)
		}
		w.wantFetches(2)
		time.Sleep(10 * time.Second)
		w.issuer.Publish(w.a, jwkstest.NewKey("c", "ES256"))
		if err := s.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "c"}); err != nil {
			t.Errorf("Refresh = %v", err)
		}
		w.wantLookup(s, "b", keystore.ErrNotFound)
		last := w.issuer.Requests()[2].Header
		if last.Get("Cache-Control") != "no-cache" || last.Get("If-None-Match") != "" {
			t.Errorf("a request on demand had header %v", last)
		}
	})
}

// A forged signature makes the verifier ask for nothing: the kid is known.
func TestKnownKidCostsNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		for range 1000 {
			if err := s.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "a"}); err != nil {
				t.Fatal(err)
			}
		}
		w.wantFetches(1)
	})
}

// While the issuer is down, a flood is told that nobody can tell, and the
// schedule goes on as without it.
func TestFloodDuringOutage(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		w.issuer.Misbehave(jwkstest.Status(http.StatusInternalServerError))
		for i := range 6000 {
			w.wantRefresh(s, fmt.Sprint("flood-", i), keystore.ErrUnavailable)
			if i == 0 {
				w.wantLookup(s, "unknown", keystore.ErrUnavailable)
			}
			time.Sleep(10 * time.Millisecond)
		}
		w.wantKey(s, w.a)
		// One minute: 3 and one for every ten seconds, and what the schedule asks.
		w.wantFetches(1 + 3 + 6 + 60)
		w.issuer.Behave()
		time.Sleep(11 * time.Second)
		w.wantRefresh(s, "unknown", keystore.ErrNotFound)
	})
}

func TestColdStartOfAThousandCallers(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.open(jwks.SourceConfig{})
		var callers sync.WaitGroup
		for range 1000 {
			callers.Go(func() {
				if err := s.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "a"}); err != nil {
					t.Errorf("Refresh = %v", err)
				}
			})
		}
		callers.Wait()
		w.wantFetches(1)
		w.wantKey(s, w.a)
	})
}

func TestCallersLeave(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		w.issuer.Misbehave(jwkstest.HangHeader())
		start := time.Now()

		// The leader's context ends: it returns at once, and the fetch goes on.
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		err := s.Refresh(ctx, keystore.ID{Tenant: "acme", KID: "c"})
		wantOnly(t, "Refresh", err, keystore.ErrUnavailable)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 100*time.Millisecond {
			t.Errorf("Refresh = %v after %v", err, time.Since(start))
		}
		w.wantRefresh(s, "c", keystore.ErrUnavailable) // joins, and waits two seconds
		if waited := time.Since(start); waited != 2100*time.Millisecond {
			t.Errorf("waited until %v, want 2.1s", waited)
		}
		w.wantFetches(2)
		w.wantKey(s, w.a)

		// A context that has ended costs nothing.
		ended, cancelNow := context.WithCancel(t.Context())
		cancelNow()
		wantOnly(t, "Refresh", s.Refresh(ended, keystore.ID{Tenant: "acme", KID: "d"}), keystore.ErrUnavailable)
		w.wantFetches(2)

		// A leader that was cancelled has poisoned nobody.
		w.issuer.Behave()
		time.Sleep(jwks.FetchTimeout)
		w.wantRefresh(s, "c", keystore.ErrNotFound)
	})
}

// An answer that comes after its time is over does not undo a newer one.
func TestOlderAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		w.issuer.Misbehave(jwkstest.Older())
		w.wantRefresh(s, "c", keystore.ErrUnavailable) // asked, and to be answered in 6 s
		time.Sleep(3*time.Second + time.Millisecond)   // given up
		w.issuer.Behave()
		c := jwkstest.NewKey("c", "ES256")
		w.issuer.Publish(c)
		if err := s.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "c"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		w.wantKey(s, c)
		w.wantLookup(s, "a", keystore.ErrNotFound)
	})
}

func TestRotationAtTheIssuer(t *testing.T) {
	learned := func(w *world, s *jwks.Source) time.Duration { // the TTL, and what a fetch takes
		return s.Status().TTL + jwks.FetchTimeout
	}
	t.Run("with overlap", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			s := w.ready(jwks.SourceConfig{})
			a := w.wantKey(s, w.a)
			c := jwkstest.NewKey("c", "ES256")
			w.issuer.Publish(w.a, w.b, c)
			w.busy(s, w.a, learned(w, s))
			w.wantKey(s, c)
			if w.wantKey(s, w.a) != a {
				t.Error("a key that stayed lost its pointer")
			}
		})
	})
	t.Run("without overlap, on demand", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			s := w.ready(jwks.SourceConfig{})
			a := w.wantKey(s, w.a)
			c := jwkstest.NewKey("c", "ES256")
			w.issuer.Publish(c)
			if err := s.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "c"}); err != nil {
				t.Fatal(err)
			}
			w.wantKey(s, c)
			w.wantLookup(s, "a", keystore.ErrNotFound)
			if a.Usable(time.Now()) {
				t.Error("a removed key vouches for cached tokens")
			}
		})
	})
	t.Run("same kid, new material", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			s := w.ready(jwks.SourceConfig{})
			old := w.wantKey(s, w.a)
			again := jwkstest.NewKey("a", "ES256")
			w.issuer.Publish(again, w.b)
			w.busy(s, w.b, learned(w, s))
			w.wantKey(s, again)
			if old.Usable(time.Now()) {
				t.Error("the old material vouches for cached tokens")
			}
		})
	})
	t.Run("removed", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			s := w.ready(jwks.SourceConfig{})
			a := w.wantKey(s, w.a)
			w.issuer.Publish(w.b)
			w.busy(s, w.b, learned(w, s))
			w.wantLookup(s, "a", keystore.ErrNotFound)
			if a.Usable(time.Now()) || a.Verify(nil, nil) {
				t.Error("a removed key vouches for cached tokens")
			}
		})
	})
	t.Run("same kid and alg twice", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			s := w.ready(jwks.SourceConfig{})
			w.issuer.Publish(w.a, jwkstest.NewKey("a", "ES256"), w.b)
			w.busy(s, w.b, learned(w, s))
			w.wantLookup(s, "a", keystore.ErrNotFound)
			if got := len(s.Status().Skipped); got != 2 {
				t.Errorf("%d keys are reported, want both", got)
			}
		})
	})
	t.Run("all removed", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			s := w.ready(jwks.SourceConfig{})
			w.issuer.Publish()
			w.busy(s, w.a, learned(w, s))
			w.wantState(s, jwks.Stale)
		})
		bubble(t, func(t *testing.T, w *world) {
			s := w.ready(jwks.SourceConfig{AcceptEmpty: true})
			w.issuer.Publish()
			for end := time.Now().Add(learned(w, s)); time.Now().Before(end); time.Sleep(30 * time.Second) {
				_, _ = get(s, "a") // or it would fall asleep
			}
			w.wantLookup(s, "a", keystore.ErrNotFound)
		})
	})
}

func TestConditionalRequests(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.issuer.SetHeader("Cache-Control", "max-age=600")
		w.issuer.SetHeader("Last-Modified", "Fri, 31 Dec 1999 00:00:00 GMT")
		s := w.ready(jwks.SourceConfig{})
		a := w.wantKey(s, w.a)
		w.busy(s, w.a, 5*time.Hour) // longer than stale-if-error: a 304 is a good answer
		if !inSync(s) {
			t.Errorf("after five hours of 304: %+v", s.Status())
		}
		if w.wantKey(s, w.a) != a {
			t.Error("a 304 cost the key its pointer")
		}
		for i, r := range w.issuer.Requests() {
			if got := r.Header.Get("If-None-Match") + " " + r.Header.Get("If-Modified-Since"); i > 0 && got != `"1" Fri, 31 Dec 1999 00:00:00 GMT` {
				t.Fatalf("request %d had validators %q", i, got)
			}
		}
		if st := s.Status(); st.TTL != 10*time.Minute || st.ETag != `"1"` {
			t.Errorf("Status = %+v", st)
		}
	})
}

// A source that nobody asks sleeps. Awake within the TTL it answers at once, past
// it not before it knows what it missed.
func TestSleep(t *testing.T) {
	sleep := func(w *world, s *jwks.Source, d time.Duration) {
		w.t.Helper()
		time.Sleep(d)
		synctest.Wait()
		if !s.Status().Asleep || jwks.Scheduled(w.client) != 0 {
			w.t.Fatalf("not asleep after %v: %+v", d, s.Status())
		}
	}
	t.Run("costs nothing", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			s := w.ready(jwks.SourceConfig{})
			time.Sleep(24 * time.Hour)
			if w.wantFetches(3); !s.Status().Asleep {
				t.Error("nobody asked for a day, and it is awake")
			}
		})
	})
	t.Run("a cached token wakes it within the TTL", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			w.issuer.SetHeader("Cache-Control", "max-age=3600")
			s := w.ready(jwks.SourceConfig{})
			w.wantKey(s, w.a)
			a := w.wantKey(s, w.a)
			for range 200 { // it sleeps when it is due, within its TTL
				time.Sleep(time.Minute)
				if s.Status().Asleep {
					break
				}
			}
			if state := s.Status().State; state != jwks.Fresh && state != jwks.Aging {
				t.Fatalf("it fell asleep in state %v", state)
			}
			if !s.Status().Asleep || a.Usable(time.Now()) {
				t.Fatalf("asleep %v, its key usable %v", s.Status().Asleep, a.Usable(time.Now()))
			}
			fetched := len(w.issuer.Requests())
			w.wantKey(s, w.a) // at once, and usable again
			synctest.Wait()
			if got := len(w.issuer.Requests()); got == fetched {
				t.Error("waking did not refresh")
			}
		})
	})
	t.Run("a removed key does not come back", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			s := w.ready(jwks.SourceConfig{})
			a := w.wantKey(s, w.a)
			sleep(w, s, time.Hour)
			if a.Usable(time.Now()) {
				t.Error("cached tokens do not ask")
			}
			w.issuer.Publish(w.b)
			w.wantLookup(s, "a", keystore.ErrUnavailable)
			w.wantRefresh(s, "a", keystore.ErrNotFound)
			w.wantLookup(s, "a", keystore.ErrNotFound)
			w.wantKey(s, w.b)
		})
	})
	t.Run("the issuer hangs", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			s := w.ready(jwks.SourceConfig{})
			sleep(w, s, time.Hour)
			w.issuer.Misbehave(jwkstest.HangHeader())
			w.wantLookup(s, "a", keystore.ErrUnavailable)
			start := time.Now()
			w.wantRefresh(s, "unknown", keystore.ErrUnavailable)
			if waited := time.Since(start); waited != jwks.MaxWait {
				t.Errorf("waited %v", waited)
			}
			w.wantState(s, jwks.Stale)
			w.wantKey(s, w.a)
		})
	})
	t.Run("the issuer fails", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			s := w.ready(jwks.SourceConfig{})
			sleep(w, s, time.Hour)
			w.issuer.Misbehave(jwkstest.Status(500))
			w.wantLookup(s, "a", keystore.ErrUnavailable)
			if err := s.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "a"}); err != nil {
				t.Errorf("Refresh = %v: the key is worth asking for", err)
			}
			w.wantKey(s, w.a)
		})
	})
	t.Run("past stale-if-error", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			s := w.ready(jwks.SourceConfig{})
			sleep(w, s, 5*time.Hour)
			w.issuer.Misbehave(jwkstest.Status(500))
			w.wantRefresh(s, "a", keystore.ErrUnavailable)
			w.wantLookup(s, "a", keystore.ErrUnavailable)
		})
	})
	t.Run("WaitReady wakes", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			s := w.ready(jwks.SourceConfig{})
			sleep(w, s, 5*time.Hour)
			if err := s.WaitReady(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.wantKey(s, w.a)
		})
	})
}

// Tenants that name the same URL share the fetch, never a key.
func TestTenantsShareTheFetch(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		acme, globex := w.ready(jwks.SourceConfig{}), w.openFor("globex", jwks.SourceConfig{})
		own, err := globex.Lookup(keystore.ID{Tenant: "globex", KID: "a"}, keystore.ES256)
		if err != nil || own[0] == w.wantKey(acme, w.a) {
			t.Fatalf("Lookup = %v, %v: want a key of its own", own, err)
		}
		for _, other := range []string{"acme", "", "globex "} {
			_, err := globex.Lookup(keystore.ID{Tenant: other, KID: "a"}, keystore.ES256)
			wantOnly(t, "Lookup of another tenant", err, keystore.ErrNotFound)
		}
		w.wantFetches(1)
		c := jwkstest.NewKey("c", "ES256")
		w.issuer.Publish(w.a, c)
		if err := acme.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "c"}); err != nil {
			t.Fatal(err)
		}
		if !globex.HasKey("c") {
			t.Error("what one learned, the other did not")
		}
		w.wantFetches(2)

		// Another guard is another fetch.
		w.openFor("initech", jwks.SourceConfig{AllowLoopback: true})
		synctest.Wait()
		if got := len(w.issuer.Requests()); got != 3 {
			t.Errorf("%d requests, want 3", got)
		}

		if err := acme.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.wantLookup(acme, "a", keystore.ErrUnavailable)
		if _, err := globex.Lookup(keystore.ID{Tenant: "globex", KID: "a"}, keystore.ES256); err != nil {
			t.Errorf("one tenant's Close ended another's keys: %v", err)
		}
	})
}

func TestClose(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		a := w.wantKey(s, w.a)
		w.issuer.Misbehave(jwkstest.HangHeader())
		waits := make(chan error, 1)
		go func() { waits <- s.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "c"}) }()
		synctest.Wait()
		start := time.Now()
		for range 2 {
			if err := s.Close(t.Context()); err != nil {
				t.Errorf("Close = %v", err)
			}
		}
		wantOnly(t, "Refresh during Close", <-waits, keystore.ErrUnavailable)
		if time.Since(start) != 0 {
			t.Errorf("Close took %v", time.Since(start))
		}
		w.wantLookup(s, "a", keystore.ErrUnavailable)
		w.wantLookup(s, "unknown", keystore.ErrUnavailable)
		w.wantRefresh(s, "a", keystore.ErrUnavailable)
		wantOnly(t, "WaitReady", s.WaitReady(t.Context()), keystore.ErrUnavailable)
		if s.HasKey("a") || a.Usable(time.Now()) {
			t.Error("a closed source's keys go on")
		}
		if jwks.Scheduled(w.client) != 0 {
			t.Error("a closed source is scheduled")
		}
		w.issuer.Behave()
		again := w.ready(jwks.SourceConfig{})
		w.wantKey(again, w.a)
		if err := w.client.Close(t.Context()); err != nil {
			t.Error(err)
		}
		w.wantLookup(again, "a", keystore.ErrUnavailable)
		if _, err := w.client.Open("acme", w.issuer.URL(), jwks.SourceConfig{}); err == nil {
			t.Error("Open after Close")
		}
	})
}

func TestCloseLeaksNothing(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	issuer := jwkstest.New(t)
	defer issuer.Close()
	w := newWorld(t, issuer, jwks.Config{})
	for _, fault := range []jwkstest.Fault{{}, jwkstest.Mute(), jwkstest.HangHeader(), jwkstest.HangBody(), jwkstest.Drip()} {
		issuer.Misbehave(fault)
		before := issuer.Dials()
		s := w.openFor(fault.Name+"tenant", jwks.SourceConfig{StaleIfError: time.Duration(len(fault.Name)+1) * time.Minute})
		for issuer.Dials() == before {
			runtime.Gosched()
		}
		if fault.Name == "" {
			continue
		}
		go func() { _ = s.WaitReady(context.Background()) }()
	}
	if err := w.client.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Nothing that a URL may hold in secret is in an error, a log or a Status.
func TestNothingLeaks(t *testing.T) {
	for _, fault := range jwkstest.Faults() {
		if fault.Usable {
			continue
		}
		t.Run(fault.Name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, w *world) {
				w.issuer.Misbehave(fault)
				s, err := w.client.Open("acme", w.issuer.URL()+"?code=hunter2", jwks.SourceConfig{AllowRedirects: true})
				if err != nil {
					t.Fatal(err)
				}
				_, lookup := get(s, "a")
				texts := []string{s.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "a"}).Error(), lookup.Error()}
				time.Sleep(time.Minute)
				texts = append(texts, fmt.Sprintf("%+v %v", s.Status(), s.Status().LastError))
				w.client.Close(t.Context())
				for _, text := range append(texts, w.log.String()) {
					if strings.Contains(text, "hunter2") {
						t.Errorf("%q holds the query", text)
					}
				}
			})
		})
	}
}
