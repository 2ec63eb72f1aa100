package rotation_test

import (
	"errors"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rotationtest"
	"github.com/keyturn/keyturn/verifier"
)

// TestUnsure: there may be more keys without kid, or with a kid that others have chosen, than an instance knows while
// it is out of sync. So it does not call a signature wrong that none of them verifies. A kid that was made at random
// has one key.
func TestUnsure(t *testing.T) {
	virtual(t, func(t *testing.T) {
		m, receipt := adopt(t, old, rotation.AdoptOptions{})
		defer m.leave()
		m.accept(time.Hour, theirs(1, ""), theirs(2, "theirs"))
		want := func(when string, chosen, random bool) {
			t.Helper()
			for kid, unsure := range map[string]bool{"": chosen, "theirs": chosen, receipt.Minted: random} {
				id := keystore.ID{Tenant: "acme", KID: kid}
				if _, err := m.Lookup(id, keystore.HS256); err != nil {
					t.Errorf("%s: the kid %q: %v", when, kid, err)
				}
				if err := m.Unsure(id, keystore.HS256); errors.Is(err, keystore.ErrUnavailable) != unsure || (err != nil) != unsure {
					t.Errorf("%s: the kid %q: unsure because of %v", when, kid, err)
				}
			}
		}
		time.Sleep(fast.HeardWithin() + time.Second)
		want("in sync", false, false)
		m.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
		time.Sleep(fast.Freshness + fast.Freshness/2)
		want("cut off", true, false)
		m.conn.SetFaults(rotationtest.Faults{})
		time.Sleep(fast.Freshness)
		want("in sync again", false, false)
	})
}

// TestAcceptedKeyOutOfStep: an instance that is cut off soon uses a partner's key no longer, and the imported key for
// as long as its tokens live. Both are without kid. A token of the partner's then is no bad token: the instance cannot
// tell.
func TestAcceptedKeyOutOfStep(t *testing.T) {
	virtual(t, func(t *testing.T) {
		m, _ := adopt(t, old, rotation.AdoptOptions{Hold: true})
		defer m.leave()
		partner := theirs(1, "")
		m.accept(time.Hour, partner)
		s, err := rotation.NewStaticSigner(keystore.ID{Tenant: "acme"}, keystore.HS256, partner.Key, rotation.SignerConfig{TTL: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		token, err := s.Sign(t.Context(), "acme", nil)
		if err != nil {
			t.Fatal(err)
		}
		v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{{ID: "acme", Keys: m.Keyring, Algorithms: []keystore.Algorithm{keystore.HS256}, AnyIssuer: true, AnyAudience: true, Leeway: fast.Leeway}}})
		if err != nil {
			t.Fatal(err)
		}
		m.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
		good, alone := 0, 0
		for begin := time.Now(); time.Since(begin) < 20*time.Second; time.Sleep(time.Second) {
			keys, err := m.Lookup(keystore.ID{Tenant: "acme"}, keystore.HS256)
			if err != nil {
				t.Fatal(err)
			}
			if len(keys) == 1 && m.Unsure(keystore.ID{Tenant: "acme"}, keystore.HS256) == nil {
				t.Errorf("after %v it lacks a key, and is sure", time.Since(begin))
			}
			switch _, err = v.Verify(t.Context(), token); {
			case err == nil:
				good++
			case !errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, verifier.ErrInvalid):
				t.Errorf("after %v, with %d keys: %v", time.Since(begin), len(keys), err)
			case len(keys) == 1:
				alone++
			}
		}
		if good < 5 || alone < 5 {
			t.Errorf("good for %d s, then %d s with the imported key alone", good, alone)
		}
		m.conn.SetFaults(rotationtest.Faults{})
		time.Sleep(fast.Freshness)
	})
}

// TestKeyWithoutKIDAcceptedElsewhere: an instance that has not yet heard of a partner's key without kid asks the store
// when the first token comes, as it does for a key with a kid. Forged tokens cost what unknown kids cost.
func TestKeyWithoutKIDAcceptedElsewhere(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		a := join(t, cluster, "a", trusting)
		defer a.leave()
		if _, err := a.rotator.Adopt(t.Context(), "acme", old, fast, rotation.AdoptOptions{Hold: true}); err != nil {
			t.Fatal(err)
		}
		b := join(t, cluster, "b", trusting)
		defer b.leave()
		v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{{ID: "acme", Keys: b.Keyring, Algorithms: []keystore.Algorithm{keystore.HS256}, AnyIssuer: true, AnyAudience: true, Leeway: fast.Leeway}}})
		if err != nil {
			t.Fatal(err)
		}
		sign := func(key []byte) string {
			s, err := rotation.NewStaticSigner(keystore.ID{Tenant: "acme"}, keystore.HS256, key, rotation.SignerConfig{TTL: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			token, err := s.Sign(t.Context(), "acme", nil)
			if err != nil {
				t.Fatal(err)
			}
			return token
		}
		b.conn.SetFaults(rotationtest.Faults{LoseNudge: 1})
		time.Sleep(fast.HeardWithin() + time.Second + 7*time.Millisecond) // between two polls
		a.accept(time.Hour, theirs(1, ""))
		if _, err := v.Verify(t.Context(), sign(theirSecret(1))); err != nil {
			t.Errorf("the first token of a partner: %v", err)
		}
		if n := b.Status().Counts.Refreshes; n != 1 {
			t.Errorf("the store was asked %d times, want once", n)
		}
		for range 100 {
			if _, err := v.Verify(t.Context(), sign(theirSecret(2))); !errors.Is(err, verifier.ErrSignature) {
				t.Errorf("a forged token: %v", err)
			}
		}
		if n := b.Status().Counts.Refreshes; n > 2 {
			t.Errorf("the store was asked %d times, want at most 2", n)
		}
	})
}
