package ring

import (
	"cmp"
	"slices"
	"time"
)

// A Plan is the schedule of a ring: the part of [View] that does not depend on the time. So a copy
// of a ring makes one when it changes, and asks it on each request. A Plan is immutable.
type Plan struct {
	Lives  int       // that have ended: see Facts.Dead
	Dead   bool      // the ring was destroyed, and no other was made since: it has no keys
	DeadAt time.Time // when it was destroyed last, if that is known

	// Past is the latest promotion or revocation, or zero. Time never counts as earlier than that,
	// even if this clock is behind.
	Past time.Time

	InOrder     []PlannedKey // sorted by ByEffect
	NeverActive []PlannedKey // revoked before they took effect
}

// A PlannedKey is a record with its place in a plan. A time that is not known yet is zero.
type PlannedKey struct {
	*Record
	First       bool      // it is the ring's first key
	ActivatesAt time.Time // when it takes effect; if it is Waiting, later than any date
	SignsUntil  time.Time // when it stops signing, even if no other key has taken effect
	RetiresAt   time.Time // when the next key takes effect
	DroppedAt   time.Time // when its last token has expired
	RevokedAt   time.Time // when it was revoked
}

// Waiting reports whether the key has no date: it was minted behind a key with Hold, and takes effect
// once it is promoted.
func (k *PlannedKey) Waiting() bool { return k.ActivatesAt.Equal(never) }

// never is when a waiting key takes effect: after every date that a record can have.
var never = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// NewPlan returns the plan of the records of one ring. The caller leaves out the records that no
// longer count: see [Facts.Ignored].
func NewPlan(records []*Record, facts Facts) *Plan {
	if facts.Dead > 0 && len(records) == 0 {
		return &Plan{Lives: facts.Dead, Dead: true, DeadAt: facts.DeadAt}
	}
	p := &Plan{Lives: facts.Dead, DeadAt: facts.DeadAt, Past: facts.latest(FactPromoted, FactRevoked)}
	p.order(records, facts)
	for i := range p.InOrder {
		k := &p.InOrder[i]
		// A key that took effect late still signs for its whole time. One that was promoted stops
		// when it was to stop.
		k.SignsUntil = k.SignUntil.Add(max(0, k.ActivatesAt.Sub(k.ActivateAt)))
		if k.Hold {
			k.SignsUntil = never // an operator says when it stops
		}
		if i+1 < len(p.InOrder) && !p.InOrder[i+1].Waiting() {
			next := &p.InOrder[i+1]
			k.RetiresAt, k.DroppedAt = next.ActivatesAt, keptUntil(k, next, facts)
			// SignUntil is only for a key without a successor: it leaves no gap before one.
			k.SignsUntil = later(k.SignsUntil, next.ActivatesAt)
		}
	}
	// A key that was revoked before it took effect verifies nothing, but it has an end too. Until then
	// it is not collected, since a signer must know that it was revoked.
	for i := range p.NeverActive {
		k := &p.NeverActive[i]
		after := func(n PlannedKey) bool { return ByEffect(n, *k) > 0 && !n.Waiting() }
		if k.Waiting() { // it has no date, so no instance signs in its place, or has to know it for long
			k.DroppedAt = k.RevokedAt
		} else if n := slices.IndexFunc(p.InOrder, after); n >= 0 {
			k.DroppedAt = keptUntil(k, &p.InOrder[n], facts)
		}
	}
	return p
}

// order sorts the records into p.InOrder and p.NeverActive.
func (p *Plan) order(records []*Record, facts Facts) {
	p.InOrder = make([]PlannedKey, 0, len(records))
	for _, r := range records {
		k := PlannedKey{Record: r, First: isFirst(r, records), ActivatesAt: effective(r, records, facts)}
		k.RevokedAt, _ = facts.At(FactRevoked, r.KID)
		if !k.RevokedAt.IsZero() && k.RevokedAt.Before(k.ActivatesAt) {
			p.NeverActive = append(p.NeverActive, k)
		} else {
			p.InOrder = append(p.InOrder, k)
		}
	}
	slices.SortFunc(p.InOrder, ByEffect)
	slices.SortFunc(p.NeverActive, ByEffect)
}

// ByEffect compares two keys by when they take effect, then by seq and kid. So it never returns 0
// for two keys of a ring, and all instances have the same order.
func ByEffect(a, b PlannedKey) int {
	return cmp.Or(a.ActivatesAt.Compare(b.ActivatesAt), cmp.Compare(a.Seq, b.Seq), cmp.Compare(a.KID, b.KID))
}

// effective returns when r takes effect. A republication only delays, and a promotion only hastens:
// of the two the promotion wins, because instances that have read it may have signed with r. A record
// that waits takes effect only once it is promoted, whatever its date.
func effective(r *Record, all []*Record, facts Facts) time.Time {
	at := r.ActivateAt
	if r.Waits {
		at = never
	}
	if again, ok := facts.At(FactRepublished, r.KID); ok && !isFirst(r, all) {
		at = later(at, again.Add(r.Timing.Propagation))
	}
	if promoted, ok := facts.At(FactPromoted, r.KID); ok && promoted.Before(at) {
		at = promoted
	}
	return at
}

