package rotationtest_test

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

// These timelines are about rings that begin with a key which other programs sign with, and whose
// tokens have no kid and live for longer than those of the policy.

// longest is the longest life of a token of an old program.
const longest = 12 * time.Second

// adopting is runTimeline for a ring that begins with the key of old programs.
func adopting(t *testing.T, policy rotation.Policy, opts rotation.AdoptOptions, play func(l *timeline)) {
	t.Helper()
	runTimeline(t, policy, func(l *timeline) {
		l.adopts = &adoption{AdoptOptions: opts, longest: longest}
		play(l)
	})
}

// oldPrograms lets old programs sign until a moment, at most four times a second, and returns their
// tokens.
func (l *timeline) oldPrograms(i *instance, until time.Duration) (tokens []int) {
	l.t.Helper()
	for l.now() < until {
		if n := i.signAsOldProgram(tenant); n >= 0 {
			tokens = append(tokens, n)
			l.tokens = append(l.tokens, n)
		}
		l.runUntil(min(until, l.now()+250*time.Millisecond))
	}
	if len(tokens) == 0 {
		l.t.Errorf("%v: no old program has signed a token", l.now())
	}
	return tokens
}

// goodUntilTheyEnd lets instances verify tokens until the last has expired, and checks that none is
// good after until.
func (l *timeline) goodUntilTheyEnd(tokens []int, at ...*instance) {
	l.t.Helper()
	last := l.h.tokens[tokens[len(tokens)-1]]
	for l.h.start.Add(l.now()).Before(last.exp.Add(l.policy.Leeway)) {
		for _, i := range at {
			for _, n := range tokens {
				i.verify(n)
			}
		}
		l.runFor(200 * time.Millisecond)
	}
}

// Hold: the signing key has Hold, and its successor waits. A policy replaces the one that waits. Long
// after its date an operator rotates: then it signs, and from then on the keys rotate by themselves.
func TestTimelineHold(t *testing.T) {
	adopting(t, fast, rotation.AdoptOptions{Hold: true}, func(l *timeline) {
		f := l.fleet("rotator", "other")
		l.oldPrograms(f[1], 5*time.Second)
		second := l.key(f[0], 2)
		receipt, err := f[0].r.Load().SetPolicy(l.ctx, tenant, l.policy)
		if err != nil || len(receipt.Replaced) != 1 || receipt.Replaced[0] != second.KID || receipt.Minted == "" || !receipt.SignsFrom.IsZero() {
			t.Errorf("SetPolicy: %+v, %v", receipt, err)
		}
		tokens := l.oldPrograms(f[1], 30*time.Second)
		l.wantSigner(1, f...)
		l.wantCollected(second.KID)
		l.wantState(3, ring.Pending, f...)
		if st, _ := f[1].k.Load().Tenant(tenant); !st.Held {
			t.Error("the ring is not held")
		}
		l.rotate(f[0])
		l.runFor(100 * time.Millisecond)
		l.wantSigner(3, f...)
		if st, _ := f[1].k.Load().Tenant(tenant); st.Held {
			t.Error("the ring is held after it was rotated")
		}
		l.goodUntilTheyEnd(tokens, f...)
		l.wantSigner(5, f...)
		l.runFor(13 * time.Second)
		if l.has("k:" + l.h.tokens[tokens[0]].kid) {
			t.Error("the key of the old programs has not been collected")
		}
	})
}

// wantCollected checks that the store has no record of a key, and knows that it is revoked.
func (l *timeline) wantCollected(kid string) {
	l.t.Helper()
	if l.has("k:"+kid) || !l.has("x:"+kid) {
		l.t.Errorf("%v: key %s is there: %v; it is revoked: %v", l.now(), short(kid), l.has("k:"+kid), l.has("x:"+kid))
	}
}

// Hold, revoked: the key that waits is revoked. The next one waits too: the hold does not end unasked.
func TestTimelineHoldRevoked(t *testing.T) {
	adopting(t, fast, rotation.AdoptOptions{Hold: true}, func(l *timeline) {
		f := l.fleet("rotator", "other")
		l.runUntil(4 * time.Second)
		l.must(f[0].r.Load().Revoke(l.ctx, tenant, l.key(f[0], 2).KID))
		l.runUntil(40 * time.Second) // six periods
		l.wantSigner(1, f...)
		l.wantState(3, ring.Pending, f...)
		l.rotate(f[0])
		l.runFor(time.Second)
		l.wantSigner(3, f...)
		l.runFor(20 * time.Second)
	})
}

// Hold, split: both sides of a split set a policy, so two keys wait. One side of another split ends
// the hold, and the other one mints under it. No key may wait behind a key that follows the schedule:
// it would never sign, and no other would be minted.
func TestTimelineHoldSplit(t *testing.T) {
	adopting(t, fast, rotation.AdoptOptions{Hold: true}, func(l *timeline) {
		f := l.fleet("rotator", "left", "third")
		setPolicy := func(i *instance) {
			if _, err := i.r.Load().SetPolicy(l.ctx, tenant, l.policy); err != nil {
				t.Fatalf("%v: %v", l.now(), err)
			}
		}
		l.runUntil(4 * time.Second)
		heal := l.leave(f[1], 900*time.Millisecond)
		setPolicy(f[0])
		setPolicy(f[1])
		l.runFor(2 * time.Second)
		heal()
		l.runFor(3 * time.Second)
		if st, _ := f[2].k.Load().Tenant(tenant); waiting(st.Ring) != 2 || !st.Held {
			t.Errorf("%d keys wait, want one of each side", waiting(st.Ring))
		}
		l.wantSigner(1, f...)
		l.runFor(2 * time.Second)
		heal = l.leave(f[1], 900*time.Millisecond)
		setPolicy(f[0]) // both revoke the two that wait, and mint one that does
		setPolicy(f[1])
		l.runFor(4 * time.Second)
		l.rotate(f[0])
		heal()
		l.runFor(10 * time.Second)
		if st, _ := f[2].k.Load().Tenant(tenant); waiting(st.Ring) != 0 || st.Held {
			t.Errorf("%d keys wait, and the ring is held: %v", waiting(st.Ring), st.Held)
		}
		l.runFor(20 * time.Second)
	})
}

