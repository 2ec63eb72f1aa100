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
	FactDestroyed FactKind = 'd' // Facts.Dead and Facts.DeadAt
	FactCollected FactKind = 'g' // Facts.CollectedUntil, of the life that Facts.Dead leaves
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

	// Dead is how many lives of the ring have ended: a shred ends one, and a ring that is made after
	// it begins the next. Records of a life that has ended are ignored. The highest number counts,
	// and not a date: the side of a split that had not heard of the shred mints records after it.
	Dead int

	// DeadAt is when the last of these lives ended, or zero if that is not known. The earliest counts.
	DeadAt time.Time

	// CollectedUntil is the creation time of the newest collected record, or zero. Records created
	// at or before it are ignored, even if they reappear in the store. The latest counts. It is about
	// the life that Dead leaves: one that ended may have gone on, in a split, after the next began.
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

// Kill adds that so many lives of the ring have ended, the last one at that time, or at one that is
// not known if that is zero. What was collected of a life that has ended no longer matters.
func (f *Facts) Kill(lives int, at time.Time) {
	switch {
	case lives > f.Dead:
		f.Dead, f.DeadAt, f.CollectedUntil = lives, at, time.Time{}
	case lives == f.Dead && lives > 0 && !at.IsZero() && (f.DeadAt.IsZero() || at.Before(f.DeadAt)):
		f.DeadAt = at
	}
}

// Collect adds that the records of a life that were created at or before until were collected. The
// latest time counts. A life has such records only if the lives before it have ended.
func (f *Facts) Collect(life int, until time.Time) {
	if f.Kill(life, time.Time{}); life == f.Dead {
		f.CollectedUntil = later(f.CollectedUntil, until)
	}
}

// Ignored reports whether the record no longer counts: its life has ended, or it was collected.
func (f Facts) Ignored(r *Record) bool { return r.Life < f.Dead || f.Collected(r) }

// Collected reports whether the record was collected, and so is to be ignored.
func (f Facts) Collected(r *Record) bool {
	return r.Life == f.Dead && !r.Created.After(f.CollectedUntil)
}

// Join returns the facts of f and g together. It changes neither.
func (f Facts) Join(g Facts) Facts {
	j := f.Clone()
	for _, d := range g.dated {
		j.Add(d.Kind, d.KID, d.at)
	}
	j.Kill(g.Dead, g.DeadAt)
	j.Collect(g.Dead, g.CollectedUntil)
	return j
}

// Prune returns the facts that are kept. A revocation stays all the same, since the record may
// reappear.
func (f Facts) Prune(kept func(FactID) bool) Facts {
	g := f.OfRing()
	for id, at := range f.All {
		if id.Kind == FactRevoked || kept(id) {
			g.Add(id.Kind, id.KID, at)
		}
	}
	return g
}

// OfRing returns the facts about the whole ring alone.
func (f Facts) OfRing() Facts {
	return Facts{Dead: f.Dead, DeadAt: f.DeadAt, CollectedUntil: f.CollectedUntil}
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
	c := f.OfRing()
	c.dated = slices.Clip(slices.Clone(f.dated))
	return c
}

// Equal reports whether f and g have the same facts at the same times.
func (f Facts) Equal(g Facts) bool {
	same := func(a, b datedFact) bool { return a.FactID == b.FactID && a.at.Equal(b.at) }
	return f.Dead == g.Dead && f.DeadAt.Equal(g.DeadAt) && f.CollectedUntil.Equal(g.CollectedUntil) && slices.EqualFunc(f.dated, g.dated, same)
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
