package protocol

import (
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// healedFacts returns the facts of the store once the change is made.
func (m *merge) healedFacts() ring.Facts {
	facts := m.union.Facts.Join(m.news)
	for id := range m.forgotten {
		facts.Forget(id.Kind, id.KID)
	}
	return facts
}

// proposal returns what the store lacks of healed, or nil. Parts that cannot be opened and may not
// be replaced are left out: the rest is restored without them.
func (m *merge) proposal(healed *Copy, missing []Record) *Proposal {
	p := Proposal{Op: ring.OpMerge, LeaveHead: !m.Unreadable.writable(HeadRef)}
	for _, r := range missing {
		p.Restore = append(p.Restore, r.KID)
		if r.Seq > m.Stored.Head && r.Seq > p.Head {
			p.Head = r.Seq
		}
	}
	head := m.Held != nil && m.Unreadable.has(HeadRef) && m.Unreadable.writable(HeadRef)
	if head {
		p.Head = max(p.Head, healed.MaxSeq())
	}
	m.proposeAccepts(healed, &p)
	for _, tk := range healed.TenantKeys {
		if m.Stored.tenantKey(tk.ID) == nil && m.Unreadable.writable(TenantKeyRef(tk.ID)) {
			p.TenantKeys = append(p.TenantKeys, tk.ID)
		}
	}
	for id, at := range healed.Facts.All {
		if stored, ok := m.Stored.Facts.At(id.Kind, id.KID); ok && stored.Equal(at) {
			continue
		}
		if m.Unreadable.writable(FactRef(id)) {
			p.Facts = append(p.Facts, m.bounded(id, at))
			if id.Kind != ring.FactAnnounced && id.Kind != ring.FactRepublished {
				p.KID = id.KID // that something was lost of it
			}
			if kid, _, ok := id.AcceptedKey(); ok {
				p.KID = kid
			}
		}
	}
	p.Facts = append(p.Facts, m.ofRing(healed)...)
	if p.Head+len(p.Restore)+len(p.RestoreAccepts)+len(p.TenantKeys)+len(p.Facts) == 0 && !m.older() && !head {
		return nil
	}
	if len(missing) > 0 {
		p.KID, p.Seq = missing[0].KID, missing[0].Seq
	}
	repair := p // only this one takes memory: an instance that starts merges every ring, and repairs few
	return &repair
}

// bounded returns a fact with its bounds. A new one has to be in the present, and a restored one
// only in the past.
func (m *merge) bounded(id ring.FactID, at time.Time) ProposedFact {
	window, skew := m.union.timing().Window(m.Deadline), m.union.timing().ClockSkew
	if fresh, ok := m.news.At(id.Kind, id.KID); ok && fresh.Equal(at) {
		return ProposedFact{FactID: id, At: at, From: 0, To: window}
	}
	if id.Kind == ring.FactAccepted {
		window += ring.MaxAccept // it is a date ahead
	} else if m.union.Newest() == nil {
		return ProposedFact{FactID: id, At: at, From: -unbounded, To: unbounded} // no policy says how far clocks differ
	}
	// It was within the window of the store that first took it. That store's clock may have been
	// ahead of this one's, by ClockSkew against this instance each.
	return ProposedFact{FactID: id, At: at, From: -unbounded, To: window + 2*skew}
}

// ofRing returns the facts about the whole ring that the store lacks of healed. When a ring was
// destroyed is not known where only a record of its next life says that it was; then there is nothing to
// write.
func (m *merge) ofRing(healed *Copy) (facts []ProposedFact) {
	add := func(kind ring.FactKind, at time.Time) {
		if id := (ring.FactID{Kind: kind}); m.Unreadable.writable(FactRef(id)) {
			f := m.bounded(id, at)
			f.Life = healed.Facts.Dead
			facts = append(facts, f)
		}
	}
	h, s := healed.Facts, m.Stored.Facts
	if !h.DeadAt.IsZero() && (h.Dead > s.Dead || !h.DeadAt.Equal(s.DeadAt)) {
		add(ring.FactDestroyed, h.DeadAt)
	}
	if !h.CollectedUntil.IsZero() && (h.Dead > s.Dead || h.CollectedUntil.After(s.CollectedUntil)) {
		add(ring.FactCollected, h.CollectedUntil)
	}
	return facts
}