// isFirst reports whether r is the ring's first key. No key signs before it, so a republication
// does not delay it. Two rings that were merged have two records with seq 1: the older one is the
// first.
func isFirst(r *Record, all []*Record) bool {
	return r.Seq == 1 && !slices.ContainsFunc(all, func(o *Record) bool { return o.Created.Before(r.Created) })
}

// keptUntil returns until when k verifies: the last time at which an instance may sign with it, and
// then the life of a token. next is the next key in order.
//
// An instance in sync stops signing with k when next takes effect. An instance that was cut off
// before k or next was announced goes by an older view: it may sign with k for SignFor after that,
// by a clock that is ClockSkew behind. Dwell is for an instance that an old primary keeps in sync
// after another one has taken its place (timeline Lag).
func keptUntil(k, next *PlannedKey, facts Facts) time.Time {
	p := &k.Timing
	end := next.ActivatesAt
	for _, kid := range []string{k.KID, next.KID} {
		if announced, ok := facts.At(FactAnnounced, kid); ok {
			end = later(end, announced.Add(p.SignFor+p.Dwell+p.ClockSkew))
		}
	}
	return end.Add(k.TokenTTL() + p.Leeway)
}

// Current returns the index in InOrder of the last key that has taken effect by now, or -1.
func (p *Plan) Current(now time.Time) int {
	// A known promotion or revocation is in the past, even if this clock is behind. Otherwise this
	// instance would sign with a key that the others have left.
	now = later(now, p.Past)
	for i := len(p.InOrder) - 1; i >= 0; i-- {
		if !p.InOrder[i].ActivatesAt.After(now) {
			return i
		}
	}
	return -1
}

// Signer returns the key that signs at now, or nil.
func (p *Plan) Signer(now time.Time) *PlannedKey {
	if i := p.Current(now); i >= 0 && p.state(i, i, now) == Signing {
		return &p.InOrder[i]
	}
	return nil
}

// Pending returns the keys that have not taken effect by now, the next one first.
func (p *Plan) Pending(now time.Time) []PlannedKey { return p.InOrder[p.Current(now)+1:] }

// Dropped reports whether the last token of k has expired by now. For a key that was revoked before
// it took effect: whether it would have been dropped by now. Only now counts here, and not Past,
// since exp is judged by the same clock.
func (k *PlannedKey) Dropped(now time.Time) bool {
	return !k.DroppedAt.IsZero() && !now.Before(k.DroppedAt)
}

// Published reports whether readers of the JWK Set need k. That is for 2 ClockSkew longer than it
// verifies here, since a reader's clock may be behind this one.
func (k *PlannedKey) Published(now time.Time) bool {
	return k.RevokedAt.IsZero() && (k.DroppedAt.IsZero() || now.Add(-2*k.Timing.ClockSkew).Before(k.DroppedAt))
}

// state returns the state of the i-th key in order. current is p.Current(now).
func (p *Plan) state(i, current int, now time.Time) State {
	k := &p.InOrder[i]
	switch {
	case !k.RevokedAt.IsZero():
		return Revoked
	case k.Dropped(now):
		return Dropped
	case i > current:
		return Pending
	case i == current && now.Before(k.SignsUntil):
		return Signing
	}
	return Retired
}

// At returns the ring at now: see [View].
func (p *Plan) At(now time.Time) Ring {
	ring := Ring{Signer: -1, Lives: p.Lives, Dead: p.Dead, DeadAt: p.DeadAt}
	current := p.Current(now)
	for i, k := range p.InOrder {
		state := p.state(i, current, now)
		if state == Signing {
			ring.Signer = i
		}
		ring.Keys = append(ring.Keys, k.inState(state))
	}
	for _, k := range p.NeverActive {
		k.DroppedAt = time.Time{} // it signed nothing
		ring.Keys = append(ring.Keys, k.inState(Revoked))
	}
	return ring
}

// inState returns k as a user sees it.
func (k PlannedKey) inState(state State) Key {
	if k.Waiting() {
		k.ActivatesAt = time.Time{}
	}
	return Key{Record: *k.Record, State: state, ActivatesAt: k.ActivatesAt, RetiresAt: k.RetiresAt, DroppedAt: k.DroppedAt, RevokedAt: k.RevokedAt}
}

// later returns the later of two times.
func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Find returns the key of that kid, or nil. Its place in the order does not matter.
func (p *Plan) Find(kid string) *PlannedKey {
	for _, list := range [][]PlannedKey{p.InOrder, p.NeverActive} {
		for i := range list {
			if list[i].KID == kid {
				return &list[i]
			}
		}
	}
	return nil
}
