package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/server"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/verifier"
)

// configForm is what the help says of the file of --config.
const configForm = `With --config a YAML file says whose tokens are good, and nothing is assumed. It holds
no secret, only the names of files (seen from its own folder) and of variables:

    listen: {addr: ":4111"}            # as --addr, which beats it; also unix, unix_mode, tls
    admin: {addr: 127.0.0.1:9102}      # as --admin, which beats it
    metrics: {tenants: 20}             # how many tenants /metrics names, on the admin listener; else none
    drain: 5s                          # as --drain, which beats it
    reload: {every: 10s}               # how often all files are read again; 0s: only at SIGHUP
    rings:                             # for tenants of kind ring
      redis: redis://localhost:6379    # KEYTURN_REDIS beats it
      redis_password_file: password    # KEYTURN_REDIS_PASSWORD beats it
      kek_file: kek                    # KEYTURN_KEK_FILE or KEYTURN_KEK beats it
      realm: production                # as --realm; none if it is left out
      other_realms: [old]              # as --other-realm, while rings move to another realm
      snapshot: rings.snapshot         # as --snapshot; written by the server
      bootstrap: true                  # make the rings that are not there, with this policy
      policy: {alg: ES256, every: 30d, max-ttl: 15m}
    revocations:                       # of tokens before their end; none if it is left out
      redis: redis://localhost:6379    # as rings, if it is left out; also redis_tls and the rest
      kek_file: kek                    # KEYTURN_KEK_FILE or KEYTURN_KEK beats it; may be left out
      max_stale: 60s                   # without Redis for longer, every token is 503
      stale_ok: false                  # true: the last known list serves on
      max_token_ttl: 24h               # the longest that a token lives; 400 days if left out
      clients: [{id: orders, secret_file: orders.secret, may: [introspect, revoke]}]
      logout: {globex: {client_id: shop}} # whose providers send logout tokens
    max_token_bytes: 16384             # as --max-token-bytes, which beats it
    from_header: [Cf-Access-Jwt-Assertion] # where the token is; else in Authorization
    upstream:                          # the service behind the server, in place of the demo API
      url: http://127.0.0.1:3000       # as --upstream, which beats it; h2c:// for gRPC
      forward_token: false             # true: the service gets the token too
      preserve_host: true              # false: the service sees its own name in Host
      public: ["GET /robots.txt"]      # need no token, in exactly this spelling and without a query
      preflight: refuse                # pass: the service answers the preflights of browsers
      publish: false                   # true: the public keys of rings are published here too
      streams: token                   # request: an answer may outlive its token
      recheck: 5s                      # how often an answer that goes on is asked about again
      dial: 2s                         # how long the service may take to accept a connection,
      first_byte: 30s                  # and to begin its answer; 0s: for ever
      idle: 2m                         # how long a request or an answer may stand still
      max_body: 0                      # bytes that a request may have; 0: any number
    trusted_proxies: [10.0.0.0/8]      # whose X-Forwarded-For, -Proto and -Host are believed
    tenants:
      - {id: acme, kind: static, secret_file: acme.secret, issuer: https://acme.example, audiences: [api]}
      - {id: globex, kind: jwks, issuer_url: https://login.globex.example, algorithms: [RS256], audiences: [api]}
      - {id: initech, kind: ring, issuer: https://auth.example/initech, audiences: [api]}

docs/serve.md has every key, and which of them need a restart. tenants_dir names a folder
with one more tenant a file: a broken one keeps the last good of its tenant. With

    listen:
      addr: ":8443"
      tls: {cert_file: c.pem, key_file: k.pem, client_ca_file: ca.pem, client_names: [gw.example]}
      unix: /run/keyturn/authz.sock    # a socket too
      unix_mode: "0660"

clients over TLS need a certificate of that authority with that URI or DNS name.

For reverse proxies that ask at /authz, /authz/NAME or /ext-authz/NAME, and for an upstream:

    identity: {prefix: X-Auth-, claims: {Email: email}} # headers that tell whose request it is
    authz: {profiles: {default: {}, orders-write: {scopes: [orders:write], audiences: [api], tenant: acme}}}

revocations opens POST /introspect (RFC 7662), /revoke (RFC 7009) and /backchannel-logout,
the last for a tenant of logout, which may have types: [JWT] and tokens_have_sid: true;
a client may have tenants: [acme], and its secret has 32 bytes or more. See docs/revocation.md.

identity may have assertion: {tenant: T, audience: A}, for a token in X-Auth-Assertion that T's
ring signs. authz may have wait (150ms: how long a key is looked for), cannot_tell (503, or 403
for an Envoy that lets in what it cannot ask about) and forward_token (Envoy keeps the token).

A static tenant has secret_file or secret_env, and may have a kid; its algorithms are
[HS256] unless it says otherwise. One of kind jwks has jwks_file, jwks_url, issuer_url, or
pem_url: where each key is, in PEM, with {kid} for its kid. It may have allow_loopback; its
issuer is issuer_url unless it says otherwise. With a URL, uses: [jwt-svid] lets keys of
another use serve than sig, and max_keys and max_bytes raise what a set may have (512 that
serve, 1 MiB). A secret_file or secret_env, with its kid, serves beside a set if algorithms
has HS256 too. For an issuer that is not a public one:

    allow_cidr: [10.0.0.0/8]           # networks that may be asked although they are private
    allow_http: true                   # http in these networks, as to http://keycloak:8080
    proxy: http://proxy.example:3128   # that this tenant's keys are fetched through
    ca_file: ca.pem                    # the authorities to trust instead of the system's
    bearer_token_file: token           # that the issuer wants to see; read at each fetch

For a Redis with TLS (rediss) rings may have redis_tls, with ca_file, cert_file, key_file,
server_name and min_version, as the flags of these names; and sentinel_password_file.

Each may have a leeway, and any_audience, any_issuer (if it is alone) or allow_no_exp. Two
tenants with one secret are refused, unless both have shared_secret: true. Each may have

    other_issuers: [login.globex.example]            # accepted beside issuer
    match: {azp: [web], realm_access.roles: [admin]} # claims, and the values that they may have
    match_header: {signer: [arn:aws:elb]}            # parameters of the token's header
    required: [sub, email]                           # claims that must be there
    types: [at+jwt]                                  # the typ of its tokens; "" stands for none
    tolerate: [numeric-sub]                          # as --tolerate: see keyturn inspect`

