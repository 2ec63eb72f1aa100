package seal

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/internal/token"
	"github.com/keyturn/keyturn/rotation/ring"
)

var testRSA = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// sealedAt is when the records of these tests were made.
var sealedAt = time.Date(2026, 11, 22, 10, 0, 0, 123e6, time.UTC)

// testRecord returns a record of m, as a rotator would make it.
func testRecord(tenant string, seq int, m *Material) ring.Record {
	p := ring.Policy{Algorithm: m.Algorithm}.WithDefaults()
	return ring.Record{
		Tenant: tenant, KID: m.KID, Seq: seq, Algorithm: m.Algorithm,
		Created: sealedAt, ActivateAt: sealedAt.Add(p.Every), SignUntil: sealedAt.Add(2 * p.Every),
		Origin: ring.Generated, Timing: p,
	}
}

func mustMaterial(t testing.TB, alg keystore.Algorithm) *Material {
	t.Helper()
	m, err := NewMaterial(alg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func mustSeal(t testing.TB, tk *TenantKey, r ring.Record, m *Material) []byte {
	t.Helper()
	blob, err := SealRecord(tk, r, m)
	if err != nil {
		t.Fatal(err)
	}
	return blob
}

// A sealedRing is a ring as the store has it, and what went into it.
type sealedRing struct {
	tenant  string
	fields  map[string][]byte
	records []ring.Record
	facts   ring.Facts
	key     *TenantKey
}

func (s *sealedRing) add(t testing.TB, r ring.Record, m *Material) {
	t.Helper()
	s.fields[PrefixRecord+r.KID] = mustSeal(t, s.key, r, m)
	s.records = append(s.records, r)
}

func (s *sealedRing) learn(t testing.TB, keks *KEKs, kind ring.FactKind, kid string, at time.Time) {
	t.Helper()
	blob, err := SealFact(keks, s.tenant, kind, kid, at)
	if err != nil {
		t.Fatal(err)
	}
	s.fields[FactField(kind, kid)] = blob
	s.facts.Add(kind, kid, at)
}

// newSealedRing makes a ring of a key of HS256 and one of ES256, with a fact of
// every kind.
func newSealedRing(t testing.TB, keks *KEKs, tenant string) *sealedRing {
	t.Helper()
	s := &sealedRing{tenant: tenant, fields: make(map[string][]byte)}
	tk, blob, err := NewTenantKey(keks, tenant)
	if err != nil {
		t.Fatal(err)
	}
	s.key = tk
	s.fields[PrefixKey+tk.ID] = blob
	for i, alg := range []keystore.Algorithm{keystore.HS256, keystore.ES256} {
		m := mustMaterial(t, alg)
		s.add(t, testRecord(tenant, i+1, m), m)
	}
	for i, kind := range ring.FactKinds() {
		s.learn(t, keks, kind, s.records[i%2].KID, sealedAt.Add(time.Duration(i)*time.Second))
	}
	s.fields[FieldHead] = []byte("2")
	s.fields["p:"+s.records[0].KID] = []byte("1800000000000")
	return s
}

// with returns the ring's fields with one replaced.
func (s *sealedRing) with(field string, value []byte) map[string][]byte {
	fields := maps.Clone(s.fields)
	fields[field] = value
	return fields
}

func TestRoundTripOfEveryAlgorithm(t *testing.T) {
	keks := mustKEKs(t, 1)
	for _, alg := range keystore.Algorithms() {
		t.Run(string(alg), func(t *testing.T) {
			var m *Material
			var err error
			switch alg {
			case keystore.RS256, keystore.RS384, keystore.RS512, keystore.PS256, keystore.PS384, keystore.PS512:
				m, err = newMaterialOf(alg, testRSA())
			default:
				m, err = NewMaterial(alg)
			}
			if err != nil {
				t.Fatal(err)
			}
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
			if !bytes.Equal(got.Public, m.public) || (m.public == nil) != alg.Symmetric() || got.TenantKey != tk.ID {
				t.Errorf("public part %x, tenant key %s", got.Public, got.TenantKey)
			}
			if bytes.Contains(blob, m.secret()) {
				t.Error("the material is in the open")
			}
			sig, err := signWith(&got, []byte("a token"))
			if err != nil || !got.Key.Verify([]byte("a token"), sig) || got.Key.Verify([]byte("another"), sig) {
				t.Errorf("it does not verify what it signs: %v", err)
			}
			if want := (keystore.ID{Tenant: "acme", KID: m.KID}); got.Key.ID() != want || got.Key.Algorithm() != alg {
				t.Errorf("the key is %v", got.Key)
			}
		})
	}
}

func TestNewMaterialOfRSA(t *testing.T) {
	m := mustMaterial(t, keystore.PS256)
	r := testRecord("acme", 1, m)
	tk, _, _ := NewTenantKey(mustKEKs(t, 1), "acme")
	opened, err := OpenRecord(map[string]*TenantKey{tk.ID: tk}, "acme", m.KID, mustSeal(t, tk, r, m))
	if err != nil {
		t.Fatal(err)
	}
	pub, _ := opened.Key.Public()
	if bits := pub.(*rsa.PublicKey).N.BitLen(); bits != 3072 {
		t.Errorf("an RSA key of %d bits", bits)
	}
}

func TestNewMaterial(t *testing.T) {
	for alg, size := range map[keystore.Algorithm]int{keystore.HS256: 32, keystore.HS384: 48, keystore.HS512: 64} {
		a, b := mustMaterial(t, alg), mustMaterial(t, alg)
		if len(a.secret()) != size || len(a.KID) != 22 || a.public != nil {
			t.Errorf("%s: %d bytes, kid %q, public part %x", alg, len(a.secret()), a.KID, a.public)
		}
		if a.KID == b.KID || bytes.Equal(a.secret(), b.secret()) {
			t.Errorf("%s: the same twice", alg)
		}
	}
	for range 300 {
		if m := mustMaterial(t, keystore.HS256); m.KID[0] == '-' {
			t.Errorf("the kid %q looks like a flag", m.KID)
		}
	}
	for _, alg := range []keystore.Algorithm{"", "none", "HS257"} {
		if m, err := NewMaterial(alg); err == nil || m != nil {
			t.Errorf("newMaterial(%q) = %v, %v", alg, m, err)
		}
	}
}

// remote is a private key that stays where it is.
type remote struct{ crypto.Signer }

func TestNewMaterialOfRefuses(t *testing.T) {
	short, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	for name, tt := range map[string]struct {
		alg keystore.Algorithm
		key any
	}{
		"a short secret":       {keystore.HS256, make([]byte, 31)},
		"a zero secret":        {keystore.HS256, make([]byte, 32)},
		"nothing":              {keystore.HS256, nil},
		"another curve":        {keystore.ES256, short},
		"a key in an HSM":      {keystore.ES384, remote{short}},
		"a secret for ES256":   {keystore.ES256, testKEK(1)},
		"a key of no type":     {keystore.RS256, "key"},
		"an empty Ed25519 key": {keystore.EdDSA, ed25519.PrivateKey{}},
	} {
		if m, err := newMaterialOf(tt.alg, tt.key); err == nil || m != nil {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
}

// TestCodecHasEveryField: whoever gives Record or Policy another field finds that
// it has to be sealed, too.
func TestCodecHasEveryField(t *testing.T) {
	m := mustMaterial(t, keystore.HS256)
	base := header{Record: testRecord("acme", 1, m), tenantKey: "0123456789abcdef"}
	base.Timing = ring.Policy{Algorithm: keystore.HS256}
	spelled := base.append(nil)
	check := func(name string, h header) {
		got := h.append(nil)
		if bytes.Equal(got, spelled) {
			t.Errorf("%s is not in the header", name)
		}
		back, n, err := readHeader(got)
		if err != nil || n != len(got) || !reflect.DeepEqual(back.Record, h.Record) {
			t.Errorf("%s: read back as %+v, %v", name, back.Record, err)
		}
	}
	set := func(v reflect.Value, name string, h *header) {
		switch f := v.Interface().(type) {
		case string:
			v.SetString("other")
		case int:
			v.SetInt(12)
		case bool:
			v.SetBool(true)
		case time.Time:
			v.Set(reflect.ValueOf(f.Add(time.Millisecond)))
		case time.Duration:
			v.SetInt(int64(f + time.Millisecond))
		case keystore.Algorithm:
			v.SetString(string(keystore.HS512))
		case ring.Origin:
			v.SetString(string(ring.Legacy))
		default:
			t.Fatalf("%s is a %T, which this test does not know", name, f)
		}
		check(name, *h)
	}
	for i := range reflect.TypeFor[ring.Record]().NumField() {
		name := reflect.TypeFor[ring.Record]().Field(i).Name
		if name == "Timing" {
			continue
		}
		h := base
		set(reflect.ValueOf(&h.Record).Elem().Field(i), name, &h)
	}
	for i := range reflect.TypeFor[ring.Policy]().NumField() {
		h := base
		set(reflect.ValueOf(&h.Timing).Elem().Field(i), "Timing."+reflect.TypeFor[ring.Policy]().Field(i).Name, &h)
	}
}

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
		{"a kid in another spelling", hs, func(r *ring.Record) { r.KID = strings.Repeat("A", 21) + "B" }},
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

// An imported kid may be anything that a token can carry.
func TestFreeKIDs(t *testing.T) {
	keks := mustKEKs(t, 1)
	for _, kid := range []string{"1", "a:b:c", "{x}", "\x00", `"`, strings.Repeat("ü", 128), "-", "dead"} {
		s := newSealedRing(t, keks, "acme")
		m := mustMaterial(t, keystore.HS256)
		r := testRecord("acme", 1, m)
		r.KID, r.Origin, r.NoKID = kid, ring.Legacy, true
		s.add(t, r, m)
		s.learn(t, keks, ring.FactRevoked, kid, sealedAt)
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

func TestOpenRing(t *testing.T) {
	keks := mustKEKs(t, 1)
	s := newSealedRing(t, keks, "acme")
	opened, err := OpenRing(keks, "acme", s.fields)
	if err != nil {
		t.Fatal(err)
	}
	if !opened.Facts.Equal(s.facts) || opened.Head != 2 || len(opened.TenantKeys) != 1 {
		t.Errorf("facts %v, want %v; head %d; %d tenant keys", opened.Facts, s.facts, opened.Head, len(opened.TenantKeys))
	}
	got := opened.all()
	slices.SortFunc(got, func(a, b ring.Record) int { return a.Seq - b.Seq })
	if !reflect.DeepEqual(got, s.records) {
		t.Errorf("records %+v, want %+v", got, s.records)
	}

	empty, err := OpenRing(keks, "acme", nil)
	if err != nil || len(empty.Records) != 0 || empty.Head != 0 {
		t.Errorf("no ring = %v, %v", empty, err)
	}
}

func TestTwoLineages(t *testing.T) {
	keks := mustKEKs(t, 1)
	a, b := newSealedRing(t, keks, "acme"), newSealedRing(t, keks, "acme")
	maps.Copy(a.fields, b.fields)
	opened, err := OpenRing(keks, "acme", a.fields)
	if err != nil || len(opened.Records) != 4 || len(opened.TenantKeys) != 2 {
		t.Errorf("merged: %d records, %d tenant keys, %v", len(opened.Records), len(opened.TenantKeys), err)
	}
}

// sealed reports whether the field is authenticated.
func sealed(field string) bool { return field != FieldHead && !strings.HasPrefix(field, PrefixPublish) }

// TestFlipEveryByte: whichever bit of whatever is sealed changes, the ring is
// refused, and names the field; the rest still counts as news.
func TestFlipEveryByte(t *testing.T) {
	keks := mustKEKs(t, 1)
	s := newSealedRing(t, keks, "acme")
	dead, err := SealFact(keks, "acme", ring.FactDestroyed, "", sealedAt)
	if err != nil {
		t.Fatal(err)
	}
	gone, err := SealFact(keks, "acme", ring.FactCollected, "", sealedAt)
	if err != nil {
		t.Fatal(err)
	}
	values := maps.Clone(s.fields)
	values[FieldDead], values[FieldGone] = dead, gone
	for field, value := range values {
		if !sealed(field) {
			continue
		}
		for i := range value {
			for _, bit := range []byte{1, 0x80} {
				changed := bytes.Clone(value)
				changed[i] ^= bit
				opened, err := OpenRing(keks, "acme", s.with(field, changed))
				refused(t, fmt.Sprintf("%q, byte %d ^ %#x", field, i, bit), field, opened, err)
			}
		}
	}
}

// refused reports whether the ring was refused because of the field, which is not
// in it.
func refused(t *testing.T, what, field string, opened *OpenedRing, err error) {
	t.Helper()
	bad := new(ring.UnreadableError)
	if !errors.As(err, &bad) || bad.Failed[field] == nil || opened == nil {
		t.Errorf("%s: %v, want it refused", what, err)
		return
	}
	for _, cause := range bad.Failed {
		n := 0
		for _, reason := range []error{ErrWrongKEK, ErrTampered, ErrNewer, ErrMalformed} {
			if errors.Is(cause, reason) {
				n++
			}
		}
		if n != 1 || errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("%s: %v has %d reasons", what, cause, n)
		}
	}
	if in(opened, field) {
		t.Errorf("%s: refused, and yet there", what)
	}
}

// in reports whether what a field holds is in the ring.
func in(opened *OpenedRing, field string) bool {
	prefix, name, _ := strings.Cut(field, ":")
	switch {
	case field == FieldDead:
		return !opened.Facts.Dead.IsZero()
	case field == FieldGone:
		return !opened.Facts.CollectedUntil.IsZero()
	case prefix == "tk":
		return opened.TenantKeys[name] != nil
	case prefix == "k":
		return slices.ContainsFunc(opened.Records, func(r OpenedRecord) bool { return r.KID == name })
	case len(prefix) != 1:
		return false
	}
	_, ok := opened.Facts.At(ring.FactKind(prefix[0]), name)
	return ok
}

func TestCutAndExtended(t *testing.T) {
	keks := mustKEKs(t, 1)
	s := newSealedRing(t, keks, "acme")
	for field, value := range s.fields {
		if !sealed(field) {
			continue
		}
		for n := range value {
			opened, err := OpenRing(keks, "acme", s.with(field, value[:n]))
			refused(t, fmt.Sprintf("%q cut at %d", field, n), field, opened, err)
		}
		for _, more := range [][]byte{{0}, {1}, value, make([]byte, 1<<16)} {
			opened, err := OpenRing(keks, "acme", s.with(field, slices.Concat(value, more)))
			refused(t, fmt.Sprintf("%q with %d more", field, len(more)), field, opened, err)
		}
	}
}

// TestSwap: nothing that is sealed opens anywhere but in its place.
func TestSwap(t *testing.T) {
	keks := mustKEKs(t, 1)
	s, other := newSealedRing(t, keks, "acme"), newSealedRing(t, keks, "globex")
	for from, value := range s.fields {
		if !sealed(from) {
			continue
		}
		for to := range s.fields {
			if to != from && sealed(to) {
				opened, err := OpenRing(keks, "acme", s.with(to, value))
				refused(t, fmt.Sprintf("%q as %q", from, to), to, opened, err)
			}
		}
		opened, err := OpenRing(keks, "globex", other.with(from, value))
		refused(t, fmt.Sprintf("%q in another tenant's ring", from), from, opened, err)
		if len(opened.Records) != 2 {
			t.Errorf("%q in another tenant's ring takes its records along", from)
		}
	}
	// A whole ring moved, with the keys of the tenant that it came from.
	opened, err := OpenRing(keks, "globex", s.fields)
	for field := range s.fields {
		if sealed(field) {
			refused(t, "a whole ring moved", field, opened, err)
		}
	}
	if !errors.Is(err, ErrTampered) || len(opened.Records)+len(opened.TenantKeys) > 0 || !opened.Facts.Equal(ring.Facts{}) {
		t.Errorf("a whole ring moved: %v", err)
	}
	// A fact made dead, and the other way.
	opened, err = OpenRing(keks, "acme", s.with(FieldDead, s.fields[FactField(ring.FactRevoked, s.records[0].KID)]))
	refused(t, "a revocation as dead", FieldDead, opened, err)
}

// TestGarbledFieldHoldsNoRevocationBack: what is authentic is news, whatever
// stands beside it.
func TestGarbledFieldHoldsNoRevocationBack(t *testing.T) {
	keks := mustKEKs(t, 1)
	s := newSealedRing(t, keks, "acme")
	field := PrefixRecord + s.records[1].KID
	opened, err := OpenRing(keks, "acme", s.with(field, []byte("rubbish")))
	refused(t, "rubbish", field, opened, err)
	if !opened.Facts.Equal(s.facts) || len(opened.Records) != 1 {
		t.Errorf("facts %v, want %v; %d records", opened.Facts, s.facts, len(opened.Records))
	}
	bad := new(ring.UnreadableError)
	if !errors.As(err, &bad) || !slices.Equal(Replaceable(bad), []string{field}) {
		t.Errorf("replaceable: %q", Replaceable(bad))
	}
}

func TestUnknownFields(t *testing.T) {
	keks := mustKEKs(t, 1)
	s := newSealedRing(t, keks, "acme")
	for field, want := range map[string]error{
		"_later": nil, "_": nil, "p:": nil, "p:any": nil,
		"y:" + s.records[0].KID: ErrNewer, "": ErrNewer, ":": ErrNewer, "x": ErrNewer, "d:": ErrNewer, "d:a": ErrNewer, "heads": ErrNewer,
		"K:a": ErrNewer, "xx:a": ErrNewer, "k:": ErrMalformed, "x:": ErrMalformed, "tk:": ErrMalformed, "tk:0123456789ABCDEF": ErrMalformed,
		"x:\xff": ErrMalformed, "k:" + strings.Repeat("a", 257): ErrMalformed, "x:" + strings.Repeat("a", 257): ErrMalformed,
	} {
		_, err := OpenRing(keks, "acme", s.with(field, []byte{0}))
		if !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("%q: %v, want %v", field, err, want)
		}
	}
	for _, head := range []string{"", "0", "-1", "+1", "01", "1 ", "2147483648", "1e3", strings.Repeat("9", 100)} {
		if _, err := OpenRing(keks, "acme", s.with(FieldHead, []byte(head))); !errors.Is(err, ErrMalformed) {
			t.Errorf("head %q: %v", head, err)
		}
	}
}

func TestNewer(t *testing.T) {
	keks := mustKEKs(t, 1)
	s := newSealedRing(t, keks, "acme")
	for field, value := range s.fields {
		if !sealed(field) {
			continue
		}
		for _, newer := range [][]byte{[]byte("kt\x02"), []byte("kt\xff\x01"), append([]byte("kt\x02"), value[3:]...)} {
			opened, err := OpenRing(keks, "acme", s.with(field, newer))
			refused(t, field, field, opened, err)
			bad := new(ring.UnreadableError)
			if !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "newer keyturn") {
				t.Errorf("%q of a newer version: %v", field, err)
			}
			// A newer keyturn may have had more to say.
			if errors.As(err, &bad); slices.Contains(Replaceable(bad), field) {
				t.Errorf("%q of a newer version: replaceable are %q", field, Replaceable(bad))
			}
		}
	}
}

func TestWrongKEK(t *testing.T) {
	ours, theirs := mustKEKs(t, 1), mustKEKs(t, 2)
	s := newSealedRing(t, theirs, "acme")
	opened, err := OpenRing(ours, "acme", s.fields)
	if !errors.Is(err, ErrWrongKEK) || errors.Is(err, ErrTampered) {
		t.Fatalf("under another KEK: %v", err)
	}
	want := fmt.Sprintf("it is sealed under KEK %q, this process has KEK %q", theirs.IDs()[0], ours.IDs()[0])
	if !strings.Contains(err.Error(), want) {
		t.Errorf("%q does not say %q", err, want)
	}
	bad := new(ring.UnreadableError)
	if errors.As(err, &bad); len(Replaceable(bad)) > 0 || len(opened.Records) > 0 {
		t.Errorf("replaceable: %q; %d records", Replaceable(bad), len(opened.Records))
	}

	named := func(key []byte) *KEKs {
		ks, err := ParseKEKs([]byte("main:" + base64.StdEncoding.EncodeToString(key)))
		if err != nil {
			t.Fatal(err)
		}
		return ks
	}
	s = newSealedRing(t, named(testKEK(2)), "acme")
	_, err = OpenRing(named(testKEK(1)), "acme", s.fields)
	if !errors.Is(err, ErrWrongKEK) || !strings.Contains(err.Error(), `another key that is called "main", too`) {
		t.Errorf("another key of the same name: %v", err)
	}
	// The name is the operator's to change.
	if _, err := OpenRing(theirs, "acme", s.fields); err != nil {
		t.Errorf("the same key under another name: %v", err)
	}
	for _, none := range []*KEKs{nil, {}} {
		if _, err := OpenRing(none, "acme", s.fields); !errors.Is(err, ErrWrongKEK) {
			t.Errorf("without a KEK: %v", err)
		}
	}
	s = newSealedRing(t, InsecurePlaintext(), "acme")
	if _, err := OpenRing(InsecurePlaintext(), "acme", s.fields); err != nil {
		t.Errorf("insecure: %v", err)
	}
	if _, err := OpenRing(ours, "acme", s.fields); !errors.Is(err, ErrWrongKEK) || !strings.Contains(err.Error(), `"insecure"`) {
		t.Errorf("an insecure ring with a KEK: %v", err)
	}
}

// rewrap returns a tenant key as it is stored under the primary KEK.
func rewrap(keks *KEKs, tenant, id string, blob []byte) ([]byte, error) {
	tk, err := OpenTenantKey(keks, tenant, id, blob)
	if err != nil {
		return nil, err
	}
	return tk.Seal(keks, tenant)
}

// signWith signs msg with the key of an opened record.
func signWith(r *OpenedRecord, msg []byte) ([]byte, error) {
	key, err := token.NewKey(r.TokenID(), r.Algorithm, r.Private(), "JWT")
	if err != nil {
		return nil, err
	}
	return key.Sign(msg)
}

func TestKEKChange(t *testing.T) {
	before, both, after := mustKEKs(t, 1), mustKEKs(t, 2, 1), mustKEKs(t, 2)
	s := newSealedRing(t, before, "acme")
	field := PrefixKey + s.key.ID

	wrapped, err := rewrap(both, "acme", s.key.ID, s.fields[field])
	if err != nil {
		t.Fatal(err)
	}
	fields := s.with(field, wrapped)
	opened, err := OpenRing(both, "acme", fields)
	if err != nil || len(opened.Records) != 2 || !opened.Facts.Equal(s.facts) {
		t.Fatalf("old facts and records under both KEKs: %v", err)
	}
	// Facts that nobody sealed anew are doubt once the old KEK is gone, and records are not.
	opened, err = OpenRing(after, "acme", fields)
	if !errors.Is(err, ErrWrongKEK) || len(opened.Records) != 2 {
		t.Errorf("old facts without the old KEK: %v", err)
	}
	for id, at := range s.facts.All {
		if fields[FactField(id.Kind, id.KID)], err = SealFact(both, "acme", id.Kind, id.KID, at); err != nil {
			t.Fatal(err)
		}
	}
	opened, err = OpenRing(after, "acme", fields)
	if err != nil || !opened.Facts.Equal(s.facts) {
		t.Errorf("after the change: %v", err)
	}
	if _, err := rewrap(after, "acme", s.key.ID, s.fields[field]); !errors.Is(err, ErrWrongKEK) {
		t.Errorf("rewrapped without the old KEK: %v", err)
	}
	if _, err := rewrap(both, "globex", s.key.ID, s.fields[field]); !errors.Is(err, ErrTampered) {
		t.Errorf("rewrapped for another tenant: %v", err)
	}
}

// TestDestroyed: of a ring that was destroyed only the facts are read. Its tenant
// keys may be gone; without the fact, that would be doubt.
func TestDestroyed(t *testing.T) {
	keks := mustKEKs(t, 1)
	s := newSealedRing(t, keks, "acme")
	delete(s.fields, PrefixKey+s.key.ID)
	_, err := OpenRing(keks, "acme", s.fields)
	if !errors.Is(err, ErrTampered) || !strings.Contains(err.Error(), s.key.ID) {
		t.Errorf("its tenant key gone: %v", err)
	}
	dead, err := SealFact(keks, "acme", ring.FactDestroyed, "", sealedAt)
	if err != nil {
		t.Fatal(err)
	}
	s.fields[FieldDead] = dead
	s.fields["k:x"] = []byte("rubbish")
	opened, err := OpenRing(keks, "acme", s.fields)
	if err != nil || !opened.Facts.Dead.Equal(sealedAt) || len(opened.Records) != 0 {
		t.Errorf("destroyed: %+v, %v", opened, err)
	}
	if _, ok := opened.Facts.At(ring.FactRevoked, s.records[0].KID); !ok {
		t.Error("destroyed: its revocations are lost")
	}
}

func TestSealFactRefuses(t *testing.T) {
	keks := mustKEKs(t, 1)
	for _, tt := range []struct {
		tenant string
		kind   ring.FactKind
		kid    string
		at     time.Time
	}{
		{"", ring.FactRevoked, "k", sealedAt}, {"\xff", ring.FactRevoked, "k", sealedAt}, {"acme", 0, "k", sealedAt}, {"acme", 'k', "k", sealedAt},
		{"acme", ring.FactRevoked, "", sealedAt}, {"acme", ring.FactDestroyed, "k", sealedAt}, {"acme", ring.FactCollected, "k", sealedAt}, {"acme", ring.FactRevoked, "\xff", sealedAt},
		{"acme", ring.FactRevoked, "k", time.Time{}}, {"acme", ring.FactRevoked, "k", sealedAt.Add(1)}, {"acme", ring.FactRevoked, "k", maxDate},
	} {
		if blob, err := SealFact(keks, tt.tenant, tt.kind, tt.kid, tt.at); err == nil || blob != nil {
			t.Errorf("sealFact(%+v): sealed", tt)
		}
	}
}

// TestMalformedUnderTheSeal: what somebody with the KEK has sealed wrongly is
// malformed, not a key.
func TestMalformedUnderTheSeal(t *testing.T) {
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
	for name, tt := range map[string]struct {
		h      header
		secret []byte
	}{
		"a short secret":                  {head(hs), hs.secret()[:31]},
		"no secret":                       {head(hs), nil},
		"a secret that is all zero":       {head(hs), make([]byte, 32)},
		"a private key that is none":      {head(es), hs.secret()},
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
		open := tt.h.append(nil)
		aead, err := tk.aead()
		if err != nil {
			t.Fatal(err)
		}
		blob := append(open, aead.Seal(nil, nil, tt.secret, open)...)
		r, err := OpenRecord(keys, "acme", tt.h.KID, blob)
		if !errors.Is(err, ErrMalformed) || r != nil {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
}

// TestNothingLeaksFromTheSeal prints everything in every way.
func TestNothingLeaksFromTheSeal(t *testing.T) {
	keks := mustKEKs(t, 1)
	s := newSealedRing(t, keks, "acme")
	hs, es := mustMaterial(t, keystore.HS256), mustMaterial(t, keystore.ES256)
	for i, m := range []*Material{hs, es} {
		s.add(t, testRecord("acme", i+3, m), m)
	}
	opened, err := OpenRing(keks, "acme", s.fields)
	if err != nil {
		t.Fatal(err)
	}
	blob := s.fields[PrefixKey+s.key.ID]
	_, n, err := readSealedKey(blob)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := keks.list[0].aead()
	if err != nil {
		t.Fatal(err)
	}
	tenantKey, err := aead.Open(nil, nil, blob[n:], blob[:n])
	if err != nil {
		t.Fatal(err)
	}

	garbled := maps.Clone(s.fields)
	for field, value := range garbled {
		garbled[field] = append(bytes.Clone(value[:len(value)-1]), value[len(value)-1]^1)
	}
	_, errGarbled := OpenRing(keks, "acme", garbled)
	_, errOther := OpenRing(mustKEKs(t, 2), "acme", s.fields)
	_, errMaterial := newMaterialOf(keystore.ES256, hs.secret())
	errs := []error{errGarbled, errOther, errMaterial}

	private, err := x509.ParsePKCS8PrivateKey(es.secret())
	if err != nil {
		t.Fatal(err)
	}
	scalar, err := private.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string][]byte{"KEK": testKEK(1), "tenant key": tenantKey, "secret": hs.secret(), "private key": scalar}
	var out strings.Builder
	for _, v := range []any{keks, *keks, keks.list[0], *keks.list[0], s.key, *s.key, opened, *opened, opened.Records, opened.Records[0], hs, *es, errs,
		errGarbled, errOther, errMaterial, opened.Records[0].Private} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%q", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		if doc, err := json.Marshal(v); err == nil {
			out.Write(doc)
		}
	}
	printed := strings.ToLower(out.String())
	for name, b := range secrets {
		for _, half := range [][]byte{b[len(b)-16:], b[len(b)-32 : len(b)-16]} {
			for _, text := range []string{string(half), hex.EncodeToString(half), strings.Trim(fmt.Sprint(half), "[]"),
				strings.Trim(fmt.Sprintf("%#v", half), "[]byte{}"), base64.StdEncoding.EncodeToString(half)[:20], base64.RawURLEncoding.EncodeToString(half)[:20]} {
				if strings.Contains(printed, strings.ToLower(text)) {
					t.Errorf("the %s is printed: %q", name, text)
				}
			}
		}
	}
}

func TestSealConcurrently(t *testing.T) {
	keks := mustKEKs(t, 1)
	s := newSealedRing(t, keks, "acme")
	opened, err := OpenRing(keks, "acme", s.fields)
	if err != nil {
		t.Fatal(err)
	}
	m := mustMaterial(t, keystore.HS256)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 20 {
				if _, err := OpenRing(keks, "acme", s.fields); err != nil {
					t.Error(err)
				}
				r := testRecord("acme", 20*i+j+1, m)
				if _, err := SealRecord(opened.TenantKeys[s.key.ID], r, m); err != nil {
					t.Error(err)
				}
				if _, err := SealFact(keks, "acme", ring.FactRevoked, m.KID, sealedAt); err != nil {
					t.Error(err)
				}
				for _, r := range opened.Records {
					if sig, err := signWith(&r, []byte("x")); err != nil || !r.Key.Verify([]byte("x"), sig) {
						t.Errorf("it does not verify what it signs: %v", err)
					}
				}
			}
		})
	}
	wg.Wait()
}

