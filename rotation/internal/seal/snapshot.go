package seal

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// Bounds of a snapshot.
const (
	maxStoreName  = 256     // bytes of the name of a store
	maxFieldName  = 2 << 10 // bytes
	maxFieldValue = math.MaxUint16
	maxFields     = math.MaxUint16
)

// A Snapshot is what an instance holds at one moment, for the time after it starts again. All times
// are by its own clock, in whole milliseconds.
type Snapshot struct {
	At      time.Time
	Buckets []SnapshotBucket // by index
	Rings   []SnapshotRing   // by tenant
}

// Newest returns the latest time that the snapshot names. A clock that was set back before it was
// written makes that one of a sync.
func (s *Snapshot) Newest() time.Time {
	newest := s.At
	for _, b := range s.Buckets {
		newest = later(newest, b.Complete)
	}
	for i := range s.Rings {
		newest = later(newest, s.Rings[i].Complete)
	}
	return newest
}

// later returns the later of two times.
func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// A SnapshotBucket says how far a bucket was in sync. A time is zero for never.
type SnapshotBucket struct {
	Index    int
	Complete time.Time // when the last complete read was sent
	Good     time.Time // when the last one was that left the instance in sync

	// PlaceID and PlaceNonce name the newest entry of the log that the rings of the bucket have, as of
	// Complete. Both are empty if a ring may lack something: then the bucket proves nothing.
	PlaceID, PlaceNonce string
}

// hasPlace reports whether the bucket has a place.
func (k *SnapshotBucket) hasPlace() bool { return k.PlaceID != "" || k.PlaceNonce != "" }

// A SnapshotRing is a copy of a ring, with how far it was in sync.
type SnapshotRing struct {
	Tenant         string
	Complete, Good time.Time
	Fields         map[string][]byte // as a store has them
}

// SealSnapshot returns the bytes of a file: the snapshot, sealed under the primary KEK. store is the
// name of the store that it is of, such as a prefix of its keys; it may be empty.
func SealSnapshot(keks *KEKs, store string, s *Snapshot) ([]byte, error) {
	body, err := s.append(nil)
	if err != nil {
		return nil, err
	}
	if !isText(store, 0, maxStoreName) {
		return nil, &ring.Error{Text: fmt.Sprintf("a store's name of %d bytes: want at most %d, in UTF-8", len(store), maxStoreName)}
	}
	kek, err := keks.sealing(keks.Primary())
	if err != nil {
		return nil, err
	}
	box, err := newBox(kek.derive(useSnapshot))
	if err != nil {
		return nil, err
	}
	return box.seal(appendText(kek.name.append(appendStart(nil, blobSnapshot)), store), nil, body)
}

// OpenSnapshot opens the bytes of a file for a store of that name. The error wraps one of ErrWrongKEK,
// ErrTampered, ErrNewer and ErrMalformed, unless the snapshot is of another store.
func OpenSnapshot(keks *KEKs, store string, blob []byte) (*Snapshot, error) {
	r := reader{rest: blob}
	r.start(blobSnapshot)
	name := r.kekName()
	of := r.text(0, maxStoreName)
	if r.err != nil {
		return nil, r.err
	}
	kek, err := keks.find(name)
	if err != nil {
		return nil, err
	}
	box, err := newBox(kek.derive(useSnapshot))
	if err != nil {
		return nil, err
	}
	n := len(blob) - len(r.rest)
	body, err := box.open(blob[:n], nil, r.rest)
	if err != nil {
		return nil, &ring.Error{Kind: ErrTampered, Text: "the snapshot was changed, cut short or forged"}
	}
	if of != store {
		return nil, &ring.Error{Text: fmt.Sprintf("the snapshot is of the store %q, this one is %q", of, store)}
	}
	return readSnapshot(body)
}

