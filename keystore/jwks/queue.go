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

	// fairTurn is every how many starts the schedule has the first choice: however
	// many ask on demand, refreshes go on.
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
// another's. It is
// not safe for concurrent use. Every step takes constant time, on average.
type queue struct {
	lanes   [lanes]rota
	started int
	running int
	hosts   map[string]*gate // those with something running

	unproven int                  // of those that run
	shut     [standings][]*ticket // those that may not start beside these
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

// A gate is passed by so many at once. Who finds it shut is parked.
type gate struct {
	running int
	parked  []*ticket
}

// add puts t in its lane.
func (q *queue) add(t *ticket) {
	t.waiting = true
	q.lanes[t.lane].push(t)
}

// hurry moves t to the urgent lane. It leaves its old place, which next skips.
func (q *queue) hurry(t *ticket) {
	if t.waiting && t.lane != urgent {
		t.lane = urgent
		q.lanes[urgent].push(t)
	}
}

// cancel takes t out, and reports whether it was still waiting.
func (q *queue) cancel(t *ticket) bool {
	was := t.waiting
	t.waiting = false
	return was
}

// next returns the ticket that may start now, or nil.
func (q *queue) next() *ticket {
	if q.running == maxFetches {
		return nil
	}
	order := [lanes]lane{urgent, scheduled}
	if q.started%fairTurn == fairTurn-1 {
		order = [lanes]lane{scheduled, urgent}
	}
	for _, l := range order {
		for t := q.lanes[l].pop(); t != nil; t = q.lanes[l].pop() {
			if t.waiting && t.lane == l && q.pass(t) {
				return t
			}
		}
	}
	return nil
}

// pass starts t, or parks it where it cannot pass.
func (q *queue) pass(t *ticket) bool {
	if q.hosts == nil {
		q.hosts = make(map[string]*gate)
	}
	host := q.hosts[t.host]
	if host == nil {
		host = new(gate)
	}
	if host.running == maxPerHost {
		host.parked = append(host.parked, t)
		return false
	}
	if !q.admits(t.standing) {
		q.shut[t.standing] = append(q.shut[t.standing], t)
		q.unpark(&host.parked) // the place that t did not take
		return false
	}
	t.waiting = false
	q.started++
	q.running++
	host.running++
	q.hosts[t.host] = host
	if t.standing != proven {
		q.unproven++
	}
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
	host := q.hosts[t.host]
	host.running--
	q.unpark(&host.parked)
	if host.running == 0 {
		// What is still parked here was unparked one by one, and is parked
		// elsewhere now, or starts again from its lane.
		for _, p := range host.parked {
			q.lanes[p.lane].unshift(p)
		}
		delete(q.hosts, t.host)
	}
	if t.standing == proven {
		return
	}
	q.unproven--
	for _, s := range []standing{untried, failing} {
		if q.admits(s) {
			q.unpark(&q.shut[s])
		}
	}
}

// unpark lets the first of those that were parked try again.
func (q *queue) unpark(parked *[]*ticket) {
	for len(*parked) > 0 {
		t := (*parked)[0]
		(*parked)[0] = nil
		*parked = (*parked)[1:]
		if t.waiting {
			q.lanes[t.lane].unshift(t)
			return
		}
	}
}

// A rota takes turns between tenants.
type rota struct {
	turns list.List // of *turn
	by    map[string]*list.Element
}

type turn struct {
	tenant  string
	tickets []*ticket
}

// of returns the turn of a tenant, made as the last one if there is none.
func (r *rota) of(tenant string) *list.Element {
	if r.by == nil {
		r.by = make(map[string]*list.Element)
	}
	e := r.by[tenant]
	if e == nil {
		e = r.turns.PushBack(&turn{tenant: tenant})
		r.by[tenant] = e
	}
	return e
}

func (r *rota) push(t *ticket) {
	of := r.of(t.tenant).Value.(*turn)
	of.tickets = append(of.tickets, t)
}

// unshift makes t the first.
func (r *rota) unshift(t *ticket) {
	e := r.of(t.tenant)
	of := e.Value.(*turn)
	of.tickets = append([]*ticket{t}, of.tickets...)
	r.turns.MoveToFront(e)
}

// pop returns the first ticket of the tenant whose turn it is, or nil.
func (r *rota) pop() *ticket {
	e := r.turns.Front()
	if e == nil {
		return nil
	}
	of := e.Value.(*turn)
	t := of.tickets[0]
	of.tickets[0] = nil
	if of.tickets = of.tickets[1:]; len(of.tickets) > 0 {
		r.turns.MoveToBack(e)
	} else {
		r.turns.Remove(e)
		delete(r.by, of.tenant)
	}
	return t
}
