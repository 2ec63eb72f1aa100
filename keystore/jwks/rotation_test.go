package jwks_test

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

// learned returns how long a source takes to see a new set: its TTL, and the duration of a fetch.
func learned(s *jwks.Source) time.Duration { return s.Status().TTL + jwks.FetchTimeout }

func TestIssuerRotatesWithOverlap(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		a := w.wantKey(s, w.a)
		c := jwkstest.NewKey("c", "ES256")
		w.issuer.Publish(w.a, w.b, c)
		w.busy(s, w.a, learned(s))
		w.wantKey(s, c)
		if w.wantKey(s, w.a) != a {
			t.Error("a key that stayed lost its pointer")
		}
	})
}

func TestIssuerRotatesWithoutOverlap(t *testing.T) {
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
}

func TestIssuerReplacesMaterial(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		old := w.wantKey(s, w.a)
		again := jwkstest.NewKey("a", "ES256")
		w.issuer.Publish(again, w.b)
		w.busy(s, w.b, learned(s))
		w.wantKey(s, again)
		if old.Usable(time.Now()) {
			t.Error("the old material vouches for cached tokens")
		}
	})
}

func TestIssuerRemovesKey(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		a := w.wantKey(s, w.a)
		w.issuer.Publish(w.b)
		w.busy(s, w.b, learned(s))
		w.wantLookup(s, "a", keystore.ErrNotFound)
		if a.Usable(time.Now()) || a.Verify(nil, nil) {
			t.Error("a removed key vouches for cached tokens")
		}
	})
}

func TestIssuerPublishesKIDTwice(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		w.issuer.Publish(w.a, jwkstest.NewKey("a", "ES256"), w.b)
		w.busy(s, w.b, learned(s))
		if keys, err := s.Lookup(keystore.ID{Tenant: "acme", KID: "a"}, keystore.ES256); err != nil || len(keys) != 2 {
			t.Errorf("Lookup(a) = %v, %v, want both keys", keys, err)
		}
		if got := s.Status().Skipped; len(got) != 0 {
			t.Errorf("skipped %v, want none", got)
		}
	})
}

func TestIssuerRemovesAllKeys(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		w.issuer.Publish()
		w.busy(s, w.a, learned(s))
		w.wantState(s, jwks.Stale)
	})
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{AcceptEmpty: true})
		w.issuer.Publish()
		for end := time.Now().Add(learned(s)); time.Now().Before(end); time.Sleep(30 * time.Second) {
			_, _ = get(s, "a") // or it would fall asleep
		}
		w.wantLookup(s, "a", keystore.ErrNotFound)
	})
}
