package rotation

import (
	"fmt"

	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
)

// seal turns a proposal into a change of the ring with that digest. have are the
// tenant keys and records of that ring.
func (p *proposal) seal(keks *seal.KEKs, tenant, digest string, have *held, actor string) (Change, error) {
	c := Change{Tenant: tenant, If: digest, Bounds: p.bounds, Set: make(map[string][]byte), Op: p.op, KID: p.kid, Seq: p.seq, Actor: actor}
	if p.head > 0 {
		c.Set[seal.FieldHead] = seal.SealHead(p.head)
	}
	for _, tk := range p.tenantKeys {
		c.Set[seal.PrefixKey+tk.id] = tk.blob
	}
	for _, r := range p.merged {
		c.Set[seal.PrefixRecord+r.KID] = r.blob
		c.Publish = append(c.Publish, r.KID)
	}
	if err := p.sealMinted(keks, &c, have); err != nil {
		return Change{}, err
	}
	for _, f := range p.facts {
		blob, err := seal.SealFact(keks, tenant, f.Kind, f.KID, f.at)
		if err != nil {
			return Change{}, err
		}
		c.Set[seal.FactField(f.Kind, f.KID)] = blob
		c.Bounds = append(c.Bounds, ring.Bound{At: f.at, From: f.from, To: f.to})
	}
	for _, kid := range p.remove {
		c.Delete = append(c.Delete, seal.PrefixRecord+kid, seal.PrefixPublish+kid)
		for _, kind := range ring.FactKinds() {
			if kind != ring.FactRevoked {
				c.Delete = append(c.Delete, seal.FactField(kind, kid))
			}
		}
	}
	return c, nil
}

func (p *proposal) sealMinted(keks *seal.KEKs, c *Change, have *held) error {
	if len(p.minted) == 0 {
		return nil
	}
	tk, err := p.tenantKey(keks, c, have)
	if err != nil {
		return err
	}
	for _, m := range p.minted {
		blob, err := seal.SealRecord(tk, m.Record, m.material)
		if err != nil {
			return &ring.Error{Text: fmt.Sprintf("key %q cannot be sealed", m.KID), Err: err}
		}
		c.Set[seal.PrefixRecord+m.KID] = blob
		c.Publish = append(c.Publish, m.KID)
	}
	return nil
}

// tenantKey returns the tenant key of the newest record, or a new one.
func (p *proposal) tenantKey(keks *seal.KEKs, c *Change, have *held) (*seal.TenantKey, error) {
	if newest := have.newest(); newest != nil {
		if blob := have.tenantKey(newest.TenantKey); blob != nil {
			return seal.OpenTenantKey(keks, c.Tenant, newest.TenantKey, blob)
		}
	}
	tk, blob, err := seal.NewTenantKey(keks, c.Tenant)
	if err == nil {
		c.Set[seal.PrefixKey+tk.ID] = blob
	}
	return tk, err
}
