package seal

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/ring"
)

// eachBit calls visit with blob once for each of its bits, with that bit flipped. visit must not
// keep what it is given.
func eachBit(blob []byte, visit func(i int, changed []byte)) {
	changed := bytes.Clone(blob)
	for i := range changed {
		for bit := range 8 {
			changed[i] ^= 1 << bit
			visit(i, changed)
			changed[i] ^= 1 << bit
		}
	}
}

// wantBit reports an error of the test unless err is the reason for a flipped bit in byte i. name
// is where the name of the KEK begins whose key the field is under, or -1.
func wantBit(t *testing.T, what string, i, name int, changed []byte, err error) {
	t.Helper()
	want := []error{ErrTampered, ErrMalformed} // malformed if it no longer has the form
	if name >= 0 {
		if n := name + 1 + int(changed[name]); i > name && i < n && !kekIDRune(rune(changed[i])) {
			want = []error{ErrMalformed}
		} else if i >= n && i < n+checkSize {
			want = []error{ErrWrongKEK}
		} else if i >= n+checkSize && i < n+2*checkSize {
			want = []error{ErrWrongRealm}
		}
	}
	switch {
	case i == 2 && changed[2] > formatVersion:
		want = []error{ErrNewer}
	case i <= 3 || i == name:
		want = []error{ErrMalformed}
	case i >= len(changed)-macSize:
		want = []error{ErrTampered}
	}
	is := func(reason error) bool { return errors.Is(err, reason) }
	if !oneReason(err) || !slices.ContainsFunc(want, is) || errors.Is(err, ErrWrongRealm) != (want[0] == ErrWrongRealm) {
		t.Errorf("%s, byte %d made %#x: %v, want one of %v", what, i, changed[i], err, want)
	}
}

// nameAt returns where in a field the name of its KEK begins, or -1.
func nameAt(field string) int {
	switch {
	case isUnderTenantKey(field):
		return -1
	case field == FieldHead:
		return 4 + 4 + 8
	case field == FieldDead, field == FieldGone:
		return 4 + 8 + 4 // after the time and the life
	}
	return 4 + 8 // after the time of a fact, or after the KEK that a tenant key was born under
}

// isUnderTenantKey reports whether the field is sealed under a tenant key.
func isUnderTenantKey(field string) bool {
	return strings.HasPrefix(field, PrefixRecord) || strings.HasPrefix(field, PrefixAccept)
}

// part returns the fields that it takes to open a field of the ring: also tenant keys for records.
func part(fields map[string][]byte, field string) map[string][]byte {
	some := map[string][]byte{field: fields[field]}
	for other, value := range fields {
		isKey, under := strings.HasPrefix(field, PrefixKey), isUnderTenantKey(field)
		if under && strings.HasPrefix(other, PrefixKey) || isKey && isUnderTenantKey(other) {
			some[other] = value
		}
	}
	return some
}

// wholeRing returns a ring with a field of each kind.
func wholeRing(t testing.TB, keks *KEKs) *sealedRing {
	t.Helper()
	s := newSealedRing(t, keks, "acme")
	s.addFact(t, keks, ring.FactDestroyed, "", sealedAt)
	s.addFact(t, keks, ring.FactCollected, "", sealedAt.Add(-time.Hour))
	return s
}

// TestEveryByteIsAuthenticated: if any bit of a sealed field changes, OpenRing refuses that field,
// for the reason that helps.
func TestEveryByteIsAuthenticated(t *testing.T) {
	for _, realm := range []string{"", "staging"} {
		keks := mustIn(t, mustKEKs(t, 1, 2), realm)
		s := wholeRing(t, keks)
		for field, value := range s.fields {
			if !isSealed(field) {
				continue
			}
			fields := part(s.fields, field)
			eachBit(value, func(i int, changed []byte) {
				fields[field] = changed
				opened, err := OpenRing(keks, "acme", fields)
				what := fmt.Sprintf("%q, byte %d", field, i)
				wantRefused(t, what, field, opened, err)
				bad := new(ring.UnreadableError)
				errors.As(err, &bad)
				wantBit(t, what, i, nameAt(field), changed, bad.Failed[field])
			})
		}
	}
}

