package ring

import "time"

// A State is where a key of a ring stands. docs/rotation.md maps the states to
// those of NIST SP 800-57.
type State string

// The states, in the order of a key's life.
const (
	Pending State = "pending" // published, and verifies, but does not sign yet
	Signing State = "signing"
	Retired State = "retired" // no longer signs, and verifies what it signed
	Dropped State = "dropped" // verifies nothing: its last token has ended
	Revoked State = "revoked"
)

// A Ring is what the records and facts of a tenant say at one moment.
type Ring struct {
	// Keys are all keys by when they take effect, and then those that were
	// revoked before they did.
	Keys []Key

	// Signer is the index in Keys of the key that signs, or -1 if none does.
	Signer int
}

// A Key is one key of a Ring. Times are zero where they are not known yet.
type Key struct {
	Record
	State State // at the moment that was asked for

	ActivatesAt time.Time // when it takes effect, or would have
	RetiresAt   time.Time // when the next takes effect
	DroppedAt   time.Time // until when it verifies; zero while there is no next
	RevokedAt   time.Time // when it was revoked
}

// Verifies reports whether tokens of the key are good.
func (k Key) Verifies() bool { return k.State != Dropped && k.State != Revoked }

// View says who signs, who verifies and who is dropped. It is a pure function of the records of one
// ring, the facts about them, and the time: every instance with the same records and facts comes to
// the same result. It changes nothing that it is given.
//
// A record takes effect when it is scheduled to, or when it was promoted. Its schedule is its
// ActivateAt. If it was lost and restored, it waits until it has become known again. A record that
// was revoked before it took effect leaves the order. The last record that has taken effect signs,
// unless it was revoked, and no other does. View never falls back to an earlier record, since other
// instances may have counted on its retirement.
//
// A key signs until the next one takes effect. If there is none, SignUntil ends it, later by as much
// as the key itself took effect later than scheduled.
//
// A key verifies until the last token has ended that any instance may have signed with it. A cut-off
// instance signs for SignFor after its last good sync, so it may miss a promotion or a restored key
// for that long.
//
// Records created at or before [Facts.CollectedUntil] are not part of the ring. They ended long ago,
// and the facts that gave them their place in the order were removed with them.
func View(records []Record, facts Facts, now time.Time) Ring {
	of := make([]*Record, 0, len(records))
	for i := range records {
		if !facts.Collected(&records[i]) {
			of = append(of, &records[i])
		}
	}
	return NewPlan(of, facts).At(now)
}
