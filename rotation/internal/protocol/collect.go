package protocol

import (
	"slices"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// Collect decides about removing the records whose last token has ended. It returns nil if there is
// nothing to do.
//
// A collection removes, which a join cannot express: an instance that holds the record would put it
// back. So one fact says it for all collected records: those created at or before CollectedUntil
// are ignored, even if an instance or an old dump puts them back. This one date is enough because
//   - every collected record was created before all records that stay, and
//   - only the start of the order goes, so a record that stays never lacks the next one, which says
//     how long it verifies (timelines D and Gone).
//
// The exception is a record that was revoked before it took effect. It is removed wherever it
// stands, and CollectedUntil does not move: it stays revoked, and revocations are never removed
// (I8).
func (b *Base) Collect() *Proposal {
	inOrder, neverActive := b.Copy.Plan.InOrder, b.Copy.Plan.NeverActive
	n := slices.IndexFunc(inOrder, func(k ring.PlannedKey) bool { return !b.over(&k) })
	if n < 0 {
		n = len(inOrder)
	}
	p := Proposal{Op: ring.OpCollect, Remove: slices.Clone(bounded(b.Copy.Revived))}
	stays := b.firstToStay(inOrder[n:])
	gone := b.Copy.Facts.CollectedUntil
	for i := range inOrder[:n] {
		if k := &inOrder[i]; stays.IsZero() || k.Created.Before(stays) {
			p.Remove, gone = append(p.Remove, k.KID), later(gone, k.Created)
		}
	}
	for i := range neverActive {
		if b.over(&neverActive[i]) {
			p.Remove = append(p.Remove, neverActive[i].KID)
		}
	}
	p.RemoveAccepts = b.endedAccepts()
	p.RemoveKeys = bounded(b.unusedTenantKeys(&p))
	if len(p.Remove)+len(p.RemoveAccepts)+len(p.RemoveKeys) == 0 {
		return nil
	}
	if gone.After(b.Copy.Facts.CollectedUntil) {
		p.Facts = append(p.Facts, ProposedFact{ring.FactID{Kind: ring.FactCollected}, gone, -unbounded, 0, b.Copy.Facts.Dead})
	}
	if removed := slices.Concat(p.Remove, p.RemoveAccepts); len(removed) > 0 {
		p.KID = removed[0]
	}
	collection := p // only this one takes memory: a poll asks of many rings, and collects few
	return &collection
}

// maxRevived is how many parts of each kind one collection removes that came back, or that nothing uses.
// The next one removes more. They are not authentic: anyone who can write to the store may have added a
// hundred thousand, and one change of that size would block the store for all rings.
const maxRevived = 1000

// bounded returns at most maxRevived of names.
func bounded(names []string) []string { return names[:min(len(names), maxRevived)] }

// over reports whether every instance in sync has dropped k: it was dropped so long ago, by the
// store's clock, that all have heard of what dropped it. Before that, an instance would put the
// record back.
func (b *Base) over(k *ring.PlannedKey) bool { return k.Dropped(b.Now.Add(-k.Timing.HeardWithin())) }

// firstToStay returns when the first of the records that stay was created, or zero if no record
// stays. Those are the keys of staying, and those that were revoked before they took effect and are
// not over. [Copy.Signing] has to know the latter until their revocation is confirmed (timeline L).
func (b *Base) firstToStay(staying []ring.PlannedKey) time.Time {
	first := time.Time{}
	note := func(k *ring.PlannedKey) {
		if first.IsZero() || k.Created.Before(first) {
			first = k.Created
		}
	}
	for i := range staying {
		note(&staying[i])
	}
	for i := range b.Copy.Plan.NeverActive {
		if k := &b.Copy.Plan.NeverActive[i]; !b.over(k) {
			note(k)
		}
	}
	return first
}
