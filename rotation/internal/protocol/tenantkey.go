package protocol

import (
	"slices"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// needsTenantKey reports whether a key that is minted now gets a tenant key of its own: there is
// none yet, or that of the newest record was made under another KEK than today's primary. In the
// latter case the old KEK and an old dump open the tenant key, even after it was wrapped again, and
// would open every key that is sealed under it.
//
// While a new KEK is rolled out, instances have different primaries. Each would take the other's
// tenant key for an old one, so each mint would make another. So that waits until all live
// instances agree. They did if the tenant key is wrapped under the primary by now: only [Base.Rekey]
// does that. Then no acknowledgement delays it any longer, since anyone who can write the store can
// make one up that cannot be opened.
func (b *Base) needsTenantKey() bool {
	tk := b.Copy.newestKey()
	return tk == nil || tk.Born != b.Origin && (b.Agreed || tk.KEK == b.Primary)
}

// unusedTenantKeys returns the ids of the tenant keys that nothing is sealed under, once what p removes
// is gone. A holder of a record that the store lacks restores the tenant key with it.
func (b *Base) unusedTenantKeys(p *Proposal) (ids []string) {
	for _, tk := range b.Copy.TenantKeys {
		if !b.Copy.uses(tk.ID, p.Remove, p.RemoveAccepts) {
			ids = append(ids, tk.ID)
		}
	}
	return ids
}

// uses reports whether a record or an accepted key is sealed under the tenant key of that id, apart
// from those that are removed.
func (c *Copy) uses(id string, records, accepts []string) bool {
	return slices.ContainsFunc(c.Records, func(r Record) bool { return r.TenantKey == id && !slices.Contains(records, r.KID) }) ||
		slices.ContainsFunc(c.Accepts, func(a Accept) bool { return a.TenantKey == id && !slices.Contains(accepts, a.KID) })
}

// Rekey decides about sealing the whole ring under this process's primary, so that another KEK is
// no longer needed to read it. It returns nil if nothing of the ring is under another one.
//
// It is refused while a live instance has another primary. That instance may lack this one, and
// could not open the ring any more. Or it would seal its next change under its own.
func (b *Base) Rekey() (*Proposal, error) {
	if b.Copy.noData() {
		return nil, &ring.MissingError{Tenant: b.Tenant}
	}
	p := &Proposal{Op: ring.OpRekey, Reseal: true}
	other := func(kek string) bool { return kek != b.Primary && kek != "" } // "" is that of a life that has ended
	for _, tk := range b.Copy.TenantKeys {
		if other(tk.KEK) {
			p.Rewrap = append(p.Rewrap, tk.ID)
		}
	}
	if len(p.Rewrap) == 0 && !slices.ContainsFunc(b.SealedUnder, other) {
		return nil, nil
	}
	if !b.Agreed {
		return nil, b.refuse("", "an instance that was live a moment ago has another primary KEK: roll the KEK out to all first", time.Time{})
	}
	return p, nil
}
