package seal

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/ring"
)

// TestAck: an acknowledgement opens as it was sealed, with the KEKs of its instance, in its own
// place alone.
func TestAck(t *testing.T) {
	theirs, ours := mustKEKs(t, 1, 2), mustKEKs(t, 3, 2, 1)
	most := testAck()
	most.Instance, most.PlaceID, most.PlaceNonce = strings.Repeat("ü", 128), strings.Repeat("1", 64), strings.Repeat("n", 64)
	most.Bucket, most.Applied = maxBucket, slices.Repeat([]Applied{{strings.Repeat("n", 64), true}}, MaxApplied)
	for _, a := range []Ack{testAck(), most, {Instance: "a", PlaceID: "0-1", PlaceNonce: "n", At: sealedAt, Verifies: []keystore.Algorithm{ring.NoAlgorithm}}, {Instance: "a", PlaceID: "0-1", PlaceNonce: "n", At: sealedAt}} {
		blob, err := SealAck(theirs, a)
		if err != nil {
			t.Fatal(err)
		}
		want := a
		want.KEKs = theirs.Names()
		if got, err := OpenAck(ours, a.Instance, a.Bucket, blob); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v\nwant %+v", got, err, want)
		}
		_, err1 := OpenAck(ours, "another", a.Bucket, blob)
		_, err2 := OpenAck(ours, a.Instance, a.Bucket^1, blob)
		if !errors.Is(err1, ErrTampered) || !errors.Is(err2, ErrTampered) {
			t.Errorf("as another instance: %v; in another bucket: %v", err1, err2)
		}
		_, err1 = OpenAck(ours, "", a.Bucket, blob)
		_, err2 = OpenAck(ours, a.Instance, -1, blob)
		if !errors.Is(err1, ErrMalformed) || !errors.Is(err2, ErrMalformed) {
			t.Errorf("as no instance: %v; in no bucket: %v", err1, err2)
		}
		// An instance vouches under its primary alone. Its other KEKs may be anyone's by now.
		if _, err := OpenAck(mustKEKs(t, 2), a.Instance, a.Bucket, blob); !errors.Is(err, ErrWrongKEK) {
			t.Errorf("without its primary: %v", err)
		}
	}
}

// TestSealAckRefuses: an acknowledgement that could not be opened is not sealed.
func TestSealAckRefuses(t *testing.T) {
	for name, edit := range map[string]func(*Ack){
		"no instance":           func(a *Ack) { a.Instance = "" },
		"a long instance":       func(a *Ack) { a.Instance = strings.Repeat("a", 257) },
		"not UTF-8":             func(a *Ack) { a.Instance = "\xff" },
		"a negative bucket":     func(a *Ack) { a.Bucket = -1 },
		"a huge bucket":         func(a *Ack) { a.Bucket = maxBucket + 1 },
		"no place":              func(a *Ack) { a.PlaceID = "" },
		"a place without nonce": func(a *Ack) { a.PlaceNonce = "" },
		"a long nonce":          func(a *Ack) { a.PlaceNonce = strings.Repeat("a", 65) },
		"too many changes":      func(a *Ack) { a.Applied = slices.Repeat([]Applied{{Nonce: "n"}}, MaxApplied+1) },
		"an empty change":       func(a *Ack) { a.Applied = []Applied{{}} },
		"a change not UTF-8":    func(a *Ack) { a.Applied = []Applied{{Nonce: "\xff"}} },
		"an unknown algorithm":  func(a *Ack) { a.Verifies = []keystore.Algorithm{"HS1"} },
		"none beside another":   func(a *Ack) { a.Verifies = []keystore.Algorithm{keystore.HS256, ring.NoAlgorithm} },
		"too many algorithms":   func(a *Ack) { a.Verifies = slices.Repeat([]keystore.Algorithm{keystore.HS256}, 15) },
		"a long run":            func(a *Ack) { a.Run = strings.Repeat("a", 65) },
		"a run not UTF-8":       func(a *Ack) { a.Run = "\xff" },
		"no time":               func(a *Ack) { a.At = time.Time{} },
		"microseconds":          func(a *Ack) { a.At = a.At.Add(time.Microsecond) },
		"the year 2200":         func(a *Ack) { a.GoodSince = maxDate },
	} {
		a := testAck()
		edit(&a)
		if blob, err := SealAck(mustKEKs(t, 1), a); err == nil || blob != nil {
			t.Errorf("%s: sealed", name)
		}
	}
	if blob, err := SealAck(nil, testAck()); err == nil || blob != nil {
		t.Errorf("without a KEK: sealed")
	}
}

