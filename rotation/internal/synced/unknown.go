package synced

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/unknown"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/store"
)

const (
	refreshWait = 2 * time.Second // the longest that a request waits for the store

	// A tenant's unknown kids may cause refreshBurst syncs at once, and one more in each
	// refreshEvery.
	refreshBurst = 3
	refreshEvery = time.Second

	// All tenants together may cause as many at once as a keyring has buckets, and then 100 in a
	// second. Each is one small call of the store.
	allRefreshBurst = store.Buckets
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
	mu sync.Mutex // guards the fields below, and the budget of every Ring

	// running has, by tenant, a sync that has not begun, so that others can join it.
	running map[string]*Pending

	// memory has the kids that were missing. Its version is the number of resyncs, since each of them
	// may bring another state of the store.
	memory unknown.Memory

	// unheldTenants is one budget for the tenants that are not held, and all is one for every tenant.
	unheldTenants, all unknown.Budget

	waiters int // requests that wait for a sync
}

// init makes u ready for use.
func (u *unknownKids) init() {
	u.running = make(map[string]*Pending)
	u.memory = unknown.Memory{Most: maxUnknown, For: unknownFor}
	u.unheldTenants = newRefreshBudget()
	u.all = unknown.Budget{Burst: allRefreshBurst, Every: allRefreshEvery}
}

// newRefreshBudget returns a full budget of syncs, in number and in time.
func newRefreshBudget() unknown.Budget {
	return unknown.Budget{Burst: refreshBurst, Every: refreshEvery}
}

// AskUnknown returns the sync that a token with an unknown kid waits for, or nil if the kid is known to
// be missing, or the tenant's budget is used up. r is the tenant's ring, or nil.
func (k *Rings) AskUnknown(r *Ring, id keystore.ID, now time.Time) *Pending {
	return k.unknown.join(k, r, id, now)
}

// RememberUnknown notes that id was missing after a sync.
func (k *Rings) RememberUnknown(id keystore.ID, now time.Time) { k.unknown.remember(k, id, now) }

// AwaitUnknown waits for a sync, for as long as a request may wait.
func (k *Rings) AwaitUnknown(ctx context.Context, a *Pending) error {
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

// join returns the sync of the tenant that has not begun yet, or requests one. It returns nil if
// the kid is known to be missing, or the tenant's budget is used up. r is the tenant's ring, or
// nil. Tenants that are not held share one budget, since anyone can make up their names.
func (u *unknownKids) join(k *Rings, r *Ring, id keystore.ID, now time.Time) *Pending {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.memory.Has(unknown.ID(id), now, k.Counts.Resyncs.Load()) {
		return nil
	}
	if running := u.running[id.Tenant]; running != nil {
		return running
	}
	budget := &u.unheldTenants
	if r != nil {
		if r.budget == nil {
			full := newRefreshBudget()
			r.budget = &full
		}
		budget = r.budget
	}
	if !budget.Take(now) || !u.all.Take(now) {
		return nil
	}
	k.Counts.Refreshes.Add(1)
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
func (u *unknownKids) remember(k *Rings, id keystore.ID, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.memory.Add(unknown.ID(id), now, k.Counts.Resyncs.Load())
}
