package rotationtest_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

// The timelines of docs/protocol.md are histories that random choice hardly ever finds. Each test
// directs one of them step by step, while all instances sign and verify. It checks the states that
// the timeline is about, and at the end all invariants. With the policy fast the first key of a
// ring signs from 0 s on, the second is scheduled for 6 s, and the third for 12 s.

// A: a failover loses a pending key while its only holder is cut off. Another instance syncs
// without the key and is cut off. The holder restores the key. The key must wait for Propagation
// again, and not just until it is known: the other instance goes on signing for SignFor,
// and does not know it.
func TestTimelineA(t *testing.T) {
	runTimeline(t, fast, func(l *timeline) {
		f := l.fleet("holder", "other", "third")
		holder, other, third := f[0], f[1], f[2]
		l.runUntil(5950 * time.Millisecond)
		back, back3 := other.cut(), third.cut()
		l.runUntil(6450 * time.Millisecond)
		l.wantState(3, ring.Pending, holder) // minted when the second key took effect
		holderBack := holder.cut()
		l.failover(900 * time.Millisecond)
		back()
		back3()
		l.runUntil(11400 * time.Millisecond)
		other.cut()
		l.runUntil(11500 * time.Millisecond)
		holderBack()
		l.runUntil(12300 * time.Millisecond)
		l.wantState(3, ring.Pending, holder, third)
		if wait := l.key(holder, 3).ActivatesAt.Sub(l.h.start.Add(11500 * time.Millisecond)); wait < l.policy.Propagation {
			t.Errorf("the key that was merged back takes effect after %v, want at least P, %v", wait, l.policy.Propagation)
		}
		l.runUntil(18 * time.Second)
		l.wantSigner(3, third)
	})
}

// B: a key is promoted. One instance reads the promotion and is cut off. A failover loses the
// promotion, and all others sign with the first key for long. Then the instance comes back. The
// first key's tokens must verify until they expire.
func TestTimelineB(t *testing.T) {
	runTimeline(t, fast, func(l *timeline) {
		f := l.fleet("promoter", "reader", "fleet1", "fleet2")
		promoter, reader := f[0], f[1]
		l.runUntil(3400 * time.Millisecond)
		back1, back2 := f[2].cut(), f[3].cut()
		l.runUntil(3600 * time.Millisecond)
		second := l.key(promoter, 2).KID
		l.must(promoter.r.Load().Promote(l.ctx, tenant, second))
		l.runFor(100 * time.Millisecond)
		l.wantSigner(2, reader)
		readerBack := reader.cut()
		promoter.close()
		l.failover(500 * time.Millisecond)
		back1()
		back2()
		l.runUntil(5700 * time.Millisecond)
		l.wantSigner(1, f[2], f[3])
		readerBack()
		l.runFor(time.Second)
		l.wantSigner(2, f[2], f[3])
		l.runFor(8 * time.Second)
	})
}

// C: a failover loses a promotion. One instance syncs with the new primary and is cut off. Then the
// promotion is restored. The first key must be retained from that moment on, because the instance
// that is cut off signs with it for SignFor.
func TestTimelineC(t *testing.T) {
	long := seldom() // an instance may sign for so long that it can come back later than Dwell
	long.SignFor, long.Propagation = 5*time.Second, 7*time.Second
	for _, tt := range []struct {
		name   string
		policy rotation.Policy
		reach  time.Duration // how long the instance reaches the new primary
	}{
		{"for a moment", fast, 900 * time.Millisecond},
		{"for polls, and no scheduled switch", seldom(), 2*pollFor + 600*time.Millisecond},
		{"beyond what the promotion itself announced, and no scheduled switch", long, long.Dwell + 2*pollFor + 600*time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			runTimeline(t, tt.policy, func(l *timeline) {
				f := l.fleet("promoter", "cut", "fleet")
				promoter, victim, third := f[0], f[1], f[2]
				l.runUntil(3400 * time.Millisecond)
				back := victim.cut()
				l.runUntil(3600 * time.Millisecond)
				l.must(promoter.r.Load().Promote(l.ctx, tenant, l.key(promoter, 2).KID))
				l.runFor(100 * time.Millisecond)
				back1, back3 := promoter.cut(), third.cut()
				l.failover(500 * time.Millisecond)
				back()
				l.runFor(tt.reach)
				l.wantSigner(1, victim)
				victimBack := victim.cut()
				back1()
				back3()
				l.runFor(pollFor)
				l.wantSigner(2, promoter, third)
				l.wantSigner(1, victim) // it has not heard of the promotion
				l.runFor(5 * time.Second)
				victimBack()
				l.runFor(6 * time.Second)
			})
		})
	}
}

