package main

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/server"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/verifier"
)

// offerFile offers the mode of --config: one server for tenants of all kinds.
func (s *serveCommand) offerFile() (*offer, error) {
	if flag := s.flagBesideConfig(); flag != "" {
		return nil, usagef("--config and --%s: the file says all of that; only --addr, --admin, --drain, --upstream, --first-byte, --forward-token and --max-token-bytes go with it", flag)
	}
	file, err := s.readConfig(s.configFile.value)
	if err != nil {
		return nil, err
	}
	o := &offer{file: file, reloads: true}
	o.server = server.Config{Issuers: s.network, MaxTokenBytes: file.MaxTokenBytes, TokenHeaders: file.FromHeader, Reload: server.Reload{Every: file.Reload.every}, Metrics: file.Metrics.config()}
	if o.server.Tenants, err = s.fileTenants(file); err != nil {
		return nil, err
	}
	if err := file.checkRings(); err != nil {
		return nil, err
	}
	if err := file.addAuthz(&o.server); err != nil {
		return nil, err
	}
	o.warnings = s.fileWarnings(file)
	if file.Admin != nil {
		o.server.Admin = file.Admin.Addr
	}
	if file.Rings != nil && slices.ContainsFunc(file.Tenants, func(t tenantConfig) bool { return t.Kind == kindRing }) {
		if o.server.Rings, err = s.fileRings(file.Rings); err != nil {
			return nil, err
		}
	}
	if err := s.addRevocations(file, &o.server); err != nil {
		return nil, err
	}
	o.intro = func(srv *server.Server) string { return fileIntro(endpoint(srv.Endpoint()), file) }
	return o, nil
}

// flagBesideConfig returns the name of a flag that was given and does not go with --config, or "".
func (s *serveCommand) flagBesideConfig() string {
	switch {
	case s.ring.redis.given:
		return "redis"
	case s.secretFile.given:
		return "secret-file"
	case s.allowNoExp:
		return "allow-no-exp"
	case len(s.tolerate.values) > 0:
		return "tolerate"
	}
	return s.ringFlag()
}

func (s *serveCommand) fileWarnings(file *configFile) []string {
	var warnings, used []string
	for _, t := range file.Tenants {
		if waivers := t.waivers(); waivers != "" {
			warnings = append(warnings, "tenant "+quoteShort(t.ID)+" has waivers: "+waivers)
		}
		used = append(used, t.SecretEnv)
	}
	if c := file.Revocations; c != nil && c.StaleOK {
		warnings = append(warnings, "revocations has a waiver: stale_ok: without Redis, what is revoked meanwhile is accepted")
	}
	if c := file.Rings; c != nil {
		for _, name := range []string{envRedis, envKEK, envKEKFile} {
			_, set := s.env(name)
			field, value := "kek_file", c.KEKFile
			if name == envRedis {
				field, value = "redis", c.Redis
			}
			if set && value != "" {
				warnings = append(warnings, name+" is used in place of rings."+field)
			}
		}
		if _, set := s.env(envRedisPassword); set && c.RedisPasswordFile != "" {
			warnings = append(warnings, envRedisPassword+" is used in place of rings.redis_password_file")
		}
	}
	return append(warnings, s.unusedSecrets("with --config, only what the file names opens the API", used...)...)
}

// waivers lists the rules that a tenant waives.
func (t *tenantConfig) waivers() string {
	var all []string
	for _, w := range []struct {
		name  string
		given bool
	}{{"any_issuer", t.AnyIssuer}, {"any_audience", t.AnyAudience}, {"allow_no_exp", t.AllowNoExp}, {"shared_secret", t.SharedSecret}} {
		if w.given {
			all = append(all, w.name)
		}
	}
	return strings.Join(all, ", ")
}

