package seal

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/ring"
)

func TestOpenRing(t *testing.T) {
	keks := mustKEKs(t, 1)
	s := newSealedRing(t, keks, "acme")
	opened, err := OpenRing(keks, "acme", s.fields)
	if err != nil {
		t.Fatal(err)
	}
	if !opened.Facts.Equal(s.facts) || opened.Head != (Head{2, 3}) || len(opened.TenantKeys) != 1 {
		t.Errorf("facts %v, want %v; head %+v; %d tenant keys", opened.Facts, s.facts, opened.Head, len(opened.TenantKeys))
	}
	got := recordsOf(opened)
	slices.SortFunc(got, func(a, b ring.Record) int { return a.Seq - b.Seq })
	if !reflect.DeepEqual(got, s.records) {
		t.Errorf("records %+v, want %+v", got, s.records)
	}

	empty, err := OpenRing(keks, "acme", nil)
	if err != nil || len(empty.Records) != 0 || empty.Head != (Head{}) {
		t.Errorf("no ring = %v, %v", empty, err)
	}
}

// TestMergedRings: two rings of a tenant that were made apart open together.
func TestMergedRings(t *testing.T) {
	keks := mustKEKs(t, 1)
	a, b := newSealedRing(t, keks, "acme"), newSealedRing(t, keks, "acme")
	maps.Copy(a.fields, b.fields)
	opened, err := OpenRing(keks, "acme", a.fields)
	if err != nil || len(opened.Records) != 4 || len(opened.TenantKeys) != 2 {
		t.Errorf("merged: %d records, %d tenant keys, %v", len(opened.Records), len(opened.TenantKeys), err)
	}
}

// TestMovedField: a sealed field opens only in its own place and in its own ring.
func TestMovedField(t *testing.T) {
	keks := mustKEKs(t, 1)
	s, other := newSealedRing(t, keks, "acme"), newSealedRing(t, keks, "globex")
	for from, value := range s.fields {
		if !isSealed(from) {
			continue
		}
		for to := range s.fields {
			if to != from && isSealed(to) {
				opened, err := OpenRing(keks, "acme", s.with(to, value))
				wantRefused(t, fmt.Sprintf("%q as %q", from, to), to, opened, err)
			}
		}
		opened, err := OpenRing(keks, "globex", other.with(from, value))
		wantRefused(t, fmt.Sprintf("%q in another tenant's ring", from), from, opened, err)
		if len(opened.Records) != 2 {
			t.Errorf("%q in another tenant's ring takes its records with it", from)
		}
	}
	// All fields of one tenant, as the ring of another.
	opened, err := OpenRing(keks, "globex", s.fields)
	for field := range s.fields {
		if isSealed(field) {
			wantRefused(t, "a whole ring moved", field, opened, err)
		}
	}
	if !errors.Is(err, ErrTampered) || len(opened.Records)+len(opened.TenantKeys) > 0 || !opened.Facts.Equal(ring.Facts{}) {
		t.Errorf("a whole ring moved: %v", err)
	}
	opened, err = OpenRing(keks, "acme", s.with(FieldDead, s.fields[FactField(ring.FactRevoked, s.records[0].KID)]))
	wantRefused(t, "a revocation as dead", FieldDead, opened, err)
}

// TestGarbledFieldHidesNoOther: a field that cannot be opened does not hold back the facts and
// records beside it.
func TestGarbledFieldHidesNoOther(t *testing.T) {
	keks := mustKEKs(t, 1)
	s := newSealedRing(t, keks, "acme")
	field := PrefixRecord + s.records[1].KID
	opened, err := OpenRing(keks, "acme", s.with(field, []byte("rubbish")))
	wantRefused(t, "rubbish", field, opened, err)
	if !opened.Facts.Equal(s.facts) || len(opened.Records) != 1 {
		t.Errorf("facts %v, want %v; %d records", opened.Facts, s.facts, len(opened.Records))
	}
	bad := new(ring.UnreadableError)
	if !errors.As(err, &bad) || !slices.Equal(Replaceable(bad, HeldBytes{}), []string{field}) {
		t.Errorf("replaceable: %q", Replaceable(bad, HeldBytes{}))
	}
}

// TestUnknownFields: only fields whose names say that they may be ignored are ignored.
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
}