// TestEveryBitOfABucket: the same for acknowledgements and entries of the log.
func TestEveryBitOfABucket(t *testing.T) {
	keks := mustIn(t, mustKEKs(t, 1, 2), "staging")
	a, e := testAck(), testEntry()
	ack, err1 := SealAck(keks, a)
	entry, err2 := SealEntry(keks, keks.Names()[1], e)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	eachBit(ack, func(i int, changed []byte) {
		got, err := OpenAck(keks, a.Instance, a.Bucket, changed)
		if got.Instance != "" || got.Applied != nil {
			t.Errorf("acknowledgement, byte %d: %+v", i, got)
		}
		wantBit(t, "acknowledgement", i, 4+8+8+16+2+len(a.PlaceID)+2+len(a.PlaceNonce)+1, changed, err)
	})
	eachBit(entry, func(i int, changed []byte) {
		got, err := OpenEntry(keks, e, changed)
		if got.Op != "" || got.Ends != nil {
			t.Errorf("entry, byte %d: %+v", i, got)
		}
		wantBit(t, "entry", i, len(entry)-macSize-2*checkSize-1-len(keks.Names()[1].ID), changed, err)
	})
}

// heldOf returns what an instance holds of the ring.
func (s *sealedRing) heldOf(keks *KEKs, stored map[string][]byte) HeldBytes {
	return HeldBytes{KEKs: keks, Stored: stored, Facts: s.facts, Head: s.head,
		Record:    func(kid string) []byte { return s.fields[PrefixRecord+kid] },
		Accept:    func(kid string) []byte { return s.fields[PrefixAccept+kid] },
		TenantKey: func(id string) []byte { return s.fields[PrefixKey+id] }}
}

// replaceable opens fields, and returns the fields that cannot be opened, and those that a holder
// of s may replace.
func (s *sealedRing) replaceable(keks *KEKs, fields map[string][]byte) (failed, may []string) {
	_, err := OpenRing(keks, s.tenant, fields)
	bad := new(ring.UnreadableError)
	if !errors.As(err, &bad) {
		return nil, nil
	}
	return slices.Sorted(maps.Keys(bad.Failed)), Replaceable(bad, s.heldOf(keks, fields))
}

// TestReplaceable: an instance that holds a field may write it back over one with any flipped bit.
// A bit of the version or of a check value makes it look newer, or under an unknown KEK.
func TestReplaceable(t *testing.T) {
	keks := mustIn(t, mustKEKs(t, 1, 2), "staging")
	s := wholeRing(t, keks)
	renamed := s.renamed(t)
	for _, ours := range []*KEKs{keks, renamed} { // the KEKs may have had other ids when the ring was sealed
		for field, value := range s.fields {
			if !isSealed(field) {
				continue
			}
			fields := part(s.fields, field)
			eachBit(value, func(i int, changed []byte) {
				fields[field] = changed
				failed, may := s.replaceable(ours, fields)
				if !slices.Contains(failed, field) || !slices.Equal(failed, may) {
					t.Errorf("%q, byte %d: %q cannot be opened, %q are replaceable", field, i, failed, may)
				}
			})
		}
	}
}

// renamed returns the KEKs of TestReplaceable under other ids.
func (s *sealedRing) renamed(t *testing.T) *KEKs {
	t.Helper()
	return mustIn(t, named(t, "new", testKEK(1), "old", testKEK(2)), "staging")
}

