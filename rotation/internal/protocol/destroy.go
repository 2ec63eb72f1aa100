package protocol

import (
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// This file has the shred of a ring: the end of one of its lives. A ring has a life until it is
// destroyed, and another one if it is made again afterwards. Its records say in which life they were
// minted, and the fact that it was destroyed says how many lives have ended. So a record of a life
// that has ended is ignored for ever, whoever puts it back, and whatever its date: the losing side of a
// split, which has not heard of the shred, mints records after it.

// Destroy decides about the shred of a ring, whether or not all of it can be opened. The change states
// that one more life has ended, and removes all else but revocations, whose keys must stay revoked
// (I8). It returns nil if that has been done.
//
// A shred of a ring that was destroyed removes what has come back since, from a dump or a backup.
func (b *Base) Destroy() (*Proposal, error) {
	c := b.Copy
	if c.Plan.Dead {
		if c.bare() {
			return nil, nil
		}
		return &Proposal{Op: ring.OpDestroy, Sweep: true}, nil
	}
	if c.noData() && len(c.Records) == 0 && len(c.Revived)+len(c.RevivedAccepts) == 0 && len(b.SealedUnder) == 0 {
		return nil, &ring.MissingError{Tenant: b.Tenant}
	}
	timing := ring.Policy{}.WithDefaults()
	if n := c.Newest(); n != nil {
		timing = n.Timing
	}
	id := ring.FactID{Kind: ring.FactDestroyed}
	return &Proposal{Op: ring.OpDestroy, Sweep: true,
		Facts: []ProposedFact{{FactID: id, At: b.eventTime(), From: -timing.Window(b.Deadline), Life: c.Facts.Dead + 1}}}, nil
}

// bare reports whether the store has nothing of the ring but facts about the whole ring and
// revocations. c has no records.
func (c *Copy) bare() bool {
	return len(c.Revived)+len(c.Accepts)+len(c.RevivedAccepts)+len(c.TenantKeys) == 0 && endsOf(c.Facts).Equal(c.Facts)
}

// WorstCaseOfAll returns until when an instance that is cut off accepts tokens of a ring that is
// destroyed at now, and until when readers of the JWK Set do: see [WorstCase].
func (c *Copy) WorstCaseOfAll(now time.Time) (instances, readers time.Time) {
	for i := range c.Plan.InOrder {
		k := &c.Plan.InOrder[i]
		if !k.RevokedAt.IsZero() || k.Dropped(now) {
			continue
		}
		own, read := WorstCase(k.Record, now)
		instances, readers = later(instances, own), later(readers, read)
	}
	for _, a := range c.Accepts {
		if c.Facts.Accepted(a.AcceptRecord).Verifies(now) {
			own, _ := c.WorstCaseOf(a.KID, now)
			instances = later(instances, own)
		}
	}
	return instances, readers
}

// ends returns the part of c that a holder may restore however long it was out of touch: what ends
// trust. c may be nil.
func (c *Copy) ends() *Copy {
	if c == nil {
		return nil
	}
	return NewCopy(Copy{Count: c.Count, Facts: endsOf(c.Facts)})
}

// outOfTouch reports whether this instance was out of touch with the store for longer than [Away]. Then
// it restores no records. Every token that it could have signed or known has ended. Its ring may have been
// destroyed meanwhile, and the store emptied or replaced since, so that nothing is left which says so.
// A wrong clock is no reason: it makes an instance drop nothing.
func (m *merge) outOfTouch() bool {
	return m.Held != nil && !m.ClockOff && !m.Complete.IsZero() && Age(m.LocalNow, m.Complete) > m.Held.awayAfter()
}
