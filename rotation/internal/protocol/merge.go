package protocol

import (
	"slices"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// A MergeInput is what one instance and the store know of a ring.
type MergeInput struct {
	Held       *Copy // nil: nothing
	Stored     *Copy // what is authentic in the store
	Unreadable Unreadable
	Now        time.Time // by the store's clock

	Good     time.Time // the last good sync of Mine, by the instance's clock
	LocalNow time.Time // Now, by the instance's clock
	Deadline time.Duration

	// ClockOff says that the two clocks differ by too much to decide by: nothing is written, or
	// dropped.
	ClockOff bool
}

// A MergeResult is what [Merge] came to.
type MergeResult struct {
	// Union is what both know: to be held if nothing is written.
	Union *Copy

	// Healed is what the store has once Change is made, and what to hold then. Change is nil if the
	// store lacks nothing.
	Healed *Copy
	Change *Proposal
}

// Merge joins what an instance and the store know. It proposes to write back what the store lacks:
// any holder can do that, and all of them come to the same.
func Merge(in MergeInput) MergeResult {
	m := &merge{MergeInput: in, forgotten: make(map[ring.FactID]bool)}
	m.union = m.join()
	switch {
	case m.Held == nil || m.ClockOff:
		return MergeResult{Union: m.union, Healed: m.union}
	case m.union.Plan.Dead:
		return MergeResult{Union: m.union, Healed: m.union, Change: m.destroyed()}
	}
	m.assert()
	m.postpone()
	missing := m.missing()
	for _, r := range missing {
		m.republish(r.Record)
	}
	m.announcePromotions()
	healed := *m.union
	healed.Facts = m.healedFacts()
	h := NewCopy(healed)
	p := m.proposal(h, missing)
	if p == nil {
		return MergeResult{Union: m.union, Healed: m.union}
	}
	return MergeResult{Union: m.union, Healed: h, Change: p}
}

// A merge is a Merge under way.
type merge struct {
	MergeInput

	union     *Copy      // what both know
	news      ring.Facts // what is to be stated besides: proposed times
	forgotten map[ring.FactID]bool
}

// join returns what both know. A record that the store lacks and the plan has dropped was collected,
// and goes.
func (m *merge) join() *Copy {
	u := *m.Stored
	if m.Held == nil {
		return NewCopy(u)
	}
	mine := m.Held.Facts
	if m.superseded() {
		mine.CollectedUntil = time.Time{}
	}
	u.Facts = u.Facts.Join(mine)
	if !u.Facts.Dead.IsZero() {
		return NewCopy(Copy{Head: u.Head, Facts: u.Facts})
	}
	u.Records = slices.Clone(u.Records)
	for _, r := range m.Held.Records {
		if m.Stored.Find(r.KID) == nil && !u.Facts.Collected(r.Record) {
			u.Records = append(u.Records, r)
		}
	}
	u.replan()
	u.Records = slices.DeleteFunc(u.Records, func(r Record) bool { return m.collected(&u, r.Record) })
	u.Facts = u.Facts.Prune(func(kid string) bool { return u.Find(kid) != nil })
	u.replan()
	u.TenantKeys = slices.Clone(u.TenantKeys)
	for _, id := range m.Held.TenantKeys {
		used := func(r Record) bool { return r.TenantKey == id }
		if !u.hasTenantKey(id) && slices.ContainsFunc(u.Records, used) {
			u.TenantKeys = append(u.TenantKeys, id)
		}
	}
	return &u
}

// collected reports whether another instance has collected r: the store lacks it, and its last
// token has ended by the store's clock and by ours, since we still take its tokens until then.
//
// A key that we have dropped stays dropped, even if the union would keep it for longer since its
// successor was just published again.
func (m *merge) collected(u *Copy, r *ring.Record) bool {
	if m.ClockOff || m.Stored.Find(r.KID) != nil {
		return false
	}
	now := m.Now
	if m.LocalNow.Before(now) {
		now = m.LocalNow
	}
	return u.Plan.Dropped(u.PlanOf(r), now) || m.Held.Plan.Dropped(m.Held.PlanOf(r), now)
}

// superseded reports whether the store was restored to a time before records that we have collected,
// while we were away for longer than SignFor. Other instances had to accept that store, and tokens of
// those records may be alive there, so the collection must be undone.
//
// In every such past a collected key came before all keys that we have. A key that comes after one of
// them is a record that was put back without the facts that gave it its place.
func (m *merge) superseded() bool {
	newest := m.Held.Newest()
	if newest == nil || m.ClockOff || !m.away(&newest.Timing) {
		return false
	}
	return slices.ContainsFunc(m.Stored.Plan.InOrder, func(k ring.PlannedKey) bool {
		return m.Held.Facts.Collected(k.Record) && k.RevokedAt.IsZero() && !m.Stored.Plan.Dropped(&k, m.Now) &&
			!slices.ContainsFunc(m.Held.Plan.InOrder, func(mine ring.PlannedKey) bool { return ring.ByEffect(mine, k) < 0 })
	})
}

// away reports whether we cannot have been signing for some time.
func (m *merge) away(p *ring.Policy) bool {
	return m.Good.IsZero() || Age(m.LocalNow, m.Good) > p.SignFor
}

// missing returns the records that the store lacks.
func (m *merge) missing() []Record {
	var missing []Record
	for _, r := range m.union.Records {
		if m.Stored.Find(r.KID) == nil && m.Unreadable.writable(RecordRef(r.KID)) {
			missing = append(missing, r)
		}
	}
	return missing
}

// destroyed tells the store that the ring was destroyed, if it has lost that.
func (m *merge) destroyed() *Proposal {
	dead := ring.FactID{Kind: ring.FactDestroyed}
	if !m.Stored.Facts.Dead.IsZero() || !m.Unreadable.writable(FactRef(dead)) {
		return nil
	}
	return &Proposal{Op: ring.OpMerge, Facts: []ProposedFact{{dead, m.union.Facts.Dead, -forever, forever}}}
}

// republish decides about a record that the store lacked. An instance that has synced meanwhile does
// not know it, so a key that has not taken effect is published again.
//
// So is a key that has taken effect, if we have been away for so long that we cannot have been signing
// with it, and the store has another key sign. Then we may be the only holder, and no other instance
// has acted on our promotion of it.
func (m *merge) republish(r *ring.Record) {
	m.news.Add(ring.FactAnnounced, r.KID, m.announceTime())
	if _, revoked := m.union.Facts.At(ring.FactRevoked, r.KID); revoked {
		return
	}
	pending := m.union.PlanOf(r).ActivatesAt.After(m.Now)
	if pending {
		m.news.Add(ring.FactRepublished, r.KID, m.announceTime())
		return
	}
	confirmed := !m.Good.IsZero() && m.Good.After(r.Created.Add(r.Timing.Dwell))
	if (m.away(&r.Timing) || !confirmed) && m.supplants(r) {
		m.news.Add(ring.FactRepublished, r.KID, m.announceTime())
		if _, theirs := m.Stored.Facts.At(ring.FactPromoted, r.KID); !theirs {
			m.forgotten[ring.FactID{Kind: ring.FactPromoted, KID: r.KID}] = true
		}
	}
}

// supplants reports whether r would sign in the place of the key that signs in the store. A key that
// comes before that one in order has retired, and is merely put back.
func (m *merge) supplants(r *ring.Record) bool {
	signer := m.Stored.Plan.Signer(m.Now)
	if signer == nil || m.union.Facts.Collected(signer.Record) {
		return false
	}
	return ring.ByEffect(*m.union.PlanOf(r), *m.union.PlanOf(signer.Record)) > 0
}

// assert states that keys must not wait that we have been signing with while other instances, which
// did not know that, published them again. We know that from then on, whether or not it can be
// written now.
func (m *merge) assert() {
	asserted := ring.Facts{}
	for _, r := range m.union.Records {
		if m.Held.Find(r.KID) == nil || m.away(&r.Timing) {
			continue
		}
		again, ok := m.Stored.Facts.At(ring.FactRepublished, r.KID)
		before, had := m.Held.Facts.At(ring.FactRepublished, r.KID)
		if !ok || had && !again.After(before) {
			continue
		}
		_, revoked := m.union.Facts.At(ring.FactRevoked, r.KID)
		was := m.Held.PlanOf(r.Record).ActivatesAt
		if !revoked && !was.After(m.Now) && m.union.PlanOf(r.Record).ActivatesAt.After(was) {
			asserted.Add(ring.FactPromoted, r.KID, was)
		}
	}
	m.learn(asserted)
}

// postpone publishes keys again that have taken effect in the store, and that we have never heard of
// though we were in sync within SignFor.
//
// An active key must have been public for Propagation, which exceeds SignFor, so we would know it. If
// we do not, the store lost it, and another instance restored it without knowing the key that signs
// now. No other instance may have it. A key that was promoted, or minted to sign sooner, may be new to
// us although every other instance knows it.
func (m *merge) postpone() {
	signer := m.Held.Plan.Signer(m.Now)
	if signer == nil || m.union.Find(signer.KID) == nil {
		return
	}
	strange := ring.Facts{}
	for _, r := range m.Stored.Records {
		k := m.union.PlanOf(r.Record)
		_, promoted := m.union.Facts.At(ring.FactPromoted, r.KID)
		switch {
		case m.Held.Find(r.KID) != nil, m.away(&r.Timing), promoted, !k.RevokedAt.IsZero():
		case k.ActivatesAt.After(m.Now), r.ActivateAt.Sub(r.Created) < r.Timing.Propagation:
		case ring.ByEffect(*k, *m.union.PlanOf(signer.Record)) > 0:
			strange.Add(ring.FactRepublished, r.KID, m.announceTime())
		}
	}
	m.learn(strange)
}

// learn adds facts to the union.
func (m *merge) learn(facts ring.Facts) {
	if facts.Equal(ring.Facts{}) {
		return
	}
	u := *m.union
	u.Facts = u.Facts.Join(facts)
	m.union = NewCopy(u)
}

// announcePromotions announces the promotions that the store lacked: an instance that has not heard
// of one signs with the key before.
func (m *merge) announcePromotions() {
	for _, r := range m.union.Records {
		id := ring.FactID{Kind: ring.FactPromoted, KID: r.KID}
		at, ok := m.union.Facts.At(ring.FactPromoted, r.KID)
		theirs, known := m.Stored.Facts.At(ring.FactPromoted, r.KID)
		if ok && !m.forgotten[id] && (!known || at.Before(theirs)) {
			m.news.Add(ring.FactAnnounced, r.KID, m.announceTime())
		}
	}
}

// announceTime is a time within the bounds of the store when it gets there.
func (m *merge) announceTime() time.Time { return m.Now.Add(m.timing().Window(m.Deadline) / 2) }

func (m *merge) timing() *ring.Policy { return &m.union.Newest().Timing }

func (m *merge) healedFacts() ring.Facts {
	facts := m.union.Facts.Join(m.news)
	for id := range m.forgotten {
		facts.Forget(id.Kind, id.KID)
	}
	return facts
}

// proposal returns what the store lacks of healed, or nil.
func (m *merge) proposal(healed *Copy, missing []Record) *Proposal {
	p := &Proposal{Op: ring.OpMerge}
	for _, r := range missing {
		p.Restore = append(p.Restore, r.KID)
		if r.Seq > m.Stored.Head && r.Seq > p.Head {
			p.Head = r.Seq
		}
	}
	if m.Unreadable.has(HeadRef) {
		p.Head = max(p.Head, healed.MaxSeq())
	}
	for _, id := range healed.TenantKeys {
		if !m.Stored.hasTenantKey(id) && m.Unreadable.writable(TenantKeyRef(id)) {
			p.TenantKeys = append(p.TenantKeys, id)
		}
	}
	for id, at := range healed.Facts.All {
		if theirs, ok := m.Stored.Facts.At(id.Kind, id.KID); ok && theirs.Equal(at) {
			continue
		}
		if m.Unreadable.writable(FactRef(id)) {
			p.Facts = append(p.Facts, m.bounded(id, at))
		}
	}
	collected := ring.FactID{Kind: ring.FactCollected}
	if until := healed.Facts.CollectedUntil; until.After(m.Stored.Facts.CollectedUntil) && m.Unreadable.writable(FactRef(collected)) {
		p.Facts = append(p.Facts, m.bounded(collected, until))
	}
	if p.Head+len(p.Restore)+len(p.TenantKeys)+len(p.Facts) == 0 {
		return nil
	}
	if len(missing) > 0 {
		p.KID, p.Seq = missing[0].KID, missing[0].Seq
	}
	return p
}

// bounded holds a new fact to the present, and a restored one to the past.
func (m *merge) bounded(id ring.FactID, at time.Time) ProposedFact {
	var window, skew time.Duration
	if m.union.Newest() != nil {
		window, skew = m.timing().Window(m.Deadline), m.timing().ClockSkew
	}
	if fresh, ok := m.news.At(id.Kind, id.KID); ok && fresh.Equal(at) {
		return ProposedFact{FactID: id, At: at, From: 0, To: window}
	}
	// It was within the window of a store whose clock may have been ahead of this one's.
	return ProposedFact{FactID: id, At: at, From: -forever, To: window + 2*skew}
}
