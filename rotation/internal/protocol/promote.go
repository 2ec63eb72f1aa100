package protocol

import (
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// Promote decides about making kid sign now.
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
	if err := b.room(b.standby()); err != nil {
		return nil, err
	}
	p := &Proposal{Op: ring.OpPromote}
	b.makeSign(p, k, force)
	return p, nil
}

// Rotate decides about making the next pending key sign now, and minting another. If none is
// pending, it mints.
func (b *Base) Rotate(force bool) (*Proposal, error) {
	if err := b.Ring(); err != nil {
		return nil, err
	}
	pending := b.Copy.Plan.Pending(b.Now)
	if len(pending) == 0 {
		p := &Proposal{Op: ring.OpMint}
		return p, b.mintNext(p, *b.policy(), b.lastInOrder())
	}
	next := &pending[0]
	if from := b.usableFrom(next); !force && b.Now.Before(from) {
		return nil, b.tooFresh(next)
	}
	if err := b.room(b.standby()); err != nil {
		return nil, err
	}
	p := &Proposal{Op: ring.OpRotate}
	if promoted := *next; len(pending) == 1 {
		promoted.ActivatesAt = b.eventTime()
		if err := b.mintAfter(p, *b.policy(), &promoted); err != nil {
			return nil, err
		}
	}
	b.makeSign(p, next, force)
	return p, nil
}

// TakeOver decides about what a rotator does without being told if no key signs, since the one that
// did was revoked, or is missing: the next key does not wait for its schedule. It returns nil if
// there is nothing to do, or not yet.
func (b *Base) TakeOver() *Proposal {
	pending := b.Copy.Plan.Pending(b.Now)
	current := b.Copy.Plan.Current(b.Now)
	if b.Copy.Plan.Dead || len(pending) == 0 || current >= 0 && b.Copy.Plan.InOrder[current].RevokedAt.IsZero() || b.Now.Before(b.usableFrom(&pending[0])) {
		return nil
	}
	p := &Proposal{Op: ring.OpPromote}
	b.makeSign(p, &pending[0], false)
	return p
}

// makeSign adds to p that k signs from now on.
func (b *Base) makeSign(p *Proposal, k *ring.PlannedKey, force bool) {
	b.addEvent(p, ring.FactPromoted, k.KID, &k.Timing)
	if force {
		b.addEvent(p, ring.FactForced, k.KID, &k.Timing)
	}
	b.addAnnouncement(p, k.KID, &k.Timing)
	p.KID, p.Seq = k.KID, k.Seq
	if from := k.Created.Add(k.Timing.Dwell); !k.First && b.Now.Before(from) {
		p.NoSignerUntil = from
	}
}

// pendingKey returns the pending key kid, and whether it is the next one.
func (b *Base) pendingKey(kid string) (k *ring.PlannedKey, first bool, err error) {
	if b.Copy.Find(kid) == nil {
		return nil, false, &ring.MissingError{Tenant: b.Tenant, KID: kid}
	}
	pending := b.Copy.Plan.Pending(b.Now)
	for i := range pending {
		if pending[i].KID == kid {
			return &pending[i], i == 0, nil
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

// standby is the policy of the key that has to be minted when the next pending key is made to sign,
// or nil if another is pending.
func (b *Base) standby() *ring.Policy {
	if len(b.Copy.Plan.Pending(b.Now)) > 1 {
		return nil
	}
	return b.policy()
}

// room refuses a change by hand that retires a key, or mints one of a policy besides, if the JWK Set
// would become too large for its readers. Scheduled changes are not refused: they add at most what
// the policy allows in the time that tokens live.
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
			drops = append(drops, k.DroppedAt.Add(2*k.Timing.ClockSkew))
		}
	}
	if minted != nil && !minted.Algorithm.Symmetric() {
		n++
	}
	if n <= ring.MaxPublished || len(drops) == 0 { // to wait helps only if a key ends
		return nil
	}
	slices.SortFunc(drops, time.Time.Compare)
	return b.refuse("", fmt.Sprintf("it would publish %d keys at once, of which readers take %d: revoke one, or wait until the tokens of another have ended", n, ring.MaxPublished),
		drops[min(n-ring.MaxPublished, len(drops))-1])
}
