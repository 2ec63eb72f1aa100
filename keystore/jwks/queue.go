package jwks

import "container/list"

// Bounds on what a Client does at once.
const (
	maxFetches = 16
	maxPerHost = 2

	// maxUnproven is how many of them may be for endpoints that have not been asked
	// yet, or did not answer the last time: however many hang, there is room for
	// those that do not. Where maxFailing of them run already, none whose last attempt failed
	// starts, so that there is room for new ones, too.
	maxUnproven = 14
	maxFailing  = 12

	// fairTurn is every how many the schedule has the first choice: however many ask
	// on demand, refreshes go on.
	fairTurn = 4
)

// A lane says who waits for a fetch.
type lane int

const (
	urgent    lane = iota // somebody does
	scheduled             // nobody
	lanes
)

// A standing is what is known of an endpoint.
type standing int

const (
	proven  standing = iota
	untried          // it has not been asked yet
	failing          // its last attempt failed
	standings
)

// A queue decides which flight goes next: those that somebody waits for first, but
// for every fourth, and otherwise tenant by tenant, so that nobody waits for all of
// another's. Where one may not start, the next one that may does. It is not safe for
// concurrent use. Every step takes constant time, on average.
type queue struct {
	waiting  [lanes][standings]rota
	urgents  streak
	ticks    int64
	running  int
	unproven int              // of those that run
	hosts    map[string]*gate // those with something running or parked
}

// A ticket is a flight's place in the queue.
type ticket struct {
	tenant   string
	host     string
	standing standing
	lane     lane
	waiting  bool
	start    func() // by [queue.next]'s caller
}

// A gate is passed by so many at once. Who finds it shut is parked. While it is open,
// one at least of each standing that has some parked waits in the queue itself.
type gate struct {
	running int
	parked  [standings][lanes]rota
	urgents [standings]streak
}

// add puts t in its lane.
func (q *queue) add(t *ticket) {
	t.waiting = true
	q.waiting[t.lane][t.standing].push(t, q.tick())
}

// hurry moves t to the urgent lane. It leaves its old place, which pop skips.
func (q *queue) hurry(t *ticket) {
	if t.waiting && t.lane != urgent {
		t.lane = urgent
		q.waiting[urgent][t.standing].push(t, q.tick())
	}
}

// cancel takes t out, and reports whether it was still waiting.
func (q *queue) cancel(t *ticket) bool {
	was := t.waiting
	t.waiting = false
	if was {
		q.unpark(t.host, t.standing)
	}
	return was
}

// next returns the ticket that may start now, or nil.
func (q *queue) next() *ticket {
	if q.running == maxFetches {
		return nil
	}
	for _, l := range q.urgents.order() {
		for t := q.pop(l); t != nil; t = q.pop(l) {
			if q.pass(t) {
				return t
			}
		}
	}
	return nil
}

// pop takes the first ticket of a lane whose standing is admitted, or returns nil.
func (q *queue) pop(l lane) *ticket {
	for {
		var first *rota
		for s := range standings {
			r := &q.waiting[l][s]
			if !r.empty() && q.admits(s) && (first == nil || r.since() < first.since()) {
				first = r
			}
		}
		if first == nil {
			return nil
		}
		if t := first.pop(l, q.tick()); t != nil {
			return t
		}
	}
}

// pass starts t, or parks it where its host has no room.
func (q *queue) pass(t *ticket) bool {
	host := q.hosts[t.host]
	if host == nil {
		if q.hosts == nil {
			q.hosts = make(map[string]*gate)
		}
		host = new(gate)
		q.hosts[t.host] = host
	}
	if host.running == maxPerHost {
		host.parked[t.standing][t.lane].push(t, q.tick())
		return false
	}
	t.waiting = false
	q.urgents.count(t.lane)
	q.running++
	host.running++
	if t.standing != proven {
		q.unproven++
	}
	q.unpark(t.host, t.standing)
	return true
}

// admits reports whether one of that standing may start beside those that run.
func (q *queue) admits(s standing) bool {
	switch s {
	case untried:
		return q.unproven < maxUnproven
	case failing:
		return q.unproven < maxFailing
	}
	return true
}

// done ends what next started.
func (q *queue) done(t *ticket) {
	q.running--
	if t.standing != proven {
		q.unproven--
	}
	q.hosts[t.host].running--
	for s := range standings {
		q.unpark(t.host, s)
	}
}

// unpark lets the next one of that standing that is parked at a host try again, if
// there is room.
func (q *queue) unpark(name string, s standing) {
	host := q.hosts[name]
	if host == nil || host.running == maxPerHost {
		return
	}
	for _, l := range host.urgents[s].order() {
		if t := host.parked[s][l].pop(l, q.tick()); t != nil {
			host.urgents[s].count(l)
			q.waiting[l][s].pushAlone(t, q.tick())
			break
		}
	}
	if host.unused() {
		delete(q.hosts, name)
	}
}

func (g *gate) unused() bool {
	for s := range standings {
		for l := range lanes {
			if !g.parked[s][l].empty() {
				return false
			}
		}
	}
	return g.running == 0
}

// tick returns a number that is greater each time.
func (q *queue) tick() int64 {
	q.ticks++
	return q.ticks
}

// A streak is how many urgent ones went since the last one of the schedule.
type streak int

func (s *streak) count(l lane) {
	*s++
	if l == scheduled {
		*s = 0
	}
}

// order returns the lanes, the one with the first choice first.
func (s streak) order() [lanes]lane {
	if s >= fairTurn-1 {
		return [lanes]lane{scheduled, urgent}
	}
	return [lanes]lane{urgent, scheduled}
}

// A rota takes turns between tenants.
type rota struct {
	turns list.List // of *turn
	by    map[string]*list.Element
}

type turn struct {
	tenant  string
	since   int64     // the tick of its last turn
	tickets list.List // of *ticket
}

// push makes t the last of its tenant.
func (r *rota) push(t *ticket, tick int64) {
	if r.by == nil {
		r.by = make(map[string]*list.Element)
	}
	e := r.by[t.tenant]
	if e == nil {
		r.by[t.tenant] = r.pushAlone(t, tick)
		return
	}
	e.Value.(*turn).tickets.PushBack(t)
}

// pushAlone gives t a turn of its own, the last one: others may wait for its host
// behind it, and are not to wait for the rest of its tenant's.
func (r *rota) pushAlone(t *ticket, tick int64) *list.Element {
	of := &turn{tenant: t.tenant, since: tick}
	of.tickets.PushBack(t)
	return r.turns.PushBack(of)
}

func (r *rota) empty() bool { return r.turns.Len() == 0 }

// since returns since when the tenant whose turn it is has had none.
func (r *rota) since() int64 { return r.turns.Front().Value.(*turn).since }

// pop returns the first ticket of the tenant whose turn it is, or nil. Those that do
// not wait in that lane any more are dropped.
func (r *rota) pop(l lane, tick int64) *ticket {
	for !r.empty() {
		e := r.turns.Front()
		of := e.Value.(*turn)
		t := of.tickets.Remove(of.tickets.Front()).(*ticket)
		waits := t.waiting && t.lane == l
		switch {
		case of.tickets.Len() == 0:
			r.turns.Remove(e)
			if r.by[of.tenant] == e {
				delete(r.by, of.tenant)
			}
		case waits:
			of.since = tick
			r.turns.MoveToBack(e)
		}
		if waits {
			return t
		}
	}
	return nil
}
