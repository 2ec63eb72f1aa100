// Package trie is a hash array mapped trie: a map from strings whose versions share what they have in
// common (Bagwell, "Ideal Hash Trees", 2001; with inline entries as in Steindorfer and Vinju,
// "Optimizing Hash-Array Mapped Tries", 2015).
//
// A change copies the nodes on the path to one key: four of them in a map of a million. The versions
// before it stay as they are, so a reader that has one needs no lock.
//
// Six bits of a key's hash choose one of the 64 places of a node. A place is empty, has an entry, or
// has a node for the next six bits. Two maps with the same entries have the same shape: a node below
// the root with a single entry gives it back to the node above.
package trie

import (
	"hash/maphash"
	"iter"
	"math/bits"
	"slices"
)

// A Map is one version of the map. It is immutable, and safe for concurrent use. Make the first one
// with [New].
type Map[V any] struct {
	root *node[V] // nil if the map is empty
	size int
	hash hasher
}

// New returns an empty map.
func New[V any]() Map[V] { return Map[V]{hash: hasher{maphash.MakeSeed(), ^uint64(0)}} }

// A node has the entries and nodes of its places, in the order of their places.
type node[V any] struct {
	owner    *owner // the edit that made it, and may change it; of no use once that has ended
	inline   uint64 // the places that have an entry
	below    uint64 // the places that have a node
	entries  []entry[V]
	children []*node[V]
}

type entry[V any] struct {
	key   string
	value V
}

type owner struct{ _ byte } // not of size 0: each has an address of its own

const (
	bitsPerLevel  = 6
	levelsPerHash = 10
)

// A hasher hashes keys with a seed of its own, so that a stranger cannot choose keys that collide.
type hasher struct {
	seed maphash.Seed
	mask uint64 // all ones, except in tests of collisions
}

// rehash is hashed once the bits of a key's first hash are used up.
type rehash struct {
	key   string
	round int
}

// bits returns the bits of the key's hash from a level on.
func (s hasher) bits(key string, level int) uint64 {
	round := level / levelsPerHash
	if round == 0 {
		return maphash.String(s.seed, key) & s.mask >> (bitsPerLevel * level)
	}
	return maphash.Comparable(s.seed, rehash{key, round}) >> (bitsPerLevel * (level % levelsPerHash))
}

// place returns the place of a node that the lowest bits choose.
func place(h uint64) uint64 { return 1 << (h & (1<<bitsPerLevel - 1)) }

// index returns how many places in use are before one.
func index(used, place uint64) int { return bits.OnesCount64(used & (place - 1)) }

// Len returns the number of entries.
func (m Map[V]) Len() int { return m.size }

// Get returns the value of key, and whether there is one.
func (m Map[V]) Get(key string) (value V, ok bool) {
	n := m.root
	if n == nil {
		return value, false
	}
	h := maphash.String(m.hash.seed, key) & m.hash.mask
	for level := 1; ; level++ {
		p := place(h)
		if n.inline&p != 0 {
			if e := &n.entries[index(n.inline, p)]; e.key == key {
				return e.value, true
			}
			return value, false
		}
		if n.below&p == 0 {
			return value, false
		}
		n = n.children[index(n.below, p)]
		if h >>= bitsPerLevel; level%levelsPerHash == 0 {
			h = m.hash.bits(key, level)
		}
	}
}

// All returns the entries, in an order of no meaning.
func (m Map[V]) All() iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		if m.root != nil {
			m.root.each(yield)
		}
	}
}

func (n *node[V]) each(yield func(string, V) bool) bool {
	for i := range n.entries {
		if !yield(n.entries[i].key, n.entries[i].value) {
			return false
		}
	}
	for _, c := range n.children {
		if !c.each(yield) {
			return false
		}
	}
	return true
}

// With returns the map with a value for key.
func (m Map[V]) With(key string, value V) Map[V] {
	e := m.Edit()
	e.Set(key, value)
	return e.Map()
}

// Without returns the map without key.
func (m Map[V]) Without(key string) Map[V] {
	e := m.Edit()
	e.Delete(key)
	return e.Map()
}

