package jwks

import (
	"cmp"
	"container/heap"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/keystore/jwks/internal/queue"
)

// A Config is what the sources of a [Client] share. The zero Config is safe.
type Config struct {
	// Dir is a folder for the last good answer of each source. After a restart during an outage of
	// the issuer, the source serves those keys: stale, with their true age. A process that can
	// write there chooses the keys. So the folder is made with mode 0700 and its files with 0600,
	// and where another user owns or may write either, it is not used. "" keeps nothing on disk.
	//
	// A file is for sources of the same URL and settings, and for a Client with a Proxy if it was
	// written by one. Clients whose TLS, LookupNetIP or DialContext let in other issuers need
	// folders of their own. Files older than a day are removed.
	Dir string

	// OnDemand is how many fetches tokens may cause in a second, for all sources together, and ten
	// times as many at once. A token causes one if its kid is not known, or to wake a source that
	// sleeps. Anyone can write such a token, so half of them is for sources in use: those that
	// verified a token within ten minutes, or within their TTL if that is longer. 0 means 64.
	// Fetches of the schedule do not count.
	OnDemand int

	// TLS is for private certificate authorities (RootCAs) and client certificates (Certificates).
	// The host is always verified: InsecureSkipVerify is an error of Open. Nil means the system's
	// authorities.
	TLS *tls.Config

	// Proxy is an http or https proxy through which everything goes. It resolves the names, so it
	// must guard the addresses; here only addresses in the URL itself are checked. Nil means none:
	// the environment's proxy variables are not read.
	Proxy *url.URL

	// LookupNetIP resolves a host, as [net.Resolver.LookupNetIP] does. Nil means
	// [net.DefaultResolver].
	LookupNetIP func(ctx context.Context, network, host string) ([]netip.Addr, error)

	// DialContext connects to addr, an address and port that the guard permitted. It must return
	// when ctx ends. Nil means a [net.Dialer].
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)

	// Logger gets what no caller sees: failed fetches in the background, secrets found in a set,
	// trouble with Dir. Nil discards.
	Logger *slog.Logger

	// Now is the clock. Nil means [time.Now]. Timers run on the machine's own.
	Now func() time.Time

	// Wrap returns what carries requests out around next, which does it, for tracing. It is called
	// for each request. What it returns gets no header of SourceConfig.Header. next refuses every
	// host but that of the request, so Wrap leads to no address that the guard refuses. Nil wraps
	// nothing.
	Wrap func(next http.RoundTripper) http.RoundTripper

	// Observe is called for each fetch that has ended and for each change of state, one call after
	// the other, on a goroutine of its own. While it has not returned, the events after it wait:
	// 4096 at most, and more are lost, which is logged. Close waits for it, so it must not call Close.
	// Nil observes nothing.
	Observe func(Event)

	// Fetches is how many fetches run at once. 0 means 64. A quarter of them is for sources in use,
	// and issuers that failed the last time get half to five eighths at most.
	Fetches int

	// PerHost is how many of them ask one host. 0 means 32.
	PerHost int
}

func (c Config) validate() *Error {
	switch {
	case c.TLS != nil && c.TLS.InsecureSkipVerify:
		return failf("", "Config.TLS has InsecureSkipVerify: whoever is on the way could choose the keys").
			hint("RootCAs trusts an authority of your own")
	case c.OnDemand < 0:
		return failf("", "Config.OnDemand is %d: want a number of fetches per second, or 0 for %d", c.OnDemand, defaultOnDemand)
	case c.Fetches < 0 || c.PerHost < 0:
		return failf("", "Config.Fetches is %d and PerHost is %d: want numbers of fetches, or 0 for %d and %d", c.Fetches, c.PerHost, defaultFetches, defaultPerHost)
	case c.Proxy != nil && (c.Proxy.Scheme != "http" && c.Proxy.Scheme != "https" || c.Proxy.Host == ""):
		return failf("", "Config.Proxy: want http or https, and a host")
	}
	return nil
}

// The defaults of Config.Fetches and Config.PerHost. With 80 ms to an issuer, 300 tenants at one host
// are read within a second.
const (
	defaultFetches = 64
	defaultPerHost = 32
)

// defaultOnDemand is the default of Config.OnDemand. So many fetches over TLS take about a tenth of a
// processor.
const defaultOnDemand = 64

// demandSeconds is for how many seconds unused fetches on demand are saved up.
const demandSeconds = 10

