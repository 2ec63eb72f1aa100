package rotation_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// public is a policy whose keys others read.
var public = ring.Policy{
	Algorithm: keystore.ES256, Every: time.Minute, Propagation: 40 * time.Second, MaxTokenTTL: 10 * time.Second, Leeway: time.Second,
	ClockSkew: 250 * time.Millisecond, Freshness: 2250 * time.Millisecond, Dwell: time.Second, SignFor: 30 * time.Second,
	ReaderStaleness: 36 * time.Second,
}

// published returns the seqs of the public keys, in their order.
func (m *member) published() string {
	m.t.Helper()
	keys, _, err := m.PublicKeys(m.t.Context(), "acme")
	if err != nil {
		return err.Error()
	}
	s, _ := m.Tenant("acme")
	seqs := []int{}
	for _, k := range keys {
		i := slices.IndexFunc(s.Ring.Keys, func(r ring.Key) bool { return r.KID == k.ID().KID })
		seqs = append(seqs, s.Ring.Keys[i].Seq)
	}
	return fmt.Sprint(seqs)
}

// Keys are published from when they are pending until the last reader's clock has seen
// them dropped, in the order in which they sign.
func TestPublicKeysOfOneLife(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, public)
		defer f.leave()
		began := time.Now()
		want := func(at time.Duration, want string) {
			t.Helper()
			time.Sleep(time.Until(began.Add(at)))
			if got := f.published(); got != want {
				t.Errorf("after %v: %s, want %s (%s)", at, got, want, f.ring())
			}
		}
		set := func() {
			t.Helper()
			if _, err := f.rotator.SetPolicy(t.Context(), "acme", public); err != nil {
				t.Fatal(err)
			}
		}
		const dropped = time.Minute + 11*time.Second // the first
		want(0, "[1 2]")
		time.Sleep(4 * time.Second)
		set()
		time.Sleep(4 * time.Second)
		set()
		want(10*time.Second, "[1 2 3 4]")
		want(time.Minute-1, "[1 2 3 4]")
		want(time.Minute, "[1 2 3 4]")
		if got := f.ring(); got != "1=retired 2=signing* 3=pending 4=pending" {
			t.Errorf("the ring is %s", got)
		}
		want(dropped, "[1 2 3 4]")
		want(dropped+2*public.ClockSkew-1, "[1 2 3 4]")
		want(dropped+2*public.ClockSkew, "[2 3 4]")
		for _, seq := range []int{2, 4} { // signing, and pending
			if err := errorOf(f.rotator.Revoke(t.Context(), "acme", f.kid(seq))); err != nil {
				t.Fatal(err)
			}
		}
		want(dropped+time.Second, "[3]")
		if keys, _, _ := f.PublicKeys(t.Context(), "acme"); len(keys) != 1 || !keys[0].Usable(time.Now()) {
			t.Errorf("%v", keys)
		}
	})
}

// How long readers may keep the set is a quarter of what ReaderStaleness leaves.
func TestOldPublicKeysMayBeCachedForLess(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, public)
		defer f.leave()
		f.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
		good := f.Status().LastGood
		for _, tt := range []struct {
			old, want time.Duration
		}{
			{0, 9 * time.Second},
			{public.Freshness, 9 * time.Second},
			{public.Freshness + 1, 8 * time.Second}, // whole seconds
			{public.Freshness + 4*time.Second, 8 * time.Second},
			{public.Freshness + 8*time.Second, 7 * time.Second},
			{public.SignFor, 2 * time.Second},
		} {
			time.Sleep(time.Until(good.Add(tt.old)))
			if _, got, err := f.PublicKeys(t.Context(), "acme"); err != nil || got != tt.want {
				t.Errorf("%v after the last good sync: %v, %v, want %v", tt.old, got, err, tt.want)
			}
		}
		time.Sleep(time.Nanosecond)
		if keys, _, err := f.PublicKeys(t.Context(), "acme"); !errors.Is(err, keystore.ErrUnavailable) || keys != nil {
			t.Errorf("beyond SignFor: %v, %v", keys, err)
		}
		f.conn.SetFaults(rotationtest.Faults{})
	})
}

// There are none is another answer than that it cannot be told.
func TestNoPublicKeys(t *testing.T) {
	for _, tt := range []struct {
		name   string
		policy ring.Policy
		tenant string
		change func(*rotation.Config)
		want   error
	}{
		{"secrets", fast, "acme", trusting, keystore.ErrNotFound},
		{"a tenant that is not held", public, "globex", trusting, keystore.ErrNotFound},
		{"a tenant that nobody knows, of all", public, "globex", func(c *rotation.Config) { c.TrustFirstRead, c.Tenants = true, nil }, keystore.ErrUnavailable},
		{"no ring yet", public, "globex", func(c *rotation.Config) { c.TrustFirstRead, c.Tenants = true, []string{"acme", "globex"} }, keystore.ErrUnavailable},
		{"in doubt", public, "acme", func(*rotation.Config) {}, keystore.ErrUnavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				f := newFleet(t, tt.policy)
				f.leave()
				m := join(t, f.cluster, "b", tt.change)
				defer m.leave()
				keys, maxAge, err := m.PublicKeys(t.Context(), tt.tenant)
				if !errors.Is(err, tt.want) || errors.Is(err, keystore.ErrNotFound) != (tt.want == keystore.ErrNotFound) || keys != nil || maxAge != 0 {
					t.Errorf("%v, %v, %v; want %v", keys, maxAge, err, tt.want)
				}
			})
		})
	}
}
