package verifier

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/cache"
	"github.com/keyturn/keyturn/keystore"
)

// Config configures a [Verifier]. The zero value of each field is safe.
type Config struct {
	// Tenants are the first tenants, if any. [Verifier.Put] adds more.
	Tenants []Tenant

	// CacheEntries bounds how many verified tokens are cached: 0 means 64 Ki. A
	// token counts as recurring only if it is seen again before CacheEntries
	// other tokens.
	CacheEntries int

	// CacheBytes bounds the memory of the cached tokens, in bytes: 0 means 64
	// MiB.
	CacheBytes int64

	// CacheTTL bounds how long a verified token is cached: 0 means 5m, and a
	// negative value turns the cache off.
	CacheTTL time.Duration

	// MaxTokenBytes is the longest token accepted, in bytes: 0 means 16 KiB, since an
	// Entra token of a user with 150 groups has more than 8. It is at most 1 MiB.
	MaxTokenBytes int

	// Revocations, if it is not nil, is asked about every good token, cached ones
	// included. [RevocationList] is one. A [Marker] is asked in a faster way.
	Revocations Revocations

	// Resolve, if it is not nil, is asked for tenants that the verifier does not hold, such as
	// those of a database with too many rows to hold all. It returns the tenant that h names. An
	// error that is [ErrUnknownTenant] or [keystore.ErrNotFound] says that it does not exist, and
	// the token is refused (401). Any other error says that it cannot tell (503).
	//
	// It is asked once for all tokens that wait for one tenant, and for well-formed tokens alone.
	// Strangers choose the names: an unknown one is remembered for 5s, a failure for 1s. A
	// tenant is held for ResolveTTL, and asked for again after half of that, while it serves on.
	// So a tenant that is gone from the database ends within ResolveTTL, and at once with
	// [Verifier.Remove]. One that is suspended with [Verifier.Suspend] is held until it is resumed.
	//
	// A tenant of Tenants, [Verifier.Put] or [Verifier.Sync] is not asked for, and counts more
	// than one of Resolve that has the same issuer: that one goes. Of two of Resolve, the one that
	// is held stays if its row still has the issuer, for which it is asked for by its ID. Sync
	// ends those that are not listed. They, and tenants that were removed, are asked for again
	// when a token comes for them.
	//
	// With Resolve no tenant is ever the only one: [Verifier.Verify] finds each by its Issuer,
	// and a tenant with AnyIssuer is reached by [Verifier.VerifyTenant] alone.
	//
	// Each question runs in a goroutine of its own, which ends when Resolve returns. It must
	// return when ctx ends. A panic counts as an error.
	Resolve func(ctx context.Context, h Hint) (Tenant, error)

	// MaxResolved bounds how many tenants of Resolve are held: 0 means 10 000. The one whose
	// last good token is the longest ago makes room. Tenants that no good token has used
	// yet make room first, so that names alone do not evict a tenant in use.
	MaxResolved int

	// ResolvePerSecond bounds how often Resolve is asked for tenants that are not held: 0
	// means 100 times a second. Beyond that the verifier cannot tell (503). A quarter of it is
	// kept for tenants that a good token has used and that had to make room, once there are
	// any: made-up names cannot use that quarter. Tenants that are held cost one more question
	// each per half ResolveTTL.
	ResolvePerSecond int

	// ResolveTTL is how long an answer of Resolve counts: 0 means 5m.
	ResolveTTL time.Duration

	// ResolveTimeout is how long one call of Resolve may take: 0 means 2s. Then its tokens
	// get 503, even if Resolve does not return.
	ResolveTimeout time.Duration

	// Now reports the wall clock's time. The default is [time.Now].
	Now func() time.Time

	// Observe, if it is not nil, receives an [Event] for every verification, on
	// the goroutine of the verification. It must be safe for concurrent use.
	Observe func(context.Context, Event)
}

const (
	defaultMaxTokenBytes  = 16 << 10
	greatestMaxTokenBytes = 1 << 20 // a span has 32 bits; a request header of this size is no use
)

func (c Config) validate() error {
	switch {
	case c.CacheEntries < 0:
		return fmt.Errorf("verifier: Config.CacheEntries is %d, want 0 or more; a negative CacheTTL turns the cache off", c.CacheEntries)
	case c.CacheBytes < 0:
		return fmt.Errorf("verifier: Config.CacheBytes is %d, want 0 or more; a negative CacheTTL turns the cache off", c.CacheBytes)
	case c.MaxTokenBytes < 0:
		return fmt.Errorf("verifier: Config.MaxTokenBytes is %d, want 0 or more", c.MaxTokenBytes)
	case c.MaxTokenBytes > greatestMaxTokenBytes:
		return fmt.Errorf("verifier: Config.MaxTokenBytes is %d, want at most %d (1 MiB)", c.MaxTokenBytes, greatestMaxTokenBytes)
	case isNilPointer(c.Revocations):
		return fmt.Errorf("verifier: Config.Revocations is a nil %T", c.Revocations)
	}
	return c.validateResolve()
}

// Revocations knows which tokens were revoked before their end.
type Revocations interface {
	// Revoked reports whether t was revoked. The verifier calls it for every
	// token that is otherwise good, so it must answer from memory and be safe for
	// concurrent use. An error means that it cannot tell: then the verifier
	// returns [ErrUnavailable].
	Revoked(t *Token) (bool, error)
}

