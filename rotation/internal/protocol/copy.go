package protocol

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// A Copy is a ring as one party knows it: the store, or an instance. It is immutable once [NewCopy]
// has returned it, so copies share records and slices. A nil Copy is that of a party that knows
// nothing.
type Copy struct {
	Head       int      // the newest seq that was given, of the store's authentic head; 0 without one
	Count      uint64   // of the changes of the ring, of the same head; 0 if it is not known
	Records    []Record // by kid
	Accepts    []Accept // by kid
	Facts      ring.Facts
	TenantKeys []TenantKey   // by id
	Published  []Publication // by kid
	Revived    []string      // kids of records that were collected, or of a life that has ended, and are in the store
	// RevivedAccepts are the kids of accepted keys of a life that has ended, and that are in the store.
	RevivedAccepts []string

	Plan *ring.Plan // of Records and Facts
}

// A Record is a record with the id of the tenant key that it is sealed under.
type Record struct {
	*ring.Record
	TenantKey string
	Sum       [32]byte // the digest of its sealed bytes, by which two records of one kid are told apart
	Cost      int      // of a check with its key
}

// A TenantKey is a tenant key of a ring, under which records are sealed. KEK and Born are opaque
// names of KEKs, which this package only compares: KEK with [Base].Primary, and Born with
// [Base].Origin.
type TenantKey struct {
	ID   string
	KEK  string // that it is wrapped under
	Born string // that was the primary where the tenant key was made; a rewrap keeps it
}

// A Publication is when a kid was published, as the store has it: not authenticated.
type Publication struct {
	KID string
	At  time.Time
}

// NewCopy returns c with its plan, and without the records that no longer count. It keeps what c
// refers to, and changes none of it.
func NewCopy(c Copy) *Copy {
	c.Records, c.Accepts = slices.Clone(c.Records), slices.Clone(c.Accepts)
	return c.replan()
}

// replan makes the plan of c, drops the records that were collected or whose life has ended, and returns
// c. It owns c.Records and c.Accepts, and no other slice of c. All records that stay are of one life: a record is
// proof that the lives before its own have ended.
//
// A collected record may be in the store again, by an old dump or by a person who can write the
// store. It is no part of the ring, since the facts that gave it its place in the order were
// removed with it. Without its promotion it would take effect later than the key that signs, and
// sign in place of that key (timeline Gone).
func (c *Copy) replan() *Copy {
	for _, r := range c.Records {
		c.Facts.Kill(r.Life, time.Time{})
	}
	for _, a := range c.Accepts {
		c.Facts.Kill(a.Life, time.Time{})
	}
	c.Records = slices.DeleteFunc(c.Records, func(r Record) bool {
		ignored := c.Facts.Ignored(r.Record)
		if ignored {
			c.Revived = append(slices.Clip(c.Revived), r.KID)
		}
		return ignored
	})
	slices.SortFunc(c.Records, func(a, b Record) int { return strings.Compare(a.KID, b.KID) })
	c.Accepts = slices.DeleteFunc(c.Accepts, func(a Accept) bool {
		ended := a.Life < c.Facts.Dead
		if ended {
			c.RevivedAccepts = append(slices.Clip(c.RevivedAccepts), a.KID)
		}
		return ended
	})
	slices.SortFunc(c.Accepts, func(a, b Accept) int { return strings.Compare(a.KID, b.KID) })
	records := make([]*ring.Record, len(c.Records))
	for i, r := range c.Records {
		records[i] = r.Record
	}
	c.Plan = ring.NewPlan(records, c.Facts)
	return c
}

// Learn returns a copy that also holds facts, of which only those count that are about its records.
// An instance learns the facts that it has written itself in this way, before it reads the ring
// again.
func (c *Copy) Learn(facts ring.Facts) *Copy {
	learned := *c
	learned.Facts = c.Facts.Join(facts).Prune(c.keepsFact)
	return NewCopy(learned)
}

// vacant reports whether a ring may be created: the tenant has no data, or no key was ever minted, or
// all its records were collected. Accepted keys alone are no ring.
//
// A ring that merely lost its records is not vacant. Its tenant keys or facts prove that it
// existed, and an instance may still hold the records. Two rings of one tenant would reject each
// other's tokens (timeline K).
func (c *Copy) vacant() bool {
	return !c.Plan.Dead && len(c.Records) == 0 && (c.noData() || c.unborn() || !c.Facts.CollectedUntil.IsZero())
}

