package rotationtest_test

import (
	"errors"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

// shred destroys the ring at i.
func (l *timeline) shred(i *instance) {
	l.t.Helper()
	l.must(i.r.Load().Destroy(l.ctx, tenant))
}

// again makes the tenant's ring again at i.
func (l *timeline) again(i *instance) {
	l.t.Helper()
	l.must(i.r.Load().Create(l.ctx, tenant, l.policy, rotation.Again))
}

// refuses checks that instances refuse a key as one that does not exist, and never cannot tell.
func (l *timeline) refuses(kid string, at ...*instance) {
	l.t.Helper()
	for _, i := range at {
		_, err := i.k.Load().Lookup(keystore.ID{Tenant: tenant, KID: kid}, l.policy.Algorithm)
		if !errors.Is(err, keystore.ErrNotFound) || errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, keystore.ErrRevoked) {
			l.t.Errorf("%v: %s looks for %s: %v, want not found", l.now(), i.name, short(kid), err)
		}
	}
}

// Shred: every instance in reach refuses all tokens within a poll, also those that a verifier has cached
// with their key. The store has nothing left that could open a key. The name stays taken.
func TestTimelineShred(t *testing.T) {
	runTimeline(t, seldom(), func(l *timeline) {
		f := l.fleet("one", "two", "three")
		l.runUntil(4 * time.Second)
		first, second := l.key(f[0], 1).KID, l.key(f[0], 2).KID
		cached, err := f[2].k.Load().Lookup(keystore.ID{Tenant: tenant, KID: first}, l.policy.Algorithm)
		if err != nil {
			t.Fatal(err)
		}
		l.must(f[0].r.Load().Revoke(l.ctx, tenant, second))
		l.runFor(time.Second)
		l.shred(f[1])
		l.runFor(pollFor)
		if cached[0].Usable(f[2].now()) || cached[0].Verify([]byte("a"), []byte("b")) {
			t.Error("a cached key is usable")
		}
		l.refuses(first, f...)
		for field := range l.cluster.Ring(tenant) {
			if field != "head" && field != "dead" && field != "x:"+second {
				t.Errorf("the store still has %s", field)
			}
		}
		if _, err := f[0].k.Load().Lookup(keystore.ID{Tenant: tenant, KID: second}, l.policy.Algorithm); !errors.Is(err, keystore.ErrRevoked) {
			t.Errorf("the revoked key: %v", err)
		}
		_, err1 := f[0].r.Load().Create(l.ctx, tenant, l.policy)
		_, err2 := f[0].r.Load().Rotate(l.ctx, tenant, rotation.Force)
		if !errors.Is(err1, rotation.ErrRefused) || !errors.Is(err2, rotation.ErrRefused) {
			t.Errorf("create %v, rotate %v", err1, err2)
		}
		if receipt, err := f[2].r.Load().Destroy(l.ctx, tenant); err != nil || !receipt.CommittedAt.IsZero() || receipt.DestroyedAt.IsZero() {
			t.Errorf("once more: %+v, %v", receipt, err)
		}
		l.runFor(2 * time.Second)
		for _, i := range f {
			if st := i.k.Load().Status(); !st.Ready || !st.Fresh {
				t.Errorf("%s is not ready: %v", i.name, st.Err)
			}
		}
		back := f[0].cut() // it has held the key, so it needs no store to refuse it
		l.runFor(l.policy.Freshness + time.Second)
		l.refuses(first, f[0])
		back()
		l.runFor(time.Second)
	})
}

// Shred, and a rotator races it: one of the two is first. If it is the shred, the rotator's change is
// refused. Whichever it is, no key is left.
func TestTimelineShredRaces(t *testing.T) {
	runTimeline(t, fast, func(l *timeline) {
		f := l.fleetOf(true, "one", "two", "three")
		l.runUntil(5900 * time.Millisecond) // the next key is due at 6 s
		for n, i := range f {
			go func() {
				time.Sleep(time.Duration(n) * 40 * time.Millisecond)
				i.r.Load().Rotate(l.ctx, tenant, rotation.Force)
			}()
		}
		l.runFor(40 * time.Millisecond)
		l.shred(f[2])
		l.runFor(2 * time.Second)
		for field := range l.cluster.Ring(tenant) {
			if field != "head" && field != "dead" {
				t.Errorf("the store has %s", field)
			}
		}
	})
}

// Shred, and a split: one side destroys the ring. The other has not heard of it, goes on, and mints a
// key after the shred. Whichever side the store keeps, the key is nothing once the two have met.
func TestTimelineShredSplit(t *testing.T) {
	for name, shredStays := range map[string]bool{"the shred stays": true, "the mint stays": false} {
		t.Run(name, func(t *testing.T) {
			runTimeline(t, seldom(), func(l *timeline) {
				f := l.fleet("one", "two", "three")
				l.runUntil(4 * time.Second)
				l.lose("split", "", func() { l.cluster.Split(0, false, f[0].conn) })
				l.h.unsafe = append(l.h.unsafe, window{l.now(), forever})
				f[0].addObstacles(1)
				shredder, minter := f[1], f[0]
				if !shredStays {
					shredder, minter = f[0], f[1]
				}
				l.runFor(500 * time.Millisecond)
				l.shred(shredder)
				l.runFor(500 * time.Millisecond)
				if _, err := minter.r.Load().SetPolicy(l.ctx, tenant, l.policy); err != nil {
					t.Fatal(err)
				}
				late := l.key(minter, 3).KID
				l.runFor(500 * time.Millisecond)
				l.lose("heal", "", l.cluster.Heal)
				f[0].addObstacles(-1)
				l.runFor(l.policy.Freshness + 4*pollFor)
				l.h.unsafe[0].to = l.now()
				l.refuses(late, f...)
				if l.has("k:"+late) || !l.has("dead") {
					t.Errorf("the store has the late key: %v, that the ring was destroyed: %v", l.has("k:"+late), l.has("dead"))
				}
				l.runFor(2 * time.Second)
			})
		})
	}
}

