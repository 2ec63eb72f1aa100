package jwks

import (
	"time"

	"github.com/keyturn/keyturn/internal/unknown"
	"github.com/keyturn/keyturn/keystore/jwks/internal/queue"
)

// This file decides what a caller can make an endpoint do. There are three kinds:
//
//   - a lookup, which any token causes, and which changes nothing;
//   - a Refresh, which a token causes that is plausible until its signature is checked. Anyone can
//     write one. It causes a fetch within two budgets, and keeps nothing awake;
//   - a use: the program asks (Open, WaitReady), or a token was verified (NoteUse). Only a use wakes
//     an endpoint for longer than one fetch, and only a verified token gives its fetches priority.

// noteUse notes that a token was verified. It is not called again before inUseLocked has seen that:
// the verifier calls [Source.NoteUse] for every token.
func (e *endpoint) noteUse() {
	now := e.c.now()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.used.Store(true)
	e.verified = now
	e.useLocked(now)
}

// useLocked keeps the endpoint awake, and wakes it.
func (e *endpoint) useLocked(now time.Time) {
	e.lastUse = now
	e.wakeLocked(now)
}

// inUseLocked reports whether a token was verified lately. A token that was verified since the last
// call counts as verified now: NoteUse reads no clock, so that it costs little. The schedule calls
// at least once an hour. If it is later, the machine was suspended.
func (e *endpoint) inUseLocked(now time.Time) bool {
	since := now.Sub(e.verified) // negative if the clock was set back
	if (since < 0 || since >= time.Second) && e.used.Swap(false) {
		e.verified = e.verified.Add(min(since, maxFresh))
		e.lastUse = e.verified
	}
	return !e.verified.IsZero() && !e.m.unused(now, e.verified)
}

func (e *endpoint) isInUse(now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.inUseLocked(now)
}

// hurry makes an attempt that is queued urgent.
func (e *endpoint) hurry(inUse bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.attempt != nil {
		e.hurryLocked(inUse)
	}
}

// tick is called when the endpoint is due.
func (e *endpoint) tick(now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.inUseLocked(now) // for lastUse
	switch {
	case e.closed || e.attempt != nil:
	case e.m.maySleep(now, e.lastUse):
		e.m = e.m.sleep()
		e.endKeysLocked()
		e.publishLocked()
	case e.m.overslept(now):
		e.wakeLocked(now)
	case !e.m.due(now):
		e.observeStateLocked(now)
		e.scheduleLocked(now)
	default:
		e.startLocked(queue.Scheduled, false)
	}
}

// wakeLocked wakes an endpoint that slept, or was suspended with its machine, and has it ask its
// issuer.
func (e *endpoint) wakeLocked(now time.Time) {
	switch {
	case !e.wakenLocked(now):
	case e.m.holds(now):
		e.c.schedule(e, e.m.holdUntil)
	default:
		e.startLocked(queue.Urgent, false)
	}
}

// wakenLocked wakes an endpoint that slept, or was suspended. It reports whether an attempt is due.
func (e *endpoint) wakenLocked(now time.Time) bool {
	e.rouseLocked(now)
	m := e.m
	if m.overslept(now) {
		m = m.sleep()
	}
	if m = m.wake(now); m == e.m || e.closed {
		return false
	}
	e.m = m
	e.endKeysLocked()
	e.publishLocked()
	return e.attempt == nil
}

// rouseLocked lets an endpoint that woke follow its state, if it has been silent for long enough.
func (e *endpoint) rouseLocked(now time.Time) {
	if m := e.m.roused(now); m != e.m && !e.closed {
		e.m = m
		e.endKeysLocked()
		e.publishLocked()
	}
}

// A question is what a caller of Refresh wants to know: has the issuer a key of kid? Of a token without
// kid: has the issuer other keys than those that the caller has tried?
type question struct {
	kid        string
	served     bool   // lookups were answered when the caller came, so that it has tried all keys
	generation uint64 // of the set at that time
}

// newQuestion returns the question of a caller that has just come.
func (e *endpoint) newQuestion(kid string, now time.Time) question {
	v := e.view.Load()
	return question{kid: kid, served: v.serves(now), generation: v.generation}
}

