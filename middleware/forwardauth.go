package middleware

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/fold"
	"github.com/keyturn/keyturn/verifier"
)

// ErrNoProfile reports a request for a profile that [ForwardAuthConfig] does not have (404).
var ErrNoProfile = errors.New("middleware: no such profile of ForwardAuth")

// A ForwardAuthConfig configures [ForwardAuth]. The zero value has the profile "default" alone, which
// wants a good token.
type ForwardAuthConfig struct {
	// Identity says which headers a 200 has.
	Identity Identity

	// Profiles are the rules that a proxy can ask for, by name: letters, digits, hyphens, dots and
	// underscores. Nil means one named "default", which wants a good token.
	Profiles map[string]Profile

	// Wait bounds how long a decision waits for the source of a key that is not known yet. After it
	// the answer is that of CannotTell. Zero means 150 ms: Envoy waits for 200 ms by default, and an
	// answer is better than its timeout.
	Wait time.Duration

	// CannotTell is the status of the answer if the verifier cannot tell whether the token is good.
	// Zero means 503. With 403, no answer has a status above 499: that is for Envoy with
	// failure_mode_allow, which lets requests pass if it gets a 5xx (envoyproxy/envoy#5672).
	CannotTell int

	// ForwardToken leaves the token in the request to the service behind Envoy. Other proxies say
	// that in their own configuration.
	ForwardToken bool

	// Prefix is the path of the profile "default", and is followed by / and the name for any other.
	// Empty means "/authz".
	Prefix string

	// EnvoyPrefix is for Envoy's HTTP client, which appends the path of the client's request: a
	// profile's path is this, /, the name, and then / and anything. Empty means "/ext-authz".
	EnvoyPrefix string

	// Observe is called with each decision before it is answered: the profile, "" if there is no such
	// profile, the status, and why, or nil for a good token. It must be safe for concurrent use. Nil
	// means none.
	Observe func(r *http.Request, profile string, status int, err error)
}

// A Profile says what [ForwardAuth] demands of a good token.
type Profile struct {
	// Scopes are needed, all of them (403).
	Scopes []string

	// Audiences are those of which the token must have one (403). Empty means that those of the
	// tenant are enough.
	Audiences []string

	// Tenant is the one that the token must belong to (401). Empty means any.
	Tenant string
}

const (
	defaultProfile     = "default"
	defaultWait        = 150 * time.Millisecond
	defaultAuthzPrefix = "/authz"
	defaultEnvoyPrefix = "/ext-authz"
)

// toRemove is the header in which Envoy's HTTP client takes the names of headers that the request
// must not have (ext_authz_http_impl.cc).
const toRemove = "X-Envoy-Auth-Headers-To-Remove"

// noStore is the Cache-Control of every answer.
const noStore = "no-store"

// ForwardAuth returns a handler that a reverse proxy asks about each request before it passes it on:
// auth_request of nginx, forward_auth of Caddy, ForwardAuth of Traefik, ext_authz of Envoy. It decides
// by the token and by the profile whose path the proxy's configuration names. It reads no query, no
// body and no X-Forwarded header: a client may have written those. Every method is the same to it.
//
//	200   a good token: no body, and all headers of the Identity
//	401   no token, a bad one, or a malformed request
//	403   the token lacks a scope or audience of the profile, or its identity is too large
//	404   no such profile
//	503   the verifier cannot tell now, with Retry-After
//
// A malformed request gets 401 and not 400, of which nginx makes 500. So does one whose headers hold
// an alias of the Identity's, such as X_Auth_Subject: the proxy would pass it on.
//
// A server for it sets [http.Server.DisableGeneralOptionsHandler]: otherwise net/http answers the
// request "OPTIONS *" by itself, with 200.
//
// The token is where the options say. It panics as [Require] does, and if cfg cannot be used, or an
// option reads the query or names the tenant.
func ForwardAuth(v *verifier.Verifier, cfg ForwardAuthConfig, opts ...Option) http.Handler {
	f, err := newForwardAuth(newGuard(v, opts), cfg)
	if err != nil {
		panic(err.Error())
	}
	return f
}

