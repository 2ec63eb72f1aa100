package rotation

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
func testRecord(tenant string, seq int, m *material) Record {
	p := Policy{Algorithm: m.alg}.WithDefaults()
	return Record{
		Tenant: tenant, KID: m.kid, Seq: seq, Algorithm: m.alg,
		Created: sealedAt, ActivateAt: sealedAt.Add(p.Every), SignUntil: sealedAt.Add(2 * p.Every),
		Origin: Generated, Timing: p,
	}
}

func mustMaterial(t testing.TB, alg keystore.Algorithm) *material {
	t.Helper()
	m, err := newMaterial(alg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func mustSeal(t testing.TB, tk *tenantKey, r Record, m *material) []byte {
	t.Helper()
	blob, err := sealRecord(tk, r, m)
	if err != nil {
		t.Fatal(err)
	}
	return blob
}

// A sealedRing is a ring as the store has it, and what went into it.
type sealedRing struct {
	tenant  string
	fields  map[string][]byte
	records []Record
	facts   Facts
	key     *tenantKey
}

func (s *sealedRing) add(t testing.TB, r Record, m *material) {
	t.Helper()
	s.fields[prefixRecord+r.KID] = mustSeal(t, s.key, r, m)
	s.records = append(s.records, r)
}

func (s *sealedRing) learn(t testing.TB, keks *KEKs, kind FactKind, kid string, at time.Time) {
	t.Helper()
	blob, err := sealFact(keks, s.tenant, kind, kid, at)
	if err != nil {
		t.Fatal(err)
	}
	s.fields[factField(kind, kid)] = blob
	s.facts.Add(kind, kid, at)
}

// newSealedRing makes a ring of a key of HS256 and one of ES256, with a fact of
// every kind.
func newSealedRing(t testing.TB, keks *KEKs, tenant string) *sealedRing {
	t.Helper()
	s := &sealedRing{tenant: tenant, fields: make(map[string][]byte)}
	tk, blob, err := newTenantKey(keks, tenant)
	if err != nil {
		t.Fatal(err)
	}
	s.key = tk
	s.fields[prefixKey+tk.id] = blob
	for i, alg := range []keystore.Algorithm{keystore.HS256, keystore.ES256} {
		m := mustMaterial(t, alg)
		s.add(t, testRecord(tenant, i+1, m), m)
	}
	for i, kind := range kinds {
		s.learn(t, keks, kind, s.records[i%2].KID, sealedAt.Add(time.Duration(i)*time.Second))
	}
	s.fields[fieldHead] = []byte("2")
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
			var m *material
			var err error
			switch alg {
			case keystore.RS256, keystore.RS384, keystore.RS512, keystore.PS256, keystore.PS384, keystore.PS512:
				m, err = newMaterialOf(alg, testRSA())
			default:
				m, err = newMaterial(alg)
			}
			if err != nil {
				t.Fatal(err)
			}
			tk, wrapped, err := newTenantKey(keks, "acme")
			if err != nil {
				t.Fatal(err)
			}
			r := testRecord("acme", 7, m)
			blob := mustSeal(t, tk, r, m)
			ring, err := openRing(keks, "acme", map[string][]byte{"k:" + m.kid: blob, "tk:" + tk.id: wrapped})
			if err != nil {
				t.Fatal(err)
			}
			got := ring.records[0]
			if !reflect.DeepEqual(got.Record, r) {
				t.Errorf("opened %+v\nsealed %+v", got.Record, r)
			}
			if !bytes.Equal(got.public, m.public) || (m.public == nil) != alg.Symmetric() || got.tenantKey != tk.id {
				t.Errorf("public part %x, tenant key %s", got.public, got.tenantKey)
			}
			if bytes.Contains(blob, m.secret()) {
				t.Error("the material is in the open")
			}
			sig, err := got.sign([]byte("a token"))
			if err != nil || !got.key.Verify([]byte("a token"), sig) || got.key.Verify([]byte("another"), sig) {
				t.Errorf("it does not verify what it signs: %v", err)
			}
			if want := (keystore.ID{Tenant: "acme", KID: m.kid}); got.key.ID() != want || got.key.Algorithm() != alg {
				t.Errorf("the key is %v", got.key)
			}
		})
	}
}

