package protocol

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/keyturn/keyturn/rotation/ring"
)

// checkedMerge is Merge, held to the rules of every merge: it changes nothing that it is given, the
// store accepts its proposal, and to merge again changes nothing.
func checkedMerge(in MergeInput) (MergeResult, error) {
	in.Held, in.Stored = spread(in.Held), spread(in.Stored)
	held, stored := whole(in.Held), whole(in.Stored)
	result := Merge(in)
	err := errors.Join(unchanged("Merge", held, in.Held), unchanged("Merge", stored, in.Stored))
	if err == nil {
		err = idempotent(in, result)
	}
	return result, err
}

// idempotent reports an error if merging again proposes something, once the first proposal is made.
func idempotent(in MergeInput, first MergeResult) error {
	again := in
	again.Held = first.Healed
	if first.Change != nil {
		raw, err := apply(*in.Stored, first.Change, in.Held, in.Now)
		if err != nil {
			return err
		}
		again.Stored, again.Unreadable = NewCopy(raw), afterChange(in.Unreadable, first.Change)
		if again.Held.Count > 0 && !first.Change.LeaveHead && again.Stored.Count != again.Held.Count {
			return fmt.Errorf("the healed copy counts %d changes, and the store %d", again.Held.Count, again.Stored.Count)
		}
		if err := same(again.Held, again.Stored); err != nil {
			return fmt.Errorf("the healed copy and the store differ: %w", err)
		}
	}
	second := Merge(again)
	if second.Change != nil {
		return fmt.Errorf("merging again proposes %+v", second.Change)
	}
	return same(again.Held, second.Union)
}

// afterChange returns the parts that cannot be opened once p is made.
func afterChange(parts Unreadable, p *Proposal) Unreadable {
	left := maps.Clone(parts)
	if !p.LeaveHead {
		delete(left, HeadRef)
	}
	for _, kid := range p.Restore {
		delete(left, RecordRef(kid))
	}
	for _, kid := range p.RestoreAccepts {
		delete(left, AcceptRef(kid))
	}
	for _, id := range p.TenantKeys {
		delete(left, TenantKeyRef(id))
	}
	for _, f := range p.Facts {
		delete(left, FactRef(f.FactID))
	}
	return left
}

// same reports how the records or facts of two copies differ.
func same(a, b *Copy) error {
	one, other := contents(a), contents(b)
	if one != other {
		return fmt.Errorf("%s and %s", one, other)
	}
	return nil
}

// contents writes the kids and facts of c. The store may also have facts about a collected record
// that is there again. They say nothing, and a merge leaves them to the next collection.
func contents(c *Copy) string {
	s := "["
	if c.Facts.Dead > 0 {
		s += fmt.Sprintf("%d lives ended, at %v; ", c.Facts.Dead, c.Facts.DeadAt)
	}
	for _, r := range c.Records {
		s += r.KID + bytesOf(r.Sum) + " "
	}
	for _, a := range c.Accepts {
		s += "v:" + a.KID + bytesOf(a.Sum) + " "
	}
	for id, at := range c.Facts.Prune(c.keepsFact).All {
		s += fmt.Sprintf("%c:%s=%v ", id.Kind, id.KID, at.Sub(sec(0)))
	}
	return s + fmt.Sprintf("collected until %v]", c.Facts.CollectedUntil)
}

// bytesOf writes the digest of a record, if a test gave it one.
func bytesOf(sum [32]byte) string {
	if sum == [32]byte{} {
		return ""
	}
	return fmt.Sprintf("/%x", sum[:2])
}

// spread returns a deep copy of c. Its slices have room for more, so appending to one in place
// shows.
func spread(c *Copy) *Copy {
	if c == nil {
		return nil
	}
	d := *c
	d.Records, d.Accepts, d.TenantKeys = roomy(c.Records), roomy(c.Accepts), roomy(c.TenantKeys)
	d.Published, d.Revived = roomy(c.Published), roomy(c.Revived)
	records := make([]*ring.Record, len(c.Records))
	for i, r := range c.Records {
		record := *r.Record
		d.Records[i].Record, records[i] = &record, &record
	}
	for i, a := range c.Accepts {
		record := *a.AcceptRecord
		d.Accepts[i].AcceptRecord = &record
	}
	d.Facts = c.Facts.Clone()
	d.Plan = ring.NewPlan(records, d.Facts)
	return &d
}

func roomy[E any](s []E) []E { return append(make([]E, 0, len(s)+2), s...) }

// whole returns all of c by value, with the room of its slices.
func whole(c *Copy) []any {
	if c == nil {
		return nil
	}
	var records []ring.Record
	for _, r := range c.Records {
		records = append(records, *r.Record)
	}
	var accepts []ring.AcceptRecord
	for _, a := range c.Accepts {
		accepts = append(accepts, *a.AcceptRecord)
	}
	return []any{
		records, accepts, room(c.Accepts), c.Head, c.Count, c.Facts.Clone(),
		room(c.Records), room(c.TenantKeys), room(c.Published), room(c.Revived),
		c.Plan.Dead, c.Plan.Past, room(c.Plan.InOrder), room(c.Plan.NeverActive),
	}
}

func room[E any](s []E) []E { return slices.Clone(s[:cap(s)]) }

// unchanged reports an error if c is no longer as it was before.
func unchanged(by string, before []any, c *Copy) error {
	if after := whole(c); !reflect.DeepEqual(before, after) {
		return fmt.Errorf("%s has changed what it was given, from %+v to %+v", by, before, after)
	}
	return nil
}
