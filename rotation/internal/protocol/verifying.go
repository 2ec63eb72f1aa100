package protocol

import (
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// CanVerify reports whether an instance answers every token of a ring rightly at now, so that
// requests may be routed to it: tokens of known keys are verified, and none that is alive can be of
// a key that it does not know. s says how far it has read, inSync that its last good sync is at most
// Freshness old, and clocks that its clock can be trusted. c may be nil.
//
// An instance that has never been in sync may lack a key or a revocation while it recovers. One that
// was, and lost the store, knows as much when it recovers as it did before: the way back into sync
// must not take a fleet out of service that the outage did not.
func (c *Copy) CanVerify(s SyncState, now time.Time, inSync, clocks bool) bool {
	switch {
	case c == nil || !clocks || s.Knew.IsZero():
		return false
	case c.Plan.Dead:
		return true // its tokens are refused, and nothing undoes that
	case len(c.Plan.InOrder)+len(c.Accepts) == 0:
		return false
	case inSync:
		return true
	}
	// The monotonic clock stands still while a machine sleeps, and the wall clock may be set back.
	end := c.VerifiesUntil(s.Complete)
	return now.Before(end) && now.Round(0).Before(end.Round(0))
}

// VerifiesUntil returns until when an instance that no longer reads the store answers every token of
// the ring rightly. complete is when it sent the last complete read.
//
// It ends when a known key stops verifying although tokens of it may live: see [Copy.KeyEnd] and
// [Copy.AcceptEnd]. And it ends when the period of the last known key does. The key after it, which the
// others have published meanwhile, is unknown here. An instance in sync may be ahead by ClockSkew,
// and this one behind by as much. A key that a failover may have lost does not count: the others may
// have minted another in its place.
func (c *Copy) VerifiesUntil(complete time.Time) time.Time {
	end := complete.Add(ring.MaxDuration)
	if last := c.lastConfirmed(complete); last != nil {
		if !last.Hold && !last.Waiting() { // those sign until an operator rotates
			end = endOfPeriod(last).Add(-2 * last.Timing.ClockSkew)
		}
	}
	for _, a := range c.Accepts {
		accepted := c.Facts.Accepted(a.AcceptRecord)
		if at := c.AcceptEnd(a.AcceptRecord, complete); accepted.RevokedAt.IsZero() && at.Before(accepted.Until) && at.Before(end) {
			end = at
		}
	}
	for i := range c.Plan.InOrder {
		k := &c.Plan.InOrder[i]
		at := c.KeyEnd(k.Record, complete)
		dropped := !k.DroppedAt.IsZero() && !at.Before(k.DroppedAt) // its last token has ended by then
		if k.RevokedAt.IsZero() && !dropped && at.Before(end) {
			end = at
		}
	}
	return end
}

// lastConfirmed returns the last key in order that no failover can lose any more, as of a complete read,
// or the ring's first key. It is nil if there is no key.
func (c *Copy) lastConfirmed(complete time.Time) *ring.PlannedKey {
	for i := len(c.Plan.InOrder) - 1; i >= 0; i-- {
		if k := &c.Plan.InOrder[i]; i == 0 || k.First || complete.After(k.Created.Add(k.Timing.Dwell)) {
			return k
		}
	}
	return nil
}

// A ClockView is what an instance sees of the clocks when the store's differs from its own.
type ClockView struct {
	Now    time.Time     // by this instance
	Store  time.Time     // by the store, at that moment
	Agreed time.Time     // when they agreed last, by this instance; zero for never
	Skew   time.Duration // ClockSkew: what they may differ by
	Gap    time.Duration // the longest time between two polls: so old may an acknowledgement be
	Jumped bool          // what [ClockView.StoreJumped] said last, and false since the clocks agreed
}

// Steady reports whether the two clocks of a process have both run on since agreed: none of them was
// set. A virtual machine that was paused reads both as they were, so it looks steady too.
func Steady(now, agreed time.Time, skew time.Duration) bool {
	wall, mono := now.Round(0).Sub(agreed.Round(0)), now.Sub(agreed)
	return (wall - mono).Abs() <= skew
}

// StoreJumped reports whether it is the store's clock that was set, and not this instance's. Then its
// tokens are judged by the right time, although nothing is decided until the clocks agree.
//
// That its own clocks are steady proves nothing, since a machine may have been paused. So another
// instance has to stand by it: one that has dated its acknowledgement by a clock that can be this
// one's, and cannot be the store's. If another one stands by the store, or is ahead, this instance is
// wrong. An instance alone cannot tell.
func (v *ClockView) StoreJumped(self string, acks []AckView) bool {
	if v.Agreed.IsZero() || !Steady(v.Now, v.Agreed, v.Skew) {
		return false
	}
	could := func(a *AckView, clock time.Time) bool { // a was dated by that clock
		return !a.At.Before(clock.Add(-v.Gap-2*v.Skew)) && !a.At.After(clock.Add(2*v.Skew))
	}
	by := v.Jumped
	for i := range acks {
		a := &acks[i]
		switch mine, theirs := could(a, v.Now), could(a, v.Store); {
		case a.Unreadable || a.Instance == self:
		case theirs && !mine, a.At.After(v.Now.Add(2 * v.Skew)):
			return false
		case mine && !theirs:
			by = true
		}
	}
	return by
}
