package main

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/server"
	"github.com/keyturn/keyturn/verifier/revocations"
)

// A revocationsConfig is the part of the file of --config that says where the list of revocations is, and
// who may use it. Without redis it is where the rings are.
type revocationsConfig struct {
	Redis   string `yaml:"redis"`
	KEKFile string `yaml:"kek_file"`

	RedisPasswordFile    string         `yaml:"redis_password_file"`
	SentinelPasswordFile string         `yaml:"sentinel_password_file"`
	RedisTLS             redisTLSConfig `yaml:"redis_tls"`

	Realm    string `yaml:"realm"`
	MaxStale string `yaml:"max_stale"`
	StaleOK  bool   `yaml:"stale_ok"`

	MaxTokenTTL string `yaml:"max_token_ttl"`

	Clients []revocationClient      `yaml:"clients"`
	Logout  map[string]logoutConfig `yaml:"logout"` // by tenant

	maxStale, maxTokenTTL time.Duration
}

// A revocationClient is a service that may ask at /introspect or /revoke.
type revocationClient struct {
	ID         string   `yaml:"id"`
	SecretFile string   `yaml:"secret_file"`
	May        []string `yaml:"may"`
	Tenants    []string `yaml:"tenants"`
}

// A logoutConfig says which logout tokens of a tenant are good.
type logoutConfig struct {
	ClientID      string   `yaml:"client_id"`
	Types         []string `yaml:"types"`
	TokensHaveSID bool     `yaml:"tokens_have_sid"`
}

// The values of may.
const (
	mayIntrospect = "introspect"
	mayRevoke     = "revoke"
)

// files returns the paths of the files, which are seen from the folder of the configuration.
func (c *revocationsConfig) files() []*string {
	all := []*string{
		&c.KEKFile, &c.RedisPasswordFile, &c.SentinelPasswordFile,
		&c.RedisTLS.CAFile, &c.RedisTLS.CertFile, &c.RedisTLS.KeyFile,
	}
	for i := range c.Clients {
		all = append(all, &c.Clients[i].SecretFile)
	}
	return all
}

// link returns how Redis is connected to.
func (c *revocationsConfig) link(a *app) redisLink {
	own := &ringsConfig{
		RedisPasswordFile: c.RedisPasswordFile, SentinelPasswordFile: c.SentinelPasswordFile, RedisTLS: c.RedisTLS, section: "revocations",
	}
	return own.link(a)
}

// checkRevocations refuses a list that cannot be meant. The tenants of tenants_dir are not there yet.
func (c *configFile) checkRevocations() error {
	r := c.Revocations
	if r == nil {
		return nil
	}
	switch {
	case hasPassword(r.Redis):
		return usagef("the file of --config: revocations.redis has a password: take it out, and set %s or revocations.redis_password_file", envRedisPassword)
	case r.Redis == "" && (r.RedisPasswordFile != "" || r.SentinelPasswordFile != "" || r.RedisTLS != redisTLSConfig{}):
		return usagef("the file of --config: revocations.redis is missing: without it the list is in the Redis of rings, and connected to as rings says")
	}
	if r.MaxStale != "" {
		d := newDuration(10*time.Second, 24*time.Hour, 0, "")
		if err := d.Set(r.MaxStale); err != nil {
			return usagef("the file of --config: revocations.max_stale: %v", err)
		}
		r.maxStale = d.value
	}
	if r.MaxTokenTTL != "" {
		d := newTokenTTL()
		if err := d.Set(r.MaxTokenTTL); err != nil {
			return usagef("the file of --config: revocations.max_token_ttl: %v", err)
		}
		r.maxTokenTTL = d.value
	}
	if r.Realm != "" {
		if _, err := parseRealm(r.Realm); err != nil {
			return usagef("the file of --config: revocations.realm: it %v", err)
		}
	}
	seen := make(map[string]bool)
	for i := range r.Clients {
		if err := r.Clients[i].check(); err != nil {
			return err
		}
		if seen[r.Clients[i].ID] {
			return usagef("the file of --config: revocations.clients: client %s is there twice", quoteShort(r.Clients[i].ID))
		}
		seen[r.Clients[i].ID] = true
	}
	for _, id := range slices.Sorted(maps.Keys(r.Logout)) {
		if r.Logout[id].ClientID == "" {
			return usagef("the file of --config: revocations.logout.%s.client_id is missing: the client that the provider knows this service by", printable(id, false))
		}
	}
	return nil
}

// newTokenTTL returns a flag for the longest that a token lives.
func newTokenTTL() *option[time.Duration] {
	return newDuration(time.Second, 400*24*time.Hour, 0, "400 days")
}

