package queue

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// newQueue returns a queue with the limits that the numbers of these tests are about.
func newQueue() *Queue {
	q := new(Queue)
	q.SetLimits(16, 2)
	return q
}

// start starts all tickets that may start now.
func start(q *Queue) (all []*Ticket) {
	for k := q.Next(epoch); k != nil; k = q.Next(epoch) {
		all = append(all, k)
	}
	return all
}

// successors starts the tickets that may start as n others end, one after another.
func successors(q *Queue, running []*Ticket, n int) (all []*Ticket) {
	for range n {
		q.Done(running[0])
		next := start(q)
		running, all = append(running[1:], next...), append(all, next...)
	}
	return all
}

func names(all []*Ticket) string {
	var b strings.Builder
	for _, k := range all {
		fmt.Fprintf(&b, "%s@%s ", k.Tenant, k.Host)
	}
	return strings.TrimSpace(b.String())
}

// blocked makes tickets that have to wait: for others of their health, or of their host.
var blocked = map[string]func(i int) *Ticket{
	"untried":                   func(i int) *Ticket { return &Ticket{Host: fmt.Sprint(i), Health: Untried} },
	"failing":                   func(i int) *Ticket { return &Ticket{Host: fmt.Sprint(i), Health: Failing} },
	"a host":                    func(int) *Ticket { return &Ticket{Host: "h"} },
	"a host of failing issuers": func(int) *Ticket { return &Ticket{Host: "h", Health: Failing} },
}

// addBlocked adds n tickets of a tenant.
func addBlocked(q *Queue, newTicket func(i int) *Ticket, n, from int, tenant string, p Priority) (all []*Ticket) {
	for ; n > 0; n-- {
		k := newTicket(from + n)
		k.Tenant, k.Priority = tenant, p
		q.Add(k)
		all = append(all, k)
	}
	return all
}

// No number is too large for a limit, as that of a caller who wants none.
func TestLimitsWithoutEnd(t *testing.T) {
	q := new(Queue)
	q.SetLimits(math.MaxInt, math.MaxInt)
	for i := range 100 {
		q.Add(&Ticket{Tenant: fmt.Sprint(i), Host: "h", Health: Failing})
	}
	if n := len(start(q)); n != 100 {
		t.Errorf("%d of 100 tickets may start", n)
	}
}

func TestTwoRunPerHost(t *testing.T) {
	q := newQueue()
	for i := range 5 {
		q.Add(&Ticket{Tenant: fmt.Sprint(i), Host: "h", Priority: Scheduled})
	}
	q.Add(&Ticket{Tenant: "x", Host: "other", Priority: Scheduled})
	running := start(q)
	if got := names(running); got != "0@h 1@h x@other" {
		t.Fatalf("started %s", got)
	}
	q.Done(running[2])
	if got := names(start(q)); got != "" {
		t.Fatalf("started %s", got)
	}
	for _, want := range []string{"2@h", "3@h", "4@h"} {
		q.Done(running[0])
		next := start(q)
		if names(next) != want {
			t.Fatalf("started %s, want %s", names(next), want)
		}
		running[0] = next[0]
	}
}

func TestTenantsTakeTurns(t *testing.T) {
	q := newQueue()
	for i := range 40 {
		q.Add(&Ticket{Tenant: "big", Host: fmt.Sprint(i), Priority: Scheduled})
	}
	q.Add(&Ticket{Tenant: "small", Host: "s", Priority: Scheduled})
	running := start(q)
	if len(running) != 12 || running[1].Tenant != "small" {
		t.Errorf("started %s", names(running))
	}
}

func TestUrgentGoesFirst(t *testing.T) {
	q := newQueue()
	var all []*Ticket
	for i := range 20 {
		all = append(all, &Ticket{Tenant: fmt.Sprint(i), Host: fmt.Sprint(i), Priority: Scheduled})
		q.Add(all[i])
	}
	q.Hurry(all[19], false)
	q.Hurry(all[19], false)
	q.Cancel(all[0])
	running := start(q)
	if len(running) != 12 || running[0] != all[19] || running[1] != all[1] {
		t.Errorf("started %s", names(running))
	}
}