func TestNewMaterialOfRSA(t *testing.T) {
	m := mustMaterial(t, keystore.PS256)
	r := testRecord("acme", 1, m)
	tk, _, _ := newTenantKey(mustKEKs(t, 1), "acme")
	opened, err := openRecord(map[string]*tenantKey{tk.id: tk}, "acme", m.kid, mustSeal(t, tk, r, m))
	if err != nil {
		t.Fatal(err)
	}
	pub, _ := opened.key.Public()
	if bits := pub.(*rsa.PublicKey).N.BitLen(); bits != 3072 {
		t.Errorf("an RSA key of %d bits", bits)
	}
}

func TestNewMaterial(t *testing.T) {
	for alg, size := range map[keystore.Algorithm]int{keystore.HS256: 32, keystore.HS384: 48, keystore.HS512: 64} {
		a, b := mustMaterial(t, alg), mustMaterial(t, alg)
		if len(a.secret()) != size || len(a.kid) != 22 || a.public != nil {
			t.Errorf("%s: %d bytes, kid %q, public part %x", alg, len(a.secret()), a.kid, a.public)
		}
		if a.kid == b.kid || bytes.Equal(a.secret(), b.secret()) {
			t.Errorf("%s: the same twice", alg)
		}
	}
	for range 300 {
		if m := mustMaterial(t, keystore.HS256); m.kid[0] == '-' {
			t.Errorf("the kid %q looks like a flag", m.kid)
		}
	}
	for _, alg := range []keystore.Algorithm{"", "none", "HS257"} {
		if m, err := newMaterial(alg); err == nil || m != nil {
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
	base.Timing = Policy{Algorithm: keystore.HS256}
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
		case Origin:
			v.SetString(string(Legacy))
		default:
			t.Fatalf("%s is a %T, which this test does not know", name, f)
		}
		check(name, *h)
	}
	for i := range reflect.TypeFor[Record]().NumField() {
		name := reflect.TypeFor[Record]().Field(i).Name
		if name == "Timing" {
			continue
		}
		h := base
		set(reflect.ValueOf(&h.Record).Elem().Field(i), name, &h)
	}
	for i := range reflect.TypeFor[Policy]().NumField() {
		h := base
		set(reflect.ValueOf(&h.Timing).Elem().Field(i), "Timing."+reflect.TypeFor[Policy]().Field(i).Name, &h)
	}
}

