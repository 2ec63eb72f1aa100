package rotationtest_test

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// Count: a ring counts its changes. Where the store has counted fewer than an instance has seen,
// something was lost: that is an alarm, and no more. No instance refuses the ring, and no token is
// rejected.
func TestTimelineCount(t *testing.T) {
	t.Run("an old dump is restored", func(t *testing.T) {
		runTimeline(t, seldom(), func(l *timeline) {
			f := l.fleet("one", "two")
			l.runUntil(4 * time.Second)
			dump := l.cluster.Dump()
			l.rotate(f[0])
			l.runFor(l.policy.HeardWithin() + pollFor)
			l.must(f[0].r.Load().Revoke(l.ctx, tenant, l.key(f[0], 3).KID))
			l.runFor(500 * time.Millisecond)
			third := l.key(f[0], 3).KID
			l.lose("restart with an older dump", "", func() { l.cluster.Restore(dump) })
			l.runFor(2 * pollFor)
			if !l.has("k:"+third) || !l.has("x:"+third) {
				t.Error("the store lacks what the instances hold")
			}
			l.runFor(2 * pollFor)
			l.inSync(f...)
			if l.older(f...) == 0 {
				t.Error("no alarm was raised")
			}
			l.wantSigner(2, f...)
			l.runFor(4 * time.Second)
		})
	})
	// The counts are equal then, so the store is not older. The place and the digest tell.
	t.Run("one change is lost, and another made", func(t *testing.T) {
		runTimeline(t, seldom(), func(l *timeline) {
			f := l.fleet("one", "two", "three")
			l.runUntil(4 * time.Second)
			back2, back3 := f[1].cut(), f[2].cut()
			l.runFor(100 * time.Millisecond)
			if _, err := f[0].r.Load().SetPolicy(l.ctx, tenant, l.policy); err != nil {
				t.Fatal(err)
			}
			lost := l.key(f[0], 3).KID
			back1 := f[0].cut()
			l.failover(500 * time.Millisecond)
			back2()
			back3()
			l.runFor(3 * time.Second)
			if _, err := f[1].r.Load().SetPolicy(l.ctx, tenant, l.policy); err != nil {
				t.Fatal(err)
			}
			made := l.key(f[1], 3).KID
			back1()
			l.runFor(4 * pollFor)
			if lost == made || !l.has("k:"+lost) || !l.has("k:"+made) {
				t.Error("the store lacks one of two keys")
			}
			l.inSync(f...)
			l.wantState(1, ring.Signing, f...)
			l.runFor(4 * time.Second)
		})
	})
	t.Run("the head is removed", func(t *testing.T) {
		runTimeline(t, seldom(), func(l *timeline) {
			f := l.fleet("one", "two")
			l.runUntil(4 * time.Second)
			l.edit(tenant, "edit: remove head", func(fields map[string][]byte) { delete(fields, "head") })
			l.runFor(l.policy.Freshness)
			if !l.has("head") || l.older(f...) == 0 {
				t.Errorf("the store has a head: %v; %d alarms", l.has("head"), l.older(f...))
			}
			l.inSync(f...)
		})
	})
}

// older returns how often the instances have found that the store has counted fewer changes.
func (l *timeline) older(at ...*instance) (n uint64) {
	for _, i := range at {
		n += i.k.Load().Status().Counts.Older
	}
	return n
}

// inSync checks that instances are in sync.
func (l *timeline) inSync(at ...*instance) {
	l.t.Helper()
	for _, i := range at {
		if st, _ := i.k.Load().Tenant(tenant); !st.Fresh {
			l.t.Errorf("%v: %s is out of sync: %v", l.now(), i.name, st.Err)
		}
	}
}
