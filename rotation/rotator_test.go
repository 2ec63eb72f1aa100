package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// Fields that are ignored, or in the open, are no ring.
func TestCreateWhereNoRingExists(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		create(t, cluster, "acme", fast)
		cluster.EditRing("acme", func(fields map[string][]byte) {
			clear(fields)
			fields["_x"], fields["p:gone"] = []byte("1"), []byte("1")
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

// A key that was minted a moment ago may be lost with the next failover. Forced to sign, it does not do
// so before Dwell has passed. The key before it signs on, and the receipt says until when. If that one
// is revoked too, the receipt and the error of Sign say until when no key signs.
func TestForcedPromotionSaysWhoSigns(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		time.Sleep(200 * time.Millisecond)
		wantSigner := func(kid string) {
			t.Helper()
			s, err := f.Tenant("acme")
			if _, failed := f.signer.Sign(t.Context(), "acme", nil); err != nil || s.SignsWith != kid || (failed == nil) != (kid != "") {
				t.Errorf("signs with %q, want %q: %v, %v", s.SignsWith, kid, err, failed)
			}
		}
		receipt, err := f.rotator.Promote(t.Context(), "acme", f.kid(2), rotation.Force)
		if err != nil || !receipt.NoSignerUntil.IsZero() || receipt.ConfirmedAt.IsZero() {
			t.Fatalf("%+v, %v", receipt, err)
		}
		wantSigner(f.kid(1))
		wantRefused(t, errorOf(f.rotator.Revoke(t.Context(), "acme", f.kid(1))))
		silent, err := f.rotator.Revoke(t.Context(), "acme", f.kid(1), rotation.Force)
		if err != nil || !silent.NoSignerUntil.Equal(receipt.ConfirmedAt) {
			t.Fatalf("%+v, %v", silent, err)
		}
		wantSigner("")
		if err := f.signs(); !errors.Is(err, rotation.ErrFenced) || !strings.Contains(err.Error(), silent.NoSignerUntil.UTC().Format("15:04:05.000")) {
			t.Errorf("Sign: %v; the receipt says until %v", err, silent.NoSignerUntil)
		}
		time.Sleep(time.Until(receipt.ConfirmedAt) + fastPoll + fastPoll/5 + fastDeadline)
		wantSigner(f.kid(2))
	})
}

// As long as an acknowledged write may be lost, an old primary may keep an instance in sync, so a
// manual change waits for that too.
func TestDwellIsWaitedFor(t *testing.T) {
	virtual(t, func(t *testing.T) {
		policy := ring.Policy{Dwell: time.Hour, MaxTokenTTL: 2 * time.Hour}
		f := newDerivedFleet(t, policy)
		defer f.leave()
		made := time.Now()
		_, err := f.rotator.Rotate(t.Context(), "acme")
		if from := wantRefused(t, err).From.Sub(made); from < time.Hour+time.Minute || from > time.Hour+2*time.Minute {
			t.Errorf("refused until %v after it was published, want Dwell and Freshness", from)
		}
	})
}

// That a key was made to sign by force is in the ring, for who asks why its tokens were
// refused.
func TestForcedPromotionIsRecorded(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		forced := func() bool { return f.cluster.Ring("acme")["f:"+f.kid(2)] != nil }
		if _, err := f.rotator.Rotate(t.Context(), "acme", rotation.Force); err != nil || !forced() {
			t.Errorf("Rotate by force: recorded %v, %v", forced(), err)
		}
	})
	for _, opts := range [][]rotation.Option{{rotation.Force}, nil} {
		virtual(t, func(t *testing.T) {
			f := newFleet(t, fast)
			defer f.leave()
			time.Sleep(4 * time.Second) // it need not be forced any more
			_, err := f.rotator.Promote(t.Context(), "acme", f.kid(2), opts...)
			if forced := f.cluster.Ring("acme")["f:"+f.kid(2)] != nil; err != nil || forced != (opts != nil) {
				t.Errorf("Promote by force %v: recorded %v, %v", opts != nil, forced, err)
			}
		})
	}
}