// A configFile is the file of --config.
type configFile struct {
	Listen  *listenConfig  `yaml:"listen"`
	Admin   *adminConfig   `yaml:"admin"`
	Reload  reloadConfig   `yaml:"reload"`
	Drain   string         `yaml:"drain"`
	Rings   *ringsConfig   `yaml:"rings"`
	Tenants []tenantConfig `yaml:"tenants"`

	TenantsDir string `yaml:"tenants_dir"`

	MaxTokenBytes int      `yaml:"max_token_bytes"` // 0: the default
	FromHeader    []string `yaml:"from_header"`

	Upstream       *upstreamConfig `yaml:"upstream"`
	TrustedProxies []string        `yaml:"trusted_proxies"`
	Identity       *identityConfig `yaml:"identity"`
	Authz          *authzConfig    `yaml:"authz"`

	Metrics metricsConfig `yaml:"metrics"`

	Revocations *revocationsConfig `yaml:"revocations"`

	drain        *time.Duration           // nil: the default
	ids, issuers map[string]*tenantConfig // of the tenants, by what each has alone
}

type adminConfig struct {
	Addr string `yaml:"addr"`
}

type reloadConfig struct {
	Every string `yaml:"every"`

	every time.Duration // as [server.Reload] takes it
}

type ringsConfig struct {
	Redis   string `yaml:"redis"`
	KEKFile string `yaml:"kek_file"`

	RedisPasswordFile    string         `yaml:"redis_password_file"`
	SentinelPasswordFile string         `yaml:"sentinel_password_file"`
	RedisTLS             redisTLSConfig `yaml:"redis_tls"`

	Snapshot    string               `yaml:"snapshot"`
	Realm       string               `yaml:"realm"`
	OtherRealms []string             `yaml:"other_realms"`
	Bootstrap   bool                 `yaml:"bootstrap"`
	Policy      map[string]yaml.Node `yaml:"policy"` // by the names of the flags

	section string // of the file, for errors; "" is rings
}

