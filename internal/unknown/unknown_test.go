package unknown

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestBudget(t *testing.T) {
	b := Budget{Burst: 3, Every: 10 * time.Second}
	taken := 0
	for at := time.Duration(0); at < time.Minute; at += 10 * time.Millisecond {
		if b.Take(epoch.Add(at)) {
			taken++
		}
	}
	if taken != 3+5 { // 3 at once, one at 10 s, 20 s, ... 50 s
		t.Errorf("%d questions in a minute, want 8", taken)
	}
	for n := range 4 {
		if got := b.Take(epoch.Add(time.Hour)); got != (n < 3) {
			t.Errorf("after an hour, question %d: %v", n, got)
		}
	}
	if b.Take(epoch) || !b.Take(epoch.Add(10*time.Second)) {
		t.Error("after the clock went back an hour: want none, and one ten seconds later")
	}
}

func TestBudgetIsExact(t *testing.T) {
	b := Budget{Burst: 3, Every: time.Second}
	for i := range 3 {
		if !b.Take(epoch) {
			t.Fatalf("question %d was refused", i)
		}
	}
	for _, tt := range []struct {
		at   time.Duration
		want bool
	}{
		{0, false}, {999 * time.Millisecond, false}, {time.Second, true}, {1500 * time.Millisecond, false},
		{2 * time.Second, true}, {-time.Hour, false}, {time.Hour, true}, {time.Hour, true}, {time.Hour, true}, {time.Hour, false},
	} {
		if got := b.Take(epoch.Add(tt.at)); got != tt.want {
			t.Errorf("at %v: %v, want %v", tt.at, got, tt.want)
		}
	}
}

// Each byte is a step of the clock, the odd ones back. While the clock runs forward, no stretch of
// time has more questions than the burst and what came back meanwhile.
func FuzzBudget(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 20, 40, 3, 200, 255, 0, 0})
	f.Fuzz(func(t *testing.T, steps []byte) {
		b := Budget{Burst: 3, Every: time.Second}
		now := epoch
		var taken []time.Time
		for _, step := range steps {
			d := time.Duration(step/2) * 50 * time.Millisecond
			if step%2 == 1 {
				now, taken = now.Add(-d), nil
				continue
			}
			now = now.Add(d)
			if !b.Take(now) {
				early, exact := b, b
				wait := b.Wait(now)
				if early.Take(now.Add(wait-1)) || !exact.Take(now.Add(wait)) {
					t.Fatalf("it says to wait for %v", wait)
				}
				continue
			}
			taken = append(taken, now)
			for i, from := range taken {
				if most := 3 + int(now.Sub(from)/time.Second); len(taken)-i > most {
					t.Fatalf("%d questions within %v, want at most %d", len(taken)-i, now.Sub(from), most)
				}
			}
		}
		b.Take(now) // it sees the clock that was set back
		now = now.Add(4 * time.Second)
		for i := range 3 {
			if !b.Take(now) {
				t.Fatalf("four seconds later, question %d was refused", i)
			}
		}
	})
}

func TestMemory(t *testing.T) {
	m := Memory{Most: 2, For: 5 * time.Second}
	has := func(kid string, at time.Duration, version uint64, want bool) {
		t.Helper()
		if got := m.Has(ID{KID: kid}, epoch.Add(at), version); got != want {
			t.Errorf("Has(%s) at %v of version %d = %v, want %v", kid, at, version, got, want)
		}
	}
	has("a", 0, 0, false)
	m.Add(ID{KID: "a"}, epoch, 1)
	has("a", 0, 1, true)
	has("a", 5*time.Second-1, 1, true)
	has("a", 5*time.Second, 1, false)
	has("a", -1, 1, false) // the clock went back
	has("a", 0, 2, false)  // the keys have changed
	has("b", 0, 1, false)

	m.Add(ID{KID: "a"}, epoch.Add(time.Second), 1) // again, which makes it no younger in the order
	m.Add(ID{KID: "b"}, epoch.Add(time.Second), 1)
	m.Add(ID{KID: "c"}, epoch.Add(time.Second), 1)
	has("a", 5*time.Second, 1, false)
	has("b", 5*time.Second, 1, true)
	has("c", 5*time.Second, 1, true)

	m.Add(ID{KID: "d"}, epoch, 2)
	has("d", 0, 2, true)
	if m.Len(1) != 0 || m.Len(2) != 1 {
		t.Errorf("%d kids of version 1 and %d of version 2 are held, want 0 and 1", m.Len(1), m.Len(2))
	}
}

func TestZeroValuesAllowNothing(t *testing.T) {
	var b Budget
	var m Memory
	m.Add(ID{KID: "a"}, epoch, 0)
	if b.Take(epoch) || m.Has(ID{KID: "a"}, epoch, 0) || m.Len(0) != 0 {
		t.Error("a zero value allows a question, or remembers a kid")
	}
}

