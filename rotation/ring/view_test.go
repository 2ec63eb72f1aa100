package ring_test

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keyturn/keyturn/rotation/ring"
)

func TestView(t *testing.T) {
	const (
		x, a, r, w = ring.FactRevoked, ring.FactPromoted, ring.FactRepublished, ring.FactAnnounced
	)
	// demoPolicy, in seconds: Propagation 15, SignFor 12, ClockSkew 1, MaxTokenTTL 120, Leeway 30.
	three := []ring.Record{rec("k1", 1, 0), rec("k2", 2, 30), rec("k3", 3, 60)}
	ended := rec("k2", 2, 30)
	ended.SignUntil = at(50)
	late := []ring.Record{rec("k1", 1, 0), rec("k2", 2, 60)}
	late[0].SignUntil = at(50)
	moved := []ring.Record{rec("k1", 1, 0), ended}
	tests := []struct {
		name    string
		records []ring.Record
		facts   ring.Facts
		now     float64
		want    string
	}{
		{"no records", nil, facts(), 0, ""},
		{"before the first", three, facts(), -1, "k1=pending k2=pending k3=pending"},
		{"the first takes effect", three, facts(), 0, "k1=signing* k2=pending k3=pending"},
		{"until the next does", three, facts(), 29.999, "k1=signing* k2=pending k3=pending"},
		{"the switch", three, facts(), 30, "k1=retired k2=signing* k3=pending"},
		{"the first verifies for MaxTokenTTL and Leeway", three, facts(), 179.999, "k1=retired k2=retired k3=signing*"},
		{"and is dropped", three, facts(), 180, "k1=dropped k2=retired k3=signing*"},
		{"the last is never dropped", three, facts(), 1e5, "k1=dropped k2=dropped k3=signing*"},
		{"after SignUntil no key signs, not even the one before", []ring.Record{rec("k1", 1, 0), ended}, facts(), 50, "k1=retired k2=retired"},
		{"SignUntil ends no key before its successor takes effect", late, facts(), 59.999, "k1=signing* k2=pending"},
		{"and then the successor signs", late, facts(), 60, "k1=retired k2=signing*"},
		{"a successor revoked before it took effect does not keep its predecessor signing", late, facts(fact{x, "k2", 40}), 50, "k1=retired k2=revoked"},
		{"SignUntil moves with a republication", moved, facts(fact{r, "k2", 45}), 79.999, "k1=retired k2=signing*"},
		{"by as much, and not by more", moved, facts(fact{r, "k2", 45}), 80, "k1=retired k2=retired"},
		{"SignUntil does not come sooner with a promotion", moved, facts(fact{a, "k2", 10}), 49.999, "k1=retired k2=signing*"},
		{"nor later", moved, facts(fact{a, "k2", 10}), 50, "k1=retired k2=retired"},
		{"the order of the records does not matter", []ring.Record{three[2], three[0], three[1]}, facts(), 30, "k1=retired k2=signing* k3=pending"},

		{"promoted", three, facts(fact{a, "k2", 10}, fact{w, "k2", 10}), 10, "k1=retired k2=signing* k3=pending"},
		{"a promotion is in the past, even if this clock is behind", three, facts(fact{a, "k2", 10}), 9, "k1=retired k2=signing* k3=pending"},
		{"a promotion after the schedule changes nothing", three, facts(fact{a, "k2", 40}), 30, "k1=retired k2=signing* k3=pending"},
		{"after a promotion the predecessor verifies for SignFor, Dwell and ClockSkew more", three, facts(fact{a, "k2", 10}, fact{w, "k2", 10}), 174.999, "k1=retired k2=retired k3=signing*"},
		{"and then it is dropped", three, facts(fact{a, "k2", 10}, fact{w, "k2", 10}), 175, "k1=dropped k2=retired k3=signing*"},
		{"an announcement of the predecessor counts as well", three, facts(fact{w, "k1", 100}), 264.999, "k1=retired k2=dropped k3=signing*"},

		{"revoked while it signs: no key signs", three, facts(fact{x, "k2", 40}), 40, "k1=retired k2=revoked k3=pending"},
		{"revoked before it signs: it leaves the order", three, facts(fact{x, "k2", 29}), 30, "k1=signing* k3=pending k2=revoked"},
		{"revoked, and the next promoted in its place", three, facts(fact{x, "k2", 40}, fact{a, "k3", 40}), 40, "k1=retired k2=revoked k3=signing*"},
		{"the same, seen with a clock that is behind", three, facts(fact{x, "k2", 40}, fact{a, "k3", 40}), 20, "k1=retired k2=revoked k3=signing*"},
		{"a revocation that is in the future by this clock", three, facts(fact{x, "k1", 10}), 5, "k1=revoked k2=pending k3=pending"},
		{"a revoked key stays revoked, and is not dropped", three, facts(fact{x, "k1", 10}), 1e4, "k1=revoked k2=dropped k3=signing*"},

		{"republished: it waits for Propagation again", three, facts(fact{r, "k2", 25}), 39.999, "k1=signing* k2=pending k3=pending"},
		{"republished: and then it signs", three, facts(fact{r, "k2", 25}), 40, "k1=retired k2=signing* k3=pending"},
		{"republished early: its schedule does not change", three, facts(fact{r, "k2", 10}), 30, "k1=retired k2=signing* k3=pending"},
		{"republished and promoted", three, facts(fact{r, "k2", 25}, fact{a, "k2", 20}), 25, "k1=retired k2=signing* k3=pending"},
		{"republished, and so later than the next: they change places", three, facts(fact{r, "k2", 50}), 60, "k1=retired k3=signing* k2=pending"},
		{"the first key of a ring never waits", three, facts(fact{r, "k1", 5}), 5, "k1=signing* k2=pending k3=pending"},
		{"the first key of a second, merged ring does wait", []ring.Record{rec("k1", 1, 0), rec("m1", 1, 100)}, facts(fact{r, "m1", 100}), 110, "k1=signing* m1=pending"},
		{"facts about an unknown kid", three, facts(fact{r, "zz", 5}), 30, "k1=retired k2=signing* k3=pending"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := slices.Clone(tt.records)
			if got := states(ring.View(tt.records, tt.facts, at(tt.now))); got != tt.want {
				t.Errorf("at %v: %s\nwant %s", tt.now, got, tt.want)
			}
			if !slices.Equal(before, tt.records) {
				t.Error("View changed the records")
			}
		})
	}
}

