package seal

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/internal/token"
	"github.com/keyturn/keyturn/rotation/ring"
)

// testKEK returns the n-th KEK of the tests.
func testKEK(n int) []byte {
	key := make([]byte, kekSize)
	for i := range key {
		key[i] = byte(31*n + 7*i + 1)
	}
	return key
}

// mustKEKs returns the n-th KEKs of the tests, the primary first.
func mustKEKs(t testing.TB, ns ...int) *KEKs {
	t.Helper()
	var keys [][]byte
	for _, n := range ns {
		keys = append(keys, testKEK(n))
	}
	ks, err := NewKEKs(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return ks
}

// mustIn returns KEKs in a realm.
func mustIn(t testing.TB, ks *KEKs, realm string) *KEKs {
	t.Helper()
	in, err := ks.In(realm)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// named returns two KEKs with ids, the primary first.
func named(t testing.TB, id1 string, key1 []byte, id2 string, key2 []byte) *KEKs {
	t.Helper()
	line := func(id string, key []byte) string { return id + ":" + base64.StdEncoding.EncodeToString(key) + "\n" }
	ks, err := ParseKEKs([]byte(line(id1, key1) + line(id2, key2)))
	if err != nil {
		t.Fatal(err)
	}
	return ks
}

// testRSA is a key of 2048 bits, which is made once since that is slow.
var testRSA = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// sealedAt is when the records and facts of the tests were made.
var sealedAt = time.Date(2026, 11, 22, 10, 0, 0, 123e6, time.UTC)

// testRecord returns a record for m, as a rotator would make it.
func testRecord(tenant string, seq int, m *Material) ring.Record {
	p := ring.Policy{Algorithm: m.Algorithm}.WithDefaults()
	return ring.Record{
		Tenant: tenant, KID: m.KID, Seq: seq, Algorithm: m.Algorithm,
		Created: sealedAt, ActivateAt: sealedAt.Add(p.Every), SignUntil: sealedAt.Add(2 * p.Every),
		Origin: ring.Generated, Life: 3, Timing: p,
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

// A sealedRing is a ring as the store has it, with the records and facts that are sealed in it.
type sealedRing struct {
	tenant  string
	fields  map[string][]byte
	records []ring.Record
	accepts []ring.AcceptRecord
	facts   ring.Facts
	head    Head
	key     *TenantKey
}

// add seals a record.
func (s *sealedRing) add(t testing.TB, r ring.Record, m *Material) {
	t.Helper()
	s.fields[PrefixRecord+r.KID] = mustSeal(t, s.key, r, m)
	s.records = append(s.records, r)
}

// addAccept seals an accepted key.
func (s *sealedRing) addAccept(t testing.TB, a ring.AcceptRecord, key any) {
	t.Helper()
	blob, err := SealAccept(s.key, a, key)
	if err != nil {
		t.Fatal(err)
	}
	s.fields[PrefixAccept+a.KID] = blob
	s.accepts = append(s.accepts, a)
}

// testAccept returns an accepted key of alg, as a command would record it.
func testAccept(tenant, kid string, alg keystore.Algorithm) ring.AcceptRecord {
	return ring.AcceptRecord{Tenant: tenant, KID: kid, Algorithm: alg, Created: sealedAt, Until: sealedAt.Add(48 * time.Hour), Life: 3}
}

// publicOf returns the public key of m.
func publicOf(t testing.TB, m *Material) any {
	t.Helper()
	pub, err := x509.ParsePKIXPublicKey(m.public)
	if err != nil {
		t.Fatal(err)
	}
	return pub
}

// addFact seals a fact.
func (s *sealedRing) addFact(t testing.TB, keks *KEKs, kind ring.FactKind, kid string, at time.Time) {
	t.Helper()
	const life = 3 // that of testRecord
	blob, err := SealFact(keks, keks.Primary(), s.tenant, kind, kid, at)
	if isOfRing(kind) {
		blob, err = SealRingFact(keks, keks.Primary(), s.tenant, kind, life, at)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.fields[FactField(kind, kid)] = blob
	switch kind {
	case ring.FactDestroyed:
		s.facts.Kill(life, at)
	case ring.FactCollected:
		s.facts.Collect(life, at)
	default:
		s.facts.Add(kind, kid, at)
	}
}

// newSealedRing makes a ring with a key of HS256, one of ES256, two accepted keys of these kinds, and a
// fact of every kind.
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
		s.addFact(t, keks, kind, s.records[i%2].KID, sealedAt.Add(time.Duration(i)*time.Second))
	}
	s.addAccept(t, testAccept(tenant, "theirs: one", keystore.HS256), mustMaterial(t, keystore.HS256).secret())
	s.addAccept(t, testAccept(tenant, "theirs: two", keystore.ES256), publicOf(t, mustMaterial(t, keystore.ES256)))
	s.addFact(t, keks, ring.FactAccepted, "theirs: two", sealedAt.Add(time.Hour))
	s.head = Head{Seq: 2, Count: 3}
	if s.fields[FieldHead], err = SealHead(keks, keks.Primary(), tenant, s.head); err != nil {
		t.Fatal(err)
	}
	s.fields["p:"+s.records[0].KID] = []byte("1800000000000")
	return s
}

// with returns the fields of the ring with one replaced.
func (s *sealedRing) with(field string, value []byte) map[string][]byte {
	fields := maps.Clone(s.fields)
	fields[field] = value
	return fields
}

// isSealed reports whether the field is authenticated.
func isSealed(field string) bool {
	return field != "" && !strings.HasPrefix(field, prefixOptional) && !strings.HasPrefix(field, PrefixPublish)
}

// holds reports whether the ring has the key, record or fact of a field.
func holds(opened *OpenedRing, field string) bool {
	prefix, name, _ := strings.Cut(field, ":")
	switch {
	case field == FieldHead:
		return opened.Head != Head{}
	case field == FieldDead:
		return !opened.Facts.DeadAt.IsZero()
	case field == FieldGone:
		return !opened.Facts.CollectedUntil.IsZero()
	case prefix == "tk":
		return opened.TenantKeys[name] != nil
	case prefix == "k":
		return slices.ContainsFunc(opened.Records, func(r OpenedRecord) bool { return r.KID == name })
	case prefix == "v":
		return slices.ContainsFunc(opened.Accepts, func(a OpenedAccept) bool { return a.KID == name })
	case len(prefix) != 1:
		return false
	}
	_, ok := opened.Facts.At(ring.FactKind(prefix[0]), name)
	return ok
}

// oneReason reports whether err wraps exactly one of the four reasons why a field cannot be opened.
func oneReason(err error) bool {
	n := 0
	for _, reason := range []error{ErrWrongKEK, ErrTampered, ErrNewer, ErrMalformed} {
		if errors.Is(err, reason) {
			n++
		}
	}
	return n == 1
}

// wantRefused reports an error of the test unless OpenRing has refused the field, each refused
// field for one reason, and the ring does not hold it. what says what was done to the field.
func wantRefused(t *testing.T, what, field string, opened *OpenedRing, err error) {
	t.Helper()
	bad := new(ring.UnreadableError)
	if !errors.As(err, &bad) || bad.Failed[field] == nil || opened == nil {
		t.Errorf("%s: %v, want it refused", what, err)
		return
	}
	for _, cause := range bad.Failed {
		if !oneReason(cause) || errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("%s: %v is not one reason", what, cause)
		}
	}
	if holds(opened, field) {
		t.Errorf("%s: refused, but held", what)
	}
}

// recordsOf returns the records of a ring without their keys, as [ring.View] takes them.
func recordsOf(r *OpenedRing) []ring.Record {
	records := make([]ring.Record, len(r.Records))
	for i := range r.Records {
		records[i] = r.Records[i].Record
	}
	return records
}

// signWith signs message with the key of an opened record.
func signWith(r *OpenedRecord, message []byte) ([]byte, error) {
	key, err := token.NewKey(r.TokenID(), r.Algorithm, r.Private(), "JWT")
	if err != nil {
		return nil, err
	}
	return key.Sign(message)
}
