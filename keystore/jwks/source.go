package jwks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/keystore"
)

// A Source is the [keystore.Refresher] of one tenant's keys at a URL. Lookup answers from memory.
// Refresh asks the issuer for a kid that is not known, and for the key of a token without kid. See
// the package comment for what it answers when. The caller must call [Source.Close], or that of the [Client]. A Source is safe for
// concurrent use.
type Source struct {
	tenant string
	e      *endpoint
	keys   keystore.Static

	closed atomic.Bool

	mu         sync.Mutex // guards the fields below; taken after that of the endpoint
	installed  []*keystore.Key
	generation uint64 // of the set that installed is of
}

var (
	_ keystore.Refresher = (*Source)(nil)
	_ keystore.UseNoter  = (*Source)(nil)
)

// Tenant returns the tenant that the source was opened for.
func (s *Source) Tenant() string { return s.tenant }

// Serves reports whether tenant is the one that the source was opened for.
func (s *Source) Serves(tenant string) bool { return tenant == s.tenant }

// CanServe reports whether the source can ever have a key of alg: not of HS*, since what others can
// read is no secret.
func (s *Source) CanServe(tenant string, alg keystore.Algorithm) bool {
	return tenant == s.tenant && !alg.Symmetric()
}

// NoteUse implements [keystore.UseNoter]: a token of tenant was verified. That keeps the source
// awake, and wakes it. Its fetches go before those of sources that are not in use, for ten minutes
// or its TTL. A verifier calls it. A program that verifies by itself should, too: otherwise the
// source sleeps although it is used, and some of its tokens wait for a fetch.
func (s *Source) NoteUse(tenant string) {
	if tenant == s.tenant && !s.e.used.Load() && !s.closed.Load() {
		s.e.noteUse()
	}
}

// Lookup implements [keystore.KeyStore]. It has no effect, and wakes nothing: anyone can cause one.
// For another tenant the error wraps [keystore.ErrNotFound],
// whatever the state. So does the error for a kid that the set has but that does not serve: it says
// why that key was skipped. Otherwise it wraps [keystore.ErrUnavailable]
//
//   - in the states [Cold] and [Expired];
//   - for an unknown kid, while the last attempt failed or the keys are [Stale];
//   - while the source sleeps, from the TTL on, and for up to 1.75 s of the fetch that wakes it;
//   - once the source was closed.
func (s *Source) Lookup(id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
	if id.Tenant != s.tenant {
		return nil, keystore.ErrNotFound
	}
	if s.closed.Load() {
		return nil, unavailable(errClosed)
	}
	now := s.e.c.now()
	v := s.e.view.Load()
	if !v.serves(now) {
		return nil, v.why
	}
	keys, err := s.keys.Lookup(id, alg)
	switch {
	case err == nil:
		return keys, nil
	case !v.inSync(now):
		return nil, v.why
	case v.skipped[id.KID] != nil:
		return nil, v.skipped[id.KID]
	}
	return nil, err
}

// Refresh implements [keystore.Refresher]. It asks the issuer for a kid that Lookup did not find, or
// that it did not serve because the source sleeps. Two budgets bound that, however attempts end:
// three at once for each URL, and one more every ten seconds; and [Config.OnDemand] for all.
//
// If an attempt is under way, Refresh waits for that one. If that was an attempt of the schedule,
// which a cache may have answered, and did not bring the kid, Refresh asks once more, past caches.
// It waits for two seconds at most. The attempt goes on when its callers have left.
//
// Three kinds of kid cost nothing: one that the source holds, so that a forged signature costs no
// fetch; one that was missing from a good answer within the last ten seconds; and one of another
// tenant.
//
// An empty kid stands for a token without kid that none of the keys of Lookup verifies. Anyone can
// write one, so all such tokens together count as one unknown kid: they cost a fetch, which brings
// the keys of an issuer that has rotated, and no other one for ten seconds. The answer is nil if
// that fetch brought another set, or if the source did not serve before.
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
	q := s.e.newQuestion(id.KID, s.e.c.now())
	timer := time.NewTimer(maxWait)
	defer timer.Stop()
	for {
		a, err := s.e.startWaiting(q, s.e.c.now())
		if a == nil {
			return err
		}
		select {
		case <-a.done:
			err := s.e.stopWaiting(a, q, true)
			if a.onDemand || !errors.Is(err, keystore.ErrNotFound) {
				return err
			}
			// It was the schedule's, and a cache may have answered: ask past it.
		case <-timer.C:
			return s.e.stopWaiting(a, q, false)
		case <-ctx.Done():
			if s.e.stopWaiting(a, q, false) == nil {
				return nil
			}
			return unavailable(ctx.Err())
		}
	}
}

