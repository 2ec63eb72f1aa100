package jwks

import (
	"context"
	"crypto/sha256"
	"math/rand/v2"
	"net/url"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks/internal/queue"
)

// An attempt is one fetch of an endpoint's keys, from the moment it is queued. It asks for the
// metadata of the issuer first, if that is due.
type attempt struct {
	ctx      context.Context
	cancel   context.CancelFunc
	ticket   *queue.Ticket
	onDemand bool // asked past caches, for a caller
	wakes    bool // the endpoint slept until then, so that it is the schedule's too

	idle        bool // the endpoint was not in use; its mu guards this, idleWaiters and start
	idleWaiters int
	queued      time.Time
	start       time.Time // zero: it is queued. It is when the set was asked for, if another attempt did that before

	done chan struct{} // closed when it has ended; err is set before
	err  *Error
}

// startLocked queues an attempt.
func (e *endpoint) startLocked(p queue.Priority, onDemand bool) {
	host := e.url
	if e.previous.jwksURI != nil {
		host = e.previous.jwksURI
	}
	now := e.c.now()
	inUse := e.inUseLocked(now)
	a := &attempt{onDemand: onDemand, idle: !inUse, queued: now, done: make(chan struct{})}
	a.ctx, a.cancel = context.WithCancel(e.c.ctx)
	a.ticket = &queue.Ticket{
		Tenant: e.tenant, Host: hostOf(host), Health: e.m.health(), Priority: p,
		InUse: inUse, OnDemand: onDemand, Start: func() { e.fetchAndStore(a) },
	}
	e.attempt, e.m.asking = a, true
	e.publishLocked()
	e.c.unschedule(e)
	if !e.c.enqueue(a.ticket) {
		e.attempt, e.m.asking = nil, false
		a.cancel()
		a.err = errClosed
		close(a.done)
	}
}

// fetchAndStore runs an attempt, on a goroutine of its own.
func (e *endpoint) fetchAndStore(a *attempt) {
	e.mu.Lock()
	prev := e.previous
	e.fetches++
	a.start = e.c.now()
	if m := e.m.started(a.start); m != e.m {
		e.m = m
		e.publishLocked()
	}
	e.mu.Unlock()

	ctx, cancel := context.WithTimeout(a.ctx, fetchTimeout)
	got := e.fetch(ctx, prev, a)
	cancel()
	a.cancel()
	if !got.asked.IsZero() && got.asked.Before(a.start) {
		e.mu.Lock()
		a.start = got.asked
		e.mu.Unlock()
	}
	if got.failed == nil && got.fresh {
		e.distribute(got, a.start)
	}
	good := e.finish(a, got)
	switch {
	case !good || e.c.cfg.Dir == "":
	case got.gone:
		e.forget()
	case !e.save(got.body, a.start):
		e.mu.Lock()
		e.previous.validator = validator{} // ask for the whole set next time, to save it
		e.mu.Unlock()
	}
}

// distribute installs the keys of a new set in all sources. It does not hold e.mu, so that callers
// wait for none of this. There is only one attempt at a time.
func (e *endpoint) distribute(got *outcome, start time.Time) {
	e.mu.Lock()
	var all []*Source
	for s := range e.sources {
		all = append(all, s)
	}
	e.mu.Unlock()
	end := machine{staleIfError: e.cfg.staleIfError()}.succeeded(start, got.ttl, 0).expiry()
	for _, s := range all {
		s.install(got.keys, got.generation, end)
	}
}

// finish ends an attempt with its outcome, and reports whether that was a good answer.
func (e *endpoint) finish(a *attempt, got *outcome) (good bool) {
	now := e.c.now()
	e.mu.Lock()
	defer e.mu.Unlock()
	defer close(a.done)
	e.attempt = nil
	if e.closed {
		a.err = errClosed
		return false
	}
	if to := got.jwksURI; to != nil {
		if was := e.previous.jwksURI; was == nil || *was != *to {
			e.previous.validator = validator{} // it is of another place, even if the attempt failed later
		}
		e.previous.jwksURI, e.previous.discovered = to, got.discovered
	}
	before, was := e.set.keys, e.m.state(now)
	e.lastErr, a.err = got.failed, got.failed
	if got.failed != nil {
		e.failLocked(a, got, now)
	} else {
		e.succeedLocked(a, got)
	}
	e.observeFetchLocked(a, got, before, was, now)
	e.endKeysLocked()
	e.publishLocked()
	if e.kid == "" || !e.emptyLocked() {
		e.scheduleLocked(now)
	}
	return got.failed == nil
}

