// Package queue decides which fetch starts next: a bounded queue with two priorities, in which
// tenants take turns, behind a gate for fetches that strangers can cause.
//
//	Add --> gate (on demand only)                        Next
//	 |        |                                            ^
//	 |        | 1 as the budget allows, tenants in turns   | at most so many run
//	 v        v                                            |
//	urgent     in use | not in use  --+                    |
//	                                  +--> the first class that is admitted
//	scheduled  in use | not in use  --+    and whose host has room
//	              ^                                        |
//	              | the host has room again                | the host runs its most
//	              +------------- parked at its host <------+
//
// Each cell holds three round robins of tenants, one for each health, so that one tenant's backlog
// cannot block another. Urgent tickets, for which a caller waits, go first. So do those of sources
// in use: they verified a token lately, which no stranger can cause. Every fourth start is one of
// those that otherwise come second, if there is any.
//
// Fetches that hang take their full timeout. So a quarter of the places is for sources in use:
// however many tokens strangers forge, they fill the other three quarters. Health keeps room in
// both parts for what works, and for issuers that have not been asked yet. groups has the numbers.
package queue

import (
	"container/list"
	"time"
)

// A group is a part of the tickets, and how many eighths of the places it may have at once. Each
// group leaves an eighth to the tickets that are in the group before it only.
type group struct {
	eighths int
	has     func(inUse bool, h Health) bool
}

var groups = [...]group{
	{8, func(bool, Health) bool { return true }},
	{7, func(inUse bool, h Health) bool { return !inUse || h != Proven }},
	{6, func(_ bool, h Health) bool { return h != Proven }},
	{5, func(_ bool, h Health) bool { return h == Failing }},

	{6, func(inUse bool, _ Health) bool { return !inUse }},
	{5, func(inUse bool, h Health) bool { return !inUse && h != Proven }},
	{4, func(inUse bool, h Health) bool { return !inUse && h == Failing }},
}

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
	InUse    bool     // whether a source verified a token lately; until [Queue.Hurry]
	OnDemand bool     // whether a token causes it: it waits at the gate first
	Start    func()   // for the caller of [Queue.Next]; the queue does not call it

	place *roundRobin // where it waits; nil: it does not. Elsewhere it may have left an old place
	gated bool        // it waits at the gate
}

// A class is a use and a health.
type class int

const (
	idle    = class(healths) // the first class that is not in use
	classes = 2 * idle
)

func (t *Ticket) class() class {
	if t.InUse {
		return class(t.Health)
	}
	return idle + class(t.Health)
}

func (c class) health() Health { return Health(c % idle) }

// A Queue holds tickets until they may start. The zero Queue is empty, and lets no ticket start: see
// [Queue.SetLimits], and for those on demand [Queue.SetBudget]. It is not safe for concurrent use. Every method takes constant
// time, on average.
type Queue struct {
	gate    gate
	most    [len(groups)]int // how many may run of each group
	perHost int
	waiting [priorities][classes]roundRobin
	urgent  run             // of priorities
	inUse   [priorities]run // of classes in use
	ticks   int64
	running [len(groups)]int
	hosts   map[string]*hostLimit // of the hosts with a ticket that runs or is parked
}

// A hostLimit counts what runs at a host, and parks the tickets for which it has no room. While it
// has room, at least one ticket of each class that has some parked is in the queue itself.
type hostLimit struct {
	running int
	parked  [classes][priorities]roundRobin
	urgent  [classes]run
}

// SetLimits sets how many tickets may run at once, and how many of those at one host. Both are at
// least 1. It is for an empty Queue.
func (q *Queue) SetLimits(running, perHost int) {
	for i, g := range groups {
		q.most[i] = max(1, running/8*g.eighths+running%8*g.eighths/8)
	}
	q.perHost = perHost
}

// Add adds t.
func (q *Queue) Add(t *Ticket) {
	if t.OnDemand {
		q.gate.add(t, q.tick())
		return
	}
	q.enter(t)
}

// enter gives t a place behind the gate.
func (q *Queue) enter(t *Ticket) { q.waiting[t.Priority][t.class()].push(t, q.tick()) }

// Hurry makes t urgent, if it still waits, and one of a source in use if inUse says so. Its old
// place remains, and pop skips it.
func (q *Queue) Hurry(t *Ticket, inUse bool) {
	before := t.class()
	inUse = inUse || t.InUse
	if t.place == nil || t.Priority == Urgent && t.InUse == inUse {
		return
	}
	t.Priority, t.InUse = Urgent, inUse
	if t.gated {
		q.gate.add(t, q.tick())
		return
	}
	q.enter(t)
	q.unpark(t.Host, before)
}

// Cancel removes t, and reports whether it was still waiting.
func (q *Queue) Cancel(t *Ticket) bool {
	was := t.place != nil
	t.place = nil
	if was {
		q.unpark(t.Host, t.class())
	}
	return was
}

