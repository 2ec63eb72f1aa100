package protocol

import (
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// standby is the policy of the key that has to be minted when the pending key k is made to sign, or
// nil if another is pending.
func (b *Base) standby(k *ring.PlannedKey) *ring.Policy {
	if b.isFollowed(k) {
		return nil
	}
	return b.policy()
}

// room refuses a change by hand that retires a key, or that also mints one of the policy minted, if
// the JWK Set would become too large for its readers. Readers bound the number of keys that they
// take, and would reject the tokens of the rest.
//
// Scheduled changes are not refused, since the tenant would have no key to sign with. The policy's
// inequality bounds how many keys they add while tokens live. Nor are revocations: they take a key
// out of the set.
//
// The set shrinks only when a key that is dropped at a known time goes. If there is none, waiting
// does not help, and the change is not refused.
func (b *Base) room(minted *ring.Policy) error {
	var drops []time.Time // when published keys drop out
	n := 0
	for i := range b.Copy.Plan.InOrder {
		k := &b.Copy.Plan.InOrder[i]
		if k.Algorithm.Symmetric() || !k.Published(b.Now) {
			continue
		}
		n++
		if !k.DroppedAt.IsZero() {
			drops = append(drops, k.DroppedAt.Add(2*k.Timing.ClockSkew)) // as in PlannedKey.Published
		}
	}
	if minted != nil && !minted.Algorithm.Symmetric() {
		n++
	}
	if n <= ring.MaxPublished || len(drops) == 0 {
		return nil
	}
	slices.SortFunc(drops, time.Time.Compare)
	return b.refuse("", fmt.Sprintf("it would publish %d keys at once, of which readers take %d: revoke one, or wait until the tokens of another have ended", n, ring.MaxPublished),
		drops[min(n-ring.MaxPublished, len(drops))-1])
}
