package keystore

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"hash"
	"sync"
	"time"
)

// NewSecret returns a key that verifies HMAC signatures of alg, which must be
// HS256, HS384 or HS512. It keeps what HMAC needs of the secret, and neither the slice nor
// a copy. The slice stays the caller's: clear it if it is not needed any more. Package
// keystore erases its own copies where Go can: all of them with GOEXPERIMENT=runtimesecret
// on Linux, and else those that it makes itself.
//
// The bytes are used as they are: base64 is not decoded, and a line end counts. The
// file of a secret often ends in a line end, which "keyturn sign --secret-file" drops.
// So drop it before the call, or every token gets an invalid signature.
//
// NewSecret returns an error for a secret that
//
//   - is shorter than the hash: 32, 48 and 64 bytes (RFC 7518, section 3.2);
//   - is all zero bytes;
//   - is a key or certificate, as text (PEM, SSH, JWK, XML) or in DER, or one of
//     these in base64, hex or UTF-16: everyone who has that public key could then sign
//     (RFC 8725, section 2.1). A raw Ed25519 key or RSA modulus looks like random
//     bytes, and is not recognised.
func NewSecret(id ID, alg Algorithm, secret []byte) (*Key, error) {
	return newSecret(id, alg, secret, false)
}

// The bounds of a weak secret: see [NewWeakSecret].
const (
	minWeakBytes = 16                          // 128 bits, if they are random
	weakLife     = 90*24*time.Hour + time.Hour // the hour is for clocks that differ
)

// NewWeakSecret is [NewSecret] for a secret that is shorter than the hash of alg. It is for the end of
// a migration: programs have signed with that secret, and their tokens are to verify until a date. The
// secret needs 16 bytes. A short secret that people chose can be guessed from a single token, so make
// the time as short as the tokens live.
//
// The key ends at until, and is [Key.Usable] for at most 90 days before that. So with a later date it
// is not usable yet. [Key.SetUntil] moves the end to an earlier time only. Two weak keys with different
// ends are not [Key.Equal].
func NewWeakSecret(id ID, alg Algorithm, secret []byte, until time.Time) (*Key, error) {
	k, err := newSecret(id, alg, secret, true)
	if err != nil {
		return nil, err
	}
	k.from, k.latest = UnixNano(until.Add(-weakLife)), UnixNano(until)
	k.until.Store(k.latest)
	return k, nil
}

func newSecret(id ID, alg Algorithm, secret []byte, weak bool) (*Key, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	var m material
	if err := checkSecret(alg, secret, weak, func(h crypto.Hash) { m = newHMAC(h, secret) }); err != nil {
		return nil, err
	}
	return newKey(id, alg, m), nil
}

// checkSecret calls use with the hash of alg, unless the secret must be refused.
func checkSecret(alg Algorithm, secret []byte, weak bool, use func(crypto.Hash)) error {
	if !alg.Symmetric() {
		if alg.Known() {
			return failf("%s is not an HMAC algorithm: use NewPublic", alg)
		}
		return unknownAlgorithm(alg)
	}
	h := alg.Hash()
	switch size := h.Size(); {
	case weak && len(secret) < minWeakBytes:
		return failf("the weak secret for %s is %d bytes, want at least %d", alg, len(secret), minWeakBytes)
	case !weak && len(secret) < size:
		return failf("the secret for %s is %d bytes, want at least %d (RFC 7518, section 3.2); make one with: openssl rand -base64 %d",
			alg, len(secret), size, size)
	case allZero(secret):
		return failf("the secret is all zero bytes")
	}
	var form string
	erasing(func() {
		if form = keyForm(secret); form == "" {
			use(h)
		}
	})
	if form != "" {
		return failf("the secret for %s is %s: a public key must never serve as a secret (RFC 8725, section 2.1)", alg, form).
			hint("use NewPublic, or package jwks")
	}
	return nil
}

func newHMAC(h crypto.Hash, secret []byte) material {
	sum := sha256.Sum256(secret)
	// HMAC pads a key with zero bytes (RFC 2104, section 2), so s and s followed by a zero byte
	// are one key. Only a line end tells the text of a secret from its file.
	bare := sha256.Sum256(bytes.TrimRight(secret, "\x00\r\n"))
	newMAC := macs(h, secret)
	pool := &sync.Pool{New: func() any { return newMAC() }}
	return material{
		verify: func(signed, sig []byte) bool {
			m := pool.Get().(*mac)
			m.h.Reset()
			m.h.Write(signed)
			ok := hmac.Equal(m.h.Sum(m.sum[:0]), sig)
			pool.Put(m)
			return ok
		},
		fingerprint: func() [32]byte { return sum },
		secret:      func() [32]byte { return bare },
		public:      func() (crypto.PublicKey, bool) { return nil, false },
	}
}

// A mac is an HMAC state, which has already hashed the pads of its key, and memory for
// the result. So verifying allocates nothing.
type mac struct {
	h   hash.Hash
	sum [sha512.Size]byte
}

// macs returns a function that makes states of HMAC. It holds no copy of secret: Reset replaces the
// padded copies in the first state by what the hash makes of them.
func macs(h crypto.Hash, secret []byte) func() *mac {
	first := hmac.New(h.New, secret)
	first.Reset()
	if _, err := cloned(first); err != nil { // BoringCrypto has no Clone
		secret = bytes.Clone(secret)
		return func() *mac { return &mac{h: hmac.New(h.New, secret)} }
	}
	return func() (m *mac) {
		erasing(func() {
			c, err := cloned(first)
			if err != nil {
				panic("keystore: a state of HMAC that could be cloned cannot: " + err.Error())
			}
			m = &mac{h: c}
		})
		return m
	}
}

func cloned(h hash.Hash) (hash.Hash, error) {
	if c, ok := h.(hash.Cloner); ok {
		return c.Clone()
	}
	return nil, errors.ErrUnsupported
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func unknownAlgorithm(alg Algorithm) error {
	if alg == "none" {
		return failf(`"none" is not an algorithm: unsigned tokens are never accepted`)
	}
	return failf("unknown algorithm %q: want one of %v", string(alg), Algorithms())
}
