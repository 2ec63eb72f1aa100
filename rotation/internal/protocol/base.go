package protocol

import (
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// A Base is a ring as the store had it at one moment: what a change is based on. Its methods decide
// about changes, each without calling anything but Mint.
type Base struct {
	Tenant   string
	Now      time.Time     // by the store's clock, in whole milliseconds
	Deadline time.Duration // how long a call of the store may take
	Copy     *Copy         // complete, and authentic

	// Mint makes the material of a new key for a policy, and returns its kid. It is called once for
	// each record that is to be minted, and only if the change is not refused.
	MakeKey func(ring.Policy) (kid string, err error)
}

// A Proposal is a change of a ring before it is sealed.
type Proposal struct {
	Op  ring.Op
	KID string // that the change is about, for the log
	Seq int    // of KID

	Head       int           // the new newest seq; 0 leaves it as it is
	Mint       []ring.Record // to be sealed with the material that Base.Mint made
	Restore    []string      // kids of records to write back as they were sealed
	TenantKeys []string      // ids of tenant keys to write back
	Facts      []ProposedFact
	Bounds     []ring.Bound // besides those of the facts
	Remove     []string     // kids to remove, with all their facts but a revocation

	// VisibleAfter is how long after it was published a minted key may sign, at the earliest.
	VisibleAfter time.Duration

	// NoSignerUntil is until when no instance signs with the promoted key, or zero.
	NoSignerUntil time.Time
}

// A ProposedFact is a fact whose time has to be between From and To after the store's when it gets
// there.
type ProposedFact struct {
	ring.FactID
	At       time.Time
	From, To time.Duration
}

func (b *Base) refuse(kid, reason string, from time.Time) error {
	return &ring.RefusedError{Tenant: b.Tenant, KID: kid, Reason: reason, From: from}
}

// policy returns the timing of the newest record.
func (b *Base) policy() *ring.Policy { return &b.Copy.Newest().Timing }

// Ring reports an error if there is no ring to change.
func (b *Base) Ring() error {
	switch {
	case b.Copy.Plan.Dead:
		return b.refuse("", "its ring was destroyed", time.Time{})
	case b.Copy.Newest() == nil:
		return &ring.MissingError{Tenant: b.Tenant}
	}
	return nil
}

// eventTime is the time of a fact that has just happened. It is within the bounds of the store until
// it gets there, and not before any fact that is known.
func (b *Base) eventTime() time.Time { return later(b.Now, b.Copy.Plan.Past) }

// announceTime is the time of a fact that other instances have to hear of: not before the store has
// it.
func (b *Base) announceTime(p *ring.Policy) time.Time { return b.Now.Add(p.Window(b.Deadline) / 2) }

func (b *Base) addEvent(p *Proposal, kind ring.FactKind, kid string, timing *ring.Policy) {
	id := ring.FactID{Kind: kind, KID: kid}
	p.Facts = append(p.Facts, ProposedFact{id, b.eventTime(), -timing.Window(b.Deadline), 0})
}

func (b *Base) addAnnouncement(p *Proposal, kid string, timing *ring.Policy) {
	id := ring.FactID{Kind: ring.FactAnnounced, KID: kid}
	p.Facts = append(p.Facts, ProposedFact{id, b.announceTime(timing), 0, timing.Window(b.Deadline)})
}

// usableFrom returns when every instance in sync knows k, and every reader of the JWK Set: from then
// on it may sign.
func (b *Base) usableFrom(k *ring.PlannedKey) time.Time {
	return b.publishedAt(k).Add(b.visibleAfter(&k.Timing))
}

// visibleAfter returns how long after it was published a key of that policy is known everywhere, and
// no failover can lose it. No instance signs with it before. An instance that has not heard of the
// policy calls itself in sync, and reads the JWK Set, by another policy of the ring.
func (b *Base) visibleAfter(p *ring.Policy) time.Duration {
	t := max(p.Dwell, p.Freshness+p.ClockSkew+p.ReaderStaleness)
	for _, r := range b.Copy.Records {
		t = max(t, r.Timing.Freshness+r.Timing.ClockSkew+r.Timing.ReaderStaleness)
	}
	return t
}

// publishedAt returns when k was published, or published again if it was restored. Only the store
// knows that exactly, and anyone can write what the store says. So the store's word counts only
// between two times that are authentic: one was proposed just before the publication, and the other
// holds for some time just after.
func (b *Base) publishedAt(k *ring.PlannedKey) time.Time {
	earliest, latest := k.Created.Add(-time.Millisecond), k.Created // see created
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
