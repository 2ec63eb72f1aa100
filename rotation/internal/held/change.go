package held

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"
	"unique"

	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
)

// KEK returns the name by which package protocol compares the KEK of a field: its check value, and
// that of its realm. A KEK in another realm is another one there: an instance that has it only in one
// realm opens nothing of the other. The id does not count, since each operator may choose another one
// for the same key.
func KEK(name seal.KEKName) string { return shared(append(name.Check[:], name.Realm[:]...)) }

// Origin returns the name by which package protocol compares the KEK that a tenant key was made
// under: its check value. The realm does not count, since it is no secret. A person who has the KEK
// opens its tenant keys of all realms.
func Origin(name seal.KEKName) string { return shared(name.Check[:]) }

// shared returns a check value as text. Thousands of rings have the same few, so they share it.
func shared(check []byte) string { return unique.Make(hex.EncodeToString(check)).Value() }

// A Sealer turns the proposals of package protocol, which have no bytes, into changes of one ring.
type Sealer struct {
	KEKs   *seal.KEKs
	Tenant string
	Have   *Ring  // the ring that the proposal is for, with the sealed bytes of its records
	Count  uint64 // of the ring once the change is made: see [protocol.NextCount]
	Actor  string // the instance, for the log
	Nonce  string // of the change

	Foreign []*seal.ForeignKey // that the change accepts
	Fields  map[string][]byte  // of the ring in the store, for a proposal that sweeps or seals again

	// Under is the KEK of a change to a ring that is not whole. Otherwise it is zero: then the ring
	// says which one, see [protocol.Copy.SealingKEK].
	Under seal.KEKName
}

// A Change is a proposal in bytes: the part of a rotation.Change that this package makes.
type Change struct {
	Bounds  []ring.Bound
	Set     map[string][]byte
	Delete  []string
	Publish []string
	MAC     []byte // of the log entry
}

// Change returns the change that p proposes. minted has the material of the records that p mints;
// it may be nil if p mints none. The error wraps [seal.ErrWrongKEK] if this process lacks the KEK
// that the ring is under: then it must write nothing, because the others could not open it.
func (s *Sealer) Change(p *protocol.Proposal, minted *Material) (Change, error) {
	c := Change{Bounds: p.Bounds, Set: make(map[string][]byte)}
	under, err := s.under(p)
	if err != nil {
		return Change{}, err
	}
	for _, id := range p.TenantKeys {
		c.Set[seal.PrefixKey+id] = s.Have.TenantKey(id)
	}
	for _, kid := range p.Restore {
		c.Set[seal.PrefixRecord+kid] = s.Have.Find(kid).blob
		c.Publish = append(c.Publish, kid)
	}
	for _, add := range []func() error{
		func() error { return s.addMinted(p, &c, minted) },
		func() error { return s.addAccepted(p, &c) },
		func() error { return s.addRewrapped(p, &c) },
		func() error { return s.addFacts(p, &c, under) },
		func() error { return s.addHead(p, &c, under) },
	} {
		if err := add(); err != nil {
			return Change{}, err
		}
	}
	for _, kid := range p.Remove {
		c.Delete = append(c.Delete, fieldsOf(kid)...)
	}
	for _, id := range p.RemoveKeys {
		c.Delete = append(c.Delete, seal.PrefixKey+id)
	}
	if p.Sweep {
		c.Delete = slices.AppendSeq(c.Delete, s.swept)
	}
	c.MAC, err = s.mac(p, under)
	return c, err
}

// under returns the KEK that facts, head and log entry of p are sealed under.
func (s *Sealer) under(p *protocol.Proposal) (seal.KEKName, error) {
	newest := s.Have.Plain().NewestKeyID()
	switch {
	case s.Under != seal.KEKName{}:
		return s.Under, nil
	case p.Reseal, p.NewTenantKey, newest == "":
		return s.KEKs.Primary(), nil
	}
	name, _, err := seal.ReadTenantKeyNames(s.Have.TenantKey(newest))
	if err != nil { // the tenant key was lost, and no holder of it has written it back yet
		return s.KEKs.Primary(), nil
	}
	if !s.KEKs.Has(name) {
		return name, &ring.Error{Kind: seal.ErrWrongKEK, Text: fmt.Sprintf("the ring is sealed under KEK %v, this process has %v", name, s.KEKs)}
	}
	return name, nil
}

