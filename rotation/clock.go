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

// checkClock returns a [*ClockError] if the store's clock differs from this instance's by more than
// skew. now is the store's answer to a call that was sent and received at those times. Every
// guarantee of a ring assumes that difference (S of docs/protocol.md), so an instance whose clock
// is off writes nothing and drops nothing.
func checkClock(now, sent, received time.Time, skew time.Duration) error {
	// The store truncates its times to whole milliseconds, so now may be up to one too early.
	if skew == protocol.AnySkew || !now.Before(sent.Add(-skew-time.Millisecond)) && !now.After(received.Add(skew)) {
		return nil
	}
	return &ClockError{Store: now, Sent: sent, Received: received, ClockSkew: skew}
}

// skew returns the largest ClockSkew of the rings of b. A difference that one ring does not allow
// concerns that ring alone; only one that no ring allows concerns the whole bucket.
func (b *bucket) skew() time.Duration {
	most := time.Duration(-1)
	for _, r := range b.rings {
		if skew := r.state.Load().Plain().ClockSkew(); skew != protocol.AnySkew {
			most = max(most, skew)
		}
	}
	if most < 0 {
		return protocol.AnySkew
	}
	return most
}

// A ClockError reports that the clock of this instance and the store's differ by more than
// ClockSkew. The instance then keeps what it has, and writes nothing. It wraps
// [keystore.ErrUnavailable]: set the clocks right and it goes away with the next sync.
type ClockError struct {
	Store          time.Time     // the store's answer, by its clock
	Sent, Received time.Time     // when the call was sent and answered, by this instance's clock
	ClockSkew      time.Duration // that the policy of the ring allows

	// Since is the error of a later sync, if the store could not be asked again since. Otherwise it
	// is nil.
	Since error
}

// Error returns what each clock says, in UTC.
func (e *ClockError) Error() string {
	at := func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
	text := fmt.Sprintf("%v: %v: the store says %s, between our %s and %s, and ClockSkew is %v", keystore.ErrUnavailable, errClock,
		at(e.Store), at(e.Sent), at(e.Received), e.ClockSkew)
	if e.Since != nil {
		return fmt.Sprintf("%v; before that: %s", e.Since, text)
	}
	return text
}

// Unwrap returns [keystore.ErrUnavailable], the reason, and Since unless that is nil.
func (e *ClockError) Unwrap() []error {
	reasons := []error{keystore.ErrUnavailable, errClock}
	if e.Since != nil {
		reasons = append(reasons, e.Since)
	}
	return reasons
}