// onDemand returns the budget of sources in use, which is that of the others too.
func (c Config) onDemand() (burst int, every time.Duration) {
	each := cmp.Or(c.OnDemand, defaultOnDemand)
	return max(1, demandSeconds*each/2), 2 * time.Second / time.Duration(each)
}

// A SourceConfig allows one source more than is safe for every URL. The zero SourceConfig allows
// nothing more.
type SourceConfig struct {
	// StaleIfError is how long keys are still served after the last good answer, while the issuer
	// cannot be reached. 0 means 4h, and negative no longer than their TTL. It is at most 24h: an
	// attacker who blocks our way to the issuer keeps a revoked key alive for that long.
	StaleIfError time.Duration

	// AllowLoopback allows loopback addresses, and http there. It is for tests, and for issuers
	// that run beside the service.
	AllowLoopback bool

	// AllowCIDR are networks that the source may connect to although they are not public: those of
	// issuers in your own network.
	AllowCIDR []netip.Prefix

	// AllowRedirects follows up to two redirects, on the same host and scheme.
	AllowRedirects bool

	// AcceptEmpty takes a set without a usable key for a withdrawal of all keys. Otherwise it
	// counts as a mistake of the issuer, and the old keys stay.
	AcceptEmpty bool

	// Uses are values of "use" that serve besides "sig", such as "jwt-svid" in the bundles of
	// SPIFFE. They are also operations that serve in key_ops in the place of "verify": Oracle gives
	// its public keys the "sign" of their private ones. "enc" and the operations of encryption are
	// an error of Open.
	Uses []string

	// MaxKeys is how many JWKs of a set may serve. 0 means 512. The set itself may have twice as
	// many, and at least 1024. It is at most 8192.
	MaxKeys int

	// MaxBytes is how large a set may be. 0 means 1 MiB. It is at most 16 MiB. A set above one of
	// these limits counts as a failed attempt: the source keeps serving what it served, until
	// StaleIfError has passed, and says so in its Status and its log.
	MaxBytes int

	// Header returns a header for requests to the origin of the URL that the source was opened with:
	// its scheme, host and port. So the metadata of an issuer gets it, and the jwks_uri only at the
	// same origin. It is called for each fetch, must return when ctx ends, and cannot set what the
	// client itself sets, such as Host. Its error is shown in logs: it must not quote a secret.
	//
	// A source with a Header shares its fetches with no other source. Nil adds nothing.
	Header func(ctx context.Context) (http.Header, error)

	// AllowHTTP allows http, for an issuer in a network of your own, such as http://keycloak:8080 in
	// a cluster. It allows no address by itself: over http, a source connects only to addresses that
	// AllowCIDR names, and with AllowLoopback to this machine. One of them must be set. Who is on
	// the way to such an issuer chooses its keys, so the log warns of each source that has it.
	AllowHTTP bool
}

func (c SourceConfig) validate() *Error {
	if c.StaleIfError > maxStaleIfError {
		return failf("", "SourceConfig.StaleIfError is %v, want at most %v", c.StaleIfError, maxStaleIfError)
	}
	for _, p := range c.AllowCIDR {
		if !p.IsValid() {
			return failf("", "SourceConfig.AllowCIDR has a prefix that is not valid")
		}
	}
	if c.AllowHTTP && !c.AllowLoopback && len(c.AllowCIDR) == 0 {
		return failf("", "SourceConfig.AllowHTTP allows no address by itself").
			allowedBy(SettingAllowCIDR, "names the networks that may be asked over http")
	}
	return c.reading().validate()
}

// guard returns what the source may connect to.
func (c SourceConfig) guard() guard { return guard{c.AllowLoopback, c.AllowHTTP, c.AllowCIDR} }

func (c SourceConfig) staleIfError() time.Duration {
	if c.StaleIfError == 0 {
		return defaultStaleIfError
	}
	return max(c.StaleIfError, 0)
}

// key names everything that sources must agree on to share an endpoint, and a file on disk.
func (c SourceConfig) key(kind, url string) string {
	key := fmt.Sprintf("%s %q %v %v %v %v %v", kind, url, c.staleIfError(), c.AllowLoopback, c.AllowRedirects, c.AcceptEmpty, c.AllowCIDR) + c.reading().key()
	if c.AllowHTTP { // only then: files that older releases wrote keep their names
		key += " http"
	}
	return key
}

