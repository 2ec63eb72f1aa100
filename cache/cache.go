// Package cache is a set-associative table with CLOCK aging and fair-share
// admission: it caches values by the texts that they were made from, within bounds
// for entries and bytes, and without keeping the texts.
//
// It serves package verifier for verified tokens, and knows nothing about tokens. A
// hit costs a keyed digest of the text and one look into the table. It takes no
// lock and allocates nothing. An entry does not expire by itself: the caller passes
// [Cache.Get] a function that decides whether the value still serves.
//
// # The table
//
// A digest chooses one bucket of the table, and an entry stands in one of the seven
// slots of its bucket:
//
//	slot         0    1    2    3    4    5    6
//	bucket 0  [ A3 | B0 |    |    | A1 |    |    ]       letter: the group
//	bucket 1  [    | A0 |    | C2 |    |    |    ]       digit: the uses, 0 to 3
//	bucket 2  [ A2 | A0 | B1 | A0 | C0 | A1 | A0 ]  <--  digest of a new text of B
//	bucket 3  [ B0 |    |    |    |    | B3 |    ]
//
// A hit adds one use to its entry, up to three. The clock hand takes one use from each
// entry that it passes. It moves when a new entry needs room, and goes once around
// the table for Entries of them. An entry with no uses is unused: it was never hit,
// or not lately.
//
// # Who is evicted
//
// Each entry belongs to a group, which is a tenant for package verifier. The weight
// of an entry is its size in bytes, or Bytes divided by Entries if that is more, so
// that one bound on the weight holds both bounds. A group's fair share is the bound
// divided by the number of groups.
//
// A new entry needs a free slot in its bucket, and room for its weight. If either is
// missing, the cache looks at the entries of the bucket, and of the next buckets if
// it needs only weight and has seen few entries. It evicts one of these, the first
// that exists in this order, and the oldest of equals:
//
//  1. An entry that the caller calls dead.
//  2. An unused entry of a group above its share. If the new entry's group has no
//     share left, also an unused entry of any group that weighs at least as much as
//     that group, its own included.
//  3. If the new entry's group has share left: a used entry of a group above its
//     share.
//  4. If the new entry's group has share left: an unused entry of any group.
//
// If no such entry exists, the new entry is not admitted. In the picture, if B has share
// left and A is above its share, the oldest A0 of bucket 2 goes.
//
// So a stream of texts that each come once does not flush the texts that come again
// and again, and a flood of one group only replaces its own entries. The limit: a
// text that comes again only after as many other texts as there may be entries
// looks like a text that comes once.
//
// Each call of [Cache.Add] also looks at one more slot, going around the whole
// table, and removes the entry there if it is dead.
package cache

import (
	"errors"
	"fmt"
	"math/bits"
	"strings"
	"sync"
	"sync/atomic"
)

// Config bounds a [Cache]. Both bounds hold at all times.
type Config struct {
	Entries int   // at least 1
	Bytes   int64 // at least 1: the sizes that [Cache.Add] gets, and 75 bytes of our own for each entry
}

// A Cache holds values of type V. It is safe for concurrent use, starts no goroutines
// and needs no closing. Make one with [New].
type Cache[V any] struct {
	cfg      Config
	digester *digester
	table    []bucket[V] // a power of two of them; read without a lock
	counts   []counts    // sharded, so that processors do not wait for each other

	// mu guards the fields below, and every write to the table except to
	// Entry.uses. It is the only lock of the package. The caller's function dead
	// runs under it.
	mu        sync.Mutex
	groups    map[string]*group // those with entries
	entries   int
	bytes     int64
	weight    int64
	additions uint64 // calls of Add so far; an entry's age
	evictions uint64
	clockHand int // the bucket that ages next
	agingDebt int // how far the hand lags behind, in buckets times Config.Entries
	sweepAt   int // the slot that the sweep looks at next
}

const ways = 7

// A bucket has the slots for the keys of one place of the table. It fills a cache
// line of the processor, so that a look-up reads one line of the table and, in most
// cases, one entry.
type bucket[V any] struct {
	tags  atomic.Uint64 // a byte of the key's hash for each slot, 0 for a free one: most other entries need no look
	slots [ways]atomic.Pointer[Entry[V]]
}

