package rotation

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/unknown"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/ring"
)

const (
	refreshWait = 2 * time.Second // the longest that a request waits for the store

	// A tenant's unknown kids may cause refreshBurst syncs at once, and one more in each
	// refreshEvery.
	refreshBurst = 3
	refreshEvery = time.Second

	// All tenants together may cause as many at once as a keyring has buckets, and then 100 in a
	// second. Each is one small call of the store.
	allRefreshBurst = Buckets
	allRefreshEvery = 10 * time.Millisecond

	// maxWaiters is how many requests may wait for syncs at once. Each holds a request of the service
	// open, with its goroutine and its token.
	maxWaiters = 4096

	unknownFor = 5 * time.Second // how long a kid is remembered as unknown
	maxUnknown = 1000            // how many kids are remembered as unknown
)

// unknownKids bounds what unknown kids cost the store. An attacker can put any kid, and any tenant,
// into a token that no key has signed.
type unknownKids struct {
	mu sync.Mutex // guards the fields below, and the budget of every tenantRing

	// running has, by tenant, a sync that has not begun, so that others can join it.
	running map[string]*pendingSync

	// memory has the kids that were missing. Its version is the number of resyncs, since each of them
	// may bring another state of the store.
	memory unknown.Memory

	// unheldTenants is the budget of all tenants together that are not held, and all that of all
	// tenants together.
	unheldTenants, all unknown.Budget

	waiters int // requests that wait for a sync
}

// init makes u ready for use.
func (u *unknownKids) init() {
	u.running = make(map[string]*pendingSync)
	u.memory = unknown.Memory{Most: maxUnknown, For: unknownFor}
	u.unheldTenants = newRefreshBudget()
	u.all = unknown.Budget{Burst: allRefreshBurst, Every: allRefreshEvery}
}

// newRefreshBudget returns a full budget of syncs, in number and in time.
func newRefreshBudget() unknown.Budget {
	return unknown.Budget{Burst: refreshBurst, Every: refreshEvery}
}

// Refresh implements keystore.Refresher: it syncs the tenant's ring because a token names a key
// that [Keyring.Lookup] does not find. It returns nil if the key is there now. It waits for 2s at
// most, or until ctx ends.
//
// Requests for one tenant share a sync. Unknown kids of a tenant cause at most three syncs at once
// and then one a second, those of all tenants 256 and then 100 a second. A kid that was not there
// is remembered for 5s. Beyond that Refresh answers from memory, and so it does for a key that is
// known to be revoked. Its errors wrap [keystore.ErrNotFound] or [keystore.ErrUnavailable], as
// those of Lookup do. It is ErrUnavailable too if 4096 requests wait already, or if nothing can be
// asked now and the last sync failed.
func (k *Keyring) Refresh(ctx context.Context, id keystore.ID) error {
	if err := ctx.Err(); err != nil {
		return &ring.Error{Text: id.String(), Err: unavailable(err)}
	}
	r := k.ring(id.Tenant)
	if r == nil && !k.holdsAll() || len(id.KID) > keystore.MaxKIDBytes || len(id.Tenant) > ring.MaxTenantBytes {
		return &ring.Error{Text: id.String(), Err: keystore.ErrNotFound}
	}
	now, status := k.cfg.Now(), r.syncStatus()
	switch {
	case k.holds(r, id, now):
		return nil
	case r != nil && r.state.Load().Revoked(id.KID):
		return &ring.Error{Text: id.String(), Err: keystore.ErrRevoked} // the store cannot say otherwise
	case r != nil && r.state.Load().Buried(id.KID):
		return &ring.Error{Text: id.String(), Err: keystore.ErrNotFound}
	}
	a := k.unknown.join(k, r, id, now)
	switch {
	case a == nil && status != nil && status.err != nil:
		// The token may be good: its key may have become known while the store could not be read.
		return &ring.Error{Text: id.String(), Err: unavailable(status.err)}
	case a == nil:
		return k.absent(r, status, id, now)
	}
	if err := k.awaitRefresh(ctx, a); err != nil {
		return &ring.Error{Text: id.String(), Err: unavailable(err)}
	}
	r = k.ring(id.Tenant)
	status = r.syncStatus()
	if k.holds(r, id, k.cfg.Now()) {
		return nil
	}
	k.unknown.remember(k, id, k.cfg.Now())
	return k.absent(r, status, id, k.cfg.Now())
}

// syncStatus returns the status of r, to be read before its copy: see [tenantRing]. r may be nil.
func (r *tenantRing) syncStatus() *syncStatus {
	if r == nil {
		return nil
	}
	return r.status.Load()
}

// awaitRefresh waits for a sync, for as long as a request may wait.
func (k *Keyring) awaitRefresh(ctx context.Context, a *pendingSync) error {
	if !k.unknown.wait() {
		return errManyWait
	}
	defer k.unknown.done()
	ctx, cancel := context.WithTimeout(ctx, refreshWait)
	defer cancel()
	return k.await(ctx, a)
}

// errManyWait refuses a request that would be one too many to wait.
var errManyWait = errors.New("too many requests wait for the store already")

// wait counts a request that is going to wait, unless too many do already.
func (u *unknownKids) wait() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.waiters == maxWaiters {
		return false
	}
	u.waiters++
	return true
}

// done counts a request that no longer waits.
func (u *unknownKids) done() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.waiters--
}

// holds reports whether the copy of r has a usable key of that kid. r may be nil.
func (k *Keyring) holds(r *tenantRing, id keystore.ID, now time.Time) bool {
	if r == nil {
		return false
	}
	rec := r.state.Load().Find(id.KID)
	return rec != nil && rec.Key.Usable(now)
}

// absent returns the error for a key that is not there. r may be nil.
func (k *Keyring) absent(r *tenantRing, status *syncStatus, id keystore.ID, now time.Time) error {
	if r == nil {
		return k.missingRing(id.Tenant)
	}
	if r.state.Load() == nil {
		return unknownRing(id.Tenant, status)
	}
	return k.missing(id, status, now)
}

// join returns the sync of the tenant that has not begun yet, or requests one. It returns nil if
// the kid is known to be missing, or the tenant's budget is used up. r is the tenant's ring, or
// nil. Tenants that are not held share one budget, since anyone can make up their names.
func (u *unknownKids) join(k *Keyring, r *tenantRing, id keystore.ID, now time.Time) *pendingSync {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.memory.Has(unknown.ID(id), now, k.counts.resyncs.Load()) {
		return nil
	}
	if running := u.running[id.Tenant]; running != nil {
		return running
	}
	budget := &u.unheldTenants
	if r != nil {
		budget = &r.budget
	}
	if !budget.Take(now) || !u.all.Take(now) {
		return nil
	}
	k.counts.refreshes.Add(1)
	tenant := strings.Clone(id.Tenant) // it may be a part of a long token
	running := k.loop.request(tenant, nil, func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.running, tenant)
	})
	u.running[tenant] = running
	return running
}

// remember notes that id was missing. The memory keeps a copy.
func (u *unknownKids) remember(k *Keyring, id keystore.ID, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.memory.Add(unknown.ID(id), now, k.counts.resyncs.Load())
}