// D: an instance was cut off and has not heard of a promotion. It is the first to find the store
// emptied, and restores the promoted key as pending. The instances that sign with that key must go
// on, and none may go back to the key before.
func TestTimelineD(t *testing.T) {
	runTimeline(t, fast, func(l *timeline) {
		f := l.fleet("promoter", "absent", "fleet")
		promoter, absent, third := f[0], f[1], f[2]
		absentBack := absent.cut()
		l.runUntil(3600 * time.Millisecond)
		first := l.key(promoter, 1).KID
		l.must(promoter.r.Load().Promote(l.ctx, tenant, l.key(promoter, 2).KID))
		switched := l.now() + 100*time.Millisecond
		l.runUntil(5300 * time.Millisecond)
		back1, back3 := promoter.cut(), third.cut()
		l.wipe()
		absentBack()
		l.runUntil(5900 * time.Millisecond)
		l.wantState(2, ring.Pending, absent)
		back1()
		back3()
		l.runFor(pollFor)
		l.wantState(2, ring.Signing, promoter, third, absent)
		l.runFor(12 * time.Second)
		l.neverSigned(first, switched, absent)
	})
}

// D, scheduled: the key takes effect at its other holders by the clock alone, just after the
// instance that was cut off has restored it as pending.
func TestTimelineDScheduled(t *testing.T) {
	runTimeline(t, fast, func(l *timeline) {
		f := l.fleet("one", "absent", "two")
		one, absent, two := f[0], f[1], f[2]
		l.runUntil(4500 * time.Millisecond)
		first := l.key(one, 1).KID
		absentBack := absent.cut()
		l.runUntil(5100 * time.Millisecond)
		back1, back2 := one.cut(), two.cut()
		l.wipe()
		absentBack()
		l.runUntil(6200 * time.Millisecond)
		l.wantState(2, ring.Pending, absent)
		l.wantSigner(2, one, two)
		back1()
		back2()
		l.runFor(pollFor)
		l.wantState(2, ring.Signing, one, absent, two)
		l.runFor(10 * time.Second)
		l.neverSigned(first, 6100*time.Millisecond, absent)
	})
}

// D, collected: the instance that was cut off believes that an old key signs. All others have
// dropped and collected that key. It must stay collected.
func TestTimelineDCollected(t *testing.T) {
	runTimeline(t, seldom(), func(l *timeline) {
		f := l.fleet("promoter", "absent", "fleet")
		promoter, absent, third := f[0], f[1], f[2]
		l.runUntil(4 * time.Second)
		absentBack := absent.cut()
		first := l.key(promoter, 1).KID
		l.rotate(promoter)
		l.runUntil(18 * time.Second)
		if l.has("k:" + first) {
			t.Fatal("the first key has not been collected")
		}
		back1, back3 := promoter.cut(), third.cut()
		l.wipe()
		absentBack()
		l.runFor(pollFor)
		if !l.has("k:" + first) {
			t.Fatal("the absent instance has not restored its keys")
		}
		back1()
		back3()
		l.runFor(2 * pollFor)
		l.wantSigner(2, f...)
		l.runFor(6 * time.Second)
		l.neverSigned(first, 7*time.Second)
		if l.has("k:" + first) {
			t.Error("the store has the first key again")
		}
	})
}

