package jwks

import (
	"container/heap"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Config is what the sources of a [Client] share. The zero Config is safe.
type Config struct {
	// Dir is a folder for the last good answer of each source, so that a restart
	// during an outage of the issuer comes up with the keys of before it: stale,
	// with their true age. Whoever can write there chooses the keys: it is made
	// with mode 0700, its files with 0600, and where another user owns or may write
	// either, it is not used. "" keeps nothing on disk.
	Dir string

	// TLS is for private certificate authorities (RootCAs) and client certificates
	// (Certificates). The host is always verified: InsecureSkipVerify is an error
	// of Open. Nil means the system's authorities.
	TLS *tls.Config

	// Proxy is an http or https proxy through which everything goes. It resolves
	// the names, so it must guard the addresses: here only literal ones are
	// checked. Nil means none: the environment's proxy variables are not read.
	Proxy *url.URL

	// LookupNetIP resolves a host, as [net.Resolver.LookupNetIP] does. Nil means
	// [net.DefaultResolver].
	LookupNetIP func(ctx context.Context, network, host string) ([]netip.Addr, error)

	// DialContext connects to addr, an address and port that the guard has let
	// pass. It must return when ctx ends. Nil means a [net.Dialer].
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)

	// Logger is told what no caller is: failed fetches in the background, secrets
	// found in a set, trouble with Dir. Nil discards.
	Logger *slog.Logger

	// Now is the clock. Nil means [time.Now]. Timers run on the machine's own.
	Now func() time.Time
}

func (c Config) validate() *Error {
	switch {
	case c.TLS != nil && c.TLS.InsecureSkipVerify:
		return failf("", "Config.TLS has InsecureSkipVerify: whoever is on the way could choose the keys").
			hint("RootCAs trusts an authority of your own")
	case c.Proxy != nil && (c.Proxy.Scheme != "http" && c.Proxy.Scheme != "https" || c.Proxy.Host == ""):
		return failf("", "Config.Proxy: want http or https, and a host")
	}
	return nil
}

// A SourceConfig says what one source may do beyond the safe. The zero
// SourceConfig allows nothing beyond.
type SourceConfig struct {
	// StaleIfError is how long keys are still served after the last good answer,
	// while the issuer cannot be reached. 0 means 4h, negative means no longer than
	// their TTL, at most 24h: whoever can keep us from the issuer keeps a revoked
	// key alive for that long.
	StaleIfError time.Duration

	// AllowLoopback allows loopback addresses, and there http. It is for tests and
	// for what runs beside the service.
	AllowLoopback bool

	// AllowCIDR are networks that the source may connect to, though they are not
	// public: those of issuers in your own network.
	AllowCIDR []netip.Prefix

	// AllowRedirects follows up to two redirects, on the same host and scheme.
	AllowRedirects bool

	// AcceptEmpty takes a set with no usable key for a withdrawal of all keys.
	// Otherwise it is a mistake of the issuer, and the old keys stay.
	AcceptEmpty bool
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
	return nil
}

func (c SourceConfig) keep() time.Duration {
	if c.StaleIfError == 0 {
		return defaultStaleIfError
	}
	return max(c.StaleIfError, 0)
}

// key names what sources must agree on to share an endpoint.
func (c SourceConfig) key(kind, url string) string {
	return fmt.Sprint(kind, " ", url, " ", c.keep(), c.AllowLoopback, c.AllowRedirects, c.AcceptEmpty, c.AllowCIDR)
}

// A Client reads the keys of any number of issuers, and bounds what that costs:
// 16 fetches at once, two a host, in turns between tenants. Its sources share
// those limits, and the fetch where they name the same URL, but never a key.
//
// It runs one goroutine from the first Open on, and one for each fetch; a source
// has none, and no timer. The caller must call [Client.Close]. A Client is safe
// for concurrent use.
type Client struct {
	cfg    Config
	broken *Error // what is wrong with cfg, or nil
	logger *slog.Logger
	clock  func() time.Time

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // run and the fetches
	wake   chan struct{}  // tells run that something is due earlier
	done   chan struct{}  // closed when all goroutines have returned

	mu        sync.Mutex // taken after that of an endpoint
	started   bool
	closed    bool
	endpoints map[string]*endpoint
	agenda    agenda
	queue     queue
}

