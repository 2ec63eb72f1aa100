// Package table is an open-addressing hash table for revocations, behind a blocked Bloom filter
// that answers for nearly all missing digests from one word of memory.
//
// Readers take no lock, beside writers. A shard is one of 256 parts of the table:
//
//	filter  [ word  word ]                                 16 bits a slot; an entry sets four bits of one word
//	tags    [ a2 f7 .. .. .. .. .. .. ]                    group 0: a byte for each of eight slots
//	        [ 01 aa 0e 3c 42 10 d1 55 ]                    group 1: full, so a search goes on
//	        [ 0b .. .. .. .. .. .. .. ]                    group 2
//	slots   [ entry entry  -    -    -    -    -    - ]    of group 0, and so on
//
// A hash of the digest chooses the shard, the bits of the filter, the group and the tag. A group
// fills from the left. The first group with a free slot ends a search. A slot never gets another
// digest: [Table.Drop] copies the shards in which it removes something, and a shard that is full
// is copied to one that is an eighth larger. So a reader never meets an entry that changes
// into another one, and at most one shard is in memory twice.
//
// The hash has a random seed. Without a key-encryption key a writer to the store can choose
// digests, and must not be able to make them collide (hash flooding, oCERT-2011-003).
package table

import (
	"encoding/binary"
	"iter"
	"math/bits"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
)

// A Digest names a token, session, subject or tenant. The zero Digest names nothing.
type Digest = [16]byte

// A Kind says what an entry revokes.
type Kind uint8

// The kinds of entries. Those of tokens and sessions revoke by being there, and those of
// subjects and tenants revoke the tokens that were issued before a second.
const (
	Token Kind = 1 + iota
	Session
	Subject
	Tenant
)

// MaxEntries is how many entries a table is made for.
const MaxEntries = 1 << 26

// latest is the greatest time that an entry can hold, in the year 2242.
const latest = 1<<33 - 1

// An Entry is one revocation. Times are in seconds since 1970. The table holds those before 0
// as 0, and those after the year 2241 as the latest one of that year or of the next.
type Entry struct {
	Digest Digest
	Tenant uint64 // the first 8 bytes of the tenant's digest
	Kind   Kind
	Key    uint32 // names the digest key
	Before int64  // tokens issued earlier are revoked, for subjects and tenants
	End    int64  // no token that it revokes is accepted later
}

// A Table holds entries in memory, at most 64 bytes for each if there are many. It is safe for
// concurrent use. Make one with [New].
type Table struct {
	seed   [4]uint64
	shards [shards]atomic.Pointer[shard] // read without a lock
	none   *shard                        // the shard without entries

	_       apart
	version atomic.Uintptr // see Version
	size    atomic.Int64
	_       apart // writers write what follows, also for what changes nothing

	// mu guards tenants, every write to the shards, and their fields used. Reading an
	// entry whole takes it too, since the entry names its tenant by its place in tenants.
	mu      sync.Mutex
	tenants tenants
}

const shards = 256

// apart keeps fields that are written often away from those that look-ups read. It takes two lines of the
// processor's cache, since those are fetched in pairs.
type apart [128]byte

// New returns an empty table. It has room at once for that many entries. With 0 it grows from
// nothing.
func New(hint int) *Table {
	t := &Table{none: newShard(0)}
	for i := range t.seed {
		t.seed[i] = rand.Uint64()
	}
	t.tenants.seed = rand.Uint64()
	t.version.Store(1)
	each := min(hint, MaxEntries) / shards
	for i := range t.shards {
		s := t.none
		if each > 0 {
			s = newShard(each)
		}
		t.shards[i].Store(s)
	}
	return t
}

// hash chooses the place of a digest:
//
//	bits 63 to 56  the shard
//	bits 55 down   the group, and the word of the filter
//	bits 31 to 24  the tag
//	bits 23 to 0   four bits of the word
func (t *Table) hash(d *Digest) uint64 {
	hi, lo := bits.Mul64(binary.LittleEndian.Uint64(d[:8])^t.seed[0], binary.LittleEndian.Uint64(d[8:])^t.seed[1])
	hi, lo = bits.Mul64(lo^t.seed[2], hi^t.seed[3]) // one round alone leaves steps of one half visible
	return hi ^ lo
}

func (t *Table) shard(h uint64) *atomic.Pointer[shard] { return &t.shards[h>>56] }

// Check reports whether a token is revoked that was issued at iat, in seconds since 1970. ds
// are the digests under which entries may name it. Zero digests name nothing.
//
// It takes no lock, allocates nothing, and sees every entry whose Put has returned. If it returns
// false, it would at any time at which [Table.Version] is as it was before the call.
func (t *Table) Check(ds *[4]Digest, iat int64) bool {
	// The four waits for memory overlap, as no branch depends on one of them.
	named := t.named(&ds[0]) | t.named(&ds[1])<<1 | t.named(&ds[2])<<2 | t.named(&ds[3])<<3
	return named != 0 && t.revoked(ds, named, iat)
}

