package held

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
)

// An Accept is an accepted key, and as it was sealed. All copies of a ring share one value for each, as
// with a [Record].
type Accept struct {
	protocol.Accept
	blob []byte
	Key  *keystore.Key   // that verifies; its ID has the kid, even if its tokens have none
	Only []*keystore.Key // Key alone, so that a lookup does not allocate
}

// is reports whether the accepted key has that digest. a may be nil.
func (a *Accept) is(sum [32]byte) bool { return a != nil && a.Sum == sum }

// AllAccepted returns all accepted keys, by kid. c may be nil.
func (c *Ring) AllAccepted() []*Accept {
	if c == nil {
		return nil
	}
	return c.accepts
}

// Accepted returns the accepted key of that kid, or nil. c may be nil.
func (c *Ring) Accepted(kid string) *Accept {
	for _, a := range c.AllAccepted() {
		if a.KID == kid {
			return a
		}
	}
	return nil
}

// HasKeys reports whether the ring has a key of any kind. c may be nil.
func (c *Ring) HasKeys() bool { return c != nil && len(c.sealed)+len(c.accepts) > 0 }

// sealedAccepts returns the accepted keys of [Open]: those that were opened, and those of old whose
// bytes the store still has although they cannot be opened now.
func sealedAccepts(old *Ring, fields map[string][]byte, opened *seal.OpenedRing) (accepts []*Accept) {
	for _, a := range opened.Accepts {
		known, blob := old.Accepted(a.KID), fields[seal.PrefixAccept+a.KID]
		if known == nil || !bytes.Equal(known.blob, blob) {
			record := a.AcceptRecord
			known = &Accept{Accept: protocol.Accept{AcceptRecord: &record, TenantKey: a.TenantKey, Sum: seal.Sum(blob), Cost: a.Key.Cost()}, blob: bytes.Clone(blob),
				Key: a.Key, Only: []*keystore.Key{a.Key}}
		}
		accepts = append(accepts, known)
	}
	for _, a := range old.AllAccepted() {
		found := slices.ContainsFunc(accepts, func(o *Accept) bool { return o.KID == a.KID })
		if !found && a.Life >= opened.Facts.Dead && bytes.Equal(fields[seal.PrefixAccept+a.KID], a.blob) {
			accepts = append(accepts, a)
		}
	}
	return accepts
}

// applyAcceptEnds is [Ring.ApplyEnds] for accepted keys.
func (c *Ring) applyAcceptEnds(old *Ring, complete time.Time) {
	for _, a := range c.accepts {
		if c.Revoked(a.KID) {
			a.Key.Withdraw()
		} else {
			a.Key.SetUntil(c.AcceptEnd(a.AcceptRecord, complete))
		}
	}
	for _, a := range old.AllAccepted() {
		if c.Accepted(a.KID) != a {
			a.Key.Withdraw()
		}
	}
}

// addAcceptedWithoutKID adds to keys the accepted ones for alg whose tokens have no kid, as far as there
// is room: those that are accepted for longest first. No command accepts more than there is room for,
// but two sides of a split may, together.
func (c *Ring) addAcceptedWithoutKID(keys []*keystore.Key, id keystore.ID, alg keystore.Algorithm, now time.Time) []*keystore.Key {
	var more []*Accept
	for _, a := range c.accepts {
		if a.NoKID && a.Algorithm.Same(alg) && a.Key.Usable(now) && !c.Revoked(a.KID) && !c.Ended(a, now) {
			more = append(more, a)
		}
	}
	slices.SortFunc(more, func(a, b *Accept) int {
		return cmp.Or(c.until(b).Compare(c.until(a)), strings.Compare(a.KID, b.KID))
	})
	for _, a := range more {
		if longer := append(slices.Clip(keys), a.Key); len(longer) <= ring.MaxWithoutKID && keystore.CheckCost(id, longer) == nil {
			keys = longer
		}
	}
	return keys
}

// A Finding says what a ring has under a kid, for one algorithm. Of two keys the greater one counts.
type Finding int

