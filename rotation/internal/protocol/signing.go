package protocol

import (
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

var (
	// ErrFenced reports that this instance must not sign.
	ErrFenced = errors.New("rotation: fenced: out of step with the store")

	// ErrNoSigner reports that no key of the ring signs.
	ErrNoSigner = errors.New("rotation: no key signs now")
)

// Signing returns the key that signs at t, on an instance whose last good sync was at good, by the
// same clock. deadline is how long a call of the store may take. The error wraps [ErrNoSigner] or
// [ErrFenced].
//
// The plan says which key signs. Three conditions that the plan does not know can forbid it here:
//   - The last good sync is older than SignFor. Other instances keep a retired key no longer than
//     for the tokens of an instance that stops by then (I1, I5).
//   - No good sync has confirmed the key for longer than Dwell, so a failover may still lose it.
//     Then its tokens would be rejected (timeline N). Scheduled keys never wait for that, since
//     Propagation >= SignFor + Dwell + ClockSkew.
//   - No good sync has confirmed the revocation of a pending key for as long. If a failover loses
//     that revocation, other instances sign with the key, and drop its predecessor (timeline L).
func (c *Copy) Signing(t, good time.Time, deadline time.Duration) (*ring.PlannedKey, error) {
	s := c.Plan.Signer(t)
	if s == nil {
		return nil, ErrNoSigner
	}
	if good.IsZero() {
		return nil, fenced("no good sync yet")
	}
	if a := Age(t, good); a > s.Timing.SignFor {
		return nil, fenced("the last good sync was %v ago, SignFor is %v", a.Round(time.Millisecond), s.Timing.SignFor)
	}
	// The first key signs at once: no other key could sign in its place.
	if !s.First && !good.After(s.Created.Add(s.Timing.Dwell)) {
		return nil, fenced("no good sync has confirmed key %q yet; it signs with the first after %s", s.KID, moment(s.Created.Add(s.Timing.Dwell)))
	}
	now := later(t, c.Plan.Past)
	for i := range c.Plan.NeverActive {
		k := &c.Plan.NeverActive[i]
		wouldSign := !k.ActivatesAt.After(now) && ring.ByEffect(*k, *s) > 0
		// Sent at RevokedAt, the revocation reached the store up to one window later.
		if from := k.RevokedAt.Add(k.Timing.Dwell + k.Timing.Window(deadline)); wouldSign && !good.After(from) {
			return nil, fenced("no good sync has confirmed the revocation of key %q yet; the one before it signs with the first after %s", k.KID, moment(from))
		}
	}
	return s, nil
}

func fenced(format string, args ...any) error {
	return &ring.Error{Kind: ErrFenced, Text: fmt.Sprintf(format, args...)}
}

// KeyEnd returns when the key of r stops verifying on an instance whose last complete read was at
// complete: when the plan drops it, or when every token has ended that the instance can know of.
//
// An instance that no longer reads the store may have missed a revocation. SignFor after its last
// read it signs nothing more, and a token's life later its own last token ends. So a revoked key is
// accepted for a bounded time at an instance that is cut off (I3): see [WorstCase]. Tokens of an
// imported key may live for a year. No instance is trusted for that long without the store.
func (c *Copy) KeyEnd(r *ring.Record, complete time.Time) time.Time {
	k := c.PlanOf(r)
	t := &k.Timing
	end := complete.Add(t.SignFor + cutOffLife(r) + t.Leeway)
	if !k.DroppedAt.IsZero() && k.DroppedAt.Before(end) {
		end = k.DroppedAt
	}
	return end
}

// cutOffLife returns for how long an instance that no longer signs goes on accepting tokens of r
// without the store.
func cutOffLife(r *ring.Record) time.Duration { return min(r.TokenTTL(), mostCutOff) }

// mostCutOff bounds that. It is as long as most policies let an instance sign without the store. After
// it, what is not known to be revoked counts as unavailable.
const mostCutOff = 24 * time.Hour

// WorstCase returns until when an instance that is cut off accepts the key of r if it is revoked at
// now, and until when readers of the JWK Set do. The latter is zero if the key is a secret. Such an instance
// may have been in sync with an old primary for up to Dwell after the revocation.
//
// Our own reader, a jwks.Client, keeps a set for at least leastReaderStaleness. A shorter
// ReaderStaleness is no promise about it.
func WorstCase(r *ring.Record, now time.Time) (instances, readers time.Time) {
	p := &r.Timing
	instances = now.Add(p.Dwell + p.SignFor + cutOffLife(r) + p.Leeway)
	if !r.Algorithm.Symmetric() {
		readers = now.Add(max(p.ReaderStaleness, leastReaderStaleness))
	}
	return instances, readers
}

// leastReaderStaleness is the least TTL of a set in a jwks.Client. Policies may have less, since
// others may read the set more often.
const leastReaderStaleness = time.Minute

// moment writes a time of the store.
func moment(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z07:00") }
