package rotationtest_test

import (
	"errors"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

// Lag: a split with min-replicas. The old primary notices only after min-replicas-max-lag that
// its replicas are gone. Until then it acknowledges, so the instance that stays with it is in sync,
// and hears of nothing. Meanwhile the others rotate, as often as they may. As long as Dwell is longer
// than max-lag, no token is rejected on either side.
func TestTimelineLag(t *testing.T) {
	for _, tt := range []struct {
		name   string
		policy rotation.Policy
		lag    time.Duration // how long the old primary acknowledges
	}{
		{"fast", seldom(), 900 * time.Millisecond},
		{"a long Dwell", slowToLose(), 2300 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			runTimeline(t, tt.policy, func(l *timeline) {
				f := l.fleet("promoter", "left", "third")
				promoter, left := f[0], f[1]
				l.runUntil(5500 * time.Millisecond)
				first := l.key(promoter, 1).KID
				heal := l.leave(left, tt.lag)
				began := l.now()
				l.rotate(promoter)
				l.rotateFor(promoter, tt.lag+100*time.Millisecond)
				l.wantSigner(1, left) // it has not heard of the rotation
				l.rotateFor(promoter, 10*time.Second)
				heal()
				l.runFor(4 * time.Second)
				l.neverSigned(first, began+tt.lag+l.policy.SignFor)
				if n := l.key(promoter, 4).State; n == ring.Pending {
					t.Error("the keys were rotated only twice")
				}
			})
		})
	}
}

// leave makes another server the primary, and leaves i with the old one, which acknowledges for lag.
// heal ends the split.
func (l *timeline) leave(i *instance, lag time.Duration) (heal func()) {
	i.addObstacles(1)
	l.lose("split", "", func() { l.cluster.Split(0, false, i.conn) })
	l.wg.Go(func() {
		time.Sleep(lag)
		l.cluster.SetReadOnlyAt(i.conn, true)
	})
	return func() {
		l.cluster.SetReadOnlyAt(i.conn, false)
		l.lose("heal", "", l.cluster.Heal)
		i.addObstacles(-1)
	}
}

// slowToLose is a policy for a store that may lose writes for longer than [fast] allows.
func slowToLose() rotation.Policy {
	p := seldom()
	p.Dwell, p.Propagation, p.MaxTokenTTL = 2500*time.Millisecond, 6*time.Second, 4*time.Second
	return p
}

// rotateFor rotates by hand whenever that is not refused.
func (l *timeline) rotateFor(i *instance, d time.Duration) {
	l.t.Helper()
	for until := l.now() + d; l.now() < until; l.runFor(100 * time.Millisecond) {
		if _, err := i.r.Load().Rotate(l.ctx, tenant); err != nil && !errors.Is(err, rotation.ErrRefused) {
			l.t.Fatalf("%v: %v", l.now(), err)
		}
	}
}
