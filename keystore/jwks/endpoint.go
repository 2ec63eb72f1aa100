package jwks

import (
	"context"
	"crypto/sha256"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/internal/unknown"
	"github.com/keyturn/keyturn/keystore"
)

const (
	// maxWait is how long a caller waits for a fetch, whatever its context says.
	maxWait = 2 * time.Second

	// maxWaiters is how many callers wait for one endpoint.
	maxWaiters = 4096

	// askedStep is how exactly it is known when somebody asked last, so that
	// lookups write to shared memory once in a while only.
	askedStep = time.Second
)

// An endpoint is what is known of one URL, and fetches it, for all sources that
// name it.
type endpoint struct {
	c      *Client
	key    string
	tenant string // whose turn a fetch takes
	url    *url.URL
	issuer string // "" if url is that of the set
	cfg    SourceConfig
	guard  guard

	asked atomic.Int64         // when somebody asked, in Unix nanoseconds
	view  atomic.Pointer[view] // what lookups read; replaced whole

	due   time.Time // c.mu guards it, and the next two
	since time.Time // when due was decided
	place int       // in c.agenda, or -1

	mu       sync.Mutex // guards all below
	m        machine
	sources  map[*Source]bool
	closed   bool
	flight   *flight // the one that is queued or under way
	waiters  int
	budget   unknown.Budget         // of attempts on demand
	missing  unknown.Memory[string] // kids that the set of this generation lacks
	set      set
	restored []*keystore.Key // of a set from disk, until there is a source
	known    known
	last     *Error // of the last attempt; nil if it went well
	fetches  uint64
	changed  chan struct{} // closed when view is replaced
}

// A view is what a lookup needs to know beside the keys. It is never modified.
type view struct {
	machine
	kids map[string]bool
	why  error // what to answer where nothing can be told; wraps ErrUnavailable
}

// A set is what a good answer held.
type set struct {
	generation uint64 // 0: none yet
	sum        [sha256.Size]byte
	kids       map[string]bool
	keys       []KeyInfo
	skipped    []Skipped
}

// known is what the next request can make use of.
type known struct {
	validator  validator
	ttl        time.Duration
	jwksURI    *url.URL  // by discovery
	discovered time.Time // when
	sum        [sha256.Size]byte
	generation uint64
}

// A flight is one attempt, from when it is queued.
type flight struct {
	ctx      context.Context
	cancel   context.CancelFunc
	ticket   *ticket
	onDemand bool

	done  chan struct{} // closed when it has ended; what follows is set before
	err   *Error
	start time.Time
}

func newEndpoint(c *Client, tenant string, u *url.URL, cfg SourceConfig) *endpoint {
	e := &endpoint{
		c: c, tenant: tenant, url: u, cfg: cfg, guard: guard{cfg.AllowLoopback, cfg.AllowCIDR},
		place: -1, m: machine{keep: cfg.keep()}, sources: make(map[*Source]bool),
		last: errFirst, changed: make(chan struct{}),
		budget:  unknown.Budget{Burst: demandBurst, Every: demandEvery},
		missing: unknown.Memory[string]{Most: maxMissing, For: missingFor},
	}
	e.publishLocked() // nobody else has it yet
	return e
}

// attach adds a source, with the keys that others have got already, and returns
// false if the endpoint is closed.
func (e *endpoint) attach(s *Source) bool {
	now := e.c.now()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	s.e = e
	first := len(e.sources) == 0
	for other := range e.sources {
		s.copyFrom(other, e.m.keysEnd())
		break
	}
	e.sources[s] = true
	e.asked.Store(now.UnixNano())
	if first {
		e.m.next, e.m.since = now, now
		e.installLocked()
		e.launchLocked(scheduled, false)
	} else {
		e.rouseLocked(now)
	}
	return true
}

// detach takes a source away. The last one closes the endpoint, and gets the
// flight that is to be waited for.
func (e *endpoint) detach(s *Source) *flight {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.sources, s)
	s.withdraw()
	switch {
	case e.closed:
		return e.flight
	case len(e.sources) > 0:
		return nil
	}
	return e.closeLocked()
}

// close closes the endpoint and all its sources.
func (e *endpoint) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for s := range e.sources {
		s.withdraw()
	}
	if !e.closed {
		e.closeLocked()
	}
}

