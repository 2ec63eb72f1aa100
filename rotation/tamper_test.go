package rotation_test

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// Whoever can write the store but has no KEK can delay, and no more.
func TestStoreIsTamperedWith(t *testing.T) {
	tests := []struct {
		name   string
		tamper func(f *fleet, fields map[string][]byte)
	}{
		{"a record is deleted", func(f *fleet, fields map[string][]byte) { delete(fields, "k:"+f.kid(2)) }},
		{"all is deleted", func(_ *fleet, fields map[string][]byte) { clear(fields) }},
		{"the tenant key is deleted", func(_ *fleet, fields map[string][]byte) {
			maps.DeleteFunc(fields, func(name string, _ []byte) bool { return strings.HasPrefix(name, "tk:") })
		}},
		{"a revocation is deleted", func(f *fleet, fields map[string][]byte) { delete(fields, "x:"+f.kid(3)) }},
		{"the head is garbled", func(_ *fleet, fields map[string][]byte) { fields["head"] = []byte("-7") }},
		{"the head is deleted", func(_ *fleet, fields map[string][]byte) { delete(fields, "head") }},
		{"publication is put back", func(f *fleet, fields map[string][]byte) { fields["p:"+f.kid(2)] = []byte("1") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				f := newFleet(t, fast)
				defer f.leave()
				time.Sleep(3600 * time.Millisecond)
				if _, err := f.rotator.SetPolicy(t.Context(), "acme", fast); err != nil {
					t.Fatal(err)
				}
				if err := errorOf(f.rotator.Revoke(t.Context(), "acme", f.kid(3))); err != nil {
					t.Fatal(err)
				}
				want := f.ring()
				f.cluster.EditRing("acme", func(fields map[string][]byte) { tt.tamper(f, fields) })
				time.Sleep(fast.Freshness)
				wantRing(t, f.member, want)
				if s := f.Status(); !s.Fresh {
					t.Errorf("after F: %+v", s)
				}
				// Whoever opens it now finds the same.
				fresh := join(t, f.cluster, "fresh", func(c *rotation.Config) { c.OneShot = true })
				defer fresh.leave()
				s, _ := fresh.Tenant("acme")
				if !strings.Contains(fresh.ring(), "3=revoked") || len(s.Ring.Keys) != 3 {
					t.Errorf("the store has %s", fresh.ring())
				}
			})
		})
	}
}

// Any byte of what is authenticated: the keys of the member that holds them go on,
// nobody takes what was changed, and what can be put back is.
func TestEveryByteIsAuthenticated(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		time.Sleep(3500 * time.Millisecond)
		if err := errorOf(f.rotator.Promote(t.Context(), "acme", f.kid(2))); err != nil {
			t.Error(err)
		}
		f.leave()
		original := f.cluster.Ring("acme")
		for _, name := range slices.Sorted(maps.Keys(original)) {
			if name == "head" || strings.HasPrefix(name, "p:") {
				continue
			}
			for i := range original[name] {
				f.cluster.EditRing("acme", func(fields map[string][]byte) {
					clear(fields)
					for n, v := range original {
						fields[n] = bytes.Clone(v)
					}
					fields[name][i] ^= 1 << (i % 8)
				})
				k, err := rotation.Open(t.Context(), f.cluster.Connect("x"), rotation.Config{KEKs: testKEK, Tenants: []string{"acme"}, Instance: "x", OneShot: true})
				if err != nil {
					continue // the wrong KEK, by name
				}
				s, _ := k.Tenant("acme")
				if s.Fresh || s.Err == nil {
					t.Errorf("byte %d of %s: nothing is noticed: %+v", i, name, s)
				}
				k.Close(t.Context())
			}
		}
	})
}

func TestRingOfAnotherTenantIsRefused(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		both := func(c *rotation.Config) { c.TrustFirstRead, c.Tenants = true, []string{"acme", "globex"} }
		m := join(t, cluster, "a", both)
		for _, tenant := range []string{"acme", "globex"} {
			if _, err := m.rotator.Create(t.Context(), tenant, fast); err != nil {
				t.Fatal(err)
			}
		}
		globex, _ := m.Tenant("globex")
		defer m.leave()
		stolen := cluster.Ring("globex")
		cluster.EditRing("acme", func(fields map[string][]byte) { maps.Copy(fields, stolen) })
		time.Sleep(fast.Freshness)
		if got := m.finds(globex.Ring.Keys[0].KID); got == "found" {
			t.Error("acme verifies a key of globex")
		}
		s, _ := m.Tenant("acme")
		if s.Fresh || !errors.Is(s.Err, rotation.ErrTampered) || s.Ring.Signer < 0 {
			t.Errorf("%+v", s)
		}
		if other, _ := m.Tenant("globex"); !other.Fresh {
			t.Errorf("globex suffers: %+v", other)
		}
	})
}