func TestScheduleHasEveryFourthStart(t *testing.T) {
	q := newQueue()
	for i := range 100 {
		q.Add(&Ticket{Tenant: fmt.Sprint(i), Host: fmt.Sprint(i), Priority: Urgent})
	}
	for i := range 10 {
		q.Add(&Ticket{Tenant: fmt.Sprint("quiet", i), Host: fmt.Sprint("quiet", i), Priority: Scheduled})
	}
	running := start(q)
	for len(running) < 48 {
		q.Done(running[len(running)-12])
		running = append(running, start(q)...)
	}
	for i, k := range running {
		if got, want := k.Priority == Scheduled, i%4 == 3 && i < 40; got != want {
			t.Errorf("start %d, of %s: scheduled %v, want %v", i, k.Tenant, got, want)
		}
	}
}

// add adds n tickets, each with a tenant and a host of its own.
func add(q *Queue, n int, name string, h Health, p Priority, inUse bool) {
	for i := range n {
		q.Add(&Ticket{Tenant: fmt.Sprint(name, i), Host: fmt.Sprint(name, i), Health: h, Priority: p, InUse: inUse})
	}
}

// wantHealths checks how many tickets of each health started.
func wantHealths(t *testing.T, started []*Ticket, want ...int) {
	t.Helper()
	got := make([]int, healths)
	for _, k := range started {
		got[k.Health]++
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v started, want %v", got, want)
	}
}

// Failing tickets leave room for untried ones, both leave room for proven ones, and those of sources
// that are not in use leave room for those that are.
func TestHealthKeepsRoom(t *testing.T) {
	for _, tt := range []struct {
		inUse []bool
		want  [][]int // failing, untried and proven ones that start, in that order
	}{
		{[]bool{false, true}, [][]int{{8, 2, 2}, {2, 0, 2}}},
		{[]bool{true, false}, [][]int{{10, 2, 4}, {0, 0, 0}}},
	} {
		q := newQueue()
		for i, inUse := range tt.inUse {
			for j, h := range []Health{Failing, Untried, Proven} {
				add(q, 30, fmt.Sprint(i, j), h, Urgent, inUse)
				if got := len(start(q)); got != tt.want[i][j] {
					t.Errorf("in use %v, health %d: %d started, want %d", inUse, h, got, tt.want[i][j])
				}
			}
		}
	}
	// Failing and untried ones of sources in use leave room for others.
	q := newQueue()
	add(q, 30, "failing", Failing, Urgent, true)
	wantHealths(t, start(q), 0, 0, 10)
	add(q, 30, "untried", Untried, Urgent, false)
	wantHealths(t, start(q), 0, 2, 0)
	add(q, 30, "proven", Proven, Urgent, false)
	wantHealths(t, start(q), 2, 0, 0)
	add(q, 30, "used", Proven, Urgent, true)
	wantHealths(t, start(q), 2, 0, 0)

	// And the other way round: untried ones may take the places of failing ones.
	q = newQueue()
	add(q, 30, "untried", Untried, Urgent, false)
	running := start(q)
	wantHealths(t, running, 0, 10, 0)
	add(q, 30, "failing", Failing, Urgent, false)
	wantHealths(t, start(q), 0, 0, 0)
	for _, k := range running {
		q.Done(k)
		wantHealths(t, start(q), 0, 1, 0)
	}
}

