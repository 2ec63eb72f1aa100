package rotation

import (
	"slices"
	"time"

	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
)

// A merger brings together what an instance holds of a ring and what the store has.
// It decides; it calls nobody.
type merger struct {
	tenant string
	mine   *held                 // nil: nothing
	theirs *held                 // what is authentic in the store
	failed *ring.UnreadableError // nil: all of it is
	now    time.Time

	good     time.Time // of mine: the last good sync, by the instance's clock
	local    time.Time // now, by the instance's clock
	deadline time.Duration
	off      error // the store's clock is not to be decided by: nothing is written, or dropped

	union     *held      // what both know, and nothing else
	news      ring.Facts // what is to be said besides: times that are proposed
	forgotten map[ring.FactID]bool
}

// A merge is what a merger came to.
type merge struct {
	// union is what both know: to be held if nothing was written.
	union *held

	// healed is what the store has once change is made, and what to hold then.
	// change is nil if the store lacks nothing.
	healed *held
	change *proposal
}

// merge joins what the instance and the store hold. What the store lacks is written
// back: any holder can do that, and each comes to the same.
func (m *merger) merge() merge {
	m.union = m.join()
	switch {
	case m.mine == nil || m.off != nil:
		return merge{union: m.union, healed: m.union}
	case m.union.plan.Dead:
		return merge{union: m.union, healed: m.union, change: m.destroyed()}
	}
	m.assert()
	m.postpone()
	missing := m.missing()
	m.forgotten = make(map[ring.FactID]bool)
	m.news = ring.Facts{}
	for _, r := range missing {
		m.republish(r)
	}
	m.announcePromotions()
	healed := &held{head: m.union.head, records: slices.Clone(m.union.records), tenantKeys: m.union.tenantKeys, published: m.union.published,
		litter: m.union.litter}
	healed.facts = m.healedFacts()
	healed.planned()
	p := m.proposal(healed, missing)
	if p == nil {
		return merge{union: m.union, healed: m.union}
	}
	return merge{union: m.union, healed: healed, change: p}
}

// join returns what either knows. What the store lacks and the plan has dropped was
// collected, and goes.
func (m *merger) join() *held {
	u := &held{head: m.theirs.head, facts: m.theirs.facts, records: slices.Clone(m.theirs.records),
		tenantKeys: slices.Clone(m.theirs.tenantKeys), published: m.theirs.published, litter: m.theirs.litter}
	if m.mine == nil {
		return u.planned()
	}
	mine := m.mine.facts
	if m.superseded() {
		mine.CollectedUntil = time.Time{}
	}
	u.facts = u.facts.Join(mine)
	if !u.facts.Dead.IsZero() {
		return (&held{head: u.head, facts: u.facts}).planned()
	}
	for _, r := range m.mine.records {
		if m.theirs.find(r.KID) == nil && !u.facts.Collected(&r.Record) {
			u.records = append(u.records, r)
		}
	}
	u.planned()
	// By our clock, too: it is not to be dropped while we would still take its tokens.
	now := m.now
	if m.local.Before(now) {
		now = m.local
	}
	// What we have dropped stays so, though the union would keep it for longer, since its
	// successor has just become known anew.
	collected := func(r *heldRecord) bool {
		if m.off != nil || m.theirs.find(r.KID) != nil {
			return false
		}
		return u.plan.Dropped(u.planOf(r), now) || m.mine.plan.Dropped(m.mine.planOf(r), now)
	}
	u.records = slices.DeleteFunc(u.records, collected)
	u.facts = u.facts.Prune(func(kid string) bool { return u.find(kid) != nil })
	u.planned()
	for _, tk := range m.mine.tenantKeys {
		used := func(r *heldRecord) bool { return r.TenantKey == tk.id }
		if u.tenantKey(tk.id) == nil && slices.ContainsFunc(u.records, used) {
			u.tenantKeys = append(u.tenantKeys, tk)
		}
	}
	return u
}

// superseded reports whether the store was rolled back to before what we know to be gone,
// while we were away for so long that others have had to take it for the truth: what is
// gone to us has tokens there that live. In any past that there was, that came before all
// that we have: what comes after something is a record put back without what gave it its
// place.
func (m *merger) superseded() bool {
	newest := m.mine.newest()
	if newest == nil || m.off != nil || !m.away(&newest.Timing) {
		return false
	}
	return slices.ContainsFunc(m.theirs.plan.InOrder, func(k ring.PlannedKey) bool {
		return m.mine.facts.Collected(k.Record) && k.RevokedAt.IsZero() && !m.theirs.plan.Dropped(&k, m.now) &&
			!slices.ContainsFunc(m.mine.plan.InOrder, func(mine ring.PlannedKey) bool { return ring.ByEffect(mine, k) < 0 })
	})
}