// TestViewOfLives: a shred ends the life of all records there are, and not of those of the next life.
// One record of that life is proof that the one before it has ended.
func TestViewOfLives(t *testing.T) {
	old := []ring.Record{rec("k1", 1, 0), rec("k2", 2, 30)}
	late := rec("late", 3, 500) // minted after the shred, by a side of a split that had not heard of it
	next := rec("n1", 1, 100)
	next.Life = 1
	dead := facts()
	dead.Kill(1, at(50))
	for _, tt := range []struct {
		name    string
		records []ring.Record
		facts   ring.Facts
		want    string
		dead    bool
		lives   int
	}{
		{"destroyed", append(slices.Clone(old), late), dead, "", true, 1},
		{"made again", append(slices.Clone(old), late, next), dead, "n1=signing*", false, 1},
		{"made again, and that it was destroyed is lost", append(slices.Clone(old), late, next), facts(), "n1=signing*", false, 1},
		{"never destroyed", old, facts(), "k1=retired k2=signing*", false, 0},
	} {
		got := ring.View(tt.records, tt.facts, at(120))
		if states(got) != tt.want || got.Dead != tt.dead || !got.DeadAt.Equal(tt.facts.DeadAt) || got.Lives != tt.lives {
			t.Errorf("%s: %s, dead %v at %v, want %s", tt.name, states(got), got.Dead, got.DeadAt, tt.want)
		}
	}
	twice := dead.Clone()
	twice.Kill(2, at(130))
	if got := ring.View(append(old, next), twice, at(140)); !got.Dead || !got.DeadAt.Equal(at(130)) || len(got.Keys) > 0 {
		t.Errorf("destroyed twice: %s, dead %v at %v", states(got), got.Dead, got.DeadAt)
	}
}