// WaitReady returns nil once Lookup answers, even if only with keys from disk. The error wraps
// [keystore.ErrUnavailable], and ctx.Err() if ctx ended, and says what the last attempt failed at.
func (s *Source) WaitReady(ctx context.Context) error {
	for {
		if s.closed.Load() {
			return unavailable(errClosed)
		}
		ready, changed, err := s.e.ready(s.e.c.now())
		if ready || err != nil {
			return err
		}
		timer := time.NewTimer(wakeWait) // by then a source that was silent follows its state
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

// Ready returns nil if the source can answer for tenant, now or with the next token: it has keys that
// serve, or it sleeps or has just been woken. Otherwise the error wraps [keystore.ErrUnavailable], and
// for another tenant [keystore.ErrNotFound]. It asks nothing of the issuer, and does not keep the
// source awake.
func (s *Source) Ready(tenant string) error {
	if tenant != s.tenant {
		return keystore.ErrNotFound
	}
	if s.closed.Load() {
		return unavailable(errClosed)
	}
	now := s.e.c.now()
	v := s.e.view.Load()
	switch state := v.state(now); {
	case state != Cold && v.silent(now): // its last attempt went well: the next token is answered
		return nil
	case state == Cold, state == Expired:
		return v.why
	}
	return nil
}

// HasKey reports whether the source holds a key of that kid, and serves it. It answers "has the new
// key arrived?". It asks nothing of the issuer, and does not keep the source awake.
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
	Asleep bool   // the source is unused, so nothing is fetched; the last attempt succeeded
	URL    string // of the set, or the issuer; without its query

	Fetched time.Time     // when the last good answer was asked for; zero: there was none
	Age     time.Duration // since Fetched
	TTL     time.Duration // for how long it is fresh; 0 if it came from disk
	ETag    string

	Keys    []KeyInfo // that serve, in the order of the set
	Skipped []Skipped // that do not, and why; kids are cut to 256 bytes

	// Failures counts the failed attempts of the schedule since Fetched. Failed attempts
	// for an unknown kid count as one together if they come first, and not at all after that.
	Failures  int
	LastError error     // of the last attempt, an [*Error]; nil if it succeeded
	NextFetch time.Time // zero: asleep, closed, or fetching now
	Fetches   uint64    // attempts so far, those of others that share the URL included

	// Irregular are the keys that serve, although their issuer spells them otherwise than the RFCs
	// want: other readers may refuse them.
	Irregular []Irregular

	closed bool
	silent bool // it was woken a moment ago: it answers once it has asked
}

// Status returns what the source knows of itself. It asks nothing of the issuer. See [Status.Ready]
// for readiness.
func (s *Source) Status() Status {
	e, now := s.e, s.e.c.now()
	e.mu.Lock()
	defer e.mu.Unlock()
	st := Status{
		State: e.m.state(now), Asleep: e.m.mode == asleep, URL: display(e.url),
		Fetched: e.m.lastGood, TTL: e.m.ttl, ETag: e.previous.validator.etag,
		Keys: slices.Clone(e.set.keys), Skipped: slices.Clone(e.set.skipped),
		Failures: e.m.failures, Fetches: e.fetches, Irregular: slices.Clone(e.set.irregular),
	}
	st.closed, st.silent = e.closed || s.closed.Load(), e.m.silent(now)
	if !st.Fetched.IsZero() {
		st.Age = now.Sub(st.Fetched)
	}
	if e.lastErr != nil {
		st.LastError = e.lastErr
	}
	if e.attempt == nil && !e.closed && !st.Asleep {
		st.NextFetch = e.m.next
	}
	return st
}

// Close ends the source. Its keys are withdrawn, and so are the tokens that they vouched for; from
// then on Lookup is unavailable. If no other source shares its fetch, Close cancels that, and waits
// until it has returned or ctx ends: then Close returns ctx.Err(). It may be called more than once.
func (s *Source) Close(ctx context.Context) error {
	a := s.e.detach(s)
	if a == nil {
		return nil
	}
	select {
	case <-a.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// install replaces the source's keys by copies of those of a set, which end at end. A key that the
// source already has keeps its pointer, so that cached tokens stay valid.
func (s *Source) install(ofSet []*keystore.Key, generation uint64, end time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed.Load() {
		return
	}
	old := make(map[KeyInfo][]*keystore.Key)
	for _, k := range s.installed {
		at := KeyInfo{k.ID().KID, k.Algorithm()}
		old[at] = append(old[at], k)
	}
	next := make([]*keystore.Key, 0, len(ofSet))
	for _, key := range ofSet {
		k := copyFor(s.tenant, key)
		if k == nil {
			continue // not a key that Parse returned
		}
		same := old[KeyInfo{k.ID().KID, k.Algorithm()}]
		if i := slices.IndexFunc(same, k.Equal); i >= 0 {
			k = same[i]
		}
		k.SetUntil(end)
		next = append(next, k)
	}
	if err := s.keys.Replace(next...); err != nil {
		// Static takes what Parse returns. If it ever does not, nothing serves.
		next = nil
		_ = s.keys.Replace()
	}
	s.installed, s.generation = next, generation
}

// copyFor returns a key of tenant that is otherwise like k, or nil if k was withdrawn.
func copyFor(tenant string, k *keystore.Key) *keystore.Key {
	pub, ok := k.Public()
	if !ok {
		return nil
	}
	own, err := keystore.NewPublic(keystore.ID{Tenant: tenant, KID: k.ID().KID}, k.Algorithm(), pub)
	if err != nil {
		return nil
	}
	return own
}

// copyFrom gives a new source copies of the keys of another one.
func (s *Source) copyFrom(other *Source, end time.Time) {
	other.mu.Lock()
	keys, generation := slices.Clone(other.installed), other.generation
	other.mu.Unlock()
	s.install(keys, generation, end)
}

func (s *Source) currentGeneration() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.generation
}

func (s *Source) endKeys(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.installed {
		k.SetUntil(at)
	}
}

// withdraw closes the source and ends all its keys.
func (s *Source) withdraw() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed.Store(true)
	s.installed = nil
	_ = s.keys.Replace()
}

// Ready reports whether the source can answer, now or with the next token, as [Source.Ready] does:
// its state is fresh, aging or stale, or it sleeps or was woken a moment ago.
func (st Status) Ready() bool {
	return !st.closed && st.State != Cold && (st.State != Expired || st.Asleep || st.silent)
}
