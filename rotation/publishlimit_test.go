package rotation_test

import (
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

// By hand no more keys are made than readers of the JWK Set take; a revocation always is.
func TestJWKSetStaysSmall(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newDerivedFleet(t, ring.Policy{Algorithm: keystore.ES256})
		defer f.leave()
		defer f.run()()
		published := func() int {
			keys, _, err := f.PublicKeys(t.Context(), "acme")
			if err != nil {
				t.Fatal(err)
			}
			return len(keys)
		}
		var refused *ring.RefusedError
		for n := 0; refused == nil; n++ {
			time.Sleep(70 * time.Minute) // V + F + D + S, and some
			_, err := f.rotator.Rotate(t.Context(), "acme")
			if err != nil {
				refused = wantRefused(t, err)
			}
			if n > 20 {
				t.Fatal("it is never refused")
			}
		}
		if n := published(); n != 10 {
			t.Errorf("refused with %d keys: %v", n, refused)
		}
		if _, err := f.rotator.Rotate(t.Context(), "acme", rotation.Force); err == nil {
			t.Error("forced: it is not refused")
		}
		if _, err := f.rotator.SetPolicy(t.Context(), "acme", ring.Policy{Algorithm: keystore.ES256}); err == nil {
			t.Error("SetPolicy is not refused")
		}
		if _, err := f.rotator.SetPolicy(t.Context(), "acme", ring.Policy{Algorithm: keystore.HS256}); err != nil && strings.Contains(err.Error(), "publish") {
			t.Errorf("SetPolicy to what is not published: %v", err)
		}
		if _, err := f.rotator.Revoke(t.Context(), "acme", f.signer1(t)); err != nil {
			t.Errorf("a revocation: %v", err)
		}
		time.Sleep(time.Until(refused.From) + time.Second)
		if _, err := f.rotator.Rotate(t.Context(), "acme"); err != nil {
			t.Errorf("at %v, from which it may: %v", refused.From, err)
		}
		if n := published(); n > 10 {
			t.Errorf("%d keys", n)
		}
	})
}

// signer1 returns the kid of the key that signs.
func (f *fleet) signer1(t *testing.T) string {
	t.Helper()
	token, err := f.signer.Sign(t.Context(), "acme", nil)
	if err != nil {
		t.Fatal(err)
	}
	return kidOf(t, token)
}

// A key that others read has to be known to them, too, before it is made to sign.
func TestReadersOfJWKSetAreWaitedFor(t *testing.T) {
	virtual(t, func(t *testing.T) {
		policy := ring.Policy{Algorithm: keystore.ES256}.WithDefaults()
		wait := policy.ReaderStaleness + policy.Freshness + policy.Dwell + policy.ClockSkew
		f := newDerivedFleet(t, policy)
		defer f.leave()
		made := time.Now()
		near := func(what string, got time.Time, want time.Duration) {
			t.Helper()
			if d := got.Sub(made); d < want || d > want+time.Second {
				t.Errorf("%s: from %v on, want V + F + D + S, %v", what, d, want)
			}
		}
		time.Sleep(time.Minute)
		one, two := f.kid(1), f.kid(2)
		_, err := f.rotator.Rotate(t.Context(), "acme")
		near("Rotate", wantRefused(t, err).From, wait)
		_, err = f.rotator.Promote(t.Context(), "acme", two)
		near("Promote", wantRefused(t, err).From, wait)
		_, err = f.rotator.Revoke(t.Context(), "acme", one)
		near("Revoke", wantRefused(t, err).From, wait)
		made = time.Now()
		receipt, err := f.rotator.Revoke(t.Context(), "acme", one, rotation.Force)
		if err != nil {
			t.Fatal(err)
		}
		near("Revoke, forced", receipt.NoSignerUntil, wait)
	})
}