// Validate returns why the configuration cannot be used, or nil.
func (cfg ForwardAuthConfig) Validate() error {
	_, err := newForwardAuth(new(guard), cfg)
	return err
}

// A forwardAuth is immutable once built.
type forwardAuth struct {
	ForwardAuthConfig
	guard    *guard
	identity *identityPlan
	aliased  []string // the folded names of the identity's headers
	lower    []string // their names for Envoy
}

func newForwardAuth(g *guard, cfg ForwardAuthConfig) (*forwardAuth, error) {
	if len(cfg.Profiles) == 0 {
		cfg.Profiles = map[string]Profile{defaultProfile: {}}
	}
	cfg.Wait, cfg.CannotTell = orElse(cfg.Wait, defaultWait), orElse(cfg.CannotTell, http.StatusServiceUnavailable)
	cfg.Prefix, cfg.EnvoyPrefix = orElse(cfg.Prefix, defaultAuthzPrefix), orElse(cfg.EnvoyPrefix, defaultEnvoyPrefix)
	if cfg.Observe == nil {
		cfg.Observe = func(*http.Request, string, int, error) {}
	}
	identity, err := cfg.Identity.plan()
	if err != nil {
		return nil, err
	}
	switch {
	case g.query != "", g.tenant != nil:
		return nil, errors.New("middleware: ForwardAuth: FromQuery and the options for the tenant are not for it: a proxy passes on what the client wrote")
	case cfg.Wait < 0:
		return nil, fmt.Errorf("middleware: ForwardAuthConfig.Wait is %v: want more than 0", cfg.Wait)
	case cfg.CannotTell != http.StatusServiceUnavailable && cfg.CannotTell != http.StatusForbidden:
		return nil, fmt.Errorf("middleware: ForwardAuthConfig.CannotTell is %d: want 503 or 403", cfg.CannotTell)
	case !isPrefixPath(cfg.Prefix), !isPrefixPath(cfg.EnvoyPrefix), cfg.Prefix == cfg.EnvoyPrefix:
		return nil, fmt.Errorf("middleware: ForwardAuthConfig: Prefix %q and EnvoyPrefix %q: want two paths such as /authz", cfg.Prefix, cfg.EnvoyPrefix)
	}
	f := &forwardAuth{ForwardAuthConfig: cfg, guard: g, identity: identity}
	for _, name := range identity.names {
		f.aliased = append(f.aliased, fold.Name(name))
		f.lower = append(f.lower, strings.ToLower(name))
	}
	f.Profiles = make(map[string]Profile)
	for name, p := range cfg.Profiles {
		if err := p.check(name); err != nil {
			return nil, err
		}
		f.Profiles[name] = Profile{slices.Clone(p.Scopes), slices.Clone(p.Audiences), p.Tenant}
	}
	return f, nil
}

func orElse[T comparable](v, otherwise T) T {
	if v == *new(T) {
		return otherwise
	}
	return v
}

// isPrefixPath reports whether path has one or more segments that have one spelling only.
func isPrefixPath(path string) bool {
	first, rest, _ := strings.Cut(path, "/")
	for s := range strings.SplitSeq(rest, "/") {
		if !isProfileName(s) {
			return false
		}
	}
	return first == "" && len(path) > 1
}

// isProfileName reports whether name is a segment of a path that has one spelling only.
func isProfileName(name string) bool {
	return name != "" && len(name) <= 64 && strings.Trim(name, ".") != "" &&
		!strings.ContainsFunc(name, func(r rune) bool { return r > '~' || !isAlphaNum(byte(r)) && !strings.ContainsRune("-_.", r) })
}

func (p Profile) check(name string) error {
	switch {
	case !isProfileName(name):
		return fmt.Errorf("middleware: ForwardAuthConfig.Profiles: %q is not a name: want letters, digits, hyphens, dots and underscores", name)
	case slices.Contains(p.Audiences, ""):
		return fmt.Errorf("middleware: ForwardAuthConfig.Profiles: %s: an audience is empty", name)
	}
	for _, s := range p.Scopes {
		if !isScope(s) {
			return fmt.Errorf("middleware: ForwardAuthConfig.Profiles: %s: %q is not a scope (RFC 6749, section 3.3)", name, s)
		}
	}
	return nil
}

