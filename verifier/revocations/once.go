package revocations

import (
	"crypto/sha256"
	"strconv"
	"sync"
	"time"
)

// A once remembers which logout tokens were used, for at least keepUsed, and at most 2*mostUsed of
// them. To forget one too early does no harm: a logout token revokes what was issued before its own
// iat, so a second use of it changes nothing.
type once struct {
	mu         sync.Mutex                 // guards all below
	young, old map[[sha256.Size]byte]bool // true: it was used; false: its use goes on
	since      time.Time                  // of young
}

const (
	mostUsed = 1 << 15
	keepUsed = 2 * maxLogoutAge // as long as a logout token can be good, with the greatest leeway
)

// A use says what a once knows of a logout token.
type use int

const (
	unused  use = iota
	inUse       // by another request, which may fail
	wasUsed     // and the revocation is written
)

// begin notes that a token is used, if it is unused. The caller then ends that use.
func (o *once) begin(now time.Time, key [sha256.Size]byte) use {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.young == nil || len(o.young) >= mostUsed || now.Sub(o.since) > keepUsed || now.Before(o.since) {
		o.young, o.old, o.since = make(map[[sha256.Size]byte]bool), o.young, now
	}
	for _, m := range []map[[sha256.Size]byte]bool{o.young, o.old} {
		if used, ok := m[key]; ok && used {
			return wasUsed
		} else if ok {
			return inUse
		}
	}
	o.young[key] = false
	return unused
}

// end ends the use of a token. If the revocation was not written, the token may be used again.
func (o *once) end(key [sha256.Size]byte, written bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.old, key)
	delete(o.young, key)
	if written {
		o.young[key] = true
	}
}

// tokenKey names a token of a tenant by its jti.
func tokenKey(tenant, jti string) [sha256.Size]byte {
	return sha256.Sum256([]byte(strconv.Itoa(len(tenant)) + ":" + tenant + jti))
}
