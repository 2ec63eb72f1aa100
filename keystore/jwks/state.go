package jwks

import (
	"fmt"
	"math"
	"time"
)

// Numbers of the state machine. docs/jwks.md says why each is what it is.
const (
	minFresh     = time.Minute
	maxFresh     = time.Hour
	defaultFresh = 10 * time.Minute // where the answer does not say

	defaultStaleIfError = 4 * time.Hour
	maxStaleIfError     = 24 * time.Hour

	firstBackoff   = time.Second
	maxBackoff     = 5 * time.Minute
	maxColdBackoff = 15 * time.Second // while somebody asks
	maxRetryAfter  = 10 * time.Minute

	// wakeWait is how long a source that slept past its TTL answers nothing while
	// it asks what it missed.
	wakeWait = 2 * time.Second

	// lateBy is how long after its time the schedule has not asked only if time went
	// by that no timer saw.
	lateBy = time.Minute

	// minIdle is how long nobody asks before a source sleeps, or its TTL if that is
	// longer: above the five minutes for which a verifier trusts a cached token.
	minIdle = 10 * time.Minute

	// Attempts on demand: that many at once, and one more every ten seconds.
	demandBurst = 3
	demandEvery = 10 * time.Second

	// missingFor is how long a kid that a good answer did not have is not asked
	// for again, and maxMissing how many such kids are remembered.
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

	// Aging: they are within their TTL, and are being refreshed.
	Aging

	// Stale: they are past their TTL, and no refresh has gone well. Known kids
	// are still served; whether an unknown kid is new cannot be told.
	Stale

	// Expired: they are too old to be trusted. Every Lookup is unavailable.
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

// A mode says whether anybody is asking.
type mode int

const (
	awake  mode = iota
	asleep      // nobody asks: no fetch is due
	waking      // somebody asks again, past the TTL: silent until a fetch has ended, or until wakeEnd
)

// A machine is what decides: values alone, which its methods take and return
// along with the time. A random number r is in [0, 1).
type machine struct {
	keep time.Duration // stale-if-error

	good     time.Time     // when the last good answer was asked for; zero: there was none
	ttl      time.Duration // for how long it is fresh; 0 for one that was read from disk
	failures int           // attempts since that did not end well

	next  time.Time // when the schedule asks
	since time.Time // when that was decided, or before
	hold  time.Time // before this nobody asks: the issuer wants it so (RFC 9110, section 10.2.3)

	mode    mode
	wakeEnd time.Time // when waking ends at the latest
	slept   time.Time // when it fell asleep
}

// state returns the state at now. A clock that went back makes no answer fresh
// for longer.
func (m machine) state(now time.Time) State {
	age := now.Sub(m.good)
	switch {
	case m.good.IsZero():
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

// expiry returns when the keys are too old to be trusted.
func (m machine) expiry() time.Time {
	if m.good.IsZero() {
		return time.Time{}
	}
	return m.good.Add(max(m.keep, m.ttl))
}

// serves reports whether known kids are answered at now.
func (m machine) serves(now time.Time) bool {
	if m.silent(now) {
		return false
	}
	state := m.state(now)
	return state != Cold && state != Expired
}

// silent reports whether nothing is answered since a source woke too late to know
// what has changed.
func (m machine) silent(now time.Time) bool {
	return m.mode == asleep || m.mode == waking && now.Before(m.wakeEnd)
}

// inStep reports whether the keys are, as far as anybody can tell, those of the
// issuer: then a kid that is not among them is bad.
func (m machine) inStep(now time.Time) bool {
	state := m.state(now)
	return m.mode == awake && m.failures == 0 && (state == Fresh || state == Aging)
}

// keysEnd returns until when each key vouches for tokens that were verified
// earlier. While asleep it is over, so that a verifier asks again.
func (m machine) keysEnd() time.Time {
	if m.mode == awake {
		return m.expiry()
	}
	return m.slept
}

// standing returns what its next attempt is to be taken for.
func (m machine) standing() standing {
	switch {
	case m.failures > 0:
		return failing
	case m.ttl == 0: // no answer but one from disk, if any
		return untried
	}
	return proven
}

// due reports whether the schedule asks at now. A clock that went back, to before
// the wait began, makes none longer.
func (m machine) due(now time.Time) bool {
	if m.held(now) {
		return false
	}
	return !now.Before(m.next) || now.Before(m.since)
}

// overslept reports whether the schedule is so late that the machine was suspended,
// or its clock was put forward: nobody knows what was missed.
func (m machine) overslept(now time.Time) bool {
	return m.mode == awake && now.Sub(m.next) >= lateBy
}

// held reports whether the issuer asked to be left alone until later.
func (m machine) held(now time.Time) bool {
	return now.Before(m.hold) && m.hold.Sub(now) <= maxRetryAfter
}

// unasked reports whether nobody has asked for so long that it may sleep.
func (m machine) unasked(now, asked time.Time) bool {
	return now.Sub(asked) >= max(minIdle, m.ttl)
}

// idle reports whether it sleeps. After a failure it goes on trying: who is told
// that it is not ready sends nobody that could wake it.
func (m machine) idle(now, asked time.Time) bool {
	return m.unasked(now, asked) && m.failures == 0 && !m.good.IsZero()
}

// succeeded returns the machine after a good answer that was asked for at start.
// It asks again at four fifths of the TTL, a tenth earlier or later, so that
// sources that were opened together do not ask together for ever.
func (m machine) succeeded(start time.Time, ttl time.Duration, r float64) machine {
	m.good, m.ttl = start, ttl
	m.failures, m.hold, m.mode = 0, time.Time{}, awake
	m.since, m.next = start, start.Add(time.Duration(float64(ttl)*0.8*(0.9+0.2*r)))
	return m
}

// failed returns the machine after an attempt that brought nothing: with full
// jitter, but never at once, and not before the issuer said. asked is when somebody
// asked last.
func (m machine) failed(now, asked time.Time, retryAfter time.Duration, r float64) machine {
	most := maxBackoff
	if m.good.IsZero() && !m.unasked(now, asked) {
		most = maxColdBackoff
	}
	wait := min(most, firstBackoff<<min(m.failures, 20))
	wait = max(firstBackoff, time.Duration(r*float64(wait)))
	m.hold = time.Time{}
	if retryAfter > 0 {
		m.hold = now.Add(min(retryAfter, maxRetryAfter))
	}
	if m.failures < math.MaxInt32 {
		m.failures++
	}
	m.mode = awake
	m.since, m.next = now, now.Add(wait)
	if m.next.Before(m.hold) {
		m.next = m.hold
	}
	return m
}

// failedOnDemand is failed for an attempt that the schedule did not make, and which
// must not delay it.
func (m machine) failedOnDemand(now, asked time.Time, retryAfter time.Duration, r float64) machine {
	after := m.failed(now, asked, retryAfter, r)
	after.failures = max(m.failures, 1)
	if m.next.Before(after.next) && !after.held(now) {
		after.since, after.next = m.since, m.next
	}
	return after
}

// restored returns the machine of keys that were read from disk: stale, whatever
// their age, and due at once.
func (m machine) restored(good, now time.Time) machine {
	m.good, m.ttl, m.since, m.next = good, 0, now, now
	return m
}

// doze returns the machine asleep.
func (m machine) doze(now time.Time) machine {
	m.mode, m.slept = asleep, now
	return m
}

// roused returns the machine after somebody asked: due at once if it slept.
func (m machine) roused(now time.Time) machine {
	switch {
	case m.mode == asleep:
		m.mode, m.since, m.next = awake, now, now
		if state := m.state(now); state == Stale || state == Expired {
			m.mode, m.wakeEnd = waking, now.Add(wakeWait)
		}
	case m.mode == waking && !now.Before(m.wakeEnd):
		m.mode = awake
	}
	return m
}
