package protocol

import (
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// NextChange returns the first moment after now at which the clock alone may change what a ring does: which
// key signs, which are dropped, or what a rotator has to do. It is now while a key or a revocation is so
// young that an instance still waits for a sync that confirms it, and zero if nothing is to come. It may
// name a moment at which nothing changes. deadline is that of one call of the store. c may be nil.
func (c *Copy) NextChange(now time.Time, deadline time.Duration) time.Time {
	if c == nil {
		return time.Time{}
	}
	if c.unconfirmed(now, deadline) {
		return now
	}
	next := time.Time{}
	var room [32]time.Time // enough for most rings
	for _, at := range c.moments(room[:0], now, deadline) {
		if !at.After(now) { // some rules ask for a moment after the date, and dates have whole milliseconds
			at = at.Add(time.Millisecond)
		}
		if at.After(now) && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next
}

// moments appends to all the dates of a ring at which something may change, in no order. Some are past.
func (c *Copy) moments(all []time.Time, now time.Time, deadline time.Duration) []time.Time {
	if s := c.Plan.Signer(now); s != nil && !s.Hold {
		all = append(all, endOfPeriod(s).Add(-2*s.Timing.ClockSkew)) // see Settled
	}
	b := Base{Copy: c, Deadline: deadline}
	for _, keys := range [2][]ring.PlannedKey{c.Plan.InOrder, c.Plan.NeverActive} {
		for i := range keys {
			k := &keys[i]
			t := &k.Timing
			// The next key may be minted, no sync can be without it, and it may take over.
			all = append(all, k.ActivatesAt, k.SignsUntil, k.RetiresAt, k.DroppedAt, k.Created.Add(t.HeardWithin()), k.Created.Add(t.Dwell+t.SignFor), b.usableFrom(k))
			if !k.DroppedAt.IsZero() {
				all = append(all, k.DroppedAt.Add(t.HeardWithin())) // it may be collected
			}
		}
	}
	p := c.timing()
	over := p.Leeway + p.HeardWithin() + p.ClockSkew
	for id, until := range c.Facts.All {
		if id.Kind == ring.FactAccepted {
			all = append(all, until, until.Add(over))
		}
	}
	for _, a := range c.Accepts {
		until := c.Facts.Accepted(a.AcceptRecord).Until
		all = append(all, until, until.Add(over))
	}
	return all
}

// unconfirmed reports whether an instance in sync may still wait for a sync that confirms a key that has
// taken effect, or the revocation of one that would have: see [Copy.Signing].
func (c *Copy) unconfirmed(now time.Time, deadline time.Duration) bool {
	young := func(from time.Time, t *ring.Policy) bool { return now.Before(from.Add(t.Freshness + t.ClockSkew)) }
	for i := range c.Plan.InOrder[:c.Plan.Current(now)+1] {
		if k := &c.Plan.InOrder[i]; !k.First && young(k.Created.Add(k.Timing.Dwell), &k.Timing) {
			return true
		}
	}
	for i := range c.Plan.NeverActive {
		q := &c.Plan.NeverActive[i]
		if !q.ActivatesAt.After(later(now, c.Plan.Past)) && young(q.RevokedAt.Add(q.Timing.Dwell+q.Timing.Window(deadline)), &q.Timing) {
			return true
		}
	}
	return false
}

// Settled reports whether nothing of a ring that signs now is recent, so that it stands as its last sync does:
// at now, as long as no NextChange comes, an instance may sign for SignFor after any good sync, and answers
// every token for SignFor, the longest life of a token and Leeway after any complete one.
func (c *Copy) Settled(now time.Time, deadline time.Duration) bool {
	signer := c.Plan.Signer(now)
	if signer == nil || len(c.Accepts) > 0 {
		return false
	}
	if !signer.Hold && !now.Before(endOfPeriod(signer).Add(-2*signer.Timing.ClockSkew)) {
		return false // a key that this instance does not know may sign
	}
	current := c.Plan.Current(now)
	for n, keys := range [2][]ring.PlannedKey{c.Plan.InOrder, c.Plan.NeverActive} {
		for i := range keys {
			k := &keys[i]
			recent, asked := now.Add(-k.Timing.Dwell-k.Timing.SignFor), n == 0 && i <= current && !k.First
			if asked && k.Created.After(recent) || !k.RevokedAt.IsZero() && k.RevokedAt.After(recent.Add(-k.Timing.Window(deadline))) ||
				cutOff(k.Record) < cutOff(c.Newest()) {
				return false
			}
		}
	}
	return true
}

// cutOff returns how long after its last complete read an instance answers tokens of r: see [Copy.KeyEnd].
func cutOff(r *ring.Record) time.Duration { return r.Timing.SignFor + cutOffLife(r) + r.Timing.Leeway }

// IsWorkDue reports whether a rotator has something to do: to promote, revoke, mint or collect.
func (b *Base) IsWorkDue() bool {
	switch {
	case b.Copy == nil:
		return false
	case b.Copy.Newest() == nil: // there are only accepted keys, or something of a life that has ended
		return (b.Copy.Plan.Dead || len(b.Copy.Accepts) > 0) && b.Collect() != nil
	}
	return b.IsTakeOverDue() || b.RevokeStray() != nil || b.IsMintDue() || b.Collect() != nil
}