// bytesOf returns a word with b in each of its eight bytes.
func bytesOf(b uint8) uint64 { return uint64(b) * 0x0101010101010101 }

// matches returns a word with the top bit set in each byte where tags has tag. The
// subtraction may borrow, so it may also set the bit in a byte above a match.
func matches(tags uint64, tag uint8) uint64 {
	x := tags ^ bytesOf(tag)
	return (x - bytesOf(1)) &^ x & bytesOf(0x80)
}

// An Entry is a value to cache. The caller allocates it, and may read it after
// [Cache.Add], but must not change it any more.
type Entry[V any] struct {
	key  Key
	uses atomic.Uint32 // hits, less one for each pass of the clock hand; at most about maxUses

	// Value is the caller's. The fields that a hit reads should come first in it,
	// since they share a cache line of the processor with key.
	Value V

	born  uint64 // the value of Cache.additions when it was added
	bytes int64
	group *group
}

// A group counts the entries of one group. Cache.mu guards it.
type group struct {
	name    string
	entries int
	weight  int64
}

// maxUses is the number of passes of the clock hand that an entry survives after its
// last hit. An entry with so many uses is in use, and further hits write nothing
// to it.
const maxUses = 3

// counts are those of one shard. They fill a cache line of their own.
type counts struct {
	hits, misses atomic.Uint64
	_            [128 - 16]byte
}

const shards = 32

const maxEntries = 1 << 30

// New returns a Cache. It allocates the whole table at once: at least twice as many
// slots as there may be entries, of 9 bytes each.
func New[V any](cfg Config) (*Cache[V], error) {
	switch {
	case cfg.Entries < 1 || cfg.Bytes < 1:
		return nil, errors.New("cache: Entries and Bytes must be at least 1")
	case cfg.Entries > maxEntries:
		return nil, fmt.Errorf("cache: Entries must be at most %d", maxEntries)
	}
	most := min(int64(cfg.Entries), cfg.Bytes/overhead) // entries
	buckets := 1
	for int64(buckets*ways) < 2*most {
		buckets *= 2
	}
	c := &Cache[V]{
		cfg:    cfg,
		table:  make([]bucket[V], buckets),
		counts: make([]counts, shards),
		groups: make(map[string]*group),
	}
	c.digester = newDigester(c.counts)
	return c, nil
}

// Get returns the value that was added for text in domain, if there is one and good
// accepts it. Otherwise it returns nil. The key is for [Cache.Add]. Get counts a hit
// or a miss.
//
// Equal texts in different domains are different. The caller must not change the
// value. Get calls good at most once; good must not call the cache.
func (c *Cache[V]) Get(domain uint64, text string, good func(*V) bool) (*V, Key) {
	k, counts := c.digester.key(domain, text)
	if e := c.find(&k); e != nil && good(&e.Value) {
		counts.hits.Add(1)
		if e.uses.Load() < maxUses {
			e.uses.Add(1) // two hits at once may exceed maxUses, which does no harm
		}
		return &e.Value, k
	}
	counts.misses.Add(1)
	return nil, k
}

func (c *Cache[V]) find(k *Key) *Entry[V] {
	h := c.digester.spread(k)
	b := &c.table[c.bucketOf(h)]
	for m := matches(b.tags.Load(), tagOf(h)); m != 0; m &= m - 1 {
		slot := bits.TrailingZeros64(m) / 8
		if slot < ways {
			if e := b.slots[slot].Load(); e != nil && e.key == *k {
				return e
			}
		}
	}
	return nil
}

func (c *Cache[V]) bucketOf(h uint64) int { return int(h & uint64(len(c.table)-1)) }

// tagOf returns a tag, which is never 0, from bits that do not choose the bucket.
func tagOf(h uint64) uint8 { return max(uint8(h>>56), 1) }

// overhead is the memory of an entry beside the size that Add gets, in bytes: its
// fields without the value, and its part of the table.
const overhead = 48 + 3*9

// maxFraction limits one entry to Config.Bytes / maxFraction.
const maxFraction = 16

