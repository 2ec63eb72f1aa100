// Package queue decides which fetch starts next: a bounded queue with two priorities, in which
// tenants take turns.
//
//	             Add                                   Next
//	              |                                      ^
//	              v                                      | at most 16 run
//	urgent     proven | untried | failing   --+          |
//	                                          +--> the first whose health is admitted
//	scheduled  proven | untried | failing   --+    and whose host has room
//	              ^                                      |
//	              | the host has room again              | the host runs 2
//	              +------------ parked at its host <-----+
//
// Each cell is a round robin of tenants, so that one tenant's backlog cannot block another. Urgent
// tickets, for which a caller waits, go first. Every fourth start is a scheduled one, if there is
// any: however many callers ask on demand, refreshes go on.
//
// Health keeps room for what works. Fetches that hang take their full timeout, so at most 14 of the
// 16 may be for endpoints that did not answer the last time or have not been asked yet. While 12 of
// those run, failing ones wait, so that new endpoints find room too.
package queue

import "container/list"

// Bounds on what runs at once.
const (
	MaxRunning  = 16
	MaxPerHost  = 2
	MaxUnproven = 14 // untried and failing together
	MaxFailing  = 12 // a failing one starts only while fewer unproven ones run
)

// scheduledEvery is how often a scheduled ticket has the first choice: every fourth start.
const scheduledEvery = 4

// A Priority says who waits for a fetch.
type Priority int

// The priorities, the higher one first.
const (
	Urgent    Priority = iota // a caller
	Scheduled                 // only the schedule
	priorities
)

// A Health says how the last fetch of an endpoint ended.
type Health int

// The healths of an endpoint.
const (
	Proven  Health = iota // well
	Untried               // there was none yet
	Failing               // with an error
	healths
)

// A Ticket is a place in the queue. Its fields must not change once it was added.
type Ticket struct {
	Tenant   string // whose turn it takes
	Host     string // whose limit it counts for
	Health   Health
	Priority Priority // until [Queue.Hurry]
	Start    func()   // for the caller of [Queue.Next]; the queue does not call it

	waiting bool
}

// A Queue holds tickets until they may start. The zero Queue is empty. It is not safe for
// concurrent use. Every method takes constant time, on average.
type Queue struct {
	waiting  [priorities][healths]roundRobin
	urgent   urgentRun
	ticks    int64
	running  int
	unproven int                   // of those that run
	hosts    map[string]*hostLimit // of the hosts with a ticket that runs or is parked
}

// A hostLimit counts what runs at a host, and parks the tickets for which it has no room. While it
// has room, at least one ticket of each health that has some parked is in the queue itself.
type hostLimit struct {
	running int
	parked  [healths][priorities]roundRobin
	urgent  [healths]urgentRun
}

// Add adds t.
func (q *Queue) Add(t *Ticket) {
	t.waiting = true
	q.waiting[t.Priority][t.Health].push(t, q.tick())
}

// Hurry makes t urgent, if it still waits. Its old place remains, and pop skips it.
func (q *Queue) Hurry(t *Ticket) {
	if t.waiting && t.Priority != Urgent {
		t.Priority = Urgent
		q.waiting[Urgent][t.Health].push(t, q.tick())
	}
}

// Cancel removes t, and reports whether it was still waiting.
func (q *Queue) Cancel(t *Ticket) bool {
	was := t.waiting
	t.waiting = false
	if was {
		q.unpark(t.Host, t.Health)
	}
	return was
}

// Next returns the ticket that may start now, or nil. The caller must call [Queue.Done] when it has
// ended.
func (q *Queue) Next() *Ticket {
	if q.running == MaxRunning {
		return nil
	}
	for _, p := range q.urgent.order() {
		for t := q.pop(p); t != nil; t = q.pop(p) {
			if q.start(t) {
				return t
			}
		}
	}
	return nil
}

// pop removes the first ticket of a priority whose health is admitted, or returns nil.
func (q *Queue) pop(p Priority) *Ticket {
	for {
		var first *roundRobin
		for h := range healths {
			r := &q.waiting[p][h]
			if !r.empty() && q.admits(h) && (first == nil || r.since() < first.since()) {
				first = r
			}
		}
		if first == nil {
			return nil
		}
		if t := first.pop(p, q.tick()); t != nil {
			return t
		}
	}
}