// What a ring may have under a kid.
const (
	NoKey          Finding = iota // nothing
	OtherAlgorithm                // a key of another algorithm
	Ended                         // a key that has ended
	Stale                         // a key that this copy is too old for
	Found                         // a key that verifies
)

// WithKID returns the keys of a kid that verify tokens of alg at now: that of the ring, and an accepted
// one. The kid must not be revoked. If no key does, the finding says why. The error says why a key that
// would verify cannot be opened.
func (c *Ring) WithKID(keks *seal.KEKs, kid string, alg keystore.Algorithm, now time.Time) (keys []*keystore.Key, found Finding, err error) {
	if r := c.Find(kid); r != nil {
		if keys, found, err = c.judgeRecord(keks, r, alg, now); err != nil {
			return nil, found, err
		}
	}
	a := c.Accepted(kid)
	if a == nil {
		return keys, found, nil
	}
	is := Found
	switch {
	case !a.Key.Algorithm().Same(alg):
		is = OtherAlgorithm
	case c.Ended(a, now):
		is = Ended
	case !a.Key.Usable(now):
		is = Stale
	case keys == nil:
		keys = a.Only
	default:
		keys = append(slices.Clip(keys), a.Key)
	}
	return keys, max(found, is), nil
}

// judgeRecord is WithKID for a record alone.
func (c *Ring) judgeRecord(keks *seal.KEKs, r *Record, alg keystore.Algorithm, now time.Time) ([]*keystore.Key, Finding, error) {
	switch {
	case !r.Algorithm.Same(alg):
		return nil, OtherAlgorithm, nil
	case c.PlanOf(r.Record.Record).Dropped(now):
		return nil, Ended, nil
	case !r.Usable(now):
		return nil, Stale, nil
	}
	made, err := c.keyOf(keks, r)
	if err != nil || made == nil { // nil: it was withdrawn just now
		return nil, Stale, err
	}
	return made.only, Found, nil
}

// Alone reports whether no other key can have the kid: it is that of a key of the ring, and was made at random.
// Others have chosen the kids of imported and accepted keys, and two of these may have one.
func (c *Ring) Alone(kid string) bool {
	r := c.Find(kid)
	return r != nil && r.Origin == ring.Generated && c.Accepted(kid) == nil
}

// TooOldFor reports whether the ring has a key of that kid, for one algorithm, that this copy is too old for: see
// Stale. An empty kid stands for all keys whose tokens have none.
func (c *Ring) TooOldFor(kid string, alg keystore.Algorithm, now time.Time) bool {
	return slices.ContainsFunc(c.sealed, func(r *Record) bool {
		return (r.KID == kid || kid == "" && r.NoKID) && r.Algorithm.Same(alg) && !c.Revoked(r.KID) &&
			!c.PlanOf(r.Record.Record).Dropped(now) && !r.Usable(now)
	}) || slices.ContainsFunc(c.accepts, func(a *Accept) bool {
		return (a.KID == kid || kid == "" && a.NoKID) && a.Algorithm.Same(alg) && !a.Key.Usable(now) && !c.Ended(a, now) && !c.Revoked(a.KID)
	})
}

// Verifies reports whether the ring has a usable key of that kid. c may be nil.
func (c *Ring) Verifies(kid string, now time.Time) bool {
	r, a := c.Find(kid), c.Accepted(kid)
	return r != nil && r.Usable(now) || a != nil && a.Key.Usable(now)
}

// Withdraw ends the keys that facts end. c may be nil.
func (c *Ring) Withdraw(facts ring.Facts) {
	ends := func(kid string, life int) bool {
		_, revoked := facts.At(ring.FactRevoked, kid)
		return revoked || life < facts.Dead
	}
	for _, r := range c.All() {
		if ends(r.KID, r.Life) {
			r.key.withdraw()
		}
	}
	for _, a := range c.AllAccepted() {
		if ends(a.KID, a.Life) {
			a.Key.Withdraw()
		}
	}
}

