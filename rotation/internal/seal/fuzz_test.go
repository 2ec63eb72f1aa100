package seal

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// FuzzOpenRecord: a record that opens is in its canonical encoding, and opens only in its place.
// The input is tried as a blob. Its header and the material are also sealed, so that the fuzzer
// reaches the code behind the seal.
func FuzzOpenRecord(f *testing.F) {
	v := readVectors(f)
	tk := makeTenantKey(v.Key.ID, [32]byte(unhex(f, v.Key.Key)))
	keys := map[string]*TenantKey{tk.ID: tk}
	for _, r := range v.Records {
		blob := v.ring(f)["k:"+r.KID]
		material := unhex(f, r.Material)
		f.Add(r.KID, blob, material)
		f.Add(r.KID, blob[:len(blob)-len(material)-28], material)
	}
	for _, r := range v.Refused {
		f.Add(r.Field[min(2, len(r.Field)):], unhex(f, r.Value), []byte(nil))
	}
	f.Fuzz(func(t *testing.T, kid string, blob, material []byte) {
		checkRecordBlob(t, keys, v.Tenant, kid, blob)

		h, n, err := readHeader(blob)
		if err != nil {
			if !oneReason(err) || n != 0 {
				t.Errorf("readHeader = %d, %v", n, err)
			}
			return
		}
		if !bytes.Equal(h.append(nil), blob[:n]) {
			t.Errorf("read from %x, written as %x", blob[:n], h.append(nil))
		}
		if h.tenantKey != tk.ID {
			return
		}
		aead, err := tk.aead()
		if err != nil {
			t.Fatal(err)
		}
		checkRecordBlob(t, keys, h.Tenant, h.KID, append(bytes.Clone(blob[:n]), aead.Seal(nil, nil, material, blob[:n])...))
	})
}

// checkRecordBlob checks the promises of OpenRecord for any blob.
func checkRecordBlob(t *testing.T, keys map[string]*TenantKey, tenant, kid string, blob []byte) {
	t.Helper()
	r, err := OpenRecord(keys, tenant, kid, blob)
	if err != nil {
		if r != nil || !oneReason(err) {
			t.Errorf("OpenRecord = %v, %v", r, err)
		}
		return
	}
	h, n, err := readHeader(blob)
	if err != nil || !bytes.Equal(blob[:n], h.append(nil)) || h.Record != r.Record || h.tenantKey != r.TenantKey || r.Tenant != tenant || r.KID != kid {
		t.Errorf("opened %+v from %x", r.Record, blob)
	}
	for _, elsewhere := range [][2]string{{tenant + "x", kid}, {tenant, kid + "x"}, {kid, tenant}, {"", kid}, {tenant, ""}} {
		if elsewhere == [2]string{tenant, kid} {
			continue
		}
		if _, err := OpenRecord(keys, elsewhere[0], elsewhere[1], blob); !errors.Is(err, ErrTampered) {
			t.Errorf("%q opens as %q: %v", [2]string{tenant, kid}, elsewhere, err)
		}
	}
	if sig, err := signWith(r, []byte("x")); err != nil || !r.Key.Verify([]byte("x"), sig) {
		t.Errorf("it does not verify what it signs: %v", err)
	}
	ring.View([]ring.Record{r.Record}, ring.Facts{}, r.ActivateAt)
}

