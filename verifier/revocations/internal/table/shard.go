package table

import (
	"encoding/binary"
	"iter"
	"math/bits"
	"sync/atomic"
)

const (
	perGroup = 8 // slots, and bytes of a word
	minRoom  = perGroup * 7 / 8
)

// A shard is a part of a [Table]. Its size is fixed.
type shard struct {
	filter []atomic.Uint64 // one for each four slots
	tags   []atomic.Uint64 // one for each group
	slots  []slot
	most   int // how many entries it may hold
	used   int // how many entries it holds; Table.mu guards it
}

// A slot holds an entry. Its words are as those of [words]. The digest and what the entry names
// never change once the slot's tag is set. Before and End grow.
type slot [4]atomic.Uint64

// newShard returns a shard with room for at least that many entries. At most seven of eight
// slots are in use: with more, groups that are full would make searches long.
func newShard(room int) *shard {
	groups := (room*8/7 + perGroup) / perGroup
	s := &shard{
		filter: make([]atomic.Uint64, 2*groups),
		tags:   make([]atomic.Uint64, groups),
		slots:  make([]slot, perGroup*groups),
	}
	if room > 0 {
		s.most = groups * minRoom
	}
	return s
}

// scaled returns a number below n, in the order of h's bits below the shard's.
func scaled(h uint64, n int) int {
	at, _ := bits.Mul64(h<<8, uint64(n))
	return int(at)
}

// named returns 1 if the filter has all four bits of h, or else 0.
func (s *shard) named(h uint64) uint {
	if filterBits(h)&^s.filter[scaled(h, len(s.filter))].Load() == 0 {
		return 1
	}
	return 0
}

func filterBits(h uint64) uint64 {
	return 1<<(h&63) | 1<<(h>>6&63) | 1<<(h>>12&63) | 1<<(h>>18&63)
}

// tagOf returns the tag of h, which is not 0.
func tagOf(h uint64) uint64 { return max(h>>24&0xff, 1) }

const ones = 0x0101_0101_0101_0101

// matches returns a word with the top bit set in each byte where tags has tag. The subtraction
// may borrow, so the byte above a match may be marked too.
func matches(tags, tag uint64) uint64 {
	x := tags ^ tag*ones
	return (x - ones) &^ x & (ones << 7)
}

// isFull reports whether the group has no free slot. Groups fill from the lowest byte.
func isFull(tags uint64) bool { return tags>>56 != 0 }

// inUse returns how many slots of the group are in use.
func inUse(tags uint64) int { return (bits.Len64(tags) + 7) / 8 }

// find returns the slot of a digest, or nil.
func (s *shard) find(h uint64, d *Digest) *slot {
	at := scaled(h, len(s.tags))
	for range s.tags {
		tags := s.tags[at].Load()
		for m := matches(tags, tagOf(h)); m != 0; m &= m - 1 {
			if slot := &s.slots[perGroup*at+bits.TrailingZeros64(m)/8]; slot.holds(d) {
				return slot
			}
		}
		if !isFull(tags) {
			return nil
		}
		if at++; at == len(s.tags) {
			at = 0
		}
	}
	return nil
}

// add fills a free slot, which must exist: first the entry, then its tag, and then the bits of the
// filter, so that a reader that sees the bits sees the entry.
func (s *shard) add(h uint64, w words) {
	at := scaled(h, len(s.tags))
	for isFull(s.tags[at].Load()) {
		if at++; at == len(s.tags) {
			at = 0
		}
	}
	tags := s.tags[at].Load()
	n := inUse(tags)
	slot := &s.slots[perGroup*at+n]
	for i := range slot {
		slot[i].Store(w[i])
	}
	s.tags[at].Store(tags | tagOf(h)<<(8*n))
	word := &s.filter[scaled(h, len(s.filter))]
	word.Store(word.Load() | filterBits(h))
	s.used++
}

// all returns the entries of the shard.
func (s *shard) all() iter.Seq[words] {
	return func(yield func(words) bool) {
		for at := range s.tags {
			for i := range inUse(s.tags[at].Load()) {
				if !yield(s.slots[perGroup*at+i].load()) {
					return
				}
			}
		}
	}
}

func (s *slot) holds(d *Digest) bool {
	return s[0].Load() == binary.LittleEndian.Uint64(d[:8]) && s[1].Load() == binary.LittleEndian.Uint64(d[8:])
}

func (s *slot) load() words {
	return words{s[0].Load(), s[1].Load(), s[2].Load(), s[3].Load()}
}

// revokes reports whether the entry revokes a token issued at iat.
func (s *slot) revokes(iat int64) bool {
	w := s[2].Load()
	return kindOf(w) <= Session || iat < int64(w>>timeShift)
}

// join moves the times forward to those of e, and reports whether one moved.
func (s *slot) join(e *Entry) (changed bool) {
	before, end := forward(&s[2], e.Before), forward(&s[3], e.End)
	return before || end
}

func forward(word *atomic.Uint64, second int64) (changed bool) {
	w := word.Load()
	if int64(w>>timeShift) >= second {
		return false
	}
	word.Store(uint64(second)<<timeShift | w&restMask)
	return true
}

// words are an [Entry], packed:
//
//	0, 1  the digest
//	2     33 bits Before, 1 bit of Key, 3 bits Kind, 27 bits the tenant's place in tenants
//	3     33 bits End, 31 bits of Key
type words [4]uint64

const (
	timeShift = 31
	restMask  = 1<<timeShift - 1
	keyShift  = 30 // in word 2
	kindShift = 27
	maxTenant = 1<<kindShift - 1
)

func newWords(e *Entry, tenant uint32) words {
	return words{
		binary.LittleEndian.Uint64(e.Digest[:8]),
		binary.LittleEndian.Uint64(e.Digest[8:]),
		uint64(e.Before)<<timeShift | uint64(e.Key>>31)<<keyShift | uint64(e.Kind)<<kindShift | uint64(tenant),
		uint64(e.End)<<timeShift | uint64(e.Key)&restMask,
	}
}

func kindOf(word2 uint64) Kind { return Kind(word2 >> kindShift & 7) }

func (w *words) tenant() uint32 { return uint32(w[2] & maxTenant) }

func (w *words) digest() *Digest {
	d := new(Digest)
	binary.LittleEndian.PutUint64(d[:8], w[0])
	binary.LittleEndian.PutUint64(d[8:], w[1])
	return d
}

// entry returns the entry without its tenant.
func (w *words) entry() Entry {
	return Entry{
		Digest: *w.digest(),
		Kind:   kindOf(w[2]),
		Key:    uint32(w[2]>>keyShift&1)<<31 | uint32(w[3]&restMask),
		Before: int64(w[2] >> timeShift),
		End:    int64(w[3] >> timeShift),
	}
}
