package rotation

import (
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/internal/protocol"
)

// errClock reports that this instance's clock, or the store's, is off.
var errClock = errors.New("rotation: this clock and the store's differ by more than ClockSkew")

// checkClock returns an error if the store's clock and ours differ by more than skew. Decisions by a
// clock that is off would contradict those of other instances.
func checkClock(now, sent, received time.Time, skew time.Duration) error {
	// The store's times are whole milliseconds.
	if skew == protocol.AnySkew || !now.Before(sent.Add(-skew-time.Millisecond)) && !now.After(received.Add(skew)) {
		return nil
	}
	return &ClockError{Store: now, Sent: sent, Received: received, ClockSkew: skew}
}

// skew returns the largest ClockSkew of the rings of b. A clock that is off by more than the ClockSkew
// of one ring is off for that ring alone.
func (b *bucket) skew() time.Duration {
	most := time.Duration(-1)
	for _, r := range b.rings {
		if skew := r.state.Load().known().ClockSkew(); skew != protocol.AnySkew {
			most = max(most, skew)
		}
	}
	if most < 0 {
		return protocol.AnySkew
	}
	return most
}

// A ClockError says that the clock of this instance and the store's differ by more than
// ClockSkew. It wraps [keystore.ErrUnavailable].
type ClockError struct {
	Store          time.Time // by the store's clock
	Sent, Received time.Time // by this instance's clock, around the store's answer
	ClockSkew      time.Duration

	// Since is why no later answer of the store is known, or nil.
	Since error
}

// Error says what each clock says.
func (e *ClockError) Error() string {
	at := func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
	text := fmt.Sprintf("%v: %v: the store says %s, between our %s and %s, and ClockSkew is %v", keystore.ErrUnavailable, errClock,
		at(e.Store), at(e.Sent), at(e.Received), e.ClockSkew)
	if e.Since != nil {
		return fmt.Sprintf("%v; before that: %s", e.Since, text)
	}
	return text
}

// Unwrap returns the reasons.
func (e *ClockError) Unwrap() []error {
	reasons := []error{keystore.ErrUnavailable, errClock}
	if e.Since != nil {
		reasons = append(reasons, e.Since)
	}
	return reasons
}