// TestNotReplaceable: a field that cannot be read and is another one than the instance holds may be
// newer, so it must not be written over.
func TestNotReplaceable(t *testing.T) {
	keks := mustKEKs(t, 1)
	theirs := mustKEKs(t, 2, 1)
	elsewhere := mustIn(t, keks, "staging")
	s := wholeRing(t, keks)
	for field, value := range s.fields {
		if !isSealed(field) || isUnderTenantKey(field) {
			continue
		}
		for what, foreign := range map[string][]byte{
			"sealed again under another KEK":             s.again(t, theirs, field, 0),
			"in another realm":                           s.again(t, elsewhere, field, 0),
			"another value under another KEK":            s.again(t, theirs, field, time.Second),
			"a newer version":                            []byte("kt\x02"),
			"a newer version that goes on as ours":       append(append([]byte("kt\x02"), value[3:]...), 0),
			"a newer version that differs elsewhere":     flip(flip(value, 2, 2), len(value)-1, 1),
			"a newer version that differs before":        flip(flip(value, 2, 2), 11, 1),
			"another value, a newer version":             flip(s.again(t, keks, field, time.Second), 2, 2),
			"another value, a changed KEK check value":   flip(s.again(t, keks, field, time.Second), nameAt(field)+1+16, 1),
			"another value, a changed realm check value": flip(s.again(t, keks, field, time.Second), nameAt(field)+1+16+checkSize, 1),
		} {
			fields := part(s.fields, field)
			fields[field] = foreign
			failed, may := s.replaceable(keks, fields)
			if !slices.Contains(failed, field) || slices.Contains(may, field) {
				t.Errorf("%q, %s: %q cannot be opened, %q are replaceable", field, what, failed, may)
			}
		}
	}
}

// TestReplaceableRecords: a record, or an accepted key, never changes, so one that the instance holds
// is replaceable whatever its bytes look like. One that it does not hold may be newer.
func TestReplaceableRecords(t *testing.T) {
	keks := mustKEKs(t, 1)
	s := newSealedRing(t, keks, "acme")
	for _, held := range []string{PrefixRecord + s.records[0].KID, PrefixAccept + s.accepts[0].KID} {
		fields := part(s.fields, held)
		for _, value := range [][]byte{[]byte("kt\x02"), []byte("kt\xffR"), {}, []byte("kt\x01R")} {
			fields[held] = value
			if failed, may := s.replaceable(keks, fields); !slices.Equal(failed, may) || len(failed) != 1 {
				t.Errorf("%q, %x: %q cannot be opened, %q are replaceable", held, value, failed, may)
			}
		}
	}
	for _, prefix := range []string{PrefixRecord, PrefixAccept} {
		fields := map[string][]byte{prefix + "other": []byte("kt\x02")}
		_, err := OpenRing(keks, "acme", fields)
		bad := new(ring.UnreadableError)
		if errors.As(err, &bad); len(Replaceable(bad, s.heldOf(keks, fields))) > 0 {
			t.Errorf("a newer field %q that the instance does not hold is replaceable", prefix)
		}
	}
	// The tenant key is rewrapped under a KEK that this instance lacks. It is not replaceable, and
	// the records are what the instance holds.
	key := PrefixKey + s.key.ID
	fields := part(s.fields, key)
	fields[key] = s.again(t, mustKEKs(t, 2, 1), key, 0)
	failed, may := s.replaceable(keks, fields)
	if slices.Contains(may, key) || len(failed) != 5 || len(may) != 4 {
		t.Errorf("rewrapped: %q cannot be opened, %q are replaceable", failed, may)
	}
}

// TestReplaceableWithoutCopy: an instance that holds nothing may replace only what is no keyturn's.
func TestReplaceableWithoutCopy(t *testing.T) {
	keks := mustKEKs(t, 1)
	s := wholeRing(t, keks)
	for field, value := range s.fields {
		if !isSealed(field) {
			continue
		}
		for i, reason := range map[int]error{2: ErrNewer, nameAt(field) + 1 + 16: ErrWrongKEK} {
			if i < 2 || i > 2 && isUnderTenantKey(field) {
				continue
			}
			fields := map[string][]byte{field: flip(value, i, 2)}
			_, err := OpenRing(keks, "acme", fields)
			bad := new(ring.UnreadableError)
			if errors.As(err, &bad); !errors.Is(err, reason) || len(Replaceable(bad, HeldBytes{KEKs: keks, Stored: fields})) > 0 {
				t.Errorf("%q, byte %d: %v, replaceable", field, i, err)
			}
		}
	}
}