// However healthy the others are, a quarter of the places is for sources in use. Those may take all.
func TestSourcesInUseHaveAQuarter(t *testing.T) {
	q := newQueue()
	add(q, 30, "stranger", Proven, Urgent, false)
	if got := len(start(q)); got != 12 {
		t.Errorf("%d of sources that are not in use started, want 12", got)
	}
	add(q, 30, "used", Proven, Scheduled, true)
	if got := len(start(q)); got != 4 {
		t.Errorf("%d of sources in use started, want 4", got)
	}
	q = newQueue()
	add(q, 30, "used", Proven, Scheduled, true)
	if got := len(start(q)); got != 16 {
		t.Errorf("%d of sources in use started, want 16", got)
	}
}

// Sources in use go first, also at a host that all use, but every fourth start is one of the others.
func TestSourcesInUseGoFirst(t *testing.T) {
	for name, newTicket := range blocked {
		for p := range priorities {
			q := newQueue()
			addBlocked(q, newTicket, 100, 0, "stranger", p)
			running := start(q)
			for i := range 100 {
				k := newTicket(1000 + i)
				k.Tenant, k.Priority, k.InUse = fmt.Sprint("used", i), p, true
				q.Add(k)
			}
			running = append(running, start(q)...) // 30 more unproven ones, or the host's
			started := successors(q, running, 40)
			strangers := 0
			for _, k := range started {
				if !k.InUse {
					strangers++
				}
			}
			if strangers < 9 || strangers > 11 {
				t.Errorf("%s, priority %d: %d of 40 are not in use, want every fourth", name, p, strangers)
			}
		}
	}
}

func TestUrgentGoesFirstAmongBlocked(t *testing.T) {
	for name, newTicket := range blocked {
		t.Run(name, func(t *testing.T) {
			q := newQueue()
			all := addBlocked(q, newTicket, 40, 0, "big", Scheduled)
			running := start(q)
			q.Hurry(all[38], false)
			q.Hurry(all[39], false)
			q.Cancel(all[38])
			start(q)
			late := addBlocked(q, newTicket, 1, 100, "small", Urgent)[0]
			start(q)
			if got := successors(q, running, 2); !slices.Equal(got, []*Ticket{all[39], late}) {
				t.Errorf("started %s", names(got))
			}
		})
	}
}

func TestTenantsTakeTurnsAmongBlocked(t *testing.T) {
	for name, newTicket := range blocked {
		t.Run(name, func(t *testing.T) {
			for p := range priorities {
				q := newQueue()
				addBlocked(q, newTicket, 40, 0, "big", p)
				running := start(q)
				addBlocked(q, newTicket, 3, 100, "small", p)
				small := 0
				for _, k := range successors(q, running, 6) {
					if k.Tenant == "small" {
						small++
					}
				}
				if small != 3 {
					t.Errorf("%d of the first six are of the small tenant, want 3", small)
				}
			}
		})
	}
}

func TestScheduleHasEveryFourthStartAmongBlocked(t *testing.T) {
	for name, newTicket := range blocked {
		t.Run(name, func(t *testing.T) {
			q := newQueue()
			addBlocked(q, newTicket, 40, 0, "asked", Urgent)
			addBlocked(q, newTicket, 40, 100, "quiet", Scheduled)
			running := start(q)
			got := 0
			for _, k := range successors(q, running, 24) {
				if k.Priority == Scheduled {
					got++
				}
			}
			if got != 6 {
				t.Errorf("%d of 24 are of the schedule, want 6", got)
			}
		})
	}
}

func TestTenantsTakeTurnsWhateverTheirHealth(t *testing.T) {
	q := newQueue()
	for i := range 100 {
		q.Add(&Ticket{Tenant: fmt.Sprint(i), Host: fmt.Sprint(i)})
	}
	running := start(q)
	for i := range 100 {
		q.Add(&Ticket{Tenant: "broken", Host: fmt.Sprint("broken", i), Health: Failing})
	}
	broken := 0
	for range 80 {
		q.Done(running[0])
		next := start(q)
		if running = append(running[1:], next...); next[0].Tenant == "broken" {
			broken++
		}
	}
	if broken > 1 {
		t.Errorf("%d of 80 starts are of one tenant among 85", broken)
	}
}

