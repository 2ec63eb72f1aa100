package rotationtest_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// The timelines of docs/rotation.md that random histories hardly ever meet. Each sets
// its scene step by step, has everybody sign and verify all the while, asks for what is
// special about it, and then applies all invariants. With the policy fast, the first
// key of a ring signs at 0s, the second is scheduled for 6s, and the third for 12s.

const tenant = "t"

// seldom is fast with keys that turn by hand alone in a test.
func seldom() rotation.Policy {
	p := fast
	p.Every = 20 * time.Second
	return p
}

// A timeline is a world that is directed.
type timeline struct {
	*world
	t      *testing.T
	tokens []int
}

// direct runs a timeline, and applies all invariants to what happened.
func direct(t *testing.T, policy rotation.Policy, play func(l *timeline)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := &timeline{world: newWorld(t, 1, policy, tenant), t: t}
		func() {
			defer l.close()
			play(l)
		}()
		reportViolations(t, l.h, check(l.h))
	})
}

// fleet opens instances at once, the first of which makes the ring and alone turns its
// keys, and waits until they are in step.
func (l *timeline) fleet(names ...string) []*instance { return l.fleetOf(false, names...) }

// fleetOf is fleet, and all of them may turn the keys.
func (l *timeline) fleetOf(rotators bool, names ...string) []*instance {
	var all []*instance
	for n, name := range names {
		i := l.connect(name, 0)
		if i.rotates = rotators || n == 0; n == 0 {
			i.open()
			i.create()
		} else {
			i.open()
		}
		all = append(all, i)
	}
	l.until(2 * time.Second)
	return all
}

// until lets everybody sign and verify until a moment.
func (l *timeline) until(at time.Duration) {
	l.t.Helper()
	if at < l.now() {
		l.t.Fatalf("it is %v, later than %v", l.now(), at)
	}
	for n := 0; l.now()+25*time.Millisecond < at; n++ {
		time.Sleep(25*time.Millisecond + time.Duration(n%7)*time.Microsecond)
		l.traffic(n)
	}
	time.Sleep(at - l.now())
}

func (l *timeline) pass(d time.Duration) { l.until(l.now() + d) }

func (l *timeline) traffic(n int) {
	alive := l.alive()
	if len(alive) == 0 {
		return
	}
	if k := alive[n%len(alive)].sign(tenant); k >= 0 {
		l.tokens = append(l.tokens, k)
		for _, i := range alive {
			i.knows(k)
		}
	}
	// Those that are about to expire, and those that are new.
	for _, i := range alive {
		recent := l.tokens[max(0, len(l.tokens)-150):]
		for k := n % 5; k < len(recent); k += 5 {
			i.verify(recent[k])
		}
		i.audit(tenant)
	}
}

// cut cuts an instance off until end is called.
func (i *instance) cut() (end func()) {
	return i.begin(&fault{change: func(f *rotationtest.Faults) { f.Cut = rotationtest.BlackHole }})
}

// key returns the key of a seq, as i sees it now.
func (l *timeline) key(i *instance, seq int) rotation.RingKey {
	l.t.Helper()
	st, err := i.k.Load().Tenant(tenant)
	if err != nil {
		l.t.Fatal(err)
	}
	n := slices.IndexFunc(st.Ring.Keys, func(k rotation.RingKey) bool { return k.Seq == seq })
	if n < 0 {
		l.t.Fatalf("%v: %s has no key #%d: %s", l.now(), i.name, seq, (&audit{keys: st.Ring.Keys}).line())
	}
	return st.Ring.Keys[n]
}

// wantState checks how a key stands at instances.
func (l *timeline) wantState(seq int, want rotation.State, at ...*instance) {
	l.t.Helper()
	for _, i := range at {
		if k := l.key(i, seq); k.State != want {
			l.t.Errorf("%v: at %s key #%d is %s, from %s, want %s", l.now(), i.name, seq, k.State, k.ActivatesAt.Format("05.000"), want)
		}
	}
}

