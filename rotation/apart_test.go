package rotation_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// What one ring demands is not demanded of the others, and what one instance has wrong is
// not wrong for all.

// A ring of a shorter Freshness than the Config's own Poll does for, made by somebody else.
func TestARingThatPollsTooRarelyForItIsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := ring.Policy{MaxTokenTTL: time.Minute, SignFor: 10 * time.Minute} // F is 60s
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		m := join(t, cluster, "a", of("acme", "short"), func(c *rotation.Config) {
			c.TrustFirstRead, c.Poll, c.Deadline = true, 10*time.Second, time.Second
		})
		defer m.leave()
		if err := m.rotator.Create(t.Context(), "acme", slow); err != nil {
			t.Fatal(err)
		}
		create(t, cluster, "short", fast)
		time.Sleep(15 * time.Minute)
		if s, _ := m.Tenant("acme"); !s.Fresh || m.signs() != nil {
			t.Errorf("acme: fresh %v, in doubt %v (%v); Sign: %v", s.Fresh, s.InDoubt, s.Err, m.signs())
		}
		if s, _ := m.Tenant("short"); s.Fresh || s.Err == nil || !strings.Contains(s.Err.Error(), "Freshness >= 3") {
			t.Errorf("short: fresh %v: %v", s.Fresh, s.Err)
		}
	})
}

// create makes a ring, as a command does.
func create(t *testing.T, cluster *rotationtest.Cluster, tenant string, policy ring.Policy) {
	t.Helper()
	m := join(t, cluster, "command", of(tenant), func(c *rotation.Config) { c.OneShot, c.Poll, c.Deadline = true, 0, 0 })
	defer m.leave()
	if err := m.rotator.Create(t.Context(), tenant, policy); err != nil {
		t.Fatal(err)
	}
}

// besides returns a tenant of the same bucket.
func besides(tenant string) string {
	for i := 0; ; i++ {
		if n := fmt.Sprint("tenant-", i); rotation.BucketOf(n) == rotation.BucketOf(tenant) {
			return n
		}
	}
}

// A ring in the same bucket that allows clocks to differ by less than they do.
func TestAClockIsOffForTheRingThatSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		exact, neighbour := fast, besides("acme")
		exact.ClockSkew = time.Millisecond
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		m := join(t, cluster, "a", trusting, of("acme", neighbour), func(c *rotation.Config) {
			c.Now = func() time.Time { return time.Now().Add(100 * time.Millisecond) }
		})
		defer m.leave()
		if err := m.rotator.Create(t.Context(), "acme", fast); err != nil {
			t.Fatal(err)
		}
		create(t, cluster, neighbour, exact)
		time.Sleep(5 * time.Second)
		if s, _ := m.Tenant("acme"); !s.Fresh || !s.Ready || m.signs() != nil {
			t.Errorf("acme: fresh %v, ready %v (%v); Sign: %v", s.Fresh, s.Ready, s.Err, m.signs())
		}
		if s, _ := m.Tenant(neighbour); s.Fresh || s.Ready || s.Err == nil {
			t.Errorf("%s: fresh %v, ready %v, %v", neighbour, s.Fresh, s.Ready, s.Err)
		}
	})
}

// A clock that is set wrong later, long before SignFor has passed.
func TestAClockThatGoesWrong(t *testing.T) {
	for _, off := range []time.Duration{-time.Hour, time.Hour} {
		t.Run(off.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var offset atomic.Int64
				cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
				m := join(t, cluster, "a", derived, func(c *rotation.Config) {
					c.Now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
				})
				defer m.leave()
				if err := m.rotator.Create(t.Context(), "acme", ring.Policy{}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Minute)
				if s := m.Status(); !s.Ready {
					t.Fatal(s.Err)
				}
				offset.Store(int64(off))
				time.Sleep(time.Minute)
				s, err := m.Tenant("acme")
				if m.Status().Ready || s.Ready || err != nil || s.Err == nil || !strings.Contains(s.Err.Error(), "differ by more than ClockSkew") {
					t.Errorf("wrong: %+v, %v", s, err)
				}
				m.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
				time.Sleep(time.Minute)
				if m.Status().Ready {
					t.Errorf("wrong, and the store is away: %+v", m.Status())
				}
				m.conn.SetFaults(rotationtest.Faults{})
				offset.Store(0)
				time.Sleep(2 * time.Minute)
				if s := m.Status(); !s.Ready || !s.Fresh {
					t.Errorf("right again: %+v", s)
				}
			})
		})
	}
}

// A ring that is created by a clock which is wrong would not sign when it should, and
// could not be created again.
func TestCreateHoldsTheClocksToItsPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		cluster.Advance(365 * 24 * time.Hour)
		m := join(t, cluster, "a", func(c *rotation.Config) { c.OneShot = true })
		defer m.leave()
		err := m.rotator.Create(t.Context(), "acme", fast)
		if !errors.Is(err, keystore.ErrUnavailable) || len(cluster.Ring("acme")) > 0 {
			t.Errorf("Create: %v, %d fields", err, len(cluster.Ring("acme")))
		}
	})
}

// Fields that are ignored, or in the open, are no ring.
func TestCreateWhereNoRingIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		create(t, cluster, "acme", fast)
		cluster.EditRing("acme", func(fields map[string][]byte) {
			clear(fields)
			fields["_x"], fields["head"], fields["p:gone"] = []byte("1"), []byte("7"), []byte("1")
		})
		m := join(t, cluster, "a", trusting, func(c *rotation.Config) { c.AllowBootstrap, c.Policy = true, fast })
		defer m.leave()
		defer m.run()()
		time.Sleep(10 * time.Second)
		if err := m.signs(); err != nil {
			t.Errorf("it was not bootstrapped: %v", err)
		}
	})
}

