package ring

import "time"

// A Restored says what a restore did with a ring of a backup. It names fields of a ring as
// docs/formats.md does, such as k:KID for a key, or x:KID for its revocation.
type Restored struct {
	Tenant string    // whose ring it is
	Taken  time.Time // when the backup read it. Later revocations are not in it

	// PutBack are the fields that the backup has, and that the store lacked, sorted. They are put back, or
	// would be.
	PutBack []string

	// Better are the fields that the store has, and that end trust in something of the backup: x:KID, gone
	// (keys were collected) or dead (the ring was destroyed). They stay, sorted.
	Better []string

	// Left are the kids of keys that the store lacks, and that were not put back: they were collected,
	// their ring was destroyed, their last token has ended, or EndsOnly.
	Left []string

	// EndsOnly says that the backup is too old for its keys to be put back unasked.
	EndsOnly bool
}