// named returns 0 if the table does not hold d, and mostly only then, or else 1.
func (t *Table) named(d *Digest) uint {
	h := t.hash(d)
	return t.shard(h).Load().named(h)
}

// revoked is Check for the digests that the filter named.
func (t *Table) revoked(ds *[4]Digest, named uint, iat int64) bool {
	for ; named != 0; named &= named - 1 {
		d := &ds[bits.TrailingZeros(named)]
		h := t.hash(d)
		if s := t.shard(h).Load().find(h, d); s != nil && s.revokes(iat) {
			return true
		}
	}
	return false
}

// Version returns a number, never 0, that is another one after each Put that changed anything, before it
// returns. Drop does not change it, since it revokes nothing.
func (t *Table) Version() uintptr { return t.version.Load() }

// advance gives the table another version.
func (t *Table) advance() {
	if t.version.Add(1) == 0 { // only with words of 32 bits
		t.version.Add(1)
	}
}

// Put adds an entry. If one of its digest is there, Put moves its Before and End forward,
// never back, and leaves the rest. It reports whether anything changed. The zero Digest and
// an unknown Kind are ignored.
func (t *Table) Put(e Entry) (changed bool) {
	if e.Digest == (Digest{}) || e.Kind < Token || e.Kind > Tenant {
		return false
	}
	e.Before, e.End = clamp(e.Before), clamp(e.End)
	t.mu.Lock()
	defer t.mu.Unlock()
	if changed = t.putLocked(&e); changed {
		t.advance() // now, since look-ups rely on what they have found at a version
	}
	return changed
}

func (t *Table) putLocked(e *Entry) (changed bool) {
	h := t.hash(&e.Digest)
	s := t.shard(h).Load()
	if slot := s.find(h, &e.Digest); slot != nil {
		return slot.join(e)
	}
	if s.used == s.most {
		s = t.copyOf(s.all(), s.used+max(s.used/8, minRoom))
		t.shard(h).Store(s)
	}
	s.add(h, newWords(e, t.tenants.join(e.Tenant)))
	t.size.Add(1)
	return true
}

func clamp(second int64) int64 { return min(max(second, 0), latest) }

// copyOf returns a shard with entries, and with room for so many.
func (t *Table) copyOf(entries iter.Seq[words], room int) *shard {
	s := newShard(room)
	for w := range entries {
		s.add(t.hash(w.digest()), w)
	}
	return s
}

// Get returns the entry of a digest, and whether there is one.
func (t *Table) Get(d Digest) (Entry, bool) {
	h := t.hash(&d)
	t.mu.Lock()
	defer t.mu.Unlock()
	slot := t.shard(h).Load().find(h, &d)
	if slot == nil {
		return Entry{}, false
	}
	return t.entry(slot.load()), true
}

func (t *Table) entry(w words) Entry {
	e := w.entry()
	e.Tenant = t.tenants.name(w.tenant())
	return e
}

// Drop removes the entries that goes selects, and returns how many it removed. It calls goes
// once for each entry, with a lock held, so goes must not call the table. Other writers wait
// for one shard at most.
func (t *Table) Drop(goes func(Entry) bool) int {
	dropped := 0
	var stays []words
	for i := range t.shards {
		dropped += t.dropFrom(i, goes, &stays)
	}
	if dropped > 0 {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.tenants.forget()
	}
	return dropped
}

// dropFrom is Drop for one shard. buffer is memory for it to use.
func (t *Table) dropFrom(i int, goes func(Entry) bool, buffer *[]words) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.shards[i].Load()
	stays := (*buffer)[:0]
	for w := range s.all() {
		if goes(t.entry(w)) {
			t.tenants.leave(w.tenant())
		} else {
			stays = append(stays, w)
		}
	}
	*buffer = stays
	dropped := s.used - len(stays)
	if dropped == 0 {
		return 0
	}
	t.size.Add(int64(-dropped))
	next := t.none
	if len(stays) > 0 {
		next = t.copyOf(slices.Values(stays), len(stays)+minRoom)
	}
	t.shards[i].Store(next)
	return dropped
}

// Len returns the number of entries.
func (t *Table) Len() int { return int(t.size.Load()) }

// LenOf returns the number of entries of a tenant.
func (t *Table) LenOf(tenant uint64) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.tenants.count(tenant)
}

// All returns the entries, in no order. The loop may call the table. It sees entries that are
// there all the while exactly once, and may see those that come or go meanwhile.
func (t *Table) All() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		var list []Entry
		for i := range t.shards {
			list = t.entries(i, list[:0])
			for _, e := range list {
				if !yield(e) {
					return
				}
			}
		}
	}
}

func (t *Table) entries(i int, list []Entry) []Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	for w := range t.shards[i].Load().all() {
		list = append(list, t.entry(w))
	}
	return list
}
