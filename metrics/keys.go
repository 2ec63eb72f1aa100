package metrics

import (
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

// The values of the label state of rings: those of /readyz.
var readiness = []string{"ready", "degraded", "not_ready"}

// The values of the label state of a ring's keys. An accepted key verifies until a date, and signs
// nothing.
var keyStates = []string{string(ring.Pending), string(ring.Signing), string(ring.Retired), string(ring.Dropped), string(ring.Revoked), "accepted"}

// A ringSum is what the page says of all rings together.
type ringSum struct {
	states, keys map[string]int
	withoutNext  int
	next         time.Time // zero: no key is to sign at a known time
}

// add adds a ring as it is at now.
func (s *ringSum) add(t *rotation.TenantStatus, now time.Time) {
	switch {
	case t.CanVerify && t.Fresh:
		s.states["ready"]++
	case t.CanVerify:
		s.states["degraded"]++
	default:
		s.states["not_ready"]++
	}
	pending := false
	for i := range t.Ring.Keys {
		k := &t.Ring.Keys[i]
		s.keys[string(k.State)]++
		if k.State != ring.Pending {
			continue
		}
		pending = true
		if k.ActivatesAt.After(now) && (s.next.IsZero() || k.ActivatesAt.Before(s.next)) {
			s.next = k.ActivatesAt
		}
	}
	for _, k := range t.Accepted {
		if k.Verifies(now) {
			s.keys["accepted"]++
		}
	}
	// A held key signs until an operator rotates, so its ring needs no next one.
	if len(t.Ring.Keys) > 0 && !pending && !t.Held {
		s.withoutNext++
	}
}

// collectRings writes the state of the rings. It asks the keyring for each, which takes less than 10 µs
// of the processor (BenchmarkScrape), and never the store.
func collectRings(p page, w *Watched, now time.Time) {
	sum := ringSum{states: make(map[string]int), keys: make(map[string]int)}
	var status rotation.Status
	if w.Keyring != nil {
		status = w.Keyring.Status()
		for _, tenant := range w.Keyring.Tenants() {
			if t, err := w.Keyring.Tenant(tenant); err == nil {
				sum.add(&t, now)
			}
		}
	}
	p.states(ringStates, readiness, sum.states)
	p.states(ringKeys, keyStates, sum.keys)
	p.gauge(withoutNext, float64(sum.withoutNext))
	if status.Tenants > 0 {
		p.time(oldestSync, status.LastGood)
	}
	if !sum.next.IsZero() {
		p.time(nextActivation, sum.next)
	}
	p.counts(status.Counts)
}

// The values of the label state of sources. A source that sleeps is as old as it likes.
var sourceStates = []string{"fresh", "aging", "stale", "cold", "expired", "asleep"}

// collectSources writes the state of the issuers' keys.
func (c *Collector) collectSources(p page, w *Watched) {
	states := make(map[string]int)
	var oldest time.Time
	awake := false
	if w.Sources != nil {
		for _, s := range w.Sources() {
			status := s.Status()
			if status.Asleep {
				states["asleep"]++
				continue
			}
			states[status.State.String()]++
			if !awake || status.Fetched.Before(oldest) {
				oldest = status.Fetched
			}
			awake = true
		}
	}
	p.states(jwksSources, sourceStates, states)
	for i, outcome := range fetchOutcomes {
		p.count(jwksFetches, c.fetched[i].Load(), string(outcome))
	}
	if awake {
		p.time(oldestFetch, oldest)
	}
}
