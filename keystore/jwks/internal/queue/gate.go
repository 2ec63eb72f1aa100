package queue

import (
	"time"

	"github.com/keyturn/keyturn/internal/unknown"
)

// A gate lets tickets on demand in no faster than a budget allows. Anyone can write a token that is
// plausible until its signature is checked, for any number of tenants. Sources in use have a budget
// of their own, which strangers reach only through those sources.
type gate struct {
	inUse, idle lane
}

// A lane is the budget of one use, and the tickets that wait for it. Tenants take turns.
type lane struct {
	budget  unknown.Budget
	waiting roundRobin
}

// SetBudget sets how many tickets on demand the gate lets in, for sources in use, and again as many
// for the others: burst at once, and one more each time every has passed. It is for an empty Queue.
func (q *Queue) SetBudget(burst int, every time.Duration) {
	q.gate.inUse.budget = unknown.Budget{Burst: burst, Every: every}
	q.gate.idle.budget = q.gate.inUse.budget
}

// Wait returns how long after now the gate lets in the next ticket, and false if none waits there.
func (q *Queue) Wait(now time.Time) (wait time.Duration, ok bool) {
	for _, l := range q.gate.lanes() {
		if l.waiting.empty() || l.budget.Burst == 0 {
			continue
		}
		if w := l.budget.Wait(now); !ok || w < wait {
			wait, ok = w, true
		}
	}
	return wait, ok
}

func (g *gate) lanes() [2]*lane { return [2]*lane{&g.inUse, &g.idle} }

// add gives t a place at the gate.
func (g *gate) add(t *Ticket, tick int64) {
	t.gated = true
	l := &g.idle
	if t.InUse {
		l = &g.inUse
	}
	l.waiting.push(t, tick)
}

// next returns a ticket that the gate lets in at now, or nil.
func (g *gate) next(now time.Time, tick int64) *Ticket {
	for _, l := range g.lanes() {
		if l.waiting.empty() || l.budget.Burst == 0 || l.budget.Wait(now) > 0 {
			continue
		}
		if t := l.waiting.pop(tick); t != nil {
			l.budget.Take(now)
			t.gated = false
			return t
		}
	}
	return nil
}
