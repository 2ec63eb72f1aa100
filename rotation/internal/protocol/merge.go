package protocol

import (
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// A MergeInput is the knowledge of one instance and of the store about a ring.
type MergeInput struct {
	Held   *Copy // by the instance; nil if it holds nothing
	Stored *Copy // the authentic parts of the store's

	// Learned are revocations and the destruction that authentic entries of the log tell of. The
	// instance knows them as it knows Held, even if that is nil. Nothing else may be learned from
	// the log: a promotion that was forgotten would come back.
	Learned ring.Facts

	Unreadable Unreadable
	Now        time.Time // by the store's clock

	Good     time.Time     // the last good sync of Held, by the instance's clock; zero for none
	Complete time.Time     // the last complete sync of Held, by the same clock; zero for none
	LocalNow time.Time     // Now, by the instance's clock
	Deadline time.Duration // of one call of the store

	// ClockOff says that the two clocks differ by more than ClockSkew. Then the merge proposes
	// nothing and drops nothing: a store whose clock is an hour ahead would make every instance
	// drop the keys that it signs with.
	ClockOff bool
}

// A MergeResult is the result of [Merge].
type MergeResult struct {
	// Union is the join of both copies. The instance holds it if Change is nil, and until Change is
	// made.
	Union *Copy

	// Healed is the store's ring once Change is made. The instance holds it from then on.
	Healed *Copy

	// Change writes back what the store lacks. It is nil if the store lacks nothing.
	Change *Proposal

	// Older says that the store has counted fewer changes of the ring than this instance has seen,
	// so the ring was lost, or an older one put in its place. That is a reason for an alarm and for
	// nothing else: a failover does it too, and it cannot be told where the store has lost one change
	// and made another.
	Older bool

	// Clashes are the kids of keys of which the instance and the store have two. Union and Healed have
	// the one that counts.
	Clashes []string

	// Undone says that the store lacked a revocation, the destruction or a collection that this
	// instance knew. Someone may have removed it on purpose.
	Undone bool
}

// Merge joins what an instance and the store know, and proposes to write back what the store lacks.
// It needs no coordination: any holder can write back, holders of the same propose the same, and
// merging again once the change is made proposes nothing.
//
// A record that is written back has been missing for a while. An instance that synced meanwhile
// does not know it. So the join alone is not enough, and four rules say what the loss means for the
// schedule: assert, postpone, republish and announcePromotions. assert and postpone change what
// this instance holds even if the change cannot be written, since they decide what it signs with.
func Merge(in MergeInput) MergeResult {
	m := &merge{MergeInput: in, forgotten: make(map[ring.FactID]bool)}
	m.rolledBack = m.superseded()
	if m.outOfTouch() {
		m.Held = m.Held.ends()
	}
	m.union = m.join()
	result := MergeResult{Union: m.union, Healed: m.union, Older: m.older(), Undone: m.undone(), Clashes: m.clashes()}
	switch {
	case m.ClockOff || m.lacksKEK():
		return result
	case m.union.Plan.Dead, m.Held == nil:
		return m.with(result, m.union, m.proposal(m.union, nil)) // of the facts that end trust
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
	result.Union, result.Healed = m.union, m.union // with the facts of assert and postpone
	return m.with(result, h, m.proposal(h, missing))
}

// with returns result with the change p, which makes the ring of the store that of healed. p may be
// nil.
func (m *merge) with(result MergeResult, healed *Copy, p *Proposal) MergeResult {
	if p == nil {
		return result
	}
	h := *healed
	if h.Count > 0 && !p.LeaveHead { // 0: it is not known yet
		h.Count = NextCount(m.Stored, m.Held)
	}
	result.Change, result.Healed = p, &h
	return result
}

// older reports whether the store has counted fewer changes than this instance. A head that cannot
// be opened says nothing.
func (m *merge) older() bool {
	return m.Held != nil && m.Stored.Count < m.Held.Count && !m.Unreadable.has(HeadRef)
}

// undone reports whether the store lacks a fact that ends trust and that this instance knew. One
// that was garbled is lacking too.
func (m *merge) undone() bool {
	known := m.known()
	lacks := func(id ring.FactID) bool { return m.Unreadable.writable(FactRef(id)) }
	for id := range known.All {
		if _, there := m.Stored.Facts.At(id.Kind, id.KID); id.Kind == ring.FactRevoked && !there && lacks(id) {
			return true
		}
	}
	revived := known.Dead > m.Stored.Facts.Dead || !known.DeadAt.IsZero() && m.Stored.Facts.DeadAt.IsZero()
	return revived && lacks(ring.FactID{Kind: ring.FactDestroyed}) ||
		known.Dead >= m.Stored.Facts.Dead && known.CollectedUntil.After(m.Stored.Facts.CollectedUntil) && lacks(ring.FactID{Kind: ring.FactCollected})
}

// known returns the facts that this instance knows without the store.
func (m *merge) known() ring.Facts {
	known := ring.Facts{}
	if m.Held != nil {
		known = m.Held.Facts
	}
	if m.rolledBack {
		known.CollectedUntil = time.Time{}
	}
	known = known.Join(ring.Facts{Dead: m.Learned.Dead, DeadAt: m.Learned.DeadAt})
	for id, at := range m.Learned.All {
		if id.Kind == ring.FactRevoked {
			known.Add(id.Kind, id.KID, at)
		}
	}
	return known
}

// lacksKEK reports whether the ring may have moved to a KEK that this instance lacks: there are
// tenant keys in the store, and none can be opened. Then this instance writes nothing. The others
// may lack its KEK. Then they could not open the fields that it seals, and the whole ring would be
// out of sync for them.
//
// Two things show that the tenant keys are only an attempt to keep the ring from being restored. One
// of them can be opened: then all others have that KEK too. Or this instance was in sync until now:
// a ring does not move while a live instance has another primary KEK.
func (m *merge) lacksKEK() bool {
	newest := m.Held.Newest() // nil if Held is
	return len(m.Stored.TenantKeys) == 0 && m.Unreadable.hasForeignTenantKey() && (newest == nil || !m.inSync(&newest.Timing))
}

// A merge is a Merge under way.
type merge struct {
	MergeInput

	rolledBack bool // see superseded

	union     *Copy                // the join, with the facts of assert and postpone
	news      ring.Facts           // facts that are stated for the first time, at proposed times
	forgotten map[ring.FactID]bool // promotions that go, see republish
}

// join returns the join of both copies: the union of their records, and the earliest or latest time
// of each fact. Both operations are commutative, associative and idempotent, so instances come to
// the same in whatever order they reach the store.
//
// Two kinds of records do not get in. One was collected before CollectedUntil. The other is missing
// in the store, and has no live token: another instance has collected it, or the loss costs
// nothing.
//
// Records of a life that has ended do not get in either. Of a ring that was destroyed, and not made
// again, the facts that end trust are all there is to know.
func (m *merge) join() *Copy {
	if m.Held == nil && m.known().Equal(ring.Facts{}) {
		return m.Stored // nearly always so where an instance starts
	}
	u := *m.Stored // shares its slices, which stay as they are
	u.Facts = u.Facts.Join(m.known())
	u.Count = max(u.Count, m.Held.count())
	if m.Held == nil {
		return NewCopy(u)
	}
	u.Head = max(u.Head, m.Held.Head) // or a ring that was emptied would look as if no key was ever minted
	u.Records, u.Accepts = m.joinRecords(u.Facts), m.joinAccepts(u.Facts)
	u.replan()
	m.drop(&u)
	u.Facts = u.Facts.Prune(u.keepsFact)
	u.replan()
	u.TenantKeys = slices.Clone(u.TenantKeys)
	for _, tk := range m.Held.TenantKeys {
		if u.tenantKey(tk.ID) == nil && u.uses(tk.ID, nil, nil) {
			u.TenantKeys = append(u.TenantKeys, tk)
		}
	}
	slices.SortFunc(u.TenantKeys, func(a, b TenantKey) int { return strings.Compare(a.ID, b.ID) })
	return &u
}

// drop removes the records from u that count as collected, and marks them as such.
//
// An instance that was cut off may hold one of them as pending, and restore it. Without the facts
// that made it a retired key, it would sign again (timeline Mark). So they are marked as [Base.Collect]
// marks those that it removes. The mark is for all instances, so this one must be in sync: otherwise
// it may have dropped a key with which others sign, as one that has not heard that its successor was
// revoked. It must know all records, and the clock of no instance may be behind the drop.
func (m *merge) drop(u *Copy) {
	var marks []time.Time
	u.Records = slices.DeleteFunc(u.Records, func(r Record) bool {
		dropped := m.collected(u, r.Record, 0)
		if dropped && len(m.Unreadable) == 0 && m.inSync(&r.Timing) && m.collected(u, r.Record, r.Timing.ClockSkew) {
			marks = append(marks, r.Created)
		}
		return dropped
	})
	for _, created := range marks {
		older := func(r Record) bool { return !r.Created.After(created) }
		if !slices.ContainsFunc(u.Records, older) {
			u.Facts.Collect(u.Facts.Dead, created)
		}
	}
}

// collected reports whether another instance may have collected r: the store lacks it, and its last
// token ended ago or longer before. That has to hold by both clocks, since this instance still
// accepts tokens by its own (I4).
//
// A key that this instance has dropped stays dropped. The union might keep it for longer, because
// its successor was just published again. But other instances have collected the key, and it must
// not return (timeline D).
func (m *merge) collected(u *Copy, r *ring.Record, ago time.Duration) bool {
	if m.ClockOff || m.Stored.Find(r.KID) != nil {
		return false
	}
	now := m.Now
	if m.LocalNow.Before(now) {
		now = m.LocalNow // the clock that is behind keeps for longer
	}
	now = now.Add(-ago)
	return u.PlanOf(r).Dropped(now) || m.Held.PlanOf(r).Dropped(now)
}

// superseded reports whether the store was rolled back to a time before a collection that this
// instance knows, while it was away for longer than SignFor. Other instances had to accept that
// store, and may have signed with the collected keys since. So this instance must accept it too,
// and forget the collection (timeline Gone).
//
// An instance that was away for less would have restored the collection in time, and asserts it.
//
// In a store that was rolled back, a collected key comes before all keys that this instance holds,
// since collections remove the start of the order. A key that comes after one of them is a record
// that was put back without the facts that gave it its place. It must not sign again.
func (m *merge) superseded() bool {
	newest := m.Held.Newest() // nil if Held is
	if newest == nil || m.ClockOff || !m.away(&newest.Timing) {
		return false
	}
	return slices.ContainsFunc(m.Stored.Plan.InOrder, func(k ring.PlannedKey) bool {
		live := k.RevokedAt.IsZero() && !k.Dropped(m.Now)
		return live && m.Held.Facts.Collected(k.Record) &&
			!slices.ContainsFunc(m.Held.Plan.InOrder, func(held ring.PlannedKey) bool { return ring.ByEffect(held, k) < 0 })
	})
}

// away reports whether this instance has been out of sync for so long that it cannot have been
// signing. Then no token of the time since can be its own, and the other instances know better.
func (m *merge) away(p *ring.Policy) bool {
	return m.Good.IsZero() || Age(m.LocalNow, m.Good) > p.SignFor
}

// inSync reports whether the last good sync of this instance is at most Freshness old.
func (m *merge) inSync(p *ring.Policy) bool {
	return !m.Good.IsZero() && Age(m.LocalNow, m.Good) <= p.Freshness
}

// missing returns the records that the store lacks, or has another one of that kid for. A record of that kid that cannot be opened is
// not missing, unless it may be replaced: it may be sealed under a KEK that this instance lacks.
func (m *merge) missing() []Record {
	var missing []Record
	for _, r := range m.union.Records {
		if !m.Stored.hasRecord(r) && m.Unreadable.writable(RecordRef(r.KID)) {
			missing = append(missing, r)
		}
	}
	return missing
}
