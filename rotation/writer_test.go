package rotation_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// These tests play a person who can write to the store and has no KEK.

func once(c *rotation.Config) { c.OneShot = true }

// logTo returns a change of a Config, and what it logs.
func logTo() (func(*rotation.Config), *strings.Builder) {
	var b strings.Builder
	return func(c *rotation.Config) { c.Logger = slog.New(slog.NewTextHandler(&b, nil)) }, &b
}

// Finding 2: the revocation is removed before any instance reads the ring. It is in the log too, so
// every instance learns it, restores it, and raises an alarm.
func TestRevocationIsLearnedFromLog(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		log, said := logTo()
		b := join(t, f.cluster, "b", trusting, log)
		defer b.leave()
		time.Sleep(5 * time.Second)
		one := f.kid(1)
		f.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused}) // b alone is to restore it
		admin := join(t, f.cluster, "admin", once)
		if _, err := admin.rotator.Revoke(t.Context(), "acme", one); err != nil {
			t.Fatal(err)
		}
		f.cluster.EditRing("acme", func(fields map[string][]byte) { delete(fields, "x:"+one) })
		admin.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
		time.Sleep(fastPoll*6/5 + fastDeadline)
		if got := b.finds(one); got != "not found" {
			t.Errorf("the revoked key is %s", got)
		}
		if _, there := f.cluster.Ring("acme")["x:"+one]; !there {
			t.Error("the revocation was not restored")
		}
		if n := b.Status().Counts.Undone; n == 0 || !strings.Contains(said.String(), "lacked a revocation") {
			t.Errorf("%d alarms; log: %s", n, said)
		}
		f.conn.SetFaults(rotationtest.Faults{})
		admin.conn.SetFaults(rotationtest.Faults{})
		admin.leave()
	})
}

// Finding 2: a forged acknowledgement proves nothing, wherever it was copied from.
func TestForgedAcknowledgements(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		time.Sleep(5 * time.Second)
		f.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
		log, said := logTo()
		admin := join(t, f.cluster, "admin", once, log)
		receipt, err := admin.rotator.Revoke(t.Context(), "acme", f.kid(1))
		if err != nil {
			t.Fatal(err)
		}
		acks, _, err := admin.conn.Acks(t.Context(), rotation.BucketOf("acme"))
		if err != nil || len(acks) != 1 {
			t.Fatal(acks, err)
		}
		// The attacker copies the ack to another name, and writes rubbish with the right date.
		f.cluster.ForgeAck(rotation.BucketOf("acme"), "b", acks[0].Sealed)
		f.cluster.ForgeAck(rotation.BucketOf("acme"), "c", append(acks[0].Sealed[:12:12], strings.Repeat("x", 100)...))
		got, err := admin.rotator.Acks(t.Context(), receipt)
		if err != nil || len(got) != 1 || got[0].Instance != "a" || got[0].Applied {
			t.Errorf("acks: %+v, %v", got, err)
		}
		if admin.Status().Counts.Forged < 2 || !strings.Contains(said.String(), "not authentic") {
			t.Errorf("%+v; log: %s", admin.Status().Counts, said)
		}
		f.conn.SetFaults(rotationtest.Faults{})
		admin.leave()
	})
}

// A command stays until all instances have applied its change. It restores what is removed
// meanwhile, and says so.
func TestAwait(t *testing.T) {
	for _, tt := range []struct {
		name   string
		attack bool
		want   error
	}{{"in peace", false, nil}, {"undone", true, ring.ErrUndone}} {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				f := newFleet(t, fast)
				defer f.leave()
				time.Sleep(5 * time.Second)
				one := f.kid(1)
				f.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
				admin := join(t, f.cluster, "admin", once)
				defer admin.leave()
				receipt, err := admin.rotator.Revoke(t.Context(), "acme", one)
				if err != nil {
					t.Fatal(err)
				}
				if tt.attack {
					f.cluster.EditRing("acme", func(fields map[string][]byte) { delete(fields, "x:"+one) })
					f.cluster.Trim(rotation.BucketOf("acme"), 0)
				}
				short, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if _, err := admin.rotator.Await(short, receipt); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "not applied it yet: a") {
					t.Errorf("while an instance is cut off: %v", err)
				}
				f.conn.SetFaults(rotationtest.Faults{})
				long, cancelLong := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancelLong()
				acks, err := admin.rotator.Await(long, receipt)
				if !errors.Is(err, tt.want) || (tt.want == nil) != (err == nil) {
					t.Errorf("%v, want %v", err, tt.want)
				}
				if _, there := f.cluster.Ring("acme")["x:"+one]; !there || f.finds(one) != "not found" {
					t.Errorf("in the store: %v; the key is %s; acks %+v", there, f.finds(one), acks)
				}
			})
		})
	}
}