// E: two keys are pending. Promote must refuse the second one: an instance that is cut off would
// begin to sign with the first one, when all others have already retired it. With Force it is
// promoted.
func TestTimelineE(t *testing.T) {
	runTimeline(t, fast, func(l *timeline) {
		f := l.fleet("promoter", "cut", "fleet")
		promoter, victim := f[0], f[1]
		l.runUntil(3600 * time.Millisecond)
		if _, err := promoter.r.Load().SetPolicy(l.ctx, tenant, l.policy); err != nil {
			t.Fatal(err)
		}
		l.runUntil(5400 * time.Millisecond)
		l.wantState(2, ring.Pending, promoter, victim)
		l.wantState(3, ring.Pending, promoter, victim)
		third := l.key(promoter, 3).KID
		back := victim.cut()
		if _, err := promoter.r.Load().Promote(l.ctx, tenant, third); !errors.Is(err, rotation.ErrRefused) || !strings.Contains(err.Error(), "another key is pending before it") {
			t.Errorf("Promote of the second pending key: %v, want ErrRefused for the key before it", err)
		}
		l.must(promoter.r.Load().Promote(l.ctx, tenant, third, rotation.Force))
		l.runUntil(9 * time.Second)
		back()
		l.runUntil(20 * time.Second)
	})
}

// G: a signing key is revoked and the next one promoted in one step. An instance whose clock is
// behind must sign with the next key at once, and none may sign with the revoked one. Then a
// pending key is revoked.
func TestTimelineG(t *testing.T) {
	runTimeline(t, fast, func(l *timeline) {
		f := l.fleet("revoker", "behind", "ahead")
		f[1].offset.Store(-int64(l.policy.ClockSkew / 2))
		f[2].offset.Store(int64(l.policy.ClockSkew / 2))
		l.runUntil(3600 * time.Millisecond)
		revoker, first := f[0].r.Load(), l.key(f[0], 1).KID
		l.must(revoker.Revoke(l.ctx, tenant, first))
		time.Sleep(20 * time.Millisecond) // less than the clock is behind
		l.wantSigner(2, f...)
		revoked := l.now()
		l.runUntil(9 * time.Second)
		l.wantState(3, ring.Pending, f...)
		pending := l.key(f[0], 3).KID
		l.must(revoker.Revoke(l.ctx, tenant, pending))
		time.Sleep(20 * time.Millisecond)
		l.wantSigner(2, f...)
		l.runUntil(16 * time.Second)
		l.neverSigned(first, revoked)
		l.neverSigned(pending, 0)
	})
}

// H: an instance was cut off for longer than SignFor. It is the first to reach a store that was
// rolled back or emptied. It must recover first and not mint. A key that no other instance has must
// wait for Propagation, although by that instance's clock it is already signing.
func TestTimelineH(t *testing.T) {
	t.Run("rolled back", func(t *testing.T) {
		timelineH(t, func(l *timeline) { l.failover(800 * time.Millisecond) }, ring.Pending)
	})
	// In the emptied store no key signs. So the key waits only from the moment on when the others
	// are back, who have never heard of it.
	t.Run("emptied", func(t *testing.T) { timelineH(t, (*timeline).wipe, ring.Signing) })
}

// timelineH runs H. lose makes the store lose data. alone is the state of the key that no other
// instance has, while the instance that was cut off is alone.
func timelineH(t *testing.T, lose func(*timeline), alone ring.State) {
	t.Helper()
	runTimeline(t, fast, func(l *timeline) {
		f := l.fleet("away", "one", "two")
		away := f[0]
		l.runUntil(5950 * time.Millisecond)
		back1, back2 := f[1].cut(), f[2].cut()
		l.runUntil(6450 * time.Millisecond)
		third := l.key(away, 3).KID
		awayBack := away.cut()
		l.failover(900 * time.Millisecond)
		back1()
		back2()
		l.runUntil(12500 * time.Millisecond)
		l.wantState(3, ring.Signing, away)
		l.wantSigner(0, away) // fenced
		back1, back2 = f[1].cut(), f[2].cut()
		lose(l)
		awayBack()
		l.runFor(pollFor)
		st, _ := away.k.Load().Tenant(tenant)
		if st.Fresh || !st.InDoubt {
			t.Errorf("the instance that was cut off: in sync %v, recovering %v", st.Fresh, st.InDoubt)
		}
		l.wantState(3, alone, away)
		l.wantSigner(0, away)
		back1()
		back2()
		l.runFor(2 * time.Second)
		l.wantSigner(2, f[1], f[2])
		l.neverSigned(third, 0)
		for _, e := range l.h.events {
			if e.commit != nil && mints(e.commit) && e.commit.Instance == "away" && e.at > 12500*time.Millisecond && e.at < 14*time.Second {
				t.Errorf("it mints at %v", e.at)
			}
		}
		l.runFor(10 * time.Second)
	})
}

