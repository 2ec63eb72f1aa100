package server

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
)

// Files are the files that a configuration is read from. One goroutine uses them.
type Files interface {
	// Sum reads again the files that Load has read last, and returns the sum of their contents. A file
	// that cannot be read counts as a content of its own.
	Sum() Sum

	// Load reads the configuration.
	Load() (Loaded, error)

	// Used says that what Load has returned last is in use.
	Used()
}

// Loaded is what a configuration was read as.
type Loaded struct {
	Config Config
	Sum    Sum // of the bytes that were read, also where there is an error

	// Kept are the files of single tenants that cannot be used, with the reason. What they held
	// before is in Config.
	Kept map[string]error

	Warnings []string          // for the log, if Config is used
	Explain  func(error) error // returns the words for an [Error] about Config; may be nil
}

// A generation is what one reading of the configuration has made: it is replaced as a whole, and a
// request is answered by one.
type generation struct {
	*Server
	cfg        Config
	tenants    *tenants
	readiness  map[purpose]*recent[readiness] // by what for
	proxy      *proxy                         // nil without Config.Upstream
	revocation map[string]http.Handler        // by path; nil without Config.Revocations
	public     http.Handler                   // of the public listener
	local      http.Handler                   // of the socket
	private    http.Handler                   // of the admin listener
	number     uint64                         // counts the generations of a server
	tls        *tls.Config                    // nil without TLS
}

// generation returns what answers by cfg, with tenants that are open.
func (s *Server) generation(cfg Config, t *tenants) *generation {
	g := &generation{Server: s, cfg: cfg, tenants: t, readiness: map[purpose]*recent[readiness]{forVerify: {}, forSign: {}}}
	if cfg.TLS != nil {
		g.tls = cfg.TLS.config()
	}
	if before := s.live.Load(); before != nil {
		g.number = before.number + 1
	}
	return g
}

// addRevocations makes what answers requests about revocations.
func (g *generation) addRevocations() (err error) {
	if g.revoked != nil {
		g.revocation, err = revocationHandlers(&g.cfg, g.revoked.list, g.verifier, g.tenants.rulesOf)
	}
	return err
}

// install has g answer all requests from now on.
func (s *Server) install(g *generation) {
	g.proxy = s.proxyOf(g)
	g.public, g.local, g.private = g.routes(), g.localRoutes(), g.adminRoutes()
	headers := g.cfg.TokenHeaders
	s.refusals.authorization.Store(len(headers) == 0 || slices.ContainsFunc(headers, isAuthorization))
	s.live.Store(g)
	s.watchMetrics(g)
	if g.cfg.TLS != nil {
		s.cfg.Meter.CertificateEnds(g.cfg.TLS.ends())
	}
}

// proxyOf returns what passes on the requests of g: that of the generation before, unless something of
// it has changed. Then the streams of the one before go on.
func (s *Server) proxyOf(g *generation) *proxy {
	if g.cfg.Upstream == nil {
		return nil
	}
	if old := s.live.Load(); old.proxy != nil && reflect.DeepEqual(old.cfg.Upstream, g.cfg.Upstream) &&
		reflect.DeepEqual(old.cfg.Identity, g.cfg.Identity) && reflect.DeepEqual(old.cfg.Assertion, g.cfg.Assertion) && slices.Equal(old.cfg.TokenHeaders, g.cfg.TokenHeaders) {
		return old.proxy
	}
	p := newProxy(g)
	s.proxies = append(slices.DeleteFunc(s.proxies, func(old *proxy) bool {
		done := old != s.live.Load().proxy && old.streams.none()
		if done {
			old.close()
		}
		return done
	}), p)
	return p
}

// closeProxies ends what no shutdown of the HTTP server ends.
func (s *Server) closeProxies() {
	s.mu.Lock()
	all := slices.Clone(s.proxies)
	s.mu.Unlock()
	for _, p := range all {
		p.close()
	}
}

// routes returns the handler of the public listener.
func (s *Server) routes() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.live.Load().public.ServeHTTP(w, r) })
}

// localRoutes returns the handler of the socket.
func (s *Server) localRoutes() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.live.Load().local.ServeHTTP(w, r) })
}

// adminRoutes returns the handler of the admin listener.
func (s *Server) adminRoutes() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.live.Load().private.ServeHTTP(w, r) })
}

// A follower applies a configuration whose files have changed. The last good configuration stays in
// use until another one can be used, as a whole.
//
// The files count once they have been read twice, with the same content, so that a half written file
// does not, nor a part of a Kubernetes ConfigMap beside a part of the next one.
type follower struct {
	s      *Server
	files  Files
	inUse  Sum
	said   string              // the error that the log has
	warned []string            // what the log has been warned of last
	kept   map[string]string   // by file: the error that the log has
	fixed  map[string]struct{} // settings that the log has said to need a restart
}

