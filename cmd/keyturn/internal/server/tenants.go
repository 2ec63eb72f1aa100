package server

import (
	"context"
	"log/slog"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/verifier"
)

// tenants are the tenants of a server with what reads their keys.
type tenants struct {
	all     []Tenant
	sources map[string]*jwks.Source // of the tenants with a Source that has a set
	pems    map[string]*jwks.PEMSource
	clients map[string]*jwks.Client // of sources, by [Source.client]
	rings   *rings                  // nil if no tenant has a ring
	log     *slog.Logger
}

// openTenants opens the sources and the rings of a server's tenants.
func openTenants(ctx context.Context, cfg *Config) (_ *tenants, err error) {
	t := &tenants{
		all: cfg.Tenants, sources: make(map[string]*jwks.Source), pems: make(map[string]*jwks.PEMSource),
		clients: make(map[string]*jwks.Client), log: cfg.Logger,
	}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	if err := t.openSources(cfg.Issuers); err != nil {
		return nil, err
	}
	if cfg.Rings != nil {
		if t.rings, err = openRings(ctx, cfg); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// openSources begins to read the keys of issuers. It waits for none of them.
func (t *tenants) openSources(cfg jwks.Config) error {
	for _, tenant := range t.all {
		if tenant.Source == nil {
			continue
		}
		name := tenant.Source.client()
		if t.clients[name] == nil {
			t.clients[name] = jwks.New(tenant.Source.ClientConfig(cfg))
		}
		if err := t.openSource(t.clients[name], tenant.Rules.ID, tenant.Source); err != nil {
			return &Error{Part: PartSource, Tenant: tenant.Rules.ID, Err: err}
		}
	}
	return nil
}

func (t *tenants) openSource(client *jwks.Client, tenant string, s *Source) (err error) {
	if s.PEMURL != "" {
		t.pems[tenant], err = client.OpenPEM(tenant, s.PEMURL, s.Config)
		return err
	}
	t.sources[tenant], err = s.Open(client, tenant)
	return err
}

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
	for _, tenant := range t.all {
		rules := tenant.Rules
		switch {
		case t.pems[rules.ID] != nil:
			rules.Keys = t.pems[rules.ID]
		case tenant.Source != nil:
			rules.Keys = withSource(rules.Keys, t.sources[rules.ID])
		case tenant.Ring:
			t.rings.complete(&rules)
		}
		all = append(all, rules)
	}
	return all
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
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	for _, client := range t.clients {
		if err := client.Close(ctx); err != nil {
			t.log.Warn("not all fetches of keys have ended", "err", err)
		}
	}
}