// H, promoted: the key that no other instance has was also promoted. The promotion must not count:
// the instance that promoted it cannot have been signing, and those that sign have never heard of
// it.
func TestTimelineHPromoted(t *testing.T) {
	runTimeline(t, seldom(), func(l *timeline) {
		f := l.fleet("away", "one", "two")
		away := f[0]
		l.runUntil(4 * time.Second)
		back1, back2 := f[1].cut(), f[2].cut()
		if _, err := away.r.Load().SetPolicy(l.ctx, tenant, l.policy); err != nil {
			t.Fatal(err)
		}
		alone := l.key(away, 3).KID
		l.must(away.r.Load().Promote(l.ctx, tenant, alone, rotation.Force))
		awayBack := away.cut()
		l.failover(500 * time.Millisecond)
		back1()
		back2()
		l.runUntil(8 * time.Second)
		l.wantState(3, ring.Signing, away)
		l.wantSigner(0, away) // fenced
		back1, back2 = f[1].cut(), f[2].cut()
		l.failover(200 * time.Millisecond)
		awayBack()
		l.runFor(pollFor)
		l.wantState(3, ring.Pending, away)
		l.wantState(1, ring.Signing, away)
		l.runFor(2*pollFor + 100*time.Millisecond) // it has recovered, and the others are still in sync by their own account
		l.wantSigner(1, f...)
		back1()
		back2()
		l.runFor(3 * time.Second)
		l.wantSigner(1, f...)
		l.runFor(6 * time.Second)
		l.neverSigned(alone, 0)
	})
}

// K: FLUSHALL, and an instance starts before any holder polls. It must not create a ring, although
// it is allowed to, and must get the old one.
func TestTimelineK(t *testing.T) {
	runTimeline(t, fast, func(l *timeline) {
		f := l.fleet("one", "two")
		l.runUntil(5 * time.Second)
		back1, back2 := f[0].cut(), f[1].cut()
		l.wipe()
		l.bootstrap = true
		joiner := l.connect("joiner", 0)
		joiner.open()
		l.runFor(600 * time.Millisecond)
		st, _ := joiner.opened().Tenant(tenant)
		if st.Fresh || len(st.Ring.Keys) > 0 || len(l.cluster.Ring(tenant)) > 0 {
			t.Errorf("the joiner: in sync %v, %d keys; the store has %d fields", st.Fresh, len(st.Ring.Keys), len(l.cluster.Ring(tenant)))
		}
		back1()
		back2()
		l.runFor(pollFor)
		l.wantState(1, ring.Signing, joiner)
		l.runFor(5 * time.Second)
		l.wantSigner(2, joiner, f[0], f[1])
		for _, e := range l.h.events {
			if e.commit != nil && e.commit.Op == ring.OpCreate && e.commit.Instance == "joiner" {
				t.Errorf("the joiner made a ring")
			}
		}
	})
}

