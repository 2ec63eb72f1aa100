package rotation

import (
	"time"

	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/ring"
)

// A ClockError reports that the clock of this instance and the store's differ by more than
// ClockSkew: it is [ring.ClockError], which documents the fields.
type ClockError = ring.ClockError

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
