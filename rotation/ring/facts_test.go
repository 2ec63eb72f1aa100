package ring_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keyturn/keyturn/rotation/ring"
)

// TestJoin: the order in which a copy learns of facts does not matter, and Join loses none.
func TestJoin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records, _ := drawRing(t)
		draw := func() ring.Facts {
			f := drawFacts(t, records, time.Hour)
			if rapid.Bool().Draw(t, "dead") {
				f.Kill(drawTime(t, time.Hour))
			}
			if rapid.Bool().Draw(t, "gone") {
				f.Collect(drawTime(t, time.Hour))
			}
			return f
		}
		a, b, c := draw(), draw(), draw()
		before := a.Clone()
		if !a.Join(b).Equal(b.Join(a)) {
			t.Fatal("not commutative")
		}
		if !a.Join(b).Join(c).Equal(a.Join(b.Join(c))) {
			t.Fatal("not associative")
		}
		if !a.Join(a).Equal(a) || !a.Join(b).Join(b).Equal(a.Join(b)) {
			t.Fatal("not idempotent")
		}
		if !a.Equal(before) {
			t.Fatal("Join changed what it was given")
		}
		for id, at := range a.All {
			kind, kid := id.Kind, id.KID
			got, ok := a.Join(b).At(kind, kid)
			earliest := kind == ring.FactRevoked || kind == ring.FactPromoted || kind == ring.FactForced
			if !ok || earliest && got.After(at) || !earliest && got.Before(at) {
				t.Fatalf("fact %c of %s at %v became %v", kind, kid, at, got)
			}
		}
	})
}

// TestPrune: facts go with their record, except a revocation.
func TestPrune(t *testing.T) {
	all := facts(fact{ring.FactRevoked, "old", 1}, fact{ring.FactPromoted, "old", 2}, fact{ring.FactAnnounced, "new", 3})
	all.Kill(at(4))
	all.Collect(at(5))
	want := facts(fact{ring.FactRevoked, "old", 1}, fact{ring.FactAnnounced, "new", 3})
	want.Kill(at(4))
	want.Collect(at(5))
	if got := all.Prune(func(id ring.FactID) bool { return id.KID == "new" }); !got.Equal(want) {
		t.Errorf("%v, want %v", got, want)
	}
	if _, ok := all.At(ring.FactPromoted, "old"); !ok {
		t.Error("Prune changed its receiver")
	}
}

// TestForget: only the fact that is named goes.
func TestForget(t *testing.T) {
	f := facts(fact{ring.FactPromoted, "a", 1}, fact{ring.FactAnnounced, "a", 1}, fact{ring.FactPromoted, "b", 2})
	f.Forget(ring.FactPromoted, "a")
	f.Forget(ring.FactForced, "a") // which it does not have
	if want := facts(fact{ring.FactAnnounced, "a", 1}, fact{ring.FactPromoted, "b", 2}); !f.Equal(want) {
		t.Errorf("%v, want %v", f, want)
	}
}