// wantSigner checks which key an instance signs with, or by 0 that it does not.
func (l *timeline) wantSigner(seq int, at ...*instance) {
	l.t.Helper()
	for _, i := range at {
		n := i.sign(tenant)
		switch {
		case n < 0 && seq != 0:
			l.t.Errorf("%v: %s cannot sign: %v", l.now(), i.name, l.h.events[len(l.h.events)-1].err)
		case n >= 0 && seq == 0:
			l.t.Errorf("%v: %s signs with %s, and must not", l.now(), i.name, short(l.h.tokens[n].kid))
		case n >= 0 && l.h.tokens[n].kid != l.key(i, seq).KID:
			l.t.Errorf("%v: %s signs with %s, want key #%d", l.now(), i.name, short(l.h.tokens[n].kid), seq)
		}
	}
}

// neverSigned checks that since a moment nobody has signed with a key, but for those
// who are excused.
func (l *timeline) neverSigned(kid string, since time.Duration, but ...*instance) {
	l.t.Helper()
	for _, tok := range l.h.tokens {
		excused := slices.ContainsFunc(but, func(i *instance) bool { return i.id == tok.signer })
		if tok.kid == kid && tok.at > since && !excused {
			l.t.Errorf("%s signed with %s at %v, after %v", l.h.instances[tok.signer], short(kid), tok.at, since)
			return
		}
	}
}

func (l *timeline) failover(lag time.Duration) {
	l.lose(fmt.Sprintf("failover, %v behind", lag), "", func() { l.cluster.Failover(lag) })
}

func (l *timeline) wipe() { l.lose("wipe", "", l.cluster.Wipe) }

// must fails the test if a command failed.
func (l *timeline) must(_ rotation.Receipt, err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatalf("%v: %v", l.now(), err)
	}
}

// A: a pending key is lost at a failover, and its only holder cut off; another instance
// syncs without it and is cut off; the holder merges it back. It waits for P again, not
// for F + S: the other one signs for SignFor, and does not know it.
func TestTimelineA(t *testing.T) {
	direct(t, fast, func(l *timeline) {
		f := l.fleet("holder", "other", "third")
		holder, other, third := f[0], f[1], f[2]
		l.until(5950 * time.Millisecond)
		back, back3 := other.cut(), third.cut()
		l.until(6450 * time.Millisecond)
		l.wantState(3, rotation.Pending, holder) // minted when the second took effect
		holderBack := holder.cut()
		l.failover(900 * time.Millisecond)
		back()
		back3()
		l.until(11400 * time.Millisecond)
		other.cut()
		l.until(11500 * time.Millisecond)
		holderBack()
		l.until(12300 * time.Millisecond)
		l.wantState(3, rotation.Pending, holder, third)
		if wait := l.key(holder, 3).ActivatesAt.Sub(l.h.start.Add(11500 * time.Millisecond)); wait < l.policy.Propagation {
			t.Errorf("the key that was merged back takes effect after %v, want at least P, %v", wait, l.policy.Propagation)
		}
		l.until(18 * time.Second)
		l.wantSigner(3, third)
	})
}

// B: a key is promoted; one instance reads that and is cut off; a failover loses the
// promotion, and all others sign with the first key for long; the instance comes back.
// The first key's tokens are good until they expire.
func TestTimelineB(t *testing.T) {
	direct(t, fast, func(l *timeline) {
		f := l.fleet("promoter", "reader", "fleet1", "fleet2")
		promoter, reader := f[0], f[1]
		l.until(3100 * time.Millisecond)
		back1, back2 := f[2].cut(), f[3].cut()
		l.until(3300 * time.Millisecond)
		second := l.key(promoter, 2).KID
		l.must(promoter.r.Load().Promote(l.ctx, tenant, second))
		l.pass(100 * time.Millisecond)
		l.wantSigner(2, reader)
		readerBack := reader.cut()
		promoter.close()
		l.failover(500 * time.Millisecond)
		back1()
		back2()
		l.until(5700 * time.Millisecond)
		l.wantSigner(1, f[2], f[3])
		readerBack()
		l.pass(time.Second)
		l.wantSigner(2, f[2], f[3])
		l.pass(8 * time.Second)
	})
}