func TestOldRingIsReplayed(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		old := f.cluster.Ring("acme")
		time.Sleep(4 * time.Second)
		one := f.kid(1)
		if err := errorOf(f.rotator.Revoke(t.Context(), "acme", one)); err != nil {
			t.Fatal(err)
		}
		f.cluster.EditRing("acme", func(fields map[string][]byte) {
			clear(fields)
			maps.Copy(fields, old)
		})
		time.Sleep(fast.Freshness)
		if got := f.finds(one); got != "not found" {
			t.Errorf("the revoked key is %s", got)
		}
		later := join(t, f.cluster, "later", func(c *rotation.Config) { c.OneShot = true })
		defer later.leave()
		if got := later.finds(one); got != "not found" {
			t.Errorf("for a newcomer the revoked key is %s: the revocation was not put back", got)
		}
	})
}

// Keys that have retired, or were dropped or collected, do not come back as keys that are
// to sign, nor at all once they are gone, whoever puts back first what a store has lost that
// was emptied while everybody was cut off.
func TestRetiredKeyStaysRetired(t *testing.T) {
	for away := 4 * time.Second; away < 16*time.Second; away += time.Second {
		t.Run(away.String(), func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				f := newFleet(t, fast)
				stop := f.run()
				two := join(t, f.cluster, "b", func(c *rotation.Config) { c.TrustFirstRead = true })
				first := f.kid(1)
				time.Sleep(10500 * time.Millisecond)
				before, _ := f.Tenant("acme")
				if before.Ring.Keys[0].State != ring.Dropped {
					t.Fatalf("the first is not dropped: %s", f.ring())
				}
				time.Sleep(3500 * time.Millisecond)
				retired := map[string]ring.State{first: "collected"}
				for before, _ := f.Tenant("acme"); len(before.Ring.Keys) > 0; before.Ring.Keys = before.Ring.Keys[1:] {
					if k := before.Ring.Keys[0]; k.KID == first || k.State == ring.Retired || k.State == ring.Dropped {
						retired[k.KID] = k.State
					}
				}
				if retired[first] != "collected" {
					t.Fatalf("the first is not collected: %s", f.ring())
				}
				f.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
				two.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
				time.Sleep(away)
				held, _ := f.Tenant("acme")
				f.cluster.Wipe()
				f.conn.SetFaults(rotationtest.Faults{})
				two.conn.SetFaults(rotationtest.Faults{})
				time.Sleep(time.Second) // it is put back, and they are in doubt: nothing is collected
				for _, k := range held.Ring.Keys {
					if there := f.cluster.Ring("acme")["k:"+k.KID] != nil; there != (k.State != ring.Dropped) {
						t.Errorf("key %d was %s, and is put back: %v", k.Seq, k.State, there)
					}
				}
				time.Sleep(2 * time.Second)
				for _, m := range []*member{f.member, two} {
					after, _ := m.Tenant("acme")
					for _, k := range after.Ring.Keys {
						if was, is := retired[k.KID]; is && (k.State == ring.Pending || k.State == ring.Signing || was == "collected") {
							t.Errorf("key %d was %s, and is %s: %s", k.Seq, was, k.State, m.ring())
						}
					}
				}
				stop()
				two.leave()
				f.leave()
			})
		})
	}
}

// Undecryptable is not absent: error, wrong type or wrong KEK never lead to a key.
func TestNoKeyIsMintedWhereOneCannotBeOpened(t *testing.T) {
	other, err := rotation.NewKEKs([]byte("another KEK, another KEK, anothe"))
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(c *rotationtest.Cluster){
		"another KEK":  func(*rotationtest.Cluster) {},
		"a wrong type": func(c *rotationtest.Cluster) { c.SetWrongType("acme", true) },
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				f := newFleet(t, fast)
				f.leave()
				spoil(f.cluster)
				m := join(t, f.cluster, "stranger", func(c *rotation.Config) {
					c.KEKs, c.Tenants, c.AllowBootstrap, c.Policy, c.TrustFirstRead = other, []string{"acme", "globex"}, true, fast, true
				})
				defer m.leave()
				defer m.run()()
				time.Sleep(time.Minute)
				f.mu.Lock()
				defer f.mu.Unlock()
				for _, c := range f.commits {
					if c.Tenant == "acme" && c.Instance == "stranger" {
						t.Errorf("it made a %s of acme", c.Op)
					}
				}
				if s, _ := m.Tenant("globex"); s.Ring.Signer < 0 || !s.Fresh {
					t.Errorf("the tenant beside it: %+v", s)
				}
				if s, _ := m.Tenant("acme"); s.Fresh || s.Err == nil {
					t.Errorf("acme: %+v", s)
				}
			})
		})
	}
}
