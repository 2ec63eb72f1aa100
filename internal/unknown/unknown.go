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
// Budget is a token bucket, and Memory a bounded list that forgets the oldest kid first. Memory keeps
// copies: see [ID]. Both are
// plain values: they start no goroutine, read no clock and lock nothing. The lock of the key store
// that guards its current question guards them too.
package unknown

import (
	"strings"
	"time"
)

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
	if b.Burst < 1 || b.Wait(now) > 0 {
		return false
	}
	b.full = now.Add(max(b.full.Sub(now), 0) + b.Every)
	return true
}

// Wait returns for how long Take will find nothing, or 0. It is of no use if Burst is 0.
func (b *Budget) Wait(now time.Time) time.Duration {
	most := time.Duration(b.Burst) * b.Every
	owed := max(b.full.Sub(now), 0)
	if owed > most {
		owed = most
		b.full = now.Add(owed)
	}
	return max(owed+b.Every-most, 0)
}

// An ID names a kid of one tenant. A [Memory] of one tenant, or of one set that several share, leaves
// Tenant empty.
type ID struct {
	Tenant string
	KID    string
}

// clone returns an ID that holds on to nothing else. A kid is part of a token's header, which may
// have tens of kilobytes, and all of them would stay in memory with it.
func (id ID) clone() ID { return ID{strings.Clone(id.Tenant), strings.Clone(id.KID)} }

// A Memory remembers, for the duration For, up to Most kids that were missing. It is not safe for
// concurrent use. The zero Memory remembers none.
//
// A kid that is missing from one version of the keys may be in the next. So all methods take the
// current version, and a kid that was added under another version is forgotten. Versions only grow.
type Memory struct {
	Most int
	For  time.Duration

	version uint64            // that the kids were missing from
	since   map[ID]*time.Time // pointers: assigning to a key that is there replaces the key as well
	order   []ID              // the keys of since, the oldest first
}

// Add remembers that id was missing at that time, in a copy of its own. It forgets the kids that are
// older than For, and the oldest one if there are too many.
func (m *Memory) Add(id ID, at time.Time, version uint64) {
	if version != m.version {
		m.since, m.order, m.version = nil, nil, version
	}
	if m.since == nil {
		m.since = make(map[ID]*time.Time)
	}
	for len(m.order) > 0 && !m.recent(*m.since[m.order[0]], at) {
		m.dropFirst()
	}
	if last, again := m.since[id]; again {
		*last = at
	} else {
		id = id.clone()
		m.since[id] = &at
		m.order = append(m.order, id)
	}
	for len(m.order) > m.Most {
		m.dropFirst()
	}
}

// dropFirst forgets the oldest kid.
func (m *Memory) dropFirst() {
	delete(m.since, m.order[0])
	m.order[0] = ID{} // the array outlives the slice
	m.order = m.order[1:]
}

// Has reports whether id was missing less than For ago. Times after now do not count: the clock was
// set back since.
func (m *Memory) Has(id ID, now time.Time, version uint64) bool {
	at, ok := m.since[id]
	return ok && version == m.version && m.recent(*at, now)
}

func (m *Memory) recent(at, now time.Time) bool {
	age := age(now, at)
	return 0 <= age && age < m.For
}

// Len returns how many kids of a version the memory holds, including those that are older than For.
func (m *Memory) Len(version uint64) int {
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
