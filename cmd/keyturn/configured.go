package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/verifier"
)

// A configured is the mode of --config: one verifier over tenants of all kinds.
type configured struct {
	*serveCommand
	config  *config
	rings   *rings // nil if there are none
	client  *jwks.Client
	sources map[string]*jwks.Source // of tenants by URL
	keys    map[string]keystore.KeyStore
}

// onConfig is the mode in which a file says whose tokens open the API.
func (s *serveCommand) onConfig(ctx context.Context) (_ *service, err error) {
	if flag := s.flagBesideConfig(); flag != "" {
		return nil, usagef("--config and --%s: the file says all of that; only --addr goes with it", flag)
	}
	cfg, err := readConfig(s.config.value)
	if err != nil {
		return nil, err
	}
	network := s.network
	network.Now, network.Logger = s.now, s.log
	c := &configured{
		serveCommand: s, config: cfg, client: jwks.New(network),
		sources: make(map[string]*jwks.Source), keys: make(map[string]keystore.KeyStore),
	}
	defer func() {
		if err != nil {
			c.close(ctx)
		}
	}()
	for i := range cfg.Tenants {
		if err := c.open(&cfg.Tenants[i]); err != nil {
			return nil, err
		}
	}
	if err := c.openRings(ctx); err != nil {
		return nil, err
	}
	v, err := verifier.New(verifier.Config{Tenants: c.tenants(), MaxTokenBytes: maxTokenBytes, Now: s.now})
	if err != nil {
		return nil, usagef("the file of --config: %s", plain(err))
	}
	return c.service(ctx, v), nil
}

// flagBesideConfig names a flag that was given beside --config, or "".
func (s *serveCommand) flagBesideConfig() string {
	switch {
	case s.ring.redis.given:
		return "redis"
	case s.secretFile.given:
		return "secret-file"
	case s.allowNoExp:
		return "allow-no-exp"
	}
	return s.ringFlag()
}

func (c *configured) service(ctx context.Context, v *verifier.Verifier) *service {
	o := &service{
		verifier: v, rings: c.rings, ready: c.ready, hint: func(*verifier.Error) string { return "" },
		intro: func(at endpoint) (string, error) { return c.intro(at), nil },
		close: func() { c.close(ctx) },
	}
	for _, t := range c.config.Tenants {
		if t.AnyIssuer || t.AnyAudience || t.AllowNoExp {
			o.warnings = append(o.warnings, "tenant "+quoteShort(t.ID)+" has waivers: "+t.waivers())
		}
	}
	for _, name := range []string{envSecret, envMastraSecret} {
		if _, ok := c.env(name); ok && !slices.ContainsFunc(c.config.Tenants, func(t tenantConfig) bool { return t.SecretEnv == name }) {
			o.warnings = append(o.warnings, name+" is not used: with --config, only what the file names opens the API")
		}
	}
	if c.rings != nil {
		put := func() error { return v.Put(c.tenants()...) }
		o.background = []func(context.Context){c.rings.turn, c.rings.watch, func(ctx context.Context) { c.awaitReady(ctx, c.rings, put) }}
	}
	return o
}

func (t *tenantConfig) waivers() string {
	var all []string
	for _, w := range []struct {
		name  string
		given bool
	}{{"any_issuer", t.AnyIssuer}, {"any_audience", t.AnyAudience}, {"allow_no_exp", t.AllowNoExp}} {
		if w.given {
			all = append(all, w.name)
		}
	}
	return strings.Join(all, ", ")
}

// close ends what reads keys, the last first.
func (c *configured) close(ctx context.Context) {
	if c.rings != nil {
		c.rings.close()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), issuerTime)
	defer cancel()
	if err := c.client.Close(ctx); err != nil {
		c.log.Warn("not all fetches of keys have ended", "err", err)
	}
}

