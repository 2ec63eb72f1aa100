package seal

import (
	"bytes"
	"encoding/base64"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/ring"
)

// TestRoundTrip: a record opens as it was sealed, with a key that verifies what it signs.
func TestRoundTrip(t *testing.T) {
	keks := mustKEKs(t, 1)
	for _, alg := range keystore.Algorithms() {
		t.Run(string(alg), func(t *testing.T) {
			m, err := newTestMaterial(alg)
			if err != nil {
				t.Fatal(err)
			}
			roundTrip(t, keks, m)
		})
	}
}

// newTestMaterial is NewMaterial, except that all RSA algorithms share one key.
func newTestMaterial(alg keystore.Algorithm) (*Material, error) {
	switch alg {
	case keystore.RS256, keystore.RS384, keystore.RS512, keystore.PS256, keystore.PS384, keystore.PS512:
		return newMaterialOf(alg, testRSA())
	}
	return NewMaterial(alg)
}

// roundTrip seals and opens a record of m, and signs and verifies with its key.
func roundTrip(t *testing.T, keks *KEKs, m *Material) {
	t.Helper()
	tk, wrapped, err := NewTenantKey(keks, "acme")
	if err != nil {
		t.Fatal(err)
	}
	r := testRecord("acme", 7, m)
	blob := mustSeal(t, tk, r, m)
	opened, err := OpenRing(keks, "acme", map[string][]byte{"k:" + m.KID: blob, "tk:" + tk.ID: wrapped})
	if err != nil {
		t.Fatal(err)
	}
	got := opened.Records[0]
	if !reflect.DeepEqual(got.Record, r) {
		t.Errorf("opened %+v\nsealed %+v", got.Record, r)
	}
	h, _, err := readHeader(blob)
	if err != nil || !bytes.Equal(h.public, m.public) || (m.public == nil) != m.Algorithm.Symmetric() || got.TenantKey != tk.ID {
		t.Errorf("public part %x, tenant key %s, %v", h.public, got.TenantKey, err)
	}
	if bytes.Contains(blob, m.secret()) {
		t.Error("the material is in the open")
	}
	whole, err := OpenRecord(opened.TenantKeys, "acme", m.KID, blob)
	if err != nil || !reflect.DeepEqual(whole.Record, r) || whole.Cost != got.Cost || whole.Cost != whole.Key.Cost() {
		t.Fatalf("opened %+v, of a ring %+v: %v", whole, got, err)
	}
	sig, err := signWith(whole, []byte("a token"))
	if err != nil || !whole.Key.Verify([]byte("a token"), sig) || whole.Key.Verify([]byte("another"), sig) {
		t.Errorf("it does not verify what it signs: %v", err)
	}
	if want := (keystore.ID{Tenant: "acme", KID: m.KID}); whole.Key.ID() != want || whole.Key.Algorithm() != m.Algorithm {
		t.Errorf("the key is %v", whole.Key)
	}
	if read, id, err := ReadRecord("acme", m.KID, blob); err != nil || !reflect.DeepEqual(*read, r) || id != tk.ID {
		t.Errorf("read %+v under %s: %v", read, id, err)
	}
}

// TestSealRecordRefuses: what cannot be opened, or breaks a rule for new records, is not sealed.
func TestSealRecordRefuses(t *testing.T) {
	tk, _, err := NewTenantKey(mustKEKs(t, 1), "acme")
	if err != nil {
		t.Fatal(err)
	}
	hs, es := mustMaterial(t, keystore.HS256), mustMaterial(t, keystore.ES256)
	for _, tt := range []struct {
		name string
		m    *Material
		edit func(*ring.Record)
	}{
		{"no tenant", hs, func(r *ring.Record) { r.Tenant = "" }},
		{"a long tenant", hs, func(r *ring.Record) { r.Tenant = strings.Repeat("a", 257) }},
		{"a tenant that is not UTF-8", hs, func(r *ring.Record) { r.Tenant = "\xff" }},
		{"no kid", hs, func(r *ring.Record) { r.KID, r.Origin = "", ring.Imported }},
		{"a long kid", hs, func(r *ring.Record) { r.KID, r.Origin = strings.Repeat("a", 257), ring.Imported }},
		{"a kid that is not UTF-8", hs, func(r *ring.Record) { r.KID, r.Origin = "\xff", ring.Imported }},
		{"a kid of 15 bytes", hs, func(r *ring.Record) { r.KID = base64.RawURLEncoding.EncodeToString(make([]byte, 15)) }},
		{"a kid that is not canonical base64", hs, func(r *ring.Record) { r.KID = strings.Repeat("A", 21) + "B" }},
		{"a kid that is no thumbprint", es, func(r *ring.Record) { r.KID = hs.KID }},
		{"seq 0", hs, func(r *ring.Record) { r.Seq = 0 }},
		{"a huge seq", hs, func(r *ring.Record) { r.Seq = maxSeq + 1 }},
		{"no algorithm", hs, func(r *ring.Record) { r.Algorithm = "" }},
		{"another algorithm", hs, func(r *ring.Record) { r.Algorithm = keystore.HS512 }},
		{"material of another kind", es, func(r *ring.Record) { r.Algorithm = keystore.HS256 }},
		{"no material", nil, func(r *ring.Record) {}},
		{"an unknown origin", hs, func(r *ring.Record) { r.Origin = "found" }},
		{"no origin", hs, func(r *ring.Record) { r.Origin = "" }},
		{"microseconds", hs, func(r *ring.Record) { r.Created = r.Created.Add(time.Microsecond) }},
		{"no date", hs, func(r *ring.Record) { r.Created = time.Time{} }},
		{"the year 2200", hs, func(r *ring.Record) { r.SignUntil = maxDate }},
		{"an end before the start", hs, func(r *ring.Record) { r.SignUntil = r.ActivateAt }},
		{"an incomplete policy", hs, func(r *ring.Record) { r.Timing.Dwell = 0 }},
		{"a policy that does not hold", hs, func(r *ring.Record) { r.Timing.SignFor = r.Timing.Propagation }},
	} {
		m := tt.m
		if m == nil {
			m = hs
		}
		r := testRecord("acme", 1, m)
		tt.edit(&r)
		if blob, err := SealRecord(tk, r, tt.m); err == nil || blob != nil {
			t.Errorf("%s: sealed, %v", tt.name, err)
		}
	}
	for _, tenant := range []string{"", "\xff", strings.Repeat("a", 257)} {
		if _, _, err := NewTenantKey(mustKEKs(t, 1), tenant); err == nil {
			t.Errorf("a tenant key for %q", tenant)
		}
	}
}

