package rotationtest_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// putSnapshot makes blob the snapshot of i.
func (i *instance) putSnapshot(blob []byte) {
	if err := os.WriteFile(i.snapshot, blob, 0o600); err != nil {
		panic(err)
	}
}

// keeping connects an instance that keeps a snapshot in a file of that name. It begins with that file.
func (l *timeline) keeping(dir, name, file string) *instance {
	i := l.connect(name, 0)
	i.snapshot = filepath.Join(dir, file)
	return i
}

// startKeeping opens an instance that makes the ring, and waits until it and its snapshot are in sync.
func (l *timeline) startKeeping(dir string) *instance {
	a := l.keeping(dir, "a", "a")
	a.open()
	a.create()
	l.runUntil(5 * time.Second)
	return a
}

// certainLater checks that i does not call a missing key missing before Freshness is over.
func (l *timeline) certainLater(i *instance) {
	l.t.Helper()
	if got := i.knowsKID("strange"); got != unavailable {
		l.t.Errorf("a key that is missing is %s", got)
	}
	l.runFor(l.policy.Freshness - 100*time.Millisecond)
	if got := i.knowsKID("strange"); got != unavailable {
		l.t.Errorf("just within Freshness a key that is missing is %s", got)
	}
	l.runFor(time.Second)
	if got := i.knowsKID("strange"); got != notFound {
		l.t.Errorf("later a key that is missing is %s", got)
	}
}

// Pause: the only instance ends, properly or killed, and starts again from its snapshot. The store does
// not tell its run. Within Freshness that is a pause: it is in sync at once, and not yet certain of what
// is missing. Later it recovers.
func TestTimelinePause(t *testing.T) {
	for name, end := range map[string]func(*instance){"closed": (*instance).close, "killed": (*instance).kill} {
		for away, doubts := range map[time.Duration]bool{500 * time.Millisecond: false, 2500 * time.Millisecond: true} {
			t.Run(name+" for "+away.String(), func(t *testing.T) {
				runTimelineIn(t, silent, seldom(), func(l *timeline) {
					dir := l.t.TempDir()
					end(l.startKeeping(dir))
					last := l.tokens[len(l.tokens)-1]
					l.runFor(away)
					a := l.wantStart(l.keeping(dir, "a2", "a"), doubts)
					a.verify(last)
					if !doubts {
						l.certainLater(a)
					}
					l.runFor(3 * time.Second)
				})
			})
		}
	}
}

// PauseLost: the store loses the place of the snapshot while its instance is away for less than
// Freshness: it is emptied, or a dump of before is put back. The instance recovers, and puts back what it
// has. A failover that loses no entry which the snapshot has is no such loss.
func TestTimelinePauseLost(t *testing.T) {
	for name, tt := range map[string]struct {
		lose   func(c *rotationtest.Cluster, before rotationtest.Dump)
		doubts bool
	}{
		"flush":    {func(c *rotationtest.Cluster, _ rotationtest.Dump) { c.Flush() }, true},
		"wipe":     {func(c *rotationtest.Cluster, _ rotationtest.Dump) { c.Wipe() }, true},
		"dump":     {(*rotationtest.Cluster).Restore, true},
		"failover": {func(c *rotationtest.Cluster, _ rotationtest.Dump) { c.Failover(50 * time.Millisecond) }, false},
	} {
		for _, seed := range []uint64{1, silent} {
			t.Run(name, func(t *testing.T) {
				runTimelineIn(t, seed, seldom(), func(l *timeline) {
					dir := l.t.TempDir()
					a := l.startKeeping(dir)
					before := l.cluster.Dump()
					l.runUntil(6 * time.Second)
					l.rotate(a)
					l.runFor(time.Second)
					a.close()
					l.lose(name, "", func() { tt.lose(l.cluster, before) })
					l.runFor(200 * time.Millisecond)
					b := l.wantStart(l.keeping(dir, "a2", "a"), tt.doubts)
					l.runFor(3 * time.Second)
					l.wantSigner(2, b)
				})
			})
		}
	}
}

// PauseReplayed: a person puts back the snapshot of a while ago. The store still has its place, and all
// instances have ended. The instance that begins with it is one that was cut off since: it recovers, and
// knows of a revocation of meanwhile once it has read the store.
func TestTimelinePauseReplayed(t *testing.T) {
	runTimelineIn(t, silent, seldom(), func(l *timeline) {
		dir := l.t.TempDir()
		a := l.startKeeping(dir)
		old, err := os.ReadFile(a.snapshot)
		if err != nil {
			l.t.Fatal(err)
		}
		l.runUntil(7 * time.Second)
		l.rotate(a)
		first := l.key(a, 1).KID
		l.must(a.r.Load().Revoke(l.ctx, tenant, first))
		l.runUntil(8 * time.Second)
		a.close()
		l.runFor(100 * time.Millisecond)
		b := l.keeping(dir, "a2", "a")
		b.putSnapshot(old)
		l.wantStart(b, true)
		if got := b.knowsKID(first); got != notFound {
			l.t.Errorf("the key that was revoked since is %s", got)
		}
		l.runFor(3 * time.Second)
		l.wantSigner(2, b)
	})
}

// PauseCold: A ends, and its snapshot with it. B rotates twice by force, so a key signs that A has never
// seen, and all end. A dump from after A's end is put back, so that the store proves A's place. Within
// Freshness A is in sync at once, and calls no key of B's missing. Later it recovers. B returns, and has
// the key.
func TestTimelinePauseCold(t *testing.T) {
	for away, doubts := range map[time.Duration]bool{0: false, 2 * time.Second: true} {
		t.Run("for "+away.String(), func(t *testing.T) {
			runTimelineIn(t, silent, seldom(), func(l *timeline) {
				dir := l.t.TempDir()
				a := l.startKeeping(dir)
				b := l.connect("b", 0)
				b.open()
				l.runFor(2 * time.Second)
				a.close()
				d := l.cluster.Dump()
				l.runFor(100 * time.Millisecond)
				for range 2 {
					l.must(b.r.Load().Rotate(l.ctx, tenant, rotation.Force))
				}
				l.runFor(1500*time.Millisecond + away)
				if n := b.sign(tenant); n < 0 || l.h.tokens[n].kid != l.key(b, 3).KID {
					l.t.Fatal("the third key does not sign")
				}
				third := l.tokens[len(l.tokens)-1]
				back := b.cut()
				l.lose("restart with an older dump", "", func() { l.cluster.Restore(d) })
				a = l.wantStart(l.keeping(dir, "a2", "a"), doubts)
				a.verify(third)
				if got := a.knowsKID(l.h.tokens[third].kid); got != unavailable {
					l.t.Errorf("the third key is %s", got)
				}
				l.runFor(500 * time.Millisecond)
				back()
				l.runFor(6 * time.Second)
				l.wantState(3, ring.Signing, a, b)
			})
		})
	}
}
