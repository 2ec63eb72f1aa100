package ring

import "time"

// A State says what a key of a ring does at one moment. docs/rotation.md maps the states to those
// of NIST SP 800-57.
type State string

// The states, in the order of a key's life.
const (
	Pending State = "pending" // published; it verifies, and does not sign yet
	Signing State = "signing" // it signs and verifies
	Retired State = "retired" // it no longer signs, and verifies what it signed
	Dropped State = "dropped" // it does nothing: its last token has expired
	Revoked State = "revoked" // it does nothing: an operator ended it
)

// A Ring is the state of a tenant's keys at one moment.
type Ring struct {
	// Keys are all keys in the order in which they take effect. Keys that were revoked before they
	// took effect follow after the others.
	Keys []Key

	// Signer is the index in Keys of the key that signs, or -1 if no key signs.
	Signer int
}

// A Key is one key of a [Ring]. A time that is not known yet is zero.
type Key struct {
	Record
	State State // at the moment for which View was asked

	ActivatesAt time.Time // when it takes effect, or would have if it had not been revoked; zero while it waits
	RetiresAt   time.Time // when the next key takes effect
	DroppedAt   time.Time // when it stops verifying; zero until there is a next key
	RevokedAt   time.Time // when it was revoked, or zero
}

// Verifies reports whether tokens of the key are accepted: it is pending, signing or retired.
func (k Key) Verifies() bool { return k.State != Dropped && k.State != Revoked }

// View returns the state of a ring at now. It is a pure function of the records of one ring, the
// facts about them and the time: all instances with the same records and facts come to the same
// result, in whatever order they have the records. It changes none of its arguments.
//
// Order. A record takes effect at its ActivateAt, or when it was promoted if that is earlier. A
// record that was lost and restored waits for Propagation again. A record that Waits takes effect
// when it is promoted, and until then comes last. A record that was revoked before it took effect
// leaves the order.
//
// Signing. The last record that has taken effect signs, until the next one takes effect. It does
// not sign if it was revoked, or if there is no next one and its SignUntil has passed. (SignUntil
// moves by as much as the record took effect later than its ActivateAt. A record with Hold has no
// such end.) Then no key signs. View
// never goes back to an earlier record, since other instances may already have dropped it.
//
// Verifying. A pending key verifies. So does a key that signed, until the last token has expired
// that any instance may have signed with it. An instance that is cut off signs for SignFor after
// its last sync. If it missed a promotion or a restored key, it signs with the predecessor
// meanwhile, so the predecessor verifies for that much longer.
//
// Records created at or before [Facts.CollectedUntil] are ignored. They were dropped long ago, and
// the facts that gave them their place in the order were removed with them.
func View(records []Record, facts Facts, now time.Time) Ring {
	kept := make([]*Record, 0, len(records))
	for i := range records {
		if !facts.Collected(&records[i]) {
			kept = append(kept, &records[i])
		}
	}
	return NewPlan(kept, facts).At(now)
}
