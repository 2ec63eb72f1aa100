package seal

import (
	"crypto/hmac"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/ring"
)

// Bounds of an acknowledgement and of an entry of the log.
const (
	MaxApplied = 32 // nonces of changes in an acknowledgement

	maxInstance = 256 // bytes of the name of an instance, and of the actor of an entry
	maxNonce    = 64  // bytes
	maxPlaceID  = 64  // bytes
	maxRun      = 64  // bytes
	maxBucket   = 1<<16 - 1
)

// An Ack is the acknowledgement of an instance: what it has read of a bucket, and how. Times are in
// whole milliseconds.
type Ack struct {
	Instance string // whose it is
	Bucket   int    // of the store

	PlaceID    string    // of the newest log entry up to which it has read
	PlaceNonce string    // of that entry
	GoodSince  time.Time // since when it has been in sync without a break, or zero
	At         time.Time // when it was made, by the instance's own clock

	KEKs    []KEKName // those of the instance, the primary first
	Applied []Applied // changes of late that it has applied, at most MaxApplied
	Ends    [16]byte  // EndsDigest of what it holds of the bucket

	// Run is the run of the store in which the instance has been in sync for at least two polls. It is
	// empty for one that has not, or where the store does not tell.
	Run string

	// Verifies are the algorithms of the tokens that the instance accepts. An empty list means all.
	// One of [ring.NoAlgorithm] alone means none.
	Verifies []keystore.Algorithm
}

// Ended is the name under which an instance that ends leaves what it can say of the store. It stands
// for no instance: only one that starts reads it. Of several the last one stays.
const Ended = "\x00ended"

// An Applied names a change that an instance has applied.
type Applied struct {
	Nonce string // of its entry in the log

	// Holds says that the instance holds the ring: it has opened and merged it. Otherwise it holds
	// no ring of the tenant, and verifies none of the tenant's tokens: it has only read the entry.
	Holds bool
}

// SealAck returns what to store of an acknowledgement: it with a MAC under the primary KEK. The MAC
// is under no other one, because the instance speaks for itself and not for a ring. The KEKs that
// it names are those of keks, whatever a.KEKs has.
func SealAck(keks *KEKs, a Ack) ([]byte, error) {
	if err := checkAck(a); err != nil {
		return nil, err
	}
	a.KEKs = keks.Names()
	kek, err := keks.sealing(keks.Primary())
	if err != nil {
		return nil, err
	}
	open := a.append(nil)
	return append(open, kek.mac(useAcks, a.authenticated(open))...), nil
}

// OpenAck opens blob, which the store has for the instance in the bucket. The error wraps one of
// ErrWrongKEK, ErrTampered, ErrNewer and ErrMalformed.
func OpenAck(keks *KEKs, instance string, bucket int, blob []byte) (Ack, error) {
	a, mac, err := readAck(blob)
	if err != nil {
		return Ack{}, err
	}
	if !isText(instance, 1, maxInstance) || bucket < 0 || bucket > maxBucket {
		return Ack{}, &ring.Error{Kind: ErrMalformed, Text: "an acknowledgement of no instance or bucket"}
	}
	a.Instance, a.Bucket = instance, bucket
	kek, err := keks.find(a.KEKs[0])
	if err != nil {
		return Ack{}, err
	}
	if !hmac.Equal(mac, kek.mac(useAcks, a.authenticated(blob[:len(blob)-macSize]))) {
		return Ack{}, &ring.Error{Kind: ErrTampered, Text: "the acknowledgement was changed, moved or forged"}
	}
	return a, nil
}

// append appends the encoding of the acknowledgement:
//
//	start  at  good since  digest of ends  ID and nonce of the place
//	number of KEK names, KEK names  number of algorithms, algorithms
//	number of changes, for each: holds  nonce
//	run, unless it is empty
//
// Instance and bucket are not in it: they are told by its place, and the MAC covers them. The time
// has a fixed offset, so that a script can find old ones without a key.
func (a Ack) append(b []byte) []byte {
	b = appendDate(appendStart(b, blobAck), a.At)
	if a.GoodSince.IsZero() {
		b = binary.BigEndian.AppendUint64(b, 0)
	} else {
		b = appendDate(b, a.GoodSince)
	}
	b = append(b, a.Ends[:]...)
	b = appendText(appendText(b, a.PlaceID), a.PlaceNonce)
	b = append(b, byte(len(a.KEKs)))
	for _, name := range a.KEKs {
		b = name.append(b)
	}
	b = append(b, byte(len(a.Verifies)))
	for _, alg := range a.Verifies {
		b = append(b, algorithmCodes[alg]) // 0 for NoAlgorithm
	}
	b = append(b, byte(len(a.Applied)))
	for _, applied := range a.Applied {
		holds := byte(0)
		if applied.Holds {
			holds = 1
		}
		b = appendText(append(b, holds), applied.Nonce)
	}
	if a.Run != "" { // so that one without a run is as it was before there were runs
		b = appendText(b, a.Run)
	}
	return b
}

