package jwks_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
	"github.com/keyturn/keyturn/verifier"
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

// WakeWait after the fetch began, tokens pass although no caller waited so long.
func TestWakeAfterCallersLeft(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		v := verify(t, s)
		w.sleep(s, time.Hour)
		w.issuer.Misbehave(jwkstest.HangHeader())
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := v.Verify(ctx, token(w.a, time.Hour)); !errors.Is(err, verifier.ErrUnavailable) {
			t.Fatalf("while the fetch has just begun: %v", err)
		}
		time.Sleep(jwks.WakeWait)
		start := time.Now()
		if _, err := v.Verify(t.Context(), token(w.a, time.Hour)); err != nil || time.Since(start) != 0 {
			t.Errorf("WakeWait later: %v after %v", err, time.Since(start))
		}
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
		before := len(w.issuer.Requests())
		time.Sleep(999 * time.Millisecond)
		if got := len(w.issuer.Requests()) - before; got != 0 {
			t.Errorf("%d more requests within a second of the failure", got)
		}
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

// A source that sleeps, or that a token has just woken, is ready: the token waits for the issuer.
func TestReady(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.issuer.Misbehave(jwkstest.Status(503))
		s := w.open(jwks.SourceConfig{})
		want := func(when string, want error) {
			t.Helper()
			synctest.Wait()
			if err := s.Ready("acme"); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v; state %v", when, err, want, s.Status().State)
			}
		}
		want("no answer yet", keystore.ErrUnavailable)
		w.issuer.Behave()
		time.Sleep(time.Hour)
		want("it has keys", nil)
		time.Sleep(10 * time.Hour)
		want("it sleeps, and its keys are too old", nil)
		if st := s.Status(); !st.Asleep || st.State != jwks.Expired {
			t.Fatalf("%+v", st)
		}
		w.issuer.Misbehave(jwkstest.HangHeader())
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := s.Refresh(ctx, keystore.ID{Tenant: "acme", KID: "a"}); err == nil {
			t.Fatal("the issuer hangs, and Refresh has news")
		}
		want("a token has woken it", nil)
		time.Sleep(jwks.WakeWait)
		want("and the issuer does not answer", keystore.ErrUnavailable)
		if err := s.Ready("globex"); !errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("another tenant: %v", err)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		want("closed", keystore.ErrUnavailable)
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

func TestNoteUse(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		w.sleep(s, 20*time.Minute)
		s.NoteUse("globex")
		if !s.Status().Asleep {
			t.Error("another tenant's token woke it")
		}
		s.NoteUse("acme")
		synctest.Wait()
		if st := s.Status(); st.Asleep || st.Age != 0 {
			t.Errorf("a token did not wake and refresh it: %+v", st)
		}
		// A token at the start of a stretch of the schedule keeps it awake as one at the end does.
		for range 100 {
			time.Sleep(9 * time.Minute)
			if s.NoteUse("acme"); s.Status().Asleep {
				t.Fatal("it sleeps, though a token was verified nine minutes ago")
			}
		}
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.NoteUse("acme")
	})
}

// Each token calls NoteUse, also one whose verdict is cached.
func BenchmarkNoteUse(b *testing.B) {
	issuer := jwkstest.New(b)
	client := jwks.New(jwks.Config{TLS: issuer.TLS(), LookupNetIP: issuer.LookupNetIP, DialContext: issuer.DialContext})
	defer client.Close(context.Background())
	s, err := client.Open("acme", issuer.URL(), jwks.SourceConfig{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		s.NoteUse("acme")
	}
}