// Next returns the ticket that may start at now, or nil. The caller must call [Queue.Done] when it
// has ended, and Next again after [Queue.Wait].
func (q *Queue) Next(now time.Time) *Ticket {
	for t := q.gate.next(now, q.tick()); t != nil; t = q.gate.next(now, q.tick()) {
		q.enter(t)
	}
	if q.running[0] == q.most[0] {
		return nil
	}
	for _, p := range q.urgent.order() {
		for t := q.pop(Priority(p)); t != nil; t = q.pop(Priority(p)) {
			if q.start(t) {
				return t
			}
		}
	}
	return nil
}

// pop removes the first ticket of a priority whose class is admitted, or returns nil.
func (q *Queue) pop(p Priority) *Ticket {
	for {
		first := q.first(p)
		if first == nil {
			return nil
		}
		if t := first.pop(q.tick()); t != nil {
			return t
		}
	}
}

// first returns the round robin whose turn it is: of the use that has the first choice, that of the
// tenant that has waited longest.
func (q *Queue) first(p Priority) (first *roundRobin) {
	for _, second := range q.inUse[p].order() {
		for h := range healths {
			c := idle*class(second) + class(h)
			r := &q.waiting[p][c]
			if !r.empty() && q.admits(c) && (first == nil || r.since() < first.since()) {
				first = r
			}
		}
		if first != nil {
			break
		}
	}
	return first
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
	if host.running == q.perHost {
		host.parked[t.class()][t.Priority].push(t, q.tick())
		return false
	}
	t.place = nil
	q.urgent.add(t.Priority == Scheduled)
	q.inUse[t.Priority].add(!t.InUse)
	host.running++
	q.add(t, 1)
	q.unpark(t.Host, t.class())
	return true
}

// add adds n to what runs in the groups of t.
func (q *Queue) add(t *Ticket, n int) {
	for i, g := range groups {
		if g.has(t.InUse, t.Health) {
			q.running[i] += n
		}
	}
}

// admits reports whether a ticket of that class may start beside those that run.
func (q *Queue) admits(c class) bool {
	for i, g := range groups {
		if q.running[i] == q.most[i] && g.has(c < idle, c.health()) {
			return false
		}
	}
	return true
}

// Done ends a ticket that Next returned.
func (q *Queue) Done(t *Ticket) {
	q.add(t, -1)
	q.hosts[t.Host].running--
	for c := range classes {
		q.unpark(t.Host, c)
	}
}

// unpark returns to the queue the next ticket of that class that is parked at a host, if the host
// has room.
func (q *Queue) unpark(name string, c class) {
	host := q.hosts[name]
	if host == nil || host.running == q.perHost {
		return
	}
	for _, p := range host.urgent[c].order() {
		parked := &host.parked[c][p]
		if parked.empty() {
			continue
		}
		if t := parked.pop(q.tick()); t != nil {
			host.urgent[c].add(t.Priority == Scheduled)
			q.waiting[p][c].pushAlone(t, q.tick())
			break
		}
	}
	if host.unused() {
		delete(q.hosts, name)
	}
}

func (l *hostLimit) unused() bool {
	for c := range classes {
		for p := range priorities {
			if !l.parked[c][p].empty() {
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

// A run is how many tickets with the first choice went since the last one of the others.
type run int

// secondEvery is how often the others have the first choice: every fourth start.
const secondEvery = 4

func (r *run) add(second bool) {
	*r++
	if second {
		*r = 0
	}
}

// order returns 0 for those that usually have the first choice, and 1 for the others, the one that
// has it now first.
func (r run) order() [2]int {
	if r >= secondEvery-1 {
		return [2]int{1, 0}
	}
	return [2]int{0, 1}
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
	t.place = r
	e.Value.(*turn).tickets.PushBack(t)
}

// pushAlone gives t a turn of its own, the last one. Other tickets may wait for its host behind it,
// and must not wait for the rest of its tenant's.
func (r *roundRobin) pushAlone(t *Ticket, tick int64) *list.Element {
	of := &turn{tenant: t.Tenant, since: tick}
	of.tickets.PushBack(t)
	t.place = r
	return r.turns.PushBack(of)
}

func (r *roundRobin) empty() bool { return r.turns.Len() == 0 }

// since returns the tick since which the tenant whose turn it is has waited.
func (r *roundRobin) since() int64 { return r.turns.Front().Value.(*turn).since }

// pop returns the first ticket of the tenant whose turn it is, or nil. It drops the tickets that no
// longer wait there.
func (r *roundRobin) pop(tick int64) *Ticket {
	for !r.empty() {
		e := r.turns.Front()
		of := e.Value.(*turn)
		t := of.tickets.Remove(of.tickets.Front()).(*Ticket)
		waits := t.place == r
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