// flip returns blob with bits of one byte flipped.
func flip(blob []byte, i int, bits byte) []byte {
	blob = bytes.Clone(blob)
	blob[i] ^= bits
	return blob
}

// again seals a field of the ring again, under the primary of keks. If later is not zero, its value
// is another one.
func (s *sealedRing) again(t *testing.T, keks *KEKs, field string, later time.Duration) (blob []byte) {
	t.Helper()
	kind, kid, _ := factOf(field)
	id, isKey := strings.CutPrefix(field, PrefixKey)
	var err error
	switch {
	case field == FieldHead:
		blob, err = SealHead(keks, keks.Primary(), s.tenant, Head{s.head.Seq, s.head.Count + uint64(later)})
	case isKey && later > 0:
		key := bytes.Repeat([]byte("another "), 4)
		blob, err = makeTenantKey(id, keks.Primary(), keks.Primary().Check, key).wrap(keks.list[0], s.tenant)
	case isKey && keks.Has(s.key.KEK):
		blob, err = RewrapTenantKey(keks, keks.Primary(), s.tenant, id, s.fields[field])
	case isKey: // in a realm where it does not open
		blob, err = s.key.wrap(keks.list[0], s.tenant)
	default:
		f, _ := factIn(s.facts, kind, kid)
		f.at = f.at.Add(later)
		blob, err = sealFact(keks, keks.Primary(), s.tenant, kind, kid, f)
	}
	if err != nil {
		t.Fatal(err)
	}
	return blob
}

// TestUnderKEKs: the name of the KEK of each field that is under one, without a KEK.
func TestUnderKEKs(t *testing.T) {
	keks := mustIn(t, mustKEKs(t, 1, 2), "staging")
	s := wholeRing(t, keks)
	second := keks.Names()[1]
	var err error
	if s.fields[FieldHead], err = SealHead(keks, second, "acme", s.head); err != nil {
		t.Fatal(err)
	}
	got := UnderKEKs(s.fields)
	for field := range s.fields {
		want := keks.Primary()
		switch {
		case field == FieldHead:
			want = second
		case isUnderTenantKey(field), !isSealed(field):
			want = KEKName{}
		}
		if got[field] != want {
			t.Errorf("%q is under %v, want %v", field, got[field], want)
		}
	}
	garbled := map[string][]byte{"head": []byte("3"), "tk:0123456789abcdef": nil, "x:a": []byte("kt\x02F"), "dead": {0}, "y:a": s.fields[FieldHead], "_a": s.fields[FieldHead]}
	if got := UnderKEKs(garbled); len(got) > 0 {
		t.Errorf("of fields that cannot be read: %v", got)
	}
}

// testAck returns an acknowledgement that has all of its parts.
func testAck() Ack {
	return Ack{Instance: "pod-1", Bucket: 7, PlaceID: "1800000000123-0", PlaceNonce: "nonce", GoodSince: sealedAt, At: sealedAt.Add(time.Minute),
		Applied: []Applied{{"one", true}, {"two", false}}, Ends: [16]byte{1, 2, 3}, Verifies: []keystore.Algorithm{keystore.ES256, keystore.HS256}, Run: "a run"}
}

// testEntry returns an entry of the log that has all of its parts.
func testEntry() Entry {
	return Entry{Op: ring.OpMerge, Tenant: "acme", KID: "k", Seq: 3, Actor: "pod-1", Nonce: "nonce",
		Ends: []EndFact{{ring.FactDestroyed, "", sealedAt, 2}, {ring.FactRevoked, "a", sealedAt, 0}, {ring.FactRevoked, "b", sealedAt.Add(time.Second), 0}}}
}