// An Edit makes many changes to a map, and copies each node once at most. It is not safe for
// concurrent use.
type Edit[V any] struct {
	m     Map[V]
	owner *owner
}

// Edit returns an edit that starts with the entries of m, which stays as it is.
func (m Map[V]) Edit() *Edit[V] { return &Edit[V]{m, new(owner)} }

// Map returns the entries as they are. Later changes of the edit do not reach it.
func (e *Edit[V]) Map() Map[V] {
	e.owner = new(owner)
	return e.m
}

// Get is [Map.Get] for the entries as they are.
func (e *Edit[V]) Get(key string) (V, bool) { return e.m.Get(key) }

// Len returns the number of entries.
func (e *Edit[V]) Len() int { return e.m.size }

// All is [Map.All] for the entries as they are. The edit must not change meanwhile.
func (e *Edit[V]) All() iter.Seq2[string, V] { return e.m.All() }

// Set sets the value of key.
func (e *Edit[V]) Set(key string, value V) {
	root, added := e.set(e.m.root, 0, e.m.hash.bits(key, 0), entry[V]{key, value})
	e.m.root = root
	if added {
		e.m.size++
	}
}

// next returns the bits of key's hash for the next level. h has those of level.
func (e *Edit[V]) next(key string, level int, h uint64) uint64 {
	if (level+1)%levelsPerHash == 0 {
		return e.m.hash.bits(key, level+1)
	}
	return h >> bitsPerLevel
}

func (e *Edit[V]) set(n *node[V], level int, h uint64, new entry[V]) (_ *node[V], added bool) {
	p := place(h)
	if n == nil {
		return &node[V]{owner: e.owner, inline: p, entries: []entry[V]{new}}, true
	}
	n = e.own(n)
	switch i := index(n.inline, p); {
	case n.inline&p != 0 && n.entries[i].key == new.key:
		n.entries[i].value = new.value
		return n, false
	case n.inline&p != 0: // both go one level down
		old := n.entries[i]
		child, _ := e.set(nil, level+1, e.m.hash.bits(old.key, level+1), old)
		child, _ = e.set(child, level+1, e.next(new.key, level, h), new)
		n.entries, n.inline = slices.Delete(n.entries, i, i+1), n.inline&^p
		n.children, n.below = slices.Insert(n.children, index(n.below, p), child), n.below|p
		return n, true
	case n.below&p != 0:
		c := index(n.below, p)
		n.children[c], added = e.set(n.children[c], level+1, e.next(new.key, level, h), new)
		return n, added
	default:
		n.entries, n.inline = slices.Insert(n.entries, i, new), n.inline|p
		return n, true
	}
}

// Delete removes key, if it is there.
func (e *Edit[V]) Delete(key string) {
	if _, ok := e.m.Get(key); !ok {
		return // so that nothing is copied
	}
	e.m.size--
	if e.m.root = e.delete(e.m.root, 0, e.m.hash.bits(key, 0), key); e.m.size == 0 {
		e.m.root = nil
	}
}

// delete removes a key that is there.
func (e *Edit[V]) delete(n *node[V], level int, h uint64, key string) *node[V] {
	n = e.own(n)
	p := place(h)
	if n.inline&p != 0 {
		i := index(n.inline, p)
		n.entries, n.inline = slices.Delete(n.entries, i, i+1), n.inline&^p
		return n
	}
	c := index(n.below, p)
	child := e.delete(n.children[c], level+1, e.next(key, level, h), key)
	if len(child.entries) > 1 || len(child.children) > 0 {
		n.children[c] = child
		return n
	}
	n.children, n.below = slices.Delete(n.children, c, c+1), n.below&^p
	n.entries, n.inline = slices.Insert(n.entries, index(n.inline, p), child.entries[0]), n.inline|p
	return n
}

// own returns n if the edit made it, and otherwise a copy that the edit may change.
func (e *Edit[V]) own(n *node[V]) *node[V] {
	if n.owner == e.owner {
		return n
	}
	c := *n
	c.owner, c.entries, c.children = e.owner, slices.Clone(n.entries), slices.Clone(n.children)
	return &c
}
