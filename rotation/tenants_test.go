package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// finder returns the key of a kid that m finds, or the error.
func (m *member) finder(tenant, kid string) (*keystore.Key, error) {
	keys, err := m.Lookup(keystore.ID{Tenant: tenant, KID: kid}, fast.Algorithm)
	if err != nil {
		return nil, err
	}
	return keys[0], nil
}

// signing returns the kid of the key that signs for a tenant.
func (m *member) signing(tenant string) string {
	m.t.Helper()
	s, err := m.Tenant(tenant)
	if err != nil || s.Ring.Signer < 0 {
		m.t.Fatalf("%s: %v, %+v", tenant, err, s.Ring)
	}
	return s.Ring.Keys[s.Ring.Signer].KID
}

// Tenants come and go while a keyring is in use, also those of buckets that it has not read before.
func TestAddAndRemove(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		all := []string{"acme", "globex", "initech"}
		owner := join(t, cluster, "owner", trusting, of(all...))
		defer owner.leave()
		for _, tenant := range all {
			if _, err := owner.rotator.Create(t.Context(), tenant, fast); err != nil {
				t.Fatal(err)
			}
		}
		m := join(t, cluster, "m", trusting, of("acme"))
		defer m.leave()
		time.Sleep(time.Second)
		if _, err := m.finder("globex", owner.signing("globex")); !errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("a tenant that is not held: %v", err)
		}
		if err := m.Add(t.Context(), "globex", "initech", "acme"); err != nil {
			t.Fatal(err)
		}
		if got := m.Tenants(); !slices.Equal(got, all) {
			t.Errorf("tenants %q", got)
		}
		key, err := m.finder("globex", owner.signing("globex"))
		if err != nil || !key.Usable(time.Now()) {
			t.Fatalf("a tenant that was added: %v", err)
		}
		if _, err := m.signer.Sign(t.Context(), "globex", nil); err != nil {
			t.Errorf("it does not sign: %v", err)
		}
		m.Remove("globex", "unknown")
		if _, err := m.finder("globex", owner.signing("globex")); !errors.Is(err, keystore.ErrNotFound) || key.Usable(time.Now()) || key.Verify(nil, nil) {
			t.Errorf("a tenant that was removed: %v, usable %v", err, key.Usable(time.Now()))
		}
		if _, err := m.signer.Sign(t.Context(), "globex", nil); !errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("it signs for the tenant: %v", err)
		}
		time.Sleep(2 * fast.Freshness)
		if s := m.Status(); !s.Fresh || s.Tenants != 2 || !slices.Equal(m.Tenants(), []string{"acme", "initech"}) {
			t.Errorf("%+v, %q", s, m.Tenants())
		}
		if err := m.Add(t.Context(), "globex"); err != nil {
			t.Error(err)
		}
		if key, err := m.finder("globex", owner.signing("globex")); err != nil || !key.Usable(time.Now()) {
			t.Errorf("a tenant that was added again: %v", err)
		}
		m.Remove(all...)
		if err := m.Add(t.Context(), ""); err == nil || len(m.Tenants()) > 0 {
			t.Errorf("no name: %v, %q", err, m.Tenants())
		}
	})
}

// A tenant is removed while its ring is being read. What the read brings verifies nothing.
func TestRemoveDuringRead(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		m := join(t, f.cluster, "m", trusting)
		defer m.leave()
		key, err := m.finder("acme", f.kid(1))
		if err != nil {
			t.Fatal(err)
		}
		for n := range 20 {
			m.conn.SetFaults(rotationtest.Faults{Before: time.Duration(n) * 3 * time.Millisecond, After: 20 * time.Millisecond})
			m.Remove("acme")
			done := make(chan error)
			go func() { done <- m.Add(t.Context(), "acme") }()
			usable := (func() bool)(nil)
			for usable = rotation.KeysOf(m.Keyring, "acme"); usable == nil; usable = rotation.KeysOf(m.Keyring, "acme") {
				time.Sleep(time.Millisecond)
			}
			time.Sleep(time.Duration(n) * 3 * time.Millisecond)
			m.Remove("acme")
			<-done
			time.Sleep(200 * time.Millisecond)
			if found, err := m.finder("acme", f.kid(1)); err == nil || key.Usable(time.Now()) || usable() {
				t.Fatalf("%d: finds %v; a key of the ring is usable: %v", n, found, usable())
			}
		}
	})
}

// Tenants are added and removed by several goroutines, while others look for keys and rotate them.
func TestAddAndRemoveConcurrently(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		for n := range 8 {
			create(t, f.cluster, fmt.Sprint("t", n), fast)
		}
		m := join(t, f.cluster, "m", trusting)
		defer m.leave()
		stop := m.run()
		var wg sync.WaitGroup
		for n := range 8 {
			wg.Go(func() {
				for range 20 {
					tenant := fmt.Sprint("t", n)
					if err := m.Add(t.Context(), tenant); err != nil {
						t.Error(err)
					}
					_ = m.Status()
					key, _ := m.finder(tenant, m.signing(tenant))
					m.Remove(tenant)
					if key == nil || key.Usable(time.Now()) {
						t.Errorf("%s: removed, and its key is %v", tenant, key)
					}
					time.Sleep(time.Duration(n) * time.Millisecond)
				}
			})
		}
		wg.Wait()
		stop()
		if got := m.Tenants(); !slices.Equal(got, []string{"acme"}) {
			t.Errorf("tenants %q", got)
		}
	})
}

// A tenant that is added while the store is away is held all the same, and read when it is back. A
// keyring of all tenants needs no Add, and Remove does nothing to it.
func TestAddWhileStoreIsAway(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		create(t, f.cluster, "globex", fast)
		m := join(t, f.cluster, "m", trusting)
		defer m.leave()
		m.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.BlackHole})
		if err := m.Add(t.Context(), "globex"); !errors.Is(err, keystore.ErrUnavailable) {
			t.Errorf("the store is away: %v", err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := m.Add(ended, "globex"); !errors.Is(err, context.Canceled) {
			t.Errorf("ctx has ended: %v", err)
		}
		m.conn.SetFaults(rotationtest.Faults{})
		time.Sleep(4 * time.Second)
		if s, err := m.Tenant("globex"); err != nil || !s.Fresh {
			t.Errorf("the store is back: %+v, %v", s, err)
		}
		all := join(t, f.cluster, "all", trusting, func(c *rotation.Config) { c.Tenants = nil })
		defer all.leave()
		all.Remove("acme")
		if err := all.Add(t.Context(), "acme", "nobody"); err != nil || !slices.Equal(all.Tenants(), []string{"acme", "globex"}) {
			t.Errorf("all tenants: %q, %v", all.Tenants(), err)
		}
	})
}