// FuzzOpenFact: a fact that opens is in its canonical encoding, and opens only in its place. The
// input is tried as it is, and with a MAC that is right.
func FuzzOpenFact(f *testing.F) {
	v := readVectors(f)
	keks, err := ParseKEKs([]byte(v.KEK.Line))
	if err != nil {
		f.Fatal(err)
	}
	for _, fact := range v.Facts {
		f.Add(v.Tenant, fact.Kind[0], fact.KID, v.ring(f)[fact.field()])
	}
	renamed := sealedFact{at: sealedAt, kek: kekName{id: "main", check: keks.list[0].check}}
	f.Add(v.Tenant, byte('x'), "k", append(renamed.append(nil), make([]byte, macSize)...))
	f.Add(v.Tenant, byte('d'), "", v.sealFact(f, v.Tenant, vectorFact{Kind: "d", At: 1_800_000_000_000}))
	check := func(t *testing.T, tenant string, kind ring.FactKind, kid string, blob []byte) {
		at, err := openFact(keks, tenant, kind, kid, blob)
		if err != nil {
			if !at.IsZero() || !oneReason(err) {
				t.Errorf("openFact = %v, %v", at, err)
			}
			return
		}
		// The KEK may have had another id when the fact was sealed.
		sealed, mac, err := readSealedFact(blob)
		if err != nil || !sealed.at.Equal(at) || !bytes.Equal(slices.Concat(sealed.append(nil), mac), blob) {
			t.Errorf("%x is read as %+v, %v", blob, sealed, err)
		}
		if again, err := SealFact(keks, tenant, kind, kid, at); err != nil || sealed.kek.id == v.KEK.ID && !bytes.Equal(again, blob) {
			t.Errorf("%x is sealed again as %x, %v", blob, again, err)
		}
		for _, other := range append(slices.Clone(ring.FactKinds()), ring.FactDestroyed, ring.FactCollected) {
			if _, err := openFact(keks, tenant, other, kid, blob); err == nil && other != kind {
				t.Errorf("a fact of kind %c opens as %c", kind, other)
			}
		}
		_, err1 := openFact(keks, tenant+"x", kind, kid, blob)
		_, err2 := openFact(keks, tenant, kind, kid+"x", blob)
		if err1 == nil || err2 == nil {
			t.Errorf("a fact about %q of %q opens elsewhere", kid, tenant)
		}
	}
	f.Fuzz(func(t *testing.T, tenant string, kind byte, kid string, blob []byte) {
		check(t, tenant, ring.FactKind(kind), kid, blob)
		if len(blob) < macSize {
			return
		}
		open := blob[:len(blob)-macSize]
		mac := keks.list[0].mac(slices.Concat(open, []byte{kind}, str(tenant[:min(len(tenant), 0xffff)]), str(kid[:min(len(kid), 0xffff)])))
		check(t, tenant, ring.FactKind(kind), kid, slices.Concat(open, mac))
	})
}

// FuzzOpenRing removes a field of a ring and replaces two, as a writer of the store without the KEK
// can. Only what was in the ring opens, and nothing opens as the ring of another tenant.
func FuzzOpenRing(f *testing.F) {
	v := readVectors(f)
	keks, err := ParseKEKs([]byte(v.KEK.Line))
	if err != nil {
		f.Fatal(err)
	}
	whole := v.ring(f)
	opened, err := OpenRing(keks, v.Tenant, whole)
	if err != nil {
		f.Fatal(err)
	}
	for field, value := range whole {
		f.Add(field, value, "k:x", []byte("kt\x01R"), uint8(1))
	}
	for _, r := range v.Refused {
		f.Add(r.Field, unhex(f, r.Value), "head", []byte("3"), uint8(0))
	}
	f.Fuzz(func(t *testing.T, field1 string, value1 []byte, field2 string, value2 []byte, remove uint8) {
		fields := maps.Clone(whole)
		names := slices.Sorted(maps.Keys(fields))
		delete(fields, names[int(remove)%len(names)])
		fields[field1], fields[field2] = value1, value2

		got, err := OpenRing(keks, v.Tenant, fields)
		bad := new(ring.UnreadableError)
		if err != nil && !errors.As(err, &bad) {
			t.Fatalf("OpenRing = %v", err)
		}
		for field, cause := range bad.Failed {
			if !oneReason(cause) {
				t.Errorf("%q: %v", field, cause)
			}
			if holds(got, field) && field != FieldHead {
				t.Errorf("%q is refused, but held", field)
			}
		}
		for _, r := range got.Records {
			i := slices.IndexFunc(opened.Records, func(o OpenedRecord) bool { return o.KID == r.KID })
			if i < 0 || r.Record != opened.Records[i].Record || !bytes.Equal(fields["k:"+r.KID], whole["k:"+r.KID]) {
				t.Errorf("a record that was not in the ring: %+v", r.Record)
			}
		}
		for id, at := range got.Facts.All {
			if want, ok := opened.Facts.At(id.Kind, id.KID); !ok || !want.Equal(at) {
				t.Errorf("a fact that was not in the ring: %c of %q at %v", id.Kind, id.KID, at)
			}
		}
		if !got.Facts.Dead.IsZero() {
			t.Error("destroyed")
		}
		if !got.Facts.CollectedUntil.IsZero() && !got.Facts.CollectedUntil.Equal(opened.Facts.CollectedUntil) {
			t.Errorf("gone until %v", got.Facts.CollectedUntil)
		}
		if err == nil {
			for field := range fields {
				if isSealed(field) && !holds(got, field) {
					t.Errorf("%q is neither refused nor held", field)
				}
			}
		}
		ring.View(recordsOf(got), got.Facts, time.UnixMilli(1_800_000_000_123))

		other, err := OpenRing(keks, v.Tenant+"x", fields)
		if len(other.Records)+len(other.TenantKeys) > 0 || !other.Facts.Equal(ring.Facts{}) || err == nil {
			t.Errorf("opens under another tenant: %v", err)
		}
	})
}