// TestEntry: an entry of the log opens as it was sealed, with its facts in one order, and with no
// other field changed.
func TestEntry(t *testing.T) {
	keks := mustKEKs(t, 1, 2)
	e := testEntry()
	want := e
	e.Ends = slices.Clone(e.Ends)
	slices.Reverse(e.Ends)
	given := slices.Clone(e.Ends)
	blob, err := SealEntry(keks, keks.Names()[1], e)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(e.Ends, given) {
		t.Error("SealEntry changed what it was given")
	}
	if got, err := OpenEntry(keks, e, blob); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v\nwant %+v", got, err, want)
	}
	if again, err := SealEntry(keks, keks.Names()[1], want); err != nil || !bytes.Equal(again, blob) {
		t.Errorf("in another order %x, %v, want %x", again, err, blob)
	}
	for name, edit := range map[string]func(*Entry){
		"op":     func(e *Entry) { e.Op = ring.OpRevoke },
		"tenant": func(e *Entry) { e.Tenant += "x" },
		"kid":    func(e *Entry) { e.KID = "" },
		"seq":    func(e *Entry) { e.Seq++ },
		"actor":  func(e *Entry) { e.Actor = "" },
		"nonce":  func(e *Entry) { e.Nonce += "x" },
		// The border between two fields is authenticated too.
		"border": func(e *Entry) { e.Op, e.Tenant = e.Op+"a", e.Tenant[1:] },
	} {
		other := e
		edit(&other)
		if got, err := OpenEntry(keks, other, blob); !errors.Is(err, ErrTampered) || got.Ends != nil {
			t.Errorf("with another %s: %+v, %v", name, got, err)
		}
	}
	// Facts that the caller brings along are not those of the entry.
	none := e
	none.Ends = nil
	if blob, err = SealEntry(keks, keks.Primary(), none); err != nil {
		t.Fatal(err)
	}
	for _, theirs := range [][]EndFact{e.Ends, make([]EndFact, maxEnds+1)} {
		e.Ends = theirs
		if got, err := OpenEntry(keks, e, blob); err != nil || got.Ends != nil {
			t.Errorf("without facts: %+v, %v", got, err)
		}
	}
}