// C: a promotion is lost at a failover; one instance syncs with the new primary and is
// cut off; then the promotion is merged back. Retention counts from there: the one that
// is cut off signs with the first key for SignFor.
func TestTimelineC(t *testing.T) {
	for _, tt := range []struct {
		name   string
		policy rotation.Policy
		reach  time.Duration // of the new primary
	}{
		{"for a moment", fast, 900 * time.Millisecond},
		{"beyond what the promotion itself announced, and no scheduled switch", seldom(), 2*pollFor + 600*time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			direct(t, tt.policy, func(l *timeline) {
				f := l.fleet("promoter", "cut", "fleet")
				promoter, victim, third := f[0], f[1], f[2]
				l.until(3100 * time.Millisecond)
				back := victim.cut()
				l.until(3300 * time.Millisecond)
				l.must(promoter.r.Load().Promote(l.ctx, tenant, l.key(promoter, 2).KID))
				l.pass(100 * time.Millisecond)
				back1, back3 := promoter.cut(), third.cut()
				l.failover(500 * time.Millisecond)
				back()
				l.pass(tt.reach)
				l.wantSigner(1, victim)
				victimBack := victim.cut()
				back1()
				back3()
				l.pass(pollFor)
				l.wantSigner(2, promoter, third)
				l.wantSigner(1, victim) // it cannot know
				l.pass(5 * time.Second)
				victimBack()
				l.pass(6 * time.Second)
			})
		})
	}
}

// D: an instance that was away and has not heard of a promotion is the first to find
// the store emptied, and merges the promoted key back as pending. It goes on to sign
// where it did, and nobody goes back to the one before.
func TestTimelineD(t *testing.T) {
	direct(t, fast, func(l *timeline) {
		f := l.fleet("promoter", "absent", "fleet")
		promoter, absent, third := f[0], f[1], f[2]
		absentBack := absent.cut()
		l.until(3300 * time.Millisecond)
		first := l.key(promoter, 1).KID
		l.must(promoter.r.Load().Promote(l.ctx, tenant, l.key(promoter, 2).KID))
		switched := l.now() + 100*time.Millisecond
		l.until(5300 * time.Millisecond)
		back1, back3 := promoter.cut(), third.cut()
		l.wipe()
		absentBack()
		l.until(5900 * time.Millisecond)
		l.wantState(2, rotation.Pending, absent)
		back1()
		back3()
		l.pass(pollFor)
		l.wantState(2, rotation.Signing, promoter, third, absent)
		l.pass(12 * time.Second)
		l.neverSigned(first, switched, absent)
	})
}

// D again: the key takes effect where it is held, by the clock alone, just after the one
// that was away has merged it back as pending.
func TestTimelineDScheduled(t *testing.T) {
	direct(t, fast, func(l *timeline) {
		f := l.fleet("one", "absent", "two")
		one, absent, two := f[0], f[1], f[2]
		l.until(4500 * time.Millisecond)
		first := l.key(one, 1).KID
		absentBack := absent.cut()
		l.until(5100 * time.Millisecond)
		back1, back2 := one.cut(), two.cut()
		l.wipe()
		absentBack()
		l.until(6200 * time.Millisecond)
		l.wantState(2, rotation.Pending, absent)
		l.wantSigner(2, one, two)
		back1()
		back2()
		l.pass(pollFor)
		l.wantState(2, rotation.Signing, one, absent, two)
		l.pass(10 * time.Second)
		l.neverSigned(first, 6100*time.Millisecond, absent)
	})
}

