package jwks_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

// A jumpy clock can be set forward and back. Timers do not notice, as on a machine that was
// suspended.
type jumpy struct{ ahead atomic.Int64 }

func (j *jumpy) now() time.Time       { return time.Now().Add(time.Duration(j.ahead.Load())) }
func (j *jumpy) jump(d time.Duration) { j.ahead.Add(int64(d)) }

// jumping is bubble with a jumpy clock.
func jumping(t *testing.T, test func(t *testing.T, w *world, clock *jumpy)) {
	t.Helper()
	virtual(t, func(t *testing.T) {
		clock := new(jumpy)
		test(t, newWorld(t, jwkstest.NewInMemory(t), jwks.Config{Now: clock.now}), clock)
	})
}

// However far the clock is set back, the schedule waits no longer than otherwise, and does not
// fetch more often.
func TestClockGoesBack(t *testing.T) {
	for _, back := range []time.Duration{time.Second, 20 * time.Second, 20 * time.Minute, 3 * time.Hour, 1000 * time.Hour} {
		for _, cold := range []bool{true, false} {
			t.Run(fmt.Sprintf("%v, cold %v", back, cold), func(t *testing.T) {
				jumping(t, func(t *testing.T, w *world, clock *jumpy) {
					if cold {
						w.issuer.Misbehave(jwkstest.Status(500))
					}
					s := w.open(jwks.SourceConfig{})
					synctest.Wait()
					wait := s.Status().NextFetch.Sub(clock.now())
					clock.jump(-back)
					before := s.Status().Fetches
					time.Sleep(wait + time.Minute)
					if s.Status().Fetches == before {
						t.Fatalf("nothing was fetched for %v: %+v", wait+time.Minute, s.Status())
					}
					w.issuer.Behave()
					time.Sleep(time.Minute)
					if _, err := get(s, "a"); err != nil {
						t.Errorf("a minute after the issuer is well: %v", err)
					}
					before = s.Status().Fetches
					for range 60 {
						get(s, "a")
						time.Sleep(time.Minute)
					}
					if got := s.Status().Fetches - before; got < 5 || got > 9 {
						t.Errorf("%d fetches in the hour after, with a TTL of 10 minutes", got)
					}
				})
			})
		}
	}
}

// A caller that wakes a source while its issuer hangs has its answer, although the fetch began a moment
// after the caller came.
func TestWakeBeginsLate(t *testing.T) {
	jumping(t, func(t *testing.T, w *world, clock *jumpy) {
		s := w.ready(jwks.SourceConfig{})
		w.issuer.Misbehave(jwkstest.HangHeader())
		clock.jump(3 * time.Hour)
		go func() {
			time.Sleep(time.Millisecond)
			clock.jump(-200 * time.Millisecond) // the same as if it began so much later
		}()
		if err := s.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "a"}); err != nil {
			t.Errorf("Refresh = %v: the key is worth asking for", err)
		}
		w.wantState(s, jwks.Stale)
	})
}

// Keys past their TTL are served if a refresh failed. They are not served if none was tried,
// because the machine was suspended.
func TestSuspended(t *testing.T) {
	t.Run("a key that was removed meanwhile", func(t *testing.T) {
		jumping(t, func(t *testing.T, w *world, clock *jumpy) {
			s := w.ready(jwks.SourceConfig{})
			a, err := get(s, "a")
			if err != nil {
				t.Fatal(err)
			}
			w.issuer.Publish(w.b)
			clock.jump(3 * time.Hour)
			w.wantLookup(s, "a", keystore.ErrUnavailable)
			w.wantRefresh(s, "a", keystore.ErrNotFound)
			if a.Usable(clock.now()) {
				t.Error("it vouches for cached tokens")
			}
			w.wantLookup(s, "a", keystore.ErrNotFound)
			if _, err := get(s, "b"); err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("and the issuer hangs", func(t *testing.T) {
		jumping(t, func(t *testing.T, w *world, clock *jumpy) {
			s := w.ready(jwks.SourceConfig{})
			w.issuer.Misbehave(jwkstest.HangHeader())
			clock.jump(3 * time.Hour)
			w.wantLookup(s, "a", keystore.ErrUnavailable)
			if err := s.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "a"}); err != nil {
				t.Errorf("Refresh = %v: the key is worth asking for", err)
			}
			if _, err := get(s, "a"); err != nil {
				t.Errorf("after %v: %v", jwks.WakeWait, err)
			}
			w.wantState(s, jwks.Stale)
		})
	})
	t.Run("within the TTL", func(t *testing.T) {
		jumping(t, func(t *testing.T, w *world, clock *jumpy) {
			s := w.ready(jwks.SourceConfig{})
			clock.jump(s.Status().NextFetch.Sub(clock.now()) + time.Second)
			if _, err := get(s, "a"); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if age := s.Status().Age; age > time.Minute {
				t.Errorf("refreshed %v ago", age)
			}
		})
	})
	t.Run("unused", func(t *testing.T) {
		jumping(t, func(t *testing.T, w *world, clock *jumpy) {
			w.issuer.SetHeader("Cache-Control", "max-age=3600")
			s := w.ready(jwks.SourceConfig{})
			a, err := get(s, "a")
			if err != nil {
				t.Fatal(err)
			}
			clock.jump(3 * time.Hour)
			time.Sleep(time.Minute)
			synctest.Wait()
			if a.Usable(clock.now()) {
				t.Error("cached tokens do not ask")
			}
		})
	})
}
