package protocol

import (
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// Replace decides about the next step by which another key signs in place of the leaked ones, and then
// all of them are revoked. It returns nil if no step can be made now: from then on one may be, or, if
// from is zero, all are revoked. The steps are told by the ring alone, so a replacement that was
// interrupted goes on where it ended, and one that is done has no step:
//
//   - A leaked key that does not sign, and whose revocation costs no signer, is revoked.
//   - Where the key that signs is leaked, or is the next to sign although no key does, the first other
//     pending key is made to sign once every instance knows it. If no other is pending, one is minted.
//
// So no instance is without a signer, and no token of another key is rejected. With now, nothing is
// waited for, at the price that [Base.Outlook] foresees: instances that have not heard of the new key
// may reject its tokens, and no instance signs with one that a failover may still lose.
func (b *Base) Replace(kids []string, now bool) (p *Proposal, from time.Time, err error) {
	left, err := b.left(kids)
	if err != nil || len(left) == 0 {
		return nil, from, err
	}
	for _, kid := range left {
		free, at := b.freeFrom(kid)
		switch {
		case b.isCurrent(kid), b.isHeir(kid):
		case free || now:
			p, err = b.Revoke(kid, now)
			return p, from, err
		case from.IsZero() || at.Before(from):
			from = at
		}
	}
	if !slices.ContainsFunc(left, func(kid string) bool { return b.isCurrent(kid) || b.isHeir(kid) }) {
		return nil, from, nil
	}
	p, at, err := b.relieve(left, now)
	if p == nil && (from.IsZero() || at.Before(from)) {
		from = at
	}
	return p, from, err
}

// left returns those of kids that are not revoked, in the order of the ring. The error says that the
// ring has never had, or has collected, one of the others.
func (b *Base) left(kids []string) (left []string, err error) {
	if err := b.Ring(); err != nil {
		return nil, err
	}
	for _, k := range b.Copy.Plan.At(b.Now).Keys {
		if slices.Contains(kids, k.KID) && k.State != ring.Revoked {
			left = append(left, k.KID)
		}
	}
	for _, kid := range kids {
		if _, revoked := b.Copy.Facts.At(ring.FactRevoked, kid); !revoked && !slices.Contains(left, kid) {
			return nil, &ring.MissingError{Tenant: b.Tenant, KID: kid}
		}
	}
	return left, nil
}

// freeFrom reports whether the revocation of kid, which does not sign, leaves no time without a signer,
// and otherwise from when on that has to be asked again.
func (b *Base) freeFrom(kid string) (free bool, from time.Time) {
	r := b.Copy.Find(kid)
	if until := b.unconfirmedUntil(r); !until.IsZero() {
		return false, b.Copy.PlanOf(r).ActivatesAt // then it signs, and is relieved
	}
	from, until := b.standsIn(kid)
	return until.IsZero(), from.Add(time.Millisecond)
}

// relieve decides about the step by which another key signs than those of left, of which one signs or
// is the next to do so although no key signs.
func (b *Base) relieve(left []string, now bool) (*Proposal, time.Time, error) {
	pending := b.Copy.Plan.Pending(b.Now)
	next := slices.IndexFunc(pending, func(k ring.PlannedKey) bool { return !slices.Contains(left, k.KID) })
	var p *Proposal
	var err error
	switch {
	case !now && !b.headless() && len(pending) > 0 && next != 0:
		return nil, pending[0].ActivatesAt, nil // a leaked one that is about to sign: see freeFrom
	case next < 0 && b.headless(): // no key signs anyway
		p, err = b.Revoke(pending[0].KID, true)
	case next < 0 && now:
		p = &Proposal{Op: ring.OpMint}
		err = b.mintAfter(p, *b.policy(), b.lastInOrder())
	case next < 0 && b.Now.Before(b.mintFrom()):
		return nil, b.mintFrom(), nil
	case next < 0:
		p, err = b.SetPolicy(*b.policy())
	case !now && b.Now.Before(b.usableFrom(&pending[next])):
		return nil, b.usableFrom(&pending[next]), nil
	case next > 0 && b.headless() && !now: // the revocation of the heir promotes the next one
		p, err = b.Revoke(pending[0].KID, false)
	case next > 0:
		p, err = b.Promote(pending[next].KID, true)
	default:
		p, err = b.Rotate(now)
	}
	return p, time.Time{}, err
}

// Outlook returns what [Base.Replace] comes to if each step is made as soon as it may be, and the first
// step. It makes no key, and counts no time in which instances hear of a step.
func (b *Base) Outlook(kids []string, now bool) (o ring.Replacement, err error) {
	o.Tenant = b.Tenant
	if o.Left, err = b.left(kids); err != nil {
		return o, err
	}
	sim, made := *b, 0
	sim.MakeKey = func(ring.Policy) (string, error) {
		made++
		return fmt.Sprintf("foreseen-%d", made), nil
	}
	const most = 100 // steps and waits: a few for each key
	for n := range most {
		p, from, err := sim.Replace(kids, now)
		if n == 0 && p != nil {
			o.Next, o.KID = p.Op, p.KID
		} else if n == 0 {
			o.From = from
		}
		switch {
		case err != nil:
			return o, err
		case p == nil && from.IsZero():
			return o, nil
		case p == nil:
			sim.Now = from
		default:
			sim.foresee(&o, kids, p)
			sim.Now = sim.Now.Add(time.Millisecond)
		}
	}
	return o, nil
}

// foresee makes the change that p proposes, in b alone, and notes in o what it comes to.
func (b *Base) foresee(o *ring.Replacement, kids []string, p *Proposal) {
	c, facts := *b.Copy, ring.Facts{}
	for i := range p.Mint {
		c.Records = append(slices.Clip(c.Records), Record{Record: &p.Mint[i]})
		c.Published = append(slices.Clip(c.Published), Publication{KID: p.Mint[i].KID, At: b.Now})
	}
	for _, f := range p.Facts {
		facts.Add(f.Kind, f.KID, f.At)
		switch {
		case f.Kind == ring.FactPromoted && !slices.Contains(kids, f.KID):
			o.SignsFrom = later(b.Now, p.ConfirmedAt)
		case f.Kind == ring.FactRevoked:
			instances, readers := b.WorstCase(f.KID)
			o.RevokedAt, o.WorstCase, o.ReadersUntil = b.Now, later(o.WorstCase, instances), later(o.ReadersUntil, readers)
		}
	}
	if p.Op == ring.OpRevoke && len(p.Mint) > 0 {
		o.SignsFrom = p.Mint[0].ActivateAt
	}
	o.NoSignerUntil = later(o.NoSignerUntil, p.NoSignerUntil)
	b.Copy = NewCopy(c).Learn(facts)
}
