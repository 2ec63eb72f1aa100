package seal

import (
	"bytes"
	"errors"
	"maps"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/ring"
)

// FuzzOpenRecord: a record that opens is in its canonical encoding, and opens only in its place.
// The input is tried as a blob. Its header and the material are also sealed, so that the fuzzer
// reaches the code behind the seal.
func FuzzOpenRecord(f *testing.F) {
	vr := readVectors(f).Rings[1]
	keys := make(map[string]*TenantKey)
	for _, k := range vr.Keys {
		keys[k.ID] = makeTenantKey(k.ID, KEKName{}, [checkSize]byte{}, unhex(f, k.Key))
	}
	for _, r := range vr.Records {
		blob := vr.ring(f)["k:"+r.KID]
		material := unhex(f, r.Material)
		f.Add(r.KID, blob, material)
		f.Add(r.KID, blob[:len(blob)-len(material)-boxOverhead], material)
	}
	for _, r := range vr.Refused {
		f.Add(r.Field[min(2, len(r.Field)):], unhex(f, r.Value), []byte(nil))
	}
	f.Fuzz(func(t *testing.T, kid string, blob, material []byte) {
		checkRecordBlob(t, keys, vr.Tenant, kid, blob)

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
		tk := keys[h.tenantKey]
		if tk == nil || len(kid) > math.MaxUint16 {
			return
		}
		box, err := tk.box()
		if err != nil {
			t.Fatal(err)
		}
		h.Tenant, h.KID = vr.Tenant, kid
		checkRecordBlob(t, keys, h.Tenant, h.KID, sealed(t, box, bytes.Clone(blob[:n]), h.place(), material))
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
	h.Tenant, h.KID = tenant, kid
	if err != nil || !bytes.Equal(blob[:n], h.append(nil)) || h.Record != r.Record || h.tenantKey != r.TenantKey || r.Tenant != tenant || r.KID != kid {
		t.Errorf("opened %+v from %x", r.Record, blob)
	}
	for _, elsewhere := range [][2]string{{tenant + "x", kid}, {tenant, kid + "x"}, {kid, tenant}, {"", kid}, {tenant, ""}} {
		if elsewhere == [2]string{tenant, kid} {
			continue
		}
		if _, err := OpenRecord(keys, elsewhere[0], elsewhere[1], blob); !errors.Is(err, ErrTampered) && !errors.Is(err, ErrMalformed) {
			t.Errorf("%q opens as %q: %v", [2]string{tenant, kid}, elsewhere, err)
		}
	}
	if sig, err := signWith(r, []byte("x")); err != nil || !r.Key.Verify([]byte("x"), sig) {
		t.Errorf("it does not verify what it signs: %v", err)
	}
	ring.View([]ring.Record{r.Record}, ring.Facts{}, r.ActivateAt)
}

// FuzzOpenAccept: the same for accepted keys. material is the secret of one.
func FuzzOpenAccept(f *testing.F) {
	vr := readVectors(f).Rings[1]
	keys := make(map[string]*TenantKey)
	for _, k := range vr.Keys {
		keys[k.ID] = makeTenantKey(k.ID, KEKName{}, [checkSize]byte{}, unhex(f, k.Key))
	}
	for _, a := range vr.Accepts {
		blob := vr.ring(f)["v:"+a.KID]
		material := unhex(f, a.Material)
		f.Add(a.KID, blob, material)
		f.Add(a.KID, blob[:len(blob)-len(material)-boxOverhead], material)
	}
	for _, r := range vr.Refused {
		f.Add(r.Field[min(2, len(r.Field)):], unhex(f, r.Value), []byte(nil))
	}
	f.Fuzz(func(t *testing.T, kid string, blob, material []byte) {
		checkAcceptBlob(t, keys, vr.Tenant, kid, blob)

		h, n, err := readAcceptHeader(blob)
		if err != nil {
			if !oneReason(err) || n != 0 {
				t.Errorf("readAcceptHeader = %d, %v", n, err)
			}
			return
		}
		if !bytes.Equal(h.append(nil), blob[:n]) {
			t.Errorf("read from %x, written as %x", blob[:n], h.append(nil))
		}
		tk := keys[h.tenantKey]
		if tk == nil || len(kid) > math.MaxUint16 {
			return
		}
		box, err := tk.box()
		if err != nil {
			t.Fatal(err)
		}
		h.Tenant, h.KID = vr.Tenant, kid
		checkAcceptBlob(t, keys, h.Tenant, h.KID, sealed(t, box, bytes.Clone(blob[:n]), h.place(), material))
	})
}

// checkAcceptBlob checks the promises of OpenAccept for any blob.
func checkAcceptBlob(t *testing.T, keys map[string]*TenantKey, tenant, kid string, blob []byte) {
	t.Helper()
	a, err := OpenAccept(keys, tenant, kid, blob)
	if err != nil {
		if a != nil || !oneReason(err) {
			t.Errorf("OpenAccept = %v, %v", a, err)
		}
		return
	}
	h, n, err := readAcceptHeader(blob)
	h.Tenant, h.KID = tenant, kid
	if err != nil || !bytes.Equal(blob[:n], h.append(nil)) || h.AcceptRecord != a.AcceptRecord || h.tenantKey != a.TenantKey {
		t.Errorf("opened %+v from %x", a.AcceptRecord, blob)
	}
	if a.Key.ID() != (keystore.ID{Tenant: tenant, KID: kid}) || a.Key.Algorithm() != a.Algorithm || !a.Until.After(a.Created) {
		t.Errorf("opened %+v with %v", a.AcceptRecord, a.Key)
	}
	for _, elsewhere := range [][2]string{{tenant + "x", kid}, {tenant, kid + "x"}, {kid, tenant}, {"", kid}, {tenant, ""}} {
		if elsewhere == [2]string{tenant, kid} {
			continue
		}
		if _, err := OpenAccept(keys, elsewhere[0], elsewhere[1], blob); !errors.Is(err, ErrTampered) && !errors.Is(err, ErrMalformed) {
			t.Errorf("%q opens as %q: %v", [2]string{tenant, kid}, elsewhere, err)
		}
	}
}

// FuzzOpenTenantKey: a tenant key that opens is in its canonical encoding, and opens only in its
// place. The input is tried as a blob. Its header is also sealed with a key.
func FuzzOpenTenantKey(f *testing.F) {
	v := readVectors(f)
	vr := v.Rings[1]
	keks := v.keks(f, vr.Realm, 0, 1)
	for _, k := range vr.Keys {
		blob := vr.ring(f)["tk:"+k.ID]
		f.Add(k.ID, blob, unhex(f, k.Key))
		f.Add(k.ID, blob[:len(blob)-tenantKeySize-boxOverhead], unhex(f, k.Key))
	}
	for _, r := range vr.Refused {
		f.Add(r.Field[min(3, len(r.Field)):], unhex(f, r.Value), []byte(nil))
	}
	check := func(t *testing.T, id string, blob []byte) {
		tk, err := OpenTenantKey(keks, vr.Tenant, id, blob)
		if err != nil {
			if tk != nil || !oneReason(err) {
				t.Errorf("OpenTenantKey = %v, %v", tk, err)
			}
			return
		}
		k, n, err := readSealedKey(blob)
		if err != nil || !bytes.Equal(k.append(nil), blob[:n]) || len(blob)-n != tenantKeySize+boxOverhead || tk.ID != id || tk.Born != k.born || tk.KEK.Check != k.kek.Check {
			t.Errorf("%x is read as %+v, %v", blob, k, err)
		}
		_, err1 := OpenTenantKey(keks, vr.Tenant+"x", id, blob)
		_, err2 := OpenTenantKey(keks, vr.Tenant, "0123456789abcdef", blob)
		if err1 == nil || err2 == nil && id != "0123456789abcdef" {
			t.Errorf("the tenant key %s opens elsewhere", id)
		}
		for _, under := range keks.Names() {
			if again, err := RewrapTenantKey(keks, under, vr.Tenant, id, blob); err != nil || len(again) < tenantKeySize+boxOverhead {
				t.Errorf("%x cannot be rewrapped: %v", blob, err)
			}
		}
	}
	f.Fuzz(func(t *testing.T, id string, blob, key []byte) {
		check(t, id, blob)
		header := append(bytes.Clone(blob), make([]byte, tenantKeySize+boxOverhead)...)
		k, n, err := readSealedKey(header)
		if err != nil || !isTenantKeyID(id) {
			return
		}
		for _, kek := range keks.list {
			box, err := kek.box()
			if err != nil {
				t.Fatal(err)
			}
			k.tenant, k.id = vr.Tenant, id
			check(t, id, sealed(t, box, header[:n:n], k.place(), key))
		}
	})
}

// FuzzOpenMACs: what opens of all that has a MAC is in its canonical encoding, and opens only in
// its place. The input is tried as it is, and with a MAC that is right.
func FuzzOpenMACs(f *testing.F) {
	v := readVectors(f)
	vr := v.Rings[1]
	keks := v.keks(f, vr.Realm, 0, 1)
	for _, fact := range vr.Facts {
		f.Add(vr.Tenant, fact.Kind[0], fact.KID, vr.ring(f)[fact.field()])
	}
	renamed := keks.Primary()
	renamed.ID = "main" // the KEK may have had another id when the fact was sealed
	f.Add(vr.Tenant, byte('x'), "k", append(sealedFact{at: sealedAt, kek: renamed}.append(nil), make([]byte, macSize)...))
	f.Add(vr.Tenant, byte('d'), "", v.sealFact(f, vr.Realm, vr.Tenant, vectorFact{Kind: "d", Life: 3, At: 1_800_000_000_000}))
	f.Add(vr.Tenant, byte('H'), "", vr.ring(f)[FieldHead])
	f.Add("\x80", byte('H'), "", vr.ring(f)[FieldHead])
	for _, a := range v.Acks {
		f.Add(a.Instance, byte('A'), "", unhex(f, a.Value))
	}
	for _, e := range v.Entries {
		f.Add(e.Tenant, byte('L'), e.KID, unhex(f, e.Value))
	}
	for _, r := range slices.Concat(vr.Refused, v.Acks[0].Refused, v.Entries[0].Refused) {
		f.Add(vr.Tenant, byte('x'), r.Field, unhex(f, r.Value))
	}
	f.Fuzz(func(t *testing.T, tenant string, kind byte, kid string, blob []byte) {
		if len(tenant) > math.MaxUint16 || len(kid) > math.MaxUint16 {
			return // longer than any text
		}
		checkMAC(t, keks, kind, tenant, kid, blob)
		if len(blob) < macSize {
			return
		}
		open := blob[: len(blob)-macSize : len(blob)-macSize]
		use, place := map[byte]string{'H': useHead, 'A': useAcks, 'L': useLog}[kind], []byte(nil)
		switch kind {
		case 'H':
			place = str(tenant)
		case 'A':
			place = append([]byte{0, 7}, str(tenant)...)
		case 'L':
			place = slices.Concat(str("op"), str(tenant), str(kid), str("actor"), str("nonce"), u32(3))
		default:
			use, place = useFacts, slices.Concat([]byte{kind}, str(tenant), str(kid))
		}
		for _, k := range keks.list {
			checkMAC(t, keks, kind, tenant, kid, append(open, k.mac(use, slices.Concat(open, place))...))
		}
	})
}

// openMAC opens a blob by its kind. It returns what to store of the value again, under the primary
// KEK, and its encoding without the MAC.
func openMAC(keks *KEKs, kind byte, tenant, kid string, blob []byte) (again func() ([]byte, error), encoded []byte, err error) {
	under := keks.Primary()
	switch kind {
	case 'H':
		h, err := openHead(keks, tenant, blob)
		s, _, _ := readSealedHead(blob)
		return func() ([]byte, error) { return SealHead(keks, under, tenant, h) }, s.append(nil), err
	case 'A':
		a, err := OpenAck(keks, tenant, 7, blob)
		return func() ([]byte, error) { return SealAck(keks, a) }, a.append(nil), err
	case 'L':
		e, err := OpenEntry(keks, Entry{Op: "op", Tenant: tenant, KID: kid, Actor: "actor", Nonce: "nonce", Seq: 3}, blob)
		s, _, _ := readSealedEntry(blob)
		return func() ([]byte, error) { return SealEntry(keks, under, e) }, s.append(nil), err
	}
	f, err := openFact(keks, tenant, ring.FactKind(kind), kid, blob)
	s, _, _ := readSealedFact(ring.FactKind(kind), blob)
	return func() ([]byte, error) {
		if f.ofRing {
			return SealRingFact(keks, under, tenant, ring.FactKind(kind), f.life, f.at)
		}
		return SealFact(keks, under, tenant, ring.FactKind(kind), kid, f.at)
	}, s.append(nil), err
}

// checkMAC checks the promises of a blob with a MAC.
func checkMAC(t *testing.T, keks *KEKs, kind byte, tenant, kid string, blob []byte) {
	t.Helper()
	again, encoded, err := openMAC(keks, kind, tenant, kid, blob)
	if err != nil {
		if !oneReason(err) {
			t.Errorf("%c opens with %v", kind, err)
		}
		return
	}
	if !bytes.Equal(encoded, blob[:len(blob)-macSize]) {
		t.Errorf("%x is read as %x", blob, encoded)
	}
	if _, err := again(); err != nil {
		t.Errorf("%x cannot be sealed again: %v", blob, err)
	}
	for _, other := range []byte("xafrwudgHAL") {
		if _, _, err := openMAC(keks, other, tenant, kid, blob); err == nil && other != kind {
			t.Errorf("one of kind %c opens as %c", kind, other)
		}
	}
	if _, _, err := openMAC(keks, kind, tenant+"x", kid, blob); err == nil {
		t.Errorf("%c of %q opens elsewhere", kind, tenant)
	}
	if _, _, err := openMAC(keks, kind, tenant, kid+"x", blob); err == nil && kind != 'H' && kind != 'A' {
		t.Errorf("%c about %q opens elsewhere", kind, kid)
	}
}

// FuzzOpenRing removes a field of a ring and replaces two, as a writer of the store without the KEK
// can. Only what was in the ring opens, and nothing opens as the ring of another tenant.
func FuzzOpenRing(f *testing.F) {
	v := readVectors(f).Rings[1]
	keks := readVectors(f).keks(f, v.Realm, 0, 1)
	whole := v.ring(f)
	opened, err := OpenRing(keks, v.Tenant, whole)
	if err != nil {
		f.Fatal(err)
	}
	for field, value := range whole {
		f.Add(field, value, "k:x", []byte("kt\x01R"), uint8(1))
	}
	for _, r := range v.Refused {
		f.Add(r.Field, unhex(f, r.Value), "head", whole["head"], uint8(0))
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
		for _, field := range Replaceable(bad, HeldBytes{KEKs: keks, Stored: fields, Facts: opened.Facts, Head: opened.Head,
			TenantKey: func(id string) []byte { return whole[PrefixKey+id] }}) {
			known := errors.Is(bad.Failed[field], ErrTampered) || errors.Is(bad.Failed[field], ErrMalformed)
			if bad.Failed[field] == nil || !known && len(fields[field]) != len(whole[field]) {
				t.Errorf("%q is replaceable: %x", field, fields[field])
			}
		}
		for field, cause := range bad.Failed {
			if !oneReason(cause) {
				t.Errorf("%q: %v", field, cause)
			}
			if holds(got, field) {
				t.Errorf("%q is refused, but held", field)
			}
		}
		for _, r := range got.Records {
			i := slices.IndexFunc(opened.Records, func(o OpenedRecord) bool { return o.KID == r.KID })
			if i < 0 || r.Record != opened.Records[i].Record || !bytes.Equal(fields["k:"+r.KID], whole["k:"+r.KID]) {
				t.Errorf("a record that was not in the ring: %+v", r.Record)
			}
		}
		for _, a := range got.Accepts {
			i := slices.IndexFunc(opened.Accepts, func(o OpenedAccept) bool { return o.KID == a.KID })
			if i < 0 || a.AcceptRecord != opened.Accepts[i].AcceptRecord || !bytes.Equal(fields["v:"+a.KID], whole["v:"+a.KID]) {
				t.Errorf("an accepted key that was not in the ring: %+v", a.AcceptRecord)
			}
		}
		for id, at := range got.Facts.All {
			if want, ok := opened.Facts.At(id.Kind, id.KID); !ok || !want.Equal(at) {
				t.Errorf("a fact that was not in the ring: %c of %q at %v", id.Kind, id.KID, at)
			}
		}
		if got.Facts.Dead > opened.Facts.Dead || got.Head != (Head{}) && got.Head != opened.Head {
			t.Errorf("%d lives have ended, head %+v", got.Facts.Dead, got.Head)
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
		if len(other.Records)+len(other.Accepts)+len(other.TenantKeys) > 0 || !other.Facts.Equal(ring.Facts{}) || err == nil {
			t.Errorf("opens under another tenant: %v", err)
		}
	})
}
