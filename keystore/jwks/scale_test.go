package jwks_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

func TestTenThousandSources(t *testing.T) {
	sources := 10_000
	if raceEnabled {
		sources = 2_000 // make test runs all of them without the race detector
	}
	virtual(t, func(t *testing.T) {
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
		if times, most := c.stats(); most > 64 || len(times) != sources {
			t.Errorf("%d fetches, %d at once", len(times), most)
		}
		synctest.Wait()
		if more := runtime.NumGoroutine() - before; more > 5 {
			t.Errorf("%d goroutines for %d sources", more, sources)
		}

		// They expire together, and their fetches are spread over at least a sixth of the TTL.
		time.Sleep(time.Hour)
		synctest.Wait()
		times, most := c.stats()
		second := slices.SortedFunc(slices.Values(times[sources:]), time.Time.Compare)
		if len(second) != sources || most > 64 {
			t.Fatalf("%d fetches the second time, %d at once", len(second), most)
		}
		if spread := second[len(second)-1].Sub(second[0]); spread < 9*time.Minute {
			t.Errorf("refreshed within %v", spread)
		}
		// They are unused: they sleep, and are not even on the agenda.
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

// Known keys are found equally fast with a good issuer and a bad one. Both are measured in turns,
// in the same run, and the metric is the ratio. Fetches are under way all the time, more than
// waiting callers can cause.
func BenchmarkLookupUnderFault(b *testing.B) {
	for _, fault := range []jwkstest.Fault{
		{Name: "none"}, // the noise of the ratio
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
					_ = jwks.Reload(ctx, s) // beyond the budget of callers
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
			time.Sleep(25 * time.Millisecond) // until the callers use the other source
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
				time.Sleep(time.Millisecond) // or the scheduler interrupts amid a hundred
			}
		}
	}
	at := func(i, percent int) float64 {
		slices.Sort(samples[i])
		return float64(samples[i][(len(samples[i])-1)*percent/100]) / 100
	}
	b.ReportMetric(0, "ns/op") // of a turn, which means nothing
	b.ReportMetric(at(0, 99), "p99-ns/good")
	b.ReportMetric(at(1, 99), "p99-ns/fault")
	b.ReportMetric(at(1, 50)/at(0, 50), "p50-ratio")
	b.ReportMetric(at(1, 99)/at(0, 99), "p99-ratio")
	b.ReportMetric(float64(bad.Status().Fetches), "fetches")
}

// At most 4096 callers wait for a URL. One more gets its answer at once.
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

// At most 4096 callers wait for all sources together that are not in use, and one for each of these
// even then. Those that are in use have crowds of their own.
func TestCrowdAtStrangers(t *testing.T) {
	const most = 4096
	virtual(t, func(t *testing.T) {
		set := jwkstest.Set(jwkstest.NewKey("a", "ES256"))
		var hangs atomic.Bool
		network := &network{set: func(string, *http.Request) string {
			if hangs.Load() {
				time.Sleep(4500 * time.Millisecond) // beyond the two seconds of those that come after two
			}
			return set
		}}
		defer network.answering.Wait()
		client := jwks.New(jwks.Config{DialContext: network.dial})
		defer client.Close(t.Context())
		var sources []*jwks.Source
		for i := range 4 {
			sources = append(sources, network.open(t, client, fmt.Sprint("tenant-", i), fmt.Sprintf("127.9.0.%d", i)))
		}
		sources[3].NoteUse("tenant-3")
		hangs.Store(true)
		var callers sync.WaitGroup
		call := func(i int, waits bool) {
			callers.Go(func() {
				start := time.Now()
				err := sources[i].Refresh(t.Context(), keystore.ID{Tenant: fmt.Sprint("tenant-", i), KID: "unknown"})
				if !errors.Is(err, keystore.ErrUnavailable) || time.Since(start) == 0 == waits {
					t.Errorf("source %d: %v after %v", i, err, time.Since(start))
				}
			})
			synctest.Wait()
		}
		for range most / 2 {
			call(0, true)
			call(1, true)
		}
		for range 2 {
			call(0, false)
			call(1, false)
		}
		call(2, true)
		call(2, false)
		for range 100 {
			call(3, true)
		}
		sources[1].NoteUse("tenant-1")
		call(1, true) // and its callers no longer count with those of strangers
		call(2, true)
		callers.Wait()
		for range most/2 + 100 {
			call(0, true)
		}
		callers.Wait()
	})
}

func TestColdStartOfThousandCallers(t *testing.T) {
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