// noData reports whether the tenant has no data, except perhaps records of which nothing else is
// left.
func (c *Copy) noData() bool {
	return c.Count == 0 && len(c.TenantKeys)+len(c.Accepts) == 0 && c.Facts.Equal(ring.Facts{})
}

// Find returns the record of that kid, or nil. c may be nil.
func (c *Copy) Find(kid string) *ring.Record {
	if c == nil {
		return nil
	}
	for _, r := range c.Records { // a few
		if r.KID == kid {
			return r.Record
		}
	}
	return nil
}

// Newest returns the newest record, whose timing is the policy of the ring, or nil if there is
// none. c may be nil.
//
// Two sides of a split may each mint the same seq. The later creation then decides, and the kid
// after it, so that all instances come to the same policy.
func (c *Copy) Newest() *ring.Record {
	if c == nil || len(c.Records) == 0 {
		return nil
	}
	return c.newest().Record
}

// newest is Newest with the id of its tenant key. There is at least one record.
func (c *Copy) newest() Record {
	return slices.MaxFunc(c.Records, func(a, b Record) int {
		return cmp.Or(cmp.Compare(a.Seq, b.Seq), a.Created.Compare(b.Created), cmp.Compare(a.KID, b.KID))
	})
}

// newestKey returns the tenant key of the newest record, or nil if it is missing. Without a record it
// is that of the newest accepted key. c may be nil.
func (c *Copy) newestKey() *TenantKey { return c.tenantKey(c.NewestKeyID()) }

// NewestKeyID returns the id of that tenant key, or "". The tenant key itself may be lost. c may be
// nil.
func (c *Copy) NewestKeyID() string {
	switch {
	case c.Newest() != nil:
		return c.newest().TenantKey
	case c != nil && len(c.Accepts) > 0:
		return slices.MaxFunc(c.Accepts, func(a, b Accept) int { return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.KID, b.KID)) }).TenantKey
	}
	return ""
}

// SealingKEK returns the name of the KEK that facts, head and log entries of the ring are sealed
// under: the one that wraps the tenant key of the newest record, or, if there is no record, of the
// newest accepted key. It is "" if there is no such
// tenant key; then the primary of the writer takes its place. c may be nil.
//
// All writers go by the ring and not by their own primary. While a new KEK is rolled out, half of
// the fleet has the old one first and the other half the new one. An instance that lacks the KEK of
// the ring must write nothing: the instances that have dropped its primary could not open that.
func (c *Copy) SealingKEK() string {
	if tk := c.newestKey(); tk != nil {
		return tk.KEK
	}
	return ""
}

// NextCount returns the Count of a ring after the next change: greater than that of the store, and
// than what this instance has seen of it. Each copy may be nil.
func NextCount(stored, held *Copy) uint64 { return max(stored.count(), held.count()) + 1 }

// count is Count, of a copy that may be nil.
func (c *Copy) count() uint64 {
	if c == nil {
		return 0
	}
	return c.Count
}

// AnySkew is the ClockSkew where no policy sets one. It is greater than any ClockSkew, so the
// minimum of the two is the one that a policy sets.
const AnySkew time.Duration = math.MaxInt64

// ClockSkew returns the ClockSkew of the ring's policy, or AnySkew if there is no record. c may be
// nil.
func (c *Copy) ClockSkew() time.Duration {
	if n := c.Newest(); n != nil {
		return n.Timing.ClockSkew
	}
	return AnySkew
}

// MaxSeq returns the highest seq that is known to have been given. The next record takes the one
// after it, so no seq is minted twice in one life of the store (I6).
func (c *Copy) MaxSeq() int {
	most := c.Head
	for _, r := range c.Records {
		most = max(most, r.Seq)
	}
	return most
}

// PlanOf returns r with its place in the plan. If the ring was destroyed, or r was collected, r is
// not in the plan, and the result has no times.
func (c *Copy) PlanOf(r *ring.Record) *ring.PlannedKey {
	if k := c.Plan.Find(r.KID); k != nil {
		return k
	}
	return &ring.PlannedKey{Record: r}
}

// publishedAt returns when the store says that kid was published, or zero.
func (c *Copy) publishedAt(kid string) time.Time {
	for _, p := range c.Published {
		if p.KID == kid {
			return p.At
		}
	}
	return time.Time{}
}

// tenantKey returns the tenant key of that id, or nil. c may be nil.
func (c *Copy) tenantKey(id string) *TenantKey {
	if c == nil {
		return nil
	}
	for i := range c.TenantKeys { // one or two
		if c.TenantKeys[i].ID == id {
			return &c.TenantKeys[i]
		}
	}
	return nil
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
