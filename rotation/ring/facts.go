package ring

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Facts are the events in the life of a ring, by kind and kid. They only grow:
// [Facts.Join] is commutative, associative and idempotent, so copies that have
// diverged become equal in whatever order they hear of each other.
//
// The zero Facts are empty. A Facts must not be changed while others read it.
type Facts struct {
	at []dated // by kind and kid: a few, in a slice since thousands of rings are at rest

	// Dead is when the ring was destroyed, or zero: the earliest counts.
	Dead time.Time

	// CollectedUntil is the creation time of the newest collected record, or zero.
	// Records created at or before it are ignored, even if they reappear in the
	// store. The latest counts.
	CollectedUntil time.Time
}

// A dated fact is one with its time.
type dated struct {
	FactID
	at time.Time
}

func (f Facts) find(kind FactKind, kid string) (int, bool) {
	return slices.BinarySearchFunc(f.at, FactID{kind, kid}, func(d dated, id FactID) int {
		return cmp.Or(cmp.Compare(d.Kind, id.Kind), strings.Compare(d.KID, id.KID))
	})
}

// At returns when the fact of that kind happened to the record, and whether it
// did.
func (f Facts) At(kind FactKind, kid string) (time.Time, bool) {
	i, ok := f.find(kind, kid)
	if !ok {
		return time.Time{}, false
	}
	return f.at[i].at, true
}

// Add learns a fact. Of two for one record the kind decides which counts.
func (f *Facts) Add(kind FactKind, kid string, at time.Time) {
	i, ok := f.find(kind, kid)
	switch {
	case !ok:
		f.at = slices.Insert(f.at, i, dated{FactID{kind, kid}, at})
	case at.Before(f.at[i].at) == kind.earliest() && !at.Equal(f.at[i].at):
		f.at[i].at = at
	}
}

// Kill learns that the ring was destroyed.
func (f *Facts) Kill(at time.Time) {
	if f.Dead.IsZero() || at.Before(f.Dead) {
		f.Dead = at
	}
}

// Collect learns that the records created at or before until were collected.
func (f *Facts) Collect(until time.Time) { f.CollectedUntil = later(f.CollectedUntil, until) }

// Collected reports whether the record has been collected.
func (f Facts) Collected(r *Record) bool { return !r.Created.After(f.CollectedUntil) }

// Join returns the facts of f and of g.
func (f Facts) Join(g Facts) Facts {
	j := f.Clone()
	for _, d := range g.at {
		j.Add(d.Kind, d.KID, d.at)
	}
	if !g.Dead.IsZero() {
		j.Kill(g.Dead)
	}
	j.Collect(g.CollectedUntil)
	return j
}

// Prune returns the facts about the records that are kept. A revocation is never forgotten; the
// other facts go with their record.
func (f Facts) Prune(kept func(kid string) bool) Facts {
	g := Facts{Dead: f.Dead, CollectedUntil: f.CollectedUntil}
	for id, at := range f.All {
		if id.Kind == FactRevoked || kept(id.KID) {
			g.Add(id.Kind, id.KID, at)
		}
	}
	return g
}

// Forget removes a fact. It breaks the rule that facts only grow, so it is only for a fact that no
// other instance can have heard of.
func (f *Facts) Forget(kind FactKind, kid string) {
	if i, ok := f.find(kind, kid); ok {
		f.at = slices.Delete(f.at, i, i+1)
	}
}

// Clone returns a copy that shares nothing.
func (f Facts) Clone() Facts {
	return Facts{at: slices.Clip(slices.Clone(f.at)), Dead: f.Dead, CollectedUntil: f.CollectedUntil}
}

// Equal reports whether both hold the same.
func (f Facts) Equal(g Facts) bool {
	same := func(a, b dated) bool { return a.FactID == b.FactID && a.at.Equal(b.at) }
	return f.Dead.Equal(g.Dead) && f.CollectedUntil.Equal(g.CollectedUntil) && slices.EqualFunc(f.at, g.at, same)
}

// A FactID names a fact.
type FactID struct {
	Kind FactKind
	KID  string
}

// All calls yield with each fact, by kind and kid, until it returns false: an
// [iter.Seq2].
func (f Facts) All(yield func(id FactID, at time.Time) bool) {
	for _, d := range f.at {
		if !yield(d.FactID, d.at) {
			return
		}
	}
}

// latest returns the latest of the facts of the kinds, or zero.
func (f Facts) latest(of ...FactKind) (t time.Time) {
	for _, d := range f.at {
		if slices.Contains(of, d.Kind) {
			t = later(t, d.at)
		}
	}
	return t
}
