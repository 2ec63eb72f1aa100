// Package cache remembers values by the texts that they were made of: bounded in
// entries and bytes, shared fairly by groups, and without keeping the texts.
//
// It is made for verified tokens, of which it knows nothing. A hit costs a keyed
// digest of the text and one look into a table, takes no lock, allocates nothing
// and, once an entry is known to be in use, writes nothing. What a hit is worth
// is the caller's to judge each time, by a function that [Cache.Get] is given: an
// entry leaves by eviction, not by a clock.
//
// # Who is evicted
//
// An entry weighs its bytes, or the part of all bytes that falls to one entry if
// that is more, so that one bound holds both entries and bytes. A group's share
// is all of the weight divided by the groups there are.
//
// Where an entry must go, some are looked at: those in the new one's bucket of
// the table and, as long as these are few, in the next. Of them goes, in this
// order,
//
//   - one that the caller calls dead;
//   - the oldest unused one of a group that has more than its share; or, if the
//     new one's own group has its share, of a group that has no less;
//   - if the new one's group has less than its share: the oldest used one of a
//     group that has more, or else the oldest unused one of all.
//
// Otherwise the new entry is not admitted. So a stream of texts that come once
// does not flush those that come again and again, and one group's flood turns
// over its own entries. Uses are forgotten bit by bit as new entries come: what
// comes again only after as many others as there may be entries is not told from
// what comes once. Each new entry also looks at one slot for a dead one, all
// around the table.
package cache

import (
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
)

// Config bounds a [Cache]. Both bounds hold at all times.
type Config struct {
	Entries int   // at least 1
	Bytes   int64 // of what [Cache.Add] is told, and our own for each entry
}

// A Cache remembers values of type V. It is safe for concurrent use, starts no
// goroutines and needs no closing.
type Cache[V any] struct {
	cfg      Config
	digester *digester
	table    []bucket[V] // a power of two of them

	counts []counts // sharded, for processors not to wait for each other

	mu        sync.Mutex // guards what follows, and every change of the table
	groups    map[string]*group
	entries   int
	bytes     int64
	weight    int64
	additions uint64
	evictions uint64
	hand      int // the bucket whose uses are forgotten next
	owed      int // of forgetting, in parts of a bucket
	broom     int // the slot that is swept next
}

const ways = 7

// A bucket holds entries whose keys lie near each other. It fills a cache line,
// so that a look-up reads one line of the table and, mostly, one entry.
type bucket[V any] struct {
	tags  atomic.Uint64 // a byte for each slot, 0 for a free one; saves looking at entries in vain
	slots [ways]atomic.Pointer[Entry[V]]
}

// bytesOf is a word with a byte in each place.
func bytesOf(b uint8) uint64 { return uint64(b) * 0x0101010101010101 }

// matches returns a word in which the top bit of each byte is set where that byte
// of tags is tag, and perhaps of some above one that is.
func matches(tags uint64, tag uint8) uint64 {
	x := tags ^ bytesOf(tag)
	return (x - bytesOf(1)) &^ x & bytesOf(0x80)
}

// An Entry is a value to remember, allocated by the caller, who may keep using
// it. Once it has been added, it must not be changed.
type Entry[V any] struct {
	key  Key
	uses atomic.Uint32 // at most about maxUses: since it was made, less what was forgotten

	Value V // what a hit looks at in it had better come first: it shares a cache line with key

	born  uint64 // which addition it was
	bytes int64
	group *group
}

// A group is what one of them holds. It is guarded by Cache.mu.
type group struct {
	name    string
	entries int
	weight  int64
}

// maxUses bounds how long an entry that is used no more stays: it is looked at
// so many times before it goes. From there on, a hit writes nothing.
const maxUses = 3

// counts are of one shard. They fill a cache line of their own.
type counts struct {
	hits, misses atomic.Uint64
	_            [128 - 16]byte
}

const shards = 32

const maxEntries = 1 << 30