// append appends the encoding of the snapshot:
//
//	at  number of buckets, for each: index  complete  good
//	number of rings, for each: tenant  complete  good  number of fields, for each: name  value
//	number of places, for each: index of the bucket  ID and nonce; nothing without places
func (s *Snapshot) append(b []byte) ([]byte, error) {
	if err := checkDate(s.At); err != nil {
		return nil, err
	}
	b = appendDate(b, s.At)
	b = binary.BigEndian.AppendUint16(b, uint16(len(s.Buckets)))
	for _, k := range s.Buckets {
		if k.Index < 0 || k.Index > maxBucket {
			return nil, &ring.Error{Text: fmt.Sprintf("a bucket %d", k.Index)}
		}
		b = appendDateOrZero(appendDateOrZero(binary.BigEndian.AppendUint16(b, uint16(k.Index)), k.Complete), k.Good)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(s.Rings)))
	for i := range s.Rings {
		r := &s.Rings[i]
		if !isText(r.Tenant, 1, ring.MaxTenantBytes) || len(r.Fields) > maxFields {
			return nil, &ring.Error{Text: fmt.Sprintf("a ring of a tenant of %d bytes, with %d fields", len(r.Tenant), len(r.Fields))}
		}
		b = appendDateOrZero(appendDateOrZero(appendText(b, r.Tenant), r.Complete), r.Good)
		b = binary.BigEndian.AppendUint16(b, uint16(len(r.Fields)))
		for _, name := range slices.Sorted(maps.Keys(r.Fields)) {
			if !isText(name, 1, maxFieldName) || len(r.Fields[name]) > maxFieldValue {
				return nil, &ring.Error{Text: fmt.Sprintf("a field of %d bytes, whose name has %d", len(r.Fields[name]), len(name))}
			}
			b = appendText(appendText(b, name), string(r.Fields[name]))
		}
	}
	return s.appendPlaces(b)
}

// appendPlaces appends the places. A snapshot without any is as it was before there were places.
func (s *Snapshot) appendPlaces(b []byte) ([]byte, error) {
	var places []byte
	n := 0
	for _, k := range s.Buckets {
		if !k.hasPlace() {
			continue
		}
		if !isText(k.PlaceID, 1, maxPlaceID) || !isText(k.PlaceNonce, 1, maxNonce) {
			return nil, &ring.Error{Text: fmt.Sprintf("a place of %d and %d bytes in bucket %d", len(k.PlaceID), len(k.PlaceNonce), k.Index)}
		}
		places = appendText(appendText(binary.BigEndian.AppendUint16(places, uint16(k.Index)), k.PlaceID), k.PlaceNonce)
		n++
	}
	if n == 0 {
		return b, nil
	}
	return append(binary.BigEndian.AppendUint16(b, uint16(n)), places...), nil
}

// readPlaces reads what appendPlaces has written.
func (s *Snapshot) readPlaces(r *reader) {
	if r.err != nil || len(r.rest) == 0 {
		return
	}
	at := 0
	for range r.number(2, 1, maxBucket+1) {
		index := int(r.number(2, 0, maxBucket))
		for at < len(s.Buckets) && s.Buckets[at].Index < index {
			at++
		}
		if at == len(s.Buckets) || s.Buckets[at].Index != index || s.Buckets[at].hasPlace() {
			r.fail("a place out of order")
		}
		if r.err != nil {
			return
		}
		s.Buckets[at].PlaceID, s.Buckets[at].PlaceNonce = r.text(1, maxPlaceID), r.text(1, maxNonce)
	}
}

// readSnapshot reads what append has written. Buckets, tenants and fields are in order, and each is
// there once.
func readSnapshot(body []byte) (*Snapshot, error) {
	r := reader{rest: body}
	s := &Snapshot{At: r.date()}
	for range r.number(2, 0, maxBucket+1) {
		if r.err != nil {
			break
		}
		b := SnapshotBucket{Index: int(r.number(2, 0, maxBucket)), Complete: r.dateOrZero(), Good: r.dateOrZero()}
		if n := len(s.Buckets); n > 0 && b.Index <= s.Buckets[n-1].Index {
			r.fail("a bucket out of order")
		}
		s.Buckets = append(s.Buckets, b)
	}
	for range r.number(4, 0, math.MaxUint32) {
		if r.err != nil {
			break
		}
		one := r.snapshotRing()
		if n := len(s.Rings); n > 0 && strings.Compare(one.Tenant, s.Rings[n-1].Tenant) <= 0 {
			r.fail("a ring out of order")
		}
		s.Rings = append(s.Rings, one)
	}
	s.readPlaces(&r)
	if r.err == nil && len(r.rest) > 0 {
		r.fail("%d bytes after its end", len(r.rest))
	}
	if r.err != nil {
		return nil, r.err
	}
	return s, nil
}

// snapshotRing reads a ring of a snapshot.
func (r *reader) snapshotRing() SnapshotRing {
	one := SnapshotRing{Tenant: r.text(1, ring.MaxTenantBytes), Complete: r.dateOrZero(), Good: r.dateOrZero(), Fields: make(map[string][]byte)}
	last := ""
	for range r.number(2, 0, maxFields) {
		if r.err != nil {
			break
		}
		name := r.text(1, maxFieldName)
		if name <= last {
			r.fail("a field out of order")
		}
		last, one.Fields[name] = name, r.bytes(0, maxFieldValue)
	}
	return one
}

// appendDateOrZero appends t as reader.dateOrZero reads it.
func appendDateOrZero(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return binary.BigEndian.AppendUint64(b, 0)
	}
	return appendDate(b, t)
}