// authenticated returns the message of the MAC: the encoding, and its place.
func (a Ack) authenticated(open []byte) []byte {
	open = open[:len(open):len(open)]
	return appendText(binary.BigEndian.AppendUint16(open, uint16(a.Bucket)), a.Instance)
}

// readAck reads an acknowledgement without its place, and its MAC, which the caller checks.
func readAck(blob []byte) (a Ack, mac []byte, err error) {
	r := reader{rest: blob}
	r.start(blobAck)
	a.At = r.date()
	a.GoodSince = r.dateOrZero()
	copy(a.Ends[:], r.take(len(a.Ends)))
	a.PlaceID, a.PlaceNonce = r.text(1, maxPlaceID), r.text(1, maxNonce)
	for range r.number(1, 1, maxKEKs) {
		a.KEKs = append(a.KEKs, r.kekName())
	}
	a.Verifies = r.listed()
	for range r.number(1, 0, MaxApplied) {
		holds := r.number(1, 0, 1) == 1
		a.Applied = append(a.Applied, Applied{Nonce: r.text(1, maxNonce), Holds: holds})
	}
	if len(r.rest) > macSize {
		a.Run = r.text(1, maxRun)
	}
	mac = r.mac()
	if r.err != nil {
		return Ack{}, nil, r.err
	}
	return a, mac, nil
}

// listed reads a list of algorithms. Code 0 stands alone, for no algorithm.
func (r *reader) listed() (algs []keystore.Algorithm) {
	n := r.number(1, 0, uint64(len(algorithms)))
	if n == 1 && len(r.rest) > 0 && r.rest[0] == 0 {
		r.take(1)
		return []keystore.Algorithm{ring.NoAlgorithm}
	}
	for range n {
		algs = append(algs, readCode(r, algorithms, "algorithm"))
	}
	return algs
}

// checkAck refuses an acknowledgement that readAck would refuse.
func checkAck(a Ack) error {
	switch {
	case !isText(a.Instance, 1, maxInstance):
		return &ring.Error{Text: fmt.Sprintf("an instance of %d bytes: want 1 to %d, in UTF-8", len(a.Instance), maxInstance)}
	case a.Bucket < 0 || a.Bucket > maxBucket:
		return &ring.Error{Text: fmt.Sprintf("a bucket %d", a.Bucket)}
	case !isText(a.PlaceID, 1, maxPlaceID) || !isText(a.PlaceNonce, 1, maxNonce):
		return &ring.Error{Text: "an acknowledgement without a place"}
	case !isText(a.Run, 0, maxRun):
		return &ring.Error{Text: fmt.Sprintf("a run of %d bytes: want at most %d, in UTF-8", len(a.Run), maxRun)}
	case len(a.Applied) > MaxApplied:
		return &ring.Error{Text: fmt.Sprintf("an acknowledgement of %d changes: want at most %d", len(a.Applied), MaxApplied)}
	}
	none := slices.Equal(a.Verifies, []keystore.Algorithm{ring.NoAlgorithm})
	if odd := func(alg keystore.Algorithm) bool { return !alg.Known() && !none }; len(a.Verifies) > len(algorithms) || slices.ContainsFunc(a.Verifies, odd) {
		return &ring.Error{Text: fmt.Sprintf("an acknowledgement of the algorithms %v: want some of %v", a.Verifies, keystore.Algorithms())}
	}
	for _, applied := range a.Applied {
		if nonce := applied.Nonce; !isText(nonce, 1, maxNonce) {
			return &ring.Error{Text: fmt.Sprintf("a nonce of %d bytes: want 1 to %d, in UTF-8", len(nonce), maxNonce)}
		}
	}
	if !a.GoodSince.IsZero() {
		if err := checkDate(a.GoodSince); err != nil {
			return err
		}
	}
	return checkDate(a.At)
}