// A Verifier decides whether tokens are good: make one with [New]. It is safe for
// concurrent use and needs no closing. It starts no goroutines, except for calls of [Config.Resolve].
//
// Once a change has returned (Put, Remove, Suspend or Resume here, a key withdrawn in a
// store, a revocation), every call of Verify that starts later judges by it, and so does
// every earlier call that is still waiting for a key.
type Verifier struct {
	maxTokenBytes int
	revocations   Revocations
	marker        Marker // the revocations, if they are one and the cache is on
	now           func() time.Time
	observe       func(context.Context, Event)
	signed        func(k *keystore.Key, signed, sig []byte) bool // Key.Verify, which tests count

	headers  *headers
	cache    *cache.Cache[verified] // nil if it is off
	cacheTTL time.Duration

	resolver *resolver // nil without Config.Resolve

	_       apart // a change writes what follows, and each hit reads what is before
	tenants atomic.Pointer[tenants]
	_       apart

	mu      sync.Mutex // held while tenants is replaced, which no reader waits for; guards serials and leases
	serials uint64     // the serial of the newest rules
	leases  leases     // of the tenants of Config.Resolve
}

// New returns a Verifier. If a rule is missing, unsafe or contradicts another, New
// returns an error that names the rule. It never weakens a check to make cfg work.
func New(cfg Config) (*Verifier, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	v := &Verifier{
		maxTokenBytes: cfg.MaxTokenBytes,
		revocations:   cfg.Revocations,
		now:           cfg.Now,
		observe:       cfg.Observe,
		signed:        (*keystore.Key).Verify,
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
	if v.cache != nil {
		v.marker = markerOf(cfg.Revocations)
	}
	v.openResolver(cfg)
	v.tenants.Store(noTenants())
	if err := v.Put(cfg.Tenants...); err != nil {
		return nil, err
	}
	return v, nil
}

// Put adds tenants, and replaces those with the same ID. It changes all of them,
// or returns an error and changes none. A suspended tenant stays suspended.
//
// [Verifier.Verify] gives every token to a verifier's only tenant. Once there is a
// second one, it finds each by its Issuer. The time of a call grows with the length
// of the list, and not with the number of tenants that there are.
func (v *Verifier) Put(list ...Tenant) error { return v.Change(list, nil) }

// Change removes tenants and puts others, as [Verifier.Put] does, in one step: no call sees a part of
// it. So an issuer can move from one tenant to another, and a tenant can get another ID, while tokens
// are verified. It is an error to remove a tenant that does not exist. A tenant that is in both lists
// is put, and is no longer suspended.
func (v *Verifier) Change(put []Tenant, remove []string) error {
	compiled, bad := compileAll(put) // before the lock: it asks the key stores
	return v.change(func(e *edit) error {
		if v.resolver != nil {
			v.resolver.removed(remove)
		}
		for _, id := range remove {
			if e.named(id) == nil {
				return noTenant(id)
			}
			e.set(id, nil)
		}
		for _, r := range compiled {
			e.put(r)
		}
		return bad
	})
}

// put makes r the rules of its tenant. A suspension stays.
func (e *edit) put(r *rules) {
	if old := e.named(r.ID); old != nil {
		r.suspended = old.suspended
	}
	e.set(r.ID, r)
}

func compileAll(list []Tenant) ([]*rules, error) {
	all := make([]*rules, 0, len(list))
	given := make(map[string]bool, len(list))
	for _, t := range list {
		if given[t.ID] {
			return nil, givenTwice(t.ID)
		}
		given[t.ID] = true
		r, err := compile(t)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

func givenTwice(id string) error { return fmt.Errorf("verifier: tenant %q is given twice", id) }

func noTenant(id string) error { return fmt.Errorf("verifier: there is no tenant %q", id) }

// Remove removes a tenant. The verifier refuses its tokens from the next call on,
// cached ones included. It is an error if there is no such tenant.
func (v *Verifier) Remove(id string) error { return v.Change(nil, []string{id}) }

// Suspend makes the verifier refuse a tenant's tokens, with [ErrSuspended],
// until [Verifier.Resume]. It is an error if there is no such tenant.
func (v *Verifier) Suspend(id string) error { return v.setSuspended(id, true) }

// Resume ends a suspension, also one by [Tenant.Suspended]. It is an error if there is no
// such tenant.
func (v *Verifier) Resume(id string) error { return v.setSuspended(id, false) }

func (v *Verifier) setSuspended(id string, suspended bool) error {
	return v.change(func(e *edit) error {
		old := e.named(id)
		if old == nil {
			return noTenant(id)
		}
		if old.suspended == suspended && (suspended || !old.Suspended) {
			return nil
		}
		r := old.renewed()
		r.suspended, r.Suspended = suspended, suspended && old.Suspended
		e.set(id, r)
		return nil
	})
}

// change installs what make makes of the tenants, unless it fails or the result is not valid.
func (v *Verifier) change(make func(e *edit) error) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	e := v.newEdit()
	if err := make(e); err != nil {
		return err
	}
	e.dropLeases()
	if err := e.check(); err != nil {
		return err
	}
	v.install(e)
	return nil
}

// install replaces the tenants. The caller holds v.mu.
func (v *Verifier) install(e *edit) {
	next := e.finish()
	for id := range e.changed {
		if r := next.named(id); r != nil && r.serial == 0 {
			v.serials++
			r.serial = v.serials
			r.live.Store(true)
		}
	}
	v.tenants.Store(next)
	for id := range e.changed {
		old, now := e.old.named(id), next.named(id)
		if old != nil && old != now {
			old.live.Store(false)
		}
		v.leases.follow(old, now)
	}
}
