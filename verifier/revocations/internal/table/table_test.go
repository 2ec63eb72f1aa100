package table_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/keyturn/keyturn/verifier/revocations/internal/table"
)

// latest is the greatest time that the table holds.
const latest = 1<<33 - 1

// digest returns the digest number i of a seed, which looks random.
func digest(seed, i uint64) table.Digest {
	r := rand.New(rand.NewPCG(seed, i))
	var d table.Digest
	binary.LittleEndian.PutUint64(d[:8], r.Uint64())
	binary.LittleEndian.PutUint64(d[8:], r.Uint64())
	return d
}

// model is a table as a map.
type model map[table.Digest]table.Entry

func (m model) put(e table.Entry) bool {
	e.Before, e.End = min(max(e.Before, 0), latest), min(max(e.End, 0), latest)
	old, ok := m[e.Digest]
	if !ok {
		m[e.Digest] = e
		return true
	}
	next := old
	next.Before, next.End = max(old.Before, e.Before), max(old.End, e.End)
	m[e.Digest] = next
	return next != old
}

func (m model) check(ds *[4]table.Digest, iat int64) bool {
	return slices.ContainsFunc(ds[:], func(d table.Digest) bool {
		e, ok := m[d]
		return ok && (e.Kind == table.Token || e.Kind == table.Session || iat < e.Before)
	})
}

func (m model) drop(goes func(table.Entry) bool) (n int) {
	for d, e := range m {
		if goes(e) {
			delete(m, d)
			n++
		}
	}
	return n
}

// compare compares everything that can be asked of a table.
func compare(t *testing.T, tab *table.Table, m model, tenants []uint64) {
	t.Helper()
	if tab.Len() != len(m) {
		t.Fatalf("Len = %d, want %d", tab.Len(), len(m))
	}
	of, seen := map[uint64]int{}, 0
	for d, want := range m {
		of[want.Tenant]++
		if got, ok := tab.Get(d); !ok || got != want {
			t.Fatalf("Get = %+v, %v, want %+v", got, ok, want)
		}
	}
	for e := range tab.All() {
		if seen++; m[e.Digest] != e {
			t.Fatalf("All yields %+v, want %+v", e, m[e.Digest])
		}
	}
	if seen != len(m) {
		t.Fatalf("All yields %d entries, want %d", seen, len(m))
	}
	for _, tenant := range tenants {
		if got := tab.LenOf(tenant); got != of[tenant] {
			t.Fatalf("LenOf(%x) = %d, want %d", tenant, got, of[tenant])
		}
	}
}

// TestTableIsAMap makes the same random calls on a table and on a map.
func TestTableIsAMap(t *testing.T) {
	for seed := range uint64(10) {
		r := rand.New(rand.NewPCG(seed, 1))
		names, tab, m := uint64(1)<<(3+seed), table.New(int(seed)*100), model{}
		tenants := make([]uint64, 1+r.IntN(300))
		for i := range tenants {
			tenants[i] = r.Uint64() >> (seed * 5) // some of them small
		}
		times := []int64{math.MinInt64, -1, 0, 1, 1_700_000_000, latest, latest + 1, math.MaxInt64}
		for step := range 4000 {
			n := r.Uint64N(names)
			d := digest(seed, n)
			switch {
			case step%1000 == 999:
				goes := func(e table.Entry) bool { return e.Digest[3]%4 == byte(step%4) || e.Tenant == tenants[0] }
				if got, want := tab.Drop(goes), m.drop(goes); got != want {
					t.Fatalf("Drop = %d, want %d", got, want)
				}
				compare(t, tab, m, tenants)
			case r.IntN(3) == 0:
				ds, iat := [4]table.Digest{1: digest(seed, r.Uint64N(2*names)), 2: d}, times[r.IntN(len(times))]
				if got, want := tab.Check(&ds, iat), m.check(&ds, iat); got != want {
					t.Fatalf("Check(%d) = %v, want %v", iat, got, want)
				}
			default:
				e := table.Entry{Digest: d, Tenant: tenants[n%uint64(len(tenants))], Kind: table.Kind(1 + n%4), Key: uint32(n * 0x9e3779b1),
					Before: times[r.IntN(len(times))], End: times[r.IntN(len(times))]}
				if got, want := tab.Put(e), m.put(e); got != want {
					t.Fatalf("Put = %v, want %v", got, want)
				}
			}
		}
		compare(t, tab, m, tenants)
		all := func(table.Entry) bool { return true }
		if got, want := tab.Drop(all), m.drop(all); got != want {
			t.Fatalf("Drop of all = %d, want %d", got, want)
		}
		compare(t, tab, m, tenants)
	}
}

func TestPutIgnoresWhatNamesNothing(t *testing.T) {
	tab := table.New(0)
	for _, e := range []table.Entry{{Kind: table.Token, End: 1}, {Digest: digest(1, 1)}, {Digest: digest(1, 1), Kind: table.Tenant + 1}} {
		if tab.Put(e) || tab.Len() != 0 {
			t.Errorf("Put(%+v) changed the table", e)
		}
	}
	if tab.Check(&[4]table.Digest{}, 0) {
		t.Error("a token without names is revoked")
	}
}