// Add adds e to the group under k, which [Cache.Get] returned, and replaces the entry
// that is there. size is the memory of e.Value in bytes, including memory that only it
// points to: a negative size, and one above a sixteenth of Config.Bytes, is not admitted.
// The package comment says which other entries are not. An entry may be added once,
// to one cache.
//
// dead, if it is not nil, reports whether a value will never be good again. Add calls
// it with a lock held, so it must not call the cache.
func (c *Cache[V]) Add(k Key, group string, e *Entry[V], size int, dead func(*V) bool) {
	if size < 0 || int64(size) > max(c.cfg.Bytes/maxFraction, c.minWeight())-overhead {
		return
	}
	e.key, e.bytes = k, int64(size)+overhead
	h := c.digester.spread(&k)
	at := c.bucketOf(h)

	c.mu.Lock()
	defer c.mu.Unlock()
	c.additions++
	e.born = c.additions
	e.group = c.join(group)
	if slot := c.slotOf(at, &k); slot >= 0 {
		c.remove(at, slot, e.group)
	}
	c.sweep(e.group, dead)
	if slot := c.makeRoom(at, e, dead); slot >= 0 {
		c.put(at, slot, tagOf(h), e)
	}
	c.leave(e.group)
}

// minWeight is the least weight of an entry: the part of Config.Bytes for each of
// Config.Entries. So a table of the greatest weight has not too many entries.
func (c *Cache[V]) minWeight() int64 {
	return (c.cfg.Bytes-1)/int64(c.cfg.Entries) + 1
}

func (c *Cache[V]) weightOf(e *Entry[V]) int64 { return max(e.bytes, c.minWeight()) }

// join returns the group of that name. It makes the group if it is missing.
func (c *Cache[V]) join(name string) *group {
	g := c.groups[name]
	if g == nil {
		name = strings.Clone(name) // it may be a part of something large
		g = &group{name: name}
		c.groups[name] = g
	}
	return g
}

// leave removes the group if it has no entries.
func (c *Cache[V]) leave(g *group) {
	if g.entries == 0 {
		delete(c.groups, g.name)
	}
}

// slotOf returns the slot of the entry with key k in the bucket at, or -1.
func (c *Cache[V]) slotOf(at int, k *Key) int {
	for i := range ways {
		if e := c.table[at].slots[i].Load(); e != nil && e.key == *k {
			return i
		}
	}
	return -1
}

// freeSlot returns a free slot of the bucket at, or -1.
func (c *Cache[V]) freeSlot(at int) int {
	for i := range ways {
		if c.table[at].slots[i].Load() == nil {
			return i
		}
	}
	return -1
}

// put fills a free slot: first the entry, then its tag. A reader that does not see
// both has a miss.
func (c *Cache[V]) put(at, slot int, tag uint8, e *Entry[V]) {
	b := &c.table[at]
	b.slots[slot].Store(e)
	b.tags.Store(b.tags.Load() | uint64(tag)<<(8*slot))
	e.group.entries++
	e.group.weight += c.weightOf(e)
	c.entries++
	c.bytes += e.bytes
	c.weight += c.weightOf(e)
}

// remove empties a slot. It also removes a group that has no entries left, unless
// that is the group of the new entry.
func (c *Cache[V]) remove(at, slot int, joining *group) {
	b := &c.table[at]
	e := b.slots[slot].Load()
	b.tags.Store(b.tags.Load() &^ (0xff << (8 * slot)))
	b.slots[slot].Store(nil)
	e.group.entries--
	e.group.weight -= c.weightOf(e)
	c.entries--
	c.bytes -= e.bytes
	c.weight -= c.weightOf(e)
	if e.group != joining {
		c.leave(e.group)
	}
}

// makeRoom evicts entries until e fits into the cache and into its bucket. It
// returns a free slot of the bucket, or -1 if e is not admitted.
func (c *Cache[V]) makeRoom(at int, e *Entry[V], dead func(*V) bool) int {
	for again := false; ; again = true {
		slot := c.freeSlot(at)
		full := c.weightOf(e) > c.cfg.Bytes-c.weight
		if slot >= 0 && !full {
			return slot
		}
		if !again {
			c.age()
		}
		atVictim, victim := c.victim(at, slot < 0, e, dead)
		if victim < 0 {
			return -1
		}
		c.remove(atVictim, victim, e.group)
		c.evictions++
	}
}