// New returns a Cache. Its table has twice as many slots as there may be entries
// at least, of 9 bytes each, allocated at once.
func New[V any](cfg Config) (*Cache[V], error) {
	switch {
	case cfg.Entries < 1 || cfg.Bytes < 1:
		return nil, errors.New("cache: Entries and Bytes must be at least 1")
	case cfg.Entries > maxEntries:
		return nil, fmt.Errorf("cache: Entries must be at most %d", maxEntries)
	}
	most := min(int64(cfg.Entries), cfg.Bytes/overhead) // so many can there be
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

// Get returns the value that was added for text in domain, to be read and not
// changed, if there is one and good says that it still serves; otherwise nil, and
// the key to add it with. It counts a hit or a miss.
//
// good is called at most once, and must not call the cache. A domain keeps equal
// texts apart.
func (c *Cache[V]) Get(domain uint64, text string, good func(*V) bool) (*V, Key) {
	k, counts := c.digester.key(domain, text)
	if e := c.find(&k); e != nil && good(&e.Value) {
		counts.hits.Add(1)
		if e.uses.Load() < maxUses {
			e.uses.Add(1) // two at once may exceed maxUses: no harm
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

// tagOf returns a tag that is not 0, of bits that do not choose the bucket.
func tagOf(h uint64) uint8 { return max(uint8(h>>56), 1) }

// overhead is what an entry takes besides what Add is told, in bytes: itself
// without its value, and what falls to it of the table.
const overhead = 48 + 3*9

// tooLarge is the part of all bytes that one entry may not exceed.
const tooLarge = 16

// Add remembers e under k, which [Cache.Get] returned, for group. size is how
// many bytes e.Value takes, with what it alone points to. e is not admitted if it
// takes more than a sixteenth of all bytes, and see the package comment. What is
// there for k already is replaced. An entry is added once, to one cache.
//
// dead, if it is not nil, tells whether an entry will never be good again. It is
// called with a lock held, and must not call the cache.
func (c *Cache[V]) Add(k Key, group string, e *Entry[V], size int, dead func(*V) bool) {
	if size < 0 || int64(size) > max(c.cfg.Bytes/tooLarge, c.unit())-overhead {
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

// unit is the part of all bytes that falls to one entry.
func (c *Cache[V]) unit() int64 {
	return (c.cfg.Bytes-1)/int64(c.cfg.Entries) + 1
}

func (c *Cache[V]) weightOf(e *Entry[V]) int64 { return max(e.bytes, c.unit()) }

// join returns the group of that name; leave forgets it if it has no entries.
func (c *Cache[V]) join(name string) *group {
	g := c.groups[name]
	if g == nil {
		g = &group{name: name}
		c.groups[name] = g
	}
	return g
}

func (c *Cache[V]) leave(g *group) {
	if g.entries == 0 {
		delete(c.groups, g.name)
	}
}

func (c *Cache[V]) slotOf(at int, k *Key) int {
	for i := range ways {
		if e := c.table[at].slots[i].Load(); e != nil && e.key == *k {
			return i
		}
	}
	return -1
}

func (c *Cache[V]) freeSlot(at int) int {
	for i := range ways {
		if c.table[at].slots[i].Load() == nil {
			return i
		}
	}
	return -1
}

// put fills a free slot. A reader that sees the tag may not see the entry yet:
// for it, that is a miss.
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

// remove empties a slot. A group that is left without entries is forgotten,
// unless it is joining.
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

// makeRoom evicts until e fits into the cache, and into a slot of its bucket,
// which it returns; or -1 if e is not admitted.
func (c *Cache[V]) makeRoom(at int, e *Entry[V], dead func(*V) bool) int {
	for again := false; ; again = true {
		slot := c.freeSlot(at)
		full := c.weightOf(e) > c.cfg.Bytes-c.weight
		if slot >= 0 && !full {
			return slot
		}
		if !again {
			c.forget()
		}
		atVictim, victim := c.victim(at, slot < 0, e, dead)
		if victim < 0 {
			return -1
		}
		c.remove(atVictim, victim, e.group)
		c.evictions++
	}
}

// forget takes one use from the entries of the next buckets: from every entry
// once, while as many are added as there may be.
func (c *Cache[V]) forget() {
	for c.owed += len(c.table); c.owed >= c.cfg.Entries; c.owed -= c.cfg.Entries {
		for i := range ways {
			if e := c.table[c.hand].slots[i].Load(); e != nil && e.uses.Load() > 0 {
				e.uses.Add(^uint32(0))
			}
		}
		c.hand = (c.hand + 1) % len(c.table)
	}
}

// sweep removes the entry of the next slot of the table if it is dead: it holds on
// to memory that nobody counts.
func (c *Cache[V]) sweep(joining *group, dead func(*V) bool) {
	at, slot := c.broom/ways, c.broom%ways
	if e := c.table[at].slots[slot].Load(); e != nil && dead != nil && dead(&e.Value) {
		c.remove(at, slot, joining)
		c.evictions++
	}
	c.broom = (c.broom + 1) % (len(c.table) * ways)
}

// enough entries make a sample, since each may cost a wait for memory; atMost so
// many are looked at where none of those may go.
const (
	enough   = 4
	atMost   = 16
	maxSteps = 64 // buckets, of a table that large entries leave nearly empty
)

// victim returns the place of the entry that must go for e, or a negative slot.
// It looks into the bucket at, and on from there unless only is set.
func (c *Cache[V]) victim(at int, only bool, e *Entry[V], dead func(*V) bool) (bucket, slot int) {
	share := c.cfg.Bytes / int64(len(c.groups))
	entitled := e.group.weight <= share-c.weightOf(e)

	slot, best, seen := -1, worst, 0
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
			if r < best || r == best && r < worst && o.born < oldest {
				bucket, slot, best, oldest = b, i, r, o.born
			}
		}
		if only || seen >= atMost || seen >= enough && best < worst {
			break
		}
	}
	return bucket, slot
}

// Ranks, of which the least goes first.
const (
	isDead = iota
	unusedAboveShare
	usedAboveShare
	unused
	worst // stays
)

// rankOf decides on one entry, where the group of the new one is entitled to more
// or is not.
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
	return worst
}

// Stats is what a [Cache] has done and holds.
type Stats struct {
	Hits, Misses uint64 // of Get
	Evictions    uint64 // entries that went for others
	Entries      int
	Bytes        int64 // at most Config.Bytes
}

// Stats returns the numbers up to now. Those of a call under way may be missing.
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
