package synced

import (
	"maps"
	"math"
	"slices"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/internal/held"
	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/ring"
)

// This file has what polls and status have to know of all rings of a bucket together. It is summed up again
// when a ring has changed, or was looked at.

// mostCutOff is that of package protocol, which bounds how long an instance answers tokens without the store.
const mostCutOff = 24 * time.Hour

// sums are of all rings of a bucket. stale says that a ring has changed since, was looked at, or got or lost
// a status of its own.
type sums struct {
	stale               bool
	mostSkew, leastSkew time.Duration   // ClockSkew; AnySkew if no ring has a policy
	leastSignFor        time.Duration   // AnySkew if no ring has one
	freshness           []time.Duration // each Freshness of a ring once
}

// An Outlook says how the rings of a bucket stand, without a look at each. It is immutable.
type Outlook struct {
	// Odd are the rings that have to be looked at one by one: those that are not as far in sync as the
	// bucket, and those in which something is recent.
	Odd []*Ring

	Calm  int   // how many others there are
	First *Ring // that of them whose tenant comes first, or nil

	until         int64         // the clock changes none of them before, in the form of [keystore.UnixNano]
	signFor, skew time.Duration // the least of them
	cutOff        time.Duration // for how long after a complete sync each answers every token
}

// sum sums up the rings of b, if one has changed. Only the loop calls it.
func (b *Bucket) sum() *sums {
	s := &b.sums
	if !s.stale {
		return s
	}
	*s = sums{mostSkew: -1, leastSkew: protocol.AnySkew, leastSignFor: protocol.AnySkew, freshness: s.freshness[:0]}
	o := &Outlook{until: math.MaxInt64, skew: protocol.AnySkew, signFor: protocol.AnySkew, cutOff: protocol.AnySkew}
	for _, r := range b.rings {
		p, ok := r.Policy()
		if ok {
			s.add(&p)
		}
		if ok && r.calm && r.own.Load() == nil {
			o.add(r, &p)
		} else {
			o.Odd = append(o.Odd, r)
		}
	}
	if s.mostSkew < 0 {
		s.mostSkew = protocol.AnySkew
	}
	b.Outlook.Store(o)
	return s
}

// add adds the policy of a ring.
func (s *sums) add(p *ring.Policy) {
	s.mostSkew, s.leastSkew, s.leastSignFor = max(s.mostSkew, p.ClockSkew), min(s.leastSkew, p.ClockSkew), min(s.leastSignFor, p.SignFor)
	if !slices.Contains(s.freshness, p.Freshness) {
		s.freshness = append(s.freshness, p.Freshness)
	}
}

// add adds a calm ring with that policy.
func (o *Outlook) add(r *Ring, p *ring.Policy) {
	if o.Calm++; o.First == nil || r.Tenant < o.First.Tenant {
		o.First = r
	}
	if r.calmUntil != 0 {
		o.until = min(o.until, r.calmUntil)
	}
	o.signFor, o.skew = min(o.signFor, p.SignFor), min(o.skew, p.ClockSkew)
	o.cutOff = min(o.cutOff, p.SignFor+min(p.MaxTokenTTL, mostCutOff)+p.Leeway)
}

// Calm returns the outlook of b, and whether all its calm rings stand as the First does at now: they are all
// ready or none, and the same goes for signing and verifying.
func (b *Bucket) Calm(now time.Time) (o *Outlook, calm bool) {
	o, status := b.Outlook.Load(), b.Status.Load()
	switch {
	case o.Calm == 0:
		return o, true
	case b.gone.Load() > 0, keystore.UnixNano(now) >= o.until, !status.Agreed.IsZero() && !protocol.Steady(now, status.Agreed, o.skew):
		return o, false
	case status.Good.IsZero():
		return o, status.Knew.IsZero() // or the snapshot says how long each verifies
	}
	known := now.Before(status.Complete.Add(o.cutOff)) && now.Round(0).Before(status.Complete.Round(0).Add(o.cutOff))
	return o, protocol.Age(now, status.Good) <= o.signFor && known
}

// look notes what the clock alone will change of r, of which c is known at now.
func (k *Rings) look(r *Ring, c *held.Ring, now time.Time) {
	deadline := k.Times.Load().Deadline
	next := c.Plain().NextChange(now, deadline)
	r.calm, r.calmUntil = false, 0
	if c.Newest() != nil {
		r.calm = c.Settled(now, deadline) && (next.IsZero() || next.After(now))
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

// Standing returns the rings whose state at now has to be looked at. Others stand as one of those does: alike
// says how many, by the one that stands for them.
func (k *Rings) Standing(now time.Time) (rings []*Ring, alike map[*Ring]int) {
	alike = make(map[*Ring]int)
	unlike := make(map[*Bucket]bool) // whose rings are all looked at
	for _, b := range k.Buckets() {
		o, calm := b.Calm(now)
		if unlike[b] = !calm; !calm {
			continue
		}
		rings = append(rings, o.Odd...)
		if o.First != nil {
			rings, alike[o.First] = append(rings, o.First), o.Calm-1
		}
	}
	rings = slices.DeleteFunc(rings, func(r *Ring) bool { return r.removed.Load() })
	if slices.Contains(slices.Collect(maps.Values(unlike)), true) {
		for _, r := range k.All() {
			if unlike[r.bucket] {
				rings = append(rings, r)
			}
		}
	}
	return rings, alike
}