// TestDrainedAt: every token that was signed by then has ended, and the keys alone say when.
func TestDrainedAt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records, f := drawRing(t)
		now := drawTime(t, 10*time.Minute)
		r := ring.View(records, f, now)
		drained := r.DrainedAt(now)
		if drained.Before(now) {
			t.Fatalf("drained at %v, before now", drained)
		}
		for _, k := range r.Keys {
			// A token that was signed now lives for TokenTTL, and is forgiven Leeway at a clock behind.
			ends := now.Add(k.TokenTTL() + k.Timing.Leeway + k.Timing.ClockSkew)
			switch {
			case !k.Verifies():
			case k.State == ring.Signing && drained.Before(ends) && (k.DroppedAt.IsZero() || drained.Before(k.DroppedAt)):
				t.Fatalf("drained at %v, and a token of %s lives until %v", drained, k.KID, ends)
			case k.State == ring.Retired && drained.Before(k.DroppedAt) && drained.Before(ends):
				t.Fatalf("drained at %v, and %s is dropped at %v", drained, k.KID, k.DroppedAt)
			}
		}
	})
	long := rec("k1", 1, 0)
	long.Longest = time.Hour
	r := ring.View([]ring.Record{long}, facts(), at(10))
	if got, want := r.DrainedAt(at(10)), at(10).Add(time.Hour+31*sec); !got.Equal(want) {
		t.Errorf("a key with long tokens: %v, want %v", got, want)
	}
	if r = ring.View(nil, facts(), at(10)); !r.DrainedAt(at(10)).Equal(at(10)) {
		t.Errorf("no key: %v", r.DrainedAt(at(10)))
	}
}

// TestViewInvariants: what holds for any records and facts.
func TestViewInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records, f := drawRing(t)
		now := drawTime(t, 10*time.Minute)
		got := ring.View(records, f, now)

		if len(got.Keys) != len(records) {
			t.Fatalf("%d keys of %d records", len(got.Keys), len(records))
		}
		signing := 0
		for i, k := range got.Keys {
			if k.State == ring.Signing {
				signing++
				if i != got.Signer {
					t.Fatalf("%s signs and is not the signer: %s", k.KID, states(got))
				}
			}
			if _, revoked := f.At(ring.FactRevoked, k.KID); revoked != (k.State == ring.Revoked) {
				t.Fatalf("%s is %s, revoked %v", k.KID, k.State, revoked)
			}
			if k.State == ring.Revoked && k.Verifies() {
				t.Fatal("a revoked key verifies")
			}
			if !k.RetiresAt.IsZero() && k.DroppedAt.Before(k.RetiresAt.Add(k.Timing.MaxTokenTTL+k.Timing.Leeway)) {
				t.Fatalf("%s is dropped at %v, before its last token of %v has ended", k.KID, k.DroppedAt, k.RetiresAt)
			}
		}
		if signing > 1 {
			t.Fatalf("two sign: %s", states(got))
		}

		// The order of the records does not matter.
		again := rapid.Permutation(records).Draw(t, "order")
		if other := states(ring.View(again, f, now)); other != states(got) {
			t.Fatalf("%s in another order: %s", states(got), other)
		}
	})
}