// fileTenant returns a tenant of the file as the server takes it.
func (s *serveCommand) fileTenant(t *tenantConfig, owners secretOwners) (server.Tenant, error) {
	tenant := server.Tenant{Ring: t.Kind == kindRing, Rules: verifier.Tenant{
		ID: t.ID, Algorithms: t.algs, Issuer: t.Issuer, Audiences: t.Audiences, Leeway: t.leeway,
		AnyIssuer: t.AnyIssuer, AnyAudience: t.AnyAudience, AllowNoExpiry: t.AllowNoExp, MixedFamilies: t.JWKSFile != "" || t.hasSecretBeside(),
		OtherIssuers: t.OtherIssuers, Match: t.Match, MatchHeader: t.MatchHeader, Required: t.Required, Types: t.Types, Tolerate: t.tolerances,
	}}
	var err error
	switch {
	case t.Kind == kindStatic:
		if len(t.algs) == 0 {
			tenant.Rules.Algorithms = []keystore.Algorithm{keystore.HS256}
		}
		tenant.Rules.Keys, err = s.secretKeys(t, tenant.Rules.Algorithms, owners)
	case t.JWKSFile != "":
		tenant.Rules.Keys, err = s.fileKeys(t, owners)
	case t.Kind == kindJWKS:
		if tenant.Source, err = s.fileSource(t); err == nil && t.hasSecretBeside() {
			tenant.Rules.Keys, err = s.secretKeys(t, slices.DeleteFunc(slices.Clone(t.algs), func(alg keystore.Algorithm) bool { return !alg.Symmetric() }), owners)
		}
	}
	return tenant, err
}

// sourceConfig returns how the sets of a tenant are read.
func (t *tenantConfig) sourceConfig() jwks.SourceConfig {
	return jwks.SourceConfig{Uses: t.Uses, MaxKeys: t.MaxKeys, MaxBytes: t.MaxBytes}
}

// fileSource returns where and how the keys of a tenant are read over HTTP.
func (s *serveCommand) fileSource(t *tenantConfig) (*server.Source, error) {
	r := reach{
		allowLoopback: t.AllowLoopback, allowHTTP: t.AllowHTTP, allowCIDR: t.networks, proxy: t.proxy,
		caFile: t.CAFile, tokenFile: t.BearerTokenFile, file: t.name,
		name: func(setting string) string {
			return cmp.Or(map[string]string{allowHTTP: allowHTTP + ": true", allowLoopback: allowLoopback + ": true"}[setting], setting)
		},
	}
	source, err := s.app.source(t.IssuerURL, t.JWKSURL, r, t.sourceConfig())
	if err != nil && !errors.As(err, new(*exitError)) {
		err = t.errorf("%v", err)
	}
	if err == nil {
		source.PEMURL = t.PEMURL
	}
	return source, err
}

