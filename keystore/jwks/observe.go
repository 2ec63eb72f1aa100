package jwks

import "time"

// An Outcome says how a fetch ended.
type Outcome string

// The outcomes of a fetch.
const (
	Changed   Outcome = "changed"   // with another set than before
	Unchanged Outcome = "unchanged" // with the set that was held
	Failed    Outcome = "failed"    // without a set that serves
)

// An Event is a fetch that has ended, or a change of the state of a [Source]. Sources that share a
// fetch have one Event together.
type Event struct {
	Tenant string // of the source that was opened first
	URL    string // of the set, or the issuer; without its query
	Time   time.Time

	State  State // now
	Was    State // before: of a fetch, when it ended
	Asleep bool  // as in [Status]

	// Outcome is how the fetch ended, or "": then only the state has changed. The other fields are
	// of a fetch alone.
	Outcome  Outcome
	Step     Step          // at which it failed, or ""
	Err      error         // an [*Error], or nil
	OnDemand bool          // a token caused it
	Duration time.Duration // without its wait in the queue
	Added    []KeyInfo     // keys that the set before did not have
	Removed  []KeyInfo     // keys that only the set before had
	Exposed  []Skipped     // private keys and secrets that the new set publishes
}
