package rotation

import (
	"cmp"
	"slices"
	"time"
)

// A State is where a key of a ring stands. docs/rotation.md maps the states to
// those of NIST SP 800-57.
type State string

// The states, in the order of a key's life.
const (
	Pending State = "pending" // published, and verifies, but does not sign yet
	Signing State = "signing"
	Retired State = "retired" // does not sign any more, and verifies what it signed
	Dropped State = "dropped" // verifies nothing any more: its last token has ended
	Revoked State = "revoked"
)

// A Ring is what the records and facts of a tenant say at one moment.
type Ring struct {
	// Keys are all keys, those that were revoked last, the others by when they
	// take effect.
	Keys []RingKey

	// Signer is the index in Keys of the one that signs, or -1 if none does.
	Signer int
}

// A RingKey is one key of a Ring. Times are zero where they are not known yet.
type RingKey struct {
	Record
	State State

	ActivatesAt time.Time // when it takes effect, or would have
	RetiresAt   time.Time // when the next takes effect
	DroppedAt   time.Time // until when it verifies; zero while there is no next
	RevokedAt   time.Time
}

// Verifies reports whether tokens of the key are good.
func (k RingKey) Verifies() bool { return k.State != Dropped && k.State != Revoked }

// View says who signs, who verifies and who is dropped. It is a pure function of
// the records of one ring, what is known of them, and the time: whoever has the
// same comes to the same end, with no word spoken. It changes nothing it is given.
//
// A record takes effect when it is scheduled to, or when it was promoted. It is
// scheduled by its ActivateAt; if it was lost and merged back, it waits until it
// has become known anew. One that was revoked before it took effect leaves the
// order. The last that has taken effect signs, if it was not revoked, and nobody
// else does: there is no falling back to an earlier one, whose retirement others
// may have counted on.
//
// A key verifies until the last token that anyone may have signed with it has
// ended: a cut-off instance signs on for SignFor after its last good sync, and
// may have missed a promotion or a merge for so long.
func View(records []Record, facts Facts, now time.Time) Ring {
	v := viewer{facts: facts, now: now, past: later(now, facts.latest(FactPromoted, FactRevoked))}
	if !facts.Dead.IsZero() {
		return Ring{Signer: -1}
	}
	v.order(records)
	ring := Ring{Signer: -1}
	current := v.current()
	for i := range v.inOrder {
		ring.Keys = append(ring.Keys, v.key(i, current))
		if ring.Keys[i].State == Signing {
			ring.Signer = i
		}
	}
	ring.Keys = append(ring.Keys, v.left...)
	return ring
}

// A viewer is a View under way.
type viewer struct {
	facts     Facts
	now, past time.Time // past: a known fact has happened, whatever our clock says
	inOrder   []RingKey
	left      []RingKey // revoked before they took effect
}

// order sorts the records by when they take effect.
func (v *viewer) order(records []Record) {
	for _, r := range records {
		k := RingKey{Record: r, ActivatesAt: v.effective(r, records)}
		revoked, ok := v.facts.At(FactRevoked, r.KID)
		if ok {
			k.RevokedAt = revoked
		}
		if ok && revoked.Before(k.ActivatesAt) {
			k.State = Revoked
			v.left = append(v.left, k)
		} else {
			v.inOrder = append(v.inOrder, k)
		}
	}
	byEffect := func(a, b RingKey) int {
		return cmp.Or(a.ActivatesAt.Compare(b.ActivatesAt), cmp.Compare(a.Seq, b.Seq), cmp.Compare(a.KID, b.KID))
	}
	slices.SortFunc(v.inOrder, byEffect)
	slices.SortFunc(v.left, byEffect)
}

// effective returns when a record takes effect.
func (v *viewer) effective(r Record, all []Record) time.Time {
	at := r.ActivateAt
	if again, ok := v.facts.At(FactRepublished, r.KID); ok && !isFirst(r, all) {
		at = later(at, again.Add(r.Timing.Propagation))
	}
	if promoted, ok := v.facts.At(FactPromoted, r.KID); ok && promoted.Before(at) {
		at = promoted
	}
	return at
}

// isFirst reports whether r is the first of its ring: there is no key to sign
// with before it, so it never waits.
func isFirst(r Record, all []Record) bool {
	return r.Seq == 1 && !slices.ContainsFunc(all, func(o Record) bool { return o.Created.Before(r.Created) })
}

// current returns the index of the last that has taken effect, or -1.
func (v *viewer) current() int {
	current := -1
	for i, k := range v.inOrder {
		if !k.ActivatesAt.After(v.past) {
			current = i
		}
	}
	return current
}

// key returns the i-th in order, complete.
func (v *viewer) key(i, current int) RingKey {
	k := v.inOrder[i]
	if i+1 < len(v.inOrder) {
		next := v.inOrder[i+1]
		k.RetiresAt = next.ActivatesAt
		k.DroppedAt = v.keep(k, next)
	}
	switch {
	case !k.RevokedAt.IsZero():
		k.State = Revoked
	case !k.DroppedAt.IsZero() && !v.past.Before(k.DroppedAt):
		k.State = Dropped
	case i > current:
		k.State = Pending
	case i == current && v.now.Before(k.SignUntil):
		k.State = Signing
	default:
		k.State = Retired
	}
	return k
}

// keep returns until when k verifies, next being the next in order.
func (v *viewer) keep(k, next RingKey) time.Time {
	p := k.Timing
	end := next.ActivatesAt
	for _, kid := range []string{k.KID, next.KID} {
		if announced, ok := v.facts.At(FactAnnounced, kid); ok {
			end = later(end, announced.Add(p.SignFor+p.ClockSkew))
		}
	}
	return end.Add(p.MaxTokenTTL + p.Leeway)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