// D again: the one that was away holds a key, by its lights the one that signs, that all
// others have dropped and collected. That does not return.
func TestTimelineDCollected(t *testing.T) {
	direct(t, seldom(), func(l *timeline) {
		f := l.fleet("promoter", "absent", "fleet")
		promoter, absent, third := f[0], f[1], f[2]
		l.until(3 * time.Second)
		absentBack := absent.cut()
		first := l.key(promoter, 1).KID
		l.rotate(promoter)
		l.until(15 * time.Second)
		if l.has("k:" + first) {
			t.Fatal("the first key has not been collected")
		}
		back1, back3 := promoter.cut(), third.cut()
		l.wipe()
		absentBack()
		l.pass(pollFor)
		if !l.has("k:" + first) {
			t.Fatal("the one that was away has not put its keys back")
		}
		back1()
		back3()
		l.pass(2 * pollFor)
		l.wantSigner(2, f...)
		l.pass(6 * time.Second)
		l.neverSigned(first, 7*time.Second)
		if l.has("k:" + first) {
			t.Error("the store has the first key again")
		}
	})
}

// E: two keys are pending. The second is not promoted past the first: an instance that
// is cut off would go from the one to the other when all others have retired it. Forced,
// it is.
func TestTimelineE(t *testing.T) {
	direct(t, fast, func(l *timeline) {
		f := l.fleet("promoter", "cut", "fleet")
		promoter, victim := f[0], f[1]
		l.until(2800 * time.Millisecond)
		if err := promoter.r.Load().SetPolicy(l.ctx, tenant, l.policy); err != nil {
			t.Fatal(err)
		}
		l.until(5400 * time.Millisecond)
		l.wantState(2, rotation.Pending, promoter, victim)
		l.wantState(3, rotation.Pending, promoter, victim)
		third := l.key(promoter, 3).KID
		back := victim.cut()
		if _, err := promoter.r.Load().Promote(l.ctx, tenant, third); !errors.Is(err, rotation.ErrRefused) {
			t.Errorf("Promote of the second pending key: %v, want ErrRefused", err)
		}
		l.must(promoter.r.Load().Promote(l.ctx, tenant, third, rotation.Force))
		l.until(9 * time.Second)
		back()
		l.until(20 * time.Second)
	})
}

// G: a signing key is revoked and the next promoted in one step, as seen by an instance
// whose clock is behind: it signs with the next at once, and nobody with the one before.
// And a pending key is revoked.
func TestTimelineG(t *testing.T) {
	direct(t, fast, func(l *timeline) {
		f := l.fleet("revoker", "behind", "ahead")
		f[1].offset.Store(-int64(l.policy.ClockSkew / 2))
		f[2].offset.Store(int64(l.policy.ClockSkew / 2))
		l.until(3300 * time.Millisecond)
		revoker, first := f[0].r.Load(), l.key(f[0], 1).KID
		l.must(revoker.Revoke(l.ctx, tenant, first))
		time.Sleep(20 * time.Millisecond) // less than the clock is behind
		l.wantSigner(2, f...)
		revoked := l.now()
		l.until(9 * time.Second)
		l.wantState(3, rotation.Pending, f...)
		pending := l.key(f[0], 3).KID
		l.must(revoker.Revoke(l.ctx, tenant, pending))
		time.Sleep(20 * time.Millisecond)
		l.wantSigner(2, f...)
		l.until(16 * time.Second)
		l.neverSigned(first, revoked)
		l.neverSigned(pending, 0)
	})
}

// H: an instance that was away for longer than SignFor is the first to reach a store
// that was rolled back, or emptied. It is in doubt, it does not mint, and a key that nobody else has
// waits for P although by its own clock it is in force.
func TestTimelineH(t *testing.T) {
	t.Run("rolled back", func(t *testing.T) {
		timelineH(t, func(l *timeline) { l.failover(800 * time.Millisecond) }, rotation.Pending)
	})
	// There is nobody there who signs: it waits from when the others are back, who have never
	// heard of it.
	t.Run("emptied", func(t *testing.T) { timelineH(t, (*timeline).wipe, rotation.Signing) })
}