// secretKeys returns the shared secret of a tenant as a key for each algorithm.
func (s *serveCommand) secretKeys(t *tenantConfig, algs []keystore.Algorithm, owners secretOwners) (keystore.KeyStore, error) {
	secret, err := s.fileTenantSecret(t)
	if err == nil {
		err = owners.add(t, secret.bytes())
	}
	if err != nil {
		return nil, err
	}
	var keys []*keystore.Key
	for _, alg := range algs {
		if !alg.Symmetric() {
			return nil, t.errorf("algorithms: a shared secret verifies HS256, HS384 and HS512 only")
		}
		k, err := secret.key(keystore.ID{Tenant: t.ID, KID: t.KID}, alg)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return newStatic(keys...)
}

func (s *serveCommand) fileTenantSecret(t *tenantConfig) (*secret, error) {
	if t.SecretFile != "" {
		return s.fileSecret(t.name("secret_file"), t.SecretFile)
	}
	text, ok := s.env(t.SecretEnv)
	if !ok || text == "" {
		return nil, t.errorf("secret_env: there is no such variable in the environment, or it is empty")
	}
	return newSecret([]byte(text), t.name("secret_env")), nil
}

// fileKeys returns the keys of a tenant's jwks_file.
func (s *serveCommand) fileKeys(t *tenantConfig, owners secretOwners) (keystore.KeyStore, error) {
	f, err := s.readFile(t.name("jwks_file"), t.JWKSFile, "a JWK Set", holdsRules)
	if err != nil {
		return nil, err
	}
	keys, skipped, err := jwks.ParseWithSecrets(t.ID, f.text)
	switch {
	case err != nil:
		return nil, t.errorf("jwks_file: %s", errorText(err))
	case len(keys) == 0:
		return nil, t.errorf("jwks_file: no key of the set is usable")
	}
	if err := s.judgeSet(f, keys); err != nil {
		return nil, err
	}
	for _, secret := range setSecrets(f.text, keys) {
		if err := owners.add(t, secret); err != nil {
			return nil, err
		}
	}
	for _, k := range skipped {
		s.log.Warn("a key is skipped", "tenant", t.ID, "key", k.String())
	}
	if r, err := jwks.Inspect(t.ID, f.text); err == nil {
		for _, k := range r.Irregular {
			s.log.Warn("a key is irregular: it serves, but other readers may refuse it", "tenant", t.ID, "key", k.String())
		}
	}
	return newStatic(keys...)
}

// fileRings returns where the file says that the rings are.
func (s *serveCommand) fileRings(c *ringsConfig) (*server.Rings, error) {
	policy, err := filePolicy(c.Policy)
	switch {
	case err != nil:
		return nil, err
	case len(c.Policy) > 0 && !c.Bootstrap:
		return nil, usagef("the file of --config: rings.policy is for the rings that bootstrap makes; those that are there have their own")
	}
	if c.Realm != "" {
		if _, err := parseRealm(c.Realm); err != nil {
			return nil, usagef("the file of --config: rings.realm: it %v", err)
		}
	}
	for _, other := range c.OtherRealms {
		if _, err := parseOtherRealm(other); err != nil {
			return nil, usagef("the file of --config: rings.other_realms: one %v", err)
		}
	}
	if err := checkRealms("the file of --config: rings.other_realms", c.Realm, c.OtherRealms); err != nil {
		return nil, err
	}
	rings := &server.Rings{MayBeAway: true, Snapshot: c.Snapshot, Hint: noRingHint(c.Bootstrap), Realm: c.Realm, OtherRealms: c.OtherRealms}
	url, kekFile, err := s.ringsFromEnv(c)
	if err != nil {
		return nil, err
	}
	if c.Bootstrap {
		if err := checkPolicy(policy); err != nil {
			return nil, err
		}
		rings.Bootstrap = &policy
	}
	if s.reloading { // which changes nothing of the rings, and follows other files
		return rings, nil
	}
	if err := s.setKEKs(rings, "rings.kek_file in the file of --config", kekFile); err != nil {
		return nil, err
	}
	rings.URL, rings.Link, err = s.unseen().redisAt(url, c.link(s.app))
	return rings, err
}

// ringsFromEnv returns where the rings are, and the file of their KEKs. The environment beats the file of
// --config, so that one file can serve in several places. kekFile is "" if the environment has the KEKs.
func (s *serveCommand) ringsFromEnv(c *ringsConfig) (url, kekFile string, err error) {
	if err := s.ring.fromEnv(s.app, false); err != nil {
		return "", "", err
	}
	url, kekFile = c.Redis, c.KEKFile
	if s.ring.redis.given {
		url = s.ring.redis.value
	}
	if url == "" {
		return "", "", usagef("the file of --config: tenants of kind ring need rings.redis, the URL of the Redis that has them; or set %s", envRedis)
	}
	for _, name := range []string{envKEK, envKEKFile} {
		if _, ok := s.env(name); ok {
			kekFile = ""
		}
	}
	return url, kekFile, nil
}

// sourceError returns the words for a URL of a tenant that no keys can be read from.
func (c *configFile) sourceError(tenant string, err error) error {
	for i := range c.Tenants {
		if t := &c.Tenants[i]; t.ID == tenant {
			return t.sourceError(err)
		}
	}
	return err
}

func (t *tenantConfig) sourceError(err error) error {
	field := "jwks_url"
	switch {
	case t.IssuerURL != "":
		field = "issuer_url"
	case t.PEMURL != "":
		field = "pem_url"
	}
	text := errorText(err)
	if e := new(jwks.Error); errors.As(err, &e) {
		text = issuerText(e, settingField)
	}
	return t.errorf("%s: %s", field, text)
}
