package jwks_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

// sleep lets time pass in which the source is unused, until it sleeps.
func (w *world) sleep(s *jwks.Source, d time.Duration) {
	w.t.Helper()
	time.Sleep(d)
	synctest.Wait()
	if !s.Status().Asleep || jwks.Scheduled(w.client) != 0 {
		w.t.Fatalf("not asleep after %v: %+v", d, s.Status())
	}
}

func TestSleepCostsNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		time.Sleep(24 * time.Hour)
		if w.wantFetches(3); !s.Status().Asleep {
			t.Error("unused for a day, and it is awake")
		}
	})
}

func TestCachedTokenWakesSourceWithinTTL(t *testing.T) {
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
		ttl := s.Status().Fetched.Add(s.Status().TTL)
		if !a.Usable(ttl.Add(-1)) || a.Usable(ttl) {
			t.Fatalf("the key of a source that sleeps is usable at the end of its TTL: %v", a.Usable(ttl))
		}
		fetched := len(w.issuer.Requests())
		w.wantKey(s, w.a) // at once
		synctest.Wait()
		if got := len(w.issuer.Requests()); got == fetched || s.Status().Asleep {
			t.Error("a use did not wake and refresh it")
		}
	})
}

func TestRemovedKeyStaysRemovedAfterSleep(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		a := w.wantKey(s, w.a)
		w.sleep(s, time.Hour)
		if a.Usable(time.Now()) {
			t.Error("the key of a source that sleeps is usable, so cached tokens do not wake it")
		}
		w.issuer.Publish(w.b)
		w.wantLookup(s, "a", keystore.ErrUnavailable)
		w.wantRefresh(s, "a", keystore.ErrNotFound)
		w.wantLookup(s, "a", keystore.ErrNotFound)
		w.wantKey(s, w.b)
	})
}

func TestWakeWhileIssuerHangs(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		w.sleep(s, time.Hour)
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
}

func TestWakeWhileIssuerFails(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		w.sleep(s, time.Hour)
		w.issuer.Misbehave(jwkstest.Status(500))
		w.wantLookup(s, "a", keystore.ErrUnavailable)
		if err := s.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "a"}); err != nil {
			t.Errorf("Refresh = %v: the key is worth asking for", err)
		}
		w.wantKey(s, w.a)
	})
}

func TestWakePastStaleIfError(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		w.sleep(s, 5*time.Hour)
		w.issuer.Misbehave(jwkstest.Status(500))
		w.wantRefresh(s, "a", keystore.ErrUnavailable)
		w.wantLookup(s, "a", keystore.ErrUnavailable)
	})
}

func TestWaitReadyWakes(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		w.sleep(s, 5*time.Hour)
		if err := s.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.wantKey(s, w.a)
	})
}