// K, holders come late: they come back after the new instance has recovered, two polls later, but
// within Freshness + Dwell + ClockSkew. The store must stand still for that long before a ring is
// created.
func TestTimelineKHoldersComeLate(t *testing.T) {
	runTimeline(t, fast, func(l *timeline) {
		f := l.fleet("one", "two")
		l.runUntil(5 * time.Second)
		back1, back2 := f[0].cut(), f[1].cut()
		l.wipe()
		l.bootstrap = true
		joiner := l.connect("joiner", 0)
		joiner.open()
		l.runFor(2200 * time.Millisecond)
		if st, _ := joiner.opened().Tenant(tenant); st.InDoubt {
			t.Error("the joiner is still recovering")
		}
		if len(l.cluster.Ring(tenant)) > 0 {
			t.Error("the joiner has made a ring")
		}
		back1()
		back2()
		l.runFor(pollFor)
		l.wantState(1, ring.Retired, joiner)
		l.runFor(5 * time.Second)
	})
}

// A key that cannot be opened still exists, so no instance mints in its place (I10).
func TestMintOnDecryptError(t *testing.T) {
	runTimeline(t, fast, func(l *timeline) {
		f := l.fleet("one")
		pending := "k:" + l.key(f[0], 2).KID
		f[0].close()
		l.corrupt(tenant, pending, 1000)
		joiner := l.connect("joiner", 0)
		joiner.open()
		l.runFor(5 * time.Second)
		st, _ := joiner.opened().Tenant(tenant)
		if st.Err == nil || st.Fresh {
			t.Errorf("the joiner: in sync %v, error %v", st.Fresh, st.Err)
		}
	})
}

// L: a pending key is revoked. One instance reads that and is cut off. A failover loses the
// revocation, so the key takes effect at all others. The instance must not go on signing with the
// key before.
func TestTimelineL(t *testing.T) {
	runTimeline(t, fast, func(l *timeline) {
		f := l.fleet("revoker", "reader", "fleet")
		revoker, reader, third := f[0], f[1], f[2]
		l.runUntil(4500 * time.Millisecond)
		thirdBack := third.cut()
		l.runUntil(4700 * time.Millisecond)
		second := l.key(revoker, 2).KID
		first := l.key(revoker, 1).KID
		l.must(revoker.r.Load().Revoke(l.ctx, tenant, second))
		time.Sleep(20 * time.Millisecond)
		l.wantState(2, ring.Revoked, reader)
		reader.cut()
		revoker.close()
		l.failover(500 * time.Millisecond)
		thirdBack()
		l.runUntil(6400 * time.Millisecond)
		l.wantSigner(2, third)
		l.wantSigner(0, reader)
		l.runUntil(14 * time.Second)
		l.neverSigned(first, 6200*time.Millisecond)
	})
}

// M: a pending key is revoked just before it takes effect. An instance was cut off just before
// that. It will drop the key before, which goes on signing everywhere else. It must not do so while
// it is in sync. The inequality MaxTokenTTL + Leeway >= Freshness + Dwell + ClockSkew sees to that.
func TestTimelineM(t *testing.T) {
	least := fast
	least.MaxTokenTTL, least.Leeway = 3*time.Second, 500*time.Millisecond // together F + D + S
	for _, tt := range []struct {
		name   string
		policy rotation.Policy
		lag    time.Duration // how long an old primary keeps the instance in sync
	}{{"above", fast, 0}, {"at", least, 0}, {"at, and behind an old primary", least, 900 * time.Millisecond}} {
		t.Run(tt.name, func(t *testing.T) {
			runTimeline(t, tt.policy, func(l *timeline) {
				f := l.fleet("revoker", "cut", "fleet")
				l.runUntil(5850 * time.Millisecond)
				back := f[1].cut()
				if tt.lag > 0 {
					back()
					back = l.leave(f[1], tt.lag)
				}
				l.runUntil(5900 * time.Millisecond)
				l.must(f[0].r.Load().Revoke(l.ctx, tenant, l.key(f[0], 2).KID))
				l.runUntil(8600 * time.Millisecond)
				l.wantSigner(1, f[0], f[2])
				l.runUntil(11 * time.Second)
				back()
				l.runUntil(16 * time.Second)
			})
		})
	}
	below := least
	below.Freshness += time.Millisecond
	if err := below.Validate(); err == nil {
		t.Error("below: the policy is valid")
	}
}

