package rotation

import (
	"cmp"
	"slices"
	"time"
)

// A State is where a key of a ring stands. docs/rotation.md maps the states to
// those of NIST SP 800-57.
type State string

// The states, in the order of a key's life.
const (
	Pending State = "pending" // published, and verifies, but does not sign yet
	Signing State = "signing"
	Retired State = "retired" // does not sign any more, and verifies what it signed
	Dropped State = "dropped" // verifies nothing any more: its last token has ended
	Revoked State = "revoked"
)

// A Ring is what the records and facts of a tenant say at one moment.
type Ring struct {
	// Keys are all keys, those that were revoked last, the others by when they
	// take effect.
	Keys []RingKey

	// Signer is the index in Keys of the one that signs, or -1 if none does.
	Signer int
}

// A RingKey is one key of a Ring. Times are zero where they are not known yet.
type RingKey struct {
	Record
	State State // at the moment that was asked for

	ActivatesAt time.Time // when it takes effect, or would have
	RetiresAt   time.Time // when the next takes effect
	DroppedAt   time.Time // until when it verifies; zero while there is no next
	RevokedAt   time.Time // when it was revoked
}

// Verifies reports whether tokens of the key are good.
func (k RingKey) Verifies() bool { return k.State != Dropped && k.State != Revoked }

// View says who signs, who verifies and who is dropped. It is a pure function of
// the records of one ring, what is known of them, and the time: whoever has the
// same comes to the same end, with no word spoken. It changes nothing it is given.
//
// A record takes effect when it is scheduled to, or when it was promoted. It is
// scheduled by its ActivateAt; if it was lost and merged back, it waits until it
// has become known anew. One that was revoked before it took effect leaves the
// order. The last that has taken effect signs, if it was not revoked, and nobody
// else does: there is no falling back to an earlier one, whose retirement others
// may have counted on.
//
// A key signs until the next takes effect. SignUntil ends it if there is no next, so
// much later as it took effect itself.
//
// A key verifies until the last token that anyone may have signed with it has
// ended: a cut-off instance signs on for SignFor after its last good sync, and
// may have missed a promotion or a merge for so long.
//
// What was created until [Facts.Gone] is not part of the ring any more: it ended long
// ago, and its place in the order with the facts that it depended on.
func View(records []Record, facts Facts, now time.Time) Ring {
	of := make([]*Record, 0, len(records))
	for i := range records {
		if !facts.gone(&records[i]) {
			of = append(of, &records[i])
		}
	}
	return newPlan(of, facts).at(now)
}

// A plan is all of [View] that does not depend on the time.
type plan struct {
	dead bool

	// past: what is known has happened, whatever our clock says.
	past time.Time

	inOrder []planned // by when they take effect
	left    []planned // revoked before they took effect
}

// A planned is a record in a plan. Times are zero where they are not known.
type planned struct {
	*Record
	first       bool // of the whole ring
	activatesAt time.Time
	signsUntil  time.Time
	retiresAt   time.Time
	droppedAt   time.Time
	revokedAt   time.Time
}

// newPlan takes records of which none is gone.
func newPlan(records []*Record, facts Facts) *plan {
	if !facts.Dead.IsZero() {
		return &plan{dead: true}
	}
	p := &plan{past: facts.latest(FactPromoted, FactRevoked)}
	p.order(records, facts)
	for i := range p.inOrder {
		k := &p.inOrder[i]
		k.signsUntil = k.SignUntil.Add(max(0, k.activatesAt.Sub(k.ActivateAt)))
		if i+1 < len(p.inOrder) {
			next := &p.inOrder[i+1]
			k.retiresAt, k.droppedAt = next.activatesAt, keep(k, next, facts)
			k.signsUntil = later(k.signsUntil, next.activatesAt)
		}
	}
	for i := range p.left {
		k := &p.left[i]
		after := func(n planned) bool { return byEffect(n, *k) > 0 }
		if n := slices.IndexFunc(p.inOrder, after); n >= 0 {
			k.droppedAt = keep(k, &p.inOrder[n], facts)
		}
	}
	return p
}

