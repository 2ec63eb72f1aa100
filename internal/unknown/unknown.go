// Package unknown bounds what a kid that a key store does not hold can cost the issuer or the
// shared store behind it.
//
// Anyone can put any kid into a token, so the question "is this kid new?" must be cheap to ask a
// million times. A key store asks it in three steps:
//
//	Memory.Has    was the kid missing from a recent answer?   -> the answer, for free
//	(the store)   is a question under way?                    -> wait for that one
//	Budget.Take   is there budget left for a new question?    -> ask, then Memory.Add
//
// Budget is a token bucket, and Memory a bounded list that forgets the oldest kid first. Both are
// plain values: they start no goroutine, read no clock and lock nothing. The lock of the key store
// that guards its current question guards them too.
package unknown

import "time"

// A Budget allows Burst questions at once, and one more each time Every has passed. It is not safe
// for concurrent use. The zero Budget allows none.
type Budget struct {
	Burst int
	Every time.Duration

	full time.Time // when everything that was taken will be back
}

// Take takes one question from the budget at now, and reports whether there was one. If the clock
// was set back, the budget counts as empty and fills up from now on.
func (b *Budget) Take(now time.Time) bool {
	most := time.Duration(b.Burst) * b.Every
	owed := max(b.full.Sub(now), 0)
	if owed > most {
		owed = most
		b.full = now.Add(owed)
	}
	if b.Burst < 1 || owed+b.Every > most {
		return false
	}
	b.full = now.Add(owed + b.Every)
	return true
}

// A Memory remembers, for the duration For, up to Most kids that were missing. It is not safe for
// concurrent use. The zero Memory remembers none.
//
// A kid that is missing from one version of the keys may be in the next. So all methods take the
// current version, and a kid that was added under another version is forgotten. Versions only grow.
type Memory[K comparable] struct {
	Most int
	For  time.Duration

	version uint64 // that the kids were missing from
	since   map[K]time.Time
	order   []K // the keys of since, the oldest first
}

// Add remembers that k was missing at that time. It forgets the oldest kid if there are too many.
func (m *Memory[K]) Add(k K, at time.Time, version uint64) {
	if version != m.version {
		m.since, m.order, m.version = nil, nil, version
	}
	if m.since == nil {
		m.since = make(map[K]time.Time)
	}
	if _, again := m.since[k]; !again {
		m.order = append(m.order, k)
	}
	m.since[k] = at
	for len(m.order) > m.Most {
		delete(m.since, m.order[0])
		m.order = m.order[1:]
	}
}

// Has reports whether k was missing less than For ago. Times after now do not count: the clock was
// set back since.
func (m *Memory[K]) Has(k K, now time.Time, version uint64) bool {
	at, ok := m.since[k]
	if !ok || version != m.version {
		return false
	}
	age := age(now, at)
	return 0 <= age && age < m.For
}

// Len returns how many kids of a version the memory holds, including those that are older than For.
func (m *Memory[K]) Len(version uint64) int {
	if version != m.version {
		return 0
	}
	return len(m.order)
}

// age returns how old a time is by the clock that says more. A machine that was suspended has a
// monotonic clock that stood still, and one whose clock was set back has a wall clock that says
// less than has passed.
func age(now, at time.Time) time.Duration {
	return max(now.Sub(at), now.Round(0).Sub(at.Round(0)))
}
