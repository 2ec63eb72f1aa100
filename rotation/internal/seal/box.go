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
	aead   cipher.AEAD
	commit func() hash.Hash // the HMAC of the commitment
	states *sync.Pool       // of it, where one key is used all the time; or nil
}

// newBox returns the box of a sealing key of 32 bytes. A box has a random nonce of 96 bits before
// each ciphertext. One key may seal 2^32 messages with such nonces (NIST SP 800-38D, section 8.3).
// A KEK seals once for each tenant, and a tenant key once for each rotation.
func newBox(key []byte) (*box, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, errUnusable
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, errUnusable
	}
	commit, err := hkdf.Key(sha256.New, key, nil, infoPrefix+"commit", macSize)
	if err != nil {
		return nil, errUnusable
	}
	return &box{aead: aead, commit: func() hash.Hash { return hmac.New(sha256.New, commit) }}, nil
}

// seal returns header, nonce, ciphertext, tag and commitment. header and place are the additional
// data: to change or to move the header breaks the seal. place is not stored. Each says its length,
// so that their border is no choice.
func (b *box) seal(header, place, plaintext []byte) []byte {
	aad := append(header[:len(header):len(header)], place...)
	sealed := b.aead.Seal(nil, nil, plaintext, aad)
	return append(append(header, sealed...), b.commitment(aad, sealed)...)
}

// open returns the plaintext of sealed, which stands after header, or errUnusable. It checks the
// commitment first: a key that did not seal the bytes decrypts nothing.
func (b *box) open(header, place, sealed []byte) ([]byte, error) {
	if len(sealed) < boxOverhead {
		return nil, errUnusable
	}
	aad := append(header[:len(header):len(header)], place...)
	sealed, commitment := sealed[:len(sealed)-macSize], sealed[len(sealed)-macSize:]
	if !hmac.Equal(commitment, b.commitment(aad, sealed)) {
		return nil, errUnusable
	}
	plaintext, err := b.aead.Open(nil, nil, sealed, aad)
	if err != nil {
		return nil, errUnusable
	}
	return plaintext, nil
}

// commitment returns the HMAC of a sealed text and its additional data.
func (b *box) commitment(aad, sealed []byte) []byte {
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
	return h.Sum(nil)
}