// timelineH is H with what the store loses, and how the key that nobody else has stands at
// the one that was away, as long as it is alone.
func timelineH(t *testing.T, lose func(*timeline), alone rotation.State) {
	t.Helper()
	direct(t, fast, func(l *timeline) {
		f := l.fleet("away", "one", "two")
		away := f[0]
		l.until(5950 * time.Millisecond)
		back1, back2 := f[1].cut(), f[2].cut()
		l.until(6450 * time.Millisecond)
		third := l.key(away, 3).KID
		awayBack := away.cut()
		l.failover(900 * time.Millisecond)
		back1()
		back2()
		l.until(12500 * time.Millisecond)
		l.wantState(3, rotation.Signing, away)
		l.wantSigner(0, away) // fenced
		back1, back2 = f[1].cut(), f[2].cut()
		lose(l)
		awayBack()
		l.pass(pollFor)
		st, _ := away.k.Load().Tenant(tenant)
		if st.Fresh || !st.InDoubt {
			t.Errorf("the instance that was away: fresh %v, in doubt %v", st.Fresh, st.InDoubt)
		}
		l.wantState(3, alone, away)
		l.wantSigner(0, away)
		back1()
		back2()
		l.pass(2 * time.Second)
		l.wantSigner(2, f[1], f[2])
		l.neverSigned(third, 0)
		for _, e := range l.h.events {
			if e.commit != nil && mints(e.commit) && e.commit.Instance == "away" && e.at > 12500*time.Millisecond && e.at < 14*time.Second {
				t.Errorf("it mints at %v", e.at)
			}
		}
		l.pass(10 * time.Second)
	})
}

// H again: the key that nobody else has had been promoted, too. By that nobody is bound:
// whoever promoted it cannot have been signing, and who signs has never heard of it.
func TestTimelineHPromoted(t *testing.T) {
	direct(t, seldom(), func(l *timeline) {
		f := l.fleet("away", "one", "two")
		away := f[0]
		l.until(3 * time.Second)
		back1, back2 := f[1].cut(), f[2].cut()
		if err := away.r.Load().SetPolicy(l.ctx, tenant, l.policy); err != nil {
			t.Fatal(err)
		}
		alone := l.key(away, 3).KID
		l.must(away.r.Load().Promote(l.ctx, tenant, alone, rotation.Force))
		awayBack := away.cut()
		l.failover(500 * time.Millisecond)
		back1()
		back2()
		l.until(7 * time.Second)
		l.wantState(3, rotation.Signing, away)
		l.wantSigner(0, away) // fenced
		back1, back2 = f[1].cut(), f[2].cut()
		l.failover(200 * time.Millisecond)
		awayBack()
		l.pass(pollFor)
		l.wantState(3, rotation.Pending, away)
		l.wantState(1, rotation.Signing, away)
		l.pass(pollFor + 100*time.Millisecond) // it is in doubt no more, and they call themselves fresh
		l.wantSigner(1, f...)
		back1()
		back2()
		l.pass(3 * time.Second)
		l.wantSigner(1, f...)
		l.pass(6 * time.Second)
		l.neverSigned(alone, 0)
	})
}

// K: FLUSHALL, and a cold joiner comes before any holder polls. It makes no ring,
// although it may, and gets the one there was.
func TestTimelineK(t *testing.T) {
	direct(t, fast, func(l *timeline) {
		f := l.fleet("one", "two")
		l.until(5 * time.Second)
		back1, back2 := f[0].cut(), f[1].cut()
		l.wipe()
		l.bootstrap = true
		joiner := l.connect("joiner", 0)
		joiner.open()
		l.pass(600 * time.Millisecond)
		st, _ := joiner.opened().Tenant(tenant)
		if st.Fresh || len(st.Ring.Keys) > 0 || len(l.cluster.Ring(tenant)) > 0 {
			t.Errorf("the joiner: fresh %v, %d keys; the store has %d fields", st.Fresh, len(st.Ring.Keys), len(l.cluster.Ring(tenant)))
		}
		back1()
		back2()
		l.pass(pollFor)
		l.wantState(1, rotation.Signing, joiner)
		l.pass(5 * time.Second)
		l.wantSigner(2, joiner, f[0], f[1])
		for _, e := range l.h.events {
			if e.commit != nil && e.commit.Op == rotation.OpCreate && e.commit.Instance == "joiner" {
				t.Errorf("the joiner made a ring")
			}
		}
	})
}