type tenantConfig struct {
	ID            string   `yaml:"id"`
	Kind          string   `yaml:"kind"`
	SecretFile    string   `yaml:"secret_file"`
	SecretEnv     string   `yaml:"secret_env"`
	KID           string   `yaml:"kid"`
	JWKSFile      string   `yaml:"jwks_file"`
	JWKSURL       string   `yaml:"jwks_url"`
	PEMURL        string   `yaml:"pem_url"`
	IssuerURL     string   `yaml:"issuer_url"`
	AllowLoopback bool     `yaml:"allow_loopback"`
	Algorithms    []string `yaml:"algorithms"`
	Issuer        string   `yaml:"issuer"`
	Audiences     []string `yaml:"audiences"`
	Leeway        string   `yaml:"leeway"`
	AnyIssuer     bool     `yaml:"any_issuer"`
	AnyAudience   bool     `yaml:"any_audience"`
	AllowNoExp    bool     `yaml:"allow_no_exp"`
	SharedSecret  bool     `yaml:"shared_secret"`
	Uses          []string `yaml:"uses"`
	MaxKeys       int      `yaml:"max_keys"`
	MaxBytes      int      `yaml:"max_bytes"`

	AllowCIDR       []string `yaml:"allow_cidr"`
	AllowHTTP       bool     `yaml:"allow_http"`
	Proxy           string   `yaml:"proxy"`
	CAFile          string   `yaml:"ca_file"`
	BearerTokenFile string   `yaml:"bearer_token_file"`

	OtherIssuers []string            `yaml:"other_issuers"`
	Match        map[string][]string `yaml:"match"`
	MatchHeader  map[string][]string `yaml:"match_header"`
	Required     []string            `yaml:"required"`
	Types        []string            `yaml:"types"`
	Tolerate     []string            `yaml:"tolerate"`

	file   string // of tenants_dir; "" for a tenant of the file of --config
	broken error  // why the file of tenants_dir cannot be used

	line   int
	algs   []keystore.Algorithm
	leeway time.Duration

	tolerances []verifier.Tolerance
	networks   []netip.Prefix
	proxy      *url.URL

	secrets [][sha256.Size]byte // digests of its secrets
}

// The kinds of tenants.
const (
	kindStatic = "static"
	kindJWKS   = "jwks"
	kindRing   = "ring"
)

// readConfig reads the file. It refuses fields that it does not know.
func (a *app) readConfig(path string) (*configFile, error) {
	f, err := a.readFile("--config", path, "the configuration, as YAML", holdsRules)
	if err != nil {
		return nil, err
	}
	c, err := parseConfig(f.text)
	if err != nil {
		return nil, err
	}
	c.resolve(filepath.Dir(path))
	if c.TenantsDir == "" {
		return c, nil
	}
	return c, c.readFolder(a)
}

func parseConfig(doc []byte) (*configFile, error) {
	c := new(configFile)
	d := yaml.NewDecoder(bytes.NewReader(doc))
	d.KnownFields(true)
	switch err := d.Decode(c); {
	case errors.Is(err, io.EOF):
		return nil, usagef("the file of --config is empty: it needs tenants; see keyturn serve --help for an example")
	case err != nil:
		return nil, usagef("the file of --config: %s", yamlText(err))
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, usagef("the file of --config has more than one document")
	}
	var lines struct {
		Tenants []yaml.Node `yaml:"tenants"`
	}
	var root yaml.Node
	if err := errors.Join(yaml.Unmarshal(doc, &lines), yaml.Unmarshal(doc, &root)); err != nil {
		return nil, usagef("the file of --config: %s", yamlText(err))
	}
	if line := emptyElement(&root); line > 0 {
		return nil, usagef("the file of --config: line %d: an element of a list is empty", line)
	}
	for i := range c.Tenants {
		c.Tenants[i].line = lines.Tenants[i].Line
	}
	return c, c.check()
}

// emptyElement returns the line of an empty element of a list, or 0. The decoder would leave such an
// element out without a word.
func emptyElement(n *yaml.Node) int {
	for _, child := range n.Content {
		element := child
		if child.Kind == yaml.AliasNode {
			element = child.Alias
		}
		if n.Kind == yaml.SequenceNode && element.ShortTag() == "!!null" {
			return child.Line
		}
		if line := emptyElement(child); line > 0 {
			return line
		}
	}
	return 0
}

