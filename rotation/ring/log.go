package ring

import (
	"encoding/binary"
	"time"
)

// A Place is one entry of a bucket's log. The zero Place is before every entry. Places are
// comparable with ==.
type Place struct {
	ID    string // orders the entries, in a form of the store's choice
	Nonce string // random, so that the same ID after a loss of the log is another place
}

// A LogEntry is an entry of a bucket's log: a change that was made, as a store has it. Anyone who
// can write to the store can write one. Only the MAC proves what it says.
type LogEntry struct {
	Op          Op
	Tenant, KID string
	Seq         int // 0 if the store holds no number
	Actor       string
	Nonce       string
	MAC         []byte // byte for byte as it was written; empty if there is none
}

// A RawAck is the acknowledgement of an instance in one bucket, as the store has it. The store does
// not open it. Only its date is readable: bytes 4 to 11 are when it was made, by the instance's
// clock, in milliseconds since 1970, big-endian. A store may drop acknowledgements older than a day,
// or longer than 8192 bytes.
type RawAck struct {
	Instance string
	Sealed   []byte
}

// At returns the readable date, or zero. It is not authentic.
func (a RawAck) At() time.Time {
	if len(a.Sealed) < 12 {
		return time.Time{}
	}
	return time.UnixMilli(int64(binary.BigEndian.Uint64(a.Sealed[4:]))).UTC()
}

// An Ack is an instance's acknowledgement in one bucket: that it is there, and whether it has
// applied a change.
type Ack struct {
	Instance  string    // its Config.Instance
	At        time.Time // of the acknowledgement, by the instance's own clock
	GoodSince time.Time // since when it has been in sync, by the store's clock; zero if it is not

	// Applied reports that it has opened the entry of the change in the log, and then read, opened
	// and merged the ring. An instance that does not hold the tenant applies a change by reading the
	// entry.
	Applied bool

	// KEKs are its KEKs as id and check value, the primary first. If there are none, this process
	// lacks its primary KEK, and nothing but Instance and At is known of it.
	KEKs []string
}
