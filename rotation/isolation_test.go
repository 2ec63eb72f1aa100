package rotation_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// The demands of one ring are not made on others, and a fault of one instance is not a fault of all.

// TestRingWhosePollIsTooRareIsAlone: a ring needs a shorter Poll than the Config gives. Only that ring
// is out of sync.
func TestRingWhosePollIsTooRareIsAlone(t *testing.T) {
	virtual(t, func(t *testing.T) {
		slow := ring.Policy{MaxTokenTTL: time.Minute, SignFor: 10 * time.Minute} // F is 60s
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		m := join(t, cluster, "a", of("acme", "short"), func(c *rotation.Config) {
			c.TrustFirstRead, c.Poll, c.Deadline = true, 10*time.Second, time.Second
		})
		defer m.leave()
		if _, err := m.rotator.Create(t.Context(), "acme", slow); err != nil {
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

// besides returns a tenant of the same bucket.
func besides(tenant string) string {
	for i := 0; ; i++ {
		if n := fmt.Sprint("tenant-", i); rotation.BucketOf(n) == rotation.BucketOf(tenant) {
			return n
		}
	}
}

// A ring in the same bucket that allows clocks to differ by less than they do.
func TestClockIsOffForOneRingAlone(t *testing.T) {
	virtual(t, func(t *testing.T) {
		exact, neighbour := fast, besides("acme")
		exact.ClockSkew = time.Millisecond
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		m := join(t, cluster, "a", trusting, of("acme", neighbour), func(c *rotation.Config) {
			c.Now = func() time.Time { return time.Now().Add(100 * time.Millisecond) }
		})
		defer m.leave()
		if _, err := m.rotator.Create(t.Context(), "acme", fast); err != nil {
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

// What is asked for does not wait until the next nudge may be followed, and one poll
// puts back the rings of as many tenants as there are.
func TestManyTenants(t *testing.T) {
	const n = 300 // more than are loaded at once
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		m := join(t, cluster, "a", trusting, of())
		defer m.leave()
		began := time.Now()
		for i := range n {
			if _, err := m.rotator.Create(t.Context(), fmt.Sprint("tenant-", i), fast); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("%d tenants were created in %v, on a store that takes no time", n, took)
		}
		cluster.Wipe()
		time.Sleep(fastPoll*6/5 + fastDeadline)
		if rings := cluster.Tenants(); len(rings) != n {
			t.Errorf("within W %d rings of %d are put back", len(rings), n)
		}
	})
}
