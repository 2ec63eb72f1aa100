package protocol

import (
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// CheckClock returns a [*ring.ClockError] if the store's clock differs from this instance's by more than
// skew. now is the store's answer to a call that was sent and received at those times. Every
// guarantee of a ring assumes that difference (S of docs/protocol.md), so an instance whose clock
// is off writes nothing and drops nothing.
func CheckClock(now, sent, received time.Time, skew time.Duration) error {
	// The store truncates its times to whole milliseconds, so now may be up to one too early.
	if skew == AnySkew || !now.Before(sent.Add(-skew-time.Millisecond)) && !now.After(received.Add(skew)) {
		return nil
	}
	return &ring.ClockError{Store: now, Sent: sent, Received: received, ClockSkew: skew}
}

// WholeMillis returns t as the store has its times.
func WholeMillis(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC().Truncate(time.Millisecond)
}