func TestSealRecordRefuses(t *testing.T) {
	tk, _, err := newTenantKey(mustKEKs(t, 1), "acme")
	if err != nil {
		t.Fatal(err)
	}
	hs, es := mustMaterial(t, keystore.HS256), mustMaterial(t, keystore.ES256)
	for _, tt := range []struct {
		name string
		m    *material
		edit func(*Record)
	}{
		{"no tenant", hs, func(r *Record) { r.Tenant = "" }},
		{"a long tenant", hs, func(r *Record) { r.Tenant = strings.Repeat("a", 257) }},
		{"a tenant that is not UTF-8", hs, func(r *Record) { r.Tenant = "\xff" }},
		{"no kid", hs, func(r *Record) { r.KID, r.Origin = "", Imported }},
		{"a long kid", hs, func(r *Record) { r.KID, r.Origin = strings.Repeat("a", 257), Imported }},
		{"a kid that is not UTF-8", hs, func(r *Record) { r.KID, r.Origin = "\xff", Imported }},
		{"a kid of 15 bytes", hs, func(r *Record) { r.KID = base64.RawURLEncoding.EncodeToString(make([]byte, 15)) }},
		{"a kid in another spelling", hs, func(r *Record) { r.KID = strings.Repeat("A", 21) + "B" }},
		{"a kid that is no thumbprint", es, func(r *Record) { r.KID = hs.kid }},
		{"seq 0", hs, func(r *Record) { r.Seq = 0 }},
		{"a huge seq", hs, func(r *Record) { r.Seq = maxSeq + 1 }},
		{"no algorithm", hs, func(r *Record) { r.Algorithm = "" }},
		{"another algorithm", hs, func(r *Record) { r.Algorithm = keystore.HS512 }},
		{"material of another kind", es, func(r *Record) { r.Algorithm = keystore.HS256 }},
		{"no material", nil, func(r *Record) {}},
		{"an unknown origin", hs, func(r *Record) { r.Origin = "found" }},
		{"no origin", hs, func(r *Record) { r.Origin = "" }},
		{"microseconds", hs, func(r *Record) { r.Created = r.Created.Add(time.Microsecond) }},
		{"no date", hs, func(r *Record) { r.Created = time.Time{} }},
		{"the year 2200", hs, func(r *Record) { r.SignUntil = maxDate }},
		{"an end before the start", hs, func(r *Record) { r.SignUntil = r.ActivateAt }},
		{"an incomplete policy", hs, func(r *Record) { r.Timing.Dwell = 0 }},
		{"a policy that does not hold", hs, func(r *Record) { r.Timing.SignFor = r.Timing.Propagation }},
	} {
		m := tt.m
		if m == nil {
			m = hs
		}
		r := testRecord("acme", 1, m)
		tt.edit(&r)
		if blob, err := sealRecord(tk, r, tt.m); err == nil || blob != nil {
			t.Errorf("%s: sealed, %v", tt.name, err)
		}
	}
	for _, tenant := range []string{"", "\xff", strings.Repeat("a", 257)} {
		if _, _, err := newTenantKey(mustKEKs(t, 1), tenant); err == nil {
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
		r.KID, r.Origin, r.NoKID = kid, Legacy, true
		s.add(t, r, m)
		s.learn(t, keks, FactRevoked, kid, sealedAt)
		ring, err := openRing(keks, "acme", s.fields)
		if err != nil {
			t.Errorf("%q: %v", kid, err)
			continue
		}
		if _, ok := ring.facts.At(FactRevoked, kid); !ok {
			t.Errorf("%q: its revocation is lost", kid)
		}
		i := slices.IndexFunc(ring.records, func(o openedRecord) bool { return o.KID == kid })
		sk := ring.records[i].signingKey("JWT")
		header, _ := base64.RawURLEncoding.DecodeString(string(sk.header))
		if want := `{"alg":"HS256","typ":"JWT"}`; string(header) != want {
			t.Errorf("%q: its tokens have the header %s, want %s", kid, header, want)
		}
	}
}

func TestOpenRing(t *testing.T) {
	keks := mustKEKs(t, 1)
	s := newSealedRing(t, keks, "acme")
	ring, err := openRing(keks, "acme", s.fields)
	if err != nil {
		t.Fatal(err)
	}
	if !ring.facts.Equal(s.facts) || ring.head != 2 || len(ring.tenantKeys) != 1 {
		t.Errorf("facts %v, want %v; head %d; %d tenant keys", ring.facts, s.facts, ring.head, len(ring.tenantKeys))
	}
	got := ring.all()
	slices.SortFunc(got, func(a, b Record) int { return a.Seq - b.Seq })
	if !reflect.DeepEqual(got, s.records) {
		t.Errorf("records %+v, want %+v", got, s.records)
	}

	empty, err := openRing(keks, "acme", nil)
	if err != nil || len(empty.records) != 0 || empty.head != 0 {
		t.Errorf("no ring = %v, %v", empty, err)
	}
}

func TestTwoLineages(t *testing.T) {
	keks := mustKEKs(t, 1)
	a, b := newSealedRing(t, keks, "acme"), newSealedRing(t, keks, "acme")
	maps.Copy(a.fields, b.fields)
	ring, err := openRing(keks, "acme", a.fields)
	if err != nil || len(ring.records) != 4 || len(ring.tenantKeys) != 2 {
		t.Errorf("merged: %d records, %d tenant keys, %v", len(ring.records), len(ring.tenantKeys), err)
	}
}

// sealed reports whether the field is authenticated.
func sealed(field string) bool { return field != fieldHead && !strings.HasPrefix(field, prefixPublish) }

// TestFlipEveryByte: whichever bit of whatever is sealed changes, the ring is
// refused, and names the field; the rest still counts as news.
func TestFlipEveryByte(t *testing.T) {
	keks := mustKEKs(t, 1)
	s := newSealedRing(t, keks, "acme")
	dead, err := sealFact(keks, "acme", factDead, "", sealedAt)
	if err != nil {
		t.Fatal(err)
	}
	gone, err := sealFact(keks, "acme", factGone, "", sealedAt)
	if err != nil {
		t.Fatal(err)
	}
	values := maps.Clone(s.fields)
	values[fieldDead], values[fieldGone] = dead, gone
	for field, value := range values {
		if !sealed(field) {
			continue
		}
		for i := range value {
			for _, bit := range []byte{1, 0x80} {
				changed := bytes.Clone(value)
				changed[i] ^= bit
				ring, err := openRing(keks, "acme", s.with(field, changed))
				refused(t, fmt.Sprintf("%q, byte %d ^ %#x", field, i, bit), field, ring, err)
			}
		}
	}
}

// refused reports whether the ring was refused because of the field, which is not
// in it.
func refused(t *testing.T, what, field string, ring *openedRing, err error) {
	t.Helper()
	bad := new(RingError)
	if !errors.As(err, &bad) || bad.Failed[field] == nil || ring == nil {
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
	if in(ring, field) {
		t.Errorf("%s: refused, and yet there", what)
	}
}

// in reports whether what a field holds is in the ring.
func in(ring *openedRing, field string) bool {
	prefix, name, _ := strings.Cut(field, ":")
	switch {
	case field == fieldDead:
		return !ring.facts.Dead.IsZero()
	case field == fieldGone:
		return !ring.facts.Gone.IsZero()
	case prefix == "tk":
		return ring.tenantKeys[name] != nil
	case prefix == "k":
		return slices.ContainsFunc(ring.records, func(r openedRecord) bool { return r.KID == name })
	case len(prefix) != 1:
		return false
	}
	_, ok := ring.facts.At(FactKind(prefix[0]), name)
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
			ring, err := openRing(keks, "acme", s.with(field, value[:n]))
			refused(t, fmt.Sprintf("%q cut at %d", field, n), field, ring, err)
		}
		for _, more := range [][]byte{{0}, {1}, value, make([]byte, 1<<16)} {
			ring, err := openRing(keks, "acme", s.with(field, slices.Concat(value, more)))
			refused(t, fmt.Sprintf("%q with %d more", field, len(more)), field, ring, err)
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
				ring, err := openRing(keks, "acme", s.with(to, value))
				refused(t, fmt.Sprintf("%q as %q", from, to), to, ring, err)
			}
		}
		ring, err := openRing(keks, "globex", other.with(from, value))
		refused(t, fmt.Sprintf("%q in another tenant's ring", from), from, ring, err)
		if len(ring.records) != 2 {
			t.Errorf("%q in another tenant's ring takes its records along", from)
		}
	}
	// A whole ring moved, with the keys of the tenant that it came from.
	ring, err := openRing(keks, "globex", s.fields)
	for field := range s.fields {
		if sealed(field) {
			refused(t, "a whole ring moved", field, ring, err)
		}
	}
	if !errors.Is(err, ErrTampered) || len(ring.records)+len(ring.tenantKeys) > 0 || !ring.facts.Equal(Facts{}) {
		t.Errorf("a whole ring moved: %v", err)
	}
	// A fact made dead, and the other way.
	ring, err = openRing(keks, "acme", s.with(fieldDead, s.fields[factField(FactRevoked, s.records[0].KID)]))
	refused(t, "a revocation as dead", fieldDead, ring, err)
}