// A ticket that waits for its host, and then for its turn, keeps no other ticket of that host
// waiting for the rest of its tenant's.
func TestBacklogDoesNotBlockSharedHost(t *testing.T) {
	q := newQueue()
	for range 3 {
		q.Add(&Ticket{Tenant: "big", Host: "h"})
	}
	q.Add(&Ticket{Tenant: "small", Host: "h"})
	running := start(q)
	for i := range 100 {
		q.Add(&Ticket{Tenant: "big", Host: fmt.Sprint(i)})
	}
	for n := 1; ; n++ {
		running = append(running, start(q)...)
		if slices.ContainsFunc(running, func(k *Ticket) bool { return k.Tenant == "small" }) {
			break
		}
		if n == 10 {
			t.Fatalf("not among %s", names(running))
		}
		q.Done(running[0])
		running = running[1:]
	}
}

// A ticket that stands in the queue for others of its host and class leaves another one in its place
// when its source comes into use.
func TestHurryLeavesAnotherInItsPlace(t *testing.T) {
	q := newQueue()
	var all []*Ticket
	for range 4 {
		all = append(all, &Ticket{Tenant: "a", Host: "h"})
		q.Add(all[len(all)-1])
	}
	start(q) // two run, and two are parked
	q.Done(all[0])
	q.Hurry(all[2], true)
	q.Cancel(all[2])
	if got := start(q); !slices.Equal(got, all[3:]) {
		t.Errorf("started %s, want the last one", names(got))
	}
}

// While ten thousand tickets wait, each step looks at a few.
func TestStepsTakeConstantTime(t *testing.T) {
	for name, newTicket := range blocked {
		q, all := newQueue(), []*Ticket(nil)
		for i := range 10_000 {
			k := newTicket(i)
			k.Tenant, k.Priority = fmt.Sprint(i%100), Scheduled
			q.Add(k)
			all = append(all, k)
		}
		running := start(q)
		for _, k := range all {
			q.Hurry(k, false)
			start(q)
		}
		for len(running) > 0 {
			q.Done(running[0])
			running = append(running[1:], start(q)...)
		}
		if most := int64(20 * len(all)); q.ticks > most {
			t.Errorf("%s: %d steps for %d tickets", name, q.ticks, len(all))
		}
	}
}

// In any order of calls, every ticket starts once, within the bounds, and as soon as they allow. make
// soak tries more orders.
func TestNothingIsLost(t *testing.T) {
	orders := 15
	if os.Getenv("SOAK") != "" {
		orders = 500
	}
	for seed := range orders {
		r := newRandomRun(t, seed)
		for step := range 2000 {
			r.step(step < 1000)
			r.checkBounds()
		}
		r.finish()
	}
}

// A randomRun calls a queue in some order, and keeps count.
type randomRun struct {
	t                *testing.T
	seed             int
	random           uint32
	now              time.Time
	q                *Queue
	running, waiting []*Ticket
	started          map[*Ticket]int
	want             int
}

func newRandomRun(t *testing.T, seed int) *randomRun {
	r := &randomRun{t: t, seed: seed, random: uint32(seed + 1), now: epoch, q: newQueue(), started: make(map[*Ticket]int)}
	r.q.SetBudget(3, 300*time.Millisecond)
	return r
}

func (r *randomRun) next(n int) int {
	r.random = r.random*1664525 + 1013904223
	return int(r.random >> 8 % uint32(n))
}

