package synced

import (
	"cmp"
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

	// The others are calm until the clock changes one. So that not all of them have to be looked at then,
	// soon has those that it changes first, in that order. Of a million rings some change in each second.
	calm  int    // how many there are
	soon  []turn // of them
	first *Ring  // that of the others of them whose tenant comes first, or nil

	until         int64         // the clock changes none that is not in soon before, in the form of [keystore.UnixNano]
	signFor, skew time.Duration // the least of them
	mostSignFor   time.Duration
	cutOff        time.Duration // for how long after a complete sync each answers every token
}

// A turn says when the clock changes a calm ring: Ring.calmUntil, which only the loop may read.
type turn struct {
	at int64
	r  *Ring
}

// mostSoon returns how many of n calm rings are in Outlook.soon.
func mostSoon(n int) int { return max(64, n/16) }

// sum sums up the rings of b, if one has changed. Only the loop calls it.
func (b *Bucket) sum() *sums {
	s := &b.sums
	if !s.stale {
		return s
	}
	*s = sums{mostSkew: -1, leastSkew: protocol.AnySkew, leastSignFor: protocol.AnySkew, freshness: s.freshness[:0]}
	o := &Outlook{until: math.MaxInt64, skew: protocol.AnySkew, signFor: protocol.AnySkew, cutOff: protocol.AnySkew}
	turns := make([]turn, 0, len(b.rings))
	for _, r := range b.rings {
		p, ok := r.policy()
		if ok {
			s.add(&p)
		}
		if ok && r.calm && r.own.Load() == nil {
			o.add(&p)
			turns = append(turns, turn{r.turnsAt(), r})
		} else {
			o.Odd = append(o.Odd, r)
		}
	}
	if s.mostSkew < 0 {
		s.mostSkew = protocol.AnySkew
	}
	o.divide(turns)
	b.Outlook.Store(o)
	return s
}

// turnsAt returns when the clock changes a calm ring. Only the loop calls it.
func (r *Ring) turnsAt() int64 {
	if r.calmUntil == 0 {
		return math.MaxInt64
	}
	return r.calmUntil
}

// divide divides the calm rings into those that change soon, and the others. It sorts turns.
func (o *Outlook) divide(turns []turn) {
	slices.SortFunc(turns, func(a, b turn) int { return cmp.Compare(a.at, b.at) })
	n := min(len(turns), mostSoon(len(turns)))
	o.soon = slices.Clone(turns[:n])
	if n < len(turns) {
		o.until = turns[n].at
	}
	for _, t := range turns[n:] {
		if o.first == nil || t.r.Tenant < o.first.Tenant {
			o.first = t.r
		}
	}
}

// turn is what sum does where the clock alone has changed rings, which [Rings.look] has looked at: it moves
// them within the outlook. What the outlook says of all calm rings together stays, also of those that are no
// longer among them: then more rings are looked at than need be, for a while.
func (b *Bucket) turn(rings []*Ring) {
	old := b.Outlook.Load()
	if b.sums.stale || len(rings) >= len(old.soon) || slices.Contains(rings, old.first) {
		b.sums.stale = true // there may be too few left in soon
		b.sum()
		return
	}
	o, changed := *old, make(map[*Ring]bool, len(rings))
	for _, r := range rings {
		changed[r] = true
	}
	o.Odd = slices.DeleteFunc(slices.Clone(o.Odd), func(r *Ring) bool { return changed[r] })
	o.soon = slices.DeleteFunc(slices.Clone(o.soon), func(t turn) bool { return changed[t.r] })
	o.calm -= len(rings) - (len(old.Odd) - len(o.Odd))
	for _, r := range rings {
		t := turn{r.turnsAt(), r}
		switch _, ok := r.policy(); {
		case !ok || !r.calm || r.own.Load() != nil:
			o.Odd = append(o.Odd, r)
			continue
		case t.at < o.until:
			i, _ := slices.BinarySearchFunc(o.soon, t, func(a, b turn) int { return cmp.Compare(a.at, b.at) })
			o.soon = slices.Insert(o.soon, i, t)
		case o.first == nil || r.Tenant < o.first.Tenant:
			o.first = r
		}
		o.calm++
	}
	b.Outlook.Store(&o)
}

// add adds the policy of a ring.
func (s *sums) add(p *ring.Policy) {
	s.mostSkew, s.leastSkew, s.leastSignFor = max(s.mostSkew, p.ClockSkew), min(s.leastSkew, p.ClockSkew), min(s.leastSignFor, p.SignFor)
	if !slices.Contains(s.freshness, p.Freshness) {
		s.freshness = append(s.freshness, p.Freshness)
	}
}

// add adds a calm ring with that policy.
func (o *Outlook) add(p *ring.Policy) {
	o.calm++
	o.signFor, o.mostSignFor, o.skew = min(o.signFor, p.SignFor), max(o.mostSignFor, p.SignFor), min(o.skew, p.ClockSkew)
	o.cutOff = min(o.cutOff, p.SignFor+min(p.MaxTokenTTL, mostCutOff)+p.Leeway)
}

// alike reports whether all rings of b that are still calm at now stand alike: they are all ready or none,
// and the same goes for signing and verifying. o is its outlook.
func (b *Bucket) alike(o *Outlook, now time.Time) bool {
	status := b.Status.Load()
	switch {
	case o.calm == 0:
		return true
	case b.gone.Load() > 0, keystore.UnixNano(now) >= o.until, !status.Agreed.IsZero() && !protocol.Steady(now, status.Agreed, o.skew):
		return false
	case status.Good.IsZero():
		return status.Knew.IsZero() // or the snapshot says how long each verifies
	}
	known := now.Before(status.Complete.Add(o.cutOff)) && now.Round(0).Before(status.Complete.Round(0).Add(o.cutOff))
	age := protocol.Age(now, status.Good)
	return (age <= o.signFor || age > o.mostSignFor) && known
}

// still returns that of the rings that are calm at now whose tenant comes first, or nil, and how many they
// are. It appends the others, which the clock has changed, to rings.
func (o *Outlook) still(now time.Time, rings []*Ring) (first *Ring, n int, changed []*Ring) {
	first, n = o.first, o.calm
	for _, t := range o.soon {
		switch {
		case t.at <= keystore.UnixNano(now):
			n, rings = n-1, append(rings, t.r)
		case first == nil || t.r.Tenant < first.Tenant:
			first = t.r
		}
	}
	return first, n, rings
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
		o := b.Outlook.Load()
		if unlike[b] = !b.alike(o, now); unlike[b] {
			continue
		}
		first, n, changed := o.still(now, append(rings, o.Odd...))
		if rings = changed; first != nil {
			rings, alike[first] = append(rings, first), n-1
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
