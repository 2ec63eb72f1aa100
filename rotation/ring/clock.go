package ring

import (
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/keystore"
)

// ErrClock reports that the clock of an instance, or the store's, is off. See [ClockError].
var ErrClock = errors.New("rotation: this clock and the store's differ by more than ClockSkew")

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
	text := fmt.Sprintf("%v: %v: the store says %s, between our %s and %s, and ClockSkew is %v", keystore.ErrUnavailable, ErrClock,
		at(e.Store), at(e.Sent), at(e.Received), e.ClockSkew)
	if e.Since != nil {
		return fmt.Sprintf("%v; before that: %s", e.Since, text)
	}
	return text
}

// Unwrap returns [keystore.ErrUnavailable], the reason, and Since unless that is nil.
func (e *ClockError) Unwrap() []error {
	reasons := []error{keystore.ErrUnavailable, ErrClock}
	if e.Since != nil {
		reasons = append(reasons, e.Since)
	}
	return reasons
}