// New returns a Client. It starts nothing; what is wrong with cfg, Open reports.
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
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// now returns the wall clock's time: that is what the end of a key is compared
// with, and what a suspended machine does not stop.
func (c *Client) now() time.Time { return c.clock().Round(0) }

// Open returns a source of the keys that tenant publishes at url, and lets it
// fetch them. It never waits for the network: see [Source.WaitReady]. Beyond
// memory, it reads the set that Config.Dir holds.
//
// The URL must be https, without userinfo and fragment, or http on a loopback
// host that cfg allows. It is the operator's: never make one of what a token says.
// The error, which does not quote the URL, says what is wrong with it, with cfg,
// or with the Config of the Client, or that the Client was closed.
func (c *Client) Open(tenant, url string, cfg SourceConfig) (*Source, error) {
	return c.open(tenant, url, false, cfg)
}

// Discover is Open for an OpenID Connect issuer, whose metadata says where its
// keys are (OpenID Connect Discovery 1.0, section 4). The metadata must name the
// issuer byte for byte; it is asked for once a day, and when the keys are gone
// from where they were (404 or 410). While it cannot be had the keys are read where
// they were.
func (c *Client) Discover(tenant, issuer string, cfg SourceConfig) (*Source, error) {
	return c.open(tenant, issuer, true, cfg)
}

func (c *Client) open(tenant, raw string, discover bool, cfg SourceConfig) (*Source, error) {
	if c.broken != nil {
		return nil, c.broken
	}
	if tenant == "" {
		return nil, failf("", "the tenant is empty")
	}
	if failed := cfg.validate(); failed != nil {
		return nil, failed
	}
	cfg.AllowCIDR = slices.Clone(cfg.AllowCIDR)
	u, failed := guard{cfg.AllowLoopback, cfg.AllowCIDR}.parseURL(raw)
	if failed != nil {
		return nil, failed
	}
	kind := "url"
	if discover {
		kind = "issuer"
		if strings.Contains(raw, "?") {
			return nil, failf(StepURL, "an issuer has no query (OpenID Connect Discovery 1.0, section 2)")
		}
	}
	s := &Source{tenant: tenant}
	for {
		e, err := c.endpoint(cfg.key(kind, raw), func() *endpoint {
			e := newEndpoint(c, tenant, u, cfg)
			if discover {
				e.issuer = raw
			}
			e.restore()
			return e
		})
		if err != nil {
			return nil, err
		}
		if e.attach(s) { // unless its last source was closed just now
			return s, nil
		}
	}
}

// endpoint returns the endpoint of that key, made if there is none.
func (c *Client) endpoint(key string, make func() *endpoint) (*endpoint, error) {
	c.mu.Lock()
	e, closed := c.endpoints[key], c.closed
	c.mu.Unlock()
	if e != nil && !closed {
		return e, nil
	}
	fresh := make() // it may read a file
	fresh.key = key

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
	}
	return fresh, nil
}

// Close closes all sources, and waits until their fetches have returned, or for
// ctx to end: then it returns ctx.Err(). It may be called more than once. The
// keys of all sources are withdrawn.
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

// forget drops an endpoint that was closed.
func (c *Client) forget(e *endpoint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.agenda.remove(e)
	if c.endpoints[e.key] == e {
		delete(c.endpoints, e.key)
	}
}