func TestCreateIsRefusedIfRingExists(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		before := f.ring()
		wantRefused(t, errorOf(f.rotator.Create(t.Context(), "acme", fast)))
		wantRing(t, f.member, before)
		if _, err := f.rotator.Create(t.Context(), "globex", fast); !errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("Create of a tenant that is not held: %v", err)
		}
	})
}

func TestTwoQuickRotationsDoNotDefeatPropagation(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		refused := wantRefused(t, errorOf(f.rotator.Rotate(t.Context(), "acme")))
		if wait := time.Until(refused.From); wait < fast.HeardWithin() || wait > fast.HeardWithin()+2*(fast.ClockSkew+fastDeadline) {
			t.Errorf("it may be in %v, want F + D + S and a little", wait)
		}
		wantRing(t, f.member, "1=signing* 2=pending")
		time.Sleep(time.Until(refused.From))
		receipt, err := f.rotator.Rotate(t.Context(), "acme")
		if err != nil || receipt.Promoted != f.kid(2) || receipt.Minted != f.kid(3) || receipt.CommittedAt.IsZero() {
			t.Fatalf("%+v, %v", receipt, err)
		}
		wantRing(t, f.member, "1=retired 2=signing* 3=pending")
		wantRefused(t, errorOf(f.rotator.Rotate(t.Context(), "acme")))
		wantRing(t, f.member, "1=retired 2=signing* 3=pending")
	})
}

func TestForcedRotation(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		receipt, err := f.rotator.Rotate(t.Context(), "acme", rotation.Force)
		if err != nil || receipt.Promoted != f.kid(2) || receipt.Minted != f.kid(3) {
			t.Fatalf("%+v, %v", receipt, err)
		}
		wantRing(t, f.member, "1=retired 2=signing* 3=pending")
		// Before a good sync has confirmed the key for Dwell, a failover may lose it: the first key signs.
		for _, seq := range []int{1, 2} {
			s, err := f.Tenant("acme")
			if err := errors.Join(err, f.signs()); err != nil || s.SignsWith != f.kid(seq) {
				t.Errorf("it signs with %s, want key #%d: %v", s.SignsWith, seq, err)
			}
			time.Sleep(fast.Dwell + 2*fastPoll)
		}
	})
}

func TestPromote(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		time.Sleep(4 * time.Second)
		if _, err := f.rotator.SetPolicy(t.Context(), "acme", fast); err != nil {
			t.Fatal(err)
		}
		wantRing(t, f.member, "1=signing* 2=pending 3=pending")
		wantRefused(t, errorOf(f.rotator.Promote(t.Context(), "acme", f.kid(3))))
		wantRefused(t, errorOf(f.rotator.Promote(t.Context(), "acme", f.kid(1))))
		if err := errorOf(f.rotator.Promote(t.Context(), "acme", "no-such")); !errors.Is(err, keystore.ErrNotFound) {
			t.Error(err)
		}
		if err := errorOf(f.rotator.Promote(t.Context(), "acme", f.kid(2))); err != nil {
			t.Fatal(err)
		}
		wantRing(t, f.member, "1=retired 2=signing* 3=pending")
		if err := errorOf(f.rotator.Promote(t.Context(), "acme", f.kid(3), rotation.Force)); err != nil {
			t.Fatal(err)
		}
		wantRing(t, f.member, "1=retired 2=retired 3=signing*")
	})
}