// TestSealsDiffer: nonces and keys are never the same twice.
func TestSealsDiffer(t *testing.T) {
	keks := mustKEKs(t, 1)
	m := mustMaterial(t, keystore.HS256)
	tk, _, err := NewTenantKey(keks, "acme")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for range 100 {
		other, wrapped, err := NewTenantKey(keks, "acme")
		if err != nil {
			t.Fatal(err)
		}
		record := mustSeal(t, tk, testRecord("acme", 1, m), m)
		for _, unique := range []string{other.ID, string(wrapped[len(wrapped)-60:][:12]), string(record[len(record)-60:][:12])} {
			if seen[unique] {
				t.Fatalf("%x a second time", unique)
			}
			seen[unique] = true
		}
	}
}

func BenchmarkOpenRing(b *testing.B) {
	keks := mustKEKs(b, 1)
	for _, alg := range []keystore.Algorithm{keystore.HS256, keystore.ES256, keystore.PS256} {
		b.Run(string(alg), func(b *testing.B) {
			s := &sealedRing{tenant: "acme", fields: make(map[string][]byte)}
			tk, blob, err := NewTenantKey(keks, "acme")
			if err != nil {
				b.Fatal(err)
			}
			s.key, s.fields[PrefixKey+tk.ID] = tk, blob
			for i := range 2 {
				m := mustMaterial(b, alg)
				s.add(b, testRecord("acme", i+1, m), m)
				s.learn(b, keks, ring.FactAnnounced, m.KID, sealedAt)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := OpenRing(keks, "acme", s.fields); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