// After a suspension the wall clock has moved and the monotonic one has not. After the clock was
// set back it is the other way around.
func TestMemoryTakesTheClockThatSaysMore(t *testing.T) {
	start := time.Now()
	m := Memory{Most: 1, For: 5 * time.Second}
	m.Add(ID{KID: "a"}, start, 0)
	if m.Has(ID{KID: "a"}, start.Round(0).Add(time.Hour), 0) {
		t.Error("an hour later by the wall clock the kid is still missing")
	}
	if got := age(start.Add(time.Minute), start.Add(time.Hour).Add(-time.Hour)); got != time.Minute {
		t.Errorf("the age is %v, want 1m", got)
	}
}

// Anyone can think of kids. The memory does not grow with them, and keeps the newest.
func TestMemoryIsBounded(t *testing.T) {
	const many, most = 100_000, 1000
	m := Memory{Most: most, For: 5 * time.Second}
	for n := range many {
		m.Add(ID{KID: fmt.Sprint(n)}, epoch, 0)
		m.Add(ID{KID: fmt.Sprint(n)}, epoch, 0) // every caller that waited does
		if m.Len(0) != min(n+1, most) || len(m.since) != m.Len(0) || cap(m.order) > 4*most {
			t.Fatalf("of %d kids %d are held, in an order of %d with room for %d", n+1, len(m.since), m.Len(0), cap(m.order))
		}
	}
	for n, want := range map[int]bool{many - 1: true, many - most: true, many - most - 1: false} {
		if got := m.Has(ID{KID: fmt.Sprint(n)}, epoch, 0); got != want {
			t.Errorf("kid %d: %v, want %v", n, got, want)
		}
	}
}

// A kid is part of a token's header, which may have any size. The memory keeps no more of it than the
// kid, and nothing of a kid that it has forgotten.
func TestMemoryKeepsNoHeaders(t *testing.T) {
	const header, kids = 48 << 10, 300
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	m := Memory{Most: 256, For: 5 * time.Second}
	before := heap()
	for n := range kids {
		for range 2 { // every caller that waited adds it
			token := strings.Repeat("x", header) + fmt.Sprint(n)
			m.Add(ID{KID: token[header-200:]}, epoch, 0)
		}
	}
	if more := heap() - before; more > 256<<10 {
		t.Errorf("%d kids of 200 bytes hold %d bytes", m.Len(0), more)
	}
	if m.Add(ID{KID: "late"}, epoch.Add(5*time.Second), 0); m.Len(0) != 1 || len(m.since) != 1 {
		t.Errorf("%d kids are held, %d of them older than 5 s", m.Len(0), m.Len(0)-1)
	}
	if more := heap() - before; more > 64<<10 {
		t.Errorf("one kid holds %d bytes", more)
	}
	runtime.KeepAlive(&m)
}

// The memory against a list that is searched from its end: each pair of bytes is an operation on
// one of eight kids, and a step of the clock.
func FuzzMemory(f *testing.F) {
	f.Add([]byte{0, 0, 8, 1, 16, 2, 24, 3, 0, 1, 1, 9, 250, 0})
	f.Fuzz(func(t *testing.T, ops []byte) {
		type added struct {
			kid byte
			at  time.Time
		}
		m := Memory{Most: 3, For: 4 * time.Second}
		var model []added
		var version uint64
		now := epoch
		recent := func(a added) bool { return !now.Before(a.at) && now.Sub(a.at) < 4*time.Second }
		for ; len(ops) >= 2; ops = ops[2:] {
			kid := ops[0] & 7
			now = now.Add(time.Duration(int8(ops[1])) * 100 * time.Millisecond)
			switch ops[0] >> 3 & 3 {
			case 0:
				version++
				model = nil
			case 1:
				for len(model) > 0 && !recent(model[0]) {
					model = model[1:]
				}
				i := slices.IndexFunc(model, func(a added) bool { return a.kid == kid })
				if i < 0 {
					i, model = len(model), append(model, added{kid: kid})
				}
				model[i].at = now
				model = model[max(0, len(model)-3):]
				m.Add(ID{KID: string(rune(kid))}, now, version)
			}
			i := slices.IndexFunc(model, func(a added) bool { return a.kid == kid })
			want := i >= 0 && recent(model[i])
			if got := m.Has(ID{KID: string(rune(kid))}, now, version); got != want {
				t.Fatalf("Has = %v, want %v", got, want)
			}
			if m.Len(version) > 3 {
				t.Fatalf("%d kids are held", m.Len(version))
			}
		}
	})
}