// until returns until when a is accepted.
func (c *Ring) until(a *Accept) time.Time { return c.Facts.Accepted(a.AcceptRecord).Until }

// Ended reports whether the date of a is past.
func (c *Ring) Ended(a *Accept, now time.Time) bool { return !now.Before(c.until(a)) }

// ListAccepted returns the accepted keys as a user sees them, those that end first first. Keys whose
// date is past are left out. c may be nil.
func (c *Ring) ListAccepted(now time.Time) (list []ring.Accepted) {
	for _, a := range c.AllAccepted() {
		if !c.Ended(a, now) {
			list = append(list, c.Facts.Accepted(a.AcceptRecord))
		}
	}
	slices.SortFunc(list, func(a, b ring.Accepted) int { return cmp.Or(a.Until.Compare(b.Until), strings.Compare(a.KID, b.KID)) })
	return list
}

// Request returns what the decision about accepting f has to know. If the tokens of f have no kid, f gets
// the kid of the key with the same material, if the ring has one: so both are revoked as one.
func (c *Ring) Request(keks *seal.KEKs, f *seal.ForeignKey) protocol.AcceptRequest {
	type known struct {
		kid         string
		noKID, same bool
	}
	var all []known
	// Each is opened again: a key that was revoked has no material any more.
	for _, a := range c.accepts {
		since := time.Time{}
		if a.Weak {
			since = a.Created
		}
		opened, err := c.openAccept(keks, a)
		all = append(all, known{a.KID, a.NoKID, err == nil && f.Same(opened.Key, since)})
	}
	for _, r := range c.sealed {
		opened, err := c.OpenRecord(keks, r)
		all = append(all, known{r.KID, r.NoKID, err == nil && f.Same(opened.Key, time.Time{})})
	}
	if i := slices.IndexFunc(all, func(k known) bool { return k.noKID && k.same }); f.NoKID && i >= 0 {
		f.KID = all[i].kid
	}
	return protocol.AcceptRequest{
		AcceptRecord: ring.AcceptRecord{KID: f.KID, NoKID: f.NoKID, Weak: f.Weak, Algorithm: f.Algorithm},
		Cost:         f.Cost(),
		Clash:        slices.ContainsFunc(all, func(k known) bool { return k.kid == f.KID && !k.same }),
	}
}

// openAccept opens an accepted key again.
func (c *Ring) openAccept(keks *seal.KEKs, a *Accept) (*seal.OpenedAccept, error) {
	tk, err := seal.OpenTenantKey(keks, a.Tenant, a.Accept.TenantKey, c.TenantKey(a.Accept.TenantKey))
	if err != nil {
		return nil, err
	}
	defer tk.Wipe()
	return seal.OpenAccept(map[string]*seal.TenantKey{a.Accept.TenantKey: tk}, a.Tenant, a.KID, a.blob)
}

// addAccepted adds to c the accepted keys that p records or writes back, and removes those that it
// removes.
func (s *Sealer) addAccepted(p *protocol.Proposal, c *Change) error {
	for _, kid := range p.RestoreAccepts {
		c.Set[seal.PrefixAccept+kid] = s.Have.Accepted(kid).blob
	}
	for _, kid := range p.RemoveAccepts {
		c.Delete = append(c.Delete, seal.PrefixAccept+kid)
		for id := range s.Have.Facts.All {
			if of, _, ok := id.AcceptedKey(); ok && of == kid {
				c.Delete = append(c.Delete, seal.FactField(id.Kind, id.KID))
			}
		}
	}
	if len(p.Accept) == 0 {
		return nil
	}
	tk, err := s.tenantKey(p, c)
	if err != nil {
		return err
	}
	defer tk.Wipe()
	for _, a := range p.Accept {
		i := slices.IndexFunc(s.Foreign, func(f *seal.ForeignKey) bool { return f.KID == a.KID })
		if c.Set[seal.PrefixAccept+a.KID], err = s.Foreign[i].Seal(tk, a); err != nil {
			return &ring.Error{Text: "the key cannot be accepted", Err: err}
		}
	}
	return nil
}