// networks returns prefixes in one spelling and order.
func networks(prefixes []netip.Prefix) []netip.Prefix {
	all := slices.Clone(prefixes)
	for i, p := range all {
		all[i] = p.Masked()
	}
	slices.SortFunc(all, netip.Prefix.Compare)
	return slices.Compact(all)
}

// A Client reads the keys of any number of issuers, and bounds the cost: 64 fetches at once, 32
// per host, and tenants take turns. Forged tokens cause no more than [Config.OnDemand] fetches, and
// delay no tenant that is in use. Its sources share those limits. Sources that name the same URL
// share the fetch, but never a key.
//
// It runs one goroutine from the first Open on, one more with [Config.Observe], and one for each fetch. A source has no goroutine
// and no timer. The caller must call [Client.Close]. A Client is safe for concurrent use.
type Client struct {
	cfg    Config
	broken *Error // the mistake in cfg, or nil
	logger *slog.Logger
	clock  func() time.Time

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // run and the fetches
	conns  sync.WaitGroup // connections, and attempts to connect; see hold
	wake   chan struct{}  // tells run that there is something to do earlier
	done   chan struct{}  // closed when all goroutines have returned

	pool        pool
	answers     answers
	observer    *observer      // nil without Config.Observe
	observing   sync.WaitGroup // its goroutine
	withHeader  atomic.Int64   // sources so far that have a Header
	idleWaiters atomic.Int64   // callers that wait for sources that are not in use

	mu        sync.Mutex // guards the fields below; taken after that of an endpoint
	started   bool
	closed    bool
	endpoints map[string]*endpoint
	agenda    agenda
	queue     queue.Queue
	attempts  int       // tickets that are queued or run
	swept     time.Time // when old files were last removed from Dir
	watched   bool      // run wakes when the queue's gate lets in the next ticket
}

// New returns a Client. It starts nothing. If cfg is wrong, Open reports it.
func New(cfg Config) *Client {
	c := &Client{
		cfg: cfg, broken: cfg.validate(), logger: cfg.Logger, clock: cfg.Now,
		wake: make(chan struct{}, 1), done: make(chan struct{}), endpoints: make(map[string]*endpoint),
	}
	if c.logger == nil {
		c.logger = slog.New(slog.DiscardHandler)
	}
	if c.clock == nil {
		c.clock = time.Now
	}
	c.observer = newObserver(cfg, c.logger)
	c.pool = pool{c: c, all: make(map[string]*pooled)}
	c.queue.SetLimits(cmp.Or(cfg.Fetches, defaultFetches), cmp.Or(cfg.PerHost, defaultPerHost))
	c.queue.SetBudget(cfg.onDemand())
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// now returns the time by the wall clock. The end of a key is compared with that clock, and a
// suspended machine does not stop it.
func (c *Client) now() time.Time { return c.clock().Round(0) }

// Open returns a source of the keys that tenant publishes at url, and starts to fetch them. It
// never waits for the network: see [Source.WaitReady]. It reads the set that Config.Dir holds.
//
// The URL must be https, without userinfo and fragment, or http where cfg allows that: on a
// loopback host with AllowLoopback, elsewhere with AllowHTTP.
// It must come from the operator: never make a URL from the claims or header of a token. The error,
// an
// [*Error], says which of the URL, cfg and the Config of the Client is wrong and why, or that the
// Client was closed. It does not quote the URL.
func (c *Client) Open(tenant, url string, cfg SourceConfig) (*Source, error) {
	return c.open(tenant, url, kindSet, "", cfg)
}

// Discover is [Client.Open] for an OpenID Connect issuer, whose metadata says where its keys are
// (OpenID Connect Discovery 1.0, section 4), or where that is 404, for an OAuth 2.0 authorization
// server (RFC 8414, section 3). The metadata must name the issuer byte for byte. It is
// fetched once a day, and when the keys are gone from their URL (404 or 410). While it cannot be
// fetched, the keys are read from the last URL.
func (c *Client) Discover(tenant, issuer string, cfg SourceConfig) (*Source, error) {
	return c.open(tenant, issuer, kindIssuer, "", cfg)
}

// checkOpen refuses arguments of Open, and returns the URL. It puts cfg into its one form.
func (c *Client) checkOpen(tenant, raw string, cfg *SourceConfig) (*url.URL, *Error) {
	if c.broken != nil {
		return nil, c.broken
	}
	if tenant == "" {
		return nil, failf("", "the tenant is empty")
	}
	if failed := cfg.validate(); failed != nil {
		return nil, failed
	}
	cfg.AllowCIDR, cfg.Uses = networks(cfg.AllowCIDR), sorted(cfg.Uses)
	return cfg.guard().parseURL(raw)
}

// The kinds of URLs of an endpoint. The files on disk depend on their names.
const (
	kindSet    = "url"
	kindIssuer = "issuer"
	kindPEM    = "pem"
)

// open opens a source of that kind. kid is "" unless it is kindPEM.
func (c *Client) open(tenant, raw, kind, kid string, cfg SourceConfig) (*Source, error) {
	u, failed := c.checkOpen(tenant, raw, &cfg)
	if failed != nil {
		return nil, failed
	}
	if kind == kindIssuer && strings.Contains(raw, "?") {
		return nil, failf(StepURL, "an issuer has no query (OpenID Connect Discovery 1.0, section 2)")
	}
	saved, unique := c.headerKey(cfg, tenant)
	s, file := &Source{tenant: tenant}, cfg.key(kind, raw)+saved
	key := file + unique
	for {
		e, err := c.endpoint(key, func() *endpoint {
			if cfg.AllowHTTP {
				c.logger.Warn("jwks: http is allowed: anyone on the way to the issuer can choose its keys", "tenant", tenant, "url", display(u))
			}
			e := newEndpoint(c, key, tenant, u, cfg)
			e.file, e.kid = file, kid
			if kind == kindIssuer {
				e.issuer = raw
			}
			e.restore()
			return e
		})
		if err != nil {
			return nil, err
		}
		if e.attach(s) { // it fails if the last other source was closed just now
			return s, nil
		}
	}
}

// endpoint returns the endpoint of that key. It makes a missing one.
func (c *Client) endpoint(key string, make func() *endpoint) (*endpoint, error) {
	c.mu.Lock()
	e, closed := c.endpoints[key], c.closed
	c.mu.Unlock()
	if e != nil && !closed {
		return e, nil
	}
	fresh := make() // it may read a file, so not under the lock

	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errClosed
	}
	if e := c.endpoints[key]; e != nil {
		return e, nil
	}
	c.endpoints[key] = fresh
	if !c.started {
		c.started = true
		c.wg.Go(c.run)
		if c.observer != nil {
			c.observing.Go(c.observer.run)
		}
	}
	return fresh, nil
}

