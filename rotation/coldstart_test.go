package rotation_test

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// With the default policy and settings, an instance that has nothing to go by is ready within 10 s. A
// service that sets Poll and Deadline waits for two of its own polls.
func TestColdStartTakesTwoPolls(t *testing.T) {
	for _, tt := range []struct {
		name        string
		set         func(*rotation.Config)
		least, most time.Duration
	}{
		{"default", derived, 9 * time.Second, 10 * time.Second},
		{"set", func(c *rotation.Config) { c.Poll, c.Deadline = 15*time.Second, 2*time.Second }, 40 * time.Second, 41 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				f := newDerivedFleet(t, ring.Policy{}, tt.set)
				first := f.kid(1)
				f.leave()
				d := f.cluster.Dump()
				time.Sleep(time.Hour)
				f.cluster.Restore(d) // Redis has started again
				began := time.Now()
				m := join(t, f.cluster, "again", tt.set, cold)
				defer m.leave()
				if err := m.WaitReady(t.Context()); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took < tt.least || took > tt.most {
					t.Errorf("ready after %v, want %v to %v", took, tt.least, tt.most)
				}
				if got := m.finds(first); got != "found" {
					t.Errorf("the key is %s", got)
				}
			})
		})
	}
}

// cold is a change of a Config that makes an instance recover after its start.
func cold(c *rotation.Config) { c.TrustFirstRead = false }

// A whole fleet is stopped properly, and started long after, while the store runs on: the first token
// of the new one verifies, and is signed, at once. The acknowledgement of those that ended is of no live
// instance. After the store has started again, and where it does not tell its run, it takes two polls.
func TestColdStartInTheSameRun(t *testing.T) {
	for _, tt := range []struct {
		name  string
		noRun bool
		again bool
		most  time.Duration
	}{
		{"the store runs on", false, false, 0},
		{"the store has started again", false, true, 10 * time.Second},
		{"the store does not tell", true, false, 10 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				f := newDerivedFleetOn(t, rotationtest.NewCluster(rotationtest.ClusterConfig{NoRun: tt.noRun}), ring.Policy{})
				time.Sleep(time.Minute)
				first := f.kid(1)
				f.leave()
				time.Sleep(12 * time.Hour)
				if tt.again {
					f.cluster.Failover(0)
				}
				began := time.Now()
				m := join(t, f.cluster, "again", derived, cold)
				defer m.leave()
				if err := m.WaitReady(t.Context()); err != nil {
					t.Fatal(err)
				}
				took := time.Since(began)
				if took > tt.most || took == 0 != (tt.most == 0) || m.finds(first) != "found" || m.signs() != nil {
					t.Errorf("ready after %v; the key is %s; Sign: %v", took, m.finds(first), m.signs())
				}
				if acks, err := m.rotator.Acks(t.Context(), rotation.Receipt{Tenant: "acme"}); err != nil || len(acks) > 1 {
					t.Errorf("the instances are %+v, %v", acks, err)
				}
			})
		})
	}
}

// The store is slow. An instance that ends leaves its word and removes its acknowledgement: each of the
// two calls has its own deadline.
func TestCloseOnASlowStore(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newDerivedFleet(t, ring.Policy{})
		time.Sleep(time.Minute)
		f.conn.SetFaults(rotationtest.Faults{Before: 600 * time.Millisecond}) // the deadline is 1 s
		if err := f.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