// TestGarbledFieldHoldsNoRevocationBack: what is authentic is news, whatever
// stands beside it.
func TestGarbledFieldHoldsNoRevocationBack(t *testing.T) {
	keks := mustKEKs(t, 1)
	s := newSealedRing(t, keks, "acme")
	field := prefixRecord + s.records[1].KID
	ring, err := openRing(keks, "acme", s.with(field, []byte("rubbish")))
	refused(t, "rubbish", field, ring, err)
	if !ring.facts.Equal(s.facts) || len(ring.records) != 1 {
		t.Errorf("facts %v, want %v; %d records", ring.facts, s.facts, len(ring.records))
	}
	bad := new(RingError)
	if !errors.As(err, &bad) || !slices.Equal(bad.replaceable(), []string{field}) {
		t.Errorf("replaceable: %q", bad.replaceable())
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
		_, err := openRing(keks, "acme", s.with(field, []byte{0}))
		if !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("%q: %v, want %v", field, err, want)
		}
	}
	for _, head := range []string{"", "0", "-1", "+1", "01", "1 ", "2147483648", "1e3", strings.Repeat("9", 100)} {
		if _, err := openRing(keks, "acme", s.with(fieldHead, []byte(head))); !errors.Is(err, ErrMalformed) {
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
			ring, err := openRing(keks, "acme", s.with(field, newer))
			refused(t, field, field, ring, err)
			bad := new(RingError)
			if !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "newer keyturn") {
				t.Errorf("%q of a newer version: %v", field, err)
			}
			// A newer keyturn may have had more to say.
			if errors.As(err, &bad); slices.Contains(bad.replaceable(), field) {
				t.Errorf("%q of a newer version: replaceable are %q", field, bad.replaceable())
			}
		}
	}
}