func (r *randomRun) step(adding bool) {
	r.now = r.now.Add(time.Duration(r.next(100)) * time.Millisecond)
	switch {
	case adding && r.next(3) > 0:
		k := &Ticket{
			Tenant: fmt.Sprint(r.next(5)), Host: fmt.Sprint(r.next(12)), InUse: r.next(2) == 0,
			Health: Health(r.next(int(healths))), Priority: Priority(r.next(2)),
		}
		k.OnDemand = k.Priority == Urgent && r.next(2) == 0
		r.q.Add(k)
		r.waiting = append(r.waiting, k)
		r.want++
	case len(r.waiting) > 0 && r.next(5) == 0:
		r.q.Hurry(r.waiting[r.next(len(r.waiting))], r.next(2) == 0)
	case len(r.waiting) > 0 && r.next(9) == 0:
		if r.q.Cancel(r.waiting[r.next(len(r.waiting))]) {
			r.want--
		}
	case len(r.running) > 0:
		i := r.next(len(r.running))
		r.q.Done(r.running[i])
		r.running = slices.Delete(r.running, i, i+1)
	}
	r.start()
}

// start starts what may start now.
func (r *randomRun) start() {
	for k := r.q.Next(r.now); k != nil; k = r.q.Next(r.now) {
		r.started[k]++
		r.running = append(r.running, k)
	}
}

func (r *randomRun) checkBounds() {
	r.t.Helper()
	hosts, inGroup := map[string]int{}, make([]int, len(groups))
	for _, k := range r.running {
		hosts[k.Host]++
		for i, g := range groups {
			if g.has(k.InUse, k.Health) {
				inGroup[i]++
			}
		}
		if hosts[k.Host] > r.q.perHost {
			r.t.Fatalf("seed %d: over the bound of a host: %s", r.seed, names(r.running))
		}
	}
	for i, n := range inGroup {
		if n > r.q.most[i] {
			r.t.Fatalf("seed %d: %d of group %d run: %s", r.seed, n, i, names(r.running))
		}
	}
	r.waiting = slices.DeleteFunc(r.waiting, func(k *Ticket) bool { return k.place == nil })
	for _, k := range r.waiting {
		if !k.gated && hosts[k.Host] < r.q.perHost && r.q.admits(k.class()) {
			r.t.Fatalf("seed %d: %s@%s could run beside %s", r.seed, k.Tenant, k.Host, names(r.running))
		}
	}
}

// finish ends what runs, until nothing is left.
func (r *randomRun) finish() {
	r.t.Helper()
	for {
		wait, gated := r.q.Wait(r.now)
		if len(r.running) == 0 && !gated {
			break
		}
		if len(r.running) > 0 {
			r.q.Done(r.running[0])
			r.running = r.running[1:]
		}
		r.now = r.now.Add(wait)
		r.start()
	}
	if len(r.started) != r.want || r.q.running != [len(groups)]int{} || len(r.q.hosts) != 0 {
		r.t.Fatalf("seed %d: %d of %d started, %d hosts left", r.seed, len(r.started), r.want, len(r.q.hosts))
	}
	for k, n := range r.started {
		if n != 1 {
			r.t.Fatalf("seed %d: %s started %d times", r.seed, k.Tenant, n)
		}
	}
}

// Every kind of ticket can start whatever the limits are, and no limit is passed.
func TestLimits(t *testing.T) {
	for _, tt := range []struct {
		running, perHost int
		want             []int // failing, untried and proven ones that are not in use, and proven ones that are
	}{
		{1, 1, []int{1, 0, 0, 0}},
		{2, 1, []int{1, 0, 0, 1}},
		{16, 2, []int{8, 2, 2, 4}},
		{64, 32, []int{32, 8, 8, 16}},
	} {
		q := new(Queue)
		q.SetLimits(tt.running, tt.perHost)
		var got []int
		for i, h := range []Health{Failing, Untried, Proven, Proven} {
			add(q, 100, fmt.Sprint(i), h, Urgent, i == 3)
			got = append(got, len(start(q)))
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("of %d started %v, want %v", tt.running, got, tt.want)
		}
		q = new(Queue)
		q.SetLimits(tt.running, tt.perHost)
		addBlocked(q, blocked["a host"], 100, 0, "a", Urgent)
		if got := len(start(q)); got != tt.perHost {
			t.Errorf("%d started at one host, want %d", got, tt.perHost)
		}
	}
}
