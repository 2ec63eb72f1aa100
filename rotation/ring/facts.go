package ring

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// A FactKind is a kind of event in the life of a record or of a whole ring. Its value is the letter
// that stands for it in the store: see docs/formats.md.
type FactKind byte

// The kinds of facts about one record. Of two times for the same fact the comment says which
// counts.
const (
	FactRevoked     FactKind = 'x' // it does nothing from then on; the earliest counts
	FactPromoted    FactKind = 'a' // it was made to sign before its schedule; the earliest counts
	FactForced      FactKind = 'f' // it was made to sign before all instances could know it; the earliest counts
	FactRepublished FactKind = 'r' // it was lost and restored, and waits for Propagation again; the latest counts
	FactAnnounced   FactKind = 'w' // it, or its promotion, became known, or known again; the latest counts
	FactAccepted    FactKind = 'u' // an accepted key verifies until then; the latest counts
)

// The kinds of facts about a whole ring. They have no kid, and [Facts] has a field for each.
const (
	FactDestroyed FactKind = 'd' // Facts.Dead
	FactCollected FactKind = 'g' // Facts.CollectedUntil
)

// FactKinds returns the kinds of facts about one record.
func FactKinds() []FactKind {
	return []FactKind{FactRevoked, FactPromoted, FactForced, FactRepublished, FactAnnounced, FactAccepted}
}

// earliest reports whether the earlier of two times counts. What ends trust or starts signing
// counts from the first time on. What makes a key wait, or keeps its predecessor, counts from the
// last.
func (k FactKind) earliest() bool { return k == FactRevoked || k == FactPromoted || k == FactForced }

// Known reports whether k is a kind of fact about one record.
func (k FactKind) Known() bool {
	switch k {
	case FactRevoked, FactPromoted, FactForced, FactRepublished, FactAnnounced, FactAccepted:
		return true
	}
	return false
}

// A FactID names a fact about one record.
type FactID struct {
	Kind FactKind
	KID  string
}

// Facts are what happened to the records of a ring, each with its time.
//
// They only grow. Of two times for one fact the kind decides which counts, so no copy has to know
// which came first. [Facts.Join] is commutative, associative and idempotent: copies that have
// diverged become equal once each has joined the other, in whatever order.
//
// The zero Facts are empty. Facts must not be changed while other goroutines read them.
type Facts struct {
	// dated has the facts about single records, sorted by kind and kid. It is a slice and not a
	// map, since a ring has only a few, and thousands of rings are in memory.
	dated []datedFact

	// Dead is when the ring was destroyed, or zero. The earliest counts.
	Dead time.Time

	// CollectedUntil is the creation time of the newest collected record, or zero. Records created
	// at or before it are ignored, even if they reappear in the store. The latest counts.
	CollectedUntil time.Time
}

// A datedFact is a fact about one record, with its time.
type datedFact struct {
	FactID
	at time.Time
}

// find returns the index of a fact in f.dated, or where to insert it.
func (f Facts) find(kind FactKind, kid string) (int, bool) {
	return slices.BinarySearchFunc(f.dated, FactID{kind, kid}, func(d datedFact, id FactID) int {
		return cmp.Or(cmp.Compare(d.Kind, id.Kind), strings.Compare(d.KID, id.KID))
	})
}

// At returns when the fact of that kind happened to the record of that kid, and whether it did.
func (f Facts) At(kind FactKind, kid string) (time.Time, bool) {
	i, ok := f.find(kind, kid)
	if !ok {
		return time.Time{}, false
	}
	return f.dated[i].at, true
}

// Add adds a fact about one record. If f has a time for it, the kind decides which of the two
// counts.
func (f *Facts) Add(kind FactKind, kid string, at time.Time) {
	i, ok := f.find(kind, kid)
	switch {
	case !ok:
		f.dated = slices.Insert(f.dated, i, datedFact{FactID{kind, kid}, at})
	case at.Before(f.dated[i].at) == kind.earliest() && !at.Equal(f.dated[i].at): // at counts
		f.dated[i].at = at
	}
}

// Kill adds that the ring was destroyed. The earliest time counts.
func (f *Facts) Kill(at time.Time) {
	if f.Dead.IsZero() || at.Before(f.Dead) {
		f.Dead = at
	}
}

// Collect adds that the records created at or before until were collected. The latest counts.
func (f *Facts) Collect(until time.Time) { f.CollectedUntil = later(f.CollectedUntil, until) }

// Collected reports whether the record was collected, and so is to be ignored.
func (f Facts) Collected(r *Record) bool { return !r.Created.After(f.CollectedUntil) }

// Join returns the facts of f and g together. It changes neither.
func (f Facts) Join(g Facts) Facts {
	j := f.Clone()
	for _, d := range g.dated {
		j.Add(d.Kind, d.KID, d.at)
	}
	if !g.Dead.IsZero() {
		j.Kill(g.Dead)
	}
	j.Collect(g.CollectedUntil)
	return j
}

// Prune returns the facts that are kept. A revocation stays all the same, since the record may
// reappear.
func (f Facts) Prune(kept func(FactID) bool) Facts {
	g := Facts{Dead: f.Dead, CollectedUntil: f.CollectedUntil}
	for id, at := range f.All {
		if id.Kind == FactRevoked || kept(id) {
			g.Add(id.Kind, id.KID, at)
		}
	}
	return g
}

// Forget removes a fact about one record. It breaks the rule that facts only grow. So it is only
// for a fact that no other instance can have read.
func (f *Facts) Forget(kind FactKind, kid string) {
	if i, ok := f.find(kind, kid); ok {
		f.dated = slices.Delete(f.dated, i, i+1)
	}
}

// Clone returns a copy that shares no memory with f.
func (f Facts) Clone() Facts {
	return Facts{dated: slices.Clip(slices.Clone(f.dated)), Dead: f.Dead, CollectedUntil: f.CollectedUntil}
}

// Equal reports whether f and g have the same facts at the same times.
func (f Facts) Equal(g Facts) bool {
	same := func(a, b datedFact) bool { return a.FactID == b.FactID && a.at.Equal(b.at) }
	return f.Dead.Equal(g.Dead) && f.CollectedUntil.Equal(g.CollectedUntil) && slices.EqualFunc(f.dated, g.dated, same)
}

// All calls yield with each fact about a single record, sorted by kind and kid, until yield returns
// false. It is an [iter.Seq2], so that a for loop can range over f.All.
func (f Facts) All(yield func(id FactID, at time.Time) bool) {
	for _, d := range f.dated {
		if !yield(d.FactID, d.at) {
			return
		}
	}
}

// latest returns the latest time of any fact of the kinds, or zero.
func (f Facts) latest(kinds ...FactKind) (t time.Time) {
	for _, d := range f.dated {
		if slices.Contains(kinds, d.Kind) {
			t = later(t, d.at)
		}
	}
	return t
}