func TestRevoke(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		one, two := f.kid(1), f.kid(2)
		refused := wantRefused(t, errorOf(f.rotator.Revoke(t.Context(), "acme", one)))
		if refused.From.IsZero() {
			t.Error("the refusal does not say from when on it may be")
		}
		time.Sleep(time.Until(refused.From))
		receipt, err := f.rotator.Revoke(t.Context(), "acme", one)
		if err != nil || receipt.Revoked != one || receipt.Promoted != two || !receipt.NoSignerUntil.IsZero() || receipt.RevokedAt.IsZero() {
			t.Fatalf("%+v, %v", receipt, err)
		}
		if want := receipt.CommittedAt.Add(fast.Dwell + fast.SignFor + fast.MaxTokenTTL + fast.Leeway); !receipt.WorstCase.Equal(want) {
			t.Errorf("worst case %v, want %v", receipt.WorstCase, want)
		}
		wantRing(t, f.member, "1=revoked 2=signing*")
		if got := f.finds(one); got != "not found" {
			t.Errorf("the revoked key is %s", got)
		}
		again, err := f.rotator.Revoke(t.Context(), "acme", one)
		if err != nil || !again.RevokedAt.Equal(receipt.RevokedAt) || !again.CommittedAt.IsZero() {
			t.Errorf("again: %+v, %v", again, err)
		}
		if err := errorOf(f.rotator.Revoke(t.Context(), "acme", "no-such")); !errors.Is(err, keystore.ErrNotFound) {
			t.Error(err)
		}
		if _, err := f.signer.Sign(t.Context(), "acme", nil); err != nil {
			t.Errorf("the key that took over: %v", err)
		}
	})
}

func TestForcedRevocationLeavesNoSigner(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		receipt, err := f.rotator.Revoke(t.Context(), "acme", f.kid(1), rotation.Force)
		if err != nil || receipt.Promoted != "" || receipt.Minted == "" || receipt.NoSignerUntil.IsZero() {
			t.Fatalf("%+v, %v", receipt, err)
		}
		wantRing(t, f.member, "1=revoked 3=pending 2=pending")
		if _, err := f.signer.Sign(t.Context(), "acme", nil); !errors.Is(err, rotation.ErrNoSigner) {
			t.Errorf("%v, want ErrNoSigner", err)
		}
		time.Sleep(time.Until(receipt.NoSignerUntil) + fastPoll)
		token, err := f.signer.Sign(t.Context(), "acme", nil)
		if err != nil || kidOf(t, token) != receipt.Minted {
			t.Errorf("then: %v", err)
		}
	})
}

func TestRevokePendingKey(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		if err := errorOf(f.rotator.Revoke(t.Context(), "acme", f.kid(2))); err != nil {
			t.Fatal(err)
		}
		wantRing(t, f.member, "1=signing* 2=revoked")
		defer f.run()()
		time.Sleep(4 * time.Second)
		wantRing(t, f.member, "1=signing* 3=pending 2=revoked")
	})
}

func TestRevocationArrivesWithNudgeOrPoll(t *testing.T) {
	for _, lose := range []float64{0, 1} {
		t.Run(fmt.Sprintf("nudges lost %v", lose), func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				f := newFleet(t, fast)
				defer f.leave()
				other := join(t, f.cluster, "b", func(c *rotation.Config) { c.TrustFirstRead = true })
				defer other.leave()
				other.conn.SetFaults(rotationtest.Faults{LoseNudge: lose, Before: time.Millisecond, After: time.Millisecond})
				keys, err := other.Lookup(keystore.ID{Tenant: "acme", KID: f.kid(1)}, keystore.HS256)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(4333 * time.Millisecond)
				revoked := time.Now()
				if err := errorOf(f.rotator.Revoke(t.Context(), "acme", f.kid(1))); err != nil {
					t.Fatal(err)
				}
				for keys[0].Usable(time.Now()) && time.Since(revoked) < time.Minute {
					time.Sleep(time.Millisecond)
				}
				limit := 100 * time.Millisecond
				if lose > 0 {
					limit = fastPoll*6/5 + fastDeadline
				}
				if took := time.Since(revoked); took > limit {
					t.Errorf("the key of a cached token ended %v after, want %v", took, limit)
				}
			})
		})
	}
}

func TestRotatorsRace(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		members := make([]*member, 8)
		for i := range members {
			members[i] = join(t, f.cluster, fmt.Sprint("m", i), func(c *rotation.Config) { c.TrustFirstRead = true })
			defer members[i].leave()
			members[i].conn.SetFaults(rotationtest.Faults{Before: time.Millisecond, Spread: 5 * time.Millisecond})
		}
		time.Sleep(6500 * time.Millisecond) // the second signs, none is pending
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		for _, m := range members {
			for range 8 {
				wg.Go(func() { m.rotator.Run(ctx) })
			}
		}
		time.Sleep(time.Second)
		cancel()
		wg.Wait()
		if got := f.ops(); got != "create mint" {
			t.Errorf("64 rotators did: %s", got)
		}
	})
}