// Close closes all sources, withdraws their keys, and waits until their fetches have returned or
// ctx ends: then it returns ctx.Err(). It may be called more than once.
func (c *Client) Close(ctx context.Context) error {
	c.mu.Lock()
	first := !c.closed
	c.closed = true
	var all []*endpoint
	for _, e := range c.endpoints {
		all = append(all, e)
	}
	c.mu.Unlock()

	c.cancel()
	for _, e := range all {
		e.close()
	}
	if first {
		go func() {
			c.wg.Wait()
			c.pool.closeIdle() // the transports keep nothing from now on: there are no more requests
			c.conns.Wait()
			if c.observer != nil {
				c.observer.end()
				c.observing.Wait()
			}
			close(c.done)
		}()
	}
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Sources returns the sources that are open, in the order of their tenants and URLs.
func (c *Client) Sources() []*Source {
	c.mu.Lock()
	endpoints := slices.Collect(maps.Values(c.endpoints))
	c.mu.Unlock()
	var all []*Source
	for _, e := range endpoints {
		e.mu.Lock()
		all = slices.AppendSeq(all, maps.Keys(e.sources))
		e.mu.Unlock()
	}
	slices.SortFunc(all, func(a, b *Source) int {
		return cmp.Or(strings.Compare(a.tenant, b.tenant), strings.Compare(display(a.e.url), display(b.e.url)))
	})
	return all
}

// remove drops an endpoint that was closed.
func (c *Client) remove(e *endpoint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.agenda.remove(e)
	if c.endpoints[e.key] == e {
		delete(c.endpoints, e.key)
	}
}

// schedule has e ticked at that time, instead of any earlier appointment.
func (c *Client) schedule(e *endpoint, at time.Time) {
	c.mu.Lock()
	c.agenda.set(e, at)
	e.dueSetAt = c.now()
	first := c.agenda[0] == e
	c.mu.Unlock()
	if first {
		c.wakeRun()
	}
}

// wakeRun makes run look for due fetches.
func (c *Client) wakeRun() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// unschedule cancels the tick of e.
func (c *Client) unschedule(e *endpoint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.agenda.remove(e)
}

// run ticks each endpoint when it is due, and starts fetches when the budget allows.
func (c *Client) run() {
	timer := time.NewTimer(maxFresh)
	defer timer.Stop()
	for {
		timer.Reset(c.tickDue())
		select {
		case <-c.ctx.Done():
			return
		case <-c.wake:
		case <-timer.C:
		}
	}
}

// clockCheck is how often run reads the clock while an endpoint is scheduled. A timer notices
// neither that the machine was suspended nor that its clock was set.
const clockCheck = time.Minute

// tickDue ticks the endpoints that are due, and returns how long run may wait.
func (c *Client) tickDue() time.Duration {
	now := c.now()
	var due []*endpoint
	wait := maxFresh
	c.mu.Lock()
	for len(c.agenda) > 0 {
		e := c.agenda[0]
		if wait = e.due.Sub(now); wait > 0 && !now.Before(e.dueSetAt) {
			wait = min(max(wait, time.Millisecond), clockCheck)
			break
		}
		// It is due. Or the clock was set back, and then it decides by itself.
		c.agenda.remove(e)
		due = append(due, e)
		wait = maxFresh
	}
	c.dispatchLocked()
	opens, gated := c.queue.Wait(now)
	if c.watched = gated; gated {
		wait = min(wait, max(opens, time.Millisecond))
	}
	c.mu.Unlock()
	for _, e := range due {
		e.tick(now)
	}
	return wait
}

// enqueue starts t as soon as there is room. It returns false if the Client was closed.
func (c *Client) enqueue(t *queue.Ticket) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.queue.Add(t)
	c.attempts++
	c.dispatchLocked()
	return true
}

