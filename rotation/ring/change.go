package ring

import "time"

// An Op is the name of a change to a ring, as the store logs it.
type Op string

// The changes to a ring. docs/protocol.md has the rule of each.
const (
	OpCreate  Op = "create"  // make the first two keys of a tenant
	OpAdopt   Op = "import"  // the same, where the first key is one that exists
	OpMint    Op = "mint"    // make the next key
	OpPromote Op = "promote" // make a pending key sign now
	OpRotate  Op = "rotate"  // promote, and mint the next key
	OpRevoke  Op = "revoke"  // end a key now
	OpMerge   Op = "merge"   // write back what the store lost
	OpCollect Op = "collect" // remove keys that were dropped long ago
	OpRekey   Op = "rekey"   // seal a ring under another KEK
	OpAccept  Op = "accept"  // let a key verify until a date, or until a later one
	OpDestroy Op = "shred"   // end the life of a ring, and remove its keys
)

// A Bound is a condition under which the store applies a change: when the change arrives, At must
// lie between now + From and now + To by the store's clock, both included. A negative From or To is
// in the past.
type Bound struct {
	At       time.Time
	From, To time.Duration
}
