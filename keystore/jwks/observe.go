package jwks

import (
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/keystore"
)

// An Outcome says how a fetch ended.
type Outcome string

// The outcomes of a fetch.
const (
	Changed   Outcome = "changed"   // with another set than before
	Unchanged Outcome = "unchanged" // with the set that was held
	Failed    Outcome = "failed"    // without a set that serves
)

// An Event is a fetch that has ended, or a change of the state of a [Source]. Sources that share a
// fetch have one Event together.
type Event struct {
	Tenant string // of the source that was opened first
	URL    string // of the set, or the issuer; without its query
	Time   time.Time

	State  State // now
	Was    State // before: of a fetch, when it ended
	Asleep bool  // as in [Status]

	// Outcome is how the fetch ended, or "": then only the state has changed. The other fields are
	// of a fetch alone.
	Outcome  Outcome
	Step     Step          // at which it failed, or ""
	Err      error         // an [*Error], or nil
	OnDemand bool          // a token caused it
	Duration time.Duration // without its wait in the queue
	Added    []KeyInfo     // keys that the set before did not have
	Removed  []KeyInfo     // keys that only the set before had
	Exposed  []Skipped     // private keys and secrets that the new set publishes
}

// maxEvents is how many events wait for Config.Observe.
const maxEvents = 4096

// An observer calls Config.Observe, for one event after the other. No lock is held then, so Observe
// may ask a Source for its Status.
type observer struct {
	observe func(Event)
	logger  *slog.Logger
	wake    chan struct{} // tells run that there are events, or the end

	mu     sync.Mutex // guards the fields below; taken last
	events []Event
	lost   int
	ended  bool
}

func newObserver(cfg Config, logger *slog.Logger) *observer {
	if cfg.Observe == nil {
		return nil
	}
	return &observer{observe: cfg.Observe, logger: logger, wake: make(chan struct{}, 1)}
}

func (o *observer) add(e Event) {
	o.mu.Lock()
	if len(o.events) < maxEvents {
		o.events = append(o.events, e)
	} else {
		o.lost++
	}
	o.mu.Unlock()
	o.tell()
}

func (o *observer) tell() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// end has run return once it has delivered all events.
func (o *observer) end() {
	o.mu.Lock()
	o.ended = true
	o.mu.Unlock()
	o.tell()
}

func (o *observer) run() {
	for range o.wake {
		o.mu.Lock()
		events, lost, ended := o.events, o.lost, o.ended
		o.events, o.lost = nil, 0
		o.mu.Unlock()
		if lost > 0 {
			o.logger.Warn("jwks: Config.Observe is too slow: events are lost", "lost", lost)
		}
		for _, e := range events {
			o.observe(e)
		}
		if ended {
			return
		}
	}
}

// event returns an event without what happened.
func (e *endpoint) event(now time.Time, was State) Event {
	return Event{
		Tenant: e.tenant, URL: display(e.url), Time: now, Was: was, State: e.m.state(now), Asleep: e.m.mode == asleep,
	}
}

// observeStateLocked tells of a change of state since the last call.
func (e *endpoint) observeStateLocked(now time.Time) {
	if e.c.observer == nil || e.closed {
		return
	}
	event := e.event(now, e.observed.state)
	if next := (observed{event.State, event.Asleep}); next != e.observed {
		e.observed = next
		e.c.observer.add(event)
	}
}

// observed is what Config.Observe was told last.
type observed struct {
	state  State
	asleep bool
}

// observeFetchLocked tells of a fetch. before are the keys that were held, and was the state.
func (e *endpoint) observeFetchLocked(a *attempt, got *outcome, before []KeyInfo, was State, now time.Time) {
	if e.c.observer == nil {
		return
	}
	event := e.event(now, was)
	event.OnDemand, event.Duration, event.Outcome = a.onDemand, now.Sub(a.start), Unchanged
	switch {
	case got.failed != nil:
		event.Outcome, event.Step, event.Err = Failed, got.failed.Step, got.failed
	case got.fresh:
		event.Added, event.Removed = without(e.set.keys, before), without(before, e.set.keys)
		if !got.gone || len(before) > 0 {
			event.Outcome = Changed
		}
	}
	for _, s := range got.skipped {
		if s.Exposed { // the kid of a refused set is as its issuer wrote it
			s.KID = strings.Clone(s.KID[:min(len(s.KID), keystore.MaxKIDBytes)])
			event.Exposed = append(event.Exposed, s)
		}
	}
	e.c.observer.add(event)
}

// without returns the keys of all that are not among others.
func without(all, others []KeyInfo) []KeyInfo {
	known := make(map[KeyInfo]bool)
	for _, k := range others {
		known[k] = true
	}
	return slices.DeleteFunc(slices.Clone(all), func(k KeyInfo) bool { return known[k] })
}

// scheduleLocked has the endpoint ticked when its next fetch is due, and if there is an observer, at
// the next change of its state by time alone.
func (e *endpoint) scheduleLocked(now time.Time) {
	at := e.m.next
	if e.c.observer != nil {
		for _, change := range e.m.changes() {
			if change.After(now) && change.Before(at) {
				at = change
			}
		}
	}
	e.c.schedule(e, at)
}
