package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier"
)

// rings are those that serve holds, turns and publishes.
type rings struct {
	store   rotation.Store
	keyring *rotation.Keyring
	rotator *rotation.Rotator
	tenants []string
	issuer  func(tenant string) string // an https URL, or http on loopback; "" if there is none to publish
	log     *slog.Logger
	now     func() time.Time
	closers []func() error // called from the last to the first
}

// open reads the rings of r.tenants from r.store.
func (r *rings) open(ctx context.Context, cfg rotation.Config) error {
	ctx, cancel := context.WithTimeout(ctx, ringTime)
	defer cancel()
	cfg.Tenants, cfg.Logger, cfg.Now = r.tenants, r.log, r.now
	k, err := rotation.Open(ctx, r.store, cfg)
	if err != nil {
		return ringError(err)
	}
	r.keyring = k
	r.closers = append(r.closers, func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ringTime)
		defer cancel()
		return k.Close(ctx)
	})
	r.rotator, err = rotation.NewRotator(k)
	return err
}

// close ends all that r has begun.
func (r *rings) close() {
	for _, end := range slices.Backward(r.closers) {
		if err := end(); err != nil {
			r.log.Warn("not everything was put away", "err", err)
		}
	}
	r.closers = nil
}

// turn turns the keys until ctx ends.
func (r *rings) turn(ctx context.Context) {
	if err := r.rotator.Run(ctx); err != nil {
		r.log.Error("keys do not turn any more", "err", err)
	}
}

// watchEvery is how often it is looked whether a key has turned.
const watchEvery = time.Second