// TestDestroyed: only the facts of a destroyed ring are read. Its tenant keys may be missing, which
// is an error in any other ring.
func TestDestroyed(t *testing.T) {
	keks := mustKEKs(t, 1)
	s := newSealedRing(t, keks, "acme")
	delete(s.fields, PrefixKey+s.key.ID)
	_, err := OpenRing(keks, "acme", s.fields)
	if !errors.Is(err, ErrTampered) || !strings.Contains(err.Error(), s.key.ID) {
		t.Errorf("its tenant key is missing: %v", err)
	}
	dead, err := SealRingFact(keks, keks.Primary(), "acme", ring.FactDestroyed, s.records[0].Life+1, sealedAt)
	if err != nil {
		t.Fatal(err)
	}
	s.fields[FieldDead] = dead
	s.fields["k:x"] = []byte("rubbish")
	opened, err := OpenRing(keks, "acme", s.fields)
	if err != nil || opened.Facts.Dead != s.records[0].Life+1 || !opened.Facts.DeadAt.Equal(sealedAt) || len(opened.Records) != 0 || len(opened.Ended) != 5 {
		t.Errorf("destroyed: %+v, %v", opened, err)
	}
	if _, ok := opened.Facts.At(ring.FactRevoked, s.records[0].KID); !ok {
		t.Error("destroyed: its revocations are lost")
	}
}

// TestConcurrentUse is for the race detector.
func TestConcurrentUse(t *testing.T) {
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
				if _, err := SealFact(keks, keks.Primary(), "acme", ring.FactRevoked, m.KID, sealedAt); err != nil {
					t.Error(err)
				}
				for _, r := range opened.Records {
					whole, err := OpenRecord(opened.TenantKeys, "acme", r.KID, s.fields[PrefixRecord+r.KID])
					if err != nil {
						t.Error(err)
						continue
					}
					if sig, err := signWith(whole, []byte("x")); err != nil || !whole.Key.Verify([]byte("x"), sig) {
						t.Errorf("it does not verify what it signs: %v", err)
					}
				}
			}
		})
	}
	wg.Wait()
}

// TestNoncesDiffer: nonces and ids are never the same twice.
func TestNoncesDiffer(t *testing.T) {
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
		for _, unique := range []string{other.ID, string(wrapped[len(wrapped)-92:][:12]), string(record[len(record)-92:][:12])} {
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
				s.addFact(b, keks, ring.FactAnnounced, m.KID, sealedAt)
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

// TestLives: after a shred only records of a later life are opened, and the tenant keys that they name.
// The others may be sealed under a KEK that is gone.
func TestLives(t *testing.T) {
	keks := mustKEKs(t, 1)
	s, old := newSealedRing(t, keks, "acme"), newSealedRing(t, mustKEKs(t, 2), "acme")
	for i := range old.records { // a dump from before the shred
		kid := old.records[i].KID
		old.records[i].Life--
		m, err := NewMaterial(old.records[i].Algorithm)
		if err != nil {
			t.Fatal(err)
		}
		m.KID, old.records[i].KID = "old"+kid, "old"+kid
		old.records[i].Origin = ring.Imported
		s.fields[PrefixRecord+"old"+kid] = mustSeal(t, old.key, old.records[i], m)
	}
	s.fields[PrefixKey+old.key.ID] = old.fields[PrefixKey+old.key.ID]
	if _, err := OpenRing(keks, "acme", s.fields); !errors.Is(err, ErrWrongKEK) {
		t.Fatalf("records under another KEK: %v", err)
	}
	s.addFact(t, keks, ring.FactDestroyed, "", sealedAt)
	opened, err := OpenRing(keks, "acme", s.fields)
	if err != nil || len(opened.Records) != 2 || len(opened.TenantKeys) != 1 || opened.TenantKeys[s.key.ID] == nil || len(opened.Ended) != 3 {
		t.Errorf("%v; %d records, %d tenant keys; ended %q", err, len(opened.Records), len(opened.TenantKeys), opened.Ended)
	}
	// The name of a KEK in a field that was not opened is not authentic.
	if !slices.Equal(opened.Under, []KEKName{keks.Primary()}) {
		t.Errorf("the ring is under %v, want its own KEK alone", opened.Under)
	}
	// Rubbish may be a record of this life.
	s.fields["k:x"] = []byte("rubbish")
	if _, err := OpenRing(keks, "acme", s.fields); !errors.Is(err, ErrMalformed) {
		t.Errorf("rubbish beside the records of this life: %v", err)
	}
}
