package rotationtest_test

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// Mark: an instance was cut off before a key was promoted, so it holds the key as pending. The key
// signs, retires and is dropped by all others. Before it is collected, the store is emptied. The
// others put back what they hold, and that is without the dropped key. Then the instance comes back.
// It must not make the key sign once more: it has been a retired key for all others.
func TestTimelineMark(t *testing.T) {
	runTimeline(t, seldom(), func(l *timeline) {
		f := l.fleet("promoter", "other", "holder")
		promoter, holder := f[0], f[2]
		l.runUntil(4 * time.Second)
		second := l.key(promoter, 2).KID
		back := holder.cut()
		l.rotate(promoter)
		l.runUntil(7700 * time.Millisecond)
		l.rotate(promoter)
		l.runUntil(17500 * time.Millisecond)
		l.wantState(2, ring.Dropped, promoter, f[1])
		l.wantState(2, ring.Pending, holder)
		l.wipe()
		l.runFor(2 * pollFor)
		if l.has("k:" + second) {
			t.Fatal("the dropped key was put back")
		}
		l.runUntil(21 * time.Second)
		back()
		l.runUntil(27 * time.Second)
		l.wantSigner(3, f...)
		l.neverSigned(second, 9*time.Second)
	})
}

// Mark, away: the same mark must not end a key that lives. An instance was cut off before a pending
// key was revoked. To it that key took effect, and the one before was dropped. It is the first to
// reach a store that was emptied. The others still sign with the key that it has dropped.
func TestTimelineMarkAway(t *testing.T) {
	runTimeline(t, fast, func(l *timeline) {
		f := l.fleet("revoker", "away", "third")
		revoker, away := f[0], f[1]
		l.runUntil(5850 * time.Millisecond)
		back := away.cut()
		l.runUntil(5900 * time.Millisecond)
		l.must(revoker.r.Load().Revoke(l.ctx, tenant, l.key(revoker, 2).KID))
		l.runUntil(10100 * time.Millisecond)
		l.wantState(1, ring.Dropped, away)
		l.wantSigner(1, revoker, f[2])
		back1, back3 := revoker.cut(), f[2].cut()
		l.wipe()
		back()
		l.runFor(pollFor)
		back1()
		back3()
		l.runFor(2 * pollFor)
		l.wantState(1, ring.Signing, f...)
		l.runFor(8 * time.Second)
	})
}