func TestWrongKEK(t *testing.T) {
	ours, theirs := mustKEKs(t, 1), mustKEKs(t, 2)
	s := newSealedRing(t, theirs, "acme")
	ring, err := openRing(ours, "acme", s.fields)
	if !errors.Is(err, ErrWrongKEK) || errors.Is(err, ErrTampered) {
		t.Fatalf("under another KEK: %v", err)
	}
	want := fmt.Sprintf("it is sealed under KEK %q, this process has KEK %q", theirs.IDs()[0], ours.IDs()[0])
	if !strings.Contains(err.Error(), want) {
		t.Errorf("%q does not say %q", err, want)
	}
	bad := new(RingError)
	if errors.As(err, &bad); len(bad.replaceable()) > 0 || len(ring.records) > 0 {
		t.Errorf("replaceable: %q; %d records", bad.replaceable(), len(ring.records))
	}

	named := func(key []byte) *KEKs {
		ks, err := ParseKEKs([]byte("main:" + base64.StdEncoding.EncodeToString(key)))
		if err != nil {
			t.Fatal(err)
		}
		return ks
	}
	s = newSealedRing(t, named(testKEK(2)), "acme")
	_, err = openRing(named(testKEK(1)), "acme", s.fields)
	if !errors.Is(err, ErrWrongKEK) || !strings.Contains(err.Error(), `another key that is called "main", too`) {
		t.Errorf("another key of the same name: %v", err)
	}
	// The name is the operator's to change.
	if _, err := openRing(theirs, "acme", s.fields); err != nil {
		t.Errorf("the same key under another name: %v", err)
	}
	for _, none := range []*KEKs{nil, {}} {
		if _, err := openRing(none, "acme", s.fields); !errors.Is(err, ErrWrongKEK) {
			t.Errorf("without a KEK: %v", err)
		}
	}
	s = newSealedRing(t, InsecurePlaintext(), "acme")
	if _, err := openRing(InsecurePlaintext(), "acme", s.fields); err != nil {
		t.Errorf("insecure: %v", err)
	}
	if _, err := openRing(ours, "acme", s.fields); !errors.Is(err, ErrWrongKEK) || !strings.Contains(err.Error(), `"insecure"`) {
		t.Errorf("an insecure ring with a KEK: %v", err)
	}
}

