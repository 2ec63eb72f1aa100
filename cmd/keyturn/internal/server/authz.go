package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/metrics"
	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/rotation"
)

// An Assertion says how the identity's assertions are signed: see [middleware.Identity].
type Assertion struct {
	Tenant   string        // whose ring signs them: one of Config.Tenants with Ring
	Audience string        // their aud: the service that gets them
	TTL      time.Duration // zero means one minute
}

// AssertionType is the typ of assertions. No tenant takes it unless its rules name it, so an
// assertion is no token here (RFC 8725, section 3.11).
const AssertionType = "identity+jwt"

// checkAuthz returns why the identity, or the rules of /authz, cannot be used, or nil.
func checkAuthz(cfg *Config) error {
	authz := cfg.Authz
	authz.Identity = cfg.Identity
	if a := cfg.Assertion; a != nil {
		if t := cfg.ringTenant(a.Tenant); t == nil {
			return &Error{Part: PartAuthz, Err: fmt.Errorf("the tenant of assertions is %q, which has no ring", a.Tenant)}
		}
		if a.Audience == "" {
			return &Error{Part: PartAuthz, Err: errors.New("assertions have no audience")}
		}
		authz.Identity.Asserter, authz.Identity.AssertTenant, authz.Identity.AssertTTL = brokenAsserter{}, a.Tenant, a.TTL
	}
	if err := authz.Validate(); err != nil {
		return &Error{Part: PartAuthz, Err: err}
	}
	return nil
}

// ringTenant returns the tenant with this ID if it has a ring, or nil.
func (c *Config) ringTenant(id string) *Tenant {
	for i := range c.Tenants {
		if t := &c.Tenants[i]; t.Ring && t.Rules.ID == id {
			return t
		}
	}
	return nil
}

// identity returns the headers that tell whose request it is.
func (s *generation) identity() middleware.Identity {
	id := s.cfg.Identity
	if a := s.cfg.Assertion; a != nil {
		id.Asserter, id.AssertTenant, id.AssertTTL, id.Now = s.asserter(a), a.Tenant, a.TTL, s.cfg.Now
	}
	return id
}

// issuerNow returns the iss of a tenant with a ring. A reload may change it.
func (s *Server) issuerNow(tenant string) string {
	if t := s.live.Load().cfg.ringTenant(tenant); t != nil {
		return t.Rules.Issuer
	}
	return ""
}

// asserter returns what signs assertions.
func (s *generation) asserter(a *Assertion) middleware.Asserter {
	if s.tenants.rings == nil {
		return brokenAsserter{}
	}
	audience := []string{a.Audience}
	signer, err := rotation.NewSigner(s.tenants.rings.keyring, rotation.SignerConfig{
		Observe: s.observeSign(),
		Type:    AssertionType, Now: s.cfg.Now, Issuer: s.issuerNow, Audience: func(string) []string { return audience },
	})
	if err != nil {
		return brokenAsserter{}
	}
	return signer
}

// A brokenAsserter signs nothing, so that every request is refused.
type brokenAsserter struct{}

// Sign implements [middleware.Asserter].
func (brokenAsserter) Sign(context.Context, string, any) (string, error) {
	return "", fmt.Errorf("there is no ring to sign with: %w", keystore.ErrUnavailable)
}

// isAuthz reports whether a path is one of those that reverse proxies ask at. Behind /ext-authz is the
// path of the client's own request, which may be that of anything that this server has.
func isAuthz(p string) bool {
	name, below := strings.CutPrefix(p, "/authz/")
	return p == "/authz" || below && !strings.Contains(name, "/") || strings.HasPrefix(p, "/ext-authz/")
}

// authz returns the handler that decides for reverse proxies.
func (s *generation) authz() http.Handler {
	cfg := s.cfg.Authz
	cfg.Identity = s.identity()
	cfg.Observe = func(r *http.Request, profile string, _ int, err error) {
		if err == nil {
			return
		}
		if profile != "" {
			err = fmt.Errorf("profile %s of /authz: %w", profile, err)
		}
		s.refusals.add(r.WithContext(metrics.WithFace(r.Context(), FaceAuthz)), err)
	}
	return s.counted(FaceAuthz, middleware.ForwardAuth(s.verifier, cfg, tokenPlaces(s.cfg.TokenHeaders)...))
}
