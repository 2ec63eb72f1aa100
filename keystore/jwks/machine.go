package jwks

import (
	"fmt"
	"math"
	"time"

	"github.com/keyturn/keyturn/keystore/jwks/internal/queue"
)

// Numbers of the state machine. docs/jwks.md gives the reason for each.
const (
	minFresh     = time.Minute
	maxFresh     = time.Hour
	defaultFresh = 10 * time.Minute // if the answer does not say

	defaultStaleIfError = 4 * time.Hour
	maxStaleIfError     = 24 * time.Hour

	firstBackoff   = time.Second
	maxBackoff     = 5 * time.Minute
	maxColdBackoff = 15 * time.Second // soon after the source was opened
	maxRetryAfter  = 10 * time.Minute

	// wakeWait is how long a source that slept past its TTL answers nothing while it fetches what
	// it missed. The wait in the queue does not count. Otherwise a stranger who floods the service
	// could have keys served that were removed meanwhile. It is shorter than maxWait, so that the
	// caller that woke the source has its answer although the fetch begins a moment after the wait.
	wakeWait = maxWait - 250*time.Millisecond

	// lateBy is how late the schedule must be to prove that time went by which no timer saw.
	lateBy = time.Minute

	// minIdle is for how long a source must be unused before it sleeps, or its TTL if that is
	// longer.
	minIdle = 10 * time.Minute

	// Attempts on demand: that many at once, and one more every ten seconds.
	demandBurst = 3
	demandEvery = 10 * time.Second

	// missingFor is for how long a kid that a good answer did not have is not asked for again.
	// maxMissing is how many such kids are remembered.
	missingFor = 10 * time.Second
	maxMissing = 256
)

// A State says how much a [Source] knows, and so what it answers.
type State int

// The states of a [Source], from its first to its last.
const (
	// Cold: no good answer yet. Every Lookup is unavailable.
	Cold State = iota

	// Fresh: the keys are those of an answer within four fifths of its TTL.
	Fresh

	// Aging: the keys are within their TTL, and are being refreshed.
	Aging

	// Stale: the keys are past their TTL, and no refresh has succeeded. Known kids are still
	// served. Whether an unknown kid is new cannot be told.
	Stale

	// Expired: the keys are too old to be trusted. Every Lookup is unavailable.
	Expired
)

// String returns the name of the state, such as "fresh".
func (s State) String() string {
	switch s {
	case Cold:
		return "cold"
	case Fresh:
		return "fresh"
	case Aging:
		return "aging"
	case Stale:
		return "stale"
	case Expired:
		return "expired"
	}
	return fmt.Sprintf("State(%d)", int(s))
}

// A mode says whether a source is in use.
type mode int

const (
	awake  mode = iota
	asleep      // unused: no fetch is due, and from the TTL on it is silent
	waking      // woken past the TTL: silent until a fetch has ended, or until wakeEnd
)

// A machine holds the state of one endpoint and makes all its decisions about time. It is a value:
// its methods take the time, and return the next machine instead of changing this one. A random
// number r is in [0, 1).
type machine struct {
	staleIfError time.Duration // for how long keys serve after the last good answer

	lastGood time.Time     // when the last good answer was asked for; zero: there was none
	ttl      time.Duration // for how long it is fresh; 0 for one that was read from disk
	failures int           // failed attempts since

	next      time.Time // when the schedule asks
	since     time.Time // when next was decided, or before
	holdUntil time.Time // the issuer wants no request before this (RFC 9110, section 10.2.3)

	mode    mode
	asking  bool      // an attempt is queued or under way
	wakeEnd time.Time // when waking ends at the latest; zero: the fetch has not started
}

// state returns the state at now. If the clock was set back, that makes no answer fresh for longer.
func (m machine) state(now time.Time) State {
	age := now.Sub(m.lastGood)
	switch {
	case m.lastGood.IsZero():
		return Cold
	case !now.Before(m.expiry()):
		return Expired
	case age >= m.ttl:
		return Stale
	case age < 0 || age >= m.ttl/5*4:
		return Aging
	}
	return Fresh
}

// changes returns when the state changes by time alone.
func (m machine) changes() []time.Time {
	if m.lastGood.IsZero() {
		return nil
	}
	return []time.Time{m.lastGood.Add(m.ttl / 5 * 4), m.lastGood.Add(m.ttl), m.expiry()}
}

// expiry returns when the keys are too old to be trusted.
func (m machine) expiry() time.Time {
	if m.lastGood.IsZero() {
		return time.Time{}
	}
	return m.lastGood.Add(max(m.staleIfError, m.ttl))
}

// serves reports whether known kids are answered at now.
func (m machine) serves(now time.Time) bool {
	if m.silent(now) {
		return false
	}
	state := m.state(now)
	return state != Cold && state != Expired
}

// silent reports whether nothing is answered, because the keys may have changed since anything was
// asked: the source sleeps, woke a moment ago, or was suspended with its machine.
func (m machine) silent(now time.Time) bool {
	if m.mode == waking {
		return m.wakeEnd.IsZero() || now.Before(m.wakeEnd)
	}
	return (m.mode == asleep || m.overslept(now)) && !m.withinTTL(now)
}