// K again: the holders come back later than 2W, in which doubt ends, but within F + S, for
// which the store has to stand still before a ring is made.
func TestTimelineKHoldersComeLate(t *testing.T) {
	direct(t, fast, func(l *timeline) {
		f := l.fleet("one", "two")
		l.until(5 * time.Second)
		back1, back2 := f[0].cut(), f[1].cut()
		l.wipe()
		l.bootstrap = true
		joiner := l.connect("joiner", 0)
		joiner.open()
		l.pass(2200 * time.Millisecond)
		if st, _ := joiner.opened().Tenant(tenant); st.InDoubt {
			t.Error("the joiner is in doubt still")
		}
		if len(l.cluster.Ring(tenant)) > 0 {
			t.Error("the joiner has made a ring")
		}
		back1()
		back2()
		l.pass(pollFor)
		l.wantState(1, rotation.Retired, joiner)
		l.pass(5 * time.Second)
	})
}

// A key that cannot be opened is there: nobody mints in its place (I10).
func TestMintOnDecryptError(t *testing.T) {
	direct(t, fast, func(l *timeline) {
		f := l.fleet("one")
		pending := "k:" + l.key(f[0], 2).KID
		f[0].close()
		l.spoil(tenant, pending, 1000)
		joiner := l.connect("joiner", 0)
		joiner.open()
		l.pass(5 * time.Second)
		st, _ := joiner.opened().Tenant(tenant)
		if st.Err == nil || st.Fresh {
			t.Errorf("the joiner: fresh %v, error %v", st.Fresh, st.Err)
		}
	})
}

// L: a pending key is revoked; a failover loses that; one instance has read it, and is
// cut off past the time at which the key takes effect for all others. It must not go on
// signing with the key before.
func TestTimelineL(t *testing.T) {
	direct(t, fast, func(l *timeline) {
		f := l.fleet("revoker", "reader", "fleet")
		revoker, reader, third := f[0], f[1], f[2]
		l.until(4500 * time.Millisecond)
		thirdBack := third.cut()
		l.until(4700 * time.Millisecond)
		second := l.key(revoker, 2).KID
		first := l.key(revoker, 1).KID
		l.must(revoker.r.Load().Revoke(l.ctx, tenant, second))
		time.Sleep(20 * time.Millisecond)
		l.wantState(2, rotation.Revoked, reader)
		reader.cut()
		revoker.close()
		l.failover(500 * time.Millisecond)
		thirdBack()
		l.until(6400 * time.Millisecond)
		l.wantSigner(2, third)
		l.wantSigner(0, reader)
		l.until(14 * time.Second)
		l.neverSigned(first, 6200*time.Millisecond)
	})
}

// M: a pending key is revoked just before it takes effect, and one fresh instance was
// cut off just before that: it drops the key that goes on signing everywhere else, but
// not while it is fresh. That takes L + leeway >= F + S.
func TestTimelineM(t *testing.T) {
	least := fast
	least.MaxTokenTTL, least.Leeway = 2*time.Second, 500*time.Millisecond // F + S
	for name, policy := range map[string]rotation.Policy{"above": fast, "at": least} {
		t.Run(name, func(t *testing.T) {
			direct(t, policy, func(l *timeline) {
				f := l.fleet("revoker", "cut", "fleet")
				l.until(5850 * time.Millisecond)
				back := f[1].cut()
				l.until(5900 * time.Millisecond)
				l.must(f[0].r.Load().Revoke(l.ctx, tenant, l.key(f[0], 2).KID))
				l.until(8600 * time.Millisecond)
				l.wantSigner(1, f[0], f[2])
				l.until(11 * time.Second)
				back()
				l.until(16 * time.Second)
			})
		})
	}
	below := least
	below.Freshness += time.Millisecond
	if err := below.Validate(); err == nil {
		t.Error("below: the policy is valid")
	}
}

