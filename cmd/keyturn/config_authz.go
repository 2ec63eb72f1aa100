package main

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/server"
	"github.com/keyturn/keyturn/middleware"
)

// An identityConfig is the part of the file of --config that says in which headers a service learns
// whose request it gets.
type identityConfig struct {
	Prefix    string            `yaml:"prefix"`
	Claims    map[string]string `yaml:"claims"` // by the end of the header's name
	Assertion *assertionConfig  `yaml:"assertion"`
}

type assertionConfig struct {
	Tenant   string `yaml:"tenant"`
	Audience string `yaml:"audience"`
	TTL      string `yaml:"ttl"`

	ttl time.Duration
}

// An authzConfig is the part of the file of --config that says how the server decides for reverse
// proxies.
type authzConfig struct {
	Wait         string                   `yaml:"wait"`
	CannotTell   int                      `yaml:"cannot_tell"`
	ForwardToken bool                     `yaml:"forward_token"`
	Profiles     map[string]profileConfig `yaml:"profiles"`

	wait time.Duration
}

type profileConfig struct {
	Scopes    []string `yaml:"scopes"`
	Audiences []string `yaml:"audiences"`
	Tenant    string   `yaml:"tenant"`
}

// checkAuthz refuses an identity, and rules of /authz, that cannot be meant.
func (c *configFile) checkAuthz() error {
	if id := c.Identity; id != nil {
		if err := id.check(); err != nil {
			return err
		}
	}
	if c.Authz == nil {
		return nil
	}
	if c.Authz.Wait != "" {
		d := newDuration(time.Millisecond, 30*time.Second, 0, "")
		if err := d.Set(c.Authz.Wait); err != nil {
			return usagef("the file of --config: authz.wait: %v", err)
		}
		c.Authz.wait = d.value
	}
	if c.Authz.Profiles != nil && len(c.Authz.Profiles) == 0 {
		return usagef("the file of --config: authz.profiles is empty: leave it out, or name one, such as default: {}")
	}
	var cfg server.Config
	c.setAuthz(&cfg)
	if err := cfg.Authz.Validate(); err != nil {
		return usagef("the file of --config: authz: %s", ownText(err))
	}
	return nil
}

func (id *identityConfig) check() error {
	if err := (middleware.Identity{Prefix: id.Prefix, Claims: id.Claims}).Validate(); err != nil {
		return usagef("the file of --config: identity: %s", ownText(err))
	}
	a := id.Assertion
	switch {
	case a == nil:
		return nil
	case a.Tenant == "":
		return usagef("the file of --config: identity.assertion.tenant is missing: whose ring signs them")
	case a.Audience == "":
		return usagef("the file of --config: identity.assertion.audience is missing: the service that gets them, which compares it with aud")
	case a.TTL == "":
		return nil
	}
	d := newDuration(time.Second, 5*time.Minute, 0, "")
	if err := d.Set(a.TTL); err != nil {
		return usagef("the file of --config: identity.assertion.ttl: %v", err)
	}
	a.ttl = d.value
	return nil
}

// ownText returns the text of an error of package middleware, with the fields by their names in the
// file.
func ownText(err error) string {
	return strings.NewReplacer("middleware: ", "", "Identity.Prefix", "prefix", "Identity.Claims", "claims", "ForwardAuthConfig.Profiles", "profiles",
		"ForwardAuthConfig.CannotTell", "cannot_tell", "ForwardAuthConfig.Wait", "wait").Replace(err.Error())
}

// setAuthz sets the parts of cfg that identity and authz of the file say.
func (c *configFile) setAuthz(cfg *server.Config) {
	if id := c.Identity; id != nil {
		cfg.Identity.Prefix, cfg.Identity.Claims = id.Prefix, id.Claims
		if a := id.Assertion; a != nil {
			cfg.Assertion = &server.Assertion{Tenant: a.Tenant, Audience: a.Audience, TTL: a.ttl}
		}
	}
	if z := c.Authz; z != nil {
		cfg.Authz.Wait, cfg.Authz.CannotTell, cfg.Authz.ForwardToken = z.wait, z.CannotTell, z.ForwardToken
		for name, p := range z.Profiles {
			if cfg.Authz.Profiles == nil {
				cfg.Authz.Profiles = make(map[string]middleware.Profile)
			}
			cfg.Authz.Profiles[name] = middleware.Profile{Scopes: p.Scopes, Audiences: p.Audiences, Tenant: p.Tenant}
		}
	}
}

// addAuthz adds identity and authz of the file to the configuration of the server, whose tenants are
// known now. A profile may name a tenant that comes to tenants_dir later: until then it refuses all requests.
func (c *configFile) addAuthz(cfg *server.Config) error {
	c.setAuthz(cfg)
	if a := cfg.Assertion; a != nil && !slices.ContainsFunc(cfg.Tenants, func(t server.Tenant) bool { return t.Ring && t.Rules.ID == a.Tenant }) {
		return usagef("the file of --config: identity.assertion.tenant: %s is no tenant of kind ring", quoteShort(a.Tenant))
	}
	if c.Authz == nil || c.TenantsDir != "" {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(c.Authz.Profiles)) {
		id := c.Authz.Profiles[name].Tenant
		if id != "" && !slices.ContainsFunc(cfg.Tenants, func(t server.Tenant) bool { return t.Rules.ID == id }) {
			return usagef("the file of --config: authz.profiles.%s.tenant: there is no tenant %s", name, quoteShort(id))
		}
	}
	return nil
}
