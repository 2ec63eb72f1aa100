package verifier

import (
	"context"
	"fmt"
	"maps"
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
	return nil
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
// concurrent use, starts no goroutines and needs no closing.
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

	tenants atomic.Pointer[tenants]

	mu      sync.Mutex // held while tenants is replaced; guards serials
	serials uint64     // the serial of the newest rules
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
		v.marker, _ = cfg.Revocations.(Marker)
	}
	v.tenants.Store(&tenants{})
	if err := v.Put(cfg.Tenants...); err != nil {
		return nil, err
	}
	return v, nil
}

// Put adds tenants, and replaces those with the same ID. It changes all of them,
// or returns an error and changes none. A suspended tenant stays suspended.
//
// [Verifier.Verify] gives every token to a verifier's only tenant. Once there is a
// second one, it finds each by its Issuer. The time of a call grows with the
// number of all tenants, so put many at once.
func (v *Verifier) Put(list ...Tenant) error { return v.Change(list, nil) }

// Change removes tenants and puts others, as [Verifier.Put] does, in one step: no call sees a part of
// it. So an issuer can move from one tenant to another, and a tenant can get another ID, while tokens
// are verified. It is an error to remove a tenant that does not exist. A tenant that is in both lists
// is put, and is no longer suspended.
func (v *Verifier) Change(put []Tenant, remove []string) error {
	return v.change(func(byID map[string]*rules) error {
		for _, id := range remove {
			if byID[id] == nil {
				return noTenant(id)
			}
			delete(byID, id)
		}
		return putAll(byID, put)
	})
}

func putAll(byID map[string]*rules, list []Tenant) error {
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
}

func noTenant(id string) error { return fmt.Errorf("verifier: there is no tenant %q", id) }

// Remove removes a tenant. The verifier refuses its tokens from the next call on,
// cached ones included. It is an error if there is no such tenant.
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
			return noTenant(id)
		}
		change(byID)
		return nil
	})
}

// change calls edit with a copy of the tenants, and installs the copy unless edit
// fails or the result is not valid.
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

// renewMoved gives new rules to each unchanged tenant that tokens without a hint
// now reach in another way than before, and reports whether there is one. The
// tokens that were cached for it are then checked again.
func renewMoved(old, next *tenants) (moved bool) {
	for id, r := range next.byID {
		if old.byID[id] != r {
			continue
		}
		if !next.sameRoutes(r, old) {
			next.byID[id] = r.renewed()
			moved = true
		}
	}
	return moved
}
