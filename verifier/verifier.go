package verifier

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/cache"
	"github.com/keyturn/keyturn/keystore"
)

// Config configures a [Verifier]. The zero value of each field is safe.
type Config struct {
	// Tenants are those to begin with, or none: [Verifier.Put] adds more.
	Tenants []Tenant

	// CacheEntries bounds how many verified tokens are remembered: 0 means 64 Ki.
	// A token is told from those that come once if it comes again before so many
	// others have come.
	CacheEntries int

	// CacheBytes bounds the memory that they take, in bytes: 0 means 64 MiB.
	CacheBytes int64

	// CacheTTL bounds how long a verified token is remembered: 0 means 5m, a
	// negative value turns the cache off.
	CacheTTL time.Duration

	// MaxTokenBytes is the longest token accepted: 0 means 8 KiB.
	MaxTokenBytes int

	// Revocations, if it is not nil, is asked about every token, remembered ones
	// included. [RevocationList] is one.
	Revocations Revocations

	// Now reports the wall clock's time. The default is [time.Now].
	Now func() time.Time

	// Observe, if it is not nil, is told of every verification, on its
	// goroutine. It must be safe for concurrent use.
	Observe func(context.Context, Event)
}

const defaultMaxTokenBytes = 8 << 10

func (c Config) validate() error {
	switch {
	case c.CacheEntries < 0:
		return fmt.Errorf("verifier: Config.CacheEntries is %d, want 0 or more; a negative CacheTTL turns the cache off", c.CacheEntries)
	case c.CacheBytes < 0:
		return fmt.Errorf("verifier: Config.CacheBytes is %d, want 0 or more; a negative CacheTTL turns the cache off", c.CacheBytes)
	case c.MaxTokenBytes < 0:
		return fmt.Errorf("verifier: Config.MaxTokenBytes is %d, want 0 or more", c.MaxTokenBytes)
	case isNilPointer(c.Revocations):
		return fmt.Errorf("verifier: Config.Revocations is a nil %T", c.Revocations)
	}
	return nil
}

// Revocations knows which tokens were revoked before their end.
type Revocations interface {
	// Revoked reports whether t was revoked. It is asked on every check: it
	// answers from memory, and is safe for concurrent use. An error means that
	// it cannot tell, and the verifier answers [ErrUnavailable].
	Revoked(t *Token) (bool, error)
}

// A Verifier decides whether tokens are good: make one with [New]. It is safe for
// concurrent use, starts no goroutines and needs no closing.
type Verifier struct {
	maxTokenBytes int
	revocations   Revocations
	now           func() time.Time
	observe       func(context.Context, Event)

	headers  *headers
	cache    *cache.Cache[verified] // nil if it is off
	cacheTTL time.Duration

	tenants atomic.Pointer[tenants]
	mu      sync.Mutex // held while tenants is replaced
	serials uint64     // the last one given to rules
}

// New returns a Verifier. It reports an error that names the rule if one is
// missing, unsafe or contradicts another; it never weakens a check to make cfg
// work.
func New(cfg Config) (*Verifier, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	v := &Verifier{
		maxTokenBytes: cfg.MaxTokenBytes,
		revocations:   cfg.Revocations,
		now:           cfg.Now,
		observe:       cfg.Observe,
		headers:       newHeaders(),
	}
	if v.maxTokenBytes == 0 {
		v.maxTokenBytes = defaultMaxTokenBytes
	}
	if v.now == nil {
		v.now = time.Now
	}
	if err := v.openCache(cfg); err != nil {
		return nil, err
	}
	v.tenants.Store(&tenants{})
	if err := v.Put(cfg.Tenants...); err != nil {
		return nil, err
	}
	return v, nil
}

// Put adds tenants, or replaces those of the same ID: all of them, or none and
// an error. A tenant that is suspended stays so. Beside a second tenant, the
// first is not found by being the only one any more, but by its Issuer or by
// [Verifier.VerifyTenant]. A call costs time in proportion to the number of all
// tenants, so put many at once.
func (v *Verifier) Put(list ...Tenant) error {
	return v.change(func(byID map[string]*rules) error {
		put := make(map[string]bool, len(list))
		for _, t := range list {
			if put[t.ID] {
				return fmt.Errorf("verifier: tenant %q is given twice", t.ID)
			}
			put[t.ID] = true
			r, err := compile(t)
			if err != nil {
				return err
			}
			if old := byID[t.ID]; old != nil {
				r.suspended = old.suspended
			}
			byID[t.ID] = r
		}
		return nil
	})
}

// Remove takes a tenant out: its tokens are refused from the next call on. It
// is an error if there is no such tenant.
func (v *Verifier) Remove(id string) error {
	return v.changeOne(id, func(byID map[string]*rules) { delete(byID, id) })
}

