package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// A key that is known to be revoked is a bad token at once (401), whatever the store does: asking
// it cannot change the answer.
func TestKnownRevocationNeedsNoStore(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		time.Sleep(5 * time.Second) // the second key is known everywhere
		one := keystore.ID{Tenant: "acme", KID: f.kid(1)}
		if _, err := f.rotator.Revoke(t.Context(), "acme", one.KID); err != nil {
			t.Fatal(err)
		}
		f.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.BlackHole})
		time.Sleep(fast.SignFor + fast.MaxTokenTTL + fast.Leeway + time.Second) // nothing is in sync any more
		began := time.Now()
		err := f.Refresh(t.Context(), one)
		if !errors.Is(err, keystore.ErrNotFound) || errors.Is(err, keystore.ErrUnavailable) {
			t.Errorf("Refresh: %v, want ErrNotFound alone", err)
		}
		if waited := time.Since(began); waited != 0 {
			t.Errorf("it waited for %v", waited)
		}
		if got := f.finds(one.KID); got != "not found" {
			t.Errorf("Lookup says %s", got)
		}
		f.conn.SetFaults(rotationtest.Faults{})
	})
}

// Where the store cannot be asked, a token with an unknown kid may be good: 503. That is so for the
// fourth token too, after three refreshes have used the budget up.
func TestUnknownKidWhileStoreFails(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		time.Sleep(time.Second)
		f.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
		for n := range 6 {
			id := keystore.ID{Tenant: "acme", KID: fmt.Sprint("new-", n)}
			if err := f.Refresh(t.Context(), id); !errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, keystore.ErrNotFound) {
				t.Errorf("token %d: %v, want ErrUnavailable alone", n+1, err)
			}
		}
		if !f.Status().Fresh {
			t.Error("the instance is no longer in sync, so this test shows nothing")
		}
		f.conn.SetFaults(rotationtest.Faults{})
	})
}

// Each request that waits holds a request of the service open, so their number is bounded.
func TestWaitersAreBounded(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		f.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.BlackHole})
		var mu sync.Mutex
		var wg sync.WaitGroup
		most, refused := 0, 0
		began := time.Now()
		for n := range 10_000 {
			wg.Go(func() {
				err := f.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: fmt.Sprint("new-", n)})
				mu.Lock()
				defer mu.Unlock()
				if !errors.Is(err, keystore.ErrUnavailable) {
					t.Errorf("%v", err)
				}
				if time.Since(began) == 0 {
					refused++
				} else {
					most++
				}
			})
		}
		wg.Wait()
		f.conn.SetFaults(rotationtest.Faults{})
		if most == 0 || most > 4096 || refused != 10_000-most {
			t.Errorf("%d waited, %d were answered at once; want at most 4096 to wait", most, refused)
		}
	})
}

// Unknown kids of many tenants together cause a bounded number of syncs, too.
func TestUnknownKidsOfAllTenants(t *testing.T) {
	virtual(t, func(t *testing.T) {
		var names []string
		for n := range 2000 {
			names = append(names, fmt.Sprint("tenant-", n))
		}
		m := join(t, rotationtest.NewCluster(rotationtest.ClusterConfig{}), "a", trusting, of(names...))
		defer m.leave()
		for _, name := range names {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_ = m.Refresh(ctx, keystore.ID{Tenant: name, KID: "new"})
			go m.Refresh(t.Context(), keystore.ID{Tenant: name, KID: "new"})
		}
		synctest.Wait()
		time.Sleep(time.Second)
		if n := m.Status().Counts.Refreshes; n < 100 || n > 500 {
			t.Errorf("unknown kids of 2000 tenants caused %d refreshes in a second, want 100 to 500", n)
		}
	})
}

// A revocation holds in the process that made it once Revoke has returned, even if the store cannot
// be read again: the verifier's cache asks the key itself.
func TestRevokeHoldsHereAtOnce(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		time.Sleep(5 * time.Second)
		one := keystore.ID{Tenant: "acme", KID: f.kid(1)}
		ctx, cancel := context.WithCancel(t.Context())
		store := &faultyStore{Store: f.conn, wrote: cancel} // the caller gives up as soon as it is made
		k := openStore(t, store, trusting)
		defer k.Close(context.Background())
		keys, err := k.Lookup(one, "HS256")
		if err != nil {
			t.Fatal(err)
		}
		r, err := rotation.NewRotator(k)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Revoke(ctx, "acme", one.KID); err != nil {
			t.Fatal(err)
		}
		if keys[0].Usable(time.Now()) {
			t.Error("the key is usable after Revoke has returned")
		}
	})
}
