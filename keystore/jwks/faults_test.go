package jwks_test

import (
	"context"
	"errors"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

// steps has the step that each fault is reported at.
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

// Through every fault, known kids are served. An unknown kid gets a correct answer, the number of
// requests is bounded, and only published keys serve.
func TestFaultsWhileBusy(t *testing.T) {
	long := []string{"endless chunked body", "a kid of 1 MB", "gzip bomb", "10k keys", "depth 10k"} // hundreds of answers of a megabyte
	for n, fault := range jwkstest.Faults() {
		if raceEnabled && (n%6 > 0 || slices.Contains(long, fault.Name)) {
			continue // make test runs all of them without the race detector; TestFaultsFromCold has them with it
		}
		t.Run(fault.Name, func(t *testing.T) {
			parallel(t)
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
				if fault.Name == "status 304" { // a good answer, once a set is held
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
				w.recovers(s)
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

// recovers waits until a source of an issuer that is well again is in sync: for ten minutes, the
// longest Retry-After, and ten seconds. It looks often, since nobody uses the source meanwhile: one
// that recovers at once falls asleep after its TTL of ten minutes.
func (w *world) recovers(s *jwks.Source) {
	w.t.Helper()
	for end := time.Now().Add(10*time.Minute + 10*time.Second); !inSync(s); time.Sleep(time.Second) {
		if time.Now().After(end) {
			w.t.Fatalf("the issuer is well, and %+v", s.Status())
		}
	}
}

// From a cold start, a fault means unavailable, never not found, and the error names the step. A
// fault that is usable brings the keys.
func TestFaultsFromCold(t *testing.T) {
	for _, fault := range jwkstest.Faults() {
		t.Run(fault.Name, func(t *testing.T) {
			parallel(t)
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
				// At most 15 s between attempts, and 5 s for an attempt that times out; or as
				// long as the issuer asked for.
				if got := s.Status().Fetches; got < 1 || got > 60 {
					t.Errorf("%d fetches in two minutes", got)
				}
				w.issuer.Behave()
				w.recovers(s)
				w.wantKey(s, w.a)
			})
		})
	}
}

// The faults of the transport again, over sockets.
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

// A meter counts what each connection brings to its reader.
type meter struct {
	dial func(ctx context.Context, network, addr string) (net.Conn, error)

	mu               sync.Mutex
	conns, open      int
	most, mostAtOnce int // bytes of one connection, connections
}

func (m *meter) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := m.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conns++
	m.open++
	m.mostAtOnce = max(m.mostAtOnce, m.open)
	return &metered{Conn: conn, m: m}, nil
}

type metered struct {
	net.Conn
	m    *meter
	read int
	once sync.Once
}

func (c *metered) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	c.read += n
	c.m.most = max(c.m.most, c.read)
	return n, err
}

func (c *metered) Close() error {
	c.once.Do(func() {
		c.m.mu.Lock()
		defer c.m.mu.Unlock()
		c.m.open--
	})
	return c.Conn.Close()
}

// A fetch of any fault reads at most one body, with TLS and a header, over one connection, and
// closes that.
func TestFaultsCostFewBytes(t *testing.T) {
	const most = jwks.MaxBody + 64<<10
	lasts := time.Hour
	if raceEnabled {
		lasts /= 6 // make test has the whole hour without the race detector
	}
	for _, fault := range jwkstest.Faults() {
		t.Run(fault.Name, func(t *testing.T) {
			parallel(t)
			bubble(t, func(t *testing.T, w *world) {
				m := &meter{dial: w.issuer.DialContext}
				w.client.Close(t.Context())
				w.client = jwks.New(jwks.Config{TLS: w.issuer.TLS(), LookupNetIP: w.issuer.LookupNetIP, DialContext: m.DialContext})
				s := w.ready(jwks.SourceConfig{})
				w.issuer.Misbehave(fault)
				w.busy(s, w.a, lasts)
				time.Sleep(jwks.FetchTimeout)
				synctest.Wait()

				m.mu.Lock()
				defer m.mu.Unlock()
				if fetches := int(s.Status().Fetches); m.conns > fetches {
					t.Errorf("%d connections for %d fetches", m.conns, fetches)
				}
				if m.most > most {
					t.Errorf("a connection brought %d bytes, want at most %d", m.most, most)
				}
				if m.mostAtOnce > 1 {
					t.Errorf("%d connections at once", m.mostAtOnce)
				}
				if !s.Status().NextFetch.IsZero() && m.open != 0 {
					t.Errorf("%d connections are left open", m.open)
				}
			})
		})
	}
}