// hurry makes a ticket urgent, because a caller waits for it.
func (c *Client) hurry(t *queue.Ticket, inUse bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue.Hurry(t, inUse)
	c.dispatchLocked()
}

// dequeue reports whether it kept t from starting.
func (c *Client) dequeue(t *queue.Ticket) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := c.queue.Cancel(t)
	if kept {
		c.endedLocked()
	}
	return kept
}

// endedLocked notes that a ticket will not run any longer.
func (c *Client) endedLocked() {
	if c.attempts--; c.attempts == 0 {
		c.answers.clear()
	}
}

func (c *Client) dispatchLocked() {
	if c.closed {
		return
	}
	now := c.now()
	for t := c.queue.Next(now); t != nil; t = c.queue.Next(now) {
		c.wg.Go(func() {
			t.Start()
			c.mu.Lock()
			defer c.mu.Unlock()
			c.queue.Done(t)
			c.endedLocked()
			c.dispatchLocked()
		})
	}
	if _, gated := c.queue.Wait(now); gated && !c.watched {
		c.watched = true
		c.wakeRun()
	}
}

// getter returns the getter of one attempt.
func (c *Client) getter(g guard, redirects bool) *getter {
	return &getter{pool: &c.pool, answers: &c.answers, guard: g, redirects: redirects, now: c.now, wrap: c.cfg.Wrap}
}

// An agenda is a heap of endpoints, the one that is due first at the top.
type agenda []*endpoint

func (a agenda) Len() int           { return len(a) }
func (a agenda) Less(i, j int) bool { return a[i].due.Before(a[j].due) }
func (a agenda) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].heapIndex, a[j].heapIndex = i, j
}

// Push implements [heap.Interface].
func (a *agenda) Push(x any) {
	e := x.(*endpoint)
	e.heapIndex = len(*a)
	*a = append(*a, e)
}

// Pop implements [heap.Interface].
func (a *agenda) Pop() any {
	last := len(*a) - 1
	e := (*a)[last]
	(*a)[last] = nil
	*a = (*a)[:last]
	e.heapIndex = -1
	return e
}

func (a *agenda) set(e *endpoint, at time.Time) {
	e.due = at
	if e.heapIndex < 0 {
		heap.Push(a, e)
	} else {
		heap.Fix(a, e.heapIndex)
	}
}

func (a *agenda) remove(e *endpoint) {
	if e.heapIndex >= 0 {
		heap.Remove(a, e.heapIndex)
	}
}
