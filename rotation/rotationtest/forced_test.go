package rotationtest_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
)

// Forced: keys are forced to sign one after the other, each as soon as it is minted. One instance is cut
// off before, between or after that. Then a failover loses it all, with or without the instance that
// forced them. No instance in sync is ever without a signer, and no live token is rejected.
func TestTimelineForced(t *testing.T) {
	for _, forced := range []int{1, 2, 3} {
		for _, cut := range []string{"before", "between", "after"} {
			for _, promoterLives := range []bool{true, false} {
				name := fmt.Sprintf("%d in a row, cut off %s, the promoter lives %v", forced, cut, promoterLives)
				t.Run(name, func(t *testing.T) { playForced(t, forced, cut, promoterLives) })
			}
		}
	}
}

func playForced(t *testing.T, forced int, cut string, promoterLives bool) {
	t.Parallel()
	runTimeline(t, seldom(), func(l *timeline) {
		f := l.fleet("promoter", "left", "third", "fourth")
		promoter, left := f[0], f[1]
		l.runUntil(5 * time.Second)
		l.rotate(promoter)
		l.runFor(50 * time.Millisecond) // all have heard of it: the key that signs is confirmed, the pending one is not
		first, back := l.key(promoter, 2).KID, func() {}
		if cut == "before" {
			back = left.cut()
		}
		began := l.now()
		for n := range forced {
			receipt, err := promoter.r.Load().Rotate(l.ctx, tenant, rotation.Force)
			if l.must(receipt, err); !receipt.NoSignerUntil.IsZero() || receipt.ConfirmedAt.IsZero() {
				t.Errorf("%+v", receipt)
			}
			if cut == "between" && n == forced/2 {
				back = left.cut()
			}
			l.runFor(60 * time.Millisecond)
			l.wantSigner(2, f...)
		}
		if cut == "after" {
			back = left.cut()
		}
		lost := l.now() - began + 20*time.Millisecond
		if !promoterLives {
			promoter.close()
		}
		l.failover(lost)
		l.runFor(l.policy.SignFor + time.Second)
		l.wantSigner(0, left) // it has been cut off for longer than SignFor
		back()
		l.runFor(2 * pollFor)
		kept := f[1:]
		if promoterLives {
			kept = f
			l.neverSigned(first, began+forcedUntil(l, forced), left)
		}
		l.runFor(7 * time.Second)
		for _, i := range kept {
			if i.sign(tenant) < 0 {
				t.Errorf("%s cannot sign", i.name)
			}
		}
		l.neverRefused(kept...)
	})
}

// forcedUntil is until when the key that signed before may sign on at instances in reach, after keys were
// forced to sign.
func forcedUntil(l *timeline, forced int) time.Duration {
	return time.Duration(forced)*60*time.Millisecond + l.policy.Dwell + pollFor + 500*time.Millisecond
}

// neverRefused checks that those instances have rejected no live token, and could sign whenever they were
// in sync.
func (l *timeline) neverRefused(at ...*instance) {
	l.t.Helper()
	for _, e := range l.h.events {
		refused := e.kind == evVerify && e.result != ok && e.result != unavailable
		silent := e.kind == evSign && e.result != ok && e.fresh
		for _, i := range at {
			if e.inst == i.id && e.at > 2*time.Second && (refused || silent) {
				l.t.Error(l.h.line(e))
				return
			}
		}
	}
}

// Left: a pending key is revoked just before it is due, and the one after it is forced to sign just after
// that. One instance reads both and is cut off. A failover loses both, so the others sign with the
// revoked key, and drop the one before. The instance must not sign with that one in place of the forced
// key.
func TestTimelineLeft(t *testing.T) {
	runTimeline(t, fast, func(l *timeline) {
		f := l.fleet("revoker", "reader", "fleet")
		revoker, reader, third := f[0], f[1], f[2]
		l.runUntil(5800 * time.Millisecond)
		first, second := l.key(revoker, 1).KID, l.key(revoker, 2).KID
		thirdBack := third.cut()
		l.runUntil(5900 * time.Millisecond)
		l.must(revoker.r.Load().Revoke(l.ctx, tenant, second))
		if _, err := revoker.r.Load().SetPolicy(l.ctx, tenant, l.policy); err != nil && !errors.Is(err, rotation.ErrRefused) {
			t.Fatal(err) // refused: the rotator has minted it already
		}
		l.runUntil(6080 * time.Millisecond)
		receipt, err := revoker.r.Load().Promote(l.ctx, tenant, l.key(revoker, 3).KID, rotation.Force)
		if err != nil || !receipt.NoSignerUntil.Equal(receipt.ConfirmedAt) {
			t.Errorf("%+v, %v: the receipt does not say that no key signs until the forced one does", receipt, err)
		}
		time.Sleep(20 * time.Millisecond)
		l.wantSigner(0, reader)
		reader.cut()
		revoker.close()
		l.failover(500 * time.Millisecond)
		thirdBack()
		l.runUntil(7 * time.Second)
		l.wantSigner(2, third)
		l.wantSigner(0, reader)
		l.runUntil(14 * time.Second)
		l.neverSigned(first, 6050*time.Millisecond) // the second takes effect at 6.018 s for the others
	})
}

// Revoked: a key is forced to sign, and the key that signs in its place is revoked. That leaves the
// tenant without a signer, so it is refused, unless it is forced. Then no instance signs with the revoked
// key or an earlier one, and the receipt says until when.
func TestTimelineForcedRevoked(t *testing.T) {
	runTimeline(t, seldom(), func(l *timeline) {
		f := l.fleet("revoker", "other")
		revoker := f[0].r.Load()
		l.runUntil(5 * time.Second)
		l.rotate(f[0])
		l.runFor(50 * time.Millisecond)
		first, second := l.key(f[0], 1).KID, l.key(f[0], 2).KID
		l.must(revoker.Rotate(l.ctx, tenant, rotation.Force))
		l.runFor(50 * time.Millisecond)
		l.wantSigner(2, f...)
		if _, err := revoker.Revoke(l.ctx, tenant, second); !errors.Is(err, rotation.ErrRefused) {
			t.Errorf("Revoke of the key that signs in place of the forced one: %v, want ErrRefused", err)
		}
		revoked := l.now()
		receipt, err := revoker.Revoke(l.ctx, tenant, second, rotation.Force)
		if err != nil {
			t.Fatal(err)
		}
		wait := receipt.NoSignerUntil.Sub(l.h.start.Add(revoked))
		if wait < 500*time.Millisecond || wait > l.policy.Dwell {
			t.Errorf("%+v: no key signs for %v", receipt, wait)
		}
		l.runFor(50 * time.Millisecond)
		l.wantSigner(0, f...)
		l.runFor(wait + pollFor)
		l.wantSigner(3, f...)
		l.runFor(6 * time.Second)
		l.neverSigned(first, revoked)
		l.neverSigned(second, revoked)
	})
}