func (e *endpoint) failLocked(a *attempt, got *outcome, now time.Time) {
	if got.lost {
		e.previous.jwksURI = nil
	}
	failed := e.m.failed
	if a.onDemand && !a.wakes {
		failed = e.m.failedOnDemand
	}
	e.alarm(got.skipped)
	e.m = failed(now, e.lastUse, got.failed.wait, rand.Float64())
	e.c.logger.Warn("jwks: fetch failed", "tenant", e.tenant, "url", display(e.url),
		"error", got.failed.Error(), "failures", e.m.failures, "state", e.m.state(now).String(), "next", e.m.next)
}

func (e *endpoint) succeedLocked(a *attempt, got *outcome) {
	failures := e.m.failures
	e.m = e.m.succeeded(a.start, got.ttl, rand.Float64())
	e.previous.validator, e.previous.ttl = got.validator, got.ttl
	if got.fresh {
		e.storeLocked(got)
	}
	if failures > 0 {
		e.c.logger.Info("jwks: fetched again", "tenant", e.tenant, "url", display(e.url), "failures", failures)
	}
}

// An outcome is what an attempt brought.
type outcome struct {
	failed *Error
	lost   bool // the keys are gone from where discovery said they were

	asked      time.Time // when the request for the set was sent; zero: it was not
	ttl        time.Duration
	validator  validator
	jwksURI    *url.URL
	discovered time.Time

	// Of a set that differs from the one held:
	fresh      bool
	gone       bool // it is one PEM key, and was 404
	generation uint64
	sum        [sha256.Size]byte
	keys       []*keystore.Key // of no tenant: each source makes its own after them
	skipped    []Skipped
	irregular  []Irregular

	body []byte // nil after a 304
}

// fetch asks for the keys: where discovery says, if the endpoint is an issuer's. A result of
// discovery is kept even if a later step fails.
func (e *endpoint) fetch(ctx context.Context, prev previous, a *attempt) *outcome {
	g := e.c.getter(e.guard, e.cfg.AllowRedirects)
	g.queued, g.maxBody = a.queued, e.cfg.reading().bytes()
	g.header, g.headerFor = e.cfg.Header, originOf(e.url)
	got := new(outcome)
	from, asked := e.url, true
	if e.issuer != "" {
		from, asked, got.failed = e.locate(ctx, g, prev, got)
		if got.failed != nil {
			return got
		}
		if prev.jwksURI == nil || *from != *prev.jwksURI {
			prev.validator = validator{} // of another place
		}
	}
	if e.kid != "" {
		g.accept = "application/x-pem-file, text/plain;q=0.9, */*;q=0.8"
	}
	get := g.share
	if a.onDemand { // it is to prove that a key is missing
		get = g.get
	}
	answer, failed := get(ctx, from, prev.validator, a.onDemand)
	if e.kid != "" && isGone(failed) { // it is an answer: the issuer has no such key
		got.fresh, got.gone, got.generation, got.ttl = true, true, prev.generation+1, minFresh
		return got
	}
	if !asked && isGone(failed) {
		moved, undiscovered := e.discover(ctx, g, got)
		if undiscovered == nil && *moved != *from {
			answer, failed = g.get(ctx, moved, validator{}, true)
		}
	}
	got.lost = e.issuer != "" && got.jwksURI == nil && isGone(failed)
	if got.failed = failed; failed == nil {
		got.failed = e.read(answer, prev, got)
	}
	return got
}

// read reads an answer into got.
func (e *endpoint) read(a *answer, prev previous, got *outcome) *Error {
	var said bool
	got.asked = a.asked
	got.ttl, said = freshness(a.header)
	got.validator = newValidator(a.header)
	if !a.modified {
		if !said {
			got.ttl = prev.ttl
		}
		if got.validator == (validator{}) {
			got.validator = prev.validator
		}
		return nil
	}
	got.body, got.sum = a.body, sha256.Sum256(a.body)
	if prev.generation > 0 && got.sum == prev.sum {
		return nil
	}
	got.fresh, got.generation = true, prev.generation+1
	return e.readSet(a.body, got)
}

// readSet reads a set, or one PEM key, into got. A set without a key that serves is refused: an issuer's mistake
// must not end all its tokens.
func (e *endpoint) readSet(body []byte, got *outcome) *Error {
	var r Report
	var failed *Error
	if e.kid != "" {
		r, failed = readPEM(e.kid, body)
	} else {
		r, failed = parse("", body, e.cfg.reading())
	}
	got.keys, got.skipped, got.irregular = r.Keys, r.Skipped, r.Irregular
	switch {
	case failed != nil:
		failed.Step = StepSet
		return failed
	case len(got.keys) > 0 || e.cfg.AcceptEmpty && e.kid == "":
		return nil
	case len(got.skipped) == 0:
		return failf(StepSet, "it has no keys: the old ones stay").allowedBy(SettingAcceptEmpty, "takes it for a withdrawal")
	case len(got.skipped) == 1:
		return failf(StepSet, "its only key does not serve: %s", got.skipped[0])
	}
	return failf(StepSet, "none of its %d keys serves: %s", len(got.skipped), got.skipped[0])
}
