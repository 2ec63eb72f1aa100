package trie

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// A version is a map of the trie and what it must hold.
type version struct {
	m    Map[int]
	want map[string]int
}

func (v version) check(t *testing.T, keys []string) {
	t.Helper()
	if v.m.Len() != len(v.want) {
		t.Errorf("Len is %d, want %d", v.m.Len(), len(v.want))
	}
	if got := maps.Collect(v.m.All()); !maps.Equal(got, v.want) {
		t.Errorf("All is %v, want %v", got, v.want)
	}
	for _, k := range keys {
		got, ok := v.m.Get(k)
		if want, there := v.want[k]; got != want || ok != there {
			t.Errorf("Get(%q) is %d, %v; want %d, %v", k, got, ok, want, there)
		}
	}
}

// TestVersions makes random changes, one at a time and many at once, and compares each version with
// a map of Go: at once, and again at the end, when later versions must not have reached it. With
// a mask the first hashes of most keys are equal.
func TestVersions(t *testing.T) {
	for _, mask := range []uint64{^uint64(0), 1<<60 - 1 ^ 1<<54 - 1, 0x3f, 1, 0} {
		t.Run(fmt.Sprintf("mask=%x", mask), func(t *testing.T) {
			r := rand.New(rand.NewPCG(mask, 1))
			keys := []string{""}
			for i := range 300 {
				keys = append(keys, fmt.Sprint("key ", i))
			}
			m := New[int]()
			m.hash.mask = mask
			versions := []version{{m, map[string]int{}}}
			for range 200 {
				last := versions[len(versions)-1]
				e, want := last.m.Edit(), maps.Clone(last.want)
				for range []int{1, 1, 1, 50, 300}[r.IntN(5)] {
					k := keys[r.IntN(len(keys))]
					if r.IntN(2) == 0 {
						e.Delete(k)
						delete(want, k)
						continue
					}
					want[k] = r.Int()
					e.Set(k, want[k])
				}
				versions = append(versions, version{e.Map(), want})
				e.Set("after Map", 1) // which the version must not see
				versions[len(versions)-1].check(t, keys)
			}
			for _, v := range versions {
				v.check(t, keys)
			}
		})
	}
}

// TestShape: the shape depends on the entries alone, so a map that grew and shrank is no slower and
// no larger than one that did not.
func TestShape(t *testing.T) {
	few := New[int]()
	for i := range 100 {
		few = few.With(fmt.Sprint(i), i)
	}
	many := few
	for i := range 5000 {
		many = many.With(fmt.Sprint("more", i), i)
	}
	for i := range 5000 {
		many = many.Without(fmt.Sprint("more", i))
	}
	if a, b := nodes(few.root), nodes(many.root); a != b {
		t.Errorf("%d nodes, and %d after growing and shrinking", a, b)
	}
	if a, b := slices.Collect(maps.Keys(maps.Collect(few.All()))), many.Len(); len(a) != b {
		t.Errorf("%d entries, and %d after growing and shrinking", len(a), b)
	}
	for i := range 100 {
		many = many.Without(fmt.Sprint(i))
	}
	if many.root != nil || many.Len() != 0 {
		t.Error("something is left of an empty map")
	}
}

func nodes[V any](n *node[V]) int {
	sum := 1
	for _, c := range n.children {
		sum += nodes(c)
	}
	return sum
}

// TestPathIsShort: a change of one among 100 000 copies few nodes, and a look-up allocates nothing.
func TestPathIsShort(t *testing.T) {
	e := New[int]().Edit()
	for i := range 100_000 {
		e.Set(fmt.Sprint(i), i)
	}
	m := e.Map()
	if n := testing.AllocsPerRun(100, func() { m.With("4711", 0) }); n > 20 {
		t.Errorf("a change allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { m.Get("4711") }); n > 0 {
		t.Errorf("a look-up allocates %v times", n)
	}
}
