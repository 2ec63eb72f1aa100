package protocol

import (
	"fmt"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// Revoke decides about the revocation of kid. It returns nil if kid was revoked already.
//
// No earlier key signs in place of a revoked one: other instances may have dropped it. So if kid
// signs, the same change says which key is next.
func (b *Base) Revoke(kid string, force bool) (*Proposal, error) {
	if err := b.Ring(); err != nil {
		return nil, err
	}
	r := b.Copy.Find(kid)
	if r == nil {
		return nil, &ring.MissingError{Tenant: b.Tenant, KID: kid}
	}
	if _, revoked := b.Copy.Facts.At(ring.FactRevoked, kid); revoked {
		return nil, nil
	}
	p := &Proposal{Op: ring.OpRevoke}
	b.addEvent(p, ring.FactRevoked, kid, &r.Timing)
	if current := b.Copy.Plan.Current(b.Now); current >= 0 && b.Copy.Plan.InOrder[current].KID == kid {
		if err := b.succeed(p, kid, force); err != nil {
			return nil, err
		}
	}
	p.KID, p.Seq = kid, r.Seq
	return p, nil
}

// RevokeUnwhole decides about the revocation of kid in a ring of which something cannot be opened.
// Base.Copy has the parts that can be. exists says that the store has a record of kid, whether or
// not it can be opened. It returns nil if kid was revoked already.
//
// A revocation ends trust, and can be added to any ring: a field that an attacker has garbled must
// not keep a leaked key alive. But which key signs next cannot be decided without the whole ring.
// So a key that may be the signing one is only revoked by force, and a rotator finds the next one
// once the ring is whole. Head stays, since it may be the field that cannot be opened.
func (b *Base) RevokeUnwhole(kid string, exists, force bool) (*Proposal, error) {
	r := b.Copy.Find(kid)
	switch _, revoked := b.Copy.Facts.At(ring.FactRevoked, kid); {
	case b.Copy.Plan.Dead:
		return nil, b.refuse("", "its ring was destroyed", time.Time{})
	case revoked:
		return nil, nil
	case r == nil && !exists:
		return nil, &ring.MissingError{Tenant: b.Tenant, KID: kid}
	case !force && b.maySign(kid):
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

// maySign reports whether kid signs, or its record cannot be opened.
func (b *Base) maySign(kid string) bool {
	current := b.Copy.Plan.Current(b.Now)
	return b.Copy.Find(kid) == nil || current < 0 || b.Copy.Plan.InOrder[current].KID == kid
}

// succeed adds to p which key signs after kid, which is being revoked. The next pending key is
// promoted if it is known everywhere. Otherwise the tenant would be without a signer for a while,
// and only force accepts that.
//
// Forced, a new key is minted, whose own schedule makes it sign once it is known. A promotion
// cannot say that of a pending key, since it takes effect at once.
func (b *Base) succeed(p *Proposal, kid string, force bool) error {
	pending, t := b.Copy.Plan.Pending(b.Now), b.policy()
	until := moment(b.Now.Add(b.visibleAfter(t)))
	switch {
	case len(pending) > 0 && !b.Now.Before(b.usableFrom(&pending[0])):
		b.makeSign(p, &pending[0], false)
		return nil
	case !force && len(pending) > 0:
		return b.refuse(kid, fmt.Sprintf("it signs, and the next key, %q, has not been published for long enough to take over; "+
			"force it, and the tenant has no key to sign with until %s", pending[0].KID, until), b.usableFrom(&pending[0]))
	case !force:
		return b.refuse(kid, "it signs, and no key is pending that could take over; force it, and the tenant has no key to sign with until "+until, time.Time{})
	}
	return b.mint(p, *t, b.Copy.MaxSeq()+1, b.Now.Add(b.visibleAfter(t)))
}