// Shred, create again, and an old holder returns: it was cut off before the shred, and comes back when
// the tenant has another ring. It takes over that one, and brings nothing of the first back.
func TestTimelineShredAgain(t *testing.T) {
	for name, wipe := range map[string]bool{"": false, "the store is emptied": true} {
		t.Run(name, func(t *testing.T) {
			runTimeline(t, seldom(), func(l *timeline) {
				f := l.fleet("one", "two", "holder")
				l.runUntil(4 * time.Second)
				holder := f[2]
				back := holder.cut()
				first := l.key(holder, 1).KID
				l.shred(f[0])
				l.runFor(time.Second)
				l.again(f[0])
				l.runFor(time.Second)
				l.wantSigner(1, f[0], f[1])
				if l.key(f[1], 1).Life != 1 || l.key(f[1], 1).KID == first {
					t.Errorf("%+v", l.key(f[1], 1))
				}
				if wipe {
					l.wipe()
				}
				back()
				l.runFor(3 * pollFor)
				l.wantSigner(1, f...)
				l.refuses(first, f...)
				if l.key(holder, 1).KID == first || l.has("k:"+first) || !l.has("dead") {
					t.Error("the first ring is back")
				}
				l.runFor(6 * time.Second)
				l.rotate(f[0])
				l.runFor(time.Second)
				l.wantSigner(2, f...)
			})
		})
	}
}

// Shred, and a holder that was away for a year: it does not know of the shred, and the store was emptied
// since, so that nothing is left which says so. It must not bring the tenant back. A holder that was away
// for a day restores the ring, as after any loss.
func TestTimelineShredYearAway(t *testing.T) {
	for name, away := range map[string]time.Duration{"a day": 24 * time.Hour, "a year": 365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			runTimeline(t, seldom(), func(l *timeline) {
				f := l.fleet("one", "holder")
				l.runUntil(4 * time.Second)
				holder := f[1]
				second := l.key(f[0], 2).KID
				l.must(f[0].r.Load().Revoke(l.ctx, tenant, second))
				l.runFor(500 * time.Millisecond)
				back := holder.cut()
				l.shred(f[0])
				f[0].close()
				l.wipe()
				l.h.beyondS = true // the rules go by the time of the world, which does not jump
				l.cluster.Advance(away)
				holder.offset.Add(int64(away))
				time.Sleep(time.Second)
				back()
				time.Sleep(4 * pollFor)
				records := 0
				for field := range l.cluster.Ring(tenant) {
					if field[:2] == "k:" || field[:2] == "tk" {
						records++
					}
				}
				if year := name == "a year"; (records > 0) == year || !l.has("x:"+second) {
					t.Errorf("the store has %d records and tenant keys; the revocation: %v", records, l.has("x:"+second))
				}
			})
		})
	}
}

// Shred, and an old dump is put back under holders that know of the shred: they write again that the ring
// was destroyed, and a rotator removes what has come back.
func TestTimelineShredDump(t *testing.T) {
	runTimeline(t, seldom(), func(l *timeline) {
		f := l.fleet("one", "two")
		l.runUntil(4 * time.Second)
		first, dump := l.key(f[0], 1).KID, l.cluster.Dump()
		l.shred(f[0])
		l.runFor(time.Second)
		l.lose("restart with an older dump", "", func() { l.cluster.Restore(dump) })
		joiner := l.connect("joiner", 0)
		joiner.rotates = false
		joiner.open()
		l.runFor(4 * pollFor)
		for field := range l.cluster.Ring(tenant) {
			if kind := field[:2]; kind == "k:" || kind == "tk" || kind == "p:" {
				t.Errorf("the store has %s", field)
			}
		}
		l.refuses(first, f...)
		l.refuses(first, joiner)
		if f[0].k.Load().Status().Counts.Undone+f[1].k.Load().Status().Counts.Undone == 0 {
			t.Error("no alarm was raised")
		}
		if st, _ := joiner.k.Load().Tenant(tenant); !st.Ready || !st.Ring.Dead || st.Ring.Signer >= 0 {
			t.Errorf("%+v", st)
		}
		if _, err := f[1].r.Load().Create(l.ctx, tenant, l.policy); !errors.Is(err, rotation.ErrRefused) {
			t.Errorf("create: %v", err)
		}
		l.again(f[1])
		l.runFor(time.Second)
		l.wantState(1, ring.Signing, append(f, joiner)...)
	})
}