func TestKEKChange(t *testing.T) {
	before, both, after := mustKEKs(t, 1), mustKEKs(t, 2, 1), mustKEKs(t, 2)
	s := newSealedRing(t, before, "acme")
	field := prefixKey + s.key.id

	same, err := rewrapTenantKey(before, "acme", s.key.id, s.fields[field])
	if err != nil || !bytes.Equal(same, s.fields[field]) {
		t.Errorf("under the primary already: rewrapped, %v", err)
	}
	wrapped, err := rewrapTenantKey(both, "acme", s.key.id, s.fields[field])
	if err != nil {
		t.Fatal(err)
	}
	fields := s.with(field, wrapped)
	ring, err := openRing(both, "acme", fields)
	if err != nil || len(ring.records) != 2 || !ring.facts.Equal(s.facts) {
		t.Fatalf("old facts and records under both KEKs: %v", err)
	}
	// Facts that nobody sealed anew are doubt once the old KEK is gone, and records are not.
	ring, err = openRing(after, "acme", fields)
	if !errors.Is(err, ErrWrongKEK) || len(ring.records) != 2 {
		t.Errorf("old facts without the old KEK: %v", err)
	}
	for id, at := range s.facts.All {
		if fields[factField(id.Kind, id.KID)], err = sealFact(both, "acme", id.Kind, id.KID, at); err != nil {
			t.Fatal(err)
		}
	}
	ring, err = openRing(after, "acme", fields)
	if err != nil || !ring.facts.Equal(s.facts) {
		t.Errorf("after the change: %v", err)
	}
	if _, err := rewrapTenantKey(after, "acme", s.key.id, s.fields[field]); !errors.Is(err, ErrWrongKEK) {
		t.Errorf("rewrapped without the old KEK: %v", err)
	}
	if _, err := rewrapTenantKey(both, "globex", s.key.id, s.fields[field]); !errors.Is(err, ErrTampered) {
		t.Errorf("rewrapped for another tenant: %v", err)
	}
}

// TestDestroyed: of a ring that was destroyed only the facts are read. Its tenant
// keys may be gone; without the fact, that would be doubt.
func TestDestroyed(t *testing.T) {
	keks := mustKEKs(t, 1)
	s := newSealedRing(t, keks, "acme")
	delete(s.fields, prefixKey+s.key.id)
	_, err := openRing(keks, "acme", s.fields)
	if !errors.Is(err, ErrTampered) || !strings.Contains(err.Error(), s.key.id) {
		t.Errorf("its tenant key gone: %v", err)
	}
	dead, err := sealFact(keks, "acme", factDead, "", sealedAt)
	if err != nil {
		t.Fatal(err)
	}
	s.fields[fieldDead] = dead
	s.fields["k:x"] = []byte("rubbish")
	ring, err := openRing(keks, "acme", s.fields)
	if err != nil || !ring.facts.Dead.Equal(sealedAt) || len(ring.records) != 0 {
		t.Errorf("destroyed: %+v, %v", ring, err)
	}
	if _, ok := ring.facts.At(FactRevoked, s.records[0].KID); !ok {
		t.Error("destroyed: its revocations are lost")
	}
}

