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
// has returned it. A nil Copy is that of a party that knows nothing.
type Copy struct {
	Head       int      // the newest seq, as the store has it: not authenticated; 0 if there is none
	Records    []Record // by kid
	Facts      ring.Facts
	TenantKeys []string      // their ids
	Published  []Publication // by kid
	Revived    []string      // kids that were collected, and are in the store again

	Plan *ring.Plan // of Records and Facts
}

// A Record is a record with the id of the tenant key that it is sealed under.
type Record struct {
	*ring.Record
	TenantKey string
}

// A Publication is when a kid was published, as the store has it: not authenticated.
type Publication struct {
	KID string
	At  time.Time
}

// NewCopy returns c with its plan, and without the records that were collected. It keeps what c
// refers to.
func NewCopy(c Copy) *Copy {
	c.Records = slices.Clone(c.Records)
	return c.replan()
}

// replan makes the plan of c, drops the records that were collected, and returns c.
func (c *Copy) replan() *Copy {
	c.Records = slices.DeleteFunc(c.Records, func(r Record) bool {
		collected := c.Facts.Collected(r.Record)
		if collected {
			c.Revived = append(slices.Clip(c.Revived), r.KID)
		}
		return collected
	})
	slices.SortFunc(c.Records, func(a, b Record) int { return strings.Compare(a.KID, b.KID) })
	records := make([]*ring.Record, len(c.Records))
	for i, r := range c.Records {
		records[i] = r.Record
	}
	c.Plan = ring.NewPlan(records, c.Facts)
	return c
}

// Learn returns a copy that also holds facts, of which only those count that are about its records.
func (c *Copy) Learn(facts ring.Facts) *Copy {
	learned := *c
	learned.Facts = c.Facts.Join(facts).Prune(func(kid string) bool { return c.Find(kid) != nil })
	return NewCopy(learned)
}

// vacant reports whether a ring may be created: the tenant has no data, or all its records were
// collected. A ring that merely lost its records is not vacant.
func (c *Copy) vacant() bool {
	noData := len(c.TenantKeys) == 0 && c.Facts.Equal(ring.Facts{})
	return !c.Plan.Dead && len(c.Records) == 0 && (noData || !c.Facts.CollectedUntil.IsZero())
}

// Find returns the record of that kid, or nil.
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

// Newest returns the newest record, whose timing is the policy of the ring, or nil if there is none.
func (c *Copy) Newest() *ring.Record {
	if c == nil || len(c.Records) == 0 {
		return nil
	}
	return slices.MaxFunc(c.Records, func(a, b Record) int {
		return cmp.Or(cmp.Compare(a.Seq, b.Seq), a.Created.Compare(b.Created), cmp.Compare(a.KID, b.KID))
	}).Record
}

// AnySkew is the ClockSkew where no policy sets one.
const AnySkew time.Duration = math.MaxInt64

// ClockSkew returns the ClockSkew of the ring's policy, or AnySkew if there is no record.
func (c *Copy) ClockSkew() time.Duration {
	if n := c.Newest(); n != nil {
		return n.Timing.ClockSkew
	}
	return AnySkew
}

// MaxSeq returns the highest seq that is known to have been given.
func (c *Copy) MaxSeq() int {
	most := 0
	for _, r := range c.Records {
		most = max(most, r.Seq)
	}
	if c.Head > most && c.Head < most+maxHeadAhead {
		most = c.Head
	}
	return most
}

// maxHeadAhead is how far Head, which anyone can write, may be ahead of the records that are left. A
// greater one is ignored, since it would only use up the numbers.
const maxHeadAhead = 1 << 16

// PlanOf returns r with its place in the plan, or with none if it is not in the plan: the ring was
// destroyed, or r was collected.
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

// hasTenantKey reports whether c has the tenant key of that id.
func (c *Copy) hasTenantKey(id string) bool { return slices.Contains(c.TenantKeys, id) }

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// forever is longer ago, and longer until, than any date can be.
const forever = 250 * 365 * 24 * time.Hour
