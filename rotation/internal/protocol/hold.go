package protocol

import (
	"slices"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// This file has the rules of a ring whose signing key has Hold: an operator decides when it stops.
// The key after it waits. It has no date, so that no policy, loss or merge can make it sign by the
// clock.

// Held reports whether the key that signs at now has Hold. c may be nil.
func (c *Copy) Held(now time.Time) bool {
	if c == nil {
		return false
	}
	s := c.Plan.Signer(now)
	return s != nil && s.Hold
}

// pending returns the keys that have not taken effect: those with a date, the next one first, and
// those that wait.
func (b *Base) pending() (dated, waiting []ring.PlannedKey) {
	all := b.Copy.Plan.Pending(b.Now) // the waiting ones come last
	n := slices.IndexFunc(all, func(k ring.PlannedKey) bool { return k.Waiting() })
	if n < 0 {
		n = len(all)
	}
	return all[:n], all[n:]
}

// isFollowed reports whether a key with a date, other than k, is pending.
func (b *Base) isFollowed(k *ring.PlannedKey) bool {
	dated, _ := b.pending()
	return slices.ContainsFunc(dated, func(o ring.PlannedKey) bool { return o.KID != k.KID })
}

// holds reports whether a key that is minted behind k waits. k may be nil.
func holds(k *ring.PlannedKey) bool { return k != nil && k.Hold && k.RevokedAt.IsZero() }

// revokeWaiting adds to p that every key that waits is revoked, except the one of that kid. No token
// of them exists, so nothing is lost. Two sides of a split may each have minted one.
func (b *Base) revokeWaiting(p *Proposal, but string) {
	_, waiting := b.pending()
	for i := range waiting {
		id := ring.FactID{Kind: ring.FactRevoked, KID: waiting[i].KID}
		ended := slices.ContainsFunc(p.Facts, func(f ProposedFact) bool { return f.FactID == id })
		if id.KID != but && !ended {
			b.addEvent(p, id.Kind, id.KID, &waiting[i].Timing)
		}
	}
}

// RevokeStray decides about the keys that wait behind a key without Hold, which never take effect. A
// merge makes them: one side of a split ended the hold, and the other one minted under it. It returns
// nil if there are no such keys. Where no key signs, the waiting key may be the next to do so.
func (b *Base) RevokeStray() *Proposal {
	_, waiting := b.pending()
	if c := b.current(); b.Copy.Plan.Dead || len(waiting) == 0 || b.headless() || c.Hold {
		return nil
	}
	p := &Proposal{Op: ring.OpRevoke}
	b.revokeWaiting(p, "")
	p.KID, p.Seq = waiting[0].KID, waiting[0].Seq
	return p
}