// Suspend makes the verifier refuse a tenant's tokens, with [ErrSuspended],
// until [Verifier.Resume]. It is an error if there is no such tenant.
func (v *Verifier) Suspend(id string) error { return v.setSuspended(id, true) }

// Resume ends a suspension. It is an error if there is no such tenant.
func (v *Verifier) Resume(id string) error { return v.setSuspended(id, false) }

func (v *Verifier) setSuspended(id string, suspended bool) error {
	return v.changeOne(id, func(byID map[string]*rules) {
		r := byID[id].renewed()
		r.suspended = suspended
		byID[id] = r
	})
}

func (v *Verifier) changeOne(id string, change func(byID map[string]*rules)) error {
	return v.change(func(byID map[string]*rules) error {
		if byID[id] == nil {
			return fmt.Errorf("verifier: there is no tenant %q", id)
		}
		change(byID)
		return nil
	})
}

// change replaces the tenants by what edit makes of a copy, unless it fails.
func (v *Verifier) change(edit func(byID map[string]*rules) error) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	byID := maps.Clone(v.tenants.Load().byID)
	if byID == nil {
		byID = make(map[string]*rules)
	}
	if err := edit(byID); err != nil {
		return err
	}
	old := v.tenants.Load()
	next, err := newTenants(byID)
	if err != nil {
		return err
	}
	if renewMoved(old, next) {
		if next, err = newTenants(byID); err != nil {
			return err
		}
	}
	for _, r := range byID {
		if r.serial == 0 {
			v.serials++
			r.serial = v.serials
			r.live.Store(true)
		}
	}
	v.tenants.Store(next)
	for id, r := range old.byID {
		if byID[id] != r {
			r.live.Store(false)
		}
	}
	return nil
}

// renewMoved gives new rules to the tenants that stay as they were, but are
// reached by other tokens without hint than before, and reports whether there
// are any. So a token that was cached for such a tenant is judged afresh.
func renewMoved(old, next *tenants) (moved bool) {
	for id, r := range next.byID {
		if old.byID[id] != r {
			continue
		}
		alone, byIssuer := old.reached(r)
		if a, b := next.reached(r); a != alone || b != byIssuer {
			next.byID[id] = r.renewed()
			moved = true
		}
	}
	return moved
}

// Verify decides whether token is good, for the tenant whose Issuer is the
// token's own iss, byte for byte, or for the only tenant.
//
// The error is an [*Error]. It is [ErrInvalid] if the token is bad, and
// [ErrUnavailable] if that cannot be told now; then it also wraps ctx.Err() if
// ctx ended while the key store was asked for a key that it does not hold,
// which is the only wait.
func (v *Verifier) Verify(ctx context.Context, token string) (*Token, error) {
	return v.verify(ctx, nil, token)
}

// VerifyTenant is [Verifier.Verify] for the tenant that a trusted hint names,
// such as the host that was asked: the token must be of that tenant. An empty
// tenant is an unknown one.
func (v *Verifier) VerifyTenant(ctx context.Context, tenant, token string) (*Token, error) {
	return v.verify(ctx, &tenant, token)
}

func (v *Verifier) verify(ctx context.Context, hint *string, token string) (*Token, error) {
	now := v.now() // the only reading: every rule judges the same moment
	t, bad := v.decide(ctx, hint, token, now)
	if v.observe != nil {
		v.observe(ctx, newEvent(ctx, t, bad, v.now().Sub(now)))
	}
	if bad != nil {
		return nil, bad
	}
	return t, nil
}

// decide applies the rules in their order: the first that fails decides. A token
// is looked for among those that were found good before, if it may be one: what
// is plain rubbish costs no digest.
func (v *Verifier) decide(ctx context.Context, hint *string, token string, now time.Time) (*Token, *Error) {
	if len(token) > v.maxTokenBytes { // 1
		return nil, refuse(ErrTooLarge)
	}
	if strings.IndexByte(token, '.') < 0 {
		return nil, refuse(errParts)
	}
	tenants := v.tenants.Load()
	t, key := v.cached(tenants, hint, token, now)
	if t != nil {
		return t, nil
	}
	first, second, bad := parts(token) // the beginning of 2
	if bad != nil {
		return nil, bad
	}
	s := scratches.Get().(*scratch)
	defer s.release()
	known := v.headers.find(token[:first])
	p, bad := s.parse(token, first, second, known) // 2 to 5
	if bad != nil {
		return nil, bad
	}
	r, bad := tenants.pick(hint, &p.claims) // 6
	if bad != nil {
		return nil, bad.of(r)
	}
	k, bad := r.judge(ctx, p, now) // 7 to 16
	if bad != nil {
		return nil, bad.of(r)
	}
	e := newEntry(r, k, p, now, v.cacheTTL)
	t = &e.Value.fresh
	if bad := v.lastRules(r, t); bad != nil { // 16 and 17
		bad.Key = keystore.ID{Tenant: r.ID, KID: p.kid}
		return nil, bad.of(r)
	}
	if known == nil {
		v.headers.remember(token[:first], p.header) // of a good token only, as what follows
	}
	v.remember(key, e, now)
	return t, nil
}

