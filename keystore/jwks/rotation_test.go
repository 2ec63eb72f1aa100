package jwks_test

import (
	"errors"
	"slices"
	"strings"
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

// Two keys under one kid both serve, and the first keeps its pointer.
func TestIssuerPublishesKIDTwice(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		a := w.wantKey(s, w.a)
		w.issuer.Publish(w.a, jwkstest.NewKey("a", "ES256"), w.b)
		w.busy(s, w.b, learned(s))
		found, err := s.Lookup(keystore.ID{Tenant: "acme", KID: "a"}, keystore.ES256)
		if err != nil || len(found) != 2 || !slices.Contains(found, a) {
			t.Errorf("Lookup = %v, %v, want both", found, err)
		}
		if st := s.Status(); len(st.Skipped) != 0 || len(st.Keys) != 3 {
			t.Errorf("keys %v, skipped %v", st.Keys, st.Skipped)
		}
	})
}

// Of keys under one kid that cost more than one token may, none serves, and the error says why.
func TestIssuerPublishesKIDTooOften(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		all := []*jwkstest.Key{w.b}
		for range keystore.MaxCandidates + 1 {
			all = append(all, jwkstest.NewKey("a", "ES256"))
		}
		w.issuer.Publish(all...)
		w.busy(s, w.b, learned(s))
		_, err := s.Lookup(keystore.ID{Tenant: "acme", KID: "a"}, keystore.ES256)
		if !errors.Is(err, keystore.ErrNotFound) || !strings.Contains(err.Error(), `kid "a" is in the set, but was skipped: 9 keys share its kid and alg`) {
			t.Errorf("Lookup error = %v", err)
		}
		if got := len(s.Status().Skipped); got != keystore.MaxCandidates+1 {
			t.Errorf("%d keys are reported, want all of the kid", got)
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