// waiting returns how many pending keys have no date.
func waiting(r ring.Ring) (n int) {
	for _, k := range r.Keys {
		if k.State == ring.Pending && k.ActivatesAt.IsZero() {
			n++
		}
	}
	return n
}

// Date: the second key is to sign on a date. It is revoked, and a failover loses the one that was
// minted in its place, with the instance that made it. Another one is made for the same date.
func TestTimelineDate(t *testing.T) {
	for _, after := range []time.Duration{11 * time.Second, 25 * time.Second} { // within two periods, and later
		t.Run(after.String(), func(t *testing.T) {
			adopting(t, fast, rotation.AdoptOptions{}, func(l *timeline) {
				date := l.h.start.Add(after)
				l.adopts.RotateAt = date
				f := l.fleetOf(true, "first", "other", "third")
				l.must(f[0].r.Load().Revoke(l.ctx, tenant, l.key(f[0], 2).KID))
				l.runUntil(3300 * time.Millisecond)
				back1, back2 := f[1].cut(), f[2].cut()
				l.runUntil(4100 * time.Millisecond) // minted F + D + S after the last one
				lost := l.key(f[0], 3)
				f[0].close()
				l.failover(900 * time.Millisecond)
				back1()
				back2()
				l.runFor(4 * time.Second)
				if l.has("k:" + lost.KID) {
					t.Fatal("the third key was not lost")
				}
				l.runUntil(after + 3*time.Second) // it has to be published for Propagation before it signs
				l.wantSigner(3, f[1:]...)
				third := l.key(f[1], 3)
				if at := third.ActivatesAt; at.Before(date) || after > 12*time.Second && !at.Equal(date) || at.After(date.Add(2*time.Second)) {
					t.Errorf("the third key signs at %v, want %v", at, date)
				}
				if third.KID == lost.KID || third.TokenTTL() != l.policy.MaxTokenTTL {
					t.Errorf("%+v, the lost one was %s", third, lost.KID)
				}
				l.runFor(8 * time.Second)
			})
		})
	}
}

// Adopt, wipe: the store is emptied while all holders are cut off, and the key is imported once more,
// with another life of its tokens. The holders come back. Tokens of the key are good until they end.
func TestTimelineAdopt(t *testing.T) {
	adopting(t, seldom(), rotation.AdoptOptions{Hold: true}, func(l *timeline) {
		f := l.fleet("first", "other")
		tokens := l.oldPrograms(f[1], 5*time.Second)
		back1, back2 := f[0].cut(), f[1].cut()
		l.wipe()
		second := l.connect("second", 0)
		second.rotates = false
		second.open()
		second.opened()
		if _, err := second.adopt(l.ctx, tenant, adoption{rotation.AdoptOptions{Hold: true}, 4 * time.Second}); err != nil {
			t.Fatal(err)
		}
		l.runFor(500 * time.Millisecond)
		back1()
		back2()
		l.runFor(3 * pollFor)
		if _, err := second.adopt(l.ctx, tenant, *l.adopts); err == nil {
			t.Error("a key was imported into a ring")
		}
		all := append(f, second)
		for _, i := range all {
			for _, n := range tokens {
				i.verify(n)
			}
		}
		l.runFor(2 * time.Second)
		l.rotate(f[0])
		l.goodUntilTheyEnd(tokens, all...)
		l.runFor(12 * time.Second)
		if st, _ := second.k.Load().Tenant(tenant); waiting(st.Ring) != 0 {
			t.Errorf("%d keys wait after the rotation", waiting(st.Ring))
		}
	})
}

// Leaked: the key of the old programs is revoked by force before another can take over. The next one
// has a date, and the one that waited is revoked: the hold is over.
func TestTimelineHoldLeaked(t *testing.T) {
	adopting(t, seldom(), rotation.AdoptOptions{Hold: true}, func(l *timeline) {
		f := l.fleet("revoker", "other")
		first, waits := l.key(f[0], 1).KID, l.key(f[0], 2).KID
		tokens := l.oldPrograms(f[1], 2500*time.Millisecond)
		receipt, err := f[0].r.Load().Revoke(l.ctx, tenant, first, rotation.Force)
		if err != nil || receipt.NoSignerUntil.IsZero() || !receipt.SignsFrom.Equal(receipt.NoSignerUntil) {
			t.Fatalf("%+v, %v", receipt, err)
		}
		revoked := l.now()
		l.runFor(receipt.NoSignerUntil.Sub(l.h.start.Add(revoked)) + pollFor)
		l.wantSigner(3, f...)
		for _, n := range tokens {
			f[1].verify(n)
		}
		l.runFor(3 * time.Second)
		l.wantCollected(waits)
		l.wantState(4, ring.Pending, f...)
		l.runFor(12 * time.Second)
		l.neverSigned(first, revoked)
	})
}
