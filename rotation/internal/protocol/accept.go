package protocol

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// This file has what concerns accepted keys. They lie beside the order of the keys that sign: a record
// with a date of its own would be collected by [ring.Facts.CollectedUntil], and would keep others from
// being collected.

// An Accept is an accepted key with the id of the tenant key that it is sealed under.
type Accept struct {
	*ring.AcceptRecord
	TenantKey string
	Sum       [32]byte // see [Record]
	Cost      int      // of a check with its key
}

// FindAccept returns the accepted key of that kid, or nil. c may be nil.
func (c *Copy) FindAccept(kid string) *Accept {
	if c == nil {
		return nil
	}
	for i := range c.Accepts { // a few
		if c.Accepts[i].KID == kid {
			return &c.Accepts[i]
		}
	}
	return nil
}

// keepsFact reports whether c has the record or the accepted key that the fact is about.
func (c *Copy) keepsFact(id ring.FactID) bool {
	if id.Kind == ring.FactAccepted {
		kid, _, _ := id.AcceptedKey()
		return c.FindAccept(kid) != nil
	}
	return c.Find(id.KID) != nil
}

// hasRecord reports whether c has r itself, and not another record of its kid.
func (c *Copy) hasRecord(r Record) bool {
	return slices.ContainsFunc(c.Records, func(o Record) bool { return o.KID == r.KID && o.Sum == r.Sum })
}

// unborn reports whether no key was ever minted, as the authentic head says: the tenant has accepted
// keys, or had some, and no ring.
func (c *Copy) unborn() bool {
	return c.Count > 0 && c.Head == 0 && len(c.Records) == 0 && c.Facts.Dead == 0 && c.Facts.CollectedUntil.IsZero()
}

// HeadSeq returns the seq that the head gets with a change that mints nothing. It is 0 as long as no key
// was ever minted, and never again afterwards.
func (c *Copy) HeadSeq() int {
	if c.noData() || c.unborn() {
		return 0
	}
	return max(1, c.MaxSeq()) // the head was lost, or all records were
}

// timing returns the policy of the ring, or the default one if there is no record. c may be nil.
func (c *Copy) timing() *ring.Policy {
	if n := c.Newest(); n != nil {
		return &n.Timing
	}
	p := ring.Policy{}.WithDefaults()
	return &p
}

// AcceptEnd returns when an accepted key stops verifying on an instance whose last complete read was at
// complete: at its date, or when tokens have ended that live for at most a day.
//
// An instance that no longer reads the store may have missed its revocation. Its date may be a year
// ahead. So it ends as the keys of the ring do, see [Copy.KeyEnd], and then the instance cannot tell
// (I3). The tokens of others may live for longer than those of the ring, and are cut off by that too.
func (c *Copy) AcceptEnd(a *ring.AcceptRecord, complete time.Time) time.Time {
	end := complete.Add(acceptedFor(c.timing()))
	if until := c.Facts.Accepted(a).Until; until.Before(end) {
		return until
	}
	return end
}

// acceptedFor is how long an instance that is cut off goes on with an accepted key.
func acceptedFor(p *ring.Policy) time.Duration {
	return p.SignFor + p.Leeway + min(p.MaxTokenTTL, mostCutOff)
}

// WorstCaseOf returns the [WorstCase] of the key of the ring, or the accepted one, of that kid, or two
// zero times if the kid is unknown. An accepted key is in no JWK Set.
func (c *Copy) WorstCaseOf(kid string, now time.Time) (instances, readers time.Time) {
	if r := c.Find(kid); r != nil {
		instances, readers = WorstCase(r, now)
	}
	if c.FindAccept(kid) != nil {
		p := c.timing()
		instances = later(instances, now.Add(p.Dwell+acceptedFor(p)))
	}
	return instances, readers
}

// An AcceptRequest is a key that is to be accepted, as far as the decision depends on it.
type AcceptRequest struct {
	// AcceptRecord is what the key would be recorded as, without its dates. With NoKID the KID is that
	// of the key with the same material, or a random one.
	ring.AcceptRecord
	Cost int // of a check with it

	// Clash says that the ring has another key of that kid, or an accepted one.
	Clash bool
}

// Accept decides about accepting keys until a date, or until a later one. It returns nil if there is
// nothing to do. A ring need not exist.
func (b *Base) Accept(requests []AcceptRequest, until time.Time) (*Proposal, error) {
	switch most := b.Now.Add(ring.MaxAccept); {
	case b.Copy.Plan.Dead:
		return nil, b.refuse("", wasDestroyed, time.Time{})
	case !until.After(b.Now):
		return nil, b.refuse("", "the date until which the key is to be accepted is past", time.Time{})
	case until.After(most):
		return nil, b.refuse("", fmt.Sprintf("a key is accepted for at most 400 days: the date may be up to %s", moment(most)), time.Time{})
	}
	p := &Proposal{Op: ring.OpAccept}
	for i := range requests {
		if err := b.accept(p, &requests[i], until); err != nil {
			return nil, err
		}
	}
	if len(p.Facts) == 0 {
		return nil, nil
	}
	if len(p.Accept) > 0 {
		p.NewTenantKey = b.needsTenantKey()
		window := b.Copy.timing().Window(b.Deadline)
		p.Bounds = append(p.Bounds, ring.Bound{At: b.Now, From: -window, To: window})
	}
	p.KID, _, _ = p.Facts[0].AcceptedKey()
	return p, b.acceptRoom(p, requests)
}

