package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// More changes of a bucket between two polls than an acknowledgement has room for do not keep a
// revocation from being acknowledged.
func TestRevocationAmongManyChangesIsAcknowledged(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		one := f.kid(1)
		f.leave()
		all := join(t, f.cluster, "all", trusting, of())
		defer all.leave()
		time.Sleep(5 * time.Second)
		all.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
		acks, err := revokeBy(t, f.cluster.Connect("command"), one, 10*time.Second, func() {
			for _, other := range neighbours("acme", 40) {
				create(t, f.cluster, other, fast)
			}
			all.conn.SetFaults(rotationtest.Faults{})
		})
		if err != nil || len(acks) != 1 || !acks[0].Applied {
			t.Errorf("%+v, %v", acks, err)
		}
	})
}

// A person garbles a field, and acknowledgements so that they look like those of instances with
// another KEK. The revocation is made all the same.
func TestRevocationIsNotRefusedForGarbledAcks(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		time.Sleep(5 * time.Second)
		two := f.kid(2)
		store := &deceivedStore{Store: f.cluster.Connect("command"), acks: func(all []rotation.RawAck) []rotation.RawAck {
			for i := range all {
				all[i].Sealed = garbleKEK(all[i].Sealed)
			}
			return all
		}}
		f.cluster.EditRing("acme", func(fields map[string][]byte) { fields["k:junk"] = []byte("junk") })
		_, err := revokeBy(t, store, two, time.Second, nil)
		if err == nil || !strings.Contains(err.Error(), "not applied it yet") {
			t.Errorf("the watch ends with %v, although no acknowledgement can be read", err)
		}
		if got := f.finds(two); got != "not found" {
			t.Errorf("the revoked key is %s", got)
		}
	})
}

// garbleKEK returns an acknowledgement that names a KEK which nobody has.
func garbleKEK(sealed []byte) []byte {
	b, id := append([]byte(nil), sealed...), testKEK.IDs()[0]
	b[strings.Index(string(b), id)+len(id)] ^= 1
	return b
}

// While a KEK is rolled out, and no acknowledgement can be read at all, a revocation is made, and the
// key that it mints is sealed under the tenant key of the ring.
func TestRevocationDuringRolloutNeedsNoAcks(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		_, _, swapped, _ := twoKEKs(t)
		time.Sleep(5 * time.Second)
		store := &failingAcks{Store: f.cluster.Connect("command")}
		k := openStore(t, store, once, with(swapped))
		defer k.Close(context.Background())
		r, err := rotation.NewRotator(k)
		if err != nil {
			t.Fatal(err)
		}
		store.err = errors.New("WRONGTYPE")
		if _, err := r.Rotate(t.Context(), "acme", rotation.Force); err == nil {
			t.Error("a key was minted, although it is not known under which KEK")
		}
		receipt, err := r.Revoke(t.Context(), "acme", f.kid(1), rotation.Force)
		if err != nil || receipt.CommittedAt.IsZero() {
			t.Fatal(receipt, err)
		}
		if n := tenantKeys(f.cluster); n != 1 {
			t.Errorf("%d tenant keys", n)
		}
		time.Sleep(time.Second)
		if got := f.finds(f.kid(1)); got != "not found" {
			t.Errorf("the revoked key is %s", got)
		}
	})
}

// In a ring that is not whole, and has tenant keys under two KEKs, a revocation is sealed under that of
// the newest record: an instance may lack the other one soon.
func TestRevocationIsSealedUnderTheNewestTenantKey(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		_, both, swapped, alone := twoKEKs(t)
		for _, keks := range []*rotation.KEKs{both, swapped} {
			if err := f.SetKEKs(keks); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		time.Sleep(fast.Every)
		receipt, _ := f.rotator.Rotate(t.Context(), "acme") // refused, since no key is pending, and mints one
		if receipt.Minted == "" || tenantKeys(f.cluster) != 2 {
			t.Fatal(receipt, tenantKeys(f.cluster))
		}
		f.cluster.EditRing("acme", func(fields map[string][]byte) { fields["k:junk"] = []byte("junk") })
		k := openStore(t, f.cluster.Connect("command"), once, with(both))
		defer k.Close(context.Background())
		r, err := rotation.NewRotator(k)
		if err != nil {
			t.Fatal(err)
		}
		if err := errorOf(r.Revoke(t.Context(), "acme", f.kid(1))); err != nil {
			t.Fatal(err)
		}
		if sealed := f.cluster.Ring("acme")["x:"+f.kid(1)]; !strings.Contains(string(sealed), alone.IDs()[0]) {
			t.Errorf("the revocation is sealed under an older KEK: %q", sealed)
		}
	})
}

// failingAcks is a store that can be made to tell no acknowledgement.
type failingAcks struct {
	rotation.Store
	err error
}

func (s *failingAcks) Acks(ctx context.Context, bucket int) ([]rotation.RawAck, time.Time, error) {
	if s.err != nil {
		return nil, time.Time{}, s.err
	}
	return s.Store.Acks(ctx, bucket)
}

