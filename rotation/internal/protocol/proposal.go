package protocol

import (
	"slices"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// A Proposal is a change of a ring before it is sealed. It is valid for the copy that it was
// decided on, and for no other: the store compares the digest of the ring before it makes the
// change.
type Proposal struct {
	Op  ring.Op
	KID string // that the change is about, for the log
	Seq int    // of KID

	Head       int           // the new newest seq; 0 leaves it as it is
	Mint       []ring.Record // to be sealed with the material that Base.MakeKey made
	Restore    []string      // kids of records to write back as they were sealed
	TenantKeys []string      // ids of tenant keys to write back

	Accept         []ring.AcceptRecord // keys to accept, to be sealed with the material of the request
	RestoreAccepts []string            // kids of accepted keys to write back as they were sealed
	RemoveAccepts  []string            // kids of accepted keys to remove, with all their FactAccepted
	Facts          []ProposedFact
	Bounds         []ring.Bound // besides those of the facts
	Remove         []string     // kids to remove, with all their facts but a revocation
	RemoveKeys     []string     // ids of tenant keys to remove

	// NewTenantKey says that Mint is to be sealed under a tenant key that is made for it, under the
	// primary. Then facts and head of this change are sealed under the primary too.
	NewTenantKey bool

	// Sweep says that all fields of the ring are removed but its head, its revocations and the facts
	// about the whole ring.
	Sweep bool

	Rewrap []string // ids of tenant keys to wrap again, under the primary
	Reseal bool     // all facts and the head are to be sealed again, under the primary

	// LeaveHead says that the head stays as it is. Every other change writes it, with the Count that
	// [NextCount] returns.
	LeaveHead bool

	// VisibleAfter is how long after it was published a minted key may sign, at the earliest.
	VisibleAfter time.Duration

	// NoSignerUntil is until when there is a time in which no instance signs, or zero.
	NoSignerUntil time.Time

	// ConfirmedAt is when the promoted key may sign, if a failover may still lose it, or zero.
	ConfirmedAt time.Time
}

// A ProposedFact is a fact with its bounds: At has to be between From and To after the store's time
// when the proposal gets there. A proposal that was held up on its way would state a fact with a
// time that is long past, and other instances would count from that time. The store refuses it.
type ProposedFact struct {
	ring.FactID
	At       time.Time
	From, To time.Duration
	Life     int // of a fact about the whole ring: see [ring.Facts]
}

// unbounded is longer than any two dates are apart. It is the bound of a fact that may have
// happened at any time, and is only restored.
const unbounded = 250 * 365 * 24 * time.Hour

// PutsBack reports whether a merge restores something. One that only says that a key has become known
// does not: such a merge follows every forced change. p may be nil.
func (p *Proposal) PutsBack() bool {
	return p != nil && (len(p.Restore)+len(p.RestoreAccepts)+len(p.TenantKeys) > 0 || slices.ContainsFunc(p.Facts, func(f ProposedFact) bool {
		return f.Kind != ring.FactAnnounced && f.Kind != ring.FactRepublished
	}))
}

// Stated returns the facts that p states.
func (p *Proposal) Stated() (facts ring.Facts) {
	for _, f := range p.Facts {
		switch f.Kind {
		case ring.FactDestroyed:
			facts.Kill(f.Life, f.At)
		case ring.FactCollected:
			facts.Collect(f.Life, f.At)
		default:
			facts.Add(f.Kind, f.KID, f.At)
		}
	}
	return facts
}