// accept adds to p that a key is accepted until a date.
func (b *Base) accept(p *Proposal, r *AcceptRequest, until time.Time) error {
	created, weak, known := b.Now, r.Weak, b.Copy.FindAccept(r.KID)
	if known != nil {
		created, weak = known.Created, known.Weak
	}
	_, revoked := b.Copy.Facts.At(ring.FactRevoked, r.KID)
	switch weakEnd := created.Add(ring.MaxAcceptWeak); {
	case revoked:
		return b.refuse(r.KID, "it was revoked: a revoked key is never accepted again under that kid", time.Time{})
	case r.Clash, known != nil && known.NoKID != r.NoKID, p.dates(r.KID):
		return b.refuse(r.KID, "another key has that kid", time.Time{})
	case weak && until.After(weakEnd):
		return b.refuse(r.KID, fmt.Sprintf("a weak secret is accepted for at most 90 days: the date may be up to %s", moment(weakEnd)), time.Time{})
	case known == nil:
		a := r.AcceptRecord
		a.Tenant, a.Created, a.Until, a.Life = b.Tenant, b.Now, until, b.Copy.Facts.Dead
		p.Accept = append(p.Accept, a)
	default:
		switch before := b.Copy.Facts.Accepted(known.AcceptRecord).Until; {
		case until.Equal(before):
			return nil
		case until.Before(before):
			return b.refuse(r.KID, fmt.Sprintf("it is accepted until %s already, and a date is never made earlier: revoke it to end it now", moment(before)), time.Time{})
		}
	}
	// The date is a fact for a new key too. Two sides of a split may accept the same key until
	// different dates: then one of the records counts, and the later of the dates.
	most := ring.MaxAccept
	if weak {
		most = ring.MaxAcceptWeak
	}
	dated := ring.AcceptRecord{KID: r.KID, Created: created}
	p.Facts = append(p.Facts, ProposedFact{FactID: dated.DateFact(), At: until, To: most})
	return nil
}

// dates reports whether p gives an accepted key of that kid a date.
func (p *Proposal) dates(kid string) bool {
	return slices.ContainsFunc(p.Facts, func(f ProposedFact) bool {
		of, _, ok := f.AcceptedKey()
		return ok && of == kid
	})
}

// acceptRoom refuses the keys of p if there would be too many.
func (b *Base) acceptRoom(p *Proposal, requests []AcceptRequest) error {
	live := slices.DeleteFunc(slices.Clone(b.Copy.Accepts), func(a Accept) bool { return !b.Copy.Facts.Accepted(a.AcceptRecord).Verifies(b.Now) })
	for i := range p.Accept {
		at := slices.IndexFunc(requests, func(r AcceptRequest) bool { return r.KID == p.Accept[i].KID })
		live = append(live, Accept{AcceptRecord: &p.Accept[i], Cost: requests[at].Cost})
	}
	if len(p.Accept) > 0 && len(live) > ring.MaxAccepted {
		return b.refuse("", fmt.Sprintf("it would have %d accepted keys, and may have %d: revoke those that are not needed", len(live), ring.MaxAccepted), time.Time{})
	}
	for i := range p.Accept {
		a := &p.Accept[i]
		if keys, cost := b.withoutKID(live, a); a.NoKID && (keys > ring.MaxWithoutKID || cost > ring.MaxWithoutKIDCost) {
			return b.refuse("", fmt.Sprintf("%d keys may have signed a token without kid, which costs %d checks, and at most %d keys and %d checks are allowed: revoke one", keys, cost, ring.MaxWithoutKID, ring.MaxWithoutKIDCost), time.Time{})
		}
	}
	return nil
}

// withoutKID returns how many keys a token without kid is tried with, of the algorithm of like, and
// what that costs.
func (b *Base) withoutKID(live []Accept, like *ring.AcceptRecord) (keys, cost int) {
	for _, r := range b.Copy.Records {
		if planned := b.Copy.PlanOf(r.Record); r.NoKID && r.Algorithm.Same(like.Algorithm) && planned.RevokedAt.IsZero() && !planned.Dropped(b.Now) {
			keys, cost = keys+1, cost+max(1, r.Cost)
		}
	}
	for _, a := range live {
		if a.NoKID && a.Algorithm.Same(like.Algorithm) {
			keys, cost = keys+1, cost+max(1, a.Cost)
		}
	}
	return keys, cost
}

