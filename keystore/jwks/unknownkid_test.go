package jwks_test

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

// A kid that is missing from one set may be in the next.
func TestNewSetClearsMissingKids(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		for range 2 {
			w.wantRefresh(s, "c", keystore.ErrNotFound)
		}
		w.wantFetches(2) // it is remembered
		if err := jwks.Reload(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		w.wantRefresh(s, "c", keystore.ErrNotFound)
		w.wantFetches(3) // also past an answer with the same set

		c := jwkstest.NewKey("c", "ES256")
		w.issuer.Publish(w.a)
		if err := jwks.Reload(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if got := jwks.Missing(s); got != 0 {
			t.Errorf("%d kids are remembered", got)
		}
		w.issuer.Publish(w.a, c)
		if err := s.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "c"}); err != nil {
			t.Errorf("Refresh = %v", err)
		}
		w.wantKey(s, c)
	})
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

		// A key that is really new is fetched within 10 s, even during a flood.
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

// The same unknown kid costs one fetch in ten seconds. A kid of another tenant or of an impossible
// length costs none.
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

// A forged signature causes no fetch: the kid is known.
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

// While the issuer is down, a flood gets unavailable, and the schedule goes on as without it.
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
