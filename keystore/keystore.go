// Package keystore holds verification keys, and defines how a verifier finds them.
//
// Make a [Key] with [NewSecret] or [NewPublic]. A Key verifies exactly one algorithm,
// and does not print its material. [NewStatic] makes a store for shared secrets and
// fixed public keys.
//
// A [KeyStore] finds keys by tenant and kid in memory, and a [Refresher] can also ask
// its source for news. To load keys from a source of your own, load them into a
// [Static] and call [Static.Replace], as the example for a database does. Package
// jwks has a store for JWK Sets, and package rotation one for rotating keys.
//
// This package imports the standard library only.
package keystore

import (
	"context"
	"errors"
	"strconv"
)

// ErrNotFound reports that a store has no such key. The token is bad: answer 401.
var ErrNotFound = errors.New("keystore: key not found")

// ErrUnavailable reports that a store cannot tell now whether it has such a key. The
// token may be good: answer 503, not 401.
var ErrUnavailable = errors.New("keystore: unavailable")

// Bounds that hold for every key store, so that a token's cost has a limit.
const (
	// MaxKIDBytes is the longest kid, in bytes, that a token may carry.
	MaxKIDBytes = 256

	// MaxCandidates is how many keys one [KeyStore.Lookup] may return, and so how
	// many signature checks one token may cost.
	MaxCandidates = 4
)

// An ID names a key of one tenant. IDs are comparable.
//
// A key whose KID is empty serves only tokens without a kid.
type ID struct {
	Tenant string
	KID    string // the token's "kid" header (RFC 7515, section 4.1.4)
}

// String returns both parts, quoted: the sender of a token chooses the kid, which may
// hold slashes, line ends or anything else.
func (id ID) String() string {
	return strconv.Quote(id.Tenant) + "/" + strconv.Quote(id.KID)
}

// A KeyStore finds verification keys. Implementations must be safe for concurrent
// use. Package keystoretest checks an implementation against this contract.
//
// A verifier caches tokens, and asks their *Key whether it is still usable. So a
// store keeps the *Key that it holds while a newly read key is [Key.Equal] to it. It
// calls [Key.Withdraw] on a key that it removes, and [Key.SetUntil] if the end of a
// key moves.
//
// A store may have two more methods, which a verifier calls when a tenant is
// configured. Serves(tenant string) bool reports whether the store knows the tenant:
// it finds a name that is spelled differently in two places. MaxLeeway(tenant string)
// time.Duration returns the greatest leeway for which the store keeps retired keys.
type KeyStore interface {
	// Lookup returns the keys that may have signed a token of id.Tenant with this
	// kid and algorithm: at most [MaxCandidates]. It answers from memory, without
	// I/O and without waiting. The caller must not change the slice.
	//
	// Looking changes nothing: a verifier looks before it has checked anything but
	// the form of a token, so Lookup must not wake a source that sleeps. [Refresher]
	// and [UseNoter] do that.
	//
	// An empty id.KID stands for a token without kid. Then Lookup returns all the
	// tenant's keys of that algorithm, or none if there are more than
	// MaxCandidates. An unknown kid never falls back to another key.
	//
	// The error wraps [ErrNotFound] if there is no such key, and [ErrUnavailable]
	// if the store cannot tell now. A verifier treats any other error, and one
	// that wraps both, as ErrUnavailable.
	Lookup(id ID, alg Algorithm) ([]*Key, error)
}

// A Refresher is a [KeyStore] that can learn keys which it does not hold.
type Refresher interface {
	KeyStore

	// Refresh asks the source of the store for news of id, and wakes a source that
	// sleeps. ctx and the store's own budget bound it. A verifier calls it if Lookup
	// found no key, whichever its error, and only for a plausible token: one that
	// would be good if a key had signed it. Such a token costs an attacker nothing,
	// so a verifier may call Refresh for every token with an unknown kid.
	//
	// It returns nil if the caller should call Lookup again. The error wraps
	// [ErrNotFound] if there is no news, or if the budget is spent and the store is
	// in sync with its source. It wraps [ErrUnavailable] if the source could not be
	// asked, or the store is not in sync.
	Refresh(ctx context.Context, id ID) error
}

// A UseNoter is a [KeyStore] that keeps the source of a tenant awake while tokens need
// it. A store that wraps another one forwards the method.
type UseNoter interface {
	// NoteUse says that a token of tenant passed every rule just now. A verifier
	// calls it for each such token, also for those that it has cached, and for no
	// other. So a forged token keeps no source awake. NoteUse must not block, and
	// should cost a few nanoseconds.
	NoteUse(tenant string)
}
