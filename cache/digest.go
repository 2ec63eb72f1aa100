package cache

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// A Key stands for a text within a domain. It tells nothing of the text without
// the secret of the [Cache] that made it, and is good for that cache only.
type Key struct {
	digest [16]byte
	length uint32
}

// A digester makes keys. Two texts of one domain, or one text in two domains,
// give one key with probability at most (n/16 + 2) / 2^128 for texts of n bytes,
// whoever chose them, for as long as no digest is shown to anybody.
//
// It is GHASH, a universal hash, as package cipher has it: the tag of AES-GCM
// over the text as additional data, with the domain as nonce and a random key.
// GCM must not be used with one nonce twice where tags are shown, since two tags
// disclose the hash key; here none leaves the process. GHASH is linear, so the
// table is indexed by another keyed hash of the digest: which entry was evicted
// tells nothing of it.
type digester struct {
	pool sync.Pool // of *state
	seed maphash.Seed
}

// A state is the room that a digest takes. The interface of package cipher makes
// what it is handed escape, so it is kept, and the text copied in. It has the room
// for most texts in itself: two small allocations side by side would share a cache
// line, and two processors fight for it.
type state struct {
	tag    func(s *state) // from nonce and text to sum
	nonce  [12]byte
	text   []byte
	sum    [sha256.Size]byte
	counts *counts // of the processor that mostly uses this state
	room   [1024]byte
}

// maxKept is the largest text, in bytes, whose room waits for another.
const maxKept = 64 << 10

func newDigester(shards []counts) *digester {
	secret := make([]byte, 16+32)
	rand.Read(secret)
	tag := tagger(secret)
	var next atomic.Uint32
	d := &digester{seed: maphash.MakeSeed()}
	d.pool.New = func() any {
		s := &state{tag: tag(), counts: &shards[int(next.Add(1))%len(shards)]}
		s.text = s.room[:0]
		return s
	}
	return d
}

// tagger returns what makes the tag functions of states. Where only approved
// algorithms may be used (GODEBUG=fips140=only), GCM with a nonce of the
// caller's is none: HMAC-SHA-256, cut to 128 bits, serves as well and takes
// about three times as long.
func tagger(secret []byte) func() func(*state) {
	if block, err := aes.NewCipher(secret[:16]); err == nil {
		if gcm, err := cipher.NewGCM(block); err == nil {
			tag := func(s *state) { gcm.Seal(s.sum[:0], s.nonce[:], nil, s.text) }
			return func() func(*state) { return tag }
		}
	}
	return func() func(*state) { return hmacTag(newHMAC(secret[16:])) }
}

func newHMAC(secret []byte) hash.Hash { return hmac.New(sha256.New, secret) }

func hmacTag(h hash.Hash) func(*state) {
	return func(s *state) {
		h.Reset()
		h.Write(s.nonce[:])
		h.Write(s.text)
		h.Sum(s.sum[:0])
	}
}

// key returns the key of a text in a domain, and the counters to use.
func (d *digester) key(domain uint64, text string) (Key, *counts) {
	s := d.pool.Get().(*state)
	binary.LittleEndian.PutUint64(s.nonce[:], domain)
	s.text = append(s.text[:0], text...)
	s.tag(s)
	k := Key{digest: [16]byte(s.sum[:16]), length: uint32(len(text))}
	counts := s.counts
	clear(s.text) // texts are not kept
	if cap(s.text) <= maxKept {
		d.pool.Put(s)
	}
	return k, counts
}

// spread returns where a key lies in the table.
func (d *digester) spread(k *Key) uint64 { return maphash.Bytes(d.seed, k.digest[:]) }