func (c *revocationClient) check() error {
	name := "revocations.clients: client " + quoteShort(c.ID)
	switch {
	case c.ID == "":
		return usagef("the file of --config: revocations.clients: one has no id")
	case strings.ContainsFunc(c.ID, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' }):
		return usagef("the file of --config: %s: an id has printable ASCII without a colon, as HTTP Basic wants", name)
	case c.SecretFile == "":
		return usagef("the file of --config: %s has no secret_file", name)
	case c.Tenants != nil && len(c.Tenants) == 0:
		return usagef("the file of --config: %s: tenants is an empty list: name one, or leave the key out for all tenants", name)
	case len(c.May) == 0:
		return usagef("the file of --config: %s may do nothing: may is a list of %s and %s", name, mayIntrospect, mayRevoke)
	}
	for _, what := range c.May {
		if what != mayIntrospect && what != mayRevoke {
			return usagef("the file of --config: %s: may is a list of %s and %s", name, mayIntrospect, mayRevoke)
		}
	}
	return nil
}

// checkRevocationTenants refuses the name of a tenant that is not there. With tenants_dir one may come
// later.
func (c *configFile) checkRevocationTenants(tenants []server.Tenant) error {
	if c.Revocations == nil || c.TenantsDir != "" {
		return nil
	}
	known := func(id string) bool {
		return slices.ContainsFunc(tenants, func(t server.Tenant) bool { return t.Rules.ID == id })
	}
	for _, id := range slices.Sorted(maps.Keys(c.Revocations.Logout)) {
		switch i := slices.IndexFunc(tenants, func(t server.Tenant) bool { return t.Rules.ID == id }); {
		case i < 0:
			return usagef("the file of --config: revocations.logout: there is no tenant %s", quoteShort(id))
		case tenants[i].Rules.Issuer == "":
			return usagef("the file of --config: revocations.logout.%s: the tenant needs an issuer, which says whose logout token it is", printable(id, false))
		}
	}
	for _, client := range c.Revocations.Clients {
		for _, id := range client.Tenants {
			if !known(id) {
				return usagef("the file of --config: revocations.clients: client %s: there is no tenant %s", quoteShort(client.ID), quoteShort(id))
			}
		}
	}
	return nil
}

// addRevocations adds revocations of the file to the configuration of the server, whose tenants are
// known now.
func (s *serveCommand) addRevocations(file *configFile, cfg *server.Config) (err error) {
	if file.Revocations == nil {
		return nil
	}
	if err := file.checkRevocationTenants(cfg.Tenants); err != nil {
		return err
	}
	cfg.Revocations, err = s.fileRevocations(file)
	return err
}

// fileRevocations returns where the file says that the list is, and who may use it.
func (s *serveCommand) fileRevocations(file *configFile) (*server.Revocations, error) {
	c := file.Revocations
	out := &server.Revocations{Realm: c.Realm, MaxStale: c.maxStale, MaxTokenTTL: c.maxTokenTTL, StaleOK: c.StaleOK, Logout: make(map[string]server.Logout)}
	for id, l := range c.Logout {
		out.Logout[id] = server.Logout{ClientID: l.ClientID, Types: l.Types, TokensHaveSID: l.TokensHaveSID}
	}
	for i := range c.Clients {
		client, err := s.revocationClient(&c.Clients[i])
		if err != nil {
			return nil, err
		}
		out.Clients = append(out.Clients, client)
	}
	if s.reloading { // which changes the clients and the logouts alone
		return out, nil
	}
	return out, s.setRevocationStore(out, file)
}

func (s *serveCommand) revocationClient(c *revocationClient) (server.RevocationClient, error) {
	secret, err := s.fileSecret("secret_file of client "+quoteShort(c.ID)+" in the file of --config", c.SecretFile)
	if err != nil {
		return server.RevocationClient{}, err
	}
	if n, least := len(secret.bytes()), 32; n < least {
		return server.RevocationClient{}, usagef("the file of %s has %s: want at least %d; make one with: openssl rand -base64 32", secret.source, countOf(n, "byte"), least)
	}
	return server.RevocationClient{
		Client:     revocations.Client{ID: c.ID, Secret: secret.bytes(), Tenants: c.Tenants},
		Introspect: slices.Contains(c.May, mayIntrospect), Revoke: slices.Contains(c.May, mayRevoke),
	}, nil
}

// setRevocationStore sets where the list is. Without a Redis of its own it is where the rings are.
func (s *serveCommand) setRevocationStore(out *server.Revocations, file *configFile) error {
	c := file.Revocations
	rings := cmp.Or(file.Rings, new(ringsConfig))
	url, kekFile, link := c.Redis, c.KEKFile, c.link(s.app)
	if url == "" {
		url, kekFile, link = rings.Redis, cmp.Or(kekFile, rings.KEKFile), rings.link(s.app)
		out.Realm = cmp.Or(out.Realm, rings.Realm)
		if value, ok := s.env(envRedis); ok {
			url = value
		}
	}
	if url == "" {
		return usagef("the file of --config: revocations.redis is missing: the URL of the Redis that has the list; or set rings.redis or %s", envRedis)
	}
	for _, name := range []string{envKEK, envKEKFile} {
		if _, ok := s.env(name); ok {
			kekFile = ""
		}
	}
	keks, f, err := s.unseen().optionalKEKFile("revocations.kek_file in the file of --config", kekFile) // the server follows it by itself
	if err != nil {
		return err
	}
	if out.KEKs = keks; f != nil {
		out.KEKFile = f.follow(holdsSecret)
	}
	if out.Realm != "" && out.KEKs == nil {
		return usagef("the file of --config: revocations.realm goes with a KEK: give revocations.kek_file, or set %s", envKEKFile)
	}
	out.URL, out.Link, err = s.unseen().redisAt(url, link)
	return err
}
