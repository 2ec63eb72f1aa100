package verifier

import (
	"fmt"
	"hash/maphash"
	"testing"
	"time"
)

var budgetEpoch = time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)

// A demand is how many names of each kind are asked for in a second, evenly.
type demand struct{ strangers, proved int }

// played returns how many of the demand of each second got a question.
func (d demand) played(b *questionBudget, from time.Time, seconds int) (strangers, proved []int) {
	for s := range seconds {
		gotStrangers, gotProved := 0, 0
		for step := range 10_000 {
			now := from.Add(time.Duration(s)*time.Second + time.Duration(step)*100*time.Microsecond)
			for range (step+1)*d.strangers/10_000 - step*d.strangers/10_000 {
				if b.take(false, now) {
					gotStrangers++
				}
			}
			for range (step+1)*d.proved/10_000 - step*d.proved/10_000 {
				if b.take(true, now) {
					gotProved++
				}
			}
		}
		strangers, proved = append(strangers, gotStrangers), append(proved, gotProved)
	}
	return strangers, proved
}

// Made-up names never use the part that is kept, and proved ones never use the rest alone. Both together get
// what the budget says, whichever asks.
func TestQuestionBudget(t *testing.T) {
	for _, tt := range []struct {
		name                        string
		rate                        int
		demand                      demand
		leastStrangers, leastProved int // in each second from the third on; the first have the burst
	}{
		{"a flood", 100, demand{strangers: 10_000}, 99, 0},
		{"a flood, and a few that are proved", 100, demand{10_000, 20}, 79, 20},
		{"a flood, and as many proved as are kept", 100, demand{10_000, 25}, 74, 25},
		{"two floods", 100, demand{10_000, 10_000}, 37, 25},
		{"proved ones alone get all", 100, demand{proved: 10_000}, 0, 99},
		{"a small budget", 4, demand{10_000, 1}, 2, 1},
		{"too small to keep a part", 3, demand{10_000, 0}, 2, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := questionBudget{rate: tt.rate}
			strangers, proved := tt.demand.played(&b, budgetEpoch, 6)
			all := 0
			for s := range strangers {
				all += strangers[s] + proved[s]
				if most := tt.rate * (s + 2); all > most {
					t.Errorf("%d questions in %d s, want at most %d", all, s+1, most)
				}
				if s >= 2 && (strangers[s] < tt.leastStrangers || proved[s] < tt.leastProved) {
					t.Errorf("second %d: %d and %d proved, want %d and %d", s, strangers[s], proved[s], tt.leastStrangers, tt.leastProved)
				}
			}
		})
	}
}

// A clock that is set back brings no questions, and one that is a little late stops none.
func TestQuestionBudgetClock(t *testing.T) {
	b := questionBudget{rate: 8}
	for n := range 9 {
		if got := b.take(true, budgetEpoch.Add(-time.Duration(n)*time.Millisecond)); got != (n < 8) {
			t.Errorf("question %d: %v", n, got)
		}
	}
	for n := range 20 {
		if back := budgetEpoch.Add(-time.Duration(n) * time.Hour); b.take(true, back) || b.take(false, back) {
			t.Errorf("a clock that is %d h back brought a question", n)
		}
	}
	if back := budgetEpoch.Add(-19 * time.Hour); !b.take(false, back.Add(time.Second)) || !b.take(true, back.Add(time.Second)) {
		t.Error("a second later there is none")
	}
	b = questionBudget{rate: 2_000_000_000} // more than one in each nanosecond
	if !b.take(false, budgetEpoch) || !b.take(true, budgetEpoch.Add(time.Hour)) {
		t.Error("a huge budget has none")
	}
}

// The memory is bounded, and keeps the newest names.
func TestProvedNames(t *testing.T) {
	p := provedNames{seed: maphash.MakeSeed(), most: 100}
	name := func(i int) Hint { return Hint{Issuer: fmt.Sprint("https://", i)} }
	for i := range 1000 {
		if p.has(name(i)) {
			t.Fatalf("%d is there before it was added", i)
		}
		p.add(name(i))
		if n := len(p.young) + len(p.old); n > 200 {
			t.Fatalf("%d names", n)
		}
		for j := max(i-99, 0); j <= i; j++ {
			if !p.has(name(j)) {
				t.Fatalf("%d is gone after %d", j, i)
			}
		}
	}
	if p.has(Hint{Tenant: "https://999"}) {
		t.Error("an issuer counts as a tenant")
	}
	if p.drop(name(999)); p.has(name(999)) || !p.has(name(998)) {
		t.Error("drop")
	}
}
