package revocations

import (
	"errors"
	"fmt"
	"time"
)

// The errors of a [List]. docs/operations.md says for each what to do.
var (
	// ErrNotReady reports that the list cannot tell whether a token is revoked: it has not read the
	// store completely since it was opened, or cannot know yet whether the store has lost something.
	ErrNotReady = errors.New("revocations: the list is not ready: it has not read the store completely yet")

	// ErrStale reports that the last sync with the store is older than [Config.MaxStale].
	ErrStale = errors.New("revocations: the list is stale: the store was out of reach for longer than MaxStale")

	// ErrFull reports that there is no room for another revocation: of the tenant, or of all. From
	// [List.Revoked] it says that the list holds more than twice as many, so that it cannot tell.
	ErrFull = errors.New("revocations: the list is full")

	// ErrDigestKeys reports that the digest keys in the store cannot be opened, or are too many. It
	// wraps the reason, such as [rotation.ErrWrongKEK].
	ErrDigestKeys = errors.New("revocations: the digest keys cannot be used")

	// ErrFuture reports a revocation of tokens that are issued later than now, by the store's clock.
	// It could not be undone.
	ErrFuture = errors.New("revocations: the time is in the future")

	// ErrUndone reports that the store lost a revocation after it was made, and that it was written again:
	// a failover, an old dump, or a person who writes to the store.
	ErrUndone = errors.New("revocations: the store lost the revocation after it was made, and it was written again")

	// ErrClosed reports that the list was closed.
	ErrClosed = errors.New("revocations: the list was closed")
)

// A futureError is an [ErrFuture] with the store's time.
type futureError struct {
	before int64     // the time that the caller wants, in seconds since 1970
	now    time.Time // by the store
}

// Error implements the error interface.
func (e *futureError) Error() string {
	return fmt.Sprintf("%v: %d s ahead of the store's clock", ErrFuture, e.before-e.now.Unix())
}

// Unwrap returns [ErrFuture].
func (e *futureError) Unwrap() error { return ErrFuture }