// TestEntryRefuses: an entry that could not be opened is not sealed, and one that no keyturn writes
// is malformed.
func TestEntryRefuses(t *testing.T) {
	keks := mustKEKs(t, 1)
	fields := map[string]func(*Entry){
		"no op":         func(e *Entry) { e.Op = "" },
		"a long op":     func(e *Entry) { e.Op = ring.Op(strings.Repeat("a", 33)) },
		"no tenant":     func(e *Entry) { e.Tenant = "" },
		"a long tenant": func(e *Entry) { e.Tenant = strings.Repeat("a", 257) },
		"a long kid":    func(e *Entry) { e.KID = strings.Repeat("a", 257) },
		"a long actor":  func(e *Entry) { e.Actor = strings.Repeat("a", 257) },
		"no nonce":      func(e *Entry) { e.Nonce = "" },
		"not UTF-8":     func(e *Entry) { e.Nonce = "\xff" },
		"seq -1":        func(e *Entry) { e.Seq = -1 },
		"a huge seq":    func(e *Entry) { e.Seq = maxSeq + 1 },
	}
	ends := map[string][]EndFact{
		"a promotion":     {{ring.FactPromoted, "a", sealedAt, 0}},
		"what is gone":    {{ring.FactCollected, "", sealedAt, 0}},
		"no kid":          {{ring.FactRevoked, "", sealedAt, 0}},
		"dead with a kid": {{ring.FactDestroyed, "a", sealedAt, 2}},
		"the same twice":  {{ring.FactRevoked, "a", sealedAt, 0}, {ring.FactRevoked, "a", sealedAt.Add(time.Second), 0}},
		"no time":         {{ring.FactRevoked, "a", time.Time{}, 0}},
		"dead of no life": {{ring.FactDestroyed, "", sealedAt, 0}},
		"dead of life -1": {{ring.FactDestroyed, "", sealedAt, -1}},
		"too many lives":  {{ring.FactDestroyed, "", sealedAt, maxSeq + 1}},
		"a life of a key": {{ring.FactRevoked, "a", sealedAt, 1}},
		"too many":        make([]EndFact, maxEnds+1),
		"no kind":         {{0, "a", sealedAt, 0}},
		"a kid not UTF-8": {{ring.FactRevoked, "\xff", sealedAt, 0}},
	}
	for name, list := range ends {
		fields[name] = func(e *Entry) { e.Ends = list }
	}
	for name, edit := range fields {
		e := testEntry()
		edit(&e)
		if blob, err := SealEntry(keks, keks.Primary(), e); err == nil || blob != nil {
			t.Errorf("%s: sealed", name)
		}
		if ends[name] != nil {
			continue
		}
		if _, err := OpenEntry(keks, e, mustEntry(t, keks)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	most := testEntry()
	most.Ends = nil
	for i := range maxEnds {
		most.Ends = append(most.Ends, EndFact{ring.FactRevoked, strings.Repeat("k", i+1), sealedAt, 0})
	}
	blob, err := SealEntry(keks, keks.Primary(), most)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := OpenEntry(keks, most, blob); err != nil || !reflect.DeepEqual(got, most) {
		t.Errorf("%d facts: %d, %v", maxEnds, len(got.Ends), err)
	}
}

// mustEntry seals testEntry.
func mustEntry(t *testing.T, keks *KEKs) []byte {
	t.Helper()
	blob, err := SealEntry(keks, keks.Primary(), testEntry())
	if err != nil {
		t.Fatal(err)
	}
	return blob
}

// TestBucketCutOrExtended: an acknowledgement or an entry that is cut anywhere, or continued, or of
// a newer version, is refused for that reason.
func TestBucketCutOrExtended(t *testing.T) {
	keks := mustKEKs(t, 1, 2)
	ack, err := SealAck(keks, testAck())
	if err != nil {
		t.Fatal(err)
	}
	for what, tt := range map[string]struct {
		blob []byte
		open func(blob []byte) error
	}{
		"acknowledgement": {ack, func(blob []byte) error { _, err := OpenAck(keks, "pod-1", 7, blob); return err }},
		"entry":           {mustEntry(t, keks), func(blob []byte) error { _, err := OpenEntry(keks, testEntry(), blob); return err }},
	} {
		for n := range tt.blob {
			ran := what == "acknowledgement" && n == len(ack)-len("..a run") // without its run it is one, under another MAC
			if err := tt.open(tt.blob[:n]); !errors.Is(err, ErrMalformed) && !(ran && errors.Is(err, ErrTampered)) {
				t.Errorf("%s cut at %d: %v", what, n, err)
			}
		}
		for _, more := range [][]byte{{0}, tt.blob, make([]byte, 1<<16)} {
			if err := tt.open(slices.Concat(tt.blob, more)); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s with %d more: %v", what, len(more), err)
			}
		}
		for _, newer := range [][]byte{[]byte("kt\x02"), []byte("kt\xff\x01"), append([]byte("kt\x02"), tt.blob[3:]...)} {
			if err := tt.open(newer); !errors.Is(err, ErrNewer) {
				t.Errorf("%s of a newer version: %v", what, err)
			}
		}
		if err := tt.open(tt.blob); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestEndsDigest: the digest depends on which facts there are, and not on their order. Their times
// count only for what is gone.
func TestEndsDigest(t *testing.T) {
	end := func(tenant string, kind ring.FactKind, kid string, at time.Time) TenantEnd {
		e := TenantEnd{tenant, EndFact{kind, kid, at, 0}}
		if kind == ring.FactDestroyed {
			e.Life = 2
		}
		return e
	}
	base := []TenantEnd{end("acme", ring.FactRevoked, "a", sealedAt), end("acme", ring.FactCollected, "", sealedAt), end("b", ring.FactDestroyed, "", sealedAt)}
	want := EndsDigest(base)
	same := slices.Clone(base)
	slices.Reverse(same)
	same[0].At, same[2].At = sealedAt.Add(time.Hour), time.Time{}
	given := slices.Clone(same)
	if got := EndsDigest(same); got != want || !slices.Equal(same, given) {
		t.Errorf("in another order, with other times: %x, want %x", got, want)
	}
	seen := map[[16]byte]string{want: "the same"}
	for name, ends := range map[string][]TenantEnd{
		"none":             nil,
		"one less":         base[:2],
		"another tenant":   {end("acm", ring.FactRevoked, "a", sealedAt), base[1], base[2]},
		"another kid":      {end("acme", ring.FactRevoked, "b", sealedAt), base[1], base[2]},
		"another border":   {end("acm", ring.FactRevoked, "ea", sealedAt), base[1], base[2]},
		"another kind":     {end("acme", ring.FactRevoked, "a", sealedAt), base[1], end("b", ring.FactRevoked, "", sealedAt)},
		"gone until later": {base[0], end("acme", ring.FactCollected, "", sealedAt.Add(time.Millisecond)), base[2]},
		"gone of another":  {base[0], end("b", ring.FactCollected, "", sealedAt), base[2]},
		"one more":         append(slices.Clone(base), end("c", ring.FactRevoked, "a", sealedAt)),
		"dead of two":      append(slices.Clone(base), end("c", ring.FactDestroyed, "", sealedAt)),
		"dead once more":   {base[0], base[1], {"b", EndFact{ring.FactDestroyed, "", sealedAt, 3}}},
	} {
		got := EndsDigest(ends)
		if other, ok := seen[got]; ok {
			t.Errorf("%s has the digest of %s", name, other)
		}
		seen[got] = name
	}
}

// TestSealHeadRefuses: a head that could not be opened is not sealed.
func TestSealHeadRefuses(t *testing.T) {
	keks := mustKEKs(t, 1)
	for _, tt := range []struct {
		tenant string
		h      Head
	}{
		{"acme", Head{}}, {"acme", Head{1, 0}}, {"acme", Head{-1, 1}}, {"acme", Head{maxSeq + 1, 1}}, {"", Head{1, 1}}, {"\xff", Head{1, 1}},
	} {
		if blob, err := SealHead(keks, keks.Primary(), tt.tenant, tt.h); err == nil || blob != nil {
			t.Errorf("SealHead(%+v): sealed", tt)
		}
	}
	blob, err := SealHead(keks, keks.Primary(), "acme", Head{maxSeq, 1<<64 - 1})
	if err != nil {
		t.Fatal(err)
	}
	if h, err := openHead(keks, "acme", blob); err != nil || h != (Head{maxSeq, 1<<64 - 1}) {
		t.Errorf("the largest head: %+v, %v", h, err)
	}
}