func newFollower(s *Server) *follower {
	return &follower{s: s, files: s.cfg.Reload.Files, inUse: s.cfg.Reload.Sum, warned: s.cfg.Reload.Warnings, kept: make(map[string]string), fixed: make(map[string]struct{})}
}

// every returns how often the files are read.
func (f *follower) every() time.Duration { return f.s.live.Load().cfg.Reload.Every }

// lookAgain is how often a look that an operator has asked for is repeated while files are written.
const lookAgain = 10

// look reads the files, and applies what they say if that has changed. It logs what came of that: an
// error once, or whenever the operator has asked.
func (f *follower) look(ctx context.Context, asked bool) {
	for again := lookAgain; ctx.Err() == nil; again-- {
		if f.files.Sum() == f.inUse {
			f.unchanged(asked)
			return
		}
		loaded, err := f.files.Load()
		if err == nil && loaded.Sum == f.inUse { // a mistake in it was taken back
			f.unchanged(asked)
			return
		}
		if settle(ctx, f.s.cfg.Reload.Settle); ctx.Err() == nil && f.files.Sum() == loaded.Sum {
			f.apply(ctx, &loaded, err, asked)
			return
		}
		if !asked {
			return // the next look finds out
		}
		if again == 0 {
			f.s.cfg.Logger.Warn("the configuration is not reloaded: its files keep changing; send SIGHUP again")
			return
		}
	}
}

// unchanged says that the files hold the configuration in use, if they did not before, or an
// operator has asked.
func (f *follower) unchanged(asked bool) {
	if f.said != "" || asked {
		f.s.cfg.Logger.Info("the configuration is as it was")
	}
	if f.said != "" {
		f.s.cfg.Meter.Reloaded(true, f.s.cfg.Now()) // otherwise the alert about the bad one would stay
	}
	f.said = ""
}

// apply makes a configuration that has settled the one in use, unless it cannot be.
func (f *follower) apply(ctx context.Context, loaded *Loaded, err error, asked bool) {
	log := f.s.cfg.Logger
	var what change
	if err == nil {
		if what, err = f.s.reload(ctx, loaded.Config); err != nil && loaded.Explain != nil {
			err = loaded.Explain(err)
		}
	}
	f.s.cfg.Meter.Reloaded(err == nil && len(loaded.Kept) == 0, f.s.cfg.Now())
	if err != nil {
		if text := err.Error(); text != f.said || asked {
			log.Warn("the configuration is not reloaded: the last good version stays in use", "err", err)
			f.said = text
		}
		return // and the next look tries again: what it lacks may come
	}
	f.inUse, f.said = loaded.Sum, ""
	f.files.Used()
	log.Info("the configuration is reloaded", "added", len(what.added), "changed", what.changed, "removed", len(what.removed))
	f.logWarnings(loaded.Warnings)
	f.logKept(loaded.Kept)
	f.logFixed(loaded.Config.Fixed)
}

// logWarnings logs what a start with this configuration would warn of, and no warning twice in a row.
func (f *follower) logWarnings(now []string) {
	for _, text := range now {
		if !slices.Contains(f.warned, text) {
			f.s.cfg.Logger.Warn(text)
		}
	}
	f.warned = now
}

// logKept logs which tenants keep their last good rules, once for each reason.
func (f *follower) logKept(kept map[string]error) {
	for name, err := range kept {
		if f.kept[name] != err.Error() {
			f.s.cfg.Logger.Warn("a file is not reloaded: the last good version stays in use", "file", name, "err", err)
		}
	}
	clear(f.kept)
	for name, err := range kept {
		f.kept[name] = err.Error()
	}
}

// logFixed logs which settings have changed that are read at the start alone, once for each of them
// until it is as it was.
func (f *follower) logFixed(now map[string]string) {
	was := f.s.cfg.Fixed
	names := make(map[string]bool)
	for _, all := range []map[string]string{was, now} {
		for name := range all {
			names[name] = true
		}
	}
	for name := range names {
		before, had := was[name]
		value, has := now[name]
		if had == has && before == value {
			delete(f.fixed, name)
		} else if _, said := f.fixed[name]; !said {
			f.fixed[name] = struct{}{}
			f.s.cfg.Logger.Warn("restart needed: this setting is read at the start alone", "setting", name)
		}
	}
}

// A change is what a reload did to the tenants.
type change struct {
	added, removed []string
	changed        int
}

// errNoRings says that no keyring is open, and a reload opens none.
var errNoRings = errors.New("restart needed: tenants of kind ring, and none was there at the start")

