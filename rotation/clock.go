package rotation

import (
	"time"

	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/ring"
)

// A ClockError reports that the clock of this instance and the store's differ by more than
// ClockSkew: it is [ring.ClockError], which documents the fields.
type ClockError = ring.ClockError

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