// N: a key is promoted, and revoked by force in the next moment: nobody goes back to the
// one before. And a key that a forced revocation has minted is lost at a failover after
// one instance has read it: that one does not sign with it.
func TestTimelineN(t *testing.T) {
	t.Run("revoked as it took effect", func(t *testing.T) {
		direct(t, fast, func(l *timeline) {
			f := l.fleet("ahead", "behind")
			f[0].offset.Store(int64(l.policy.ClockSkew / 2))
			f[1].offset.Store(-int64(l.policy.ClockSkew / 2))
			l.until(3300 * time.Millisecond)
			first, second := l.key(f[0], 1).KID, l.key(f[0], 2).KID
			l.must(f[0].r.Load().Promote(l.ctx, tenant, second))
			l.must(f[1].r.Load().Revoke(l.ctx, tenant, second, rotation.Force))
			time.Sleep(20 * time.Millisecond)
			revoked := l.now()
			l.wantSigner(0, f...)
			if k := l.key(f[0], 2); k.RevokedAt.Before(k.ActivatesAt) {
				t.Errorf("revoked at %v, before it took effect at %v", k.RevokedAt, k.ActivatesAt)
			}
			l.pass(8 * time.Second)
			l.neverSigned(first, revoked)
			l.wantSigner(3, f...)
		})
	})
	t.Run("the new key is lost", func(t *testing.T) {
		direct(t, fast, func(l *timeline) {
			f := l.fleet("revoker", "reader", "fleet")
			revoker, reader, third := f[0], f[1], f[2]
			l.must(revoker.r.Load().Revoke(l.ctx, tenant, l.key(revoker, 2).KID))
			l.until(2500 * time.Millisecond)
			thirdBack := third.cut()
			l.until(2700 * time.Millisecond)
			l.must(revoker.r.Load().Revoke(l.ctx, tenant, l.key(revoker, 1).KID, rotation.Force))
			time.Sleep(20 * time.Millisecond)
			minted := l.key(reader, 4).KID // the third takes the second's place, and is too new
			readerBack := reader.cut()
			revoker.close()
			l.failover(500 * time.Millisecond)
			thirdBack()
			l.until(5600 * time.Millisecond)
			l.wantState(4, rotation.Signing, reader)
			l.wantSigner(0, reader)
			l.wantSigner(1, third)
			readerBack()
			l.pass(pollFor)
			l.neverSigned(minted, 0)
			l.pass(8 * time.Second)
			if third.sign(tenant) < 0 {
				t.Error("the fleet cannot sign any more")
			}
		})
	})
}

// rotate turns the keys by hand.
func (l *timeline) rotate(i *instance) {
	l.t.Helper()
	l.must(i.r.Load().Rotate(l.ctx, tenant))
}

// has reports whether the primary has a field of the ring.
func (l *timeline) has(field string) bool { return l.cluster.Ring(tenant)[field] != nil }

// A split without min-replicas, which both sides write to, for less than P - SignFor - S:
// without commands, scheduled keys hold. No token is refused, nor is it that anybody cannot
// tell, wherever the switch comes, and whichever side loses what it has written.
func TestTimelineSplit(t *testing.T) {
	length := fast.Propagation - fast.SignFor - fast.ClockSkew - 50*time.Millisecond
	for begins := 4700 * time.Millisecond; begins < 7*time.Second; begins += 400 * time.Millisecond {
		for _, oldWins := range []bool{false, true} {
			t.Run(fmt.Sprintf("at %v, the old primary wins %v", begins, oldWins), func(t *testing.T) {
				direct(t, fast, func(l *timeline) {
					f := l.fleetOf(true, "one", "two", "three", "four")
					l.until(begins)
					l.lose("split", "", func() { l.cluster.Split(begins%time.Second, false, f[0].conn, f[1].conn) })
					l.pass(length)
					l.lose("heal", "", func() {
						if oldWins {
							l.cluster.HealTo(f[0].conn)
						}
						l.cluster.Heal()
					})
					l.until(16 * time.Second)
					for _, e := range l.h.events {
						if (e.kind == evVerify || e.kind == evKnows || e.kind == evSign) && e.result != ok && e.at > 2*time.Second {
							t.Fatal(l.h.line(e))
						}
					}
				})
			})
		}
	}
}

