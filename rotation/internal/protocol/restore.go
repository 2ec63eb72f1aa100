package protocol

import (
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// republish decides about a record that the store lacked. An instance that has synced meanwhile
// does not know the key. So a pending key is published again, and waits for Propagation from now
// on. Less would not do: a cut-off instance that does not know it signs for SignFor (timeline A).
//
// An active key usually goes on signing where it did, and the announcement keeps its predecessor
// for the instances that have not heard of it (timeline D). It is published again if all of this
// holds:
//   - This instance cannot have been signing with it. It was away, or no good sync has confirmed
//     the key for longer than Dwell, see [Copy.Signing].
//   - The key would replace the one that signs in the store, at instances that do not know it
//     (timeline H).
//
// Then this instance may be the only holder, and no instance has acted on a promotion of the key.
// So a promotion that the store does not know is forgotten. Otherwise the key would still sign at
// once.
func (m *merge) republish(r *ring.Record) {
	m.news.Add(ring.FactAnnounced, r.KID, m.announceTime())
	if _, revoked := m.union.Facts.At(ring.FactRevoked, r.KID); revoked {
		return // it never signs
	}
	pending := m.union.PlanOf(r).ActivatesAt.After(m.Now)
	if pending {
		m.news.Add(ring.FactRepublished, r.KID, m.announceTime())
		return
	}
	confirmed := !m.Good.IsZero() && m.Good.After(r.Created.Add(r.Timing.Dwell))
	if (m.away(&r.Timing) || !confirmed) && m.supplants(r) {
		m.news.Add(ring.FactRepublished, r.KID, m.announceTime())
		if _, known := m.Stored.Facts.At(ring.FactPromoted, r.KID); !known {
			m.forgotten[ring.FactID{Kind: ring.FactPromoted, KID: r.KID}] = true
		}
	}
}

// supplants reports whether r would replace the key that signs in the store. A key that comes
// before that one in the order has retired, and is only restored so that it verifies. If the
// store's ring has no signer, any instance that reads it can sign with r only.
func (m *merge) supplants(r *ring.Record) bool {
	signer := m.Stored.Plan.Signer(m.Now)
	if signer == nil || m.union.Facts.Ignored(signer.Record) {
		return false
	}
	return ring.ByEffect(*m.union.PlanOf(r), *m.union.PlanOf(signer.Record)) > 0
}

// assert promotes keys that this instance has signed with, and that another instance published
// again because it did not know that. The promotion has the time at which the key took effect here,
// so the key need not wait again, and its tokens stay good (timeline D).
//
// The instance holds this from now on, even if it cannot be written. Otherwise it would go back to
// the previous key while its own tokens of this one are alive.
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

// postpone publishes keys again that have taken effect in the store, and that this instance has
// never heard of although it was in sync within SignFor.
//
// An active key must have been public for Propagation, which exceeds SignFor, so this instance
// would know it. It does not, so the store lost the key, and another instance restored it without
// knowing the key that signs now. Other instances in sync may lack it too, and would reject its
// tokens (timeline H).
//
// Three kinds of keys may be new to this instance although every other one knows them, and stay: a
// promoted one, one that was minted to sign sooner than after Propagation, and one that comes
// before the key that signs.
func (m *merge) postpone() {
	signer := m.Held.Plan.Signer(m.Now)
	if signer == nil || m.union.Find(signer.KID) == nil {
		return
	}
	unheard := ring.Facts{}
	for _, r := range m.Stored.Records {
		k := m.union.PlanOf(r.Record)
		_, promoted := m.union.Facts.At(ring.FactPromoted, r.KID)
		switch {
		case m.Held.Find(r.KID) != nil, m.away(&r.Timing), promoted, !k.RevokedAt.IsZero():
		case k.ActivatesAt.After(m.Now), r.ActivateAt.Sub(r.Created) < r.Timing.Propagation:
		case ring.ByEffect(*k, *m.union.PlanOf(signer.Record)) > 0:
			unheard.Add(ring.FactRepublished, r.KID, m.announceTime())
		}
	}
	m.learn(unheard)
}

// learn adds facts to the union, whether or not the change is made.
func (m *merge) learn(facts ring.Facts) {
	if facts.Equal(ring.Facts{}) {
		return
	}
	u := *m.union
	u.Facts = u.Facts.Join(facts)
	m.union = NewCopy(u)
}

// announcePromotions announces the promotions that the store lacked. An instance that synced
// meanwhile has not heard of them, and signs with the previous key until SignFor after that sync.
// The announcement keeps that key for its tokens (timeline C).
func (m *merge) announcePromotions() {
	for _, r := range m.union.Records {
		id := ring.FactID{Kind: ring.FactPromoted, KID: r.KID}
		at, ok := m.union.Facts.At(ring.FactPromoted, r.KID)
		stored, known := m.Stored.Facts.At(ring.FactPromoted, r.KID)
		if ok && !m.forgotten[id] && (!known || at.Before(stored)) {
			m.news.Add(ring.FactAnnounced, r.KID, m.announceTime())
		}
	}
}

// announceTime is the time of a fact that others have to hear of, see [Base]. It comes from the
// store's clock, so all holders propose nearly the same.
func (m *merge) announceTime() time.Time { return m.Now.Add(m.timing().Window(m.Deadline) / 2) }

// timing returns the policy of the union. There is one: only records are announced.
func (m *merge) timing() *ring.Policy { return &m.union.Newest().Timing }
