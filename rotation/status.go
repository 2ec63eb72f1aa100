package rotation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/ring"
)

// A Status says how a keyring stands.
type Status struct {
	// Ready reports whether every ring is known, in step within its SignFor, and this
	// clock and the store's agree: tokens can be signed and verified.
	Ready bool

	// Fresh reports whether every ring is also in step within its Freshness, and
	// not in doubt. Ready and not fresh is degraded.
	Fresh bool

	// Err is why it is not fresh, or nil.
	Err error

	Tenants  int       // that are held
	LastGood time.Time // the oldest of the last good syncs; zero if there is one without
	Counts   Counts
}

// Counts say how often something has happened since Open.
type Counts struct {
	Syncs, Failures uint64 // polls of the store, all buckets at once, and those that failed for a bucket
	Repairs         uint64 // rings into which something was merged back
	Resyncs         uint64 // buckets whose place could not be proved
	Refreshes       uint64 // that unknown kids caused
}

type counts struct{ syncs, failures, repairs, resyncs, refreshes atomic.Uint64 }

// Status returns how the keyring stands now. It does not wait for the store.
func (k *Keyring) Status() Status {
	s := Status{Ready: true, Fresh: true, Counts: k.counts.load()}
	now := k.cfg.Now()
	k.addBuckets(&s, now)
	k.addRings(&s, now)
	return s
}

func (c *counts) load() Counts {
	return Counts{Syncs: c.syncs.Load(), Failures: c.failures.Load(), Repairs: c.repairs.Load(),
		Resyncs: c.resyncs.Load(), Refreshes: c.refreshes.Load()}
}

// addBuckets adds the state of the buckets to s, also of those without a ring: a bucket that cannot
// be read may have rings that this keyring does not know.
func (k *Keyring) addBuckets(s *Status, now time.Time) {
	for _, b := range k.buckets {
		status := b.status.Load()
		s.Ready = s.Ready && !status.Good.IsZero() && !errors.Is(status.err, errClock)
		s.Fresh = s.Fresh && status.fresh(now, k.times.Load().fresh)
		if s.Err == nil && !s.Fresh {
			s.Err = unavailable(status.err)
		}
	}
}

// addRings adds the state of the rings to s, sorted by tenant, so that Err is always that of the same
// ring. The reason of a ring replaces that of a bucket, since it names the tenant.
func (k *Keyring) addRings(s *Status, now time.Time) {
	rings := k.allRings()
	slices.SortFunc(rings, func(a, b *tenantRing) int { return cmp.Compare(a.tenant, b.tenant) })
	named := false // Err names a tenant
	for _, r := range rings {
		t := k.status(r, now)
		if empty := !t.exists && !r.status.Load().bad; empty && k.holdsAll() {
			continue // the store named the tenant, but has no ring of it
		}
		if s.Tenants == 0 || t.LastGood.Before(s.LastGood) {
			s.LastGood = t.LastGood
		}
		s.Tenants++
		s.Ready, s.Fresh = s.Ready && t.Ready, s.Fresh && t.Fresh
		if t.Err != nil && !named {
			named = true
			s.Err = fmt.Errorf("tenant %q: %w", r.tenant, t.Err)
		}
	}
}

// A TenantStatus says how one ring stands.
type TenantStatus struct {
	Ready     bool                 // as in Status, of this ring
	Fresh     bool                 // likewise
	InDoubt   bool                 // whether the store has what it had cannot be told yet
	Err       error                // why it is not fresh, or nil
	LastGood  time.Time            // the last good sync; zero before the first
	Ring      ring.Ring            // as this instance sees it now
	Published map[string]time.Time // when each kid was published, as the store has it: not authenticated

	exists bool
}

// Tenant returns how the ring of tenant stands now. The error wraps
// [keystore.ErrNotFound] if none is held.
func (k *Keyring) Tenant(tenant string) (TenantStatus, error) {
	r := k.ring(tenant)
	if r == nil {
		return TenantStatus{}, &ring.Error{Text: fmt.Sprintf("this keyring holds no ring of tenant %q", tenant), Err: keystore.ErrNotFound}
	}
	now := k.cfg.Now()
	t := k.status(r, now)
	t.Ring.Signer = -1
	if c := r.state.Load(); c != nil {
		t.Ring = c.Plan.At(now)
		t.Published = make(map[string]time.Time, len(c.Published))
		for _, p := range c.Published {
			t.Published[p.KID] = p.At
		}
	}
	return t, nil
}

func (k *Keyring) status(r *tenantRing, now time.Time) TenantStatus {
	status, c := r.status.Load(), r.state.Load()
	s := TenantStatus{InDoubt: status.Recovering || status.Complete.IsZero(), Err: status.err, LastGood: status.Good, exists: c.newest() != nil}
	s.Fresh = s.exists && status.fresh(now, k.times.Load().fresh)
	switch {
	case s.exists:
		s.Ready = !status.Good.IsZero() && protocol.Age(now, status.Good) <= c.newest().Timing.SignFor && !errors.Is(status.err, errClock)
	case c != nil && c.Plan.Dead:
		s.Ready, s.Fresh = true, status.fresh(now, k.times.Load().fresh)
	}
	if s.Err == nil && !s.Fresh {
		s.Err = s.reason(now, status)
	}
	return s
}

func (s *TenantStatus) reason(now time.Time, status *syncStatus) error {
	switch {
	case s.InDoubt && status.Recovering && status.Until.After(now):
		return fmt.Errorf("in doubt for another %v: the store may have lost something, and others get the time to put it back", status.Until.Sub(now).Round(time.Second))
	case s.InDoubt:
		return errors.New("in doubt: the store may have lost something, and others get the time to put it back")
	case !s.exists:
		return errors.New("the store has no ring of it")
	case s.LastGood.IsZero():
		return errors.New("no good sync yet")
	}
	return fmt.Errorf("the last good sync was %v ago", protocol.Age(now, s.LastGood).Round(time.Millisecond))
}

// WaitReady waits until every ring is known and in step, and returns nil, or until ctx
// ends, and returns why it is not. A fresh instance needs it before it signs.
func (k *Keyring) WaitReady(ctx context.Context) error {
	for {
		synced := k.loop.synced()
		s := k.Status()
		if s.Ready {
			return nil
		}
		select {
		case <-synced:
		case <-k.done:
			return &ring.Error{Text: "the keyring is closed"}
		case <-ctx.Done():
			return fmt.Errorf("rotation: not ready: %w (%w)", unavailable(s.Err), ctx.Err())
		}
	}
}
