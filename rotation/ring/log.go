package ring

import "time"

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