// ServeHTTP answers one question of a proxy.
func (f *forwardAuth) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var d *door // of a refusal
	defer func() {
		if why := recover(); why != nil {
			f.shutOnPanic(w, d)
			panic(why)
		}
	}()
	if r.ContentLength != 0 && r.ProtoMajor == 1 {
		// Otherwise net/http waits for the body before it answers, and a proxy that passes on the
		// length of the client's body does not send the body.
		w.Header().Set("Connection", "close")
	}
	name, profile, ok := f.profileOf(r)
	if !ok {
		f.Observe(r, "", http.StatusNotFound, ErrNoProfile)
		d = f.door(w)
		writeJSON(d, http.StatusNotFound, `{"error":"not_found","error_description":"there is no such profile"}`+"\n")
		return
	}
	values, err := f.decide(r, profile)
	if err != nil {
		d = f.door(w)
		f.Observe(r, name, d.status(Status(err)), err)
		f.guard.refuse(d, r, err)
		d.shut()
		return
	}
	f.Observe(r, name, http.StatusOK, nil)
	f.allow(w, values)
}

// profileOf returns the profile that the path of r names. It compares the path as the
// proxy wrote it: no other spelling, and nothing that was decoded, is a name. Of the path for Envoy
// it reads the first segment alone. The others are the client's.
func (f *forwardAuth) profileOf(r *http.Request) (name string, p Profile, ok bool) {
	path := r.URL.Path
	if r.URL.RawPath != "" { // otherwise they differ in no character that a name has, and in no slash
		path = r.URL.EscapedPath()
	}
	if path == f.Prefix {
		name = defaultProfile
	} else if rest, isOurs := strings.CutPrefix(path, f.Prefix+"/"); isOurs {
		name = rest
	} else if rest, isOurs := strings.CutPrefix(path, f.EnvoyPrefix+"/"); isOurs {
		name, _, _ = strings.Cut(rest, "/")
	}
	p, ok = f.Profiles[name]
	return name, p, ok
}

// decide returns the values of the identity's headers for the token of r if the profile lets it in.
func (f *forwardAuth) decide(r *http.Request, p Profile) ([]string, error) {
	if f.hasAlias(r.Header) {
		return nil, errAlias
	}
	cred, err := f.guard.find(r)
	if err != nil {
		return nil, err
	}
	ctx := &patience{Context: r.Context(), wait: f.Wait}
	defer ctx.end()
	var t *verifier.Token
	if p.Tenant == "" {
		t, err = f.guard.verifier.Verify(ctx, cred.token)
	} else {
		t, err = f.guard.verifier.VerifyTenant(ctx, p.Tenant, cred.token)
	}
	if err != nil {
		return nil, cred.refused(err)
	}
	if err := p.allows(t); err != nil {
		return nil, err
	}
	return f.identity.values(ctx, t)
}

var errAlias = &requestError{"a header has the name of one that the identity has, in another spelling"}

// hasAlias reports whether h has a header that some service takes for one of the identity's, but
// that a proxy does not replace by it, since it is spelt with other characters.
func (f *forwardAuth) hasAlias(h http.Header) bool {
	for name := range h {
		if f.identity.owns(name) && slices.Contains(f.aliased, fold.Name(name)) && !isHeaderWord(name) {
			return true
		}
	}
	return false
}

// allows returns why the profile does not let t in, or nil. It is asked for every request, so that a
// token which one profile lets in is never let in by another for that (Oathkeeper
// GHSA-4mq7-pvjg-xp2r).
func (p Profile) allows(t *verifier.Token) error {
	for _, s := range p.Scopes {
		if !t.HasScope(s) {
			return &scopeError{strings.Join(p.Scopes, " ")}
		}
	}
	if len(p.Audiences) > 0 && !slices.ContainsFunc(p.Audiences, t.HasAudience) {
		return &forbiddenError{fmt.Errorf("aud has none of %q", p.Audiences)}
	}
	return nil
}

