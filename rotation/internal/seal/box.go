package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"hash"
	"sync"
)

// boxOverhead is how much longer a sealed text is than its plaintext: the nonce and tag of AES-GCM,
// and the commitment.
const boxOverhead = 12 + 16 + macSize

// A box seals under one key, with AES-256-GCM and a commitment to the key.
//
// AES-GCM alone does not commit: one who knows two keys can make bytes that open under both, to
// different plaintexts (Dodis et al., "Fast message franking", CRYPTO 2018: invisible salamanders).
// Instances take equal bytes for equal records. So the bytes end with an HMAC-SHA-256, under a key
// that is derived from the sealing key, of all bytes before it and of their place. No two keys give
// the same one, so the bytes of a sealed field determine what it holds.
type box struct {
	aead   func() (cipher.AEAD, error) // made where something is sealed or decrypted: a keyring that starts does neither with most records
	commit func() hash.Hash            // the HMAC of the commitment
	states *sync.Pool                  // of it, where one key is used all the time; or nil
	tools  *tools                      // may be nil
}

// tools are what openings share, one after the other: a keyring that starts opens a hundred thousand rings.
// They hold no secret while they are not in use. Nil tools share nothing.
type tools struct {
	extract sync.Pool // of the HMAC that HKDF extracts with, without a salt
	memory  sync.Pool // of *[]byte
}

// borrow returns memory without content, to be given back.
func (t *tools) borrow() *[]byte {
	if t != nil {
		if m, ok := t.memory.Get().(*[]byte); ok {
			return m
		}
	}
	m := make([]byte, 0, 1024)
	return &m
}

// giveBack clears memory that was borrowed. Nothing may refer to it any more.
func (t *tools) giveBack(m *[]byte) {
	if t == nil || cap(*m) > 16<<10 {
		return
	}
	clear((*m)[:cap(*m)])
	*m = (*m)[:0]
	t.memory.Put(m)
}

// derive is [hkdf.Key] (RFC 5869) of a secret without a salt, for one block of output. It shares the HMAC of
// the first step.
func (t *tools) derive(secret []byte, info string) ([]byte, error) {
	extract, ok := hash.Hash(nil), false
	if t != nil {
		extract, ok = t.extract.Get().(hash.Hash)
	}
	if !ok {
		extract = hmac.New(sha256.New, make([]byte, sha256.Size)) // section 2.2: without a salt it is zeros
	}
	extract.Reset()
	extract.Write(secret)
	m := t.borrow()
	defer t.giveBack(m)
	*m = extract.Sum(*m)
	if t != nil {
		extract.Reset()
		t.extract.Put(extract)
	}
	return hkdf.Expand(sha256.New, *m, info, sha256.Size)
}

// newBox returns the box of a sealing key of 32 bytes. A box has a random nonce of 96 bits before
// each ciphertext. One key may seal 2^32 messages with such nonces (NIST SP 800-38D, section 8.3).
// A KEK seals once for each tenant, and a tenant key once for each rotation.
func newBox(key []byte) (*box, error) {
	return newBoxWith(nil, key, sync.OnceValues(func() (cipher.AEAD, error) { return newAEAD(key) }))
}

// newBoxWith is newBox, of a box that uses t, and aead for the AES-GCM under key.
func newBoxWith(t *tools, key []byte, aead func() (cipher.AEAD, error)) (*box, error) {
	if len(key) != kekSize {
		return nil, errUnusable
	}
	commit, err := t.derive(key, infoPrefix+"commit")
	if err != nil {
		return nil, errUnusable
	}
	return &box{aead: aead, tools: t, commit: func() hash.Hash { return hmac.New(sha256.New, commit) }}, nil
}

// newAEAD returns AES-256-GCM under key.
func newAEAD(key []byte) (cipher.AEAD, error) {
	if len(key) != kekSize { // AES takes shorter ones too
		return nil, errUnusable
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, errUnusable
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, errUnusable
	}
	return aead, nil
}

// seal returns header, nonce, ciphertext, tag and commitment. header and place are the additional
// data: to change or to move the header breaks the seal. place is not stored. Each says its length,
// so that their border is no choice.
func (b *box) seal(header, place, plaintext []byte) ([]byte, error) {
	aead, err := b.aead()
	if err != nil {
		return nil, err
	}
	aad := append(header[:len(header):len(header)], place...)
	sealed := aead.Seal(nil, nil, plaintext, aad)
	return append(append(header, sealed...), b.commitment(nil, aad, sealed)...), nil
}

// open returns the plaintext of sealed, which stands after header, or errUnusable. It checks the
// commitment first: a key that did not seal the bytes decrypts nothing.
func (b *box) open(header, place, sealed []byte) (plaintext []byte, err error) {
	err = errUnusable
	b.check(header, place, sealed, func(aad, sealed []byte) {
		var aead cipher.AEAD
		if aead, err = b.aead(); err == nil {
			plaintext, err = aead.Open(nil, nil, sealed, aad)
		}
	})
	if err != nil {
		return nil, errUnusable
	}
	return plaintext, nil
}

// isAuthentic reports whether one who has the key sealed all of header, place and sealed, as open does first.
func (b *box) isAuthentic(header, place, sealed []byte) (ok bool) {
	b.check(header, place, sealed, func([]byte, []byte) { ok = true })
	return ok
}

// check calls use with the additional data and what AES-GCM sealed, if the commitment is right.
func (b *box) check(header, place, sealed []byte, use func(aad, sealed []byte)) {
	if len(sealed) < boxOverhead {
		return
	}
	m := b.tools.borrow()
	defer b.tools.giveBack(m)
	*m = append(append(*m, header...), place...)
	aad := *m
	sealed, commitment := sealed[:len(sealed)-macSize], sealed[len(sealed)-macSize:]
	*m = b.commitment(*m, aad, sealed)
	if hmac.Equal(commitment, (*m)[len(aad):]) {
		use(aad, sealed)
	}
}

// commitment appends the HMAC of a sealed text and its additional data to what it returns.
func (b *box) commitment(to, aad, sealed []byte) []byte {
	var h hash.Hash
	if b.states == nil {
		h = b.commit()
	} else {
		h = b.states.Get().(hash.Hash)
		defer b.states.Put(h)
		h.Reset()
	}
	h.Write(aad)
	h.Write(sealed)
	return h.Sum(to)
}
