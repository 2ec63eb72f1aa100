package seal

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// The vectors of snapshots, in a file of their own. Like the others they are written and read here
// with the standard library alone: -write-vectors writes them again.
const snapshotVectorsFile = "testdata/snapshots.json"

type snapshotVectors struct {
	Comment   string           `json:"comment"`
	Snapshots []snapshotVector `json:"snapshots"`
}

type snapshotVector struct {
	KEK     string               `json:"kek"` // as in KEYTURN_KEK
	Realm   string               `json:"realm"`
	Store   string               `json:"store"`
	Key     string               `json:"snapshot_key"`
	Commit  string               `json:"commit_key"`
	Nonce   string               `json:"nonce"`
	At      uint64               `json:"at"`
	Buckets [][3]uint64          `json:"buckets"` // index, complete, good
	Rings   []snapshotRingVector `json:"rings"`
	Places  []snapshotPlace      `json:"places,omitempty"` // those of before there were places have none
	Bytes   string               `json:"bytes"`
}

type snapshotPlace struct {
	Bucket int    `json:"bucket"`
	ID     string `json:"id"`
	Nonce  string `json:"nonce"`
}

type snapshotRingVector struct {
	Tenant   string            `json:"tenant"`
	Complete uint64            `json:"complete"`
	Good     uint64            `json:"good"`
	Fields   map[string]string `json:"fields"`
}

func newSnapshotVectors(t *testing.T) *snapshotVectors {
	v := &snapshotVectors{Comment: "Examples of snapshots for docs/formats.md. Bytes are in hexadecimal, times in milliseconds. The key is public: use it nowhere."}
	const text = "keyturn test vectors: key no. 1!"
	for i, realm := range []string{"", "staging", ""} {
		key := hkdf1([]byte(text), "keyturn/1/kek-snapshot:"+realm)
		one := snapshotVector{KEK: base64.StdEncoding.EncodeToString([]byte(text)), Realm: realm, Store: []string{"kt", "", "kt"}[i], Key: hex.EncodeToString(key),
			Commit: hex.EncodeToString(hkdf1(key, "keyturn/1/commit")), Nonce: hex.EncodeToString([]byte("snapnonce 0" + string(rune('1'+i)))), At: 1_800_000_000_000 + uint64(i)}
		if i != 1 {
			one.Buckets = [][3]uint64{{0, 1_799_999_999_000, 0}, {255, 1_799_999_999_000, 1_799_999_998_000}}
			one.Rings = []snapshotRingVector{
				{"acme", 1_799_999_999_000, 1_799_999_998_000, map[string]string{"head": "00", "k:a": "0102", "p:a": ""}}, {"acmé", 1_799_999_999_000, 0, map[string]string{}}}
		}
		if i == 2 {
			one.Places = []snapshotPlace{{255, "1799999999123-0", "J2BWM4UKX5TNSLQ7"}}
		}
		one.Bytes = hex.EncodeToString(one.seal(t))
		v.Snapshots = append(v.Snapshots, one)
	}
	return v
}

// header returns the bytes before the sealed part.
func (v *snapshotVector) header(t *testing.T) []byte {
	text, err := base64.StdEncoding.DecodeString(v.KEK)
	if err != nil {
		t.Fatal(err)
	}
	id := hex.EncodeToString(hkdf1(text, "keyturn/1/kek-id")[:8])
	return slices.Concat([]byte("kt\x01S"), []byte{byte(len(id))}, []byte(id), hkdf1(text, "keyturn/1/kek-check")[:8], hkdf1(text, "keyturn/1/kek-realm:"+v.Realm)[:8], str(v.Store))
}

func (v *snapshotVector) seal(t *testing.T) []byte {
	body := slices.Concat(u64(v.At), []byte{byte(len(v.Buckets) >> 8), byte(len(v.Buckets))})
	for _, b := range v.Buckets {
		body = slices.Concat(body, []byte{byte(b[0] >> 8), byte(b[0])}, u64(b[1]), u64(b[2]))
	}
	body = append(body, u32(uint32(len(v.Rings)))...)
	for _, r := range v.Rings {
		body = slices.Concat(body, str(r.Tenant), u64(r.Complete), u64(r.Good), []byte{0, byte(len(r.Fields))})
		names := make([]string, 0, len(r.Fields))
		for name := range r.Fields {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			body = slices.Concat(body, str(name), str(string(unhex(t, r.Fields[name]))))
		}
	}
	if n := len(v.Places); n > 0 {
		body = append(body, byte(n>>8), byte(n))
	}
	for _, p := range v.Places {
		body = slices.Concat(body, []byte{byte(p.Bucket >> 8), byte(p.Bucket)}, str(p.ID), str(p.Nonce))
	}
	return box1(t, unhex(t, v.Key), unhex(t, v.Commit), v.header(t), nil, unhex(t, v.Nonce), body)
}