// watch logs when a key turns, and when a ring is not in step any more.
func (r *rings) watch(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	seen := make(map[string]glance)
	for {
		for _, tenant := range r.tenants {
			status, err := r.keyring.Tenant(tenant)
			if err != nil {
				continue
			}
			now := glanceAt(&status)
			if before, ok := seen[tenant]; ok {
				r.say(tenant, before, now, &status)
			}
			seen[tenant] = now
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// A glance is what watch compares.
type glance struct{ signer, state, reason string }

func glanceAt(status *rotation.TenantStatus) glance {
	g := glance{}
	g.state, g.reason = stateOf(status)
	if i := status.Ring.Signer; i >= 0 {
		g.signer = status.Ring.Keys[i].KID
	}
	return g
}

// say logs what is new about a ring.
func (r *rings) say(tenant string, before, now glance, status *rotation.TenantStatus) {
	switch {
	case now.signer == before.signer:
	case now.signer == "":
		r.log.Warn("no key signs", "tenant", tenant, "before", before.signer)
	default:
		attrs := []any{"tenant", tenant, "signs", now.signer, "before", before.signer}
		if until := status.Ring.Keys[status.Ring.Signer].RetiresAt; !until.IsZero() {
			attrs = append(attrs, "until", stamp(until))
		}
		r.log.Info("a key turned", attrs...)
	}
	switch {
	case now.state == before.state:
	case now.state == stateReady:
		r.log.Info("in step again", "tenant", tenant)
	default:
		r.log.Warn(now.state, "tenant", tenant, "reason", now.reason, "err", status.Err)
	}
}

// What /readyz says of a ring.
const (
	stateReady    = "ready"
	stateDegraded = "degraded" // it signs and verifies, but may not have heard of everything
	stateNotReady = "not ready"
)

// stateOf says how a ring stands, and why, in words that anyone may read.
func stateOf(status *rotation.TenantStatus) (state, reason string) {
	switch {
	case status.Fresh:
		return stateReady, ""
	case status.Ready:
		state = stateDegraded
	default:
		state = stateNotReady
	}
	switch {
	case isSealError(status.Err):
		reason = "what Redis holds cannot be opened"
	case errors.Is(status.Err, keystore.ErrUnavailable):
		reason = "out of step with Redis"
	case status.InDoubt:
		reason = "in doubt: Redis may have lost something, and others get the time to put it back"
	case len(status.Ring.Keys) == 0:
		reason = "there is no ring in Redis"
	default:
		reason = "out of step with Redis"
	}
	return state, reason
}

// ready tells the state of all rings, and of each.
func (r *rings) ready() (all string, each map[string]tenantReady) {
	all, each = stateReady, make(map[string]tenantReady)
	for _, tenant := range r.tenants {
		status, err := r.keyring.Tenant(tenant)
		if err != nil {
			status = rotation.TenantStatus{Err: err}
		}
		state, reason := stateOf(&status)
		each[tenant] = tenantReady{Status: state, Reason: reason}
		if state == stateNotReady || all == stateReady {
			all = state
		}
	}
	return all, each
}

// A tenantReady is a line of /readyz.
type tenantReady struct {
	Status string `json:"status"`
	Reason string `json:"reason,omitempty"`
}

// jwksPath is where a tenant's public keys are, after /TENANT.
const jwksPath = "/.well-known/jwks.json"

// discoveryPath is where readers that know an issuer look for where its keys are.
const discoveryPath = "/.well-known/openid-configuration"

// publishers returns what publishes the public keys of the rings, by the end of the path.
func (r *rings) publishers() map[string]http.Handler {
	return map[string]http.Handler{
		jwksPath:      middleware.JWKS(r.keyring, r.publisher(jwksPath)),
		discoveryPath: middleware.Discovery(r.keyring, r.publisher(discoveryPath), r.issuer),
	}
}

// publishAt reports whether path is that of a document of one of the tenants: one may
// be called api.
func (r *rings) publishAt(path string) bool {
	if r == nil {
		return false
	}
	for _, end := range []string{jwksPath, discoveryPath} {
		name, ok := strings.CutSuffix(path, end)
		if tenant, rooted := strings.CutPrefix(name, "/"); ok && rooted && slices.Contains(r.tenants, tenant) {
			return true
		}
	}
	return false
}

// publisher says whose public keys a request for TENANT and path asks for.
func (r *rings) publisher(path string) func(*http.Request) (string, error) {
	return func(req *http.Request) (string, error) {
		prefix := strings.TrimSuffix(req.URL.Path, path)
		if tenant := strings.TrimPrefix(prefix, "/"); tenant != "" {
			return tenant, nil
		}
		return r.onlyPublisher(req)
	}
}

// onlyPublisher is the only tenant that has public keys.
func (r *rings) onlyPublisher(req *http.Request) (string, error) {
	only := ""
	for _, tenant := range r.tenants {
		_, _, err := r.keyring.PublicKeys(req.Context(), tenant)
		switch {
		case err != nil && errors.Is(err, keystore.ErrNotFound) && !errors.Is(err, keystore.ErrUnavailable):
		case err != nil:
			return "", err
		case only != "":
			return "", fmt.Errorf("several tenants have public keys: %w", keystore.ErrNotFound)
		default:
			only = tenant
		}
	}
	return only, nil
}

// onRedis is the mode in which rings on a Redis of the user's open the API.
func (s *serveCommand) onRedis(ctx context.Context) (_ *service, err error) {
	r, err := s.openRings(ctx, s.publicIssuer)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	v, err := verifier.New(verifier.Config{Tenants: s.ringTenants(r), MaxTokenBytes: maxTokenBytes, Now: s.now})
	if err != nil {
		return nil, usagef("%s", plain(err))
	}
	o := &service{verifier: v, hint: func(*verifier.Error) string { return "" }, rings: r, ready: r.ready, close: r.close, warnings: s.ringWarnings()}
	put := func() error { return v.Put(s.ringTenants(r)...) }
	o.intro = func(at endpoint) (string, error) { return s.ringIntro(at, r), nil }
	o.background = []func(context.Context){r.turn, r.watch, func(ctx context.Context) { s.awaitReady(ctx, r, put) }}
	return o, nil
}

// openRings opens the rings that the flags name.
func (s *serveCommand) openRings(ctx context.Context, issuer func(tenant string) string) (*rings, error) {
	cfg, err := s.ringConfig()
	if err != nil {
		return nil, err
	}
	st, err := s.store(&s.ring)
	if err != nil {
		return nil, err
	}
	r := &rings{store: st, tenants: s.tenantNames(), issuer: issuer, log: s.log, now: s.now, closers: []func() error{st.close}}
	if err := r.open(ctx, cfg); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// ringConfig returns what the flags say of the rings.
func (s *serveCommand) ringConfig() (rotation.Config, error) {
	var cfg rotation.Config
	if s.secretFile.given {
		return cfg, usagef("--redis and --secret-file: give one of them")
	}
	keks, err := s.keks(&s.ring)
	if err != nil {
		return cfg, err
	}
	cfg.KEKs, cfg.Poll, cfg.Deadline = keks, s.poll, s.deadline
	if name := s.policy.given(); name != "" && !s.bootstrap {
		return cfg, usagef("--%s is for the rings that --bootstrap makes; those that are there have their own policy", name)
	}
	if s.bootstrap {
		cfg.AllowBootstrap = true
		cfg.Policy, err = s.policy.policy()
	}
	return cfg, err
}

// tenantNames are the tenants whose rings are served.
func (s *serveCommand) tenantNames() []string {
	if len(s.tenants.values) == 0 {
		return []string{defaultTenant}
	}
	return s.tenants.values
}

// tenantMark stands for the tenant's name in --iss.
const tenantMark = "{tenant}"

// issuerOf returns what "iss" a tenant's tokens must have, or "" for any. Of several
// tenants it has to name one: who it is comes from nothing else.
func (s *serveCommand) issuerOf(tenant string) string {
	if !s.iss.given && len(s.tenantNames()) > 1 {
		return tenant
	}
	return strings.ReplaceAll(s.iss.value, tenantMark, tenant)
}

// publicIssuer returns the issuer of a tenant if readers can find its keys by it.
func (s *serveCommand) publicIssuer(tenant string) string {
	if iss := s.issuerOf(tenant); isWebURL(iss) {
		return iss
	}
	return ""
}

// verifierLeeway is what verifiers forgive, if their ring does.
const verifierLeeway = 30 * time.Second

// ringTenants returns the rules for tokens of the rings as they are now.
func (s *serveCommand) ringTenants(r *rings) []verifier.Tenant {
	var tenants []verifier.Tenant
	for _, id := range r.tenants {
		t := verifier.Tenant{
			ID: id, Issuer: s.issuerOf(id), Audiences: s.aud.values,
			AnyIssuer: s.issuerOf(id) == "", AnyAudience: len(s.aud.values) == 0,
		}
		r.rules(&t)
		tenants = append(tenants, t)
	}
	return tenants
}

// rules adds to a tenant's rules what its ring says.
func (r *rings) rules(t *verifier.Tenant) {
	t.Keys = r.keyring
	if t.Leeway == 0 {
		t.Leeway = verifierLeeway
	}
	if t.Leeway = min(t.Leeway, r.keyring.MaxLeeway(t.ID)); t.Leeway == 0 {
		t.Leeway = -1 // none: 0 stands for the default
	}
	// A ring's key verifies one algorithm and no other, whatever stands here, and
	// a ring may move to another one while this runs.
	t.Algorithms, t.MixedFamilies = keystore.Algorithms(), true
}

func (s *serveCommand) ringWarnings() []string {
	var warnings []string
	if !s.iss.given && len(s.tenantNames()) == 1 {
		warnings = append(warnings, "iss is not checked: --iss says which issuer to expect")
	}
	if len(s.aud.values) == 0 {
		warnings = append(warnings, "aud is not checked: --aud says which audience to expect")
	}
	for _, name := range []string{envSecret, envMastraSecret} {
		if _, ok := s.env(name); ok {
			warnings = append(warnings, name+" is not used: with --redis, only the rings open the API")
		}
	}
	return warnings
}

func (s *serveCommand) ringIntro(at endpoint, r *rings) string {
	var b strings.Builder
	fmt.Fprintf(&b, "keyturn serve: tokens of %s on Redis open the API\n", countRings(len(r.tenants)))
	b.WriteString(at.addresses())
	fmt.Fprintf(&b, "  %s/TENANT%s   a tenant's public keys, if it has any\n", at.url, jwksPath)
	for _, tenant := range r.tenants {
		iss := s.issuerOf(tenant)
		switch {
		case iss == "":
			iss = "any issuer"
		default:
			iss = "the issuer " + quoteShort(iss)
		}
		fmt.Fprintf(&b, "  tenant %s, of %s\n", quoteShort(tenant), iss)
	}
	b.WriteString("\nmake a token where the KEK is (from a clone: go run ./cmd/keyturn for keyturn):\n")
	for _, tenant := range r.tenants {
		b.WriteString("keyturn " + s.signArgs(tenant) + "\n")
	}
	return b.String()
}

// signArgs is how to type the command that makes a token that is good here.
func (s *serveCommand) signArgs(tenant string) string {
	words := []string{"sign", "--redis", s.shownRedis(), "--tenant", tenant}
	if s.ring.kekFile.given {
		words = append(words, "--kek-file", s.ring.kekFile.value)
	}
	if iss := s.issuerOf(tenant); iss != "" {
		words = append(words, "--iss", iss)
	}
	if len(s.aud.values) > 0 {
		words = append(words, "--aud", s.aud.values[0])
	}
	words = append(words, "--claim", "sub=ann")
	for i, word := range words {
		words[i] = shellWord(word)
	}
	return strings.Join(words, " ")
}

// shownRedis is the URL of --redis if there can be no password in it.
func (s *serveCommand) shownRedis() string {
	if strings.ContainsAny(s.ring.redis.value, "@?") {
		return "URL"
	}
	return s.ring.redis.value
}

func countRings(n int) string {
	if n == 1 {
		return "one ring"
	}
	return fmt.Sprintf("%d rings", n)
}

// progressEvery is how often it is said that something is waited for.
const progressEvery = 5 * time.Second

// awaitReady says what is waited for until all rings are in step. Then put gives the
// verifier the rules again: those for a ring that was not there could not be known.
func (s *serveCommand) awaitReady(ctx context.Context, r *rings, put func() error) {
	for ctx.Err() == nil {
		waiting, cancel := context.WithTimeout(ctx, progressEvery)
		err := r.keyring.WaitReady(waiting)
		cancel()
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return
		}
		s.sayWaiting(r)
	}
	if err := put(); err != nil {
		s.log.Error("the rules for the rings' tokens do not fit them", "err", err)
	}
	s.log.Info("ready: all rings are in step")
}

func (s *serveCommand) sayWaiting(r *rings) {
	_, each := r.ready()
	for _, tenant := range r.tenants {
		one := each[tenant]
		if one.Status != stateNotReady {
			continue
		}
		attrs := []any{"tenant", tenant, "reason", one.Reason}
		if status, err := r.keyring.Tenant(tenant); err == nil && !status.InDoubt && len(status.Ring.Keys) == 0 && status.Err != nil {
			attrs = append(attrs, "hint", s.noRingHint())
		}
		s.log.Warn("waiting for a ring", attrs...)
	}
}

func (s *serveCommand) noRingHint() string {
	if s.bootstrap {
		return "it will be made when Redis has stood still for a while"
	}
	return `"keyturn keys create" makes one; so does --bootstrap, here`
}

// background runs functions until ctx ends, and waits for them.
func background(ctx context.Context, all []func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	for _, f := range all {
		wg.Go(func() { f(ctx) })
	}
	return func() {
		cancel()
		wg.Wait()
	}
}