// order sorts the records by when they take effect.
func (p *plan) order(records []*Record, facts Facts) {
	for _, r := range records {
		k := planned{Record: r, first: isFirst(r, records), activatesAt: effective(r, records, facts)}
		k.revokedAt, _ = facts.At(FactRevoked, r.KID)
		if !k.revokedAt.IsZero() && k.revokedAt.Before(k.activatesAt) {
			p.left = append(p.left, k)
		} else {
			p.inOrder = append(p.inOrder, k)
		}
	}
	slices.SortFunc(p.inOrder, byEffect)
	slices.SortFunc(p.left, byEffect)
}

func byEffect(a, b planned) int {
	return cmp.Or(a.activatesAt.Compare(b.activatesAt), cmp.Compare(a.Seq, b.Seq), cmp.Compare(a.KID, b.KID))
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

// isFirst reports whether r is the first of its ring: there is no key to sign
// with before it, so it never waits.
func isFirst(r *Record, all []*Record) bool {
	return r.Seq == 1 && !slices.ContainsFunc(all, func(o *Record) bool { return o.Created.Before(r.Created) })
}

// keep returns until when k verifies, next being the next in order.
func keep(k, next *planned, facts Facts) time.Time {
	p := &k.Timing
	end := next.activatesAt
	for _, kid := range []string{k.KID, next.KID} {
		if announced, ok := facts.At(FactAnnounced, kid); ok {
			end = later(end, announced.Add(p.SignFor+p.ClockSkew))
		}
	}
	return end.Add(p.MaxTokenTTL + p.Leeway)
}

// current returns the index in order of the last that has taken effect, or -1.
func (p *plan) current(now time.Time) int {
	now = later(now, p.past)
	for i := len(p.inOrder) - 1; i >= 0; i-- {
		if !p.inOrder[i].activatesAt.After(now) {
			return i
		}
	}
	return -1
}

// signer returns what signs, or nil.
func (p *plan) signer(now time.Time) *planned {
	if i := p.current(now); i >= 0 && p.state(i, i, now) == Signing {
		return &p.inOrder[i]
	}
	return nil
}

// pending returns those in order that have not taken effect, the next first.
func (p *plan) pending(now time.Time) []planned { return p.inOrder[p.current(now)+1:] }

// dropped reports whether k verifies nothing any more. For one that left the
// order: whether it would not, had it stayed. That is by our clock alone, which is
// also what its tokens end by.
func (p *plan) dropped(k *planned, now time.Time) bool {
	return !k.droppedAt.IsZero() && !now.Before(k.droppedAt)
}

// published reports whether readers of the JWK Set need k: longer than it verifies here, as
// their clocks may be behind.
func (k *planned) published(now time.Time) bool {
	return k.revokedAt.IsZero() && (k.droppedAt.IsZero() || now.Add(-2*k.Timing.ClockSkew).Before(k.droppedAt))
}

// state returns the state of the i-th in order.
func (p *plan) state(i, current int, now time.Time) State {
	k := &p.inOrder[i]
	switch {
	case !k.revokedAt.IsZero():
		return Revoked
	case p.dropped(k, now):
		return Dropped
	case i > current:
		return Pending
	case i == current && now.Before(k.signsUntil):
		return Signing
	}
	return Retired
}

// at returns the ring at one moment.
func (p *plan) at(now time.Time) Ring {
	ring := Ring{Signer: -1}
	current := p.current(now)
	for i, k := range p.inOrder {
		state := p.state(i, current, now)
		if state == Signing {
			ring.Signer = i
		}
		ring.Keys = append(ring.Keys, k.in(state))
	}
	for _, k := range p.left {
		k.droppedAt = time.Time{} // it never signed
		ring.Keys = append(ring.Keys, k.in(Revoked))
	}
	return ring
}

func (k planned) in(state State) RingKey {
	return RingKey{Record: *k.Record, State: state, ActivatesAt: k.activatesAt, RetiresAt: k.retiresAt, DroppedAt: k.droppedAt, RevokedAt: k.revokedAt}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
