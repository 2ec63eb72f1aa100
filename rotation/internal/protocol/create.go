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
	return b.Create(policy)
}

// Create decides about the first ring of a tenant: one key that signs now, and one that is pending.
//
// No ring is made where one existed, or the two would reject each other's tokens (I10, timeline K).
// The first key signs before it is known everywhere, since no other key could sign meanwhile (the
// exception in I1 and I2).
func (b *Base) Create(policy ring.Policy) (*Proposal, error) {
	if !b.Copy.vacant() {
		return nil, b.refuse("", "it has a ring already", time.Time{})
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
