package held

import (
	"fmt"

	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
)

// A Sealer turns the proposals of package protocol, which have no bytes, into changes of one ring.
type Sealer struct {
	KEKs   *seal.KEKs
	Tenant string
	Have   *Ring // the ring that the proposal is for, with the sealed bytes of its records
}

// A Change is a proposal in bytes: the part of a [rotation.Change] that this package makes.
type Change struct {
	Bounds  []ring.Bound
	Set     map[string][]byte
	Delete  []string
	Publish []string
}

// Change returns the change that p proposes. minted has the material of the records that p mints;
// it may be nil if p mints none.
func (s *Sealer) Change(p *protocol.Proposal, minted *Material) (Change, error) {
	c := Change{Bounds: p.Bounds, Set: make(map[string][]byte)}
	if p.Head > 0 {
		c.Set[seal.FieldHead] = seal.SealHead(p.Head)
	}
	for _, id := range p.TenantKeys {
		c.Set[seal.PrefixKey+id] = s.Have.TenantKey(id)
	}
	for _, kid := range p.Restore {
		c.Set[seal.PrefixRecord+kid] = s.Have.Find(kid).blob
		c.Publish = append(c.Publish, kid)
	}
	if err := s.addMinted(p, &c, minted); err != nil {
		return Change{}, err
	}
	if err := s.addFacts(p, &c); err != nil {
		return Change{}, err
	}
	for _, kid := range p.Remove {
		c.Delete = append(c.Delete, fieldsOf(kid)...)
	}
	for _, id := range p.RemoveKeys {
		c.Delete = append(c.Delete, seal.PrefixKey+id)
	}
	return c, nil
}

// addMinted adds the minted records to c.
func (s *Sealer) addMinted(p *protocol.Proposal, c *Change, minted *Material) error {
	if len(p.Mint) == 0 {
		return nil
	}
	tk, err := s.tenantKey(c)
	if err != nil {
		return err
	}
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
func (s *Sealer) addFacts(p *protocol.Proposal, c *Change) error {
	for _, f := range p.Facts {
		blob, err := seal.SealFact(s.KEKs, s.Tenant, f.Kind, f.KID, f.At)
		if err != nil {
			return err
		}
		c.Set[seal.FactField(f.Kind, f.KID)] = blob
		c.Bounds = append(c.Bounds, ring.Bound{At: f.At, From: f.From, To: f.To})
	}
	return nil
}

// fieldsOf returns the fields of a record that is collected. A revocation stays: it must hold even if
// the record reappears (invariant I8).
func fieldsOf(kid string) []string {
	fields := []string{seal.PrefixRecord + kid, seal.PrefixPublish + kid}
	for _, kind := range ring.FactKinds() {
		if kind != ring.FactRevoked {
			fields = append(fields, seal.FactField(kind, kid))
		}
	}
	return fields
}

// tenantKey returns the tenant key of the newest record, or makes one and adds it to c. So a ring
// keeps one tenant key, and a record can be written without touching the others.
func (s *Sealer) tenantKey(c *Change) (*seal.TenantKey, error) {
	if newest := s.Have.Newest(); newest != nil {
		id := s.Have.Find(newest.KID).TenantKey
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

// find returns the material of that kid, or nil.
func (m *Material) find(kid string) *seal.Material {
	for _, made := range m.made {
		if made.KID == kid {
			return made
		}
	}
	return nil
}
