package protocol

import (
	"fmt"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/ring"
)

// An Adopted is a key that existed before the ring which it begins, without its material.
type Adopted struct {
	KID       string // of its tokens; chosen for it if they have none
	NoKID     bool   // its tokens carry no kid
	Algorithm keystore.Algorithm
	Longest   time.Duration // the longest life of its tokens

	RotateAt time.Time // when its successor signs; zero for a period of the policy
	Hold     bool      // an operator says when: RotateAt must be zero
	Again    bool      // also of a name whose ring was destroyed
}

// MostLongest is the longest life of tokens of a key that a ring adopts: as long as any token is kept
// in mind, see verifier.RevocationListConfig.
const MostLongest = 400 * 24 * time.Hour

// Check returns why the key cannot be adopted, whatever the ring is, or nil.
func (a *Adopted) Check() error {
	switch {
	case a.Longest < time.Second || a.Longest > MostLongest || a.Longest%time.Millisecond != 0:
		return &ring.Error{Text: fmt.Sprintf("Imported.Longest is %v: want 1s to 400 days, in whole milliseconds: how long does the longest of its tokens live?", a.Longest)}
	case a.Hold && !a.RotateAt.IsZero():
		return &ring.Error{Text: "AdoptOptions.Hold and RotateAt exclude each other"}
	}
	return nil
}

// Adopt decides about the first ring of a tenant whose tokens a key signs that exists: that key signs
// at once, as the first of the ring, and the second is made under the policy and is pending.
//
// The record of the first key carries the policy, since it is that of the newest record: if the second
// one is lost, the third is minted under it. How long its own tokens live is in a field of its own.
func (b *Base) Adopt(a Adopted, policy ring.Policy) (*Proposal, error) {
	if err := b.mayAdopt(&a, &policy); err != nil {
		return nil, err
	}
	next, first := later(b.Now.Add(policy.Every), b.soonest(policy.Propagation, &policy)), b.adopted(&a, &policy)
	if at := WholeMillis(a.RotateAt); !at.IsZero() {
		if soonest := b.soonest(policy.Propagation, &policy); at.Before(soonest) {
			return nil, b.refuse("", fmt.Sprintf("a rotation at %s is too soon: the next key has to be published for Propagation before it", moment(at)), soonest)
		}
		// These two make a successor that was lost or revoked again for the same date: see endOfPeriod.
		first.SignUntil, first.Timing.Every = at, max(policy.Every, at.Sub(b.Now))
		next = at
	}
	p := &Proposal{Op: ring.OpAdopt}
	window := policy.Window(b.Deadline)
	p.Bounds = append(p.Bounds, ring.Bound{At: b.Now, From: -window, To: window})
	b.addRecord(p, first)
	if err := b.mint(p, policy, 2, next, a.Hold); err != nil {
		return nil, err
	}
	p.KID, p.Seq = a.KID, 1
	return p, nil
}

// adopted returns the record of the key a, the first of a ring of that policy.
func (b *Base) adopted(a *Adopted, policy *ring.Policy) ring.Record {
	first := ring.Record{Tenant: b.Tenant, KID: a.KID, NoKID: a.NoKID, Seq: 1, Algorithm: a.Algorithm, ActivateAt: b.Now,
		SignUntil: b.Now.Add(signPeriods * policy.Every), Origin: ring.Imported, Hold: a.Hold, Timing: *policy}
	// This ring's instances sign with the key too, so its tokens live for as long as the policy says at
	// least. That also keeps the inequality of MaxTokenTTL: see [ring.Policy].
	if a.Longest > policy.MaxTokenTTL {
		first.Longest = a.Longest
	}
	if a.NoKID {
		first.Origin = ring.Legacy
	}
	return first
}

// mayAdopt returns why the ring may not begin with a, or nil.
func (b *Base) mayAdopt(a *Adopted, policy *ring.Policy) error {
	if err := b.MayCreate(a.Again); err != nil {
		return err
	}
	if _, revoked := b.Copy.Facts.At(ring.FactRevoked, a.KID); revoked { // of an earlier ring
		return b.refuse(a.KID, "it was revoked", time.Time{})
	}
	// Its tokens may live for long, so it is published beside all keys that the policy makes meanwhile.
	if n := policy.Published() + 1; !a.Algorithm.Symmetric() && n > ring.MaxPublished {
		return &ring.PolicyError{Inequality: fmt.Sprintf("3 + ceil((MaxTokenTTL + Leeway + 2 ClockSkew) / Every) <= %d", ring.MaxPublished),
			Reason: fmt.Sprintf("it would publish %d keys at once, the imported one included", n)}
	}
	return nil
}

// adoptedUntil returns when the last token ends of the key that p adopts. It returns zero if that is
// not known, since the key has Hold.
func adoptedUntil(p *Proposal) time.Time {
	return ring.NewPlan([]*ring.Record{&p.Mint[0], &p.Mint[1]}, p.Stated()).Find(p.KID).DroppedAt
}