// Gone: the store is rolled back to before a key was collected, and who comes then takes it
// for the truth, and signs with that key. A holder that was away for longer than SignFor
// gives in: others' tokens are good at it, and its own at others.
func TestTimelineGoneGivesIn(t *testing.T) {
	direct(t, seldom(), func(l *timeline) {
		holder := l.fleet("holder")[0]
		l.until(3 * time.Second)
		dump := l.cluster.Dump()
		l.rotate(holder)
		first := l.key(holder, 1).KID
		l.until(15 * time.Second)
		if l.has("k:"+first) || !l.has("gone") {
			t.Fatal("the first key has not been collected")
		}
		back := holder.cut()
		l.lose("restart with an older dump", "", func() { l.cluster.Restore(dump) })
		joiner := l.connect("joiner", 0)
		joiner.rotates = false
		joiner.open()
		l.pass(l.policy.SignFor + 200*time.Millisecond)
		l.wantSigner(1, joiner)
		l.wantSigner(0, holder)
		back()
		l.pass(2*pollFor + pollFor)
		l.wantSigner(2, holder, joiner)
		l.pass(6 * time.Second)
	})
}

// A holder that comes back in time asserts what is gone: nobody has signed with that key yet.
func TestTimelineGoneIsAsserted(t *testing.T) {
	direct(t, seldom(), func(l *timeline) {
		holder := l.fleet("holder")[0]
		l.until(3 * time.Second)
		dump := l.cluster.Dump()
		l.rotate(holder)
		first := l.key(holder, 1).KID
		l.until(15 * time.Second)
		back := holder.cut()
		l.lose("restart with an older dump", "", func() { l.cluster.Restore(dump) })
		joiner := l.connect("joiner", 0)
		joiner.rotates = false
		joiner.open()
		l.pass(700 * time.Millisecond)
		l.wantState(1, rotation.Signing, joiner) // as far as it knows, in doubt
		back()
		l.pass(2 * pollFor)
		l.wantSigner(2, holder, joiner)
		l.pass(6 * time.Second)
		l.neverSigned(first, 15*time.Second)
		if !l.has("gone") || l.has("k:"+first) {
			t.Errorf("the store has what is gone: %v; its record: %v", l.has("gone"), l.has("k:"+first))
		}
	})
}

// Whoever can write the store, and no more, puts back the record of a key that was promoted
// and collected, without its promotion, while everybody is cut off for longer than SignFor.
// By its own date it comes after the key that signs, in whose place it would be.
func TestTimelineGoneIsNotRevived(t *testing.T) {
	for _, name := range []string{"beside the others", "alone"} {
		t.Run(name, func(t *testing.T) {
			direct(t, seldom(), func(l *timeline) {
				f := l.fleet("one", "two")
				l.until(3 * time.Second)
				second := l.key(f[0], 2).KID
				record := l.cluster.Ring(tenant)["k:"+second]
				l.rotate(f[0])
				l.until(8 * time.Second)
				l.rotate(f[0])
				l.until(21 * time.Second) // the date of the second was 20s
				if l.has("k:" + second) {
					t.Fatal("the second key has not been collected")
				}
				back1, back2 := f[0].cut(), f[1].cut()
				l.edit(tenant, "edit: put back the second", func(fields map[string][]byte) {
					for field := range fields {
						if field == "gone" || name == "alone" && !strings.HasPrefix(field, "tk:") {
							delete(fields, field)
						}
					}
					fields["k:"+second] = record
				})
				l.pass(l.policy.SignFor + 300*time.Millisecond)
				l.wantSigner(0, f...)
				back1()
				back2()
				l.pass(3 * pollFor)
				l.wantSigner(3, f...)
				l.pass(6 * time.Second)
				l.neverSigned(second, 9*time.Second)
			})
		})
	}
}
