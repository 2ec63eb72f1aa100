package rotation_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

// When the key that signed was revoked, and so was the one that was minted in its place, the next
// does not wait for its schedule: it takes over once all know it, and not before.
func TestNextKeyTakesOverFromRevokedKey(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		defer f.run()()
		scheduled, known := time.Now().Add(fast.Every), time.Now().Add(fast.HeardWithin())
		time.Sleep(time.Second)
		one, two := f.kid(1), f.kid(2)
		receipt, err := f.rotator.Revoke(t.Context(), "acme", one, rotation.Force)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(known) - time.Millisecond)
		wantRefused(t, errorOf(f.rotator.Revoke(t.Context(), "acme", receipt.Minted)))
		if err := f.signs(); !errors.Is(err, rotation.ErrNoSigner) {
			t.Errorf("before all know the next: %v, %s", err, f.ring())
		}
		time.Sleep(2 * fastPoll)
		if err := errorOf(f.rotator.Revoke(t.Context(), "acme", receipt.Minted)); err != nil {
			t.Fatal(err)
		}
		token, err := f.signer.Sign(t.Context(), "acme", nil)
		if err != nil || kidOf(t, token) != two {
			t.Errorf("once they do: %v, %s", err, f.ring())
		}
		time.Sleep(time.Until(scheduled))
		if got := f.ops(); !strings.HasPrefix(got, "create revoke revoke mint") || strings.Contains(got, "promote") {
			t.Errorf("it did: %s", got)
		}
	})
}

// The key that a forced revocation minted may be lost, and be published anew: then it
// signs when all know it, and not when its schedule would have it.
func TestKeyOfForcedRevocationIsNotLateWhenItWasLost(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newDerivedFleet(t, ring.Policy{})
		defer f.leave()
		defer f.run()()
		other := join(t, f.cluster, "b", derived)
		defer other.leave()
		time.Sleep(10 * time.Second)
		receipt, err := f.rotator.Revoke(t.Context(), "acme", f.kid(1), rotation.Force)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(400 * time.Millisecond)
		f.cluster.Failover(500 * time.Millisecond)
		slow := ring.Policy{}.WithDefaults()
		time.Sleep(time.Until(receipt.NoSignerUntil) + slow.HeardWithin())
		if err := f.signs(); err != nil {
			t.Errorf("F + D + S after the promise: %v, %s", err, f.ring())
		}
	})
}
