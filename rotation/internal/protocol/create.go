package protocol

import (
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// Bootstrap is Create for a rotator that was told to make missing rings. Where a person has accepted or
// revoked a key, a person also makes the ring.
func (b *Base) Bootstrap(policy ring.Policy) (*Proposal, error) {
	for id := range b.Copy.Facts.All {
		if id.Kind == ring.FactRevoked {
			return nil, b.refuse("", "it has revoked keys", time.Time{})
		}
	}
	if len(b.Copy.Accepts) > 0 {
		return nil, b.refuse("", "it has accepted keys", time.Time{})
	}
	return b.Create(policy, false)
}

// Create decides about the first ring of a tenant: one key that signs now, and one that is pending.
//
// No ring is made where one existed, or the two would reject each other's tokens (I10, timeline K).
// The first key signs before it is known everywhere, since no other key could sign meanwhile (the
// exception in I1 and I2).
//
// A name whose ring was destroyed stays taken. Only again gives it another ring, whose records are of
// the next life.
func (b *Base) Create(policy ring.Policy, again bool) (*Proposal, error) {
	if err := b.MayCreate(again); err != nil {
		return nil, err
	}
	p := &Proposal{Op: ring.OpCreate}
	next := later(b.Now.Add(policy.Every), b.soonest(policy.Propagation, &policy))
	for i, activate := range []time.Time{b.Now, next} {
		if err := b.mint(p, policy, i+1, activate, false); err != nil {
			return nil, err
		}
	}
	p.KID, p.Seq = p.Mint[0].KID, 1
	window := policy.Window(b.Deadline)
	p.Bounds = append(p.Bounds, ring.Bound{At: b.Now, From: -window, To: window})
	return p, nil
}

// MayCreate reports why no ring may be made of the tenant's name, or nil. again says that it is to be
// made although one was destroyed. Records of the ring have Copy.Facts.Dead as their Life.
func (b *Base) MayCreate(again bool) error {
	switch {
	case b.Copy.Plan.Dead && !again:
		return b.refuse("", wasDestroyed+": another one is made only with --again", time.Time{})
	case b.Copy.Plan.Dead && !b.Copy.bare():
		// They may be of a ring that was made since, and that the store has lost in part.
		return b.refuse("", wasDestroyed+", and the store has parts of a ring again: shred it again to remove them", time.Time{})
	case !b.Copy.Plan.Dead && !b.Copy.vacant():
		return b.refuse("", "it has a ring already", time.Time{})
	}
	return nil
}
