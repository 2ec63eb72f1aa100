package synced

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/internal/held"
	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
)

var now = time.UnixMilli(1764421380000).UTC()

// someRing returns the copy of a ring with one key, and the kid of that.
func someRing(t *testing.T, keks *seal.KEKs) (c *held.Ring, kid string) {
	t.Helper()
	tk, wrapped, err := seal.NewTenantKey(keks, "acme")
	if err != nil {
		t.Fatal(err)
	}
	m, err := seal.NewMaterial(keystore.HS256)
	if err != nil {
		t.Fatal(err)
	}
	policy := ring.Policy{Algorithm: keystore.HS256}.WithDefaults()
	blob, err := seal.SealRecord(tk, ring.Record{Tenant: "acme", KID: m.KID, Seq: 1, Algorithm: keystore.HS256, Created: now, ActivateAt: now, SignUntil: now.Add(policy.Every),
		Origin: ring.Generated, Timing: policy}, m)
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string][]byte{seal.PrefixKey + tk.ID: wrapped, seal.PrefixRecord + m.KID: blob}
	opened, err := seal.OpenRing(keks, "acme", fields)
	if err != nil {
		t.Fatal(err)
	}
	return held.Open(nil, fields, opened), m.KID
}

// TestLookupDuringASync: while a sync makes another copy of a packed ring, a lookup gets a key of it. The key is
// told what the sync has found. So is one that a lookup gets in the last moment, and one of a ring that is
// removed meanwhile.
func TestLookupDuringASync(t *testing.T) {
	keks := seal.InsecurePlaintext()
	c, kid := someRing(t, keks)
	revoked := ring.Facts{}
	revoked.Add(ring.FactRevoked, kid, now)
	b := new(Bucket)
	b.Status.Store(&Status{SyncState: protocol.SyncState{Complete: now}})
	for name, end := range map[string]func(r *Ring, old *held.Ring){
		"revoked": func(r *Ring, old *held.Ring) { r.set(held.Assemble(old.Learn(revoked), old), old) },
		"removed": func(r *Ring, old *held.Ring) {
			r.removed.Store(true)
			r.set(old, old)
		},
	} {
		r := &Ring{Tenant: "acme", bucket: b}
		r.set(c, nil)
		old := r.Copy() // what the sync goes by
		if n := r.state.node.Load(); n.whole != nil || old == r.Copy() {
			t.Fatal("it is not packed")
		}
		keys, found, err := r.For(kid).WithKID(keks, kid, keystore.HS256, now)
		if found != held.Found || err != nil || !keys[0].Usable(now) || keys[0].Usable(now.Add(365*24*time.Hour)) {
			t.Fatalf("%v, %v, %v", keys, found, err)
		}
		if end(r, old); keys[0].Usable(now) {
			t.Errorf("%s: the key that a lookup has is usable", name)
		}
		if r.Live() != r.For("another") || r.For("another") != r.Copy() {
			t.Errorf("%s: it was packed again", name)
		}
		if alive := b.alive(); alive[len(alive)-1] != r {
			t.Errorf("%s: no sync tells its keys when they end", name)
		}
	}
}

// TestRemovedDuringASync: a ring is removed while a sync reads a new key of it. The key verifies nothing.
func TestRemovedDuringASync(t *testing.T) {
	keks := seal.InsecurePlaintext()
	c, kid := someRing(t, keks)
	another, found := someRing(t, keks)
	b := new(Bucket)
	b.Status.Store(&Status{SyncState: protocol.SyncState{Complete: now}})
	r := &Ring{Tenant: "acme", bucket: b}
	r.set(c, nil)
	old := r.For(kid)
	r.removed.Store(true)
	r.set(another, old)
	if keys, is, err := r.For(found).WithKID(keks, found, keystore.HS256, now); keys != nil || is != held.Stale || err != nil {
		t.Errorf("%v, %v, %v", keys, is, err)
	}
}

// TestUnknownKIDsCostNoMemory: a kid that a packed ring does not have leaves it packed.
func TestUnknownKIDsCostNoMemory(t *testing.T) {
	c, kid := someRing(t, seal.InsecurePlaintext())
	b := new(Bucket)
	b.Status.Store(&Status{})
	r := &Ring{Tenant: "acme", bucket: b}
	r.set(c, nil)
	for _, unknown := range []string{"another", ""} {
		if r.For(unknown); r.state.node.Load().whole != nil {
			t.Errorf("a lookup of %q has unpacked it", unknown)
		}
	}
	if r.For(kid); r.state.node.Load().whole == nil {
		t.Error("a lookup of its kid has not")
	}
}

// TestEndsDigestOfABucket: the digest of a bucket is that of the facts of its rings, in any order.
func TestEndsDigestOfABucket(t *testing.T) {
	b := &Bucket{endsStale: true}
	b.Status.Store(&Status{})
	var all []seal.TenantEnd
	for _, tenant := range []string{"b", "a", "c"} {
		c, kid := someRing(t, seal.InsecurePlaintext())
		if tenant != "c" {
			facts := ring.Facts{}
			facts.Add(ring.FactRevoked, kid, now)
			facts.Collect(0, now.Add(-time.Hour))
			c = held.Assemble(c.Learn(facts), c)
		}
		r := &Ring{Tenant: tenant, bucket: b}
		r.set(c, nil)
		b.rings = append(b.rings, r)
		all = append(all, c.Ends(tenant)...)
	}
	if got := b.endsDigest(); got != seal.EndsDigest(all) || got == seal.EndsDigest(nil) || len(all) != 4 {
		t.Errorf("%d facts: %x, want %x", len(all), got, seal.EndsDigest(all))
	}
}
