package server

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/verifier"
)

// tenants are the tenants of a server with what reads their keys.
type tenants struct {
	all     []Tenant
	byID    map[string]*Tenant      // elements of all
	sources map[string]*jwks.Source // of the tenants with a Source that has a set
	pems    map[string]*jwks.PEMSource
	clients map[string]*jwks.Client // of sources, by [Source.client]
	rings   *rings                  // nil if no tenant has a ring
	joining map[string]*atomic.Bool // rings that a reload has added: whether they were not ready yet
	log     *slog.Logger
}

// openTenants opens the sources and the rings of a server's tenants.
func openTenants(ctx context.Context, cfg *Config) (_ *tenants, err error) {
	t, err := new(tenants).openNext(cfg)
	if err != nil {
		return nil, err
	}
	if cfg.Rings != nil {
		if t.rings, err = openRings(ctx, cfg); err != nil {
			t.close()
			return nil, err
		}
	}
	return t, nil
}

// openNext opens the sources of cfg beside t, with those that t has already. It waits for no issuer.
func (t *tenants) openNext(cfg *Config) (*tenants, error) {
	next := &tenants{
		all: cfg.Tenants, sources: make(map[string]*jwks.Source), pems: make(map[string]*jwks.PEMSource),
		clients: make(map[string]*jwks.Client), rings: t.rings, log: cfg.Logger, byID: make(map[string]*Tenant),
	}
	for i := range next.all {
		next.byID[next.all[i].Rules.ID] = &next.all[i]
	}
	for i := range next.all {
		if next.all[i].Source == nil {
			continue
		}
		if err := next.openSource(cfg.Issuers, &next.all[i], t); err != nil {
			next.closeBut(t)
			return nil, &Error{Part: PartSource, Tenant: next.all[i].Rules.ID, Err: err}
		}
	}
	return next, nil
}

// join notes the rings that a reload adds, with those of old that have not been ready yet.
func (t *tenants) join(ids []string, old *tenants) {
	t.joining = make(map[string]*atomic.Bool)
	for id, joins := range old.joining {
		if joins.Load() {
			t.joining[id] = joins
		}
	}
	for _, id := range ids {
		t.joining[id] = new(atomic.Bool)
		t.joining[id].Store(true)
	}
}

// openSource opens the source of a tenant, or takes that of old if it reads the same keys: a new one
// would have none until the issuer answers.
func (t *tenants) openSource(cfg jwks.Config, tenant *Tenant, old *tenants) (err error) {
	id, name := tenant.Rules.ID, tenant.Source.client()
	if t.clients[name] == nil {
		t.clients[name] = old.clients[name]
	}
	if t.clients[name] == nil {
		t.clients[name] = jwks.New(tenant.Source.ClientConfig(cfg))
	}
	if was := old.byID[id]; was != nil && was.Source != nil && was.Source.same(tenant.Source) {
		t.keepSource(id, old)
		return nil
	}
	if tenant.Source.PEMURL != "" {
		t.pems[id], err = t.clients[name].OpenPEM(id, tenant.Source.PEMURL, tenant.Source.Config)
		return err
	}
	t.sources[id], err = tenant.Source.Open(t.clients[name], id)
	return err
}

func (t *tenants) keepSource(id string, old *tenants) {
	if s := old.sources[id]; s != nil {
		t.sources[id] = s
	}
	if s := old.pems[id]; s != nil {
		t.pems[id] = s
	}
}

// sameSource reports whether a tenant's keys come from what old reads them with.
func (t *tenants) sameSource(old *tenants, id string) bool {
	return t.sources[id] == old.sources[id] && t.pems[id] == old.pems[id]
}

// ringIDs returns the tenants that have a ring.
func (t *tenants) ringIDs() []string { return ringIDs(t.all) }

// Open opens a source that has a set. It does not wait for its keys.
func (s *Source) Open(client *jwks.Client, tenant string) (*jwks.Source, error) {
	if s.IssuerURL != "" {
		return client.Discover(tenant, s.IssuerURL, s.Config)
	}
	return client.Open(tenant, s.JWKSURL, s.Config)
}

// rules returns the rules of all tenants, with what their rings say now.
func (t *tenants) rules() []verifier.Tenant {
	var all []verifier.Tenant
	for i := range t.all {
		all = append(all, t.rulesOf(&t.all[i]))
	}
	return all
}

func (t *tenants) rulesOf(tenant *Tenant) verifier.Tenant {
	rules := tenant.Rules
	switch {
	case t.pems[rules.ID] != nil:
		rules.Keys = t.pems[rules.ID]
	case tenant.Source != nil:
		rules.Keys = withSource(rules.Keys, t.sources[rules.ID])
	case tenant.Ring:
		t.rings.complete(&rules)
	}
	return rules
}

// withSource returns the keys of source, beside those that a tenant has already, if any.
func withSource(keys keystore.KeyStore, source *jwks.Source) keystore.KeyStore {
	if keys == nil {
		return source
	}
	return keystore.Join(keys, source)
}

// closeTime is how long the fetches of issuers' keys may take to end.
const closeTime = 10 * time.Second

// close ends what reads keys, the last first.
func (t *tenants) close() {
	if t.rings != nil {
		t.rings.close()
	}
	t.closeBut(new(tenants))
}

// closeBut ends the sources and the clients of t that other does not have.
func (t *tenants) closeBut(other *tenants) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	var errs []error
	for id, source := range t.sources {
		if other.sources[id] != source {
			errs = append(errs, source.Close(ctx))
		}
	}
	for id, source := range t.pems {
		if other.pems[id] != source {
			errs = append(errs, source.Close(ctx))
		}
	}
	for name, client := range t.clients {
		if other.clients[name] != client {
			errs = append(errs, client.Close(ctx))
		}
	}
	if err := errors.Join(errs...); err != nil {
		t.log.Warn("not all fetches of keys have ended", "err", err)
	}
}