// V1: a restarted instance that a peer would vouch for does not accept a key whose revocation was
// removed just before, while it calls itself in sync.
func TestNewcomerIsNotVouchedForWithoutRevocation(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		time.Sleep(5 * time.Second)
		one := f.kid(1)
		if _, err := f.rotator.Revoke(t.Context(), "acme", one); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		f.cluster.EditRing("acme", func(fields map[string][]byte) { delete(fields, "x:"+one) })
		f.cluster.Trim(rotation.BucketOf("acme"), 1) // the log no longer names it
		cold := join(t, f.cluster, "cold")
		defer cold.leave()
		if s, _ := cold.Tenant("acme"); s.Fresh && cold.finds(one) == "found" {
			t.Error("in sync, it accepts the revoked key")
		}
		time.Sleep(fast.Freshness)
		if s, _ := cold.Tenant("acme"); !s.Fresh || cold.finds(one) != "not found" {
			t.Errorf("later: fresh %v, the key is %s", s.Fresh, cold.finds(one))
		}
	})
}

// V6: a field that cannot be opened does not keep a leaked key alive.
func TestRevokeInRingThatIsNotWhole(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		time.Sleep(5 * time.Second)
		one, two := f.kid(1), f.kid(2)
		f.cluster.EditRing("acme", func(fields map[string][]byte) { fields["k:junk"] = []byte("junk") })
		admin := join(t, f.cluster, "admin", once)
		defer admin.leave()
		if _, err := admin.rotator.Rotate(t.Context(), "acme"); !errors.Is(err, rotation.ErrMalformed) {
			t.Errorf("rotate: %v, want refused because of the junk", err)
		}
		wantRefused(t, errorOf(admin.rotator.Revoke(t.Context(), "acme", one))) // it signs
		receipt, err := admin.rotator.Revoke(t.Context(), "acme", two)
		if err != nil || receipt.Revoked != two || receipt.RevokedAt.IsZero() {
			t.Errorf("%+v, %v", receipt, err)
		}
		time.Sleep(fastPoll*6/5 + fastDeadline)
		if got := f.finds(two); got != "not found" {
			t.Errorf("the revoked key is %s", got)
		}
	})
}

// An older ring that is put in place of the present one is noticed.
func TestOlderRingIsNoticed(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		old := f.cluster.Ring("acme")
		time.Sleep(5 * time.Second)
		if _, err := f.rotator.Rotate(t.Context(), "acme"); err != nil {
			t.Fatal(err)
		}
		f.cluster.EditRing("acme", func(fields map[string][]byte) {
			clear(fields)
			for field, value := range old {
				fields[field] = value
			}
		})
		time.Sleep(fast.Freshness)
		if c := f.Status().Counts; c.Older == 0 || c.Repairs == 0 {
			t.Errorf("%+v", c)
		}
	})
}

// V4: AllowBootstrap makes no ring of the wrong algorithm.
func TestBootstrapUnderAnotherAlgorithm(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		create(t, cluster, "acme", fast)
		policy := fast
		policy.Algorithm = "ES256"
		log, said := logTo()
		m := join(t, cluster, "a", trusting, of("acme", "globex"), log, func(c *rotation.Config) { c.AllowBootstrap, c.Policy = true, policy })
		defer m.leave()
		stop := m.run()
		time.Sleep(20 * time.Second)
		stop()
		if len(cluster.Tenants()) != 1 || !strings.Contains(said.String(), "another algorithm") {
			t.Errorf("rings: %q; log: %s", cluster.Tenants(), said)
		}
	})
}
