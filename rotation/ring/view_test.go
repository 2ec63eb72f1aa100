package ring_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keyturn/keyturn/rotation/ring"
)

var t0 = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func at(s float64) time.Time { return t0.Add(time.Duration(s * float64(time.Second))) }

// rec returns a record of the demo policy that is to sign from a second on.
func rec(kid string, seq int, activate float64) ring.Record {
	return ring.Record{Tenant: "acme", KID: kid, Seq: seq, Algorithm: demoPolicy.Algorithm, Created: at(activate - 20), ActivateAt: at(activate),
		SignUntil: at(activate + 1e6), Origin: ring.Generated, Timing: demoPolicy}
}

type fact struct {
	kind ring.FactKind
	kid  string
	at   float64
}

func facts(list ...fact) (f ring.Facts) {
	for _, x := range list {
		f.Add(x.kind, x.kid, at(x.at))
	}
	return f
}

// states renders a ring as kid=state, in order, with the signer marked.
func states(r ring.Ring) string {
	var b []byte
	for i, k := range r.Keys {
		if i > 0 {
			b = append(b, ' ')
		}
		b = fmt.Appendf(b, "%s=%s", k.KID, k.State)
		if i == r.Signer {
			b = append(b, '*')
		}
	}
	return string(b)
}

func TestView(t *testing.T) {
	const (
		x, a, r, w = ring.FactRevoked, ring.FactPromoted, ring.FactRepublished, ring.FactAnnounced
	)
	// Of the demo policy: P 15, SignFor 12, S 1, L 120, leeway 30.
	three := []ring.Record{rec("k1", 1, 0), rec("k2", 2, 30), rec("k3", 3, 60)}
	ended := rec("k2", 2, 30)
	ended.SignUntil = at(50)
	late := []ring.Record{rec("k1", 1, 0), rec("k2", 2, 60)}
	late[0].SignUntil = at(50)
	slid := []ring.Record{rec("k1", 1, 0), ended}
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
		{"the first is kept for L and leeway", three, facts(), 179.999, "k1=retired k2=retired k3=signing*"},
		{"and dropped", three, facts(), 180, "k1=dropped k2=retired k3=signing*"},
		{"the last is kept for ever", three, facts(), 1e5, "k1=dropped k2=dropped k3=signing*"},
		{"beyond sign_until nobody signs, not even the one before", []ring.Record{rec("k1", 1, 0), ended}, facts(), 50, "k1=retired k2=retired"},
		{"sign_until does not end one before its successor takes effect", late, facts(), 59.999, "k1=signing* k2=pending"},
		{"and then the successor signs", late, facts(), 60, "k1=retired k2=signing*"},
		{"a successor that was revoked before does not keep it signing", late, facts(fact{x, "k2", 40}), 50, "k1=retired k2=revoked"},
		{"sign_until slides with a republication", slid, facts(fact{r, "k2", 45}), 79.999, "k1=retired k2=signing*"},
		{"by as much, and no more", slid, facts(fact{r, "k2", 45}), 80, "k1=retired k2=retired"},
		{"sign_until does not come sooner with a promotion", slid, facts(fact{a, "k2", 10}), 49.999, "k1=retired k2=signing*"},
		{"nor later", slid, facts(fact{a, "k2", 10}), 50, "k1=retired k2=retired"},
		{"order does not depend on the order given", []ring.Record{three[2], three[0], three[1]}, facts(), 30, "k1=retired k2=signing* k3=pending"},

		{"promoted", three, facts(fact{a, "k2", 10}, fact{w, "k2", 10}), 10, "k1=retired k2=signing* k3=pending"},
		{"a promotion is in the past, whatever our clock says", three, facts(fact{a, "k2", 10}), 9, "k1=retired k2=signing* k3=pending"},
		{"a promotion after the schedule changes nothing", three, facts(fact{a, "k2", 40}), 30, "k1=retired k2=signing* k3=pending"},
		{"after a promotion the old one is kept for SignFor and S more", three, facts(fact{a, "k2", 10}, fact{w, "k2", 10}), 172.999, "k1=retired k2=retired k3=signing*"},
		{"and then dropped", three, facts(fact{a, "k2", 10}, fact{w, "k2", 10}), 173, "k1=dropped k2=retired k3=signing*"},
		{"an announcement of the old one counts as well", three, facts(fact{w, "k1", 100}), 262.999, "k1=retired k2=dropped k3=signing*"},

		{"revoked while it signs: nobody signs", three, facts(fact{x, "k2", 40}), 40, "k1=retired k2=revoked k3=pending"},
		{"revoked before it signs: it leaves the order", three, facts(fact{x, "k2", 29}), 30, "k1=signing* k3=pending k2=revoked"},
		{"revoked, and the next promoted in its place", three, facts(fact{x, "k2", 40}, fact{a, "k3", 40}), 40, "k1=retired k2=revoked k3=signing*"},
		{"the same, seen with a clock that is behind", three, facts(fact{x, "k2", 40}, fact{a, "k3", 40}), 20, "k1=retired k2=revoked k3=signing*"},
		{"a revocation in the future of our clock", three, facts(fact{x, "k1", 10}), 5, "k1=revoked k2=pending k3=pending"},
		{"a revoked one is not dropped", three, facts(fact{x, "k1", 10}), 1e4, "k1=revoked k2=dropped k3=signing*"},

		{"republished: it slides by P", three, facts(fact{r, "k2", 25}), 39.999, "k1=signing* k2=pending k3=pending"},
		{"republished: and then signs", three, facts(fact{r, "k2", 25}), 40, "k1=retired k2=signing* k3=pending"},
		{"republished early: its schedule stands", three, facts(fact{r, "k2", 10}), 30, "k1=retired k2=signing* k3=pending"},
		{"republished and promoted", three, facts(fact{r, "k2", 25}, fact{a, "k2", 20}), 25, "k1=retired k2=signing* k3=pending"},
		{"republished past the next: they change places", three, facts(fact{r, "k2", 50}), 60, "k1=retired k3=signing* k2=pending"},
		{"the first never slides", three, facts(fact{r, "k1", 5}), 5, "k1=signing* k2=pending k3=pending"},
		{"a second lineage's first does slide", []ring.Record{rec("k1", 1, 0), rec("m1", 1, 100)}, facts(fact{r, "m1", 100}), 110, "k1=signing* m1=pending"},
		{"facts about nobody", three, facts(fact{r, "zz", 5}), 30, "k1=retired k2=signing* k3=pending"},
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
	dead := facts()
	dead.Kill(at(5))
	if got := ring.View(three, dead, at(6)); got.Signer != -1 || len(got.Keys) != 0 {
		t.Errorf("a dead ring: %s", states(got))
	}
}

