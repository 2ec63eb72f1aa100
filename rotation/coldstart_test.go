package rotation_test

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
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
