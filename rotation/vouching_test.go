package rotation_test

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// An instance that was away itself has no say about what the store may have lost
// meanwhile.
func TestInstanceThatWasAwayDoesNotVouch(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		b := join(t, f.cluster, "b", trusting)
		defer b.leave()
		time.Sleep(3 * time.Second)
		b.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
		time.Sleep(3 * time.Second)
		if _, err := f.rotator.SetPolicy(t.Context(), "acme", fast); err != nil { // b does not hear of it
			t.Fatal(err)
		}
		third := f.kid(3)
		f.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
		f.cluster.Failover(time.Second) // and that is lost, but for f
		time.Sleep(fastDeadline)
		b.conn.SetFaults(rotationtest.Faults{})
		for s, _ := b.Tenant("acme"); !s.InDoubt; s, _ = b.Tenant("acme") {
			time.Sleep(5 * time.Millisecond)
		}
		cold := join(t, f.cluster, "cold")
		defer cold.leave()
		if s, _ := cold.Tenant("acme"); !s.InDoubt || cold.finds(third) != "unavailable" {
			t.Errorf("in doubt: %v; the lost key is %s", s.InDoubt, cold.finds(third))
		}
		f.conn.SetFaults(rotationtest.Faults{})
		f.leave()
	})
}

// For how long an acknowledgement vouches follows from the rings that are read, which
// are not known when it is asked for.
func TestOldAcknowledgementDoesNotVouchForShortFreshness(t *testing.T) {
	const w = 2250*time.Millisecond/4*6/5 + 75*time.Millisecond // derived from fast
	for _, tt := range []struct {
		name  string
		old   time.Duration
		doubt bool
	}{
		{"within W", w - time.Millisecond, false},
		{"beyond W", w, true},
		{"within the W of no ring", 15 * time.Second, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				f := newDerivedFleetOn(t, rotationtest.NewCluster(rotationtest.ClusterConfig{NoRun: true}), fast)
				time.Sleep(10 * time.Second)
				if err := f.Reload(t.Context(), "acme"); err != nil {
					t.Fatal(err)
				}
				dump := f.cluster.Dump()
				f.conn.Disconnect()
				defer f.Close(t.Context())
				time.Sleep(tt.old)
				f.cluster.Restore(dump)
				cold := join(t, f.cluster, "cold", func(c *rotation.Config) { c.Poll, c.Deadline = 0, 0 })
				defer cold.leave()
				if s, _ := cold.Tenant("acme"); s.InDoubt != tt.doubt {
					t.Errorf("an acknowledgement %v old: in doubt %v", tt.old, s.InDoubt)
				}
			})
		})
	}
}