func TestSealFactRefuses(t *testing.T) {
	keks := mustKEKs(t, 1)
	for _, tt := range []struct {
		tenant string
		kind   FactKind
		kid    string
		at     time.Time
	}{
		{"", FactRevoked, "k", sealedAt}, {"\xff", FactRevoked, "k", sealedAt}, {"acme", 0, "k", sealedAt}, {"acme", 'k', "k", sealedAt},
		{"acme", FactRevoked, "", sealedAt}, {"acme", factDead, "k", sealedAt}, {"acme", factGone, "k", sealedAt}, {"acme", FactRevoked, "\xff", sealedAt},
		{"acme", FactRevoked, "k", time.Time{}}, {"acme", FactRevoked, "k", sealedAt.Add(1)}, {"acme", FactRevoked, "k", maxDate},
	} {
		if blob, err := sealFact(keks, tt.tenant, tt.kind, tt.kid, tt.at); err == nil || blob != nil {
			t.Errorf("sealFact(%+v): sealed", tt)
		}
	}
}

// TestMalformedUnderTheSeal: what somebody with the KEK has sealed wrongly is
// malformed, not a key.
func TestMalformedUnderTheSeal(t *testing.T) {
	keks := mustKEKs(t, 1)
	tk, _, err := newTenantKey(keks, "acme")
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]*tenantKey{tk.id: tk}
	hs, es, ed := mustMaterial(t, keystore.HS256), mustMaterial(t, keystore.ES256), mustMaterial(t, keystore.EdDSA)
	other := mustMaterial(t, keystore.ES256)
	head := func(m *material) header {
		return header{Record: testRecord("acme", 1, m), tenantKey: tk.id, public: m.public}
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
		"a kid that is no thumbprint":     {func() header { h := head(es); h.KID = other.kid; return h }(), es.secret()},
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
		r, err := openRecord(keys, "acme", tt.h.KID, blob)
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
	for i, m := range []*material{hs, es} {
		s.add(t, testRecord("acme", i+3, m), m)
	}
	ring, err := openRing(keks, "acme", s.fields)
	if err != nil {
		t.Fatal(err)
	}
	blob := s.fields[prefixKey+s.key.id]
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
	_, errGarbled := openRing(keks, "acme", garbled)
	_, errOther := openRing(mustKEKs(t, 2), "acme", s.fields)
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
	for _, v := range []any{keks, *keks, keks.list[0], *keks.list[0], s.key, *s.key, ring, *ring, ring.records, ring.records[0], hs, *es, errs,
		errGarbled, errOther, errMaterial, ring.records[0].signingKey("JWT")} {
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
	ring, err := openRing(keks, "acme", s.fields)
	if err != nil {
		t.Fatal(err)
	}
	m := mustMaterial(t, keystore.HS256)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 20 {
				if _, err := openRing(keks, "acme", s.fields); err != nil {
					t.Error(err)
				}
				r := testRecord("acme", 20*i+j+1, m)
				if _, err := sealRecord(ring.tenantKeys[s.key.id], r, m); err != nil {
					t.Error(err)
				}
				if _, err := sealFact(keks, "acme", FactRevoked, m.kid, sealedAt); err != nil {
					t.Error(err)
				}
				for _, r := range ring.records {
					if sig, err := r.sign([]byte("x")); err != nil || !r.key.Verify([]byte("x"), sig) {
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
	tk, _, err := newTenantKey(keks, "acme")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for range 100 {
		other, wrapped, err := newTenantKey(keks, "acme")
		if err != nil {
			t.Fatal(err)
		}
		record := mustSeal(t, tk, testRecord("acme", 1, m), m)
		for _, unique := range []string{other.id, string(wrapped[len(wrapped)-60:][:12]), string(record[len(record)-60:][:12])} {
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
			tk, blob, err := newTenantKey(keks, "acme")
			if err != nil {
				b.Fatal(err)
			}
			s.key, s.fields[prefixKey+tk.id] = tk, blob
			for i := range 2 {
				m := mustMaterial(b, alg)
				s.add(b, testRecord("acme", i+1, m), m)
				s.learn(b, keks, FactAnnounced, m.kid, sealedAt)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := openRing(keks, "acme", s.fields); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