// withinTTL reports whether the keys need no refresh yet.
func (m machine) withinTTL(now time.Time) bool {
	state := m.state(now)
	return state == Fresh || state == Aging
}

// inSync reports whether the keys are those of the issuer, as far as can be told. Then a kid that
// is not among them is bad.
func (m machine) inSync(now time.Time) bool {
	return m.mode != waking && m.failures == 0 && m.withinTTL(now)
}

// keysEnd returns until when each key vouches for tokens that were verified earlier. While asleep
// that is the TTL, so that a token that comes later asks the source and wakes it.
func (m machine) keysEnd() time.Time {
	if m.mode == awake {
		return m.expiry()
	}
	return m.lastGood.Add(m.ttl)
}

// health returns what the queue should expect of the next attempt.
func (m machine) health() queue.Health {
	switch {
	case m.failures > 0:
		return queue.Failing
	case m.ttl == 0: // no answer, or only one from disk
		return queue.Untried
	}
	return queue.Proven
}

// due reports whether the schedule asks at now. If the clock was set back to before the wait began,
// the wait ends: it must not become longer.
func (m machine) due(now time.Time) bool {
	if m.holds(now) {
		return false
	}
	return !now.Before(m.next) || now.Before(m.since)
}

// overslept reports whether the schedule is so late that the machine must have been suspended, or
// its clock set forward. Then its keys may have changed meanwhile.
func (m machine) overslept(now time.Time) bool {
	return m.mode == awake && !m.asking && now.Sub(m.next) >= lateBy
}

// holds reports whether the issuer asked to be left alone until later.
func (m machine) holds(now time.Time) bool {
	return now.Before(m.holdUntil) && m.holdUntil.Sub(now) <= maxRetryAfter
}

// unused reports whether the source was last used so long ago that it may sleep.
func (m machine) unused(now, lastUse time.Time) bool {
	return now.Sub(lastUse) >= max(minIdle, m.ttl)
}

// maySleep reports whether the source should sleep. After a failure it goes on trying: a service
// that is not ready gets no token that could wake it.
func (m machine) maySleep(now, lastUse time.Time) bool {
	return m.unused(now, lastUse) && m.failures == 0 && !m.lastGood.IsZero()
}

// succeeded returns the machine after a good answer that was asked for at start. It asks again at
// four fifths of the TTL, up to a tenth earlier or later, so that sources that were opened together
// do not ask together forever.
func (m machine) succeeded(start time.Time, ttl time.Duration, r float64) machine {
	m.lastGood, m.ttl = start, ttl
	m.failures, m.holdUntil, m.mode, m.asking = 0, time.Time{}, awake, false
	m.since, m.next = start, start.Add(time.Duration(float64(ttl)*0.8*(0.9+0.2*r)))
	return m
}

// failed returns the machine after a failed attempt of the schedule. The backoff has full jitter,
// but never less than a second, and ends no earlier than the issuer asked.
func (m machine) failed(now, lastUse time.Time, retryAfter time.Duration, r float64) machine {
	most := maxBackoff
	if m.lastGood.IsZero() && !m.unused(now, lastUse) {
		most = maxColdBackoff
	}
	wait := min(most, firstBackoff<<min(m.failures, 20))
	wait = max(firstBackoff, time.Duration(r*float64(wait)))
	m.holdUntil = time.Time{}
	if retryAfter > 0 {
		m.holdUntil = now.Add(min(retryAfter, maxRetryAfter))
	}
	if m.failures < math.MaxInt32 {
		m.failures++
	}
	m.mode, m.asking = awake, false
	m.since, m.next = now, now.Add(wait)
	if m.next.Before(m.holdUntil) {
		m.next = m.holdUntil
	}
	return m
}

// failedOnDemand returns the machine after a failed attempt on demand, which must not delay the
// schedule.
func (m machine) failedOnDemand(now, lastUse time.Time, retryAfter time.Duration, r float64) machine {
	after := m.failed(now, lastUse, retryAfter, r)
	after.failures = max(m.failures, 1)
	if m.next.Before(after.next) && !after.holds(now) {
		after.since, after.next = m.since, m.next
	}
	return after
}

// restored returns the machine of keys that were read from disk: stale, whatever their age, and due
// at once.
func (m machine) restored(lastGood, now time.Time) machine {
	m.lastGood, m.ttl, m.since, m.next = lastGood, 0, now, now
	return m
}

// sleep returns the machine asleep.
func (m machine) sleep() machine {
	m.mode = asleep
	return m
}

// wake returns the machine awake, and due at once, if it slept.
func (m machine) wake(now time.Time) machine {
	if m.mode != asleep {
		return m
	}
	m.mode, m.since, m.next = awake, now, now
	if state := m.state(now); state == Stale || state == Expired {
		m.mode, m.wakeEnd = waking, time.Time{}
	}
	return m
}

// started returns the machine when a fetch starts.
func (m machine) started(now time.Time) machine {
	if m.mode == waking && m.wakeEnd.IsZero() {
		m.wakeEnd = now.Add(wakeWait)
	}
	return m
}

// roused returns the machine awake if it has been waking for long enough.
func (m machine) roused(now time.Time) machine {
	if m.mode == waking && !m.silent(now) {
		m.mode = awake
	}
	return m
}
