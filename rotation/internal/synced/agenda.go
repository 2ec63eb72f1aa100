package synced

import (
	"slices"
	"sync"
	"time"

	"github.com/keyturn/keyturn/keystore"
)

// An Agenda says which rings to look at again, because the clock alone may have changed what they do. So a
// poll of a hundred thousand rings costs nothing where nothing is due. It is a heap with lazy removal: an
// entry counts only if its ring was not put in again since. It is safe for concurrent use.
type Agenda struct {
	purpose int // whose Ring.turns it uses

	mu     sync.Mutex // guards the fields below, and Ring.turns of its purpose
	heap   []entry    // the one that is due first comes first
	packed int        // how many entries there were when those that do not count were removed last
	last   int64      // when Due was asked last
}

// The purposes of agendas.
const (
	toWatch  = iota // which key signs: see [Rings.watch]
	toRotate        // what a rotator has to do: see [Rings.Work]
	purposes
)

// An entry says when a ring is due, in the form of [keystore.UnixNano].
type entry struct {
	at   int64
	r    *Ring
	turn uint32 // of the ring, when it was put in
}

// put makes r due at that time, and at no other. A zero time means never.
func (a *Agenda) put(r *Ring, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r.turns[a.purpose]++
	if at.IsZero() {
		return
	}
	a.push(entry{keystore.UnixNano(at), r, r.turns[a.purpose]})
	if len(a.heap) > 2*a.packed+1024 {
		a.heap = slices.DeleteFunc(a.heap, func(e entry) bool { return !a.counts(e) })
		slices.SortFunc(a.heap, func(a, b entry) int { return compareTimes(a.at, b.at) }) // a sorted slice is a heap
		a.packed = len(a.heap)
	}
}

// fill puts in the rings that were never put in, each when [Rings.look] has found.
func (a *Agenda) fill(rings []*Ring) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range rings {
		if at := r.workFrom.Load(); at != 0 && r.turns[a.purpose] == 0 {
			a.push(entry{at, r, 0})
		}
	}
	a.packed = len(a.heap)
}

func compareTimes(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// counts reports whether e is the last word about its ring. The caller holds a.mu.
func (a *Agenda) counts(e entry) bool { return e.turn == e.r.turns[a.purpose] && !e.r.removed.Load() }

// push adds an entry. The caller holds a.mu.
func (a *Agenda) push(e entry) {
	a.heap = append(a.heap, e)
	for i := len(a.heap) - 1; i > 0; {
		up := (i - 1) / 2
		if a.heap[up].at <= a.heap[i].at {
			return
		}
		a.heap[up], a.heap[i] = a.heap[i], a.heap[up]
		i = up
	}
}

// pop removes the first entry. The caller holds a.mu.
func (a *Agenda) pop() entry {
	first, last := a.heap[0], len(a.heap)-1
	a.heap[0], a.heap[last] = a.heap[last], entry{}
	a.heap = a.heap[:last]
	for i := 0; ; {
		least := i
		for _, down := range [2]int{2*i + 1, 2*i + 2} {
			if down < last && a.heap[down].at < a.heap[least].at {
				least = down
			}
		}
		if least == i {
			return first
		}
		a.heap[i], a.heap[least] = a.heap[least], a.heap[i]
		i = least
	}
}

// due removes the rings that are due at now, and returns them. If the clock was set back, all are: the time
// at which they were looked at last did not come.
func (a *Agenda) due(now time.Time) (rings []*Ring) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := keystore.UnixNano(now)
	back := n < a.last
	a.last = n
	for len(a.heap) > 0 && (back || a.heap[0].at <= n) {
		if e := a.pop(); a.counts(e) {
			rings = append(rings, e.r)
		}
	}
	return rings
}
