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

// A Key stands for a text in a domain. It tells nothing about the text without the
// secret of the [Cache] that made it, and serves only that cache.
type Key struct {
	digest [16]byte
	length uint32
}

// A digester makes keys. Two texts of n bytes in one domain, or one text in two
// domains, have the same key with probability at most (n/16 + 2) / 2^128. That
// holds even for texts that an attacker chose, as long as no digest leaves the
// process.
//
// The digest is GHASH, a universal hash. Package cipher offers it as the tag of
// AES-GCM: the text is the additional data, the domain is the nonce, and the key is
// random. Two tags under one nonce would disclose the hash key to a reader of both,
// so GCM forbids a repeated nonce. Here the tags stay in the process.
//
// GHASH is linear: related texts have related digests. So another keyed hash of the
// digest chooses the bucket, and which entry was evicted tells nothing about the
// digest.
type digester struct {
	pool sync.Pool // of *state
	seed maphash.Seed
}

// A state is the working memory of one digest. Arguments to the interfaces of package
// cipher escape to the heap, so a pool keeps the states, and key copies the text
// into one. The room for most texts is a part of the state: two small allocations
// could share a cache line, and two processors would then wait for each other.
type state struct {
	tag    func(s *state) // computes sum from nonce and text
	nonce  [12]byte
	text   []byte
	sum    [sha256.Size]byte
	counts *counts // a pool gives a processor mostly the same states, and so the same shard
	room   [1024]byte
}

// maxKept is the longest text, in bytes, whose state goes back to the pool.
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

// tagger returns the function that makes the tag function of a state. Under
// GODEBUG=fips140=only, GCM with a nonce of the caller's is not allowed. Then the
// tag is HMAC-SHA-256, cut to 128 bits: as safe, and about three times as slow.
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

// spread returns the hash of a key that chooses its bucket and its tag.
func (d *digester) spread(k *Key) uint64 { return maphash.Bytes(d.seed, k.digest[:]) }
