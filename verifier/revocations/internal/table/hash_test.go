package table

import (
	"encoding/binary"
	"testing"
)

// TestChosenDigestsSpread hashes digests as a writer without the digest key could choose them: they
// differ in one half, by small steps. The hash has a secret seed, so they spread over the shards.
func TestChosenDigestsSpread(t *testing.T) {
	for _, half := range []int{0, 8} {
		for _, other := range []uint64{0, 1, 1 << 63} {
			tab, seen, words := New(0), map[uint64]bool{}, map[uint64]bool{}
			for i := range uint64(4096) {
				var d Digest
				binary.LittleEndian.PutUint64(d[half:], i)
				binary.LittleEndian.PutUint64(d[8-half:], other)
				h := tab.hash(&d)
				seen[h>>56] = true
				words[filterBits(h)] = true
			}
			if len(seen) < 240 || len(words) < 3000 {
				t.Errorf("half %d: %d shards and %d words", half, len(seen), len(words))
			}
		}
	}
}

// TestBytesOfAnEntry adds up what the arrays of a table take: an entry has at most 64 bytes with its share
// of the filter and of what is free, at any size from a few thousand on.
func TestBytesOfAnEntry(t *testing.T) {
	tab := New(0)
	for i := range uint64(50_000) {
		var d Digest
		binary.LittleEndian.PutUint64(d[:], i*0x9e3779b97f4a7c15)
		binary.LittleEndian.PutUint64(d[8:], i+1) // the zero digest names nothing
		tab.Put(Entry{Digest: d, Kind: 1, Key: 7, Before: 1e9, End: 2e9, Tenant: 1})
		if i < 10_000 || i%1000 != 0 {
			continue
		}
		bytes := 0
		for j := range tab.shards {
			s := tab.shards[j].Load()
			bytes += 8*cap(s.filter) + 8*cap(s.tags) + 32*cap(s.slots)
		}
		if each := float64(bytes) / float64(i+1); each > 64 {
			t.Errorf("%d entries take %.1f bytes each", i+1, each)
		}
	}
	if tab.Len() != 50_000 {
		t.Errorf("the table holds %d", tab.Len())
	}
}
