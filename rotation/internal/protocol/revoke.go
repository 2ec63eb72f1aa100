package protocol

import (
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// Revoke decides about the revocation of kid. It returns nil if kid was revoked already.
//
// No earlier key signs in place of a revoked one: other instances may have dropped it. So if kid
// signs, the same change says which key is next. If no key signs and kid is the next to do so, as
// after a forced revocation, the same holds: without it the tenant waits longer for a signer than
// any receipt has said (timeline Heir). And if kid signs in place of a key that was forced to sign,
// and that a failover may still lose, only force accepts that no key signs meanwhile.
func (b *Base) Revoke(kid string, force bool) (*Proposal, error) {
	r := b.Copy.Find(kid)
	if r == nil && b.Copy.FindAccept(kid) != nil {
		return b.revokeAccept(kid), nil
	}
	if err := b.Ring(); err != nil {
		return nil, err
	}
	if r == nil {
		return nil, &ring.MissingError{Tenant: b.Tenant, KID: kid}
	}
	if _, revoked := b.Copy.Facts.At(ring.FactRevoked, kid); revoked {
		return nil, nil
	}
	p := &Proposal{Op: ring.OpRevoke}
	b.addEvent(p, ring.FactRevoked, kid, &r.Timing)
	p.NoSignerUntil = b.unconfirmedUntil(r)
	switch from, until := b.standsIn(kid); {
	case b.isCurrent(kid), b.isHeir(kid):
		if err := b.succeed(p, kid, force); err != nil {
			return nil, err
		}
	case until.IsZero():
		if err := b.keepSigner(p, kid); err != nil {
			return nil, err
		}
	case !force:
		return nil, b.refuse(kid, "it signs in place of the key that was forced to sign, as long as a failover may lose that one; "+
			"force it, and the tenant has no key to sign with until "+moment(until), from)
	default:
		p.NoSignerUntil = until
	}
	p.KID, p.Seq = kid, r.Seq
	return p, nil
}

// keepSigner adds to p another successor of the key that signs, where that key signs past its own
// SignUntil because kid, which is being revoked, was to follow it. So is an imported key that was to
// rotate on a date, whose successor came late. Without another, no key would sign from the revocation
// until a rotator mints.
func (b *Base) keepSigner(p *Proposal, kid string) error {
	revocation, heard := ring.Facts{}, b.Now.Add(b.visibleAfter(b.policy()))
	revocation.Add(ring.FactRevoked, kid, b.eventTime())
	if b.Copy.Plan.Signer(b.Now) == nil || b.Copy.Learn(revocation).Plan.Signer(heard) != nil {
		return nil
	}
	return b.mintAfter(p, *b.policy(), b.current())
}

// RevokeUnwhole decides about the revocation of kid in a ring of which something cannot be opened.
// Base.Copy has the parts that can be. record and accept say that the store has a record, or an
// accepted key, of kid, whether or not it can be opened. It returns nil if kid was revoked already.
//
// A revocation ends trust, and can be added to any ring: a field that an attacker has garbled must
// not keep a leaked key alive. But which key signs next cannot be decided without the whole ring.
// So a key that may be the signing one is only revoked by force, and a rotator finds the next one
// once the ring is whole. Head stays, since it may be the field that cannot be opened.
func (b *Base) RevokeUnwhole(kid string, record, accept, force bool) (*Proposal, error) {
	r := b.Copy.Find(kid)
	switch _, revoked := b.Copy.Facts.At(ring.FactRevoked, kid); {
	case b.Copy.Plan.Dead:
		return nil, b.refuse("", wasDestroyed, time.Time{})
	case revoked:
		return nil, nil
	case r == nil && !record && !accept:
		return nil, &ring.MissingError{Tenant: b.Tenant, KID: kid}
	case !force && b.maySign(kid) && (record || r != nil): // an accepted key never signs
		return nil, b.refuse(kid, "it may be the key that signs, and no other can take over while parts of the ring cannot be opened; force it", time.Time{})
	}
	p, timing := &Proposal{Op: ring.OpRevoke, KID: kid, LeaveHead: true}, ring.Policy{}.WithDefaults()
	if n := b.Copy.Newest(); n != nil {
		timing = n.Timing
	}
	if r != nil {
		p.Seq, timing = r.Seq, r.Timing
	}
	b.addEvent(p, ring.FactRevoked, kid, &timing)
	return p, nil
}

// maySign reports whether kid signs or is the next to sign, or its record cannot be opened.
func (b *Base) maySign(kid string) bool {
	_, until := b.standsIn(kid)
	return b.Copy.Find(kid) == nil || b.isCurrent(kid) || b.isHeir(kid) || !until.IsZero()
}

// standsIn returns until when no instance signs if kid is revoked now, although it has retired: it
// signs in place of the current key, which a good sync can only confirm after from. Both are zero if
// the revocation costs nothing.
func (b *Base) standsIn(kid string) (from, until time.Time) {
	current := b.Copy.Plan.Current(b.Now)
	if current < 0 || !slices.ContainsFunc(b.Copy.Plan.InOrder[:current], func(k ring.PlannedKey) bool { return k.KID == kid }) {
		return from, until
	}
	s, revocation := &b.Copy.Plan.InOrder[current], ring.Facts{}
	revocation.Add(ring.FactRevoked, kid, b.eventTime())
	from = s.Created.Add(s.Timing.Dwell)
	until = b.Copy.Learn(revocation).silentUntil(b.eventTime(), from, b.Deadline)
	if !until.After(b.Copy.silentUntil(b.eventTime(), from, b.Deadline)) {
		return time.Time{}, time.Time{}
	}
	return from, until
}

// unconfirmedUntil returns until when no instance signs if r is revoked now, although r does not sign
// yet: it would take effect before every instance can know that a failover has not lost the
// revocation, see [Copy.Signing]. It returns zero if that costs nothing.
func (b *Base) unconfirmedUntil(r *ring.Record) time.Time {
	k := b.Copy.PlanOf(r)
	until := b.eventTime().Add(k.Timing.Dwell + k.Timing.Window(b.Deadline))
	for i := range b.Copy.Plan.InOrder {
		next := &b.Copy.Plan.InOrder[i]
		if ring.ByEffect(*next, *k) > 0 && next.ActivatesAt.Before(until) {
			until = next.ActivatesAt
			break
		}
	}
	if !k.ActivatesAt.After(b.eventTime()) || !k.ActivatesAt.Before(until) {
		return time.Time{}
	}
	return until
}

// isCurrent reports whether kid is the last key that has taken effect.
func (b *Base) isCurrent(kid string) bool {
	current := b.Copy.Plan.Current(b.Now)
	return current >= 0 && b.Copy.Plan.InOrder[current].KID == kid
}

// isHeir reports whether no key signs and kid is the next to do so.
func (b *Base) isHeir(kid string) bool {
	pending := b.Copy.Plan.Pending(b.Now)
	return b.headless() && len(pending) > 0 && pending[0].KID == kid
}

// headless reports whether the current key was revoked, or no key has taken effect. Then no key signs
// before the next one is promoted.
func (b *Base) headless() bool {
	current := b.Copy.Plan.Current(b.Now)
	return current < 0 || !b.Copy.Plan.InOrder[current].RevokedAt.IsZero()
}

// succeed adds to p which key signs after kid, which is being revoked. The next pending key is
// promoted if it is known everywhere. Otherwise the tenant would be without a signer for a while,
// and only force accepts that: then a new key is minted at once.
func (b *Base) succeed(p *Proposal, kid string, force bool) error {
	isOther := func(k ring.PlannedKey) bool { return k.KID != kid }
	pending, is := b.Copy.Plan.Pending(b.Now), "signs"
	if b.isHeir(kid) {
		is = "is the next to sign"
	}
	until := moment(b.Now.Add(b.visibleAfter(b.policy())))
	switch next := slices.IndexFunc(pending, isOther); {
	case next >= 0 && !b.Now.Before(b.usableFrom(&pending[next])):
		b.makeSign(p, &pending[next], false)
		return nil
	case !force && next >= 0:
		return b.refuse(kid, fmt.Sprintf("it %s, and the next key, %q, has not been published for long enough to take over; "+
			"force it, and the tenant has no key to sign with until %s", is, pending[next].KID, until), b.usableFrom(&pending[next]))
	case !force:
		return b.refuse(kid, fmt.Sprintf("it %s, and no key is pending that could take over; force it, and the tenant has no key to sign with until %s", is, until), time.Time{})
	}
	return b.mintSigner(p)
}