// open finds the keys of a tenant that has no ring. It waits for no issuer.
func (c *configured) open(t *tenantConfig) (err error) {
	var keys keystore.KeyStore
	switch {
	case t.Kind == kindStatic:
		keys, err = c.secretKeys(t)
	case t.JWKSFile != "":
		keys, err = c.fileKeys(t)
	case t.Kind == kindJWKS:
		keys, err = c.issuerKeys(t)
	default:
		return nil
	}
	c.keys[t.ID] = keys
	return err
}

func (c *configured) secretKeys(t *tenantConfig) (keystore.KeyStore, error) {
	if len(t.algs) == 0 {
		t.algs = []keystore.Algorithm{keystore.HS256}
	}
	secret, err := c.secretOf(t)
	if err != nil {
		return nil, err
	}
	var keys []*keystore.Key
	for _, alg := range t.algs {
		if !alg.Symmetric() {
			return nil, t.failf("algorithms: a shared secret verifies HS256, HS384 and HS512 only")
		}
		k, err := secret.key(keystore.ID{Tenant: t.ID, KID: t.KID}, alg)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return newStatic(keys...)
}

func (c *configured) secretOf(t *tenantConfig) (*secret, error) {
	if t.SecretFile != "" {
		return c.fileSecret(t.name("secret_file"), t.SecretFile)
	}
	text, ok := c.env(t.SecretEnv)
	if !ok || text == "" {
		return nil, t.failf("secret_env: there is no such variable in the environment, or it is empty")
	}
	return newSecret([]byte(text), t.name("secret_env")), nil
}

// name is what a field of a tenant is called in errors.
func (t *tenantConfig) name(field string) string {
	return field + " of tenant " + quoteShort(t.ID) + " in the file of --config"
}

func (c *configured) fileKeys(t *tenantConfig) (keystore.KeyStore, error) {
	doc, err := readFile(t.name("jwks_file"), t.JWKSFile, "a JWK Set")
	if err != nil {
		return nil, err
	}
	keys, skipped, err := jwks.ParseWithSecrets(t.ID, doc)
	switch {
	case err != nil:
		return nil, t.failf("jwks_file: %s", plain(err))
	case len(keys) == 0:
		return nil, t.failf("jwks_file: no key of the set is usable")
	}
	for _, s := range skipped {
		c.log.Warn("a key is skipped", "tenant", t.ID, "key", s.String())
	}
	return newStatic(keys...)
}

func (c *configured) issuerKeys(t *tenantConfig) (keystore.KeyStore, error) {
	open, field, address := c.client.Open, "jwks_url", t.JWKSURL
	if t.IssuerURL != "" {
		open, field, address = c.client.Discover, "issuer_url", t.IssuerURL
	}
	source, err := open(t.ID, address, jwks.SourceConfig{AllowLoopback: t.AllowLoopback})
	if err != nil {
		text := plain(err)
		if e := new(jwks.Error); errors.As(err, &e) {
			text = strings.ReplaceAll(issuerText(e), "--allow-loopback", "allow_loopback: true")
		}
		return nil, t.failf("%s: %s", field, text)
	}
	c.sources[t.ID] = source
	return source, nil
}

// openRings opens the rings of all tenants that have one, as the flags would.
func (c *configured) openRings(ctx context.Context) error {
	said := c.config.Rings
	if said == nil {
		return nil
	}
	s := c.serveCommand
	if err := s.ring.redis.Set(said.Redis); err != nil {
		return usagef("the file of --config: rings.redis %v", err)
	}
	if said.KEKFile != "" {
		if err := s.ring.kekFile.Set(said.KEKFile); err != nil {
			return usagef("the file of --config: rings.kek_file %v", err)
		}
	}
	s.bootstrap = said.Bootstrap
	for name, value := range said.Policy {
		if err := s.policy.set(name, value.Value); err != nil {
			return usagef("the file of --config: line %d: rings.policy: %v", value.Line, err)
		}
	}
	if name := s.policy.given(); name != "" && !s.bootstrap {
		return usagef("the file of --config: rings.policy is for the rings that bootstrap makes; those that are there have their own")
	}
	for _, t := range c.config.Tenants {
		if t.Kind == kindRing {
			s.tenants.values = append(s.tenants.values, t.ID)
		}
	}
	var err error
	c.rings, err = s.openRings(ctx, c.publicIssuer)
	return err
}

// publicIssuer returns the issuer of a tenant if readers can find its keys by it.
func (c *configured) publicIssuer(tenant string) string {
	for _, t := range c.config.Tenants {
		if t.ID == tenant && isWebURL(t.Issuer) {
			return t.Issuer
		}
	}
	return ""
}

// isWebURL reports whether an issuer is one that metadata can be had from.
func isWebURL(issuer string) bool {
	u, err := url.Parse(issuer)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && !strings.ContainsAny(issuer, "?#")
}

// tenants returns the rules of all tenants, as their rings are now.
func (c *configured) tenants() []verifier.Tenant {
	var all []verifier.Tenant
	for _, said := range c.config.Tenants {
		t := verifier.Tenant{
			ID: said.ID, Keys: c.keys[said.ID], Algorithms: said.algs, Issuer: said.Issuer, Audiences: said.Audiences, Leeway: said.leeway,
			AnyIssuer: said.AnyIssuer, AnyAudience: said.AnyAudience, AllowNoExpiry: said.AllowNoExp, MixedFamilies: said.JWKSFile != "",
		}
		if said.Kind == kindRing {
			c.rings.rules(&t)
		}
		all = append(all, t)
	}
	return all
}

// ready tells of each tenant whether its tokens can be verified. An issuer that is
// away keeps nobody else's tokens from being verified: then all are degraded, unless
// there is nobody else.
func (c *configured) ready() (all string, each map[string]tenantReady) {
	all, each = stateReady, make(map[string]tenantReady)
	if c.rings != nil {
		all, each = c.rings.ready()
	}
	for _, t := range c.config.Tenants {
		if source := c.sources[t.ID]; source != nil {
			each[t.ID] = sourceReady(source.Status())
		} else if t.Kind != kindRing {
			each[t.ID] = tenantReady{Status: stateReady}
		}
		if each[t.ID].Status != stateReady && all == stateReady {
			all = stateDegraded
		}
	}
	for _, one := range each {
		if one.Status != stateNotReady {
			return all, each
		}
	}
	return stateNotReady, each
}

// sourceReady says how an issuer's keys stand, in words that anyone may read.
func sourceReady(status jwks.Status) tenantReady {
	one := tenantReady{Status: stateReady}
	switch {
	case status.Asleep: // and its last attempt went well
		one.Reason = "asleep: the issuer is asked with the next token"
		return one
	case status.State == jwks.Fresh, status.State == jwks.Aging:
		return one
	case status.State == jwks.Stale:
		one.Status, one.Reason = stateDegraded, "the issuer's keys are stale"
	case status.State == jwks.Cold:
		one.Status, one.Reason = stateNotReady, "the issuer has not answered yet"
	default:
		one.Status, one.Reason = stateNotReady, "the issuer's keys are too old"
	}
	if e := new(jwks.Error); status.Failures > 0 && errors.As(status.LastError, &e) {
		one.Reason += "; last failure: " + stepName(e.Step)
	}
	return one
}

func (c *configured) intro(at endpoint) string {
	var b strings.Builder
	fmt.Fprintf(&b, "keyturn serve: tokens of %d tenants open the API\n", len(c.config.Tenants))
	b.WriteString(at.addresses())
	for _, t := range c.config.Tenants {
		iss := "any issuer"
		if t.Issuer != "" {
			iss = "the issuer " + quoteShort(t.Issuer)
		}
		fmt.Fprintf(&b, "  tenant %s (%s), of %s\n", quoteShort(t.ID), t.Kind, iss)
	}
	return b.String()
}
