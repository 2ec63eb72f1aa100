package codec

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// Bounds of an acknowledgement.
const (
	MaxApplied = 32 // nonces

	maxText = 64 // bytes of a nonce, and of a run
)

// Values of [Ack.Minute] that say that Held compares with nothing. Both are later than every minute.
const (
	Partial = Forever     // the instance has no room for everything
	Between = Forever - 1 // it has read some groups later than the log: its next acknowledgement compares again
)

// An Ack is the acknowledgement of an instance in a bucket: what it has read there, and what it
// holds. Times are in whole milliseconds.
type Ack struct {
	Instance string // whose it is
	Bucket   int    // of the store

	At    time.Time // when it was made, by the instance's own clock
	Good  time.Time // since when it has been in sync without a break, by the same clock, or zero
	Place string    // of the newest entry of the log that it has read, see [PlaceOf]
	Last  string    // the nonce of the newest authentic one, or "" if it has seen none
	Run   string    // of the store, in which it has been in sync for two polls, or ""

	// Held is the fingerprint of all entries that it holds in the bucket, and that end after Minute.
	Held   Fingerprint
	Minute int64 // in seconds since 1970, or Partial, or Between

	Applied []string // nonces of changes of late that it has applied, at most MaxApplied
}

// PlaceOf returns what an acknowledgement says of a place: its nonce, @, and its ID. A person can give entries any nonce,
// such as that of an earlier one, but no ID of an earlier one: IDs grow. A nonce for which there is no room is left out.
func PlaceOf(id, nonce string) string {
	if len(nonce)+1+len(id) > maxText {
		nonce = ""
	}
	return nonce + "@" + id
}

// SealAck returns what to store of an acknowledgement.
//
//	start  at (8)  digest key (4)  good (8)  minute (5)  held (8)  place  last  run  number of changes (1)  nonces  MAC (16)
//
// where a text is its length (1) and its bytes.
func (k *Key) SealAck(a Ack) []byte {
	b := appendMillis(appendStart(nil, kindAck), a.At)
	b = appendMillis(binary.BigEndian.AppendUint32(b, k.ID), a.Good)
	b = binary.BigEndian.AppendUint64(appendSecond(b, a.Minute), uint64(a.Held))
	for _, text := range []string{a.Place, a.Last, a.Run} {
		b = appendText(b, text)
	}
	applied := a.Applied[max(0, len(a.Applied)-MaxApplied):]
	b = append(b, byte(len(applied)))
	for _, nonce := range applied {
		b = appendText(b, nonce)
	}
	return append(b, k.ackMAC(b, a.Instance, a.Bucket)...)
}

func (k *Key) ackMAC(b []byte, instance string, bucket int) []byte {
	h := hmac.New(sha256.New, k.acks)
	h.Write(b)
	h.Write(binary.BigEndian.AppendUint16(nil, uint16(bucket)))
	h.Write([]byte(instance))
	return h.Sum(nil)[:macSize]
}

// OpenAck opens what the store has as the acknowledgement of instance in the bucket.
func OpenAck(keys Keys, instance string, bucket int, sealed []byte) (Ack, error) {
	r := reader{rest: sealed}
	rest, err := cutStart(sealed, kindAck)
	if err != nil {
		return Ack{}, err
	}
	r.rest = rest
	a := Ack{Instance: instance, Bucket: bucket, At: r.millis()}
	id := uint32(r.number(4))
	a.Good, a.Minute, a.Held = r.millis(), int64(r.number(5)), Fingerprint(r.number(8))
	a.Place, a.Last, a.Run = r.text(), r.text(), r.text()
	for range min(r.number(1), MaxApplied) {
		a.Applied = append(a.Applied, r.text())
	}
	if r.bad || len(r.rest) != macSize {
		return Ack{}, ErrMalformed
	}
	k := keys.Find(id)
	if k == nil {
		return Ack{}, ErrNoKey
	}
	if !hmac.Equal(r.rest, k.ackMAC(sealed[:len(sealed)-macSize], instance, bucket)) {
		return Ack{}, ErrForged
	}
	return a, nil
}

// appendMillis appends a date in milliseconds since 1970, 0 for the zero Time.
func appendMillis(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return binary.BigEndian.AppendUint64(b, 0)
	}
	return binary.BigEndian.AppendUint64(b, uint64(t.UnixMilli()))
}

// appendText appends the length and the bytes of a text. A longer one is left out: no store has
// such a nonce.
func appendText(b []byte, text string) []byte {
	if len(text) > maxText {
		text = ""
	}
	return append(append(b, byte(len(text))), text...)
}

// A reader reads the parts of a value. Once a part is missing, bad stays true.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) take(n int) []byte {
	if r.bad || len(r.rest) < n {
		r.bad = true
		return make([]byte, n)
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) number(size int) (n uint64) {
	for _, b := range r.take(size) {
		n = n<<8 | uint64(b)
	}
	return n
}

func (r *reader) millis() time.Time {
	ms := r.number(8)
	switch {
	case ms == 0:
		return time.Time{}
	case ms > Forever*1000:
		r.bad = true
		return time.Time{}
	}
	return time.UnixMilli(int64(ms)).UTC()
}

func (r *reader) text() string {
	n := r.number(1)
	if n > maxText {
		r.bad = true
		return ""
	}
	return string(r.take(int(n)))
}
