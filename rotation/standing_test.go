package rotation_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// TestStatusLooksAtFew: Status looks at one ring of those that stand alike. It says the same as with a look at
// each, at every moment: when keys take effect, while the store is away for as long as any promise lasts, while
// the instance recovers, and after a revocation.
func TestStatusLooksAtFew(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		tenants := inOneBucket(4)
		longer := fast // the first of them, which stands for the others, signs for longer than they do
		longer.SignFor += 250 * time.Millisecond
		for _, tenant := range tenants {
			create(t, cluster, tenant, longer)
			longer = fast
		}
		m := join(t, cluster, "a", of())
		defer m.leave()
		defer m.run()()
		few, step := 0, 0
		watch := func(what string, d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); step++ {
				time.Sleep(37 * time.Millisecond)
				synctest.Wait()
				got, want := m.Status(), m.StatusOfEach()
				if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
					t.Fatalf("%s, at %v: %+v\nlooking at each: %+v", what, time.Now().Format("04:05.000"), got, want)
				}
				if m.LooksAt() == 1 {
					few++
				}
			}
		}
		watch("in sync", 30*time.Second)
		if few < step/10 {
			t.Errorf("it looks at one ring %d times of %d", few, step)
		}
		m.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
		watch("cut off", 12*time.Second)
		m.conn.SetFaults(rotationtest.Faults{})
		watch("recovering", 8*time.Second)
		s, err := m.Tenant(tenants[2])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.rotator.Revoke(t.Context(), tenants[2], s.SignsWith, rotation.Force); err != nil {
			t.Fatal(err)
		}
		watch("revoked", 10*time.Second)
	})
}

// inOneBucket returns the names of n tenants of one bucket.
func inOneBucket(n int) (tenants []string) {
	for i := 0; len(tenants) < n; i++ {
		if name := fmt.Sprint("tenant-", i); rotation.BucketOf(name) == 7 {
			tenants = append(tenants, name)
		}
	}
	slices.Sort(tenants)
	return tenants
}