// Where nothing of a ring can be opened, the KEKs of the process may be those of another service. So it
// takes force, whatever the acknowledgements say.
func TestRevocationInRingThatCannotBeOpened(t *testing.T) {
	for _, hidden := range []bool{false, true} {
		t.Run(fmt.Sprint(hidden), func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				f := newFleet(t, fast)
				defer f.leave()
				time.Sleep(5 * time.Second)
				two := f.kid(2)
				f.conn.SetFaults(rotationtest.Faults{ReadOnly: true}) // it puts nothing back meanwhile
				f.cluster.EditRing("acme", func(fields map[string][]byte) {
					for name := range fields {
						fields[name] = []byte("junk")
					}
				})
				store := &deceivedStore{Store: f.cluster.Connect("command")}
				if hidden {
					store = hidesAcks(store.Store)
				}
				k := openStore(t, store, once)
				defer k.Close(context.Background())
				r, err := rotation.NewRotator(k)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := r.Revoke(t.Context(), "acme", two); !errors.Is(err, rotation.ErrRefused) || !strings.Contains(err.Error(), "nothing of its ring can be opened") {
					t.Errorf("not forced: %v, want refused", err)
				}
				if _, err := r.Revoke(t.Context(), "acme", two, rotation.Force); err != nil {
					t.Errorf("forced: %v", err)
				}
				f.conn.SetFaults(rotationtest.Faults{})
			})
		})
	}
}

// The log tells of a revocation of a tenant whose ring a person has removed. It holds when a holder
// puts the ring back.
func TestRevocationOfRemovedRingIsKept(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		time.Sleep(5 * time.Second)
		one, before := f.kid(1), f.cluster.Ring("acme")
		if err := errorOf(f.rotator.Revoke(t.Context(), "acme", one)); err != nil {
			t.Fatal(err)
		}
		f.leave()
		f.cluster.DeleteRing("acme")
		all := join(t, f.cluster, "all", trusting, of())
		defer all.leave()
		time.Sleep(time.Second)
		if n := all.Tenants(); len(n) > 0 {
			t.Errorf("tenants %q", n)
		}
		if _, err := f.cluster.Connect("x").Write(t.Context(), rotation.Change{Tenant: "acme", Set: before, Op: "list", Nonce: "n"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got := all.finds(one); got != "not found" {
			t.Errorf("the revoked key is %s", got)
		}
	})
}

// Many such tenants do not accumulate: the 64 of a bucket stay that the log has told of last.
func TestRevocationsOfRemovedRingsAreBounded(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		first := join(t, cluster, "first", trusting, of())
		tenants := neighbours("acme", 104)
		kids := make([]string, len(tenants))
		for i, tenant := range tenants {
			receipt, err := first.rotator.Create(t.Context(), tenant, fast)
			if err != nil {
				t.Fatal(err)
			}
			kids[i] = receipt.Minted
		}
		for i, tenant := range tenants { // the log keeps 100 entries, so it forgets how the rings were made
			if err := errorOf(first.rotator.Revoke(t.Context(), tenant, kids[i], rotation.Force)); err != nil {
				t.Fatal(err)
			}
		}
		last, kid := tenants[len(tenants)-1], kids[len(kids)-1]
		fields := cluster.Ring(last)
		delete(fields, "x:"+kid)
		first.leave()
		for _, tenant := range tenants {
			cluster.DeleteRing(tenant)
		}
		all := join(t, cluster, "all", trusting, of())
		defer all.leave()
		time.Sleep(time.Second)
		if got, want := fmt.Sprint(all.Keyring), "keyring of 64 tenants"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if _, err := cluster.Connect("x").Write(t.Context(), rotation.Change{Tenant: last, Set: fields, Op: "list", Nonce: "n"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if _, err := all.Lookup(keystore.ID{Tenant: last, KID: kid}, keystore.HS256); !errors.Is(err, keystore.ErrRevoked) {
			t.Errorf("the key that was revoked last: %v", err)
		}
	})
}

// A command that has made a change of any kind restores the ring while it watches.
func TestAwaitRestoresARekeyedRing(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		_, both, swapped, _ := twoKEKs(t)
		if err := f.SetKEKs(both); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if err := f.SetKEKs(swapped); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		admin := join(t, f.cluster, "admin", once, with(swapped))
		defer admin.leave()
		report, receipt, err := admin.rotator.Rekey(t.Context(), "acme")
		if err != nil || !report.Changed || receipt.CommittedAt.IsZero() {
			t.Fatal(report, receipt, err)
		}
		f.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused}) // it restores nothing
		f.cluster.DeleteRing("acme")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := admin.rotator.Await(ctx, receipt); err == nil {
			t.Error("the ring was lost, and Await says nothing")
		}
		if len(f.cluster.Ring("acme")) == 0 {
			t.Error("the command has not restored the ring")
		}
		f.conn.SetFaults(rotationtest.Faults{})
	})
}

// Await waits for the instances after Create too.
func TestAwaitCreate(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		a := join(t, cluster, "a", trusting)
		defer a.leave()
		time.Sleep(2 * time.Second)
		admin := join(t, cluster, "admin", once)
		defer admin.leave()
		receipt, err := admin.rotator.Create(t.Context(), "acme", fast)
		if err != nil {
			t.Fatal(err)
		}
		acks, err := admin.rotator.Await(t.Context(), receipt)
		if err != nil || len(acks) != 1 || !acks[0].Applied || !acks[0].Holds || receipt.Minted != a.kid(1) {
			t.Errorf("%+v, %v, %+v", acks, err, receipt)
		}
	})
}