// away reports whether we cannot have been signing for some time.
func (m *merger) away(p *ring.Policy) bool {
	return m.good.IsZero() || age(m.local, m.good) > p.SignFor
}

// missing returns the records that the store lacks.
func (m *merger) missing() []*heldRecord {
	var missing []*heldRecord
	for _, r := range m.union.records {
		field := seal.PrefixRecord + r.KID
		if m.theirs.find(r.KID) == nil && (!m.garbled(field) || m.replaceable(field)) {
			missing = append(missing, r)
		}
	}
	return missing
}

// destroyed tells the store that the ring was destroyed, if it has lost that.
func (m *merger) destroyed() *proposal {
	if !m.theirs.facts.Dead.IsZero() || m.garbled(seal.FieldDead) && !m.replaceable(seal.FieldDead) {
		return nil
	}
	return &proposal{op: ring.OpMerge, facts: []proposedFact{{ring.FactID{Kind: ring.FactDestroyed}, m.union.facts.Dead, -forever, forever}}}
}

// republish decides about a record that the store lacked. Who has synced meanwhile
// does not know it: one that has not taken effect becomes known anew. So does one
// that has, if we have been away for so long that we cannot have been signing with
// it, and the store has others sign: then nobody may know it but us, and by our
// promotion of it nobody has been bound.
func (m *merger) republish(r *heldRecord) {
	m.news.Add(ring.FactAnnounced, r.KID, m.soon())
	if _, revoked := m.union.facts.At(ring.FactRevoked, r.KID); revoked {
		return
	}
	pending := m.union.planOf(r).ActivatesAt.After(m.now)
	if pending {
		m.news.Add(ring.FactRepublished, r.KID, m.soon())
		return
	}
	confirmed := !m.good.IsZero() && m.good.After(r.Created.Add(r.Timing.Dwell))
	if (m.away(&r.Timing) || !confirmed) && m.supplants(r) {
		m.news.Add(ring.FactRepublished, r.KID, m.soon())
		if _, theirs := m.theirs.facts.At(ring.FactPromoted, r.KID); !theirs {
			m.forgotten[ring.FactID{Kind: ring.FactPromoted, KID: r.KID}] = true
		}
	}
}

// supplants reports whether r would sign in the place of the key that does in the store.
// One that comes before that in order has retired, and is merely put back.
func (m *merger) supplants(r *heldRecord) bool {
	signer := m.theirs.plan.Signer(m.now)
	if signer == nil || m.union.facts.Collected(signer.Record) {
		return false
	}
	theirs := m.union.planOf(m.union.find(signer.KID))
	return ring.ByEffect(*m.union.planOf(r), *theirs) > 0
}

// assert tells of keys that we have been signing with when others, who did not know,
// published them anew: they must not wait. That is what we know from then on, whether
// or not it can be written now.
func (m *merger) assert() {
	asserted := ring.Facts{}
	for _, r := range m.union.records {
		old := m.mine.find(r.KID)
		if old == nil || m.away(&r.Timing) {
			continue
		}
		again, ok := m.theirs.facts.At(ring.FactRepublished, r.KID)
		before, had := m.mine.facts.At(ring.FactRepublished, r.KID)
		if !ok || had && !again.After(before) {
			continue
		}
		_, revoked := m.union.facts.At(ring.FactRevoked, r.KID)
		was := m.mine.planOf(old).ActivatesAt
		if !revoked && !was.After(m.now) && m.union.planOf(r).ActivatesAt.After(was) {
			asserted.Add(ring.FactPromoted, r.KID, was)
		}
	}
	if !asserted.Equal(ring.Facts{}) {
		m.union.facts = m.union.facts.Join(asserted)
		m.union.planned()
	}
}

