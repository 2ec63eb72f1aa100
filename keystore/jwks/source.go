package jwks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/keystore"
)

// A Source is the [keystore.Refresher] of one tenant's keys at a URL. Lookup is
// memory; Refresh is the path of a kid that is not known. See the package comment
// for what it answers when. The caller must call [Source.Close], or that of the
// [Client]. A Source is safe for concurrent use.
type Source struct {
	tenant string
	e      *endpoint
	keys   keystore.Static

	closed atomic.Bool

	mu   sync.Mutex // taken after that of the endpoint
	held []*keystore.Key
	set  uint64 // generation of the set that held is of
}

var _ keystore.Refresher = (*Source)(nil)

// Serves reports whether tenant is the one that the source was opened for.
func (s *Source) Serves(tenant string) bool { return tenant == s.tenant }

// Lookup implements [keystore.KeyStore]. For another tenant the error wraps
// [keystore.ErrNotFound], whatever the state. Otherwise it wraps
// [keystore.ErrUnavailable] in the states [Cold] and [Expired], for an unknown kid
// while the last attempt failed or the keys are [Stale], once the source was
// closed, and for up to two seconds after the source woke past its TTL.
func (s *Source) Lookup(id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
	if id.Tenant != s.tenant {
		return nil, keystore.ErrNotFound
	}
	if s.closed.Load() {
		return nil, unavailable(errClosed)
	}
	now := s.e.c.now()
	v := s.e.touch(now)
	if !v.serves(now) {
		return nil, v.why
	}
	keys, err := s.keys.Lookup(id, alg)
	if err != nil && !v.inStep(now) {
		return nil, v.why
	}
	return keys, err
}

// Refresh implements [keystore.Refresher]: it asks the issuer for news of a kid
// that Lookup did not find, if the budget of the endpoint allows: three attempts,
// and one more every ten seconds, whatever comes of them. It joins an attempt that
// is under way, and waits two seconds at most; if that was one of the schedule, which a
// cache may have answered, and did not bring the kid, it asks again. The attempt goes
// on when its callers have left.
//
// A kid that the source holds costs nothing, so that a forged signature does not
// either; nor does one that a good answer did not have within the last ten seconds,
// nor another tenant's.
func (s *Source) Refresh(ctx context.Context, id keystore.ID) error {
	if id.Tenant != s.tenant || len(id.KID) > keystore.MaxKIDBytes {
		return keystore.ErrNotFound
	}
	if err := ctx.Err(); err != nil {
		return unavailable(err)
	}
	if s.closed.Load() {
		return unavailable(errClosed)
	}
	timer := time.NewTimer(maxWait)
	defer timer.Stop()
	for {
		now := s.e.c.now()
		s.e.touch(now)
		f, err := s.e.ask(id.KID, now)
		if f == nil {
			return err
		}
		select {
		case <-f.done:
			err := s.e.leave(f, id.KID, true)
			if f.onDemand || !errors.Is(err, keystore.ErrNotFound) {
				return err
			}
			// It was the schedule's, and a cache may have answered: ask past it.
		case <-timer.C:
			return s.e.leave(f, id.KID, false)
		case <-ctx.Done():
			if s.e.leave(f, id.KID, false) == nil {
				return nil
			}
			return unavailable(ctx.Err())
		}
	}
}

// WaitReady returns nil once Lookup answers, be it with keys from disk, or when
// it does already. The error wraps [keystore.ErrUnavailable], and ctx.Err() if ctx
// ended, and says what the last attempt failed at.
func (s *Source) WaitReady(ctx context.Context) error {
	for {
		if s.closed.Load() {
			return unavailable(errClosed)
		}
		now := s.e.c.now()
		s.e.touch(now)
		ready, changed, err := s.e.ready(now)
		if ready || err != nil {
			return err
		}
		timer := time.NewTimer(wakeWait) // by then one that was silent follows its state
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			err = unavailable(ctx.Err())
			if last := s.Status().LastError; last != nil {
				err = fmt.Errorf("%w: %w", err, last)
			}
		}
		timer.Stop()
		if err != nil {
			return err
		}
	}
}

// ready reports whether lookups are answered; if not, changed is closed when that
// may have changed.
func (e *endpoint) ready(now time.Time) (ready bool, changed <-chan struct{}, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false, nil, unavailable(errClosed)
	}
	if e.flight != nil {
		e.c.hurry(e.flight.ticket)
	}
	return e.m.serves(now), e.changed, nil
}

// HasKey reports whether the source holds a key of that kid, and serves it: it
// answers "has the new key arrived?". It asks nobody, and keeps nobody awake.
func (s *Source) HasKey(kid string) bool {
	v := s.e.view.Load()
	now := s.e.c.now()
	state := v.state(now)
	return !s.closed.Load() && v.kids[kid] && state != Cold && state != Expired
}

