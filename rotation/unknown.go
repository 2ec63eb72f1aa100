package rotation

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/unknown"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/ring"
)

const (
	refreshWait = 2 * time.Second // the most that a request waits for the store

	// What unknown kids may cost the store, for each tenant.
	refreshBurst = 3
	refreshEvery = time.Second

	unknownFor = 5 * time.Second
	maxUnknown = 1000 // kids that are remembered as unknown
)

// unknownKids bounds what unknown kids cost the store. A token may name any kid, and any tenant.
type unknownKids struct {
	mu            sync.Mutex                  // guards the fields below, and the budget of every tenantRing
	running       map[string]*pendingSync     // a sync that has not begun, and that others can join, by tenant
	memory        unknown.Memory[keystore.ID] // its version is the number of resyncs: each may bring another store
	unheldTenants unknown.Budget              // of all tenants that are not held together
}

func (u *unknownKids) init() {
	u.running = make(map[string]*pendingSync)
	u.memory = unknown.Memory[keystore.ID]{Most: maxUnknown, For: unknownFor}
	u.unheldTenants = newRefreshBudget()
}

func newRefreshBudget() unknown.Budget {
	return unknown.Budget{Burst: refreshBurst, Every: refreshEvery}
}

// Refresh implements keystore.Refresher: it syncs the tenant's ring. All callers that wait
// share one sync. A tenant gets three syncs in a row, and then one a second. Refresh
// remembers for 5s that a kid was missing, and waits for 2s at most.
func (k *Keyring) Refresh(ctx context.Context, id keystore.ID) error {
	if err := ctx.Err(); err != nil {
		return &ring.Error{Text: id.String(), Err: cannotTell(err)}
	}
	r := k.ring(id.Tenant)
	if r == nil && !k.holdsAll() || len(id.KID) > keystore.MaxKIDBytes || len(id.Tenant) > ring.MaxTenantBytes {
		return &ring.Error{Text: id.String(), Err: keystore.ErrNotFound}
	}
	now, step := k.cfg.Now(), r.syncStatus()
	if k.holds(r, id, now) {
		return nil
	}
	a := k.unknown.join(k, r, id, now)
	if a == nil {
		return k.absent(r, step, id, now)
	}
	if err := k.awaitRefresh(ctx, a); err != nil {
		return &ring.Error{Text: id.String(), Err: cannotTell(err)}
	}
	r = k.ring(id.Tenant)
	step = r.syncStatus()
	if k.holds(r, id, k.cfg.Now()) {
		return nil
	}
	k.unknown.remember(k, id, k.cfg.Now())
	return k.absent(r, step, id, k.cfg.Now())
}

// syncStatus returns how far the ring is in sync. Call it before reading the copy that the ring holds,
// so that the copy is not older. r may be nil.
func (r *tenantRing) syncStatus() *syncStatus {
	if r == nil {
		return nil
	}
	return r.step.Load()
}

func (k *Keyring) awaitRefresh(ctx context.Context, a *pendingSync) error {
	ctx, cancel := context.WithTimeout(ctx, refreshWait)
	defer cancel()
	return k.await(ctx, a)
}

// holds reports whether Lookup would find the key.
func (k *Keyring) holds(r *tenantRing, id keystore.ID, now time.Time) bool {
	if r == nil {
		return false
	}
	rec := r.state.Load().find(id.KID)
	return rec != nil && rec.key.Usable(now)
}

// absent returns the error for a key that is missing after a sync.
func (k *Keyring) absent(r *tenantRing, step *syncStatus, id keystore.ID, now time.Time) error {
	if r == nil {
		return k.missingRing(id.Tenant)
	}
	if r.state.Load() == nil {
		return &ring.Error{Text: fmt.Sprintf("no ring of tenant %q is known", id.Tenant), Err: cannotTell(step.err)}
	}
	return k.missing(id, step, now)
}

// join returns the sync that is under way for the tenant, or a new one, or nil if the kid is known to
// be missing, or the budget is spent. r is the tenant's ring, or nil.
func (u *unknownKids) join(k *Keyring, r *tenantRing, id keystore.ID, now time.Time) *pendingSync {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.memory.Has(id, now, k.counts.resyncs.Load()) {
		return nil
	}
	if running := u.running[id.Tenant]; running != nil {
		return running
	}
	budget := &u.unheldTenants
	if r != nil {
		budget = &r.budget
	}
	if !budget.Take(now) {
		return nil
	}
	k.counts.refreshes.Add(1)
	running := k.loop.request(id.Tenant, ring.Facts{}, func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.running, id.Tenant)
	})
	u.running[id.Tenant] = running
	return running
}

// remember notes that id was missing.
func (u *unknownKids) remember(k *Keyring, id keystore.ID, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.memory.Add(id, now, k.counts.resyncs.Load())
}
