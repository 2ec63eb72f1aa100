package rotationtest_test

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
)

// Ready: an instance is cut off, and the others rotate by schedule. As long as it says that it can
// verify it answers every token (I15), and it says so until its keys end, or a key signs that it does
// not know, whichever is first.
func TestTimelineReady(t *testing.T) {
	long := fast // its tokens live so long that a key which is unknown to the instance signs first
	long.MaxTokenTTL = 20 * time.Second
	for _, tt := range []struct {
		name   string
		policy rotation.Policy
		least  time.Duration // for which it is ready
	}{
		{"its keys end", seldom(), fast.SignFor + fast.MaxTokenTTL + fast.Leeway},
		{"an unknown key signs", long, 9 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			runTimeline(t, tt.policy, func(l *timeline) {
				f := l.fleet("rotator", "away")
				away := f[1]
				ready := func() bool { return away.k.Load().Status().CanVerify }
				l.runUntil(2200 * time.Millisecond)
				back := away.cut()
				cut := l.now()
				for ready() && l.now() < time.Minute {
					l.runFor(50 * time.Millisecond)
				}
				if d := l.now() - cut; d < tt.least-time.Second || d > tt.least+2*time.Second {
					t.Errorf("it was ready for %v, want about %v", d, tt.least)
				}
				l.runFor(3 * time.Second)
				back()
				l.runFor(2 * pollFor)
				if !ready() {
					t.Error("it is not ready when the store is back")
				}
				l.runFor(2 * time.Second)
			})
		})
	}
}
