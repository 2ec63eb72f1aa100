package protocol

import (
	"errors"
	"fmt"
	"slices"
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
// The plan says which key signs. Three conditions that the plan does not know can change that here:
//   - The last good sync is older than SignFor. Other instances keep a retired key no longer than
//     for the tokens of an instance that stops by then (I1, I5).
//   - No good sync has confirmed the key for longer than Dwell, so a failover may still lose it.
//     Then its tokens would be rejected (timeline N). The key before it signs on: see
//     [Copy.confirmed]. Scheduled keys never wait for that, since Propagation >= SignFor + Dwell +
//     ClockSkew.
//   - No good sync has confirmed the revocation of a pending key for as long. If a failover loses
//     that revocation, other instances sign with the key, and drop its predecessor (timeline L).
//     The question is asked of the key that signs here: the fleet drops that one (timeline Left).
func (c *Copy) Signing(t, good time.Time, deadline time.Duration) (*ring.PlannedKey, error) {
	s := c.Plan.Signer(t)
	if s == nil {
		return nil, ErrNoSigner
	}
	if good.IsZero() {
		return nil, fenced("no good sync yet")
	}
	if err := tooOld(t, good, s); err != nil {
		return nil, err
	}
	k, err := c.confirmed(c.Plan.Current(t), t, good)
	if err != nil {
		return nil, err
	}
	if err := tooOld(t, good, k); err != nil {
		return nil, err
	}
	now := later(t, c.Plan.Past)
	for i := range c.Plan.NeverActive {
		q := &c.Plan.NeverActive[i]
		wouldSign := !q.ActivatesAt.After(now) && ring.ByEffect(*q, *k) > 0
		// Sent at RevokedAt, the revocation reached the store up to one window later.
		if from := q.RevokedAt.Add(q.Timing.Dwell + q.Timing.Window(deadline)); wouldSign && !good.After(from) {
			return nil, fenced("no good sync has confirmed the revocation of key %q yet; the one before it signs with the first after %s", q.KID, moment(from))
		}
	}
	return k, nil
}

// SignsWith returns the kid of the key that [Copy.Signing] names, or "".
func (c *Copy) SignsWith(t, good time.Time, deadline time.Duration) string {
	k, err := c.Signing(t, good, deadline)
	if err != nil {
		return ""
	}
	return k.KID
}

// tooOld returns an error if the last good sync is older than an instance may sign with k after it.
func tooOld(t, good time.Time, k *ring.PlannedKey) error {
	if a := Age(t, good); a > k.Timing.SignFor {
		return fenced("the last good sync was %v ago, SignFor is %v", a.Round(time.Millisecond), k.Timing.SignFor)
	}
	return nil
}

// confirmed returns the key that signs in place of the i-th in order, as long as a failover may lose
// that one: it, or the last one before it that a good sync has confirmed. Several keys in a row may
// be unconfirmed, where one rotation was forced after the other.
//
// Each step back is bound by the promotion of the later key. The others keep the earlier one for the
// tokens of an instance that is cut off and signs with it for SignFor after the announcement of that
// promotion, which is never before the promotion. The announcement itself is no bound: a merge moves
// it later, and the others may go by the old one. A key that was not promoted gives no step, nor does
// a revoked key: its tokens are rejected.
func (c *Copy) confirmed(i int, t, good time.Time) (*ring.PlannedKey, error) {
	for s := &c.Plan.InOrder[i]; ; i-- {
		k := &c.Plan.InOrder[i]
		// The first key signs at once: no other key could sign in its place.
		if k.First || good.After(k.Created.Add(k.Timing.Dwell)) {
			return k, nil
		}
		promoted, ok := c.Facts.At(ring.FactPromoted, k.KID)
		if i == 0 || !ok || !c.Plan.InOrder[i-1].RevokedAt.IsZero() || t.After(promoted.Add(c.Plan.InOrder[i-1].Timing.SignFor)) {
			return nil, fenced("no good sync has confirmed key %q yet; it signs with the first after %s", s.KID, moment(s.Created.Add(s.Timing.Dwell)))
		}
	}
}

// silentUntil returns the end of the last time between from and to in which no instance signs, even
// if its syncs are good. It is zero if there is always one that signs.
func (c *Copy) silentUntil(from, to time.Time, deadline time.Duration) (last time.Time) {
	ends := []time.Time{to}
	for _, k := range c.Plan.InOrder {
		ends = append(ends, k.Created.Add(k.Timing.Dwell), k.ActivatesAt)
	}
	for _, q := range c.Plan.NeverActive {
		ends = append(ends, q.RevokedAt.Add(q.Timing.Dwell+q.Timing.Window(deadline)))
	}
	for _, end := range ends {
		if !end.After(from) || end.After(to) {
			continue
		}
		before := end.Add(-1)
		if _, err := c.Signing(before, before, deadline); err != nil {
			last = later(last, end)
		}
	}
	return last
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
// it, a key that is not known to be revoked counts as unavailable.
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

// WorstCase is [Copy.WorstCaseOf] of a key that is revoked now.
func (b *Base) WorstCase(kid string) (instances, readers time.Time) {
	return b.Copy.WorstCaseOf(kid, b.Now)
}

// TokensUntil returns until when tokens may live of the key that p revokes, or of the one in whose place
// p makes another sign, or of the key that p adopts. It is zero if that key has signed nothing, there is
// none, or it is not known.
func (b *Base) TokensUntil(p *Proposal) (until time.Time) {
	if p.Op == ring.OpAdopt {
		return adoptedUntil(p)
	}
	facts := ring.Facts{}
	for _, f := range p.Facts {
		facts.Add(f.Kind, f.KID, f.At)
	}
	after := b.Copy.Learn(facts).Plan
	for _, f := range p.Facts {
		switch n := slices.IndexFunc(after.InOrder, func(k ring.PlannedKey) bool { return k.KID == f.KID }); {
		case n < 0, f.Kind == ring.FactRevoked && f.KID != p.KID: // it never took effect
		case f.Kind == ring.FactRevoked && after.InOrder[n].ActivatesAt.After(b.eventTime()):
		case f.Kind == ring.FactRevoked && after.InOrder[n].DroppedAt.IsZero():
			return b.Now.Add(after.InOrder[n].TokenTTL() + after.InOrder[n].Timing.Leeway)
		case f.Kind == ring.FactRevoked:
			return after.InOrder[n].DroppedAt
		case f.Kind == ring.FactPromoted && n > 0 && after.InOrder[n-1].RevokedAt.IsZero():
			until = after.InOrder[n-1].DroppedAt
		}
	}
	return until
}

// leastReaderStaleness is the least TTL of a set in a jwks.Client. Policies may have less, since
// others may read the set more often.
const leastReaderStaleness = time.Minute

// moment writes a time of the store.
func moment(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z07:00") }
