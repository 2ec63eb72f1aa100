package protocol

import (
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// A Base is a ring as the store had it at one moment: the base of a change. Its methods decide
// about changes, and each calls nothing but MakeKey.
//
// Times come from Now, which is the store's clock, so that rotators with different clocks decide
// the same.
type Base struct {
	Tenant   string
	Now      time.Time     // by the store's clock, in whole milliseconds
	Deadline time.Duration // of one call of the store
	Copy     *Copy         // complete, and authentic

	// Primary names the KEK that this process seals under, in its realm, and Agreed says that it is
	// the primary of every live instance: see [AgreeOn]. Origin names the same KEK in any realm.
	Primary, Origin string
	Agreed          bool

	// SealedUnder names the KEKs that the fields of the ring are sealed under, for [Base.Rekey].
	SealedUnder []string

	// MakeKey makes the material of a new key for a policy, and returns its kid. It is called once
	// for each record that is to be minted, and only if the change is not refused.
	MakeKey func(ring.Policy) (kid string, err error)
}

// Ring reports an error if there is no ring to change.
func (b *Base) Ring() error {
	switch {
	case b.Copy.Plan.Dead:
		return b.refuse("", wasDestroyed, time.Time{})
	case b.Copy.Newest() == nil:
		return &ring.MissingError{Tenant: b.Tenant}
	}
	return nil
}

// wasDestroyed is why a ring takes no change.
const wasDestroyed = "its ring was destroyed"

// refuse returns the error of a change that may not be made, or not before from.
func (b *Base) refuse(kid, reason string, from time.Time) error {
	return &ring.RefusedError{Tenant: b.Tenant, KID: kid, Reason: reason, From: from}
}

// policy returns the timing of the newest record.
func (b *Base) policy() *ring.Policy { return &b.Copy.Newest().Timing }

// current returns the last key that has taken effect, or nil.
func (b *Base) current() *ring.PlannedKey {
	if i := b.Copy.Plan.Current(b.Now); i >= 0 {
		return &b.Copy.Plan.InOrder[i]
	}
	return nil
}

// eventTime is the time of a fact that has just happened. Time never counts as earlier than a fact
// that is known. A fact before it would come in the wrong order, where the store's clock was set
// back at a failover.
func (b *Base) eventTime() time.Time { return later(b.Now, b.Copy.Plan.Past) }

// announceTime is the time of a fact that other instances have to hear of. They count from it how
// long a cut-off instance may miss it, so it must not be before the time at which the store has it.
// Half of the window ahead of Now, it is within the bounds for as long as the call may take.
func (b *Base) announceTime(p *ring.Policy) time.Time { return b.Now.Add(p.Window(b.Deadline) / 2) }

// addEvent adds to p that something happens to kid now. The store refuses it if it comes too late:
// an instance that hears of it counts from its time.
func (b *Base) addEvent(p *Proposal, kind ring.FactKind, kid string, timing *ring.Policy) {
	id := ring.FactID{Kind: kind, KID: kid}
	p.Facts = append(p.Facts, ProposedFact{FactID: id, At: b.eventTime(), From: -timing.Window(b.Deadline)})
}

// addAnnouncement adds to p that kid, or its promotion, becomes known. The predecessor verifies for
// SignFor longer from then on (timelines B and C).
func (b *Base) addAnnouncement(p *Proposal, kid string, timing *ring.Policy) {
	id := ring.FactID{Kind: ring.FactAnnounced, KID: kid}
	p.Facts = append(p.Facts, ProposedFact{FactID: id, At: b.announceTime(timing), To: timing.Window(b.Deadline)})
}

// usableFrom returns when every instance in sync knows k, and every reader of the JWK Set. From
// then on it may sign. Before that, tokens of k would be rejected as those of an unknown key (I2).
func (b *Base) usableFrom(k *ring.PlannedKey) time.Time {
	return b.publishedAt(k).Add(b.visibleAfter(&k.Timing))
}

// visibleAfter returns how long after it was published a key of that policy is known everywhere,
// and no failover can lose it. No instance signs with it before.
//
// The longest of all records counts. An instance that has not heard of a new policy calls itself in
// sync by an older one, and so does a reader of the JWK Set.
func (b *Base) visibleAfter(p *ring.Policy) time.Duration {
	t := p.HeardWithin() + p.ReaderStaleness
	for _, r := range b.Copy.Records {
		t = max(t, r.Timing.HeardWithin()+r.Timing.ReaderStaleness)
	}
	return t
}

// publishedAt returns when k was published, or published again if it was restored. Only the store
// knows that exactly, and anyone who can write the store can write that time. So it counts only
// between two times that are authentic. The earlier one was proposed just before the publication.
// The later one is just after it, and counts if the store's time does not. Otherwise a person
// without the KEK could have a key sign before others know it.
func (b *Base) publishedAt(k *ring.PlannedKey) time.Time {
	earliest, latest := k.Created.Add(-time.Millisecond), k.Created // created may add that to Now
	if announced, ok := b.Copy.Facts.At(ring.FactAnnounced, k.KID); ok {
		latest = later(latest, announced)
	}
	if again, ok := b.Copy.Facts.At(ring.FactRepublished, k.KID); ok {
		earliest = later(earliest, again.Add(-k.Timing.Window(b.Deadline)))
		latest = later(latest, again)
	}
	if said := b.Copy.publishedAt(k.KID); !said.Before(earliest) && !said.After(latest) {
		return said
	}
	return latest
}