// One bucket cannot be read when the keyring is opened, as when a server of a Cluster is
// away: the others go on, and it is caught up with.
func TestOpenWithoutOneServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		for _, tenant := range []string{"acme", "globex"} {
			create(t, cluster, tenant, fast)
		}
		conn := cluster.Connect("a")
		conn.SetFaults(rotationtest.Faults{LostBuckets: func(b int) bool { return b == rotation.BucketOf("globex") }})
		k, err := rotation.Open(t.Context(), conn, rotation.Config{KEKs: testKEK, Tenants: []string{"acme", "globex"}, Poll: fastPoll,
			Deadline: fastDeadline, TrustFirstRead: true})
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close(t.Context())
		one, _ := k.Tenant("acme")
		other, _ := k.Tenant("globex")
		if !one.Ready || other.Ready || other.Err == nil || k.Status().Ready {
			t.Errorf("acme %v, globex %v (%v), all %v", one.Ready, other.Ready, other.Err, k.Status().Ready)
		}
		conn.SetFaults(rotationtest.Faults{})
		if err := k.WaitReady(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// Who has not heard of a new policy calls itself fresh, and reads the JWK Set, by the old
// one: by that a manual change waits.
func TestAShorterFreshnessCountsWhenAllKnowIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := ring.Policy{MaxTokenTTL: time.Minute} // F is 60s, S 5s
		f := newDerivedFleet(t, slow)
		defer f.leave()
		time.Sleep(10 * time.Minute)
		quick := slow
		quick.Freshness, quick.ClockSkew, quick.Dwell = time.Second, 10*time.Millisecond, time.Second
		if err := f.rotator.SetPolicy(t.Context(), "acme", quick); err != nil {
			t.Fatal(err)
		}
		minted := time.Now()
		if _, err := f.rotator.Rotate(t.Context(), "acme"); err != nil { // the one that was pending before
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		_, err := f.rotator.Rotate(t.Context(), "acme")
		if from := wantRefused(t, err).From.Sub(minted); from < 65*time.Second || from > 70*time.Second {
			t.Errorf("refused until %v after it was minted, want F + S of before, 65s", from)
		}
	})
}

// By hand no more keys are made than readers of the JWK Set take; a revocation always is.
func TestTheJWKSetStaysSmall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
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
			time.Sleep(70 * time.Minute) // V + F + S, and some
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
		if err := f.rotator.SetPolicy(t.Context(), "acme", ring.Policy{Algorithm: keystore.ES256}); err == nil {
			t.Error("SetPolicy is not refused")
		}
		if err := f.rotator.SetPolicy(t.Context(), "acme", ring.Policy{Algorithm: keystore.HS256}); err != nil && strings.Contains(err.Error(), "publish") {
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
func TestReadersOfTheJWKSetAreWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy := ring.Policy{Algorithm: keystore.ES256}.WithDefaults()
		wait := policy.ReaderStaleness + policy.Freshness + policy.ClockSkew
		f := newDerivedFleet(t, policy)
		defer f.leave()
		made := time.Now()
		near := func(what string, got time.Time, want time.Duration) {
			t.Helper()
			if d := got.Sub(made); d < want || d > want+time.Second {
				t.Errorf("%s: from %v on, want V + F + S, %v", what, d, want)
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

// A key that was minted a moment ago may be lost with the next failover: forced to sign, it
// does not do so before Dwell has passed, and neither does any other. The receipt, and who
// is asked to sign, say until when.
func TestAForcedPromotionSaysUntilWhenNobodySigns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy := fast
		policy.Dwell, policy.SignFor = 1200*time.Millisecond, 2500*time.Millisecond
		f := newFleet(t, policy)
		defer f.leave()
		time.Sleep(200 * time.Millisecond)
		receipt, err := f.rotator.Promote(t.Context(), "acme", f.kid(2), rotation.Force)
		if err != nil {
			t.Fatal(err)
		}
		until := receipt.NoSignerUntil.UTC().Format("15:04:05.000")
		if err := f.signs(); !errors.Is(err, rotation.ErrFenced) || !strings.Contains(err.Error(), until) {
			t.Errorf("Sign: %v; the receipt says until %s", err, until)
		}
		time.Sleep(time.Until(receipt.NoSignerUntil) + fastPoll + fastPoll/5 + fastDeadline)
		if err := f.signs(); err != nil {
			t.Error(err)
		}
	})
}

// Where an acknowledged write may be lost for longer than instances stay fresh, a manual
// change waits for that.
func TestDwellIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy := ring.Policy{Dwell: time.Hour}
		f := newDerivedFleet(t, policy)
		defer f.leave()
		made := time.Now()
		_, err := f.rotator.Rotate(t.Context(), "acme")
		if from := wantRefused(t, err).From.Sub(made); from < time.Hour || from > time.Hour+time.Minute {
			t.Errorf("refused until %v after it was published, want Dwell", from)
		}
	})
}

// Who waits for a ring that nobody has made is told so, once.
func TestAMissingRingIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lockedBuffer
		m := join(t, rotationtest.NewCluster(rotationtest.ClusterConfig{}), "a", func(c *rotation.Config) {
			c.Logger = slog.New(slog.NewTextHandler(&out, nil))
		})
		defer m.leave()
		if err := m.Status().Err; err == nil || !strings.Contains(err.Error(), "in doubt for another 2s") {
			t.Errorf("Status: %v", err)
		}
		time.Sleep(10 * time.Second)
		if n := strings.Count(out.String(), "no ring of the tenant"); n != 1 {
			t.Errorf("said %d times:\n%s", n, out.String())
		}
	})
}