// postpone publishes keys anew that the store has in force, and that we, who have been in
// step within SignFor, have never heard of. They were published P before, which is longer:
// so the store had lost them, and whoever put them back found it empty, and knew of nobody
// who signs with another. Nobody may have them but that one. A key that was promoted, or
// minted to sign sooner, may be news to us, though it is to nobody else.
func (m *merger) postpone() {
	signer := m.mine.plan.Signer(m.now)
	if signer == nil || m.union.find(signer.KID) == nil {
		return
	}
	strange := ring.Facts{}
	for _, r := range m.theirs.records {
		k := m.union.planOf(r)
		_, promoted := m.union.facts.At(ring.FactPromoted, r.KID)
		switch {
		case m.mine.find(r.KID) != nil, m.away(&r.Timing), promoted, !k.RevokedAt.IsZero():
		case k.ActivatesAt.After(m.now), r.ActivateAt.Sub(r.Created) < r.Timing.Propagation:
		case ring.ByEffect(*k, *m.union.planOf(m.union.find(signer.KID))) > 0:
			strange.Add(ring.FactRepublished, r.KID, m.soon())
		}
	}
	if !strange.Equal(ring.Facts{}) {
		m.union.facts = m.union.facts.Join(strange)
		m.union.planned()
	}
}

// announcePromotions: who has not heard of a promotion that the store lacked signs
// with the one before.
func (m *merger) announcePromotions() {
	for _, r := range m.union.records {
		id := ring.FactID{Kind: ring.FactPromoted, KID: r.KID}
		at, ok := m.union.facts.At(ring.FactPromoted, r.KID)
		theirs, known := m.theirs.facts.At(ring.FactPromoted, r.KID)
		if ok && !m.forgotten[id] && (!known || at.Before(theirs)) {
			m.news.Add(ring.FactAnnounced, r.KID, m.soon())
		}
	}
}

// soon is a time that lies within the bounds of the store when it gets there.
func (m *merger) soon() time.Time {
	return m.now.Add(m.timing().Window(m.deadline) / 2)
}

func (m *merger) timing() *ring.Policy { return &m.union.newest().Timing }

func (m *merger) healedFacts() ring.Facts {
	facts := m.union.facts.Join(m.news)
	for id := range m.forgotten {
		facts.Forget(id.Kind, id.KID)
	}
	return facts
}

// proposal returns what the store lacks of healed, or nil.
func (m *merger) proposal(healed *held, missing []*heldRecord) *proposal {
	p := &proposal{op: ring.OpMerge, merged: missing}
	for _, r := range missing {
		if r.Seq > m.theirs.head && r.Seq > p.head {
			p.head = r.Seq
		}
	}
	if m.garbled(seal.FieldHead) {
		p.head = max(p.head, healed.maxSeq())
	}
	for _, tk := range healed.tenantKeys {
		if field := seal.PrefixKey + tk.id; m.theirs.tenantKey(tk.id) == nil && (!m.garbled(field) || m.replaceable(field)) {
			p.tenantKeys = append(p.tenantKeys, tk)
		}
	}
	for id, at := range healed.facts.All {
		if theirs, ok := m.theirs.facts.At(id.Kind, id.KID); ok && theirs.Equal(at) {
			continue
		}
		if field := seal.FactField(id.Kind, id.KID); !m.garbled(field) || m.replaceable(field) {
			p.facts = append(p.facts, m.bounded(id, at))
		}
	}
	if gone := healed.facts.CollectedUntil; gone.After(m.theirs.facts.CollectedUntil) && (!m.garbled(seal.FieldGone) || m.replaceable(seal.FieldGone)) {
		p.facts = append(p.facts, m.bounded(ring.FactID{Kind: ring.FactCollected}, gone))
	}
	if p.head+len(p.merged)+len(p.tenantKeys)+len(p.facts) == 0 {
		return nil
	}
	if len(missing) > 0 {
		p.kid, p.seq = missing[0].KID, missing[0].Seq
	}
	return p
}

// bounded holds what is new to the present, and what is merged to the past.
func (m *merger) bounded(id ring.FactID, at time.Time) proposedFact {
	if fresh, ok := m.news.At(id.Kind, id.KID); ok && fresh.Equal(at) {
		return proposedFact{FactID: id, at: at, from: 0, to: m.window()}
	}
	// It lay within the window of a store whose clock may have been ahead of this one's.
	return proposedFact{FactID: id, at: at, from: -forever, to: m.window() + 2*m.skew()}
}

func (m *merger) garbled(field string) bool { return m.failed != nil && m.failed.Failed[field] != nil }

// replaceable reports whether we may write over a garbled field. What is under another
// KEK, or of a newer keyturn, may be somebody's later word.
func (m *merger) replaceable(field string) bool {
	return slices.Contains(seal.Replaceable(m.failed), field)
}

func (m *merger) window() time.Duration {
	if m.union.newest() == nil {
		return 0
	}
	return m.timing().Window(m.deadline)
}

func (m *merger) skew() time.Duration {
	if m.union.newest() == nil {
		return 0
	}
	return m.timing().ClockSkew
}

const forever = 250 * 365 * 24 * time.Hour
