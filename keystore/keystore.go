// Package keystore holds verification keys and says how a verifier finds them.
//
// A [Key] verifies exactly one algorithm, and cannot be printed. A [KeyStore]
// finds keys by tenant and kid, from memory; a [Refresher] can also ask for
// news. [Static] is a store for shared secrets and fixed public keys, and the
// base of most stores that load keys from elsewhere: load, then
// [Static.Replace].
//
// This package imports the standard library only.
package keystore

import (
	"context"
	"errors"
	"strconv"
)

// ErrNotFound reports that a store has no such key: the token is bad (HTTP 401).
var ErrNotFound = errors.New("keystore: key not found")

// ErrUnavailable reports that a store cannot tell now whether it has such a
// key. The token may be good: answer 503, not 401.
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

// String quotes both parts: a kid is the sender's text, and may hold slashes,
// line ends or anything else.
func (id ID) String() string {
	return strconv.Quote(id.Tenant) + "/" + strconv.Quote(id.KID)
}

// A KeyStore finds verification keys. Implementations must be safe for
// concurrent use. Package keystoretest checks an implementation against this
// contract.
//
// A store keeps the *Key that it holds for as long as a newly read one is
// [Key.Equal] to it, calls [Key.Withdraw] on it when it goes, and moves its end
// with [Key.SetUntil]: that is how a token that was verified earlier, and
// cached, learns that its key is gone.
//
// A store may have two more methods. Serves(tenant string) bool lets a verifier
// refuse, when it is configured, a tenant whose name was typed differently in
// two places. MaxLeeway(tenant string) time.Duration lets it refuse a leeway
// that outlives the tenant's keys.
type KeyStore interface {
	// Lookup returns the keys that may have signed a token of id.Tenant with
	// this kid and algorithm: at most [MaxCandidates]. It answers from memory, without I/O
	// and without waiting. The caller must not change the slice.
	//
	// For an empty id.KID, a token without kid, it returns the tenant's keys of
	// that algorithm, or none if there are more than that. A kid that names
	// nothing never falls back to another key.
	//
	// The error wraps [ErrNotFound] if there is no such key, and
	// [ErrUnavailable] if the store cannot tell now. A verifier takes any other
	// error for the latter, and one that wraps both.
	Lookup(id ID, alg Algorithm) ([]*Key, error)
}

// A Refresher is a [KeyStore] that can learn keys which it does not hold.
type Refresher interface {
	KeyStore

	// Refresh asks for news of id. It is bounded by ctx and by the store's own
	// budget, and may be called for every token with an unknown kid.
	//
	// It returns nil if Lookup is worth asking again; an error that wraps
	// [ErrNotFound] if there is nothing new, or the budget is spent while the
	// store is in step with its source; and one that wraps [ErrUnavailable] if
	// the source could not be asked, or the store is out of step.
	Refresh(ctx context.Context, id ID) error
}
