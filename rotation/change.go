package rotation

import "fmt"

// seal turns a proposal into a change of the ring with that digest. have are the
// tenant keys and records of that ring.
func (p *proposal) seal(keks *KEKs, tenant, digest string, have *held, actor string) (Change, error) {
	c := Change{Tenant: tenant, If: digest, Bounds: p.bounds, Set: make(map[string][]byte), Op: p.op, KID: p.kid, Seq: p.seq, Actor: actor}
	if p.head > 0 {
		c.Set[fieldHead] = decimal(p.head)
	}
	for _, tk := range p.tenantKeys {
		c.Set[prefixKey+tk.id] = tk.blob
	}
	for _, r := range p.merged {
		c.Set[prefixRecord+r.KID] = r.blob
		c.Publish = append(c.Publish, r.KID)
	}
	if err := p.sealMinted(keks, &c, have); err != nil {
		return Change{}, err
	}
	for _, f := range p.facts {
		blob, err := sealFact(keks, tenant, f.Kind, f.KID, f.at)
		if err != nil {
			return Change{}, err
		}
		c.Set[factField(f.Kind, f.KID)] = blob
		c.Bounds = append(c.Bounds, Bound{At: f.at, From: f.from, To: f.to})
	}
	for _, kid := range p.remove {
		c.Delete = append(c.Delete, prefixRecord+kid, prefixPublish+kid)
		for _, kind := range kinds {
			if kind != FactRevoked {
				c.Delete = append(c.Delete, factField(kind, kid))
			}
		}
	}
	return c, nil
}

func (p *proposal) sealMinted(keks *KEKs, c *Change, have *held) error {
	if len(p.minted) == 0 {
		return nil
	}
	tk, err := p.tenantKey(keks, c, have)
	if err != nil {
		return err
	}
	for _, m := range p.minted {
		blob, err := sealRecord(tk, m.Record, m.material)
		if err != nil {
			return &Error{Text: fmt.Sprintf("key %q cannot be sealed", m.KID), Err: err}
		}
		c.Set[prefixRecord+m.KID] = blob
		c.Publish = append(c.Publish, m.KID)
	}
	return nil
}

// tenantKey returns the tenant key of the newest record, or a new one.
func (p *proposal) tenantKey(keks *KEKs, c *Change, have *held) (*tenantKey, error) {
	if newest := have.newest(); newest != nil {
		if blob := have.tenantKey(newest.tenantKey); blob != nil {
			return openTenantKey(keks, c.Tenant, newest.tenantKey, blob)
		}
	}
	tk, blob, err := newTenantKey(keks, c.Tenant)
	if err == nil {
		c.Set[prefixKey+tk.id] = blob
	}
	return tk, err
}
