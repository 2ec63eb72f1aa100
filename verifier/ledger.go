package verifier

import (
	"maps"
	"math"
	"strings"
)

// A revocation ends tokens that were issued before a second. It may be forgotten once
// no verifier accepts any of them.
type revocation struct {
	before int64 // in seconds since 1970: the tokens were issued earlier
	end    int64 // in the form of keystore.UnixNano: no verifier accepts them later
}

// covers reports whether r makes o needless, if all tokens of o are tokens of r.
func (r revocation) covers(o revocation) bool { return r.before >= o.before && r.end >= o.end }

// A ledger holds the revocations of one kind, by owner and name.
//
// An owner may hold as many as there is room left: alone half of the room. So whatever it
// does, others have room. This is the dynamic threshold of Choudhury and Hahne (IEEE/ACM
// Transactions on Networking 6(2), 1998), with the factor 1. A ledger with a single owner
// is not shared.
type ledger struct {
	room     int
	shared   bool
	size     int
	byOwner  map[string]map[string]revocation
	earliest int64 // not later than the end of any of them
}

func newLedger(room int, shared bool) ledger {
	return ledger{room: room, shared: shared, byOwner: make(map[string]map[string]revocation), earliest: math.MaxInt64}
}

func (l *ledger) find(owner, name string) (revocation, bool) {
	r, ok := l.byOwner[owner][name]
	return r, ok
}

// put adds r, or moves the one of that name forward, never back. It forgets those that
// ended before now if it needs room, and reports whether there was room.
func (l *ledger) put(owner, name string, r revocation, now int64) bool {
	if old, ok := l.find(owner, name); ok {
		l.byOwner[owner][name] = revocation{max(old.before, r.before), max(old.end, r.end)}
		return true
	}
	if !l.hasRoom(owner) {
		if l.forget(now); !l.hasRoom(owner) {
			return false
		}
	}
	names := l.byOwner[owner]
	if names == nil {
		names = make(map[string]revocation)
		l.byOwner[strings.Clone(owner)] = names
	}
	// The name is mostly a part of a token, and would keep all its claims in memory.
	names[strings.Clone(name)] = r
	l.size++
	l.earliest = min(l.earliest, r.end)
	return true
}

func (l *ledger) hasRoom(owner string) bool {
	left := l.room - l.size
	return left > 0 && (!l.shared || len(l.byOwner[owner]) < left)
}

// forget removes the revocations that ended before now. It scans all of them, so it
// returns at once while none has ended.
func (l *ledger) forget(now int64) {
	if l.earliest >= now {
		return
	}
	l.earliest = math.MaxInt64
	for owner := range l.byOwner {
		l.removeIf(owner, func(r revocation) bool {
			if r.end < now {
				return true
			}
			l.earliest = min(l.earliest, r.end)
			return false
		})
	}
}

// removeIf removes those of an owner that goes selects.
func (l *ledger) removeIf(owner string, goes func(revocation) bool) {
	names := l.byOwner[owner]
	l.size -= len(names)
	maps.DeleteFunc(names, func(_ string, r revocation) bool { return goes(r) })
	l.size += len(names)
	if len(names) == 0 {
		delete(l.byOwner, owner)
	}
}

// remove reports whether the name was there.
func (l *ledger) remove(owner, name string) bool {
	_, ok := l.find(owner, name)
	if ok {
		delete(l.byOwner[owner], name)
		l.size--
		l.removeIf(owner, func(revocation) bool { return false })
	}
	return ok
}
