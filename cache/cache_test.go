package cache_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/cache"
)

func TestGetAfterAdd(t *testing.T) {
	c := newCache(t, 100, 1<<20)
	v, k := c.Get(1, "a", always)
	if v != nil {
		t.Fatal("a value from nowhere")
	}
	c.Add(k, "g", entry("A"), 1, nil)
	for _, tt := range []struct {
		domain uint64
		text   string
		good   func(*string) bool
		want   bool
	}{
		{1, "a", always, true},
		{1, "a", func(*string) bool { return false }, false},
		{1, "a", always, true}, // a value that was refused may serve later
		{0, "a", always, false}, {2, "a", always, false},
		{1, "", always, false}, {1, "a\x00", always, false}, {1, "\x00a", always, false}, {1, "A", always, false},
		{1, strings.Repeat("a", 1<<20), always, false},
	} {
		if v, _ := c.Get(tt.domain, tt.text, tt.good); (v != nil) != tt.want {
			t.Errorf("Get(%d, %.10q) = %v, want %v", tt.domain, tt.text, v != nil, tt.want)
		}
	}
	if s := c.Stats(); s.Hits != 2 || s.Misses != 9 || s.Entries != 1 || s.Evictions != 0 {
		t.Errorf("%+v", s)
	}
	c.Add(k, "h", entry("B"), 1, nil)
	if v, _ := c.Get(1, "a", always); v == nil || *v != "B" {
		t.Error("a replaced value stays")
	}
	if s := c.Stats(); s.Entries != 1 || s.Evictions != 0 {
		t.Errorf("replaced: %+v", s)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, cfg := range []cache.Config{{}, {Entries: 1}, {Bytes: 1}, {Entries: -1, Bytes: 1}, {Entries: 1, Bytes: -1}, {Entries: math.MaxInt, Bytes: 1}, {Entries: math.MaxInt / 2, Bytes: 1 << 40}} {
		if c, err := cache.New[string](cfg); err == nil || c != nil {
			t.Errorf("New(%+v) = %v", cfg, err)
		}
	}
}

// TestBoundsHold adds entries of all sizes, and checks the bounds each time.
func TestBoundsHold(t *testing.T) {
	for _, cfg := range []cache.Config{{Entries: 1, Bytes: 1 << 10}, {Entries: 3, Bytes: 1 << 10}, {Entries: 100, Bytes: 1 << 20}, {Entries: 1000, Bytes: 64 << 10}, {Entries: 64 << 10, Bytes: 1 << 20}, {Entries: 100, Bytes: math.MaxInt64}, {Entries: 50, Bytes: 40}, {Entries: 1 << 20, Bytes: 4 << 10}} {
		c := newCache(t, cfg.Entries, cfg.Bytes)
		rnd := rand.New(rand.NewPCG(1, 2))
		for i := range 2000 {
			size := rnd.IntN(2000)
			if i%50 == 0 {
				size = rnd.IntN(1 << 20)
			}
			put(c, fmt.Sprint("g", i%7), fmt.Sprint(rnd.IntN(4000)), size)
			if s := c.Stats(); s.Entries > cfg.Entries || s.Bytes > cfg.Bytes || s.Entries < 0 || s.Bytes < 0 {
				t.Fatalf("%+v after %d: %+v", cfg, i, s)
			}
		}
		if s := c.Stats(); cfg.Entries > 1 && cfg.Bytes > 1<<10 && (s.Entries < 2 || s.Evictions == 0) {
			t.Errorf("%+v: %+v", cfg, s)
		}
	}
}

func TestTooLargeIsNotAdmitted(t *testing.T) {
	c := newCache(t, 1000, 1<<20)
	put(c, "g", "large", 1<<16)
	put(c, "g", "negative", -1)
	put(c, "g", "overflow", math.MaxInt)
	put(c, "g", "fits", 1<<15)
	if get(t, c, "large") || get(t, c, "negative") || get(t, c, "overflow") || !get(t, c, "fits") {
		t.Error("a text of more than a sixteenth of all bytes, or one that fits")
	}
}

// TestFillsUp: entries that fit stay, except a few in crowded buckets.
func TestFillsUp(t *testing.T) {
	const n = 10_000
	c := newCache(t, n, n<<10)
	for i := range n {
		put(c, "g", fmt.Sprint(i), 100)
	}
	there := 0
	for i := range n {
		if get(t, c, fmt.Sprint(i)) {
			there++
		}
	}
	if there < n*97/100 {
		t.Errorf("%d of %d are there", there, n)
	}
}

// TestOneShotsDoNotFlush sends texts that come once through a cache whose other texts come
// again and again.
func TestOneShotsDoNotFlush(t *testing.T) {
	const entries = 2 << 10
	for _, working := range []int{100, 1000, entries / 4, entries / 2} {
		t.Run(fmt.Sprint(working), func(t *testing.T) {
			c := newCache(t, entries, entries<<10)
			hits, rounds := 0, 0
			for i := range 16 * entries {
				text := fmt.Sprint("w", i%working)
				hit := get(t, c, text)
				if !hit {
					put(c, "g", text, 400)
				}
				if i >= 4*working {
					rounds++
					if hit {
						hits++
					}
				}
				put(c, "g", fmt.Sprint("once", i), 400)
			}
			if hits*100 < rounds*90 {
				t.Errorf("working set of %d: %d hits of %d", working, hits, rounds)
			}
			if s := c.Stats(); s.Entries > entries || s.Entries < entries*9/10 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestWorkingSetMoves: a full cache admits new entries once the old ones are no longer
// used.
func TestWorkingSetMoves(t *testing.T) {
	const n = 1 << 10
	c := newCache(t, n, n<<10)
	round := func(prefix string) (hits int) {
		for i := range n * 9 / 10 {
			text := fmt.Sprint(prefix, i)
			if get(t, c, text) {
				hits++
			} else {
				put(c, "g", text, 100)
			}
		}
		return hits
	}
	for range 6 {
		round("old")
	}
	if hits := round("old"); hits < n*8/10 {
		t.Errorf("%d hits in the old set", hits)
	}
	for i := range 20 {
		if hits := round("new"); hits > n*7/10 {
			t.Logf("moved after %d rounds", i)
			return
		}
	}
	t.Error("the new set does not get in")
}

// TestFairShares: a flood of one group replaces only its own entries.
func TestFairShares(t *testing.T) {
	const entries, share = 2 << 10, 1 << 10
	for _, repeat := range []bool{false, true} {
		c := newCache(t, entries, entries<<10)
		flood := func(n int) {
			for i := range n {
				text := fmt.Sprint("flood", i)
				put(c, "flood", text, 400)
				if repeat {
					get(t, c, text)
				}
			}
		}
		flood(3 * entries) // takes the whole cache
		quiet := func() (hits int) {
			for i := range share * 9 / 10 {
				text := fmt.Sprint("quiet", i)
				if get(t, c, text) {
					hits++
				} else {
					put(c, "quiet", text, 400)
				}
			}
			return hits
		}
		quiet()
		quiet()
		flood(10 * entries)
		if hits := quiet(); hits < share/2 {
			t.Errorf("repeat %v: %d hits after the flood, want half of the share, %d", repeat, hits, share/2)
		}
		// The flood still gets new entries of its own in.
		in := 0
		for i := range 100 {
			text := fmt.Sprint("last", i)
			put(c, "flood", text, 400)
			if get(t, c, text) {
				in++
			}
		}
		if !repeat && in < 70 {
			t.Errorf("of a group above its share, %d of 100 get in", in)
		}
	}
}

// TestGroupsInBalance: two groups with exactly their shares still replace their own
// entries.
func TestGroupsInBalance(t *testing.T) {
	const entries = 1 << 10
	c := newCache(t, entries, entries<<10)
	for i := range 4 * entries {
		put(c, "a", fmt.Sprint("a", i), 400)
		put(c, "b", fmt.Sprint("b", i), 400)
	}
	in := 0
	for i := range 100 {
		text := fmt.Sprint("late", i)
		put(c, "a", text, 400)
		if get(t, c, text) {
			in++
		}
	}
	if in < 70 {
		t.Errorf("%d of 100 late ones got in", in)
	}
}

// TestDeadGoFirst: a dead entry makes room, whether it was used or not.
func TestDeadGoFirst(t *testing.T) {
	const n = 2 << 10
	c := newCache(t, n, n<<10)
	for i := range n {
		text := fmt.Sprint("old", i)
		put(c, "g", text, 100)
		for range 5 {
			get(t, c, text)
		}
	}
	dead := func(v *string) bool { return strings.HasPrefix(*v, "value of old") }
	there := 0
	for i := range n / 4 {
		text := fmt.Sprint("new", i)
		_, k := c.Get(0, text, always)
		c.Add(k, "g", entry("value of "+text), 100, dead)
		if get(t, c, text) {
			there++
		}
	}
	if there < n/4*95/100 {
		t.Errorf("%d of %d got in", there, n/4)
	}
}

// TestGroupsAreForgotten: groups that come and go leave nothing behind.
func TestGroupsAreForgotten(t *testing.T) {
	c := newCache(t, 100, 100<<10)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 20_000 {
		put(c, fmt.Sprint("group of a tenant that comes and goes", i), fmt.Sprint(i), 10)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 1<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
}

// TestGroupsKeepTheirNamesAlone: a name that is a part of a larger text does not keep that
// in memory.
func TestGroupsKeepTheirNamesAlone(t *testing.T) {
	const n, large = 100, 100_000
	c := newCache(t, n, 1<<20)
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	for i := range n {
		text := strings.Repeat(fmt.Sprintf("%06d", i), large/6)
		put(c, text[:6], strings.Clone(text[:6]), 1)
	}
	if grown := heap() - before; grown > n*large/10 {
		t.Errorf("%d groups keep %d bytes", c.Stats().Entries, grown)
	}
}

func TestConcurrent(t *testing.T) {
	c := newCache(t, 500, 500<<10)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 0))
			for range 1000 {
				text := fmt.Sprint(rnd.IntN(1500))
				if !get(t, c, text) {
					put(c, fmt.Sprint("g", g%3), text, rnd.IntN(2000))
				}
			}
		})
	}
	wg.Wait()
	if s := c.Stats(); s.Entries > 500 || s.Bytes > 500<<10 || s.Hits == 0 || s.Evictions == 0 {
		t.Errorf("%+v", s)
	}
}

// TestOneGroupOneEntry: the only entry of a group makes room for the next one.
func TestOneGroupOneEntry(t *testing.T) {
	c := newCache(t, 1, 1<<20)
	for i := range 10 {
		text := fmt.Sprint(i)
		put(c, "g", text, 10)
		if s := c.Stats(); s.Entries != 1 || s.Evictions != uint64(i) {
			t.Fatalf("%d: %+v", i, s)
		}
	}
	if !get(t, c, "9") {
		t.Error("the last one is not there")
	}
}

// TestSmallGroupsClimb: small groups can grow to their shares, even while a large group
// uses all its entries.
func TestSmallGroupsClimb(t *testing.T) {
	const entries = 2048
	for _, small := range []int{3, 15, 199} {
		c := newCache(t, entries, entries<<10)
		use := func(group, text string) bool {
			if get(t, c, text) {
				return true
			}
			put(c, group, text, 400)
			return false
		}
		n := 0
		hog := func() {
			use("hog", fmt.Sprint("hog", n%entries))
			n++
		}
		for range 4 * entries {
			hog()
		}
		share := entries / (small + 1)
		hits, uses := 0, 0
		for round := range 20 {
			for i := range share * 9 / 10 {
				for g := range small {
					hit := use(fmt.Sprint("g", g), fmt.Sprint("g", g, " ", i))
					if round >= 10 {
						uses++
						if hit {
							hits++
						}
					}
					for range 2 {
						hog()
					}
				}
			}
		}
		if hits*100 < uses*80 {
			t.Errorf("%d small groups: %d hits of %d", small, hits, uses)
		}
	}
}

// TestBalanceDoesNotFreeze: if every group has exactly its share, used texts still replace
// unused ones.
func TestBalanceDoesNotFreeze(t *testing.T) {
	const entries = 2048
	for _, groups := range []int{1, 2, 16, 64, 256} {
		c := newCache(t, entries, entries<<10)
		for i := range 2 * entries {
			put(c, fmt.Sprint("g", i%groups), fmt.Sprint("once", i), 100)
		}
		hits := 0
		const hot, rounds = 200, 20
		for range rounds {
			for i := range hot {
				text := fmt.Sprint("hot", i)
				if get(t, c, text) {
					hits++
				} else {
					put(c, fmt.Sprint("g", i%groups), text, 100)
				}
			}
		}
		if hits*100 < hot*rounds*80 {
			t.Errorf("%d groups: %d hits of %d", groups, hits, hot*rounds)
		}
	}
}

// TestDeadAreSwept: a dead entry goes even while the cache has room.
func TestDeadAreSwept(t *testing.T) {
	const n = 512
	c := newCache(t, 4*n, 4*n<<10)
	for i := range n {
		put(c, fmt.Sprint("gone", i), fmt.Sprint("old", i), 100)
	}
	dead := func(v *string) bool { return strings.HasPrefix(*v, "value of old") }
	for i := range 64 * n {
		text := fmt.Sprint("new", i%16)
		_, k := c.Get(0, text, always)
		c.Add(k, "g", entry("value of "+text), 100, dead)
	}
	if s := c.Stats(); s.Entries != 16 {
		t.Errorf("%+v", s)
	}
}