// start starts t, or parks it if its host has no room.
func (q *Queue) start(t *Ticket) bool {
	host := q.hosts[t.Host]
	if host == nil {
		if q.hosts == nil {
			q.hosts = make(map[string]*hostLimit)
		}
		host = new(hostLimit)
		q.hosts[t.Host] = host
	}
	if host.running == MaxPerHost {
		host.parked[t.Health][t.Priority].push(t, q.tick())
		return false
	}
	t.waiting = false
	q.urgent.count(t.Priority)
	q.running++
	host.running++
	if t.Health != Proven {
		q.unproven++
	}
	q.unpark(t.Host, t.Health)
	return true
}

// admits reports whether a ticket of that health may start beside those that run.
func (q *Queue) admits(h Health) bool {
	switch h {
	case Untried:
		return q.unproven < MaxUnproven
	case Failing:
		return q.unproven < MaxFailing
	}
	return true
}

// Done ends a ticket that Next returned.
func (q *Queue) Done(t *Ticket) {
	q.running--
	if t.Health != Proven {
		q.unproven--
	}
	q.hosts[t.Host].running--
	for h := range healths {
		q.unpark(t.Host, h)
	}
}

// unpark returns to the queue the next ticket of that health that is parked at a host, if the host
// has room.
func (q *Queue) unpark(name string, h Health) {
	host := q.hosts[name]
	if host == nil || host.running == MaxPerHost {
		return
	}
	for _, p := range host.urgent[h].order() {
		if t := host.parked[h][p].pop(p, q.tick()); t != nil {
			host.urgent[h].count(p)
			q.waiting[p][h].pushAlone(t, q.tick())
			break
		}
	}
	if host.unused() {
		delete(q.hosts, name)
	}
}

func (l *hostLimit) unused() bool {
	for h := range healths {
		for p := range priorities {
			if !l.parked[h][p].empty() {
				return false
			}
		}
	}
	return l.running == 0
}

// tick returns a number that grows with each call.
func (q *Queue) tick() int64 {
	q.ticks++
	return q.ticks
}

// An urgentRun is how many urgent tickets went since the last scheduled one.
type urgentRun int

func (r *urgentRun) count(p Priority) {
	*r++
	if p == Scheduled {
		*r = 0
	}
}

// order returns the priorities, the one with the first choice first.
func (r urgentRun) order() [priorities]Priority {
	if r >= scheduledEvery-1 {
		return [priorities]Priority{Scheduled, Urgent}
	}
	return [priorities]Priority{Urgent, Scheduled}
}

// A roundRobin gives tenants turns. The tickets of one tenant stay in their order.
type roundRobin struct {
	turns    list.List                // of *turn, the next one first
	byTenant map[string]*list.Element // the turn that a tenant's next ticket joins
}

type turn struct {
	tenant  string
	since   int64     // the tick of its last turn
	tickets list.List // of *Ticket
}

// push makes t the last of its tenant.
func (r *roundRobin) push(t *Ticket, tick int64) {
	if r.byTenant == nil {
		r.byTenant = make(map[string]*list.Element)
	}
	e := r.byTenant[t.Tenant]
	if e == nil {
		r.byTenant[t.Tenant] = r.pushAlone(t, tick)
		return
	}
	e.Value.(*turn).tickets.PushBack(t)
}

// pushAlone gives t a turn of its own, the last one. Other tickets may wait for its host behind it,
// and must not wait for the rest of its tenant's.
func (r *roundRobin) pushAlone(t *Ticket, tick int64) *list.Element {
	of := &turn{tenant: t.Tenant, since: tick}
	of.tickets.PushBack(t)
	return r.turns.PushBack(of)
}

func (r *roundRobin) empty() bool { return r.turns.Len() == 0 }

// since returns the tick since which the tenant whose turn it is has waited.
func (r *roundRobin) since() int64 { return r.turns.Front().Value.(*turn).since }

// pop returns the first ticket of the tenant whose turn it is, or nil. It drops the tickets that no
// longer wait at that priority.
func (r *roundRobin) pop(p Priority, tick int64) *Ticket {
	for !r.empty() {
		e := r.turns.Front()
		of := e.Value.(*turn)
		t := of.tickets.Remove(of.tickets.Front()).(*Ticket)
		waits := t.waiting && t.Priority == p
		switch {
		case of.tickets.Len() == 0:
			r.turns.Remove(e)
			if r.byTenant[of.tenant] == e {
				delete(r.byTenant, of.tenant)
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
