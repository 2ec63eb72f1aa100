package rotation

import (
	"crypto/rand"
	"fmt"

	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
)

// A sealer turns the proposals of package protocol, which have no bytes, into changes of one ring.
type sealer struct {
	keks   *seal.KEKs
	tenant string
	digest string    // of the ring that the proposal is for; the store makes the change to no other
	have   *ringCopy // that ring, with the sealed bytes of its records
	actor  string    // Config.Instance, for the log
}

// change returns the change that p proposes. minted has the material of the records that p mints;
// it may be nil if p mints none.
func (s *sealer) change(p *protocol.Proposal, minted *mintMaterial) (Change, error) {
	c := Change{Tenant: s.tenant, If: s.digest, Bounds: p.Bounds, Set: make(map[string][]byte), Op: p.Op, KID: p.KID, Seq: p.Seq, Actor: s.actor, Nonce: rand.Text()}
	if p.Head > 0 {
		c.Set[seal.FieldHead] = seal.SealHead(p.Head)
	}
	for _, id := range p.TenantKeys {
		c.Set[seal.PrefixKey+id] = s.have.tenantKey(id)
	}
	for _, kid := range p.Restore {
		c.Set[seal.PrefixRecord+kid] = s.have.find(kid).blob
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
	return c, nil
}

// addMinted adds the minted records to c.
func (s *sealer) addMinted(p *protocol.Proposal, c *Change, minted *mintMaterial) error {
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
func (s *sealer) addFacts(p *protocol.Proposal, c *Change) error {
	for _, f := range p.Facts {
		blob, err := seal.SealFact(s.keks, s.tenant, f.Kind, f.KID, f.At)
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
func (s *sealer) tenantKey(c *Change) (*seal.TenantKey, error) {
	if newest := s.have.newest(); newest != nil {
		id := s.have.find(newest.KID).TenantKey
		if blob := s.have.tenantKey(id); blob != nil {
			return seal.OpenTenantKey(s.keks, s.tenant, id, blob)
		}
	}
	tk, blob, err := seal.NewTenantKey(s.keks, s.tenant)
	if err == nil {
		c.Set[seal.PrefixKey+tk.ID] = blob
	}
	return tk, err
}

// mintMaterial makes the material of new keys and keeps it, because a change may be decided several
// times and an RSA key takes a second to make. It is not safe for concurrent use.
type mintMaterial struct {
	made []*seal.Material
	next int // index in made of the material that the current decision takes next
}

// again begins another decision, which takes the material from the first on.
func (m *mintMaterial) again() { m.next = 0 }

// mint returns the kid of a new key for a policy. It makes the key's material unless an earlier
// decision has left one of that algorithm.
func (m *mintMaterial) mint(policy ring.Policy) (kid string, err error) {
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
func (m *mintMaterial) find(kid string) *seal.Material {
	for _, made := range m.made {
		if made.KID == kid {
			return made
		}
	}
	return nil
}