func (e *endpoint) closeLocked() *flight {
	e.closed = true
	e.c.forget(e)
	e.last = errClosed
	e.publishLocked()
	f := e.flight
	if f == nil {
		return nil
	}
	f.cancel()
	if e.c.dequeue(f.ticket) {
		e.flight = nil
		f.err = errClosed
		close(f.done)
	}
	return f
}

// tick is what happens when the endpoint is due.
func (e *endpoint) tick(now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed || e.flight != nil:
	case e.m.idle(now, e.lastAsked()):
		e.m = e.m.doze(now)
		e.endKeysLocked()
		e.publishLocked()
	case e.m.overslept(now):
		e.m = e.m.doze(now)
		e.rouseLocked(now)
	case !e.m.due(now):
		e.c.schedule(e, e.m.next)
	default:
		e.launchLocked(scheduled, false)
	}
}

// touch notes that somebody asks, and returns what is known now.
func (e *endpoint) touch(now time.Time) *view {
	if at := now.UnixNano(); at-e.asked.Load() > int64(askedStep) {
		e.asked.Store(at)
	}
	v := e.view.Load()
	if v.mode == awake && !v.overslept(now) {
		return v
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.closed && e.flight == nil && e.m.overslept(now) {
		e.m = e.m.doze(now)
	}
	e.rouseLocked(now)
	return e.view.Load()
}

func (e *endpoint) lastAsked() time.Time { return time.Unix(0, e.asked.Load()) }

// rouseLocked wakes an endpoint that slept.
func (e *endpoint) rouseLocked(now time.Time) {
	slept := e.m.mode == asleep
	m := e.m.roused(now)
	if m == e.m || e.closed {
		return
	}
	e.m = m
	e.endKeysLocked()
	e.publishLocked()
	switch {
	case !slept || e.flight != nil:
	case e.m.held(now):
		e.c.schedule(e, e.m.hold)
	default:
		e.launchLocked(urgent, false)
	}
}

// launchLocked queues a flight.
func (e *endpoint) launchLocked(l lane, onDemand bool) {
	host := e.url
	if e.known.jwksURI != nil {
		host = e.known.jwksURI
	}
	f := &flight{onDemand: onDemand, done: make(chan struct{})}
	f.ctx, f.cancel = context.WithCancel(e.c.ctx)
	f.ticket = &ticket{tenant: e.tenant, host: hostOf(host), standing: e.m.standing(), lane: l, start: func() { e.fly(f) }}
	e.flight = f
	e.c.unschedule(e)
	if !e.c.enqueue(f.ticket) {
		e.flight = nil
		f.cancel()
		f.err = errClosed
		close(f.done)
	}
}

// ask returns the flight that a caller is to wait for, for news of kid; or none,
// and then the answer. The caller of a flight must leave.
func (e *endpoint) ask(kid string, now time.Time) (*flight, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.rouseLocked(now)
	if e.closed {
		return nil, unavailable(errClosed)
	}
	if e.m.serves(now) && e.set.kids[kid] {
		return nil, nil
	}
	inStep := e.m.inStep(now)
	if inStep && e.missing.Has(kid, now, e.set.generation) {
		return nil, keystore.ErrNotFound
	}
	if e.waiters == maxWaiters {
		return nil, unavailable(errCrowd)
	}
	if e.flight == nil {
		if e.m.held(now) {
			return nil, unavailable(errHeld)
		}
		if !e.budget.Take(now) {
			if inStep {
				return nil, keystore.ErrNotFound
			}
			return nil, e.view.Load().why
		}
		e.launchLocked(urgent, true)
		if e.flight == nil {
			return nil, unavailable(errClosed)
		}
	} else {
		e.c.hurry(e.flight.ticket)
	}
	e.waiters++
	return e.flight, nil
}

// leave is called by whoever got a flight from ask, with what it has learned.
func (e *endpoint) leave(f *flight, kid string, ended bool) error {
	now := e.c.now()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.waiters--
	switch {
	case e.closed:
		return unavailable(errClosed)
	case e.m.serves(now) && e.set.kids[kid]:
		return nil
	case !ended:
		return unavailable(errNoReply)
	case f.err != nil:
		return unavailable(f.err)
	}
	if f.onDemand { // not from a cache (RFC 9111, section 5.2.1.4)
		e.missing.Add(kid, f.start, e.set.generation)
	}
	return keystore.ErrNotFound
}

// fly is a flight, on its own goroutine.
func (e *endpoint) fly(f *flight) {
	e.mu.Lock()
	known := e.known
	e.fetches++
	f.start = e.c.now()
	e.mu.Unlock()

	ctx, cancel := context.WithTimeout(f.ctx, fetchTimeout)
	got := e.fetch(ctx, known, f.onDemand)
	cancel()
	f.cancel()
	if got.failed == nil && got.fresh {
		e.spread(got, f.start)
	}
	if e.land(f, got) && e.c.cfg.Dir != "" && !e.save(got.body, f.start) {
		e.mu.Lock()
		e.known.validator = validator{} // the next answer is to be whole
		e.mu.Unlock()
	}
}

// spread brings the keys of a new set to all sources. It does not hold e.mu, so
// that callers wait for none of this; there is but one flight at a time.
func (e *endpoint) spread(got *fetched, start time.Time) {
	e.mu.Lock()
	var all []*Source
	for s := range e.sources {
		all = append(all, s)
	}
	e.mu.Unlock()
	end := machine{keep: e.cfg.keep()}.succeeded(start, got.ttl, 0).expiry()
	for _, s := range all {
		s.install(got.keys, got.generation, end)
	}
}

// land ends a flight with what it got, and reports whether that was a good answer.
func (e *endpoint) land(f *flight, got *fetched) (good bool) {
	now := e.c.now()
	e.mu.Lock()
	defer e.mu.Unlock()
	defer close(f.done)
	e.flight = nil
	if e.closed {
		f.err = errClosed
		return false
	}
	if to := got.jwksURI; to != nil {
		if was := e.known.jwksURI; was == nil || *was != *to {
			e.known.validator = validator{} // it is of another place, however the rest ended
		}
		e.known.jwksURI, e.known.discovered = to, got.discovered
	}
	was := e.m.failures
	e.last, f.err = got.failed, got.failed
	if got.failed != nil {
		if got.lost {
			e.known.jwksURI = nil
		}
		failed := e.m.failed
		if f.onDemand {
			failed = e.m.failedOnDemand
		}
		e.m = failed(now, e.lastAsked(), got.failed.wait, rand.Float64())
		e.c.logger.Warn("jwks: fetch failed", "tenant", e.tenant, "url", display(e.url),
			"error", got.failed.Error(), "failures", e.m.failures, "state", e.m.state(now).String(), "next", e.m.next)
	} else {
		e.m = e.m.succeeded(f.start, got.ttl, rand.Float64())
		e.known.validator, e.known.ttl = got.validator, got.ttl
		if got.fresh {
			e.takeLocked(got)
		}
		if was > 0 {
			e.c.logger.Info("jwks: fetched again", "tenant", e.tenant, "url", display(e.url), "failures", was)
		}
	}
	e.endKeysLocked()
	e.publishLocked()
	e.c.schedule(e, e.m.next)
	return got.failed == nil
}

// takeLocked makes got the set that is held.
func (e *endpoint) takeLocked(got *fetched) {
	for s := range e.sources { // those that came since spread
		if s.generation() != got.generation {
			s.install(got.keys, got.generation, e.m.keysEnd())
		}
	}
	e.set = newSet(got)
	e.known.sum, e.known.generation = got.sum, got.generation
	for _, s := range e.set.skipped {
		if s.Exposed {
			e.c.logger.Error("jwks: a private key or secret is published", "tenant", e.tenant, "url", display(e.url), "key", s.String())
		}
	}
}

// installLocked gives the first source what was read from disk.
func (e *endpoint) installLocked() {
	if e.restored == nil {
		return
	}
	for s := range e.sources {
		s.install(e.restored, e.set.generation, e.m.keysEnd())
	}
	e.restored = nil
}

func (e *endpoint) endKeysLocked() {
	end := e.m.keysEnd()
	for s := range e.sources {
		s.endKeys(end)
	}
}

// publishLocked lets lookups see what is known.
func (e *endpoint) publishLocked() {
	var why error = keystore.ErrUnavailable
	if e.last != nil {
		why = unavailable(e.last)
	}
	e.view.Store(&view{machine: e.m, kids: e.set.kids, why: why})
	close(e.changed)
	e.changed = make(chan struct{})
}

// A fetched is what an attempt brought.
type fetched struct {
	failed *Error
	lost   bool // the keys are gone from where discovery said

	ttl        time.Duration
	validator  validator
	jwksURI    *url.URL
	discovered time.Time

	// Of a set that differs from the one held:
	fresh      bool
	generation uint64
	sum        [sha256.Size]byte
	keys       []*keystore.Key // of no tenant: patterns
	skipped    []Skipped

	body []byte // nil after a 304
}

// fetch asks for the keys: where discovery says, if that is asked for. What
// discovery brought stays known, however the rest ends.
func (e *endpoint) fetch(ctx context.Context, known known, onDemand bool) *fetched {
	g := e.c.getter(e.guard, e.cfg.AllowRedirects)
	got := new(fetched)
	from, asked := e.url, true
	if e.issuer != "" {
		from, asked, got.failed = e.locate(ctx, g, known, got)
		if got.failed != nil {
			return got
		}
		if known.jwksURI == nil || *from != *known.jwksURI {
			known.validator = validator{} // of another place
		}
	}
	a, failed := g.get(ctx, from, known.validator, onDemand)
	if !asked && gone(failed) {
		moved, undiscovered := e.discover(ctx, g, got)
		if undiscovered == nil && *moved != *from {
			a, failed = g.get(ctx, moved, validator{}, true)
		}
	}
	got.lost = e.issuer != "" && got.jwksURI == nil && gone(failed)
	if got.failed = failed; failed == nil {
		got.failed = e.judge(a, known, got)
	}
	return got
}

// locate returns where the keys are, and whether the issuer was asked for that in
// this attempt. If its metadata is old and cannot be had anew, the keys are where
// they were: whether they are is theirs to say.
func (e *endpoint) locate(ctx context.Context, g *getter, known known, got *fetched) (from *url.URL, asked bool, failed *Error) {
	switch {
	case known.jwksURI == nil:
		from, failed = e.discover(ctx, g, got)
		return from, true, failed
	case e.c.now().Sub(known.discovered).Abs() < discoveryTTL:
		return known.jwksURI, false, nil
	}
	half, cancel := context.WithTimeout(ctx, fetchTimeout/2) // the rest is for the keys
	defer cancel()
	from, failed = e.discover(half, g, got)
	if failed == nil || failed.Step == StepDiscovery { // the issuer has spoken
		return from, true, failed
	}
	e.c.logger.Warn("jwks: old metadata could not be had anew", "tenant", e.tenant, "url", display(e.url), "error", failed.Error())
	return known.jwksURI, true, nil
}

// gone reports whether the keys are not there any more.
func gone(failed *Error) bool {
	return failed != nil && (failed.Status == http.StatusNotFound || failed.Status == http.StatusGone)
}

// judge reads an answer into got.
func (e *endpoint) judge(a *answer, known known, got *fetched) *Error {
	var said bool
	got.ttl, said = freshness(a.header)
	got.validator = newValidator(a.header)
	if !a.modified {
		if !said {
			got.ttl = known.ttl
		}
		if got.validator == (validator{}) {
			got.validator = known.validator
		}
		return nil
	}
	got.body, got.sum = a.body, sha256.Sum256(a.body)
	if known.generation > 0 && got.sum == known.sum {
		return nil
	}
	got.fresh, got.generation = true, known.generation+1
	return e.parse(a.body, got)
}

// parse reads a set into got. A set of which nothing serves is refused: the
// issuer's mistake must not end all its tokens.
func (e *endpoint) parse(body []byte, got *fetched) *Error {
	var failed *Error
	got.keys, got.skipped, failed = parse("", body, false)
	switch {
	case failed != nil:
		failed.Step = StepSet
		return failed
	case len(got.keys) > 0 || e.cfg.AcceptEmpty:
		return nil
	case len(got.skipped) == 0:
		return failf(StepSet, "it has no keys: the old ones stay").allowedBy(SettingAcceptEmpty, "takes it for a withdrawal")
	}
	return failf(StepSet, "none of its %d keys serves: %s", len(got.skipped), got.skipped[0])
}
