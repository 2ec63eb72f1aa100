package rotation

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/ring"
)

const (
	refreshWait  = 2 * time.Second // the most that a request waits for the store
	refreshRate  = 1.0             // a second and tenant
	refreshBurst = 3
	unknownFor   = 5 * time.Second
	maxUnknown   = 1000 // kids that are remembered as unknown
)

// asking is what unknown kids may cost.
type asking struct {
	mu        sync.Mutex
	flights   map[string]*ask // by tenant
	unknown   map[keystore.ID]unknownKID
	order     []keystore.ID // of unknown, the oldest first
	strangers spent         // the budget of tenants that are not held
}

// An unknownKID was not there. That holds until the store may be another one.
type unknownKID struct {
	at      time.Time
	resyncs uint64
}

func (a *asking) init() {
	a.flights = make(map[string]*ask)
	a.unknown = make(map[keystore.ID]unknownKID)
}

// spent is a budget of refreshRate, of which up to refreshBurst can be saved. The
// zero value is full. It is guarded by asking.mu.
type spent struct {
	tokens float64 // that are missing
	at     time.Time
}

func (s *spent) take(now time.Time) bool {
	if s.tokens > 0 {
		s.tokens = max(0, s.tokens-refreshRate*max(0, now.Sub(s.at).Seconds()))
	}
	s.at = now
	if s.tokens+1 > refreshBurst {
		return false
	}
	s.tokens++
	return true
}

// Refresh implements keystore.Refresher: it syncs the tenant's ring, at most once
// for all who wait, three times in a row and then once a second, and remembers for
// 5s that a kid was not there. It waits for 2s at most.
func (k *Keyring) Refresh(ctx context.Context, id keystore.ID) error {
	if err := ctx.Err(); err != nil {
		return &ring.Error{Text: id.String(), Err: cannotTell(err)}
	}
	r := k.ring(id.Tenant)
	if r == nil && !k.holdsAll() || len(id.KID) > keystore.MaxKIDBytes || len(id.Tenant) > ring.MaxTenantBytes {
		return &ring.Error{Text: id.String(), Err: keystore.ErrNotFound}
	}
	now, step := k.cfg.Now(), r.known()
	if k.holds(r, id, now) {
		return nil
	}
	a := k.asking.join(k, r, id, now)
	if a == nil {
		return k.absent(r, step, id, now)
	}
	if err := k.awaitRefresh(ctx, a); err != nil {
		return &ring.Error{Text: id.String(), Err: cannotTell(err)}
	}
	r = k.ring(id.Tenant)
	step = r.known()
	if k.holds(r, id, k.cfg.Now()) {
		return nil
	}
	k.asking.remember(k, id, k.cfg.Now())
	return k.absent(r, step, id, k.cfg.Now())
}

// known returns how far the ring is in step: to be asked before what it holds, which then
// is not older. r may be nil.
func (r *tenantRing) known() *syncStatus {
	if r == nil {
		return nil
	}
	return r.step.Load()
}

func (k *Keyring) awaitRefresh(ctx context.Context, a *ask) error {
	ctx, cancel := context.WithTimeout(ctx, refreshWait)
	defer cancel()
	return k.await(ctx, a)
}

// holds reports whether there is a key to look up.
func (k *Keyring) holds(r *tenantRing, id keystore.ID, now time.Time) bool {
	if r == nil {
		return false
	}
	rec := r.state.Load().find(id.KID)
	return rec != nil && rec.key.Usable(now)
}

// absent says what it means that the key is not there.
func (k *Keyring) absent(r *tenantRing, step *syncStatus, id keystore.ID, now time.Time) error {
	if r == nil {
		return k.missingRing(id.Tenant)
	}
	if r.state.Load() == nil {
		return &ring.Error{Text: fmt.Sprintf("no ring of tenant %q is known", id.Tenant), Err: cannotTell(step.err)}
	}
	return k.missing(id, step, now)
}

// join returns the sync that is under way for the tenant, or a new one, or nil if
// there is nothing to ask, or nothing left of the budget.
func (a *asking) join(k *Keyring, r *tenantRing, id keystore.ID, now time.Time) *ask {
	a.mu.Lock()
	defer a.mu.Unlock()
	if u, ok := a.unknown[id]; ok && u.resyncs == k.counts.resyncs.Load() && protocol.Age(now, u.at) < unknownFor && !now.Before(u.at) {
		return nil
	}
	if flight := a.flights[id.Tenant]; flight != nil {
		return flight
	}
	budget := &a.strangers
	if r != nil {
		budget = &r.spent
	}
	if !budget.take(now) {
		return nil
	}
	k.counts.refreshes.Add(1)
	flight := k.loop.ask(id.Tenant, ring.Facts{}, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.flights, id.Tenant)
	})
	a.flights[id.Tenant] = flight
	return flight
}

func (a *asking) remember(k *Keyring, id keystore.ID, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.unknown[id]; !ok {
		a.order = append(a.order, id)
	}
	a.unknown[id] = unknownKID{at: now, resyncs: k.counts.resyncs.Load()}
	for len(a.order) > maxUnknown {
		delete(a.unknown, a.order[0])
		a.order = a.order[1:]
	}
}
