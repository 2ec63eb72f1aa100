package synced

import (
	"slices"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/internal/held"
	"github.com/keyturn/keyturn/rotation/internal/protocol"
)

// This file has what polls and status have to know of all rings of a bucket together. It is summed up again
// when a ring has changed, or was looked at.

// sums are of all rings of a bucket. stale says that a ring has changed since, was looked at, or got or lost
// a status of its own.
type sums struct {
	stale               bool
	mostSkew, leastSkew time.Duration   // ClockSkew; AnySkew if no ring has a policy
	leastSignFor        time.Duration   // 0 if no ring has one
	freshness           []time.Duration // each Freshness of a ring once
}

// An Outlook says how the rings of a bucket stand, without a look at each. It is immutable.
type Outlook struct {
	Known int // rings of which something is known, without those of Odd

	// Odd are the rings that have to be looked at one by one: those that are not as far in sync as the
	// bucket, and those of which the clock may have changed something.
	Odd []*Ring

	CalmUntil     int64         // the others sign until then if the last good sync is young, in the form of [keystore.UnixNano]
	SignFor, Skew time.Duration // the least of the others; SignFor is 0 if there are none
}

// sum sums up the rings of b, if one has changed. Only the loop calls it.
func (b *Bucket) sum() *sums {
	s := &b.sums
	if !s.stale {
		return s
	}
	*s = sums{mostSkew: -1, leastSkew: protocol.AnySkew, freshness: s.freshness[:0]}
	o := &Outlook{CalmUntil: 1<<63 - 1, Skew: protocol.AnySkew}
	for _, r := range b.rings {
		p, ok := r.Policy()
		if ok {
			s.mostSkew, s.leastSkew = max(s.mostSkew, p.ClockSkew), min(s.leastSkew, p.ClockSkew)
			if s.leastSignFor == 0 || p.SignFor < s.leastSignFor {
				s.leastSignFor = p.SignFor
			}
			if !slices.Contains(s.freshness, p.Freshness) {
				s.freshness = append(s.freshness, p.Freshness)
			}
		}
		if !ok || !r.calm || r.own.Load() != nil {
			o.Odd = append(o.Odd, r)
			continue
		}
		o.Known++
		if r.calmUntil != 0 {
			o.CalmUntil = min(o.CalmUntil, r.calmUntil)
		}
		if o.SignFor == 0 || p.SignFor < o.SignFor {
			o.SignFor = p.SignFor
		}
		o.Skew = min(o.Skew, p.ClockSkew)
	}
	if s.mostSkew < 0 {
		s.mostSkew = protocol.AnySkew
	}
	b.Outlook.Store(o)
	return s
}

// look notes what the clock alone will change of r, of which c is known at now.
func (k *Rings) look(r *Ring, c *held.Ring, now time.Time) {
	deadline := k.Times.Load().Deadline
	next := c.Plain().NextChange(now, deadline)
	r.calm, r.calmUntil = false, 0
	if c.Newest() != nil && len(c.Plan.InOrder) > 0 {
		_, err := c.Signing(now, now, deadline)
		r.calm = err == nil && (next.IsZero() || next.After(now))
		r.calmUntil = unixNano(next)
	}
	b := protocol.Base{Tenant: r.Tenant, Now: now, Deadline: deadline, Copy: c.Plain()}
	work := next
	if b.IsWorkDue() {
		work = now
	}
	r.workFrom.Store(unixNano(work))
	if !k.cfg.OneShot {
		k.watching.put(r, next)
	}
	if a := k.working.Load(); a != nil {
		a.put(r, work)
	}
}

// unixNano is [keystore.UnixNano] of a time, and 0 of none.
func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return keystore.UnixNano(t)
}

// Work returns the rings of which a rotator may have something to do at now, by this instance's clock. Each
// is returned once: the caller calls Again for it. Rings of which nothing is known are left out.
func (k *Rings) Work(now time.Time) []*Ring {
	a := k.working.Load()
	if a == nil {
		k.working.CompareAndSwap(nil, &Agenda{purpose: toRotate})
		a = k.working.Load()
		a.fill(k.All())
	}
	return a.due(now)
}

// Again makes r due for a rotator when the clock may change what it does after now, or at once.
func (k *Rings) Again(r *Ring, now time.Time, atOnce bool) {
	if !atOnce {
		now = r.Copy().Plain().NextChange(now, k.Times.Load().Deadline)
	}
	k.working.Load().put(r, now)
}

// Unknown returns the rings of which nothing is known.
func (k *Rings) Unknown() (rings []*Ring) {
	for _, b := range k.Buckets() {
		for _, r := range b.Outlook.Load().Odd {
			if !r.Known() && !r.removed.Load() {
				rings = append(rings, r)
			}
		}
	}
	return rings
}
