package synced

import (
	"slices"
	"testing"
	"time"
)

// TestAgenda: a ring is due at the time for which it was put in last, once, and not after it was removed.
func TestAgenda(t *testing.T) {
	begin := time.UnixMilli(1764421380000)
	at := func(s int) time.Time { return begin.Add(time.Duration(s) * time.Second) }
	a := &Agenda{purpose: toRotate}
	rings := make([]*Ring, 2000)
	for i := range rings {
		rings[i] = new(Ring)
		a.put(rings[i], at((i*7919)%2000)) // in no order
	}
	wantDue := func(now time.Time, want ...*Ring) {
		t.Helper()
		if got := a.due(now); !slices.Equal(got, want) {
			t.Errorf("%d rings are due, want %d", len(got), len(want))
		}
	}
	wantDue(at(-1))
	wantDue(at(0), rings[0])
	wantDue(at(0))
	late, never, gone := rings[1], rings[2], rings[3]
	a.put(late, at(5000))
	a.put(never, time.Time{})
	gone.removed.Store(true)
	if got := a.due(at(1999)); len(got) != 2000-4 || slices.Contains(got, late) || slices.Contains(got, never) || slices.Contains(got, gone) {
		t.Errorf("%d rings are due", len(got))
	}
	for range 10_000 { // a ring that changes all the time
		a.put(late, at(6000))
	}
	if len(a.heap) > 2000 {
		t.Errorf("%d entries of one ring", len(a.heap))
	}
	wantDue(at(5999))
	wantDue(at(6000), late)
}

// TestAgendaWhenTheClockIsSetBack: rings that were due by a clock that was ahead are looked at again.
func TestAgendaWhenTheClockIsSetBack(t *testing.T) {
	now := time.UnixMilli(1764421380000)
	a, r := new(Agenda), new(Ring)
	a.due(now.Add(time.Hour))
	a.put(r, now.Add(2*time.Hour))
	if got := a.due(now); len(got) != 1 || got[0] != r {
		t.Errorf("%d rings are due", len(got))
	}
}

// TestAgendaFill: a rotator that begins later finds the rings that are due by then, and nothing that was put in meanwhile
// is changed.
func TestAgendaFill(t *testing.T) {
	now := time.UnixMilli(1764421380000)
	a := &Agenda{purpose: toRotate}
	due, later, none, put := new(Ring), new(Ring), new(Ring), new(Ring)
	due.workFrom.Store(now.UnixNano())
	later.workFrom.Store(now.Add(time.Hour).UnixNano())
	put.workFrom.Store(now.Add(time.Hour).UnixNano())
	a.put(put, now)
	a.fill([]*Ring{later, due, none, put})
	if got := a.due(now); len(got) != 2 || !slices.Contains(got, due) || !slices.Contains(got, put) {
		t.Errorf("%d rings are due", len(got))
	}
	if got := a.due(now.Add(time.Hour)); len(got) != 1 || got[0] != later {
		t.Errorf("%d rings are due later", len(got))
	}
}
