package protocol

import (
	"slices"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// Collect decides about removing the records whose last token has ended. It returns nil if there is
// nothing to do.
//
// A collected record stays so, even if an instance puts it back: the facts that gave it its place in
// the order were removed, too. So every collected record was created before all records that stay.
// The exception is a record that was revoked before it took effect, since it stays revoked.
func (b *Base) Collect() *Proposal {
	inOrder, neverActive := b.Copy.Plan.InOrder, b.Copy.Plan.NeverActive
	n := slices.IndexFunc(inOrder, func(k ring.PlannedKey) bool { return !b.over(&k) })
	if n < 0 {
		n = len(inOrder)
	}
	p := &Proposal{Op: ring.OpCollect, Remove: slices.Clone(b.Copy.Revived)}
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
	if len(p.Remove) == 0 {
		return nil
	}
	if gone.After(b.Copy.Facts.CollectedUntil) {
		p.Facts = append(p.Facts, ProposedFact{ring.FactID{Kind: ring.FactCollected}, gone, -forever, 0})
	}
	p.KID = p.Remove[0]
	return p
}

// over reports whether every instance in sync has dropped k.
func (b *Base) over(k *ring.PlannedKey) bool {
	return k.Dropped(b.Now.Add(-k.Timing.Freshness - k.Timing.ClockSkew))
}

// firstToStay returns when the first of the records that stay was created: those of staying, and those
// that were revoked before they took effect and are not over, since [Copy.Signing] may have to know
// of their revocation. It returns zero if no record stays.
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
