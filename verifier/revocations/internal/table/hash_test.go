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
