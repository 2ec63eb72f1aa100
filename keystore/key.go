package keystore

import (
	"crypto"
	"crypto/subtle"
	"fmt"
	"io"
	"math"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// A Key verifies signatures of exactly one algorithm, so that a public key can never
// serve as an HMAC secret. Make one with [NewSecret] or [NewPublic]. The zero Key
// verifies nothing. A Key is safe for concurrent use, and must not be copied.
//
// Closures hold the key material, so that no fmt verb, log handler or encoder reaches
// it.
type Key struct {
	id           ID
	alg          Algorithm
	cost         int
	from, latest int64                    // of a weak secret, in the form of UnixNano: it is not usable before from, nor from latest on
	until        atomic.Int64             // the end of its life in the form of UnixNano, or noEnd, or withdrawn
	mat          atomic.Pointer[material] // nil once withdrawn
	owner        atomic.Pointer[Static]   // the Static that holds it, if one does
}

// material is the material of a key, hidden in functions.
type material struct {
	cost        int // see [Key.Cost]; 0 stands for 1
	verify      func(signed, sig []byte) bool
	fingerprint func() [32]byte                 // equal for equal material
	secret      func() [32]byte                 // equal for the same secret, whatever zero bytes and line ends follow; nil for a public key
	public      func() (crypto.PublicKey, bool) // a fresh copy; false for a secret
}

const (
	noEnd     = math.MaxInt64
	withdrawn = math.MinInt64
)

func newKey(id ID, alg Algorithm, m material) *Key {
	k := &Key{id: id, alg: alg, cost: max(m.cost, 1), from: math.MinInt64, latest: noEnd}
	k.mat.Store(&m)
	k.until.Store(noEnd)
	return k
}

// checkID returns an error if no token could name the ID.
func checkID(id ID) error {
	switch {
	case len(id.KID) > MaxKIDBytes:
		return failf("a kid of %d bytes: at most %d are accepted in a token", len(id.KID), MaxKIDBytes)
	case !utf8.ValidString(id.KID):
		return failf("the kid is not valid UTF-8, so no token can carry it")
	}
	return nil
}

// ID returns the tenant and kid of the key.
func (k *Key) ID() ID { return k.id }

// Cost returns what one check of a signature by this key costs, for [MaxCandidates]: 4 for
// ES384, ES512 and RSA above 4096 bits, and 1 for every other key. The zero Key costs 1.
func (k *Key) Cost() int {
	if k == nil {
		return 1
	}
	return max(k.cost, 1)
}

// isTwin reports whether k and o are one key under the two names of its algorithm.
func (k *Key) isTwin(o *Key) bool {
	if k == nil || o == nil || k.id != o.id || k.alg == o.alg || !k.alg.Same(o.alg) {
		return false
	}
	a, b := k.mat.Load(), o.mat.Load()
	return a != nil && b != nil && a.fingerprint() == b.fingerprint()
}

// Algorithm returns the only algorithm that the key verifies. A key of [EdDSA] verifies [Ed25519]
// too, and the other way round, since these are two names of one algorithm.
func (k *Key) Algorithm() Algorithm { return k.alg }

// Verify reports whether sig is a signature of signed by this key. It takes constant
// time for HS*, and never panics. It returns false after the key has been withdrawn,
// but does not look at the clock: see [Key.Usable].
func (k *Key) Verify(signed, sig []byte) bool {
	m := k.mat.Load()
	return m != nil && m.verify(signed, sig)
}

// Usable reports whether tokens of the key are accepted at now: the key has not been
// withdrawn, and now is before its end. It costs one atomic load. A key of [NewWeakSecret] is not
// usable more than 90 days before its end either.
func (k *Key) Usable(now time.Time) bool {
	n := UnixNano(now)
	return n < k.until.Load() && n >= k.from
}

// SetUntil sets the end of the key's life to t, which may be earlier or later than
// before: from t on, the key is not [Key.Usable]. The zero Time is long past, so it
// ends the key. SetUntil does nothing after the key has been withdrawn, and does not move
// the end of a [NewWeakSecret] beyond the one that it was made with. It is for stores.
func (k *Key) SetUntil(t time.Time) { k.setEnd(UnixNano(t)) }

func (k *Key) setEnd(end int64) {
	end = min(end, k.latest)
	for {
		old := k.until.Load()
		if old == withdrawn || k.until.CompareAndSwap(old, end) {
			return
		}
	}
}

// lowerEnd moves the end to end if that is earlier.
func (k *Key) lowerEnd(end int64) {
	for {
		old := k.until.Load()
		if old <= end || k.until.CompareAndSwap(old, end) {
			return
		}
	}
}

// Withdraw ends the key permanently, and drops its material. No token of it is accepted
// any longer, and neither are those that a verifier has cached. Withdraw is for
// stores.
func (k *Key) Withdraw() {
	k.until.Store(withdrawn)
	k.mat.Store(nil)
}

// Equal reports whether o has the same ID, algorithm and material as k, and, for keys of
// [NewWeakSecret], the same end. Its time does not depend on the material. A withdrawn key has no material, and equals only
// itself.
func (k *Key) Equal(o *Key) bool {
	if k == o {
		return true
	}
	if k == nil || o == nil || k.id != o.id || k.alg != o.alg || k.latest != o.latest {
		return false
	}
	a, b := k.mat.Load(), o.mat.Load()
	if a == nil || b == nil {
		return false
	}
	x, y := a.fingerprint(), b.fingerprint()
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// Public returns a copy of the public key that the Key verifies with, of type
// *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey. It returns false for HS*,
// since a secret has no public form, and after the key has been withdrawn.
func (k *Key) Public() (crypto.PublicKey, bool) {
	m := k.mat.Load()
	if m == nil {
		return nil, false
	}
	return m.public()
}

// String names the key without its material, such as
// `key "acme"/"2026-11" (ES256)`.
func (k *Key) String() string {
	if k == nil {
		return "key <nil>"
	}
	return "key " + k.id.String() + " (" + string(k.alg) + ")"
}

// Format implements [fmt.Formatter]: every verb prints what [Key.String] does.
func (k *Key) Format(f fmt.State, _ rune) { io.WriteString(f, k.String()) }

// UnixNano returns t in nanoseconds since 1970 without overflow: every time before
// 1678 gives the same very small value, and every time after 2262 the same very
// large one. If UnixNano(a) < UnixNano(b), then a is before b. [Key.Usable]
// compares times in this form. A cache of its answers should do the same.
func UnixNano(t time.Time) int64 {
	const limit = math.MaxInt64 / int64(time.Second)
	switch s := t.Unix(); {
	case s >= limit:
		return noEnd - 1
	case s <= -limit:
		return withdrawn + 1
	}
	return t.UnixNano()
}
