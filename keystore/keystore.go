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
	"fmt"
	"slices"
	"strconv"
)

// ErrNotFound reports that a store has no such key. The token is bad: answer 401.
var ErrNotFound = errors.New("keystore: key not found")

// ErrRevoked is the [ErrNotFound] of a store that knows that the key existed and was revoked:
// errors.Is(ErrRevoked, ErrNotFound) is true. So traffic with a leaked key can be counted apart
// from other tokens with an unknown key.
var ErrRevoked error = revoked{}

type revoked struct{}

func (revoked) Error() string        { return "keystore: key revoked" }
func (revoked) Is(target error) bool { return target == ErrNotFound }

// NotFound returns an [ErrNotFound] that tells the operator more, such as that the kid is in the
// issuer's set, but was skipped. Its text is detail, which a verifier appends to its own error. So
// detail comes from the configuration or the issuer's set, and repeats nothing of a token but the
// kid, quoted.
func NotFound(detail string) error { return &notFound{detail} }

type notFound struct{ detail string }

func (n *notFound) Error() string        { return n.detail }
func (n *notFound) Is(target error) bool { return target == ErrNotFound }

// NotFoundDetail returns the detail of the [NotFound] that err wraps, or "".
func NotFoundDetail(err error) string {
	if n := (*notFound)(nil); errors.As(err, &n) {
		return n.detail
	}
	return ""
}

// ErrUnavailable reports that a store cannot tell now whether it has such a key. The
// token may be good: answer 503, not 401.
var ErrUnavailable = errors.New("keystore: unavailable")

// Bounds that hold for every key store, so that a token's cost has a limit.
const (
	// MaxKIDBytes is the longest kid, in bytes, that a token may carry.
	MaxKIDBytes = 256

	// MaxCandidates bounds what the keys of one [KeyStore.Lookup] may cost together, by
	// [Key.Cost], and so what one token may cost whose signature none of them verifies.
	MaxCandidates = 8

	// slowCost is the cost of a slow key. On 2026-11-29 a check took 0.05 to 0.5 ms for RSA of
	// 2048 to 4096 bits, 0.09 ms for ES256, and 0.6, 2.1 and 1.4 ms for ES384, ES512 and RSA of
	// 8192 bits.
	slowCost = 4
)

// CheckCost returns nil if a Lookup may return keys as the candidates of id, since they cost at
// most [MaxCandidates] together. If they cost more, the error is a [NotFound] that gives the numbers
// and the way out: then a store returns none of them, since a good token that passes or fails by
// the order of keys is worse than one that always fails. A key that is there under both
// names of its algorithm counts once.
func CheckCost(id ID, keys []*Key) error {
	cost := costOf(keys)
	if cost <= MaxCandidates {
		return nil
	}
	if id.KID == "" {
		return NotFound(fmt.Sprintf("%d keys may have signed a token without kid, which costs %d checks, and at most %d are allowed: "+
			"let the issuer put a kid into its tokens, or give each tenant one key", len(keys), cost, MaxCandidates))
	}
	return NotFound(fmt.Sprintf("%d keys share the kid %q, which costs %d checks, and at most %d are allowed: "+
		"let the issuer give each key a kid of its own", len(keys), id.KID, cost, MaxCandidates))
}

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

// costOf returns what keys cost together. It is called for every token, so that few keys cost no
// allocation, and many no comparison of each with each.
func costOf(keys []*Key) (cost int) {
	var byID map[ID][]*Key
	if len(keys) > 2*MaxCandidates {
		byID = make(map[ID][]*Key)
	}
	for i, k := range keys {
		earlier := keys[:i]
		if byID != nil && k != nil {
			earlier = byID[k.id]
			byID[k.id] = append(earlier, k)
		}
		if !slices.ContainsFunc(earlier, k.isTwin) {
			cost += k.Cost()
		}
	}
	return cost
}

// A KeyStore finds verification keys. Implementations must be safe for concurrent
// use. Package keystoretest checks an implementation against this contract.
//
// A verifier caches tokens, and asks their *Key whether it is still usable. So a
// store keeps the *Key that it holds while a newly read key is [Key.Equal] to it. It
// calls [Key.Withdraw] on a key that it removes, and [Key.SetUntil] if the end of a
// key moves.
//
// A store may have more methods. A verifier calls three of them when a tenant is
// configured. Serves(tenant string) bool reports whether the store knows the tenant:
// it finds a name that is spelled differently in two places. MaxLeeway(tenant string)
// time.Duration returns the greatest leeway for which the store keeps retired keys.
// CanServe(tenant string, alg Algorithm) bool reports whether the store can ever serve a key of that
// algorithm: false is only for what no Replace, fetch or rotation could bring, such as HS* from
// keys that are read over HTTP.
//
// Ready(tenant string) error returns nil if the store can answer for the tenant, and otherwise
// why it cannot. A readiness probe calls it. A store without it can always answer.
//
// A store may have one more: several keys may share a kid, and tokens without kid may be of any key without
// one. Unsure(id ID, alg Algorithm) error returns why a Lookup may lack keys although it returned some, or nil.
// A verifier asks it where none of the keys verifies a signature, or the end of each has come, and answers
// ErrUnavailable, not that the token is bad. A store that answers for several others has it, as [Join] does:
// one of them may be away, or may have revoked the kid of a key that another one has. So a verifier looks its
// keys up at each hit of its cache. A store of one source that has Unsure has Alone() bool too, and returns true:
// a hit then asks the key alone.
type KeyStore interface {
	// Lookup returns the keys that may have signed a token of id.Tenant with this
	// kid and algorithm: at most [MaxCandidates] by their cost, see [CheckCost]. EdDSA and
	// Ed25519 are one algorithm, so a Lookup for one returns keys of both: see
	// [Algorithm.Same]. It answers from memory, without I/O and without waiting. The
	// caller must not change the slice.
	//
	// Looking changes nothing: a verifier looks before it has checked anything but
	// the form of a token, so Lookup must not wake a source that sleeps. [Refresher]
	// and [UseNoter] do that.
	//
	// An empty id.KID stands for a token without kid. Then Lookup returns all the
	// tenant's keys of that algorithm, or none if they cost more than
	// MaxCandidates. An unknown kid never falls back to another key.
	//
	// The error wraps [ErrNotFound] if there is no such key ([ErrRevoked], if the store
	// knows that it was revoked), and [ErrUnavailable] if the store cannot tell now. A
	// verifier treats any other error, and one that wraps both, as ErrUnavailable.
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
	// With an empty id.KID a verifier also calls it if Lookup found keys, and none of them
	// verifies a token without kid, which may be of a newer key. The question is then whether
	// the source has other keys. So a key at hand is no answer, and the budget is the same.
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
