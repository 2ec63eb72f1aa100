package protocol

import (
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// SetPolicy decides about minting the next key under another policy, whether or not one is pending.
// The ring's policy is that of its newest record, so it takes effect with that key. A key that waits
// is replaced: behind it, the new one would wait for ever.
func (b *Base) SetPolicy(policy ring.Policy) (*Proposal, error) {
	if err := b.Ring(); err != nil {
		return nil, err
	}
	if err := b.room(&policy); err != nil {
		return nil, err
	}
	p := &Proposal{Op: ring.OpMint}
	b.revokeWaiting(p, "")
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

// IsMintDue reports whether the ring has no pending key, and may have one now. The next key is
// minted as soon as the last one signs, not when it is needed. So nearly always one is pending that
// can be promoted if the signing key has to be revoked. Behind a key with Hold, one that waits is
// enough. Behind any other key it does not count: it would never sign.
func (b *Base) IsMintDue() bool {
	if b.Copy.Newest() == nil || b.Copy.Plan.Dead || b.Now.Before(b.mintFrom()) {
		return false
	}
	dated, waiting := b.pending()
	c := b.current()
	return len(dated) == 0 && (len(waiting) == 0 || c == nil || !c.Hold)
}

// mintFrom is when the next key may be minted: once every instance in sync knows the last one. So
// keys become known one by one, and a rotator that is run in a loop does not fill the ring.
func (b *Base) mintFrom() time.Time {
	n := b.Copy.Newest()
	return n.Created.Add(n.Timing.HeardWithin())
}

// mintNext adds to p the next key: under policy, to sign after last, or, if that is nil, as soon as
// it may. It refuses before mintFrom.
func (b *Base) mintNext(p *Proposal, policy ring.Policy, last *ring.PlannedKey) error {
	if from := b.mintFrom(); b.Now.Before(from) {
		return b.refuse("", "the last key was minted less than Freshness, Dwell and ClockSkew ago", from)
	}
	return b.mintAfter(p, policy, last)
}

// mintAfter is mintNext, however soon after the last key was minted.
//
// The key signs at the end of its predecessor's period, and not before it is known everywhere. An
// instance that has not heard of the new policy calls itself in sync by the old one, so the longer
// Propagation of the two counts. Behind a key with Hold it has no date, and waits. The upper end of the bound is for a failover to a server whose
// clock is behind: there the same ActivateAt would be too far ahead.
func (b *Base) mintAfter(p *Proposal, policy ring.Policy, last *ring.PlannedKey) error {
	propagation, every := max(policy.Propagation, b.policy().Propagation), policy.Every
	activate, latest := b.soonest(propagation, &policy), b.Now
	if last != nil {
		activate, latest = later(activate, endOfPeriod(last)), later(b.Now, last.ActivatesAt)
		every = max(every, last.Timing.Every)
	}
	p.Bounds = append(p.Bounds, ring.Bound{At: activate, From: propagation, To: latest.Sub(b.Now) + every + propagation + policy.Window(b.Deadline)})
	return b.mint(p, policy, b.Copy.MaxSeq()+1, activate, holds(last))
}

// mintSigner adds to p a key that signs as soon as it is known everywhere, however soon after the last
// key was minted. Until then no key signs. Its own schedule makes it sign; a promotion cannot say
// that of a pending key, since it takes effect at once.
func (b *Base) mintSigner(p *Proposal) error {
	t := b.policy()
	p.NoSignerUntil = b.Now.Add(b.visibleAfter(t))
	return b.mint(p, *t, b.Copy.MaxSeq()+1, p.NoSignerUntil, false)
}

// soonest returns when a key that is minted now may sign. The store refuses the key if less than
// propagation is left when it arrives. Twice ClockSkew more is the time that it may take to arrive.
func (b *Base) soonest(propagation time.Duration, p *ring.Policy) time.Time {
	return b.Now.Add(propagation + 2*p.ClockSkew)
}

// endOfPeriod returns when the period of k ends: after Every, or at its SignUntil if that is
// sooner. A key that was republished took effect later, and its SignUntil moves by as much.
// Otherwise repeated losses would leave the ring without a signer (I11).
func endOfPeriod(k *ring.PlannedKey) time.Time {
	period := k.ActivatesAt.Add(k.Timing.Every)
	if until := k.SignUntil.Add(max(0, k.ActivatesAt.Sub(k.ActivateAt))); until.Before(period) {
		return until
	}
	return period
}

// signPeriods is for how many periods a key signs if no other is minted. Then the tenant stops
// signing. Otherwise a ring that no rotator serves would sign with one key forever, and no operator
// would notice.
const signPeriods = 3

// mint adds a new key to p. It is announced, since an instance that has not heard of it signs with
// the predecessor for up to SignFor. waits says that it has no date: see [ring.Record].Waits.
func (b *Base) mint(p *Proposal, policy ring.Policy, seq int, activate time.Time, waits bool) error {
	kid, err := b.MakeKey(policy)
	if err != nil {
		return err
	}
	b.addRecord(p, ring.Record{Tenant: b.Tenant, KID: kid, Seq: seq, Algorithm: policy.Algorithm, ActivateAt: activate,
		SignUntil: activate.Add(signPeriods * policy.Every), Origin: ring.Generated, Waits: waits, Timing: policy})
	p.VisibleAfter = b.visibleAfter(&policy)
	return nil
}

// addRecord adds a record to p that is created now, and announces it.
func (b *Base) addRecord(p *Proposal, r ring.Record) {
	r.Created, r.Life = b.created(p), b.Copy.Facts.Dead
	p.Mint = append(p.Mint, r)
	p.KID, p.Seq, p.Head, p.NewTenantKey = r.KID, r.Seq, r.Seq, b.needsTenantKey()
	b.addAnnouncement(p, r.KID, &r.Timing)
}

// created is when the next record of p is created: a millisecond after all others, if Now is not
// later. The time of creation tells which records were collected, so no two records may share it. A
// record that was created at or before the last collected one would be ignored from the start.
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

// lastInOrder returns the key that takes effect last, of those that have a date, or nil if there is
// none.
func (b *Base) lastInOrder() *ring.PlannedKey {
	for i := len(b.Copy.Plan.InOrder) - 1; i >= 0; i-- {
		if k := &b.Copy.Plan.InOrder[i]; !k.Waiting() {
			return k
		}
	}
	return nil
}
