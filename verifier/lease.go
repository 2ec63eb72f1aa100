package verifier

import (
	"cmp"
	"container/heap"
	"container/list"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/keystore"
)

// A lease says for how long a tenant of [Config.Resolve] is held without asking again. Its times are
// nanoseconds of Unix time.
type lease struct {
	id    string
	asked atomic.Int64 // when the question was asked that the rules are the answer to
	soon  atomic.Int64 // from when it is asked for again, while it serves on
	until atomic.Int64 // from when it does not serve

	used atomic.Int64 // when a token last passed every rule; 0 if none has

	// The rest belongs to leases.
	waiting *list.Element // in leases.fresh, or nil
	index   int           // in leases.proven plus 1, or 0
	known   int64         // used, as it was when the lease took that place
}

// useGrain is how exactly the last use is known, so that hits on several cores seldom write.
const useGrain = time.Millisecond

func (l *lease) use(now time.Time) {
	if at := keystore.UnixNano(now); at-l.used.Load() >= int64(useGrain) {
		l.used.Store(at)
	}
}

// renew makes the lease that of an answer to a question asked at that time.
func (l *lease) renew(asked time.Time, ttl time.Duration) {
	l.asked.Store(keystore.UnixNano(asked))
	l.soon.Store(keystore.UnixNano(asked.Add(ttl / 2)))
	l.until.Store(keystore.UnixNano(asked.Add(ttl)))
}

// putOff makes the lease try again a while later, after a question that failed.
func (l *lease) putOff(now time.Time, ttl time.Duration) {
	l.soon.Store(keystore.UnixNano(now.Add(min(ttl/16, 10*time.Second))))
}

// clockStep is how far the clock may be behind the moment of the question. If it was set back by more, the
// lease would last too long.
const clockStep = time.Minute

func (l *lease) expired(now time.Time) bool {
	at := keystore.UnixNano(now)
	return at >= l.until.Load() || at < l.asked.Load()-int64(clockStep)
}

func (l *lease) due(now time.Time) bool { return keystore.UnixNano(now) >= l.soon.Load() }

// next returns until when a token may be cached: until the lease is due, so that a token in use leads to
// the question, or while that fails, until the end.
func (l *lease) next(now time.Time) int64 {
	if !l.due(now) {
		return min(l.soon.Load(), l.until.Load())
	}
	return l.until.Load()
}

// leases are those of all tenants of Config.Resolve, except the suspended ones, which must not be evicted:
// a suspension would end with that. Verifier.mu guards them.
//
// A lease is fresh until a good token uses it. Anyone can write a token that names a tenant, so the fresh
// ones have a share of the room, and evict each other. The proven ones are evicted by their last use.
type leases struct {
	most   int
	fresh  *list.List // of *lease, the oldest first. Some have been used since
	proven byUse
}

// freshShare is the part of the room that the fresh leases have at least. It is at least one.
const freshShare = 8

func (p *leases) size() int { return p.fresh.Len() + len(p.proven) }

// makeRoom takes out leases until one more has room, and returns them.
func (p *leases) makeRoom() (out []*lease) {
	for p.size() >= p.most {
		oldest := p.fresh.Front()
		if oldest != nil && oldest.Value.(*lease).used.Load() > 0 {
			l := oldest.Value.(*lease)
			p.remove(l)
			l.known = l.used.Load()
			heap.Push(&p.proven, l)
		}
		var l *lease
		switch {
		case len(p.proven) > p.most-max(p.most/freshShare, 1):
			l = p.leastUsed()
		case p.fresh.Len() > 0 && p.fresh.Front() == oldest:
			l = oldest.Value.(*lease)
		default:
			continue
		}
		p.remove(l)
		out = append(out, l)
	}
	return out
}

// leastUsed returns the proven lease whose last use is the longest ago. It first moves back those
// that were used since they took their place.
func (p *leases) leastUsed() *lease {
	for {
		l := p.proven[0]
		used := l.used.Load()
		if used <= l.known {
			return l
		}
		l.known = used
		heap.Fix(&p.proven, 0)
	}
}

// follow keeps the leases in step with the rules of a tenant, which changed from old to now. Each may be
// nil.
func (p *leases) follow(old, now *rules) {
	if old != nil && old.lease != nil && (now == nil || now.lease != old.lease || now.suspended) {
		p.remove(old.lease)
	}
	if now != nil && now.lease != nil && !now.suspended && now.lease.waiting == nil && now.lease.index == 0 {
		now.lease.waiting = p.fresh.PushBack(now.lease)
	}
}

func (p *leases) remove(l *lease) {
	if l.waiting != nil {
		p.fresh.Remove(l.waiting)
		l.waiting = nil
	}
	if l.index > 0 {
		heap.Remove(&p.proven, l.index-1)
	}
}

// byUse is a heap of leases, with the one that was used the longest ago first.
type byUse []*lease

func (h byUse) Len() int           { return len(h) }
func (h byUse) Less(i, j int) bool { return cmp.Less(h[i].known, h[j].known) }
func (h byUse) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i+1, j+1
}

// Push implements [heap.Interface].
func (h *byUse) Push(l any) {
	l.(*lease).index = len(*h) + 1
	*h = append(*h, l.(*lease))
}

// Pop implements [heap.Interface].
func (h *byUse) Pop() any {
	last := len(*h) - 1
	l := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	l.index = 0
	return l
}