// schedule has e ticked at that time, and not at another.
func (c *Client) schedule(e *endpoint, at time.Time) {
	c.mu.Lock()
	c.agenda.set(e, at)
	e.since = c.now()
	first := c.agenda[0] == e
	c.mu.Unlock()
	if first {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

// unschedule has e not ticked.
func (c *Client) unschedule(e *endpoint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.agenda.remove(e)
}

// run ticks each endpoint when it is due.
func (c *Client) run() {
	timer := time.NewTimer(maxFresh)
	defer timer.Stop()
	for {
		timer.Reset(c.turn())
		select {
		case <-c.ctx.Done():
			return
		case <-c.wake:
		case <-timer.C:
		}
	}
}

// lookAgain is how often run looks at the clock while anything is scheduled: a timer
// sees neither that the machine is suspended nor that its clock is put right.
const lookAgain = time.Minute

// turn ticks what is due, and returns for how long nothing else is to be looked at.
func (c *Client) turn() time.Duration {
	now := c.now()
	var due []*endpoint
	wait := maxFresh
	c.mu.Lock()
	for len(c.agenda) > 0 {
		e := c.agenda[0]
		if wait = e.due.Sub(now); wait > 0 && !now.Before(e.since) {
			wait = min(max(wait, time.Millisecond), lookAgain)
			break
		}
		// It is due, or the clock went back: then it decides for itself.
		c.agenda.remove(e)
		due = append(due, e)
		wait = maxFresh
	}
	c.mu.Unlock()
	for _, e := range due {
		e.tick(now)
	}
	return wait
}

// enqueue lets t start as soon as there is room, and returns false if the Client
// was closed.
func (c *Client) enqueue(t *ticket) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.queue.add(t)
	c.dispatchLocked()
	return true
}

// hurry is for a ticket that somebody waits for.
func (c *Client) hurry(t *ticket) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue.hurry(t)
	c.dispatchLocked()
}

// dequeue reports whether it kept t from starting.
func (c *Client) dequeue(t *ticket) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queue.cancel(t)
}

func (c *Client) dispatchLocked() {
	if c.closed {
		return
	}
	for t := c.queue.next(); t != nil; t = c.queue.next() {
		c.wg.Go(func() {
			t.start()
			c.mu.Lock()
			defer c.mu.Unlock()
			c.queue.done(t)
			c.dispatchLocked()
		})
	}
}

// getter returns what fetches for one flight.
func (c *Client) getter(g guard, redirects bool) *getter {
	config := new(tls.Config)
	if c.cfg.TLS != nil {
		config = c.cfg.TLS.Clone()
	}
	config.ServerName = "" // that of each host
	config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
	config.NextProtos = []string{"http/1.1"}
	if config.Time == nil {
		config.Time = c.clock
	}
	d := dialer{guard: g, lookup: c.cfg.LookupNetIP, dial: c.cfg.DialContext}
	if d.lookup == nil {
		d.lookup = net.DefaultResolver.LookupNetIP
	}
	if d.dial == nil {
		d.dial = new(net.Dialer).DialContext
	}
	if c.cfg.Proxy != nil {
		d.direct = hostPort(c.cfg.Proxy)
	}
	return &getter{dialer: d, tls: config, proxy: c.cfg.Proxy, redirects: redirects, now: c.now}
}

// hostPort returns u's host and port, as they are dialled.
func hostPort(u *url.URL) string {
	port := u.Port()
	switch {
	case port != "":
	case u.Scheme == "http":
		port = "80"
	default:
		port = "443"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// An agenda holds endpoints by when they are due, the earliest first.
type agenda []*endpoint

func (a agenda) Len() int           { return len(a) }
func (a agenda) Less(i, j int) bool { return a[i].due.Before(a[j].due) }
func (a agenda) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].place, a[j].place = i, j
}

// Push implements [heap.Interface].
func (a *agenda) Push(x any) {
	e := x.(*endpoint)
	e.place = len(*a)
	*a = append(*a, e)
}

// Pop implements [heap.Interface].
func (a *agenda) Pop() any {
	last := len(*a) - 1
	e := (*a)[last]
	(*a)[last] = nil
	*a = (*a)[:last]
	e.place = -1
	return e
}

func (a *agenda) set(e *endpoint, at time.Time) {
	e.due = at
	if e.place < 0 {
		heap.Push(a, e)
	} else {
		heap.Fix(a, e.place)
	}
}

func (a *agenda) remove(e *endpoint) {
	if e.place >= 0 {
		heap.Remove(a, e.place)
	}
}
