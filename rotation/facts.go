package rotation

import (
	"maps"
	"time"
)

// Facts are what is known about the records of a ring, by kid. They only grow:
// [Facts.Join] is commutative, associative and idempotent, so that copies that
// have diverged meet again in whatever order they hear of each other.
//
// The zero Facts hold nothing. A Facts must not be changed while others read it.
type Facts struct {
	at map[FactKind]map[string]time.Time

	// Dead is when the ring was destroyed, or zero: the earliest counts.
	Dead time.Time
}

// At returns when the fact of that kind happened to the record, and whether it
// did.
func (f Facts) At(kind FactKind, kid string) (time.Time, bool) {
	t, ok := f.at[kind][kid]
	return t, ok
}

// Add learns a fact. Of two for one record the kind decides which counts.
func (f *Facts) Add(kind FactKind, kid string, at time.Time) {
	old, ok := f.At(kind, kid)
	if ok && at.Before(old) != kind.earliest() || ok && at.Equal(old) {
		return
	}
	if f.at == nil {
		f.at = make(map[FactKind]map[string]time.Time)
	}
	if f.at[kind] == nil {
		f.at[kind] = make(map[string]time.Time)
	}
	f.at[kind][kid] = at
}

// Kill learns that the ring was destroyed.
func (f *Facts) Kill(at time.Time) {
	if f.Dead.IsZero() || at.Before(f.Dead) {
		f.Dead = at
	}
}

// Join returns what is known to either.
func (f Facts) Join(g Facts) Facts {
	j := f.Clone()
	for kind, all := range g.at {
		for kid, at := range all {
			j.Add(kind, kid, at)
		}
	}
	if !g.Dead.IsZero() {
		j.Kill(g.Dead)
	}
	return j
}

// of returns the facts without those that no record needs: what was revoked is
// never forgotten, the rest goes with its record.
func (f Facts) of(kept func(kid string) bool) Facts {
	g := Facts{Dead: f.Dead}
	for id, at := range f.All {
		if id.Kind == FactRevoked || kept(id.KID) {
			g.Add(id.Kind, id.KID, at)
		}
	}
	return g
}

// forget removes a fact: only what nobody else can have heard of.
func (f *Facts) forget(kind FactKind, kid string) { delete(f.at[kind], kid) }

// Clone returns a copy that shares nothing.
func (f Facts) Clone() Facts {
	c := Facts{Dead: f.Dead}
	if f.at != nil {
		c.at = make(map[FactKind]map[string]time.Time, len(f.at))
		for kind, all := range f.at {
			c.at[kind] = maps.Clone(all)
		}
	}
	return c
}

// Equal reports whether both hold the same.
func (f Facts) Equal(g Facts) bool {
	if !f.Dead.Equal(g.Dead) {
		return false
	}
	for _, kind := range kinds {
		if !maps.EqualFunc(f.at[kind], g.at[kind], time.Time.Equal) {
			return false
		}
	}
	return true
}

// A FactID names a fact.
type FactID struct {
	Kind FactKind
	KID  string
}

// All calls yield with each fact, in no order, until it returns false: an
// [iter.Seq2].
func (f Facts) All(yield func(id FactID, at time.Time) bool) {
	for kind, all := range f.at {
		for kid, at := range all {
			if !yield(FactID{kind, kid}, at) {
				return
			}
		}
	}
}

// latest returns the latest of the facts of the kinds, or zero.
func (f Facts) latest(of ...FactKind) (t time.Time) {
	for _, kind := range of {
		for _, at := range f.at[kind] {
			if at.After(t) {
				t = at
			}
		}
	}
	return t
}