// aRing draws a ring as a rotator may have left it, and what may be known of it.
func aRing(t *rapid.T) ([]ring.Record, ring.Facts) {
	p := rapid.SampledFrom([]ring.Policy{demoPolicy, fastPolicy}).Draw(t, "policy")
	var records []ring.Record
	activate := t0
	for i := range rapid.IntRange(1, 6).Draw(t, "records") {
		records = append(records, ring.Record{Tenant: "acme", KID: fmt.Sprint("k", i+1), Seq: i + 1, Created: activate.Add(-p.Propagation), ActivateAt: activate,
			SignUntil: activate.Add(2*p.Every + p.Propagation), Timing: p})
		activate = activate.Add(p.Every + time.Duration(rapid.Int64Range(0, p.Every.Milliseconds()).Draw(t, "late"))*time.Millisecond)
	}
	return records, someFacts(t, records, activate.Sub(t0))
}

func someFacts(t *rapid.T, records []ring.Record, span time.Duration) (f ring.Facts) {
	kinds := []ring.FactKind{ring.FactRevoked, ring.FactPromoted, ring.FactForced, ring.FactRepublished, ring.FactAnnounced}
	for range rapid.IntRange(0, 6).Draw(t, "facts") {
		kid := rapid.SampledFrom(records).Draw(t, "of").KID
		f.Add(rapid.SampledFrom(kinds).Draw(t, "kind"), kid, someTime(t, span))
	}
	return f
}

func someTime(t *rapid.T, span time.Duration) time.Time {
	return t0.Add(time.Duration(rapid.Int64Range(-1000, 2*span.Milliseconds()).Draw(t, "ms")) * time.Millisecond)
}

// TestJoin: facts meet in whatever order they are heard of.
func TestJoin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records, _ := aRing(t)
		draw := func() ring.Facts {
			f := someFacts(t, records, time.Hour)
			if rapid.Bool().Draw(t, "dead") {
				f.Kill(someTime(t, time.Hour))
			}
			if rapid.Bool().Draw(t, "gone") {
				f.Collect(someTime(t, time.Hour))
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

// TestViewInvariants: whatever was revoked, promoted, lost and merged.
func TestViewInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records, f := aRing(t)
		now := someTime(t, 10*time.Minute)
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

		// Whatever the order of the records.
		again := rapid.Permutation(records).Draw(t, "order")
		if other := states(ring.View(again, f, now)); other != states(got) {
			t.Fatalf("%s in another order: %s", states(got), other)
		}
	})
}

// TestRetention (I4): a key that signs at some moment verifies for as long as a
// token made then may live, whoever looks, by the same facts.
func TestRetention(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records, f := aRing(t)
		now := someTime(t, 10*time.Minute)
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

// TestNoFallingBack (I5): with the same facts, time never makes an earlier key
// sign again.
func TestNoFallingBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records, f := aRing(t)
		a := someTime(t, 10*time.Minute)
		b := a.Add(time.Duration(rapid.Int64Range(0, 600_000).Draw(t, "later")) * time.Millisecond)
		first, second := ring.View(records, f, a), ring.View(records, f, b)
		if first.Signer >= 0 && second.Signer >= 0 && second.Signer < first.Signer {
			t.Fatalf("%s at %v, then %s at %v", states(first), a.Sub(t0), states(second), b.Sub(t0))
		}
	})
}

// TestLateHearing (A, B, C): an instance that has not heard of a promotion or a
// merge yet signs on with its own view for SignFor at most; whoever has heard
// keeps that key for the tokens it makes meanwhile.
func TestLateHearing(t *testing.T) {
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

		// Cut off just before the promotion, with a clock that is S behind.
		signs := promoted.Add(time.Duration(rapid.Int64Range(0, p.SignFor.Milliseconds()).Draw(t, "signs")) * time.Millisecond)
		deaf := ring.View(records, ring.Facts{}, signs.Add(-p.ClockSkew))
		if deaf.Signer < 0 || deaf.Keys[deaf.Signer].KID != "k1" {
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

// TestViewOfCollected: a collected record is as if it had never been.
func TestViewOfCollected(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records, f := aRing(t)
		gone := someTime(t, time.Hour)
		stay := slices.DeleteFunc(slices.Clone(records), func(r ring.Record) bool { return !r.Created.After(gone) })
		now := someTime(t, 10*time.Minute)
		want := ring.View(stay, f, now)
		f.Collect(gone)
		got := ring.View(records, f, now)
		if !slices.Equal(got.Keys, want.Keys) || got.Signer != want.Signer {
			t.Fatalf("%s, want %s", states(got), states(want))
		}
	})
}