var (
	yamlUnknown = regexp.MustCompile(`^line ([0-9]+): field (\S+) not found in type`)
	yamlTwice   = regexp.MustCompile(`^line ([0-9]+): mapping key "(\w+)" already defined at line ([0-9]+)`)
	yamlLine    = regexp.MustCompile(`line ([0-9]+): `)
)

// allFields reports whether all unknown fields look like fields. A comma in a value without quotes,
// as in {redis: redis://user:pa,ss@host}, makes a field of each part. The last part has the @.
func allFields(all []string) bool {
	for _, text := range all {
		if m := yamlUnknown.FindStringSubmatch(text); m != nil && (len(m[2]) > 40 || strings.Trim(m[2], fieldLetters) != "") {
			return false
		}
	}
	return true
}

const fieldLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"

// yamlText says where the file is wrong, and why. It leaves out the values, since one of them may be
// a secret in the wrong place.
func yamlText(err error) string {
	text, all := err.Error(), []string(nil)
	if e := new(yaml.TypeError); errors.As(err, &e) && len(e.Errors) > 0 {
		text, all = e.Errors[0], e.Errors
	}
	if m := yamlUnknown.FindStringSubmatch(text); m != nil {
		if !allFields(all) {
			return fmt.Sprintf("line %s: unknown field, which has no name of one: put a value that has a comma, a brace or a colon into single quotes", m[1])
		}
		return fmt.Sprintf("line %s: unknown field %s", m[1], quoteShort(m[2]))
	}
	if m := yamlTwice.FindStringSubmatch(text); m != nil {
		if m[1] == m[3] {
			return fmt.Sprintf("line %s: a field is there twice, or a value that has a comma is not in single quotes", m[1])
		}
		return fmt.Sprintf("line %s: %s is there twice", m[1], quoteShort(m[2]))
	}
	where := ""
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		where = "line " + m[1] + ": "
	}
	if e := new(yaml.TypeError); errors.As(err, &e) {
		return where + "the value is of the wrong type: see keyturn serve --help for an example"
	}
	return where + "this is not YAML"
}

// errorf returns an error about a tenant.
func (t *tenantConfig) errorf(format string, args ...any) error {
	name := ""
	if t.ID != "" {
		name = " (tenant " + quoteShort(t.ID) + ")"
	}
	if t.file != "" {
		return fileErrorf(t.file, "line %d%s: %s", t.line, name, fmt.Sprintf(format, args...))
	}
	return usagef("the file of --config: line %d%s: %s", t.line, name, fmt.Sprintf(format, args...))
}

// name returns the name of a tenant's field for errors.
func (t *tenantConfig) name(field string) string {
	where := " in the file of --config"
	if t.file != "" {
		where = " " + t.place()
	}
	return field + " of tenant " + quoteShort(t.ID) + where
}

// resolve makes relative paths of files relative to folder, in which the configuration is.
func (c *configFile) resolve(folder string) {
	resolveAll(folder, &c.TenantsDir)
	if c.Rings != nil {
		resolveAll(folder, c.Rings.files()...)
	}
	if c.Revocations != nil {
		resolveAll(folder, c.Revocations.files()...)
	}
	c.Listen.resolve(folder)
	for i := range c.Tenants {
		c.Tenants[i].resolve(folder)
	}
}

// check refuses contradictions, and fills in what follows from the other fields. The tenants of
// tenants_dir are not there yet.
func (c *configFile) check() error {
	if len(c.Tenants) == 0 && c.TenantsDir == "" {
		return usagef("the file of --config has no tenants; see keyturn serve --help for an example")
	}
	if err := c.checkServer(); err != nil {
		return err
	}
	c.ids, c.issuers = make(map[string]*tenantConfig), make(map[string]*tenantConfig)
	for i := range c.Tenants {
		t := &c.Tenants[i]
		if err := t.check(len(c.Tenants) == 1 && c.TenantsDir == ""); err != nil {
			return err
		}
		if err := c.claim(t); err != nil {
			return err
		}
	}
	if c.TenantsDir != "" {
		return nil
	}
	return c.checkRings()
}

