package rotationtest_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Snapshot: all instances end, one with an old snapshot, and the store is away. Both start again from
// what they have. Each answers as an instance that was cut off when its snapshot was written: it rejects
// no token of a good key, and signs nothing. A key that was revoked since is accepted no longer than at
// an instance that was cut off (I3). When the store is back, all is as before.
func TestTimelineSnapshot(t *testing.T) {
	runTimeline(t, fast, func(l *timeline) {
		dir := l.t.TempDir()
		connect := func(name, snapshot string) *instance {
			i := l.connect(name, 0)
			i.rotates, i.snapshot = true, filepath.Join(dir, snapshot)
			return i
		}
		a, b := connect("a", "a"), connect("b", "b")
		a.open()
		b.open()
		a.create()
		l.runUntil(6500 * time.Millisecond)
		old, err := os.ReadFile(filepath.Join(dir, "b"))
		if err != nil {
			t.Fatal(err)
		}
		l.runUntil(8 * time.Second)
		l.must(a.r.Load().Revoke(l.ctx, tenant, l.key(a, 1).KID)) // it has retired
		l.runFor(pollFor)
		a.close()
		b.close()
		if err := os.WriteFile(filepath.Join(dir, "b"), old, 0o600); err != nil {
			t.Fatal(err)
		}
		a, b = connect("a2", "a"), connect("b2", "b")
		backA, backB := a.cut(), b.cut()
		a.open()
		b.open()
		l.runFor(time.Second)
		l.wantSigner(0, a, b)
		if !a.opened().Status().CanVerify {
			t.Errorf("it has a snapshot of a second ago: %+v", a.opened().Status())
		}
		l.runFor(6 * time.Second)
		if b.opened().Status().CanVerify {
			t.Errorf("its snapshot is too old: %+v", b.opened().Status())
		}
		backA()
		backB()
		l.runFor(6 * pollFor)
		if n := a.sign(tenant); n < 0 {
			t.Error("it does not sign when the store is back")
		}
		l.runFor(3 * time.Second)
	})
}