// A KeyInfo names a key that serves.
type KeyInfo struct {
	KID       string
	Algorithm keystore.Algorithm
}

// A Status is what a [Source] knows of itself, at one moment.
type Status struct {
	State  State
	Asleep bool   // nobody asks, so nothing is fetched; the last attempt went well
	URL    string // of the set, or the issuer; without its query

	Fetched time.Time     // when the last good answer was asked for; zero: there was none
	Age     time.Duration // since Fetched
	TTL     time.Duration // for how long it is fresh; 0 if it came from disk
	ETag    string

	Keys    []KeyInfo // that serve, in the order of the set
	Skipped []Skipped // that do not, and why; kids are cut to 256 bytes

	Failures  int       // attempts since Fetched that did not end well
	LastError error     // of the last attempt, an [*Error]; nil if it went well
	NextFetch time.Time // zero: asleep, closed, or fetching now
	Fetches   uint64    // attempts so far, those of others that share the URL included
}

// Status returns what the source knows of itself. It asks nobody. For readiness,
// take one that is asleep for ready: the next token wakes it, whatever its State.
func (s *Source) Status() Status {
	e, now := s.e, s.e.c.now()
	e.mu.Lock()
	defer e.mu.Unlock()
	st := Status{
		State: e.m.state(now), Asleep: e.m.mode == asleep, URL: display(e.url),
		Fetched: e.m.good, TTL: e.m.ttl, ETag: e.known.validator.etag,
		Keys: slices.Clone(e.set.keys), Skipped: slices.Clone(e.set.skipped),
		Failures: e.m.failures, Fetches: e.fetches,
	}
	if !st.Fetched.IsZero() {
		st.Age = now.Sub(st.Fetched)
	}
	if e.last != nil {
		st.LastError = e.last
	}
	if e.flight == nil && !e.closed && !st.Asleep {
		st.NextFetch = e.m.next
	}
	return st
}

// Close ends the source: its keys are withdrawn, and with them the tokens that
// they vouched for, and from then on it cannot tell anything. If nobody else
// shares its fetch, that is called off, and Close waits until it has returned, or
// for ctx to end: then it returns ctx.Err(). It may be called more than once.
func (s *Source) Close(ctx context.Context) error {
	f := s.e.detach(s)
	if f == nil {
		return nil
	}
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// install makes the source hold keys made after patterns, which end at end.
func (s *Source) install(patterns []*keystore.Key, set uint64, end time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed.Load() {
		return
	}
	held := make(map[KeyInfo][]*keystore.Key)
	for _, k := range s.held {
		at := KeyInfo{k.ID().KID, k.Algorithm()}
		held[at] = append(held[at], k)
	}
	next := make([]*keystore.Key, 0, len(patterns))
	for _, p := range patterns {
		k := makeAfter(p, s.tenant)
		if k == nil {
			continue // nothing that Parse returned
		}
		for _, old := range held[KeyInfo{k.ID().KID, k.Algorithm()}] {
			if old.Equal(k) {
				k = old
				break
			}
		}
		k.SetUntil(end)
		next = append(next, k)
	}
	if err := s.keys.Replace(next...); err != nil {
		// Parse returned what Static takes. If ever it does not, nothing serves.
		next = nil
		_ = s.keys.Replace()
	}
	s.held, s.set = next, set
}

// makeAfter returns a key of tenant that is otherwise like p, or nil if p was
// withdrawn.
func makeAfter(p *keystore.Key, tenant string) *keystore.Key {
	pub, ok := p.Public()
	if !ok {
		return nil
	}
	k, err := keystore.NewPublic(keystore.ID{Tenant: tenant, KID: p.ID().KID}, p.Algorithm(), pub)
	if err != nil {
		return nil
	}
	return k
}

// copyFrom gives a new source the keys that another one has, made its own.
func (s *Source) copyFrom(other *Source, end time.Time) {
	other.mu.Lock()
	patterns, set := slices.Clone(other.held), other.set
	other.mu.Unlock()
	s.install(patterns, set, end)
}

func (s *Source) generation() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set
}

func (s *Source) endKeys(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.held {
		k.SetUntil(at)
	}
}

// withdraw ends all keys for good.
func (s *Source) withdraw() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed.Store(true)
	s.held = nil
	_ = s.keys.Replace()
}

// newSet keeps of a set what [Status] tells.
func newSet(got *fetched) set {
	s := set{generation: got.generation, sum: got.sum, kids: make(map[string]bool), skipped: got.skipped}
	for _, k := range got.keys {
		s.kids[k.ID().KID] = true
		s.keys = append(s.keys, KeyInfo{k.ID().KID, k.Algorithm()})
	}
	for i, skip := range s.skipped {
		// A long kid must not stay in memory for what it was sent for.
		s.skipped[i].KID = strings.Clone(skip.KID[:min(len(skip.KID), keystore.MaxKIDBytes)])
	}
	return s
}
