package rotation_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
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

// TestUnreadableFromTheStart: every field of a ring is rubbish when an instance starts, and the other rings of
// its bucket are as they were. That ring is not ready, says why, and its tokens are 503 and not 401. It takes
// the others nothing.
func TestUnreadableFromTheStart(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		tenants := inOneBucket(3)
		for _, tenant := range tenants {
			create(t, cluster, tenant, fast)
		}
		spoilt, good := tenants[0], tenants[1]
		cluster.EditRing(spoilt, func(fields map[string][]byte) {
			for field := range fields {
				fields[field] = []byte("rubbish")
			}
		})
		for _, of := range []func(*rotation.Config){of(), of(tenants...)} {
			m := join(t, cluster, "a", of)
			for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
				time.Sleep(111 * time.Millisecond)
				synctest.Wait()
				s, err := m.Tenant(spoilt)
				if err != nil || s.Ready || s.CanVerify || s.CanSign || s.Fresh || !errors.Is(s.Err, keystore.ErrUnavailable) {
					t.Fatalf("%+v, %v", s, err)
				}
				if err := m.Ready(spoilt); !errors.Is(err, keystore.ErrUnavailable) {
					t.Fatalf("it is ready: %v", err)
				}
				if _, err := m.Lookup(keystore.ID{Tenant: spoilt, KID: "k"}, keystore.HS256); !errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, keystore.ErrNotFound) {
					t.Fatalf("a token is refused: %v", err)
				}
				if got, want := m.Status(), m.StatusOfEach(); fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
					t.Fatalf("%+v\nlooking at each: %+v", got, want)
				}
			}
			if s, _ := m.Tenant(spoilt); !s.Unreadable {
				t.Errorf("it is not called unreadable: %+v", s)
			}
			if s := m.Status(); !s.Ready || !s.CanVerify || s.Fresh || s.Err == nil || m.Ready(good) != nil {
				t.Errorf("the others: %+v, %v", s, m.Ready(good))
			}
			m.leave()
		}
	})
}

// TestDueWhileOutOfReach: a key falls due while its only instance cannot reach the store, for a moment or for
// long. The rotator looks at the ring again, and makes the key once it can.
func TestDueWhileOutOfReach(t *testing.T) {
	for _, away := range []time.Duration{400 * time.Millisecond, 1500 * time.Millisecond, 3 * time.Second, 10 * time.Second} {
		for before := time.Duration(0); before < 400*time.Millisecond; before += 100 * time.Millisecond {
			virtual(t, func(t *testing.T) {
				cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
				create(t, cluster, "acme", fast)
				m := join(t, cluster, "a")
				defer m.leave()
				defer m.run()()
				first := len(cluster.Ring("acme"))
				time.Sleep(fast.Every - before)
				m.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.BlackHole})
				time.Sleep(away)
				m.conn.SetFaults(rotationtest.Faults{})
				time.Sleep(4 * time.Second)
				s, err := m.Tenant("acme")
				if keys := len(cluster.Ring("acme")); err != nil || !s.CanSign || keys <= first {
					t.Errorf("away for %v, %v before it was due: %d fields of %d, %+v, %v", away, before, keys, first, s, err)
				}
			})
		}
	}
}
