package queue

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// onDemand adds tickets that a token caused, of hosts of their own.
func onDemand(q *Queue, n int, tenant string, inUse bool) (all []*Ticket) {
	for i := range n {
		k := &Ticket{Tenant: tenant, Host: fmt.Sprint(tenant, i), InUse: inUse, OnDemand: true}
		q.Add(k)
		all = append(all, k)
	}
	return all
}

// startAt starts what may start at that time after epoch, and ends it.
func startAt(q *Queue, at time.Duration) (all []*Ticket) {
	for k := q.Next(epoch.Add(at)); k != nil; k = q.Next(epoch.Add(at)) {
		q.Done(k)
		all = append(all, k)
	}
	return all
}

func TestGateKeepsToBudget(t *testing.T) {
	q := newQueue()
	q.SetBudget(5, 100*time.Millisecond)
	onDemand(q, 100, "a", false)
	if got := len(startAt(q, 0)); got != 5 {
		t.Errorf("%d started at once, want 5", got)
	}
	if wait, ok := q.Wait(epoch); wait != 100*time.Millisecond || !ok {
		t.Errorf("Wait = %v, %v", wait, ok)
	}
	started := 0
	for at := time.Duration(0); at <= time.Second; at += 10 * time.Millisecond {
		started += len(startAt(q, at))
	}
	if started != 10 {
		t.Errorf("%d started within a second, want 10", started)
	}
	// What no token caused does not wait for the budget.
	q.Add(&Ticket{Tenant: "b", Host: "b", Priority: Scheduled})
	if got := names(startAt(q, time.Second)); got != "b@b" {
		t.Errorf("started %s", got)
	}
}

// A source in use does not wait for the budget of the others, from the moment that it is in use.
func TestSourcesInUseHaveBudgetOfTheirOwn(t *testing.T) {
	q := newQueue()
	q.SetBudget(2, time.Second)
	onDemand(q, 100, "stranger", false)
	onDemand(q, 100, "another", false)
	late := onDemand(q, 1, "late", false)[0]
	startAt(q, 0)
	used := onDemand(q, 1, "used", true)[0]
	if got := startAt(q, 0); !slices.Equal(got, []*Ticket{used}) {
		t.Errorf("started %s, want the one in use", names(got))
	}
	q.Hurry(late, true)
	q.Hurry(late, false)
	if got := startAt(q, 0); !slices.Equal(got, []*Ticket{late}) {
		t.Errorf("started %s, want the one that is in use now", names(got))
	}
	onDemand(q, 1, "used", true)
	if got := startAt(q, 0); got != nil {
		t.Errorf("started %s beyond the budget of those in use", names(got))
	}
}

func TestTenantsTakeTurnsAtGate(t *testing.T) {
	q := newQueue()
	q.SetBudget(1, time.Second)
	onDemand(q, 100, "big", false)
	gone := onDemand(q, 1, "gone", false)[0]
	onDemand(q, 1, "small", false)
	if !q.Cancel(gone) || q.Cancel(gone) {
		t.Error("Cancel does not say whether it kept the ticket from starting")
	}
	startAt(q, 0)
	if got := names(startAt(q, time.Second)); got != "small@small0" {
		t.Errorf("after one of the big tenant started %s", got)
	}
}

func TestGateWithoutBudgetIsClosed(t *testing.T) {
	q := newQueue()
	onDemand(q, 1, "a", true)
	if _, ok := q.Wait(epoch); ok || startAt(q, time.Hour) != nil {
		t.Error("a queue without a budget lets a ticket in")
	}
}
