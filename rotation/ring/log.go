package ring

import (
	"time"

	"github.com/keyturn/keyturn/keystore"
)

// An Ack is an instance's acknowledgement in one bucket: that it is there, and whether it has
// applied a change.
type Ack struct {
	Instance  string    // its Config.Instance
	At        time.Time // of the acknowledgement, by the instance's own clock
	GoodSince time.Time // since when it has been in sync, by the store's clock; zero if it is not

	// Applied reports that it has opened the entry of the change in the log, and then read, opened
	// and merged the ring. A revocation counts as soon as it rejects the key, even if another part of
	// the ring cannot be opened. An instance that does not hold the tenant applies a change by reading
	// the entry.
	Applied bool

	// Holds reports that it holds the ring that was changed, and so verifies the tenant's tokens. An
	// instance says so of the changes that it has applied.
	Holds bool

	// ReadTo is the ID of the newest entry of the bucket's log up to which it has read, or "". A place
	// in the log says less than Applied: an entry before it may have been removed.
	ReadTo string

	// KEKs are its KEKs as id and check value, the primary first. If there are none, this process
	// lacks its primary KEK, and nothing but Instance and At is known of it.
	KEKs []string

	// Verifies are the algorithms of the tokens that it accepts: its Config.Verifies. An empty list
	// means all, or that it is not known.
	Verifies []keystore.Algorithm
}

// NoAlgorithm stands alone in [Ack].Verifies and in rotation.Config.Verifies if the tenants of an instance
// have no algorithm in common. An empty list would mean all.
const NoAlgorithm keystore.Algorithm = "none"
