package ring

import (
	"cmp"
	"slices"
	"time"
)

// A Plan is the schedule of a ring: all of [View] that does not depend on the time. It is
// immutable.
type Plan struct {
	Dead bool // the ring was destroyed, and has no keys

	// Past is the latest promotion or revocation. Time never counts as earlier than that, even
	// if this clock is behind.
	Past time.Time

	InOrder     []PlannedKey // by when they take effect
	NeverActive []PlannedKey // revoked before they took effect
}

// A PlannedKey is a record with its place in a plan. Times are zero where they are not known yet.
type PlannedKey struct {
	*Record
	First       bool      // the first key of the ring, which no other came before
	ActivatesAt time.Time // when it takes effect
	SignsUntil  time.Time // when it stops signing, though no other key has taken effect
	RetiresAt   time.Time // when the next key takes effect
	DroppedAt   time.Time // when its last token has ended
	RevokedAt   time.Time
}

// NewPlan returns the plan of records, none of which has been collected.
func NewPlan(records []*Record, facts Facts) *Plan {
	if !facts.Dead.IsZero() {
		return &Plan{Dead: true}
	}
	p := &Plan{Past: facts.latest(FactPromoted, FactRevoked)}
	p.order(records, facts)
	for i := range p.InOrder {
		k := &p.InOrder[i]
		k.SignsUntil = k.SignUntil.Add(max(0, k.ActivatesAt.Sub(k.ActivateAt)))
		if i+1 < len(p.InOrder) {
			next := &p.InOrder[i+1]
			k.RetiresAt, k.DroppedAt = next.ActivatesAt, keep(k, next, facts)
			k.SignsUntil = later(k.SignsUntil, next.ActivatesAt)
		}
	}
	for i := range p.NeverActive {
		k := &p.NeverActive[i]
		after := func(n PlannedKey) bool { return ByEffect(n, *k) > 0 }
		if n := slices.IndexFunc(p.InOrder, after); n >= 0 {
			k.DroppedAt = keep(k, &p.InOrder[n], facts)
		}
	}
	return p
}

// order sorts the records by when they take effect.
func (p *Plan) order(records []*Record, facts Facts) {
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

// ByEffect compares two keys by when they take effect. It never returns 0 for two keys of a ring.
func ByEffect(a, b PlannedKey) int {
	return cmp.Or(a.ActivatesAt.Compare(b.ActivatesAt), cmp.Compare(a.Seq, b.Seq), cmp.Compare(a.KID, b.KID))
}

// effective returns when a record takes effect.
func effective(r *Record, all []*Record, facts Facts) time.Time {
	at := r.ActivateAt
	if again, ok := facts.At(FactRepublished, r.KID); ok && !isFirst(r, all) {
		at = later(at, again.Add(r.Timing.Propagation))
	}
	if promoted, ok := facts.At(FactPromoted, r.KID); ok && promoted.Before(at) {
		at = promoted
	}
	return at
}

// isFirst reports whether r is the first key of its ring. No key signs before it, so it never
// waits.
func isFirst(r *Record, all []*Record) bool {
	return r.Seq == 1 && !slices.ContainsFunc(all, func(o *Record) bool { return o.Created.Before(r.Created) })
}

// keep returns until when k verifies. next is the next key in order.
func keep(k, next *PlannedKey, facts Facts) time.Time {
	p := &k.Timing
	end := next.ActivatesAt
	for _, kid := range []string{k.KID, next.KID} {
		if announced, ok := facts.At(FactAnnounced, kid); ok {
			end = later(end, announced.Add(p.SignFor+p.ClockSkew))
		}
	}
	return end.Add(p.MaxTokenTTL + p.Leeway)
}

// Current returns the index in InOrder of the last key that has taken effect, or -1.
func (p *Plan) Current(now time.Time) int {
	now = later(now, p.Past)
	for i := len(p.InOrder) - 1; i >= 0; i-- {
		if !p.InOrder[i].ActivatesAt.After(now) {
			return i
		}
	}
	return -1
}

// Signer returns the key that signs, or nil.
func (p *Plan) Signer(now time.Time) *PlannedKey {
	if i := p.Current(now); i >= 0 && p.state(i, i, now) == Signing {
		return &p.InOrder[i]
	}
	return nil
}

// Pending returns the keys that have not taken effect, the next first.
func (p *Plan) Pending(now time.Time) []PlannedKey { return p.InOrder[p.Current(now)+1:] }

// Dropped reports whether the last token of k has ended. For a key revoked before it became
// active: whether it would have been dropped by now. It goes by this clock alone, as does the end
// of a token.
func (p *Plan) Dropped(k *PlannedKey, now time.Time) bool {
	return !k.DroppedAt.IsZero() && !now.Before(k.DroppedAt)
}

// Published reports whether readers of the JWK Set need k: a little longer than it verifies here,
// as their clocks may be behind.
func (k *PlannedKey) Published(now time.Time) bool {
	return k.RevokedAt.IsZero() && (k.DroppedAt.IsZero() || now.Add(-2*k.Timing.ClockSkew).Before(k.DroppedAt))
}

// state returns the state of the i-th key in order.
func (p *Plan) state(i, current int, now time.Time) State {
	k := &p.InOrder[i]
	switch {
	case !k.RevokedAt.IsZero():
		return Revoked
	case p.Dropped(k, now):
		return Dropped
	case i > current:
		return Pending
	case i == current && now.Before(k.SignsUntil):
		return Signing
	}
	return Retired
}

// At returns the ring at one moment.
func (p *Plan) At(now time.Time) Ring {
	ring := Ring{Signer: -1}
	current := p.Current(now)
	for i, k := range p.InOrder {
		state := p.state(i, current, now)
		if state == Signing {
			ring.Signer = i
		}
		ring.Keys = append(ring.Keys, k.in(state))
	}
	for _, k := range p.NeverActive {
		k.DroppedAt = time.Time{} // it never signed
		ring.Keys = append(ring.Keys, k.in(Revoked))
	}
	return ring
}

func (k PlannedKey) in(state State) Key {
	return Key{Record: *k.Record, State: state, ActivatesAt: k.ActivatesAt, RetiresAt: k.RetiresAt, DroppedAt: k.DroppedAt, RevokedAt: k.RevokedAt}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Find returns the key of that kid, or nil.
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