// TestImportedKID: the kid of an imported or legacy key may be anything that a token can carry.
func TestImportedKID(t *testing.T) {
	keks := mustKEKs(t, 1)
	for _, kid := range []string{"1", "a:b:c", "{x}", "\x00", `"`, strings.Repeat("ü", 128), "-", "dead"} {
		s := newSealedRing(t, keks, "acme")
		m := mustMaterial(t, keystore.HS256)
		r := testRecord("acme", 1, m)
		r.KID, r.Origin, r.NoKID = kid, ring.Legacy, true
		s.add(t, r, m)
		s.addFact(t, keks, ring.FactRevoked, kid, sealedAt)
		opened, err := OpenRing(keks, "acme", s.fields)
		if err != nil {
			t.Errorf("%q: %v", kid, err)
			continue
		}
		if _, ok := opened.Facts.At(ring.FactRevoked, kid); !ok {
			t.Errorf("%q: its revocation is lost", kid)
		}
		i := slices.IndexFunc(opened.Records, func(o OpenedRecord) bool { return o.KID == kid })
		if id := opened.Records[i].TokenID(); id.KID != "" || id.Tenant != "acme" {
			t.Errorf("%q: its tokens have the ID %v, want no kid", kid, id)
		}
	}
}

// TestMalformedInsideSeal: a record that a holder of the KEK sealed wrongly is malformed, and no
// key.
func TestMalformedInsideSeal(t *testing.T) {
	keks := mustKEKs(t, 1)
	tk, _, err := NewTenantKey(keks, "acme")
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]*TenantKey{tk.ID: tk}
	hs, es, ed := mustMaterial(t, keystore.HS256), mustMaterial(t, keystore.ES256), mustMaterial(t, keystore.EdDSA)
	other := mustMaterial(t, keystore.ES256)
	head := func(m *Material) header {
		return header{Record: testRecord("acme", 1, m), tenantKey: tk.ID, public: m.public}
	}
	late := []string{"a secret that is all zero"} // found when the key is needed
	for name, tt := range map[string]struct {
		h      header
		secret []byte
	}{
		"a short secret":                  {head(hs), hs.secret()[:31]},
		"no secret":                       {head(hs), nil},
		"a secret that is all zero":       {head(hs), make([]byte, 32)},
		"bytes that are no private key":   {head(es), hs.secret()},
		"another's private key":           {head(es), other.secret()},
		"a private key of another kind":   {head(es), ed.secret()},
		"a key that is too large":         {head(hs), make([]byte, maxMaterial+1)},
		"a secret with a public part":     {func() header { h := head(hs); h.public = es.public; return h }(), hs.secret()},
		"no public part":                  {func() header { h := head(es); h.public = nil; return h }(), es.secret()},
		"a public part with more":         {func() header { h := head(es); h.public = append(bytes.Clone(es.public), 0); return h }(), es.secret()},
		"an algorithm of another kind":    {func() header { h := head(es); h.Algorithm = keystore.ES384; return h }(), es.secret()},
		"a kid that is no thumbprint":     {func() header { h := head(es); h.KID = other.KID; return h }(), es.secret()},
		"a kid that is not 128 bits":      {func() header { h := head(hs); h.KID = "1"; return h }(), hs.secret()},
		"a public part for the secret":    {func() header { h := head(es); h.Algorithm = keystore.HS256; return h }(), es.public},
		"a public part as the secret too": {func() header { h := head(es); h.Algorithm, h.public = keystore.HS256, nil; return h }(), es.public},
	} {
		box, err := tk.box()
		if err != nil {
			t.Fatal(err)
		}
		blob := sealed(t, box, tt.h.append(nil), tt.h.place(), tt.secret)
		r, err := OpenRecord(keys, "acme", tt.h.KID, blob)
		if !errors.Is(err, ErrMalformed) || r != nil {
			t.Errorf("%s: %v, %v", name, r, err)
		}
		_, err = openRecord(keys, "acme", tt.h.KID, blob, false)
		if isLate := slices.Contains(late, name); isLate != (err == nil) || !isLate && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s, without its key: %v", name, err)
		}
	}
}