// age moves the clock hand by len(table) / Config.Entries buckets, and takes one use
// from each entry that it passes. The debt carries the fraction over to the next
// call, so that the hand goes around once in Config.Entries calls.
func (c *Cache[V]) age() {
	for c.agingDebt += len(c.table); c.agingDebt >= c.cfg.Entries; c.agingDebt -= c.cfg.Entries {
		for i := range ways {
			if e := c.table[c.clockHand].slots[i].Load(); e != nil && e.uses.Load() > 0 {
				e.uses.Add(^uint32(0)) // less one
			}
		}
		c.clockHand = (c.clockHand + 1) % len(c.table)
	}
}

// sweep removes the entry of the next slot of the table if it is dead. Such an entry
// may keep memory alive that its size does not count, such as a retired key.
func (c *Cache[V]) sweep(joining *group, dead func(*V) bool) {
	at, slot := c.sweepAt/ways, c.sweepAt%ways
	if e := c.table[at].slots[slot].Load(); e != nil && dead != nil && dead(&e.Value) {
		c.remove(at, slot, joining)
		c.evictions++
	}
	c.sweepAt = (c.sweepAt + 1) % (len(c.table) * ways)
}

// The size of the sample that victim looks at. Each entry of it may cost a wait for
// memory.
const (
	enough   = 4  // entries, if one of them may go
	atMost   = 16 // entries, if none of them may go
	maxSteps = 64 // buckets: large entries leave a table nearly empty
)

// victim returns the place of the entry that goes for e, or a negative slot if none
// may go. It looks into the bucket at and, unless only is set, into those after it.
func (c *Cache[V]) victim(at int, only bool, e *Entry[V], dead func(*V) bool) (bucket, slot int) {
	share := c.cfg.Bytes / int64(len(c.groups))
	entitled := e.group.weight <= share-c.weightOf(e)

	slot, best, seen := -1, stays, 0
	var oldest uint64
	for step := range min(len(c.table), maxSteps) {
		b := (at + step) % len(c.table)
		for i := range ways {
			o := c.table[b].slots[i].Load()
			if o == nil {
				continue
			}
			seen++
			above := o.group.weight > share || !entitled && o.group.weight >= e.group.weight
			r := rankOf(dead != nil && dead(&o.Value), above, o.uses.Load() > 0, entitled)
			if r < best || r == best && r < stays && o.born < oldest {
				bucket, slot, best, oldest = b, i, r, o.born
			}
		}
		if only || seen >= atMost || seen >= enough && best < stays {
			break
		}
	}
	return bucket, slot
}

// The ranks of entries, in the order in which they go.
const (
	isDead = iota
	unusedAboveShare
	usedAboveShare
	unused
	stays // never goes
)

// rankOf returns the rank of one entry. entitled says that the group of the new
// entry has share left.
func rankOf(dead, aboveShare, used, entitled bool) int {
	switch {
	case dead:
		return isDead
	case aboveShare && !used:
		return unusedAboveShare
	case entitled && aboveShare:
		return usedAboveShare
	case entitled && !used:
		return unused
	}
	return stays
}

// Stats are the counters and the size of a [Cache].
type Stats struct {
	Hits, Misses uint64 // of Get
	Evictions    uint64 // entries that were removed for others, or because they were dead
	Entries      int
	Bytes        int64 // at most Config.Bytes
}

// Stats returns the numbers up to now. A call that runs at the same time may not be
// counted yet.
func (c *Cache[V]) Stats() Stats {
	c.mu.Lock()
	s := Stats{Evictions: c.evictions, Entries: c.entries, Bytes: c.bytes}
	c.mu.Unlock()
	for i := range c.counts {
		s.Hits += c.counts[i].hits.Load()
		s.Misses += c.counts[i].misses.Load()
	}
	return s
}