// addHead adds the head to c.
func (s *Sealer) addHead(p *protocol.Proposal, c *Change, under seal.KEKName) error {
	if p.LeaveHead {
		return nil
	}
	seq := p.Head
	if seq == 0 {
		seq = s.Have.HeadSeq()
	}
	blob, err := seal.SealHead(s.KEKs, under, s.Tenant, seal.Head{Seq: seq, Count: s.Count})
	c.Set[seal.FieldHead] = blob
	return err
}

// mac returns the MAC of the log entry of p. It covers the facts that end trust, so that a reader
// of the log learns them even if a person who writes to the store has removed them from the ring.
func (s *Sealer) mac(p *protocol.Proposal, under seal.KEKName) ([]byte, error) {
	e := seal.Entry{Op: p.Op, Tenant: s.Tenant, KID: p.KID, Seq: p.Seq, Actor: s.Actor, Nonce: s.Nonce}
	for _, f := range p.Facts {
		if (f.Kind == ring.FactRevoked || f.Kind == ring.FactDestroyed) && len(e.Ends) < maxEnds {
			e.Ends = append(e.Ends, seal.EndFact{Kind: f.Kind, KID: f.KID, At: f.At, Life: f.Life})
		}
	}
	return seal.SealEntry(s.KEKs, under, e)
}

// maxEnds is how many facts one entry of the log names. More are still in the ring.
const maxEnds = 64

// addRewrapped adds the tenant keys to c that p wraps again, and seals all facts again if p says so.
func (s *Sealer) addRewrapped(p *protocol.Proposal, c *Change) (err error) {
	primary := s.KEKs.Primary()
	for _, id := range p.Rewrap {
		if c.Set[seal.PrefixKey+id], err = seal.RewrapTenantKey(s.KEKs, primary, s.Tenant, id, s.Have.TenantKey(id)); err != nil {
			return err
		}
	}
	if !p.Reseal {
		return nil
	}
	facts := s.Have.Facts
	for id, at := range facts.All {
		if c.Set[seal.FactField(id.Kind, id.KID)], err = seal.SealFact(s.KEKs, primary, s.Tenant, id.Kind, id.KID, at); err != nil {
			return err
		}
	}
	for kind, at := range map[ring.FactKind]time.Time{ring.FactDestroyed: facts.DeadAt, ring.FactCollected: facts.CollectedUntil} {
		if at.IsZero() {
			continue
		}
		if c.Set[seal.FactField(kind, "")], err = seal.SealRingFact(s.KEKs, primary, s.Tenant, kind, facts.Dead, at); err != nil {
			return err
		}
	}
	if _, stored := s.Fields[seal.FieldGone]; stored && facts.CollectedUntil.IsZero() {
		c.Delete = append(c.Delete, seal.FieldGone) // of a life that has ended; the old KEK must be able to go
	}
	return nil
}

// addMinted adds the minted records to c.
func (s *Sealer) addMinted(p *protocol.Proposal, c *Change, minted *Material) error {
	if len(p.Mint) == 0 {
		return nil
	}
	tk, err := s.tenantKey(p, c)
	if err != nil {
		return err
	}
	defer tk.Wipe()
	for _, r := range p.Mint {
		blob, err := seal.SealRecord(tk, r, minted.find(r.KID))
		if err != nil {
			return &ring.Error{Text: fmt.Sprintf("key %q cannot be sealed", r.KID), Err: err}
		}
		c.Set[seal.PrefixRecord+r.KID] = blob
		c.Publish = append(c.Publish, r.KID)
	}
	return nil
}