// revokeAccept decides about revoking an accepted key that no key of the ring shares its kid with. It
// returns nil if that was done already. No other key signs for it, so nothing speaks against it.
func (b *Base) revokeAccept(kid string) *Proposal {
	if _, revoked := b.Copy.Facts.At(ring.FactRevoked, kid); revoked {
		return nil
	}
	p := &Proposal{Op: ring.OpRevoke, KID: kid}
	b.addEvent(p, ring.FactRevoked, kid, b.Copy.timing())
	return p
}

// endedAccepts returns the kids of the accepted keys whose date is so long past that every instance in
// sync has ended them. Bytes that are put back later are in the past too, so nothing need remember them: the
// dates of another key that is accepted under the kid meanwhile are not theirs, see [ring.AcceptRecord.DateFact].
//
// A revoked key whose tokens have no kid stays. It is known again by its material alone, and must not be
// accepted a second time.
func (b *Base) endedAccepts() (kids []string) {
	p := b.Copy.timing()
	before := b.Now.Add(-p.Leeway - p.HeardWithin() - p.ClockSkew)
	kids = slices.Clone(bounded(b.Copy.RevivedAccepts))
	for _, a := range b.Copy.Accepts {
		if accepted := b.Copy.Facts.Accepted(a.AcceptRecord); accepted.Until.Before(before) && !(a.NoKID && !accepted.RevokedAt.IsZero()) {
			kids = append(kids, a.KID)
		}
	}
	for id, until := range b.Copy.Facts.All { // dates whose key a failover has lost
		if kid, _, ok := id.AcceptedKey(); ok && b.Copy.FindAccept(kid) == nil && until.Before(before) && !slices.Contains(kids, kid) {
			kids = append(kids, kid)
		}
	}
	return kids
}

// joinRecords returns the union of the records of both copies. facts are those of the union.
//
// Two records of one kid are possible where kids are not random: a key is imported on two sides of a
// split, or again into a store that was emptied. All instances must come to the same one, whichever
// they have heard of first: the one that was created earlier, and of two in the same millisecond the
// one with the smaller digest.
func (m *merge) joinRecords(facts ring.Facts) []Record {
	records := slices.Clone(m.Stored.Records)
	for _, r := range m.Held.Records {
		i := slices.IndexFunc(records, func(o Record) bool { return o.KID == r.KID })
		switch {
		case facts.Ignored(r.Record):
		case i < 0:
			records = append(records, r)
		case facts.Ignored(records[i].Record), precedes(r.Created, r.Sum, records[i].Created, records[i].Sum):
			records[i] = r
		}
	}
	return records
}

// precedes reports whether the first of two keys of one kid counts.
func precedes(created time.Time, sum [32]byte, thanCreated time.Time, thanSum [32]byte) bool {
	return cmp.Or(created.Compare(thanCreated), cmp.Compare(string(sum[:]), string(thanSum[:]))) < 0
}

// joinAccepts returns the union of the accepted keys of both copies. facts are those of the union. One
// whose date is past is not put back, and does not count against one of its kid that is accepted now.
func (m *merge) joinAccepts(facts ring.Facts) []Accept {
	accepts := slices.Clone(m.Stored.Accepts)
	for _, a := range m.Held.Accepts {
		i := slices.IndexFunc(accepts, func(o Accept) bool { return o.KID == a.KID })
		switch {
		case a.Life < facts.Dead:
		case m.ended(facts, a) && (i < 0 || !m.ended(facts, accepts[i])):
		case i < 0:
			accepts = append(accepts, a)
		case accepts[i].Life < facts.Dead, !m.ended(facts, a) && m.ended(facts, accepts[i]), precedes(a.Created, a.Sum, accepts[i].Created, accepts[i].Sum):
			accepts[i] = a
		}
	}
	return accepts
}

// ended reports whether the date of a is past, by the store's clock and by this instance's.
func (m *merge) ended(facts ring.Facts, a Accept) bool {
	now := m.Now
	if m.LocalNow.Before(now) {
		now = m.LocalNow
	}
	return !m.ClockOff && !now.Before(facts.Accepted(a.AcceptRecord).Until)
}

// proposeAccepts adds to p the accepted keys that the store lacks, or has another one of that kid for.
func (m *merge) proposeAccepts(healed *Copy, p *Proposal) {
	for _, a := range healed.Accepts {
		stored := m.Stored.FindAccept(a.KID)
		if (stored == nil || stored.Sum != a.Sum) && m.Unreadable.writable(AcceptRef(a.KID)) {
			p.RestoreAccepts = append(p.RestoreAccepts, a.KID)
			p.KID = a.KID
		}
	}
}

// clashes returns the kids of which the instance and the store have two keys.
func (m *merge) clashes() (kids []string) {
	if m.Held == nil {
		return nil
	}
	for _, r := range m.Held.Records {
		if m.Stored.Find(r.KID) != nil && !m.Stored.hasRecord(r) {
			kids = append(kids, r.KID)
		}
	}
	for _, a := range m.Held.Accepts {
		if stored := m.Stored.FindAccept(a.KID); stored != nil && stored.Sum != a.Sum {
			kids = append(kids, a.KID)
		}
	}
	return kids
}