// checkServer checks the settings that concern no single tenant.
func (c *configFile) checkServer() error {
	if err := c.Listen.check(); err != nil {
		return usagef("the file of --config: listen.%v", err)
	}
	if c.Admin != nil && c.Admin.Addr == "" {
		return usagef("the file of --config: admin.addr is missing: where to listen, such as 127.0.0.1:9102")
	}
	if err := c.Reload.parse(); err != nil {
		return usagef("the file of --config: reload.every: %v", err)
	}
	if c.Drain != "" {
		drain := newDrain()
		if err := drain.Set(c.Drain); err != nil {
			return usagef("the file of --config: drain: %v", err)
		}
		c.drain = &drain.value
	}
	if c.MaxTokenBytes != 0 {
		if err := checkMaxTokenBytes(c.MaxTokenBytes); err != nil {
			return usagef("the file of --config: max_token_bytes: %v", err)
		}
	}
	for _, check := range []func() error{c.checkHeaders, c.checkUpstream, c.checkAuthz, c.checkMetrics, c.checkRevocations} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// checkRings refuses rings without a tenant that has one. In tenants_dir one may come later.
func (c *configFile) checkRings() error {
	wanted := slices.ContainsFunc(c.Tenants, func(t tenantConfig) bool { return t.Kind == kindRing })
	switch {
	case wanted && c.Rings == nil:
		c.Rings = new(ringsConfig) // what it needs may be in the environment
	case !wanted && c.Rings != nil && c.TenantsDir == "":
		return usagef("the file of --config: there is rings, but no tenant of kind ring")
	case c.Rings != nil && hasPassword(c.Rings.Redis):
		return usagef("the file of --config: rings.redis has a password: take it out, and set %s or rings.redis_password_file", envRedisPassword)
	}
	return nil
}

// checkHeaders refuses headers that cannot hold the token.
func (c *configFile) checkHeaders() error {
	const most = 8 // since each may be as long as a token
	switch n := len(c.FromHeader); {
	case c.FromHeader != nil && n == 0:
		return usagef("the file of --config: from_header is empty: name the headers that may hold the token, such as [Authorization]")
	case n > most:
		return usagef("the file of --config: from_header has %d names: want at most %d", n, most)
	}
	seen := make(map[string]bool)
	for _, name := range c.FromHeader {
		canonical := http.CanonicalHeaderKey(name)
		if seen[canonical] {
			return usagef("the file of --config: from_header has %s twice", quoteShort(canonical))
		}
		seen[canonical] = true
		if err := server.CheckTokenHeader(name); err != nil {
			return usagef("the file of --config: from_header: %v", err)
		}
	}
	return nil
}

// claim notes the ID and the issuers of t, and refuses one that another tenant has.
func (c *configFile) claim(t *tenantConfig) error {
	if other := c.ids[t.ID]; other != nil {
		return t.errorf("the same id is %s", other.at())
	}
	seen := make(map[string]bool)
	for _, issuer := range append([]string{t.Issuer}, t.OtherIssuers...) {
		switch other := c.issuers[issuer]; {
		case seen[issuer]:
			return t.errorf("issuer and other_issuers have one issuer twice")
		case other != nil:
			return t.errorf("%s has the same issuer: a token's iss says whose it is", other.place())
		}
		seen[issuer] = true
	}
	for issuer := range seen {
		c.issuers[issuer] = t
	}
	c.ids[t.ID] = t
	return nil
}

// parse reads how often files are read again.
func (r *reloadConfig) parse() error {
	if r.Every == "" {
		return nil
	}
	every, err := time.ParseDuration(r.Every)
	switch {
	case err != nil, every != 0 && every < time.Second, every > 24*time.Hour:
		return errors.New("want a duration from 1s to 24h, such as 10s, or 0s: only at SIGHUP")
	case every == 0:
		every = -1 // 0 stands for the default
	}
	r.every = every
	return nil
}

// hasPassword reports whether a URL seems to have a password.
func hasPassword(rawURL string) bool {
	_, rest, _ := strings.Cut(rawURL, "://")
	user, _, ok := strings.Cut(rest, "@")
	return ok && strings.Contains(user, ":")
}

func (t *tenantConfig) check(alone bool) error {
	if _, err := parseTenant(t.ID); err != nil {
		return t.errorf("id %v", err)
	}
	if err := t.checkSource(); err != nil {
		return err
	}
	if err := t.parse(); err != nil {
		return err
	}
	if t.Issuer == "" && !t.AnyIssuer {
		t.Issuer = t.IssuerURL
	}
	switch {
	case t.AnyIssuer && !alone:
		return t.errorf("any_issuer is for a tenant that is alone: a token's iss says whose it is")
	case t.AnyIssuer && len(t.OtherIssuers) > 0:
		return t.errorf("other_issuers and any_issuer: give one of them")
	case slices.Contains(t.OtherIssuers, ""):
		return t.errorf("other_issuers: one is empty")
	case t.AnyIssuer && t.Issuer != "":
		return t.errorf("issuer and any_issuer: give one of them")
	case t.Issuer == "" && !t.AnyIssuer:
		return t.errorf("issuer is missing: the iss of its tokens (a tenant that is alone may say any_issuer: true)")
	case len(t.Audiences) > 0 && t.AnyAudience:
		return t.errorf("audiences and any_audience: give one of them")
	case len(t.Audiences) == 0 && !t.AnyAudience:
		return t.errorf("audiences are missing: who its tokens are for (or any_audience: true)")
	case t.SharedSecret && t.Kind != kindStatic && t.JWKSFile == "":
		return t.errorf("shared_secret is for tenants with a secret that another tenant has too: kind static, or jwks_file")
	case t.AllowNoExp && t.Kind == kindRing:
		return t.errorf("allow_no_exp is not for rings: a ring's key ends, and its tokens before it")
	}
	return nil
}

// parse reads the algorithms, the tolerances and the leeway.
func (t *tenantConfig) parse() error {
	for _, name := range t.Algorithms {
		alg, err := parseAlgorithm(name)
		if err != nil {
			return t.errorf("algorithms: one %v", err)
		}
		t.algs = append(t.algs, alg)
	}
	for _, name := range t.Tolerate {
		tolerance, err := parseTolerance(name)
		if err != nil {
			return t.errorf("tolerate: %v", err)
		}
		t.tolerances = append(t.tolerances, tolerance)
	}
	if t.Leeway != "" {
		leeway := newDuration(0, 5*time.Minute, 0, "")
		if err := leeway.Set(t.Leeway); err != nil {
			return t.errorf("leeway: %v", err)
		}
		if t.leeway = leeway.value; t.leeway == 0 {
			t.leeway = -1 // none: 0 stands for the default
		}
	}
	return t.parseReading()
}

// parseReading reads how the keys are read over HTTP.
func (t *tenantConfig) parseReading() (err error) {
	for _, text := range t.AllowCIDR {
		p, err := parseCIDR(text)
		if err != nil {
			return t.errorf("allow_cidr: %v", err)
		}
		t.networks = append(t.networks, p)
	}
	if t.Proxy != "" {
		if t.proxy, err = parseProxy(t.Proxy); err != nil {
			return t.errorf("proxy: %v", err)
		}
	}
	switch {
	case slices.ContainsFunc(t.Uses, verifiesNothing):
		return t.errorf("uses: want values such as jwt-svid: a key without use serves already, and one of enc or encrypt verifies nothing")
	case t.MaxKeys < 0 || t.MaxKeys > jwks.MostKeys:
		return t.errorf("max_keys: want a number up to %d", jwks.MostKeys)
	case t.MaxBytes < 0 || t.MaxBytes > jwks.MostBytes:
		return t.errorf("max_bytes: want a number up to %d", jwks.MostBytes)
	}
	return nil
}

// verifiesNothing reports whether no key of this use or operation serves, whatever the file says: see
// jwks.SourceConfig.
func verifiesNothing(use string) bool {
	return slices.Contains([]string{"", "enc", "encrypt", "decrypt", "wrapKey", "unwrapKey", "deriveKey", "deriveBits"}, use)
}

// checkSource refuses a tenant without the source of keys that its kind needs, or with another one.
func (t *tenantConfig) checkSource() error {
	fields := []struct {
		name, kind string
		given      bool
	}{
		{"secret_file", kindStatic, t.SecretFile != ""}, {"secret_env", kindStatic, t.SecretEnv != ""}, {"kid", kindStatic, t.KID != ""},
		{"jwks_file", kindJWKS, t.JWKSFile != ""}, {"jwks_url", kindJWKS, t.JWKSURL != ""}, {"pem_url", kindJWKS, t.PEMURL != ""},
		{"issuer_url", kindJWKS, t.IssuerURL != ""},
		{"allow_loopback", kindJWKS, t.AllowLoopback}, {"uses", kindJWKS, t.Uses != nil}, {"max_keys", kindJWKS, t.MaxKeys != 0}, {"max_bytes", kindJWKS, t.MaxBytes != 0},
		{allowCIDR, kindJWKS, t.AllowCIDR != nil}, {allowHTTP, kindJWKS, t.AllowHTTP}, {"proxy", kindJWKS, t.Proxy != ""},
		{caFile, kindJWKS, t.CAFile != ""}, {bearerTokenFile, kindJWKS, t.BearerTokenFile != ""},
	}
	settings := []string{ // which name no source
		"kid", allowLoopback, "uses", "max_keys", "max_bytes", allowCIDR, allowHTTP, "proxy", caFile, bearerTokenFile,
	}
	sources := 0
	for _, f := range fields {
		if !f.given {
			continue
		}
		if f.kind != t.Kind && t.Kind != "" && !(f.kind == kindStatic && t.hasSecretBeside()) {
			return t.errorf("%s is for tenants of kind %s", f.name, f.kind)
		}
		switch setting := slices.Contains(settings, f.name); {
		case f.kind != t.Kind:
		case !setting:
			sources++
		case t.Kind == kindJWKS && t.JWKSFile != "":
			return t.errorf("%s goes with jwks_url or issuer_url", f.name)
		}
	}
	switch t.Kind {
	case kindStatic:
		return t.wantOne(sources, "secret_file or secret_env")
	case kindJWKS:
		switch {
		case len(t.Algorithms) == 0:
			return t.errorf("algorithms are missing: list those that you expect, such as [RS256]")
		case t.hasSecretBeside():
			if err := t.checkSecretBeside(); err != nil {
				return err
			}
		case t.JWKSFile == "" && slices.ContainsFunc(t.Algorithms, symmetric):
			return t.errorf("algorithms: HS256, HS384 and HS512 are for shared secrets, and what is read over HTTP holds none: name the secret too")
		}
		return t.wantOne(sources, "jwks_file, jwks_url, issuer_url or pem_url")
	case kindRing:
		if len(t.Algorithms) > 0 {
			return t.errorf("algorithms are not for rings: each key of a ring has its own")
		}
		return nil
	}
	return t.errorf("kind: want static, jwks or ring")
}

// hasSecretBeside reports whether the tenant has a secret beside the keys of an issuer: its tokens of
// the secret are to be good until the last one has expired.
func (t *tenantConfig) hasSecretBeside() bool {
	return t.Kind == kindJWKS && (t.JWKSURL != "" || t.IssuerURL != "") && (t.SecretFile != "" || t.SecretEnv != "")
}

func (t *tenantConfig) checkSecretBeside() error {
	switch {
	case t.SecretFile != "" && t.SecretEnv != "":
		return t.errorf("secret_file and secret_env: give one of them")
	case !slices.ContainsFunc(t.Algorithms, symmetric):
		return t.errorf("algorithms: none is for the secret: add HS256, or take the secret out")
	case !slices.ContainsFunc(t.Algorithms, func(name string) bool { return !symmetric(name) }):
		return t.errorf("algorithms: all are for the secret: add that of the issuer's keys, or make the kind static")
	}
	return nil
}

// symmetric reports whether an algorithm uses a shared secret.
func symmetric(name string) bool {
	alg, err := parseAlgorithm(name)
	return err == nil && alg.Symmetric()
}

func (t *tenantConfig) wantOne(n int, names string) error {
	if n != 1 {
		return t.errorf("kind %s: want one of %s", t.Kind, names)
	}
	return nil
}