// addFacts adds the facts to c, sealed, with the bounds of their times.
func (s *Sealer) addFacts(p *protocol.Proposal, c *Change, under seal.KEKName) error {
	for _, f := range p.Facts {
		blob, err := s.sealFact(under, &f)
		if err != nil {
			return err
		}
		c.Set[seal.FactField(f.Kind, f.KID)] = blob
		c.Bounds = append(c.Bounds, ring.Bound{At: f.At, From: f.From, To: f.To})
	}
	return nil
}

// sealFact seals a fact of a proposal.
func (s *Sealer) sealFact(under seal.KEKName, f *protocol.ProposedFact) ([]byte, error) {
	if f.Kind == ring.FactDestroyed || f.Kind == ring.FactCollected {
		return seal.SealRingFact(s.KEKs, under, s.Tenant, f.Kind, f.Life, f.At)
	}
	return seal.SealFact(s.KEKs, under, s.Tenant, f.Kind, f.KID, f.At)
}

// swept calls yield with the fields of the ring that a sweep removes: all but its head, its
// revocations, and the facts about the whole ring. It goes by names, so that no part of a ring is left
// because it cannot be opened.
func (s *Sealer) swept(yield func(string) bool) {
	for field := range s.Fields {
		keep := field == seal.FieldHead || field == seal.FieldDead || field == seal.FieldGone || strings.HasPrefix(field, seal.FactField(ring.FactRevoked, ""))
		if !keep && !yield(field) {
			return
		}
	}
}

// fieldsOf returns the fields of a record that is collected. A revocation stays: it must hold even if
// the record reappears (invariant I8).
func fieldsOf(kid string) []string {
	fields := []string{seal.PrefixRecord + kid, seal.PrefixPublish + kid}
	for _, kind := range ring.FactKinds() {
		if kind != ring.FactRevoked && kind != ring.FactAccepted { // it is of an accepted key, and names more than its kid
			fields = append(fields, seal.FactField(kind, kid))
		}
	}
	return fields
}

// tenantKey returns the tenant key of the newest record (without a record: of the newest accepted key),
// or makes one and adds it to c. So a ring
// keeps one tenant key for as long as the KEK stays, and a record can be written without touching
// the others.
func (s *Sealer) tenantKey(p *protocol.Proposal, c *Change) (*seal.TenantKey, error) {
	if id := s.Have.Plain().NewestKeyID(); !p.NewTenantKey {
		if blob := s.Have.TenantKey(id); blob != nil {
			return seal.OpenTenantKey(s.KEKs, s.Tenant, id, blob)
		}
	}
	tk, blob, err := seal.NewTenantKey(s.KEKs, s.Tenant)
	if err == nil {
		c.Set[seal.PrefixKey+tk.ID] = blob
	}
	return tk, err
}

// Material makes the material of new keys and keeps it, because a change may be decided several
// times and an RSA key takes a second to make. It is not safe for concurrent use.
type Material struct {
	imported *seal.Material // or nil

	made []*seal.Material
	next int // index in made of the material that the current decision takes next
}

// Again begins another decision, which takes the material from the first on.
func (m *Material) Again() { m.next = 0 }

// Mint returns the kid of a new key for a policy. It makes the key's material unless an earlier
// decision has left one of that algorithm.
func (m *Material) Mint(policy ring.Policy) (kid string, err error) {
	if m.next == len(m.made) || m.made[m.next].Algorithm != policy.Algorithm {
		made, err := seal.NewMaterial(policy.Algorithm)
		if err != nil {
			return "", err
		}
		m.made = append(m.made[:m.next], made)
	}
	m.next++
	return m.made[m.next-1].KID, nil
}

// Import adds the material of a key that exists.
func (m *Material) Import(imported *seal.Material) { m.imported = imported }

// find returns the material of that kid, or nil.
func (m *Material) find(kid string) *seal.Material {
	if m.imported != nil && m.imported.KID == kid {
		return m.imported
	}
	for _, made := range m.made {
		if made.KID == kid {
			return made
		}
	}
	return nil
}