// N: a key is promoted, and revoked by force in the next moment. No instance may go back to the key
// before. And a failover loses a key that a forced revocation minted, after one instance has read
// it. That instance must not sign with it.
func TestTimelineN(t *testing.T) {
	t.Run("revoked as it took effect", func(t *testing.T) {
		runTimeline(t, fast, func(l *timeline) {
			f := l.fleet("ahead", "behind")
			f[0].offset.Store(int64(l.policy.ClockSkew / 2))
			f[1].offset.Store(-int64(l.policy.ClockSkew / 2))
			l.runUntil(3600 * time.Millisecond)
			first, second := l.key(f[0], 1).KID, l.key(f[0], 2).KID
			l.must(f[0].r.Load().Promote(l.ctx, tenant, second))
			l.must(f[1].r.Load().Revoke(l.ctx, tenant, second, rotation.Force))
			time.Sleep(20 * time.Millisecond)
			revoked := l.now()
			l.wantSigner(0, f...)
			if k := l.key(f[0], 2); k.RevokedAt.Before(k.ActivatesAt) {
				t.Errorf("revoked at %v, before it took effect at %v", k.RevokedAt, k.ActivatesAt)
			}
			l.runFor(8 * time.Second)
			l.neverSigned(first, revoked)
			l.wantSigner(3, f...)
		})
	})
	t.Run("the new key is lost", func(t *testing.T) {
		patient := seldom() // an instance that is cut off still signs when a new key takes effect
		patient.SignFor, patient.Propagation = 5*time.Second, 6500*time.Millisecond
		runTimeline(t, patient, func(l *timeline) {
			f := l.fleet("revoker", "reader", "fleet")
			revoker, reader, third := f[0], f[1], f[2]
			l.must(revoker.r.Load().Revoke(l.ctx, tenant, l.key(revoker, 2).KID))
			l.runUntil(4 * time.Second)
			thirdBack := third.cut()
			l.runUntil(4200 * time.Millisecond)
			l.must(revoker.r.Load().Revoke(l.ctx, tenant, l.key(revoker, 1).KID, rotation.Force))
			time.Sleep(20 * time.Millisecond)
			minted := l.key(reader, 4).KID // the third key, minted in place of the second, is too new to be promoted
			readerBack := reader.cut()
			revoker.close()
			l.failover(500 * time.Millisecond)
			thirdBack()
			l.runUntil(8100 * time.Millisecond)
			l.wantState(4, ring.Signing, reader)
			l.wantSigner(0, reader)
			l.wantSigner(1, third)
			readerBack()
			l.runFor(pollFor)
			l.neverSigned(minted, 0)
			l.runFor(8 * time.Second)
			if third.sign(tenant) < 0 {
				t.Error("the fleet cannot sign any more")
			}
		})
	})
}

// A split without min-replicas, in which both sides take writes, lasts less than Propagation -
// SignFor - ClockSkew. Without commands the schedule holds: no token is rejected and no verdict is
// unavailable, whenever the switch comes, and whichever side loses its writes.
func TestTimelineSplit(t *testing.T) {
	length := fast.Propagation - fast.SignFor - fast.ClockSkew - 50*time.Millisecond
	for begins := 4700 * time.Millisecond; begins < 7*time.Second; begins += 400 * time.Millisecond {
		for _, oldWins := range []bool{false, true} {
			t.Run(fmt.Sprintf("at %v, the old primary wins %v", begins, oldWins), func(t *testing.T) {
				runTimeline(t, fast, func(l *timeline) {
					f := l.fleetOf(true, "one", "two", "three", "four")
					l.runUntil(begins)
					l.lose("split", "", func() { l.cluster.Split(begins%time.Second, false, f[0].conn, f[1].conn) })
					l.runFor(length)
					l.lose("heal", "", func() {
						if oldWins {
							l.cluster.HealTo(f[0].conn)
						}
						l.cluster.Heal()
					})
					l.runUntil(16 * time.Second)
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