// TestReadersMissNothing has readers look up every entry whose Put has returned, and the two
// that must stay what they are, while the table grows, entries move forward and others are
// dropped.
func TestReadersMissNothing(t *testing.T) {
	const n = 6000
	tab := table.New(0)
	var done atomic.Uint64 // entries below it were put
	var stop atomic.Bool
	always, late := digest(2, 0), digest(2, 1)
	tab.Put(table.Entry{Digest: always, Kind: table.Session})
	tab.Put(table.Entry{Digest: late, Kind: table.Subject, Before: 100, End: 1})
	var readers sync.WaitGroup
	for k := range uint64(2) {
		readers.Go(func() {
			r := rand.New(rand.NewPCG(k, 3))
			for !stop.Load() {
				ds := [4]table.Digest{1: always}
				if below := done.Load(); below > 0 {
					ds = [4]table.Digest{2: digest(1, r.Uint64N(below)&^1)}
				}
				if !tab.Check(&ds, 0) {
					t.Error("a reader missed an entry")
					return
				}
				if !tab.Check(&[4]table.Digest{late}, 99) || tab.Check(&[4]table.Digest{late}, 101) || tab.Check(&[4]table.Digest{digest(9, r.Uint64())}, 0) {
					t.Error("a reader saw an entry that never was")
					return
				}
			}
		})
	}
	for i := range uint64(n) { // the odd ones come and go
		tab.Put(table.Entry{Digest: digest(1, i), Kind: table.Token, Tenant: i % 64, End: int64(i % 2)})
		done.Store(i + 1)
		tab.Put(table.Entry{Digest: late, Kind: table.Subject, Before: int64(i % 102), End: int64(i)})
		if i%1000 == 999 {
			tab.Drop(func(e table.Entry) bool { return e.Kind == table.Token && e.End == 1 })
			runtime.Gosched()
		}
	}
	stop.Store(true)
	readers.Wait()
	if want := n/2 + 2; tab.Len() != want {
		t.Errorf("Len = %d, want %d", tab.Len(), want)
	}
}

// TestLoopMayCallTheTable puts and drops inside of a loop over all entries.
func TestLoopMayCallTheTable(t *testing.T) {
	tab := table.New(0)
	for i := range uint64(1000) {
		tab.Put(table.Entry{Digest: digest(1, i), Kind: table.Token})
	}
	seen := 0
	for e := range tab.All() {
		seen++
		tab.Put(table.Entry{Digest: e.Digest, Kind: e.Kind, Before: 1})
		if tab.Drop(func(o table.Entry) bool { return o.Digest == e.Digest }) != 1 {
			t.Fatal("the entry of the loop was not there")
		}
		if seen == 900 {
			break
		}
	}
	if tab.Len() != 100 {
		t.Errorf("Len = %d, want 100", tab.Len())
	}
}

func TestCheckAllocatesNothing(t *testing.T) {
	tab := table.New(0)
	ds := [4]table.Digest{digest(1, 1), digest(1, 2), {}, digest(1, 3)}
	tab.Put(table.Entry{Digest: ds[3], Kind: table.Tenant, Before: 10})
	if n := testing.AllocsPerRun(1000, func() {
		if tab.Check(&ds, 10) || !tab.Check(&ds, 9) {
			t.Error("wrong verdict")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// filled returns a table with n entries of so many tenants.
func filled(n, tenants int) *table.Table {
	tab := table.New(0)
	for i := range uint64(n) {
		tenant := digest(5, i%uint64(tenants))
		tab.Put(table.Entry{Digest: digest(4, i), Kind: table.Kind(1 + i%3), Key: 7, Before: 1e9, End: 2e9,
			Tenant: binary.LittleEndian.Uint64(tenant[:])})
	}
	return tab
}

// BenchmarkTable measures the memory and the times of tables with many entries. B/entry is what
// the heap grew by; peak-B/entry is with garbage that growing left.
func BenchmarkTable(b *testing.B) {
	for _, n := range []int{100_000, 900_000, 1_000_000, 1_100_000} {
		for _, tenants := range []int{1000, n} {
			b.Run(fmt.Sprintf("entries=%d/tenants=%d", n, tenants), func(b *testing.B) {
				for b.Loop() {
					before := heap()
					tab := filled(n, tenants)
					b.ReportMetric(float64(heap()-before)/float64(n), "B/entry")
					runtime.KeepAlive(tab)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/put")
			})
		}
	}
}

// BenchmarkCheck looks up tokens of which the table holds none, or one of the four digests.
func BenchmarkCheck(b *testing.B) {
	const tokens = 1 << 10
	tab := filled(1_000_000, 1000)
	for _, tt := range []struct {
		name string
		held func(i uint64) table.Digest
	}{
		{"none", func(i uint64) table.Digest { return digest(6, i) }},
		{"token", func(i uint64) table.Digest { return digest(4, 3*i) }},
	} {
		b.Run("held="+tt.name, func(b *testing.B) {
			list := make([][4]table.Digest, tokens)
			for i := range list {
				at := uint64(i)
				list[i] = [4]table.Digest{digest(7, at), digest(8, at), tt.held(at), digest(9, at%16)}
			}
			b.ReportAllocs()
			i, found := 0, 0
			for b.Loop() {
				if tab.Check(&list[i%tokens], 5) {
					found++
				}
				i++
			}
			if found != 0 && found != b.N {
				b.Errorf("found %d of %d", found, b.N)
			}
		})
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
