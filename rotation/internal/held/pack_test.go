package held

import (
	"errors"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
)

// packed has the fields of a ring with two keys, of which one was revoked, some facts, one of them about a
// record that was collected, and a date of publication.
func packed(t *testing.T) (keks *seal.KEKs, fields map[string][]byte, kids []string) {
	t.Helper()
	keks, err := seal.NewKEKs([]byte("0123456789abcdef0123456789ABCDEF"))
	if err != nil {
		t.Fatal(err)
	}
	tk, wrapped, err := seal.NewTenantKey(keks, "acme")
	if err != nil {
		t.Fatal(err)
	}
	made := time.UnixMilli(1764421380000).UTC()
	fields = map[string][]byte{seal.PrefixKey + tk.ID: wrapped}
	policy := ring.Policy{Algorithm: keystore.HS256}.WithDefaults()
	for i := range 2 {
		m, err := seal.NewMaterial(keystore.HS256)
		if err != nil {
			t.Fatal(err)
		}
		at := made.Add(time.Duration(i) * time.Hour)
		blob, err := seal.SealRecord(tk, ring.Record{Tenant: "acme", KID: m.KID, Seq: i + 1, Algorithm: keystore.HS256, Created: at, ActivateAt: at,
			SignUntil: at.Add(policy.Every), Origin: ring.Generated, Life: 1, Timing: policy}, m)
		if err != nil {
			t.Fatal(err)
		}
		fields[seal.PrefixRecord+m.KID], fields[seal.PrefixPublish+m.KID] = blob, []byte("1764421380001")
		kids = append(kids, m.KID)
	}
	must := func(blob []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return blob
	}
	name := keks.Primary()
	for _, kid := range []string{kids[0], "one that was collected"} {
		fields[seal.FactField(ring.FactRevoked, kid)] = must(seal.SealFact(keks, name, "acme", ring.FactRevoked, kid, made.Add(time.Minute)))
	}
	fields[seal.FactField(ring.FactAnnounced, kids[1])] = must(seal.SealFact(keks, name, "acme", ring.FactAnnounced, kids[1], made.Add(time.Hour)))
	fields[seal.FieldDead] = must(seal.SealRingFact(keks, name, "acme", ring.FactDestroyed, 1, made.Add(-time.Hour)))
	fields[seal.FieldGone] = must(seal.SealRingFact(keks, name, "acme", ring.FactCollected, 1, made.Add(-time.Minute)))
	fields[seal.FieldHead] = must(seal.SealHead(keks, name, "acme", seal.Head{Seq: 2, Count: 9}))
	return keks, fields, kids
}

// openAll opens fields that can all be opened.
func openAll(t *testing.T, keks *seal.KEKs, fields map[string][]byte) *Ring {
	t.Helper()
	opened, err := seal.OpenRing(keks, "acme", fields)
	if err != nil {
		t.Fatal(err)
	}
	return Open(nil, fields, opened)
}

// TestPack: a ring that was packed is the ring that it was, to the last field.
func TestPack(t *testing.T) {
	keks, fields, _ := packed(t)
	c := openAll(t, keks, fields)
	text, ok := c.Pack()
	if !ok || len(text) > 1100 {
		t.Fatalf("packed: %v, %d bytes", ok, len(text))
	}
	if got := Unpack("acme", text); !reflect.DeepEqual(got, c) {
		t.Errorf("unpacked %+v\npacked   %+v", got.Copy, c.Copy)
	}
	if again, ok := Unpack("acme", text).Pack(); !ok || again != text {
		t.Error("packed again, it is another one")
	}
}

// TestNotPacked: what a packed ring has no place for is not left out.
func TestNotPacked(t *testing.T) {
	keks, fields, kids := packed(t)
	for name, edit := range map[string]func(c *Ring){
		"a key of it is in use": func(c *Ring) {
			if _, _, err := c.WithKID(keks, kids[1], keystore.HS256, time.UnixMilli(1764421380000)); err != nil {
				t.Fatal(err)
			}
		},
		"buried":               func(c *Ring) { c.buried = []string{"k"} },
		"revived":              func(c *Ring) { c.Revived = []string{"k"} },
		"a tenant key is lost": func(c *Ring) { c.tenantKeys = nil },
		"an odd date":          func(c *Ring) { c.Published[0].At = c.Published[0].At.Add(1) },
	} {
		c := openAll(t, keks, fields)
		if edit(c); func() bool { _, ok := c.Pack(); return ok }() {
			t.Errorf("%s: packed", name)
		}
	}
	if _, ok := (*Ring)(nil).Pack(); ok {
		t.Error("nothing is packed")
	}
}

// TestOneKeyForAllLookups: lookups that come at once get one key, which the ring withdraws. A lookup that comes
// after that gets none, even with a copy of before.
func TestOneKeyForAllLookups(t *testing.T) {
	keks, fields, kids := packed(t)
	c, now := openAll(t, keks, fields), time.UnixMilli(1764421380000)
	got := make([]*keystore.Key, 8)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() {
			keys, found, err := c.WithKID(keks, kids[1], keystore.HS256, now)
			if err != nil || found != Found {
				t.Errorf("found %v, %v", found, err)
				return
			}
			got[i] = keys[0]
		})
	}
	wg.Wait()
	for _, key := range got {
		if key != got[0] || !key.Usable(now) {
			t.Fatalf("%p and %p", key, got[0])
		}
	}
	c.ApplyEnds(nil, now.Add(-100*24*time.Hour))
	if got[0].Usable(now) {
		t.Error("it is not told when it ends")
	}
	none := openAll(t, keks, fields)
	for _, c := range []*Ring{c, none} {
		if c.WithdrawAll(); got[0].Usable(now.Add(-1000 * time.Hour)) {
			t.Error("the key is not withdrawn")
		}
		if keys, found, err := c.WithKID(keks, kids[1], keystore.HS256, now); keys != nil || found != Stale || err != nil {
			t.Errorf("after that: %v, %v, %v", keys, found, err)
		}
	}
}

// TestKeyThatCannotBeOpened: the KEK of a ring is gone when a lookup needs the key. That says nothing about the
// token.
func TestKeyThatCannotBeOpened(t *testing.T) {
	keks, fields, kids := packed(t)
	c := openAll(t, keks, fields)
	keys, _, err := c.WithKID(seal.InsecurePlaintext(), kids[1], keystore.HS256, time.UnixMilli(1764421380000))
	if keys != nil || !errors.Is(err, keystore.ErrUnavailable) || !errors.Is(err, seal.ErrWrongKEK) {
		t.Errorf("%v, %v", keys, err)
	}
	if keys, found, err := c.WithKID(keks, kids[1], keystore.HS256, time.UnixMilli(1764421380000)); len(keys) != 1 || found != Found || err != nil {
		t.Errorf("once it is back: %v, %v, %v", keys, found, err)
	}
}

// TestPackedSize: the memory of an ordinary packed ring is of its size. The next size class would cost a
// large keyring a tenth more.
func TestPackedSize(t *testing.T) {
	keks, fields, kids := packed(t)
	delete(fields, seal.FieldDead)
	delete(fields, seal.FieldGone)
	delete(fields, seal.FactField(ring.FactRevoked, "one that was collected"))
	c := openAll(t, keks, fields)
	text, ok := c.Pack()
	if size := c.packedSize(); !ok || len(text) > size || len(text) < size-16 || len(kids) != 2 {
		t.Errorf("%d bytes, in memory of %d", len(text), size)
	}
}