// TestRetention (I4): a key that signs at some moment verifies for as long as a token made then may
// live, by the same facts.
func TestRetention(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records, f := drawRing(t)
		now := drawTime(t, 10*time.Minute)
		got := ring.View(records, f, now)
		if got.Signer < 0 {
			return
		}
		signer := got.Keys[got.Signer]
		p := signer.Timing
		until := now.Add(time.Duration(rapid.Int64Range(0, (p.MaxTokenTTL+p.Leeway-time.Millisecond).Milliseconds()).Draw(t, "age")) * time.Millisecond)
		later := ring.View(records, f, until)
		i := slices.IndexFunc(later.Keys, func(k ring.Key) bool { return k.KID == signer.KID })
		if !later.Keys[i].Verifies() {
			t.Fatalf("%s signed at %v and is %s at %v", signer.KID, now.Sub(t0), later.Keys[i].State, until.Sub(t0))
		}
	})
}

// TestNoEarlierKeySignsAgain (I5): with the same facts, time never makes an earlier key sign again.
func TestNoEarlierKeySignsAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records, f := drawRing(t)
		a := drawTime(t, 10*time.Minute)
		b := a.Add(time.Duration(rapid.Int64Range(0, 600_000).Draw(t, "later")) * time.Millisecond)
		first, second := ring.View(records, f, a), ring.View(records, f, b)
		if first.Signer >= 0 && second.Signer >= 0 && second.Signer < first.Signer {
			t.Fatalf("%s at %v, then %s at %v", states(first), a.Sub(t0), states(second), b.Sub(t0))
		}
	})
}

// TestUnknownPromotion (timelines A, B, C): an instance that does not know of a promotion or a
// merge signs on by its own view, for SignFor at most. Instances that know of it go on accepting
// the tokens that it makes meanwhile.
func TestUnknownPromotion(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.SampledFrom([]ring.Policy{demoPolicy, fastPolicy}).Draw(t, "policy")
		records := []ring.Record{
			{KID: "k1", Seq: 1, Created: t0, ActivateAt: t0, SignUntil: t0.Add(time.Hour), Timing: p},
			{KID: "k2", Seq: 2, Created: t0, ActivateAt: t0.Add(p.Every), SignUntil: t0.Add(time.Hour), Timing: p},
		}
		promoted := t0.Add(time.Duration(rapid.Int64Range(0, p.Every.Milliseconds()).Draw(t, "promoted")) * time.Millisecond)
		var known ring.Facts
		known.Add(ring.FactPromoted, "k2", promoted)
		known.Add(ring.FactAnnounced, "k2", promoted)

		// An instance was cut off just before the promotion. Its clock is ClockSkew behind.
		signs := promoted.Add(time.Duration(rapid.Int64Range(0, p.SignFor.Milliseconds()).Draw(t, "signs")) * time.Millisecond)
		cutOff := ring.View(records, ring.Facts{}, signs.Add(-p.ClockSkew))
		if cutOff.Signer < 0 || cutOff.Keys[cutOff.Signer].KID != "k1" {
			return
		}
		end := signs.Add(p.MaxTokenTTL)
		for _, skew := range []time.Duration{-p.ClockSkew, 0, p.ClockSkew} {
			if got := ring.View(records, known, end.Add(skew-time.Millisecond)); !got.Keys[0].Verifies() {
				t.Fatalf("a token of k1 made at %v is refused at %v", signs.Sub(t0), end.Add(skew).Sub(t0))
			}
		}
	})
}

// TestViewIgnoresCollected: View is the same with collected records and without them.
func TestViewIgnoresCollected(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records, f := drawRing(t)
		gone := drawTime(t, time.Hour)
		stay := slices.DeleteFunc(slices.Clone(records), func(r ring.Record) bool { return !r.Created.After(gone) })
		now := drawTime(t, 10*time.Minute)
		want := ring.View(stay, f, now)
		f.Collect(0, gone)
		got := ring.View(records, f, now)
		if !slices.Equal(got.Keys, want.Keys) || got.Signer != want.Signer {
			t.Fatalf("%s, want %s", states(got), states(want))
		}
	})
}