// reload makes cfg the configuration, all of it or nothing. It opens the sources of cfg beside the
// open ones, and waits up to 10 s for rings that are added.
func (s *Server) reload(ctx context.Context, cfg Config) (what change, err error) {
	cfg.Logger, cfg.Now, cfg.Notify, cfg.Hint, cfg.Meter = s.cfg.Logger, s.cfg.Now, s.cfg.Notify, s.cfg.Hint, s.cfg.Meter
	cfg.Reload.Settle, cfg.Reload.Signal, cfg.Reload.Files = s.cfg.Reload.Settle, s.cfg.Reload.Signal, s.cfg.Reload.Files
	cfg = cfg.withDefaults()
	cfg.Issuers.Observe = s.cfg.Issuers.Observe
	old := s.live.Load()
	if (cfg.TLS == nil) != (old.cfg.TLS == nil) {
		cfg.TLS = old.cfg.TLS // the listener does not change
	}
	if (cfg.Upstream == nil) != (old.cfg.Upstream == nil) {
		cfg.Upstream = old.cfg.Upstream // nor what its paths mean
	}
	if (cfg.Revocations == nil) != (old.cfg.Revocations == nil) {
		cfg.Revocations = old.cfg.Revocations // nor is a list opened, or left
	}
	if len(cfg.Tenants) == 0 {
		return what, errors.New("it has no tenants")
	}
	if err := checkAuthz(&cfg); err != nil {
		return what, err
	}
	next, err := old.tenants.openNext(&cfg)
	if err != nil {
		return what, err
	}
	defer func() {
		if err != nil {
			next.closeBut(old.tenants)
		}
	}()
	newRings := without(next.ringIDs(), old.tenants.ringIDs())
	next.join(newRings, old.tenants)
	if err := s.addRings(ctx, newRings); err != nil {
		return what, err
	}
	if what, err = s.replaceBy(cfg, next); err != nil {
		if next.rings != nil {
			next.rings.keyring.Remove(newRings...)
		}
		return what, err
	}
	if next.rings != nil {
		ids := next.ringIDs()
		next.rings.tenants.Store(&ids)
		next.rings.keyring.Remove(without(old.tenants.ringIDs(), ids)...)
	}
	s.retire(ctx, old.tenants, next)
	if len(newRings) > 0 {
		select {
		case s.replaced <- struct{}{}:
		default:
		}
	}
	return what, nil
}

// addRings opens the rings of more tenants. Those that Redis does not have now come later.
func (s *Server) addRings(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	rings := s.live.Load().tenants.rings
	if rings == nil {
		return &Error{Part: PartRings, Err: errNoRings}
	}
	ctx, cancel := context.WithTimeout(ctx, ringTime)
	defer cancel()
	if err := rings.keyring.Add(ctx, ids...); err != nil && !errors.Is(err, keystore.ErrUnavailable) {
		return &Error{Part: PartRings, Err: err}
	}
	return nil
}

// replaceBy has what cfg and its tenants make take the place of the generation before.
func (s *Server) replaceBy(cfg Config, tenants *tenants) (what change, err error) {
	next := s.generation(cfg, tenants)
	if err := next.addRevocations(); err != nil {
		return what, err
	}
	if what, err = s.replace(next); err != nil {
		return what, &Error{Part: PartRules, Err: err}
	}
	return what, nil
}

// replace has next take the place of the generation before. The verifier changes all tenants in one
// step, and leaves alone those that are as they were: so their cached tokens stay good.
func (s *Server) replace(next *generation) (what change, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.live.Load().tenants
	var put []verifier.Tenant
	for i := range next.tenants.all {
		t := &next.tenants.all[i]
		was := old.byID[t.Rules.ID]
		switch {
		case was == nil:
			what.added = append(what.added, t.Rules.ID)
		case was.Sum != Sum{} && was.Sum == t.Sum && next.tenants.sameSource(old, t.Rules.ID):
			continue
		default:
			what.changed++
		}
		put = append(put, next.tenants.rulesOf(t))
	}
	for id := range old.byID {
		if next.tenants.byID[id] == nil {
			what.removed = append(what.removed, id)
		}
	}
	if len(put) > 0 || len(what.removed) > 0 {
		if err := s.verifier.Change(put, what.removed); err != nil {
			return change{}, err
		}
	}
	for i := range put {
		if next.tenants.byID[put[i].ID].Ring {
			s.incomplete = append(s.incomplete, put[i].ID)
		}
	}
	s.install(next)
	return what, nil
}

// retireAfter is how long the sources that a reload has replaced stay open. A verification that has
// begun with the rules before takes no longer: see verifier.Config.
const retireAfter = 10 * time.Second

// retire ends what old has and next does not, when no verification can use it any more.
func (s *Server) retire(ctx context.Context, old, next *tenants) {
	s.retiring.Go(func() {
		settle(ctx, retireAfter)
		old.closeBut(next)
	})
}

// without returns the elements of all, except those of others.
func without(all, others []string) (rest []string) {
	known := make(map[string]bool, len(others))
	for _, one := range others {
		known[one] = true
	}
	for _, one := range all {
		if !known[one] {
			rest = append(rest, one)
		}
	}
	return rest
}
