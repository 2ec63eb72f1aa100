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
				f.Kill(rapid.IntRange(1, 3).Draw(t, "lives"), drawTime(t, time.Hour))
			}
			if rapid.Bool().Draw(t, "gone") {
				f.Collect(rapid.IntRange(0, 3).Draw(t, "life"), drawTime(t, time.Hour))
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
	all.Kill(1, at(4))
	all.Collect(1, at(5))
	want := facts(fact{ring.FactRevoked, "old", 1}, fact{ring.FactAnnounced, "new", 3})
	want.Kill(1, at(4))
	want.Collect(1, at(5))
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

// TestLives: the highest number of lives counts, and of one number the earliest date. What was
// collected is about one life: the losing side of a split may collect keys of a life that has ended
// long after the next one began.
func TestLives(t *testing.T) {
	f := facts()
	f.Kill(1, at(50))
	f.Kill(1, at(40))
	f.Kill(0, at(10))
	f.Kill(1, time.Time{})
	f.Collect(0, at(500))
	if f.Dead != 1 || !f.DeadAt.Equal(at(40)) || !f.CollectedUntil.IsZero() {
		t.Errorf("%+v", f)
	}
	next := rec("n1", 1, 120)
	next.Life = 1
	old := rec("k1", 1, 600)
	if f.Ignored(&next) || !f.Ignored(&old) {
		t.Errorf("ignores the next life: %v, the one that ended: %v", f.Ignored(&next), f.Ignored(&old))
	}
	f.Collect(1, at(100))
	if !f.Ignored(&next) {
		t.Error("a record that was collected counts")
	}
	g := facts()
	g.Collect(2, at(10)) // proves that two lives have ended
	if g.Dead != 2 || !g.DeadAt.IsZero() || !g.Ignored(&next) || !f.Join(g).Equal(g) {
		t.Errorf("%+v", g)
	}
}