// of names the tenant, if the token got as far as having one.
func (e *Error) of(r *rules) *Error {
	if r != nil {
		e.Tenant = r.ID
	}
	return e
}

func (t *tenants) pick(hint *string, c *claims) (*rules, *Error) {
	if hint != nil {
		return t.ofHint(*hint, c)
	}
	return t.ofToken(c)
}

// judge applies rules 7 to 16, but for the tenant's own Check, and returns the
// key that signed the token.
func (r *rules) judge(ctx context.Context, p *parsed, now time.Time) (*keystore.Key, *Error) {
	if r.suspended {
		return nil, refuse(ErrSuspended)
	}
	if !slices.Contains(r.Algorithms, p.alg) {
		return nil, refuse(ErrAlgorithm)
	}
	w := wanted{keystore.ID{Tenant: r.ID, KID: p.kid}, p.alg, now}
	keys, bad := r.keys(ctx, w, p)
	var key *keystore.Key
	if bad == nil {
		if key = w.signer(keys, p); key == nil {
			bad = refuse(ErrSignature)
		} else {
			bad = r.checkClaims(p, now)
		}
	}
	if bad != nil {
		bad.Key = w.id
		return nil, bad
	}
	return key, nil
}

// keys returns the keys that may have signed the token (rules 9 and 10). Only a
// token that is otherwise plausible makes the store ask for news.
func (r *rules) keys(ctx context.Context, w wanted, p *parsed) ([]*keystore.Key, *Error) {
	keys, err := w.lookup(r.Keys)
	if err == nil {
		return keys, nil
	}
	if r.checkClaims(p, w.now) != nil {
		return nil, refuse(ErrUnknownKey)
	}
	store, ok := r.Keys.(keystore.Refresher)
	if !ok {
		return nil, noKey(err)
	}
	news := store.Refresh(ctx, w.id)
	if keys, err = w.lookup(store); err == nil {
		return keys, nil
	}
	if news == nil || isMiss(news) {
		return nil, noKey(err)
	}
	if ctx.Err() != nil && !errors.Is(news, ctx.Err()) {
		news = errors.Join(news, ctx.Err())
	}
	return nil, cannotTell(news)
}

// noKey turns a store's error into the verdict: anything but ErrNotFound means
// that it cannot tell.
func noKey(err error) *Error {
	if isMiss(err) {
		return refuse(ErrUnknownKey)
	}
	return cannotTell(err)
}

// isMiss reports whether a store is sure that there is no key: one that joins the
// errors of several stores is not, if one of them cannot tell.
func isMiss(err error) bool {
	return errors.Is(err, keystore.ErrNotFound) && !errors.Is(err, keystore.ErrUnavailable)
}

// wanted is what a key must be to have signed a token.
type wanted struct {
	id  keystore.ID
	alg keystore.Algorithm
	now time.Time
}

// fits reports whether k may have signed the token, and vouches for it still. A
// store that keeps its contract hands out no key of another tenant, kid or
// algorithm.
func (w *wanted) fits(k *keystore.Key) bool {
	return k != nil && k.Algorithm() == w.alg && k.ID().Tenant == w.id.Tenant &&
		(w.id.KID == "" || k.ID().KID == w.id.KID) && k.Usable(w.now)
}

// lookup returns what the store has, of which at least one fits.
func (w *wanted) lookup(store keystore.KeyStore) ([]*keystore.Key, error) {
	keys, err := store.Lookup(w.id, w.alg)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(keys, w.fits) {
		return nil, keystore.ErrNotFound
	}
	return keys, nil
}

// signer returns the one of keys that signed the token, or nil (rule 11).
func (w *wanted) signer(keys []*keystore.Key, p *parsed) *keystore.Key {
	for _, k := range keys[:min(len(keys), keystore.MaxCandidates)] {
		if w.fits(k) && k.Verify(p.signed, p.sig) {
			return k
		}
	}
	return nil
}

// lastRules applies the rules that are not ours to write: the tenant's own
// Check, and revocation.
func (v *Verifier) lastRules(r *rules, t *Token) *Error {
	if r.Check != nil {
		if err := r.Check(t); err != nil {
			return &Error{Reason: ReasonClaim, Err: &checkFailed{err}}
		}
	}
	if v.revocations != nil {
		revoked, err := v.revocations.Revoked(t)
		if err != nil {
			return cannotTell(err)
		}
		if revoked {
			return refuse(ErrRevoked)
		}
	}
	return nil
}