func TestManualRotationsRace(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		time.Sleep(4 * time.Second)
		var wg sync.WaitGroup
		var done atomic.Int32
		for range 8 {
			wg.Go(func() {
				switch err := errorOf(f.rotator.Rotate(t.Context(), "acme")); {
				case err == nil:
					done.Add(1)
				case !errors.Is(err, ring.ErrRefused):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if done.Load() != 1 {
			t.Errorf("%d of 8 rotations at once were done, want 1", done.Load())
		}
		wantRing(t, f.member, "1=retired 2=signing* 3=pending")
	})
}

func TestSetPolicyTakesEffectWithNextKey(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		es := fast
		es.Algorithm, es.ReaderStaleness = keystore.ES256, time.Second
		wantRefused(t, errorOf(f.rotator.SetPolicy(t.Context(), "acme", es))) // F + D + S after the last mint
		time.Sleep(4 * time.Second)
		if _, err := f.rotator.SetPolicy(t.Context(), "acme", es); err != nil {
			t.Fatal(err)
		}
		bad := es
		bad.Propagation = 10 * time.Second
		if _, err := f.rotator.SetPolicy(t.Context(), "acme", bad); err == nil || !strings.Contains(err.Error(), "Every >= Propagation") {
			t.Errorf("%v", err)
		}
		s, _ := f.Tenant("acme")
		last := s.Ring.Keys[2]
		if last.Algorithm != keystore.ES256 || last.State != ring.Pending || last.ActivatesAt.Sub(s.Ring.Keys[1].ActivatesAt) != fast.Every {
			t.Errorf("%+v", last)
		}
	})
}

func TestBootstrap(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		allow := func(c *rotation.Config) { c.AllowBootstrap, c.Policy = true, fast }
		a, b := join(t, cluster, "a", allow), join(t, cluster, "b", allow)
		defer a.leave()
		defer b.leave()
		defer a.run()()
		defer b.run()()
		if err := a.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)); waited < fast.Freshness+fast.ClockSkew {
			t.Errorf("the first ring was made after %v: whoever holds what the store has lost had no time", waited)
		}
		wantRing(t, a, "1=signing* 2=pending")
		time.Sleep(time.Second)
		if a.kid(1) != b.kid(1) {
			t.Error("two first rings")
		}
	})
}

func TestNoRingIsMadeWithoutPermission(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		m := join(t, cluster, "a")
		defer m.leave()
		defer m.run()()
		time.Sleep(time.Minute)
		if rings := cluster.Tenants(); len(rings) > 0 {
			t.Errorf("rings of %v", rings)
		}
		if got := m.finds("any"); got != "unavailable" {
			t.Errorf("an empty ring: %s, want unavailable", got)
		}
	})
}

func TestAcksTellWhoHasHeard(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		near := join(t, f.cluster, "near", func(c *rotation.Config) { c.TrustFirstRead = true })
		defer near.leave()
		far := join(t, f.cluster, "far", func(c *rotation.Config) { c.TrustFirstRead = true })
		time.Sleep(time.Second)
		far.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.BlackHole})
		time.Sleep(3 * time.Second)
		receipt, err := f.rotator.Revoke(t.Context(), "acme", f.kid(1))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		acks, err := f.rotator.Acks(t.Context(), receipt)
		if err != nil {
			t.Fatal(err)
		}
		got := make(map[string]bool)
		for _, a := range acks {
			got[a.Instance] = a.Applied
		}
		if want := map[string]bool{"a": true, "near": true, "far": false}; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%v, want %v", got, want)
		}
		far.conn.SetFaults(rotationtest.Faults{})
		far.leave()
	})
}

func errorOf(_ rotation.Receipt, err error) error { return err }