// answersLocked reports whether the source holds the answer to q. To a caller that it did not serve before,
// all its keys are news. Another set is not enough for one that has tried all keys: it may come from a
// cache that lags behind the issuer.
func (e *endpoint) answersLocked(q question, now time.Time) bool {
	if q.kid == "" {
		return e.m.serves(now) && !q.served
	}
	return e.m.serves(now) && e.set.kids[q.kid]
}

// startWaiting returns the attempt that a caller must wait for, for news of q. If there is
// nothing to wait for, it returns no attempt but the answer. The caller of an attempt must call
// stopWaiting.
func (e *endpoint) startWaiting(q question, now time.Time) (*attempt, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.rouseLocked(now)
	switch {
	case e.closed:
		return nil, unavailable(errClosed)
	case e.answersLocked(q, now):
		return nil, nil
	case e.m.inSync(now) && e.missing.Has(unknown.ID{KID: q.kid}, now, e.set.generation):
		return nil, notFound(e.set.why, q.kid)
	}
	inUse := e.inUseLocked(now)
	if e.crowdedLocked(inUse) {
		return nil, unavailable(errCrowd)
	}
	if e.attempt != nil {
		e.hurryLocked(inUse)
	} else if err := e.demandLocked(q.kid, now); err != nil {
		return nil, err
	}
	e.waiters++
	e.countIdleLocked(1)
	return e.attempt, nil
}

// crowdedLocked reports whether too many callers wait already. An endpoint that is not in use lets
// at least one caller wait, whatever a crowd at others.
func (e *endpoint) crowdedLocked(inUse bool) bool {
	return e.waiters == maxWaiters || !inUse && e.waiters > 0 && e.c.idleWaiters.Load() >= maxWaiters
}

// countIdleLocked counts n callers who wait for the attempt, if that is not of an endpoint in use.
func (e *endpoint) countIdleLocked(n int) {
	if a := e.attempt; a.idle {
		a.idleWaiters += n
		e.c.idleWaiters.Add(int64(n))
	}
}

// hurryLocked makes the attempt that is queued urgent.
func (e *endpoint) hurryLocked(inUse bool) {
	if a := e.attempt; inUse && a.idle {
		e.countIdleLocked(-a.idleWaiters)
		a.idle = false
	}
	e.c.hurry(e.attempt.ticket, inUse)
}

// demandLocked queues an attempt because of a token, or returns why not.
func (e *endpoint) demandLocked(kid string, now time.Time) error {
	if e.m.holds(now) {
		return unavailable(errHeld)
	}
	if !e.budget.Take(now) {
		if e.m.inSync(now) {
			return notFound(e.set.why, kid)
		}
		return e.view.Load().why
	}
	wakes := e.wakenLocked(now)
	e.startLocked(queue.Urgent, true)
	if e.attempt == nil {
		return unavailable(errClosed)
	}
	e.attempt.wakes = wakes
	return nil
}

// stopWaiting ends the wait of a caller of startWaiting, and returns the answer. ended says that
// the attempt has ended; otherwise the caller's time has.
func (e *endpoint) stopWaiting(a *attempt, q question, ended bool) error {
	now := e.c.now()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.waiters--
	if a.idle {
		a.idleWaiters--
		e.c.idleWaiters.Add(-1)
	}
	e.rouseLocked(now)
	answers := e.answersLocked(q, now)
	asked := ended && a.err == nil && a.onDemand // not a cache (RFC 9111, section 5.2.1.4)
	if asked && (q.kid == "" || !answers) {
		e.missing.Add(unknown.ID{KID: q.kid}, a.start, e.set.generation)
	}
	switch {
	case e.closed:
		return unavailable(errClosed)
	case answers:
		return nil
	case !ended && a.start.IsZero():
		return unavailable(errQueued)
	case !ended:
		return unavailable(errNoReply)
	case a.err != nil:
		return unavailable(a.err)
	case asked && q.kid == "" && e.set.generation != q.generation:
		return nil
	}
	return notFound(e.set.why, q.kid)
}

// ready reports whether lookups are answered. If not, changed is closed when that may have changed.
// It counts as a use.
func (e *endpoint) ready(now time.Time) (ready bool, changed <-chan struct{}, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false, nil, unavailable(errClosed)
	}
	e.useLocked(now)
	if e.attempt != nil {
		e.hurryLocked(e.inUseLocked(now))
	}
	return e.m.serves(now), e.changed, nil
}
