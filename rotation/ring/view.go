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

	// Lives is how often the tenant's ring was destroyed.
	Lives int

	// Dead reports that the ring was destroyed, and that no other was made since. It has no keys.
	Dead   bool
	DeadAt time.Time // when it was destroyed last, if that is known
}

// DrainedAt returns when the last token has ended that was signed by now, if none is signed from now
// on: after the key that signs has stopped at every instance that may be cut off. So long after the
// tenant's programs have stopped, a shred rejects no live token.
func (r *Ring) DrainedAt(now time.Time) time.Time {
	last := now
	for i := range r.Keys {
		k := &r.Keys[i]
		ends := now.Add(k.TokenTTL() + k.Timing.Leeway + k.Timing.ClockSkew)
		if !k.DroppedAt.IsZero() && k.DroppedAt.Before(ends) {
			ends = k.DroppedAt // its last token has ended by then
		}
		if k.Verifies() {
			last = later(last, ends)
		}
	}
	return last
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
// the facts that gave them their place in the order were removed with them. So are records of a life
// of the ring that has ended: see [Facts.Dead].
func View(records []Record, facts Facts, now time.Time) Ring {
	kept := make([]*Record, 0, len(records))
	for i := range records {
		facts.Kill(records[i].Life, time.Time{}) // its life began when the one before it ended
	}
	for i := range records {
		if !facts.Ignored(&records[i]) {
			kept = append(kept, &records[i])
		}
	}
	return NewPlan(kept, facts).At(now)
}
