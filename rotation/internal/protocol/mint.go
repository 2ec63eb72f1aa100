package protocol

import (
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// Create decides about the first ring of a tenant: one key that signs now, and one that is pending.
func (b *Base) Create(policy ring.Policy) (*Proposal, error) {
	if !b.Copy.vacant() {
		return nil, b.refuse("", "it has a ring already", time.Time{})
	}
	p := &Proposal{Op: ring.OpCreate}
	next := later(b.Now.Add(policy.Every), b.Now.Add(policy.Propagation+2*policy.ClockSkew))
	for i, activate := range []time.Time{b.Now, next} {
		if err := b.mint(p, policy, i+1, activate); err != nil {
			return nil, err
		}
	}
	p.KID, p.Seq = p.Mint[0].KID, 1
	window := policy.Window(b.Deadline)
	p.Bounds = append(p.Bounds, ring.Bound{At: b.Now, From: -window, To: window})
	return p, nil
}

// SetPolicy decides about minting the next key under another policy, whether or not one is pending.
func (b *Base) SetPolicy(policy ring.Policy) (*Proposal, error) {
	if err := b.Ring(); err != nil {
		return nil, err
	}
	if err := b.room(&policy); err != nil {
		return nil, err
	}
	p := &Proposal{Op: ring.OpMint}
	return p, b.mintNext(p, policy, b.lastInOrder())
}

// MintDue decides about the key that a rotator mints without being told. It returns nil if there is
// nothing to do.
func (b *Base) MintDue() (*Proposal, error) {
	if !b.IsMintDue() {
		return nil, nil
	}
	p := &Proposal{Op: ring.OpMint}
	return p, b.mintNext(p, *b.policy(), b.lastInOrder())
}

// IsMintDue reports whether the ring has no pending key, and may have one now. A standby has to be
// there nearly always, to be promoted.
func (b *Base) IsMintDue() bool {
	none := b.Copy.Newest() != nil && !b.Copy.Plan.Dead && len(b.Copy.Plan.Pending(b.Now)) == 0
	return none && !b.Now.Before(b.mintFrom())
}

// signPeriods is for how many periods a key signs if no other is minted. Then the tenant stops
// signing, rather than go on with one key for ever without a word.
const signPeriods = 3

// mint adds a new key to p.
func (b *Base) mint(p *Proposal, policy ring.Policy, seq int, activate time.Time) error {
	kid, err := b.MakeKey(policy)
	if err != nil {
		return err
	}
	p.Mint = append(p.Mint, ring.Record{Tenant: b.Tenant, KID: kid, Seq: seq, Algorithm: policy.Algorithm, Created: b.created(p), ActivateAt: activate,
		SignUntil: activate.Add(signPeriods * policy.Every), Origin: ring.Generated, Timing: policy})
	p.KID, p.Seq, p.Head = kid, seq, seq
	b.addAnnouncement(p, kid, &policy)
	p.VisibleAfter = b.visibleAfter(&policy)
	return nil
}

// created is when the next record of p is created: after all others, since the time of creation tells
// which records were collected.
func (b *Base) created(p *Proposal) time.Time {
	last := b.Copy.Facts.CollectedUntil
	for _, r := range b.Copy.Records {
		last = later(last, r.Created)
	}
	for i := range p.Mint {
		last = later(last, p.Mint[i].Created)
	}
	return later(b.Now, last.Add(time.Millisecond))
}

// mintNext decides about the next key: under policy, to sign after last, or, if that is nil, as soon
// as it may.
func (b *Base) mintNext(p *Proposal, policy ring.Policy, last *ring.PlannedKey) error {
	if from := b.mintFrom(); b.Now.Before(from) {
		return b.refuse("", "the last key was minted less than Freshness and ClockSkew ago", from)
	}
	return b.mintAfter(p, policy, last)
}

// mintAfter is mintNext, however soon after the last key was minted.
func (b *Base) mintAfter(p *Proposal, policy ring.Policy, last *ring.PlannedKey) error {
	propagation := max(policy.Propagation, b.policy().Propagation)
	soonest := b.Now.Add(propagation + 2*policy.ClockSkew)
	activate, latest := soonest, b.Now
	if last != nil {
		turn := last.ActivatesAt.Add(last.Timing.Every)
		if ends := last.SignUntil.Add(max(0, last.ActivatesAt.Sub(last.ActivateAt))); ends.Before(turn) {
			turn = ends
		}
		activate, latest = later(soonest, turn), later(b.Now, last.ActivatesAt)
	}
	every := policy.Every
	if last != nil {
		every = max(every, last.Timing.Every)
	}
	p.Bounds = append(p.Bounds, ring.Bound{At: activate, From: propagation, To: latest.Sub(b.Now) + every + propagation + policy.Window(b.Deadline)})
	return b.mint(p, policy, b.Copy.MaxSeq()+1, activate)
}

// mintFrom is when the next key may be minted. Two keys at a time would not become known one by one.
func (b *Base) mintFrom() time.Time {
	n := b.Copy.Newest()
	return n.Created.Add(n.Timing.Freshness + n.Timing.ClockSkew)
}

func (b *Base) lastInOrder() *ring.PlannedKey {
	if n := len(b.Copy.Plan.InOrder); n > 0 {
		return &b.Copy.Plan.InOrder[n-1]
	}
	return nil
}