// allow is the only place where a request is let in.
func (f *forwardAuth) allow(w http.ResponseWriter, values []string) {
	h := w.Header()
	var space [128]byte // for the names that most answers list
	remove := space[:0]
	if !f.ForwardToken {
		remove = append(remove, ",authorization"...)
	}
	for i, name := range f.identity.names {
		h[name] = values[i : i+1 : i+1]
		if values[i] == "" {
			remove = append(append(remove, ','), f.lower[i]...)
		}
	}
	last := len(values)
	values = append(values, noStore)
	h["Cache-Control"] = values[last : last+1 : last+1]
	if len(remove) > 0 {
		values = append(values, string(remove[1:]))
		h[toRemove] = values[last+1:]
	}
	w.WriteHeader(http.StatusOK)
}

// A door is the ResponseWriter of an answer that lets no request in, whatever is written to it. The
// status 200 that net/http implies is how other programs let people in (authelia
// GHSA-68wm-pfjf-wqp6, authentik GHSA-fj56-5763-j8pp). It has no Unwrap, so that its caller
// cannot hijack the connection.
type door struct {
	w          http.ResponseWriter
	cannotTell int
	written    bool
}

func (f *forwardAuth) door(w http.ResponseWriter) *door {
	w.Header()["Cache-Control"] = []string{noStore}
	return &door{w: w, cannotTell: f.CannotTell}
}

// Header implements [http.ResponseWriter].
func (d *door) Header() http.Header { return d.w.Header() }

// WriteHeader writes a status that lets no request in.
func (d *door) WriteHeader(status int) {
	if d.written {
		return
	}
	d.written = true
	d.Header().Del("Set-Cookie")
	d.Header().Del("Location")
	d.w.WriteHeader(d.status(status))
}

// status returns the status that is written in place of one.
func (d *door) status(status int) int {
	switch {
	case status == http.StatusBadRequest: // nginx makes 500 of it (nginx/nginx#941)
		return http.StatusUnauthorized
	case status == http.StatusServiceUnavailable:
		return d.cannotTell
	case status < 400 || status > 599:
		return d.status(http.StatusInternalServerError)
	case status >= 500 && d.cannotTell < 500:
		return d.cannotTell
	}
	return status
}

// Write implements [http.ResponseWriter].
func (d *door) Write(b []byte) (int, error) {
	d.WriteHeader(http.StatusInternalServerError) // unless there is one
	return d.w.Write(b)
}

// shut answers with 500 if nothing was written.
func (d *door) shut() { d.WriteHeader(http.StatusInternalServerError) }

// shutOnPanic sends an answer before a panic of the caller's own function ends the connection: Envoy
// with failure_mode_allow would let the request in. d is nil unless the request was refused before.
func (f *forwardAuth) shutOnPanic(w http.ResponseWriter, d *door) {
	if d == nil {
		d = f.door(w)
	}
	d.shut()
	http.NewResponseController(w).Flush() // an error does not matter: the connection ends
}

// A patience is a context that ends after a while, counted from when something begins to wait for its
// end. Nothing does so for a token in the cache, and a timer for each would be a fifth of the work.
type patience struct {
	context.Context
	wait time.Duration

	mu     sync.Mutex      // guards the fields below
	timed  context.Context // nil until something waits
	cancel context.CancelFunc
}

// begin returns the context that ends.
func (p *patience) begin() context.Context {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timed == nil {
		p.timed, p.cancel = context.WithTimeout(p.Context, p.wait)
	}
	return p.timed
}

// Deadline implements [context.Context].
func (p *patience) Deadline() (time.Time, bool) { return p.begin().Deadline() }

// Done implements [context.Context].
func (p *patience) Done() <-chan struct{} { return p.begin().Done() }

// Err implements [context.Context].
func (p *patience) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timed == nil {
		return p.Context.Err()
	}
	return p.timed.Err()
}

// end stops the timer.
func (p *patience) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cancel != nil {
		p.cancel()
	}
}