// snapshot returns what the package reads.
func (v *snapshotVector) snapshot(t *testing.T) *Snapshot {
	at := func(n uint64) time.Time {
		if n == 0 {
			return time.Time{}
		}
		return ms(n)
	}
	s := &Snapshot{At: at(v.At)}
	for _, b := range v.Buckets {
		one := SnapshotBucket{Index: int(b[0]), Complete: at(b[1]), Good: at(b[2])}
		for _, p := range v.Places {
			if p.Bucket == one.Index {
				one.PlaceID, one.PlaceNonce = p.ID, p.Nonce
			}
		}
		s.Buckets = append(s.Buckets, one)
	}
	for _, r := range v.Rings {
		one := SnapshotRing{r.Tenant, at(r.Complete), at(r.Good), make(map[string][]byte)}
		for name, value := range r.Fields {
			one.Fields[name] = unhex(t, value)
		}
		s.Rings = append(s.Rings, one)
	}
	return s
}

func (v *snapshotVector) keks(t *testing.T) *KEKs {
	keks, err := ParseKEKs([]byte(v.KEK))
	if err != nil {
		t.Fatal(err)
	}
	return mustIn(t, keks, v.Realm)
}

func TestSnapshotVectors(t *testing.T) {
	want, err := json.MarshalIndent(newSnapshotVectors(t), "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, '\n')
	if *writeVectors {
		if err := os.WriteFile(snapshotVectorsFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(snapshotVectorsFile)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%s is not what the test writes: %v", snapshotVectorsFile, err)
	}
	for _, v := range newSnapshotVectors(t).Snapshots {
		s, err := OpenSnapshot(v.keks(t), v.Store, unhex(t, v.Bytes))
		if err != nil || !reflect.DeepEqual(s, v.snapshot(t)) {
			t.Errorf("%+v, %v, want %+v", s, err, v.snapshot(t))
		}
		blob, err := SealSnapshot(v.keks(t), v.Store, v.snapshot(t))
		header := v.header(t)
		if err != nil || !bytes.HasPrefix(blob, header) {
			t.Fatalf("%x, %v, want it to begin with %x", blob, err, header)
		}
		old, renewed := unbox1(t, unhex(t, v.Key), unhex(t, v.Commit), header, nil, unhex(t, v.Bytes)), unbox1(t, unhex(t, v.Key), unhex(t, v.Commit), header, nil, blob)
		if !bytes.Equal(old, renewed) {
			t.Errorf("%x, want %x", renewed, old)
		}
	}
}

// A snapshot of another KEK, realm or store is refused by name, and one that was changed at all.
func TestSnapshotsRefused(t *testing.T) {
	v := newSnapshotVectors(t).Snapshots[0]
	blob, keks := unhex(t, v.Bytes), v.keks(t)
	for _, tt := range []struct {
		name  string
		keks  *KEKs
		store string
		is    error
		says  string
	}{
		{"another KEK", mustKEKs(t, 2), "kt", ErrWrongKEK, "sealed under KEK"},
		{"another realm", mustIn(t, keks, "staging"), "kt", ErrWrongRealm, "realm"},
		{"another store", keks, "other", nil, `the snapshot is of the store "kt", this one is "other"`},
	} {
		s, err := OpenSnapshot(tt.keks, tt.store, blob)
		if s != nil || err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	moved, err := keks.In("staging", "") // a realm that rings move from is opened too
	if err != nil {
		t.Fatal(err)
	}
	if s, err := OpenSnapshot(moved, "kt", blob); err != nil || s == nil {
		t.Errorf("the realm that it moves from: %v", err)
	}
	for i := range blob {
		changed := bytes.Clone(blob)
		changed[i] ^= 1
		if s, err := OpenSnapshot(keks, "kt", changed); s != nil || err == nil {
			t.Errorf("byte %d may be changed", i)
		}
		if s, err := OpenSnapshot(keks, "kt", blob[:i]); s != nil || err == nil {
			t.Errorf("it may be cut at %d", i)
		}
	}
}

// What cannot be read again is not written.
func TestSnapshotsThatCannotBeSealed(t *testing.T) {
	at := time.UnixMilli(1_800_000_000_000).UTC()
	for name, s := range map[string]*Snapshot{
		"no time":         {},
		"no bucket":       {At: at, Buckets: []SnapshotBucket{{Index: -1}}},
		"half a place":    {At: at, Buckets: []SnapshotBucket{{Index: 1, PlaceID: "1-0"}}},
		"a huge place":    {At: at, Buckets: []SnapshotBucket{{Index: 1, PlaceID: "1-0", PlaceNonce: strings.Repeat("n", 65)}}},
		"no tenant":       {At: at, Rings: []SnapshotRing{{}}},
		"a huge field":    {At: at, Rings: []SnapshotRing{{Tenant: "a", Fields: map[string][]byte{"k:a": make([]byte, 1<<16)}}}},
		"a field unnamed": {At: at, Rings: []SnapshotRing{{Tenant: "a", Fields: map[string][]byte{"": nil}}}},
	} {
		if blob, err := SealSnapshot(mustKEKs(t, 1), "kt", s); err == nil || blob != nil {
			t.Errorf("%s: it is sealed", name)
		}
	}
	if blob, err := SealSnapshot(mustKEKs(t, 1), strings.Repeat("x", 257), &Snapshot{At: at}); err == nil || blob != nil {
		t.Error("a long name: it is sealed")
	}
}

// Places are of buckets that are there, in order, each once. A snapshot of before there were places has
// none, and is read as it was.
func TestSnapshotPlaces(t *testing.T) {
	s := &Snapshot{At: time.UnixMilli(1).UTC(), Buckets: []SnapshotBucket{{Index: 3, PlaceID: "a", PlaceNonce: "b"}, {Index: 4, PlaceID: "c", PlaceNonce: "d"}}}
	body, err := s.append(nil)
	if err != nil {
		t.Fatal(err)
	}
	const one = 2 + 3 + 3 // an index, and two texts of a byte
	n := len(body) - 2*one
	of := func(count byte, places ...[]byte) []byte {
		return append([]byte{0, count}, slices.Concat(places...)...)
	}
	head, first, second := body[:n-2], body[n:n+one], body[n+one:]
	strange := bytes.Clone(second)
	strange[1] = 5
	for name, rest := range map[string][]byte{
		"out of order": of(2, second, first), "twice": of(2, first, first), "of no bucket": of(2, first, strange),
		"an empty list": of(0), "too few": of(2, first), "too many": of(1, first, second),
	} {
		if got, err := readSnapshot(slices.Concat(head, rest)); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got, err := readSnapshot(slices.Concat(head, of(2, first, second))); err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := readSnapshot(head); err != nil || got.Buckets[0].hasPlace() || got.Buckets[1].hasPlace() {
		t.Errorf("without places: %+v, %v", got, err)
	}
}

// FuzzSnapshot: a body that can be read is in its one encoding. The input is also tried as a file.
func FuzzSnapshot(f *testing.F) {
	keks := mustKEKs(f, 1)
	body, err := (&Snapshot{At: time.UnixMilli(1).UTC(), Buckets: []SnapshotBucket{{Index: 3}}, Rings: []SnapshotRing{{Tenant: "a", Fields: map[string][]byte{"k:a": {1}}}}}).append(nil)
	if err != nil {
		f.Fatal(err)
	}
	placed, err := (&Snapshot{At: time.UnixMilli(1).UTC(), Buckets: []SnapshotBucket{{Index: 3}, {Index: 4, PlaceID: "1-0", PlaceNonce: "n"}}}).append(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(placed)
	f.Add(body)
	f.Add(body[:len(body)-1])
	f.Fuzz(func(t *testing.T, in []byte) {
		if _, err := OpenSnapshot(keks, "", in); err != nil && !oneReason(err) {
			t.Errorf("OpenSnapshot: %v", err)
		}
		s, err := readSnapshot(in)
		if err != nil {
			if s != nil || !oneReason(err) {
				t.Errorf("readSnapshot: %v", err)
			}
			return
		}
		if again, err := s.append(nil); err != nil || !bytes.Equal(again, in) {
			t.Errorf("read from %x, written as %x, %v", in, again, err)
		}
	})
}
