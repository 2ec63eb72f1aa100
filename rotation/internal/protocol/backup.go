package protocol

import (
	"slices"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// Away is the age from which on a copy of a ring counts for nothing but the facts that end trust, unless
// an operator says otherwise. The store may have been emptied since, and its tenant destroyed: then
// nothing in it says so, and an old copy would bring the tenant back.
const Away = 30 * 24 * time.Hour

// awayAfter returns Away for c. Until SignFor and the life of a token are over, a copy may have keys
// whose tokens are alive.
func (c *Copy) awayAfter() time.Duration {
	after := Away
	for _, r := range c.Records {
		after = max(after, r.Timing.SignFor+r.TokenTTL())
	}
	return after
}

// A RestoreInput is a ring of a backup, and the ring of the store that it is merged into. Of the
// MergeInput, Held is the copy of the backup; Good and Learned do not count.
type RestoreInput struct {
	MergeInput

	Taken time.Time // when the store had Held, by the store's clock
	Older bool      // also take keys of a copy that is older than [Away]
}

// A RestoreResult is the result of [Restore].
type RestoreResult struct {
	MergeResult

	Better []ring.FactID // facts that end trust in what the backup has, and that only the store knows
	Left   []string      // kids of the backup whose records the store lacks, and that stay away

	// EndsOnly says that the backup is older than Away, and Older was not given: only the facts that end
	// trust were taken.
	EndsOnly bool
}

// Restore decides about merging a backup into the store. It is a [Merge] by a holder that was away: its
// records are announced and published again as those of any holder, and a promotion that the store does
// not know is forgotten where the store has a signer.
//
// An instance that holds a ring has heard of it from a store that others used too. A backup may be of a
// lineage that was abandoned since, such as that of the losing side of a split. So of a record that the
// store has, nothing is taken that gives it its place in the order: a promotion from a lost lineage would
// have a pending key sign now. What ends trust is always taken.
func Restore(in RestoreInput) RestoreResult {
	in.Good, in.Learned = time.Time{}, ring.Facts{}
	saved := in.Held
	superseded := (&merge{MergeInput: in.MergeInput}).superseded()
	taken := *saved
	taken.Facts = in.facts()
	endsOnly := !in.Older && Age(in.Now, in.Taken) > saved.awayAfter()
	if endsOnly {
		taken = Copy{Head: saved.Head, Count: saved.Count, Facts: endsOf(taken.Facts)}
		if superseded {
			// Without its records the merge could not tell that the store goes by an older ring, whose
			// keys sign.
			taken.Facts.CollectedUntil = time.Time{}
		}
	}
	in.Held = NewCopy(taken)
	result := RestoreResult{MergeResult: Merge(in.MergeInput), EndsOnly: endsOnly, Better: in.better(saved)}
	for _, r := range saved.Records {
		if in.Stored.Find(r.KID) == nil && result.Healed.Find(r.KID) == nil {
			result.Left = append(result.Left, r.KID)
		}
	}
	for _, a := range saved.Accepts {
		if in.Stored.FindAccept(a.KID) == nil && result.Healed.FindAccept(a.KID) == nil {
			result.Left = append(result.Left, a.KID)
		}
	}
	return result
}

// facts returns the facts of the backup, without those that give a record of the store its place in the
// order.
func (in *RestoreInput) facts() ring.Facts {
	facts := in.Held.Facts.Clone()
	for id := range in.Held.Facts.All {
		if placesInOrder(id.Kind) && in.Stored.Find(id.KID) != nil {
			facts.Forget(id.Kind, id.KID)
		}
	}
	return facts
}

// placesInOrder reports whether facts of that kind say when a key signs, or until when it verifies.
func placesInOrder(kind ring.FactKind) bool {
	switch kind {
	case ring.FactPromoted, ring.FactForced, ring.FactRepublished, ring.FactAnnounced:
		return true
	}
	return false
}

// endsOf returns the facts that end trust.
func endsOf(facts ring.Facts) ring.Facts {
	ends := facts.Clone()
	for id := range facts.All {
		if id.Kind != ring.FactRevoked {
			ends.Forget(id.Kind, id.KID)
		}
	}
	return ends
}

// better returns the facts of [RestoreResult].Better.
func (in *RestoreInput) better(saved *Copy) (better []ring.FactID) {
	stored := in.Stored.Facts
	add := func(kid string) {
		_, revoked := stored.At(ring.FactRevoked, kid)
		if _, knew := saved.Facts.At(ring.FactRevoked, kid); revoked && !knew {
			better = append(better, ring.FactID{Kind: ring.FactRevoked, KID: kid})
		}
	}
	for _, r := range saved.Records {
		add(r.KID)
	}
	for _, a := range saved.Accepts {
		if saved.Find(a.KID) == nil {
			add(a.KID)
		}
	}
	if slices.ContainsFunc(saved.Records, func(r Record) bool { return stored.Collected(r.Record) }) {
		better = append(better, ring.FactID{Kind: ring.FactCollected})
	}
	if stored.Dead > saved.Facts.Dead {
		better = append(better, ring.FactID{Kind: ring.FactDestroyed})
	}
	return better
}
