package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/middleware"
)

// JWKSPath is where a tenant's public keys are, after /TENANT.
const JWKSPath = "/.well-known/jwks.json"

// discoveryPath is where a reader that knows an issuer finds where its keys are, after /TENANT.
const discoveryPath = "/.well-known/openid-configuration"

// A publisher serves the public keys of rings, and the metadata that leads to them.
type publisher struct {
	rings  *rings
	ids    []string // of the tenants with a ring
	now    func() time.Time
	byPath map[string]http.Handler // by the end of the path
	only   recent[onlyTenant]
}

// newPublisher returns the publisher of a server's rings, or nil if it has none.
func newPublisher(t *tenants, now func() time.Time) *publisher {
	if t.rings == nil {
		return nil
	}
	p := &publisher{rings: t.rings, ids: t.ringIDs(), now: now}
	p.byPath = map[string]http.Handler{
		JWKSPath:      middleware.JWKS(t.rings.keyring, p.tenantOf(JWKSPath)),
		discoveryPath: middleware.Discovery(t.rings.keyring, p.tenantOf(discoveryPath), t.publicIssuer),
	}
	return p
}

// handler returns what serves a path, or nil.
func (p *publisher) handler(path string) http.Handler {
	if p == nil {
		return nil
	}
	for end, h := range p.byPath {
		if strings.HasSuffix(path, end) {
			return h
		}
	}
	return nil
}

// owns reports whether path is exactly that of one tenant's document, even if the tenant is called
// api.
func (p *publisher) owns(path string) bool {
	if p == nil {
		return false
	}
	for end := range p.byPath {
		name, ok := strings.CutSuffix(path, end)
		if tenant, rooted := strings.CutPrefix(name, "/"); ok && rooted && slices.Contains(p.ids, tenant) {
			return true
		}
	}
	return false
}

// tenantOf returns a function that tells which tenant's document a request for TENANT and end
// wants.
func (p *publisher) tenantOf(end string) func(*http.Request) (string, error) {
	return func(r *http.Request) (string, error) {
		prefix := strings.TrimSuffix(r.URL.Path, end)
		if tenant := strings.TrimPrefix(prefix, "/"); tenant != "" {
			return tenant, nil
		}
		only := p.only.get(p.now(), p.onlyTenant)
		return only.id, only.err
	}
}

// An onlyTenant is the only tenant that has public keys, or "", or why that cannot be told.
type onlyTenant struct {
	id  string
	err error
}

func (p *publisher) onlyTenant() (only onlyTenant) {
	for _, tenant := range p.ids {
		_, _, err := p.rings.keyring.PublicKeys(context.Background(), tenant) // from memory
		switch {
		case err != nil && errors.Is(err, keystore.ErrNotFound) && !errors.Is(err, keystore.ErrUnavailable):
		case err != nil:
			return onlyTenant{err: err}
		case only.id != "":
			return onlyTenant{err: fmt.Errorf("several tenants have public keys: %w", keystore.ErrNotFound)}
		default:
			only.id = tenant
		}
	}
	return only
}

// publicIssuer returns a tenant's issuer if it is a URL by which readers find its keys, or "".
func (t *tenants) publicIssuer(tenant string) string {
	for _, one := range t.all {
		if one.Rules.ID == tenant && isWebURL(one.Rules.Issuer) {
			return one.Rules.Issuer
		}
	}
	return ""
}

// isWebURL reports whether metadata can be read under an issuer.
func isWebURL(issuer string) bool {
	u, err := url.Parse(issuer)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && !strings.ContainsAny(issuer, "?#")
}
