package rotation_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// hidesAcks is a store for a command whose answers never have an acknowledgement, as if a person
// removed all of them at every moment.
func hidesAcks(s rotation.Store) *deceivedStore {
	return &deceivedStore{
		Store: s,
		sync: func(_ []rotation.SyncRequest, replies []rotation.SyncReply) {
			for i := range replies {
				replies[i].Acks = nil
			}
		},
		acks: func([]rotation.RawAck) []rotation.RawAck { return nil },
	}
}

// revokeBy revokes the first key as a command does, and returns what its watch says.
func revokeBy(t *testing.T, s rotation.Store, kid string, within time.Duration, during func()) ([]rotation.Ack, error) {
	t.Helper()
	k := openStore(t, s, func(c *rotation.Config) { c.OneShot, c.Instance = true, "command" })
	defer k.Close(context.Background())
	r, err := rotation.NewRotator(k)
	if err != nil {
		t.Fatal(err)
	}
	receipt, err := r.Revoke(t.Context(), "acme", kid)
	if err != nil {
		t.Fatal(err)
	}
	if during != nil {
		during()
	}
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	return r.Await(ctx, receipt)
}

// A person removes all acknowledgements at every moment. The revocation may be gone as soon as the
// command ends, so the command must not end well: an instance listens, and has not confirmed it.
func TestAwaitWhereAllAcksAreHidden(t *testing.T) {
	for _, within := range []time.Duration{time.Second, time.Minute} {
		virtual(t, func(t *testing.T) {
			f := newFleet(t, fast)
			defer f.leave()
			time.Sleep(5 * time.Second)
			acks, err := revokeBy(t, hidesAcks(f.cluster.Connect("command")), f.kid(1), within, nil)
			if err == nil || len(acks) > 0 || !strings.Contains(err.Error(), "no instance that holds the ring has confirmed it") {
				t.Errorf("within %v: %+v, %v", within, acks, err)
			}
		})
	}
}

// An instance that does not hold the ring of the tenant verifies none of its tokens. That it has read
// the entry in the log does not end the watch.
func TestAwaitWantsAHolder(t *testing.T) {
	for _, holder := range []bool{false, true} {
		t.Run(fmt.Sprint(holder), func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				f := newFleet(t, fast)
				time.Sleep(5 * time.Second)
				one := f.kid(1)
				other := join(t, f.cluster, "other", trusting, of(neighbours("acme", 1)...))
				defer other.leave()
				if holder {
					defer f.leave()
				} else {
					f.leave()
				}
				time.Sleep(time.Second)
				acks, err := revokeBy(t, f.cluster.Connect("command"), one, 5*time.Second, nil)
				if (err == nil) != holder || !holder && (len(acks) != 1 || !acks[0].Applied || acks[0].Instance != "other") {
					t.Errorf("%+v, %v", acks, err)
				}
			})
		})
	}
}

// neighbours returns n other tenants of the bucket.
func neighbours(tenant string, n int) (others []string) {
	for i := 0; len(others) < n; i++ {
		if other := fmt.Sprint("tenant-", i); rotation.BucketOf(other) == rotation.BucketOf(tenant) {
			others = append(others, other)
		}
	}
	return others
}

// An instance that was live before the write, and whose acknowledgement is gone since, is missing.
func TestAwaitMissesWhoWasThereBefore(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		b := join(t, f.cluster, "b", trusting)
		time.Sleep(5 * time.Second)
		b.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
		acks, err := revokeBy(t, f.cluster.Connect("command"), f.kid(1), time.Second, func() { f.cluster.ForgeAck(rotation.BucketOf("acme"), "b", nil) })
		if err == nil || !strings.Contains(err.Error(), "not applied it yet: b") || len(acks) != 2 {
			t.Errorf("%+v, %v", acks, err)
		}
		b.conn.SetFaults(rotationtest.Faults{})
		b.leave()
	})
}

// Where no service runs, a revocation is done after a poll.
func TestAwaitWhereNoServiceRuns(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		time.Sleep(5 * time.Second)
		one := f.kid(1)
		f.leave()
		begin := time.Now()
		acks, err := revokeBy(t, f.cluster.Connect("command"), one, time.Minute, nil)
		if took := time.Since(begin); err != nil || len(acks) > 0 || took > 2*time.Second {
			t.Errorf("%+v, %v, after %v", acks, err, took)
		}
	})
}

// A ring that is not whole takes a revocation, and instances acknowledge it.
func TestAwaitInRingThatIsNotWhole(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		time.Sleep(5 * time.Second)
		two := f.kid(2)
		f.cluster.EditRing("acme", func(fields map[string][]byte) { fields["k:junk"] = []byte("junk") })
		acks, err := revokeBy(t, f.cluster.Connect("command"), two, 10*time.Second, nil)
		if err != nil || len(acks) != 1 || !acks[0].Applied {
			t.Errorf("%+v, %v", acks, err)
		}
		if got := f.finds(two); got != "not found" {
			t.Errorf("the revoked key is %s", got)
		}
	})
}

// In a ring that is not whole for an instance, nothing but a revocation counts as applied.
func TestRotationInRingThatIsNotWholeIsNotApplied(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		time.Sleep(5 * time.Second)
		k := openStore(t, &deceivedStore{
			Store: f.cluster.Connect("x"),
			load: func(_ string, s *rotation.Snapshot) {
				s.Fields = maps.Clone(s.Fields)
				s.Fields["k:junk"] = []byte("junk")
			},
		}, trusting, func(c *rotation.Config) { c.Instance = "x" })
		defer k.Close(context.Background())
		receipt, err := f.rotator.Rotate(t.Context(), "acme", rotation.Force)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if s, err := k.Tenant("acme"); err != nil || !slices.ContainsFunc(s.Ring.Keys, func(k ring.Key) bool { return k.KID == receipt.Promoted && !k.ActivatesAt.After(time.Now()) }) {
			t.Errorf("it has not read the promotion: %+v, %v", s.Ring, err)
		}
		acks, err := f.rotator.Acks(t.Context(), receipt)
		for _, a := range acks {
			if a.Applied != (a.Instance != "x") {
				t.Errorf("%+v", a)
			}
		}
		if len(acks) != 2 || err != nil {
			t.Errorf("%+v, %v", acks, err)
		}
	})
}
