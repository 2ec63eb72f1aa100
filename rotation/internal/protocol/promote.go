package protocol

import (
	"fmt"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// Promote decides about making kid sign now.
//
// Only the first pending key may be promoted, and only once it is known everywhere. A key that is
// promoted past another one leaves instances that have not heard of it signing with a key that the
// others have skipped (timeline E). Force skips both conditions, at the price that the receipt
// says.
func (b *Base) Promote(kid string, force bool) (*Proposal, error) {
	if err := b.Ring(); err != nil {
		return nil, err
	}
	k, first, err := b.pendingKey(kid)
	if err != nil {
		return nil, err
	}
	switch early := b.Now.Before(b.usableFrom(k)); {
	case force:
	case !first && early:
		return nil, b.refuse(kid, "another key is pending before it, and "+tooFresh, b.usableFrom(k))
	case !first:
		return nil, b.refuse(kid, "another key is pending before it", time.Time{})
	case early:
		return nil, b.tooFresh(k)
	}
	if err := b.room(b.standby(k)); err != nil {
		return nil, err
	}
	p := &Proposal{Op: ring.OpPromote}
	return p, b.promote(p, k, force)
}

// Rotate decides about making the next pending key sign now, and minting another. If none is
// pending, it mints: by force however soon after the last mint, and if no key signs either, one that
// signs as soon as it is known. The two go into one change, so that the ring is never without a
// pending key: if the new signing key has to be revoked, the next one is known already.
func (b *Base) Rotate(force bool) (*Proposal, error) {
	if err := b.Ring(); err != nil {
		return nil, err
	}
	pending := b.Copy.Plan.Pending(b.Now)
	if len(pending) == 0 {
		p := &Proposal{Op: ring.OpMint}
		switch {
		case force && b.headless():
			return p, b.mintSigner(p)
		case force:
			return p, b.mintAfter(p, *b.policy(), b.lastInOrder())
		}
		return p, b.mintNext(p, *b.policy(), b.lastInOrder())
	}
	next := &pending[0]
	if from := b.usableFrom(next); !force && b.Now.Before(from) {
		return nil, b.tooFresh(next)
	}
	if err := b.room(b.standby(next)); err != nil {
		return nil, err
	}
	p := &Proposal{Op: ring.OpRotate}
	if err := b.mintBehind(p, next); err != nil {
		return nil, err
	}
	b.makeSign(p, next, force)
	return p, nil
}

// promote adds to p that k signs from now on. Nothing is minted, unless k waited: with k the hold of
// its ring ends, and the key after it gets a date again.
func (b *Base) promote(p *Proposal, k *ring.PlannedKey, force bool) error {
	if k.Waiting() {
		if err := b.mintBehind(p, k); err != nil {
			return err
		}
	}
	b.makeSign(p, k, force)
	return nil
}

// mintBehind adds to p the key after k, which is about to be made to sign, unless another one with a
// date is pending.
func (b *Base) mintBehind(p *Proposal, k *ring.PlannedKey) error {
	if b.isFollowed(k) {
		return nil
	}
	promoted := *k
	promoted.ActivatesAt = b.eventTime()
	return b.mintAfter(p, *b.policy(), &promoted)
}

// TakeOver decides about the promotion that a rotator makes without being told. If the current key
// was revoked, or none has taken effect, no key signs, and the next one does not wait for its
// schedule. It returns nil if there is nothing to do, or not yet.
//
// A forced revocation mints a key that signs as soon as it is known. If a failover loses both and
// an instance restores them, the key is published again and would wait for Propagation, which may
// be days without a signer (I11).
func (b *Base) TakeOver() (*Proposal, error) {
	if !b.IsTakeOverDue() {
		return nil, nil
	}
	p := &Proposal{Op: ring.OpPromote}
	return p, b.promote(p, &b.Copy.Plan.Pending(b.Now)[0], false)
}

// IsTakeOverDue reports whether TakeOver promotes a key.
func (b *Base) IsTakeOverDue() bool {
	pending := b.Copy.Plan.Pending(b.Now)
	return !b.Copy.Plan.Dead && b.headless() && len(pending) > 0 && !b.Now.Before(b.usableFrom(&pending[0]))
}

// makeSign adds to p that k signs from now on.
//
// The promotion is an event: it has to be in the past when an instance hears of it. Its
// announcement says from when on others can have heard of it, and a cut-off instance signs with the
// previous key for SignFor from then on. So that key is kept for as long (timeline B).
//
// A forced key may be younger than Dwell. No instance signs with it until a sync has confirmed it.
// Meanwhile the key before it signs on, if it can: see [Copy.Signing].
//
// No other key waits any longer: a key that waits belongs behind one with Hold, which k is not.
func (b *Base) makeSign(p *Proposal, k *ring.PlannedKey, force bool) {
	b.addEvent(p, ring.FactPromoted, k.KID, &k.Timing)
	if force {
		b.addEvent(p, ring.FactForced, k.KID, &k.Timing)
	}
	b.addAnnouncement(p, k.KID, &k.Timing)
	b.revokeWaiting(p, k.KID)
	p.KID, p.Seq = k.KID, k.Seq
	if from := k.Created.Add(k.Timing.Dwell); !k.First && b.Now.Before(from) {
		promotion := ring.Facts{}
		promotion.Add(ring.FactPromoted, k.KID, b.eventTime())
		p.ConfirmedAt, p.NoSignerUntil = from, b.Copy.Learn(promotion).silentUntil(b.eventTime(), from, b.Deadline)
	}
}

// pendingKey returns the pending key kid, and whether it is the next one: any of those that wait may
// be, since no instance signs with one of them by the clock. The error says which state another key
// is in.
func (b *Base) pendingKey(kid string) (k *ring.PlannedKey, first bool, err error) {
	if b.Copy.Find(kid) == nil {
		return nil, false, &ring.MissingError{Tenant: b.Tenant, KID: kid}
	}
	pending := b.Copy.Plan.Pending(b.Now)
	for i := range pending {
		if pending[i].KID == kid {
			return &pending[i], i == 0 || pending[0].Waiting(), nil
		}
	}
	state := ring.Retired
	for _, k := range b.Copy.Plan.At(b.Now).Keys {
		if k.KID == kid {
			state = k.State
		}
	}
	return nil, false, b.refuse(kid, fmt.Sprintf("it is %s: only a pending key can be promoted", state), time.Time{})
}

func (b *Base) tooFresh(k *ring.PlannedKey) error {
	return b.refuse(k.KID, tooFresh, b.usableFrom(k))
}

const tooFresh = "it has not been published for long enough: instances that have not heard of it would refuse its tokens"
