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

// A Status is the state of a keyring.
type Status struct {
	// Ready reports whether tokens can be signed and verified: every ring is known,
	// its last good sync is younger than its SignFor, and this clock and the store's
	// agree.
	Ready bool

	// Fresh reports whether every ring is also in sync: its last good sync is younger
	// than Freshness, and it is not recovering. Ready and not fresh is degraded.
	Fresh bool

	// Err is why it is not fresh, or nil.
	Err error

	Tenants  int       // that are held
	LastGood time.Time // the oldest of the last good syncs of all rings; zero if a ring had none
	Counts   Counts
}

// Counts count events since Open.
type Counts struct {
	Syncs, Failures uint64 // polls of the store, all buckets at once, and those that failed for a bucket
	Repairs         uint64 // rings to which something was restored
	Resyncs         uint64 // buckets whose log no longer had our place
	Refreshes       uint64 // syncs that unknown kids caused
}

type counts struct{ syncs, failures, repairs, resyncs, refreshes atomic.Uint64 }

// Status returns the state of the keyring now.
func (k *Keyring) Status() Status {
	s := Status{Ready: true, Fresh: true, Counts: Counts{Syncs: k.counts.syncs.Load(), Failures: k.counts.failures.Load(),
		Repairs: k.counts.repairs.Load(), Resyncs: k.counts.resyncs.Load(), Refreshes: k.counts.refreshes.Load()}}
	now := k.cfg.Now()
	rings := k.all()
	slices.SortFunc(rings, func(a, b *tenantRing) int { return cmp.Compare(a.tenant, b.tenant) })
	var named string              // the tenant that s.Err names
	for _, b := range k.buckets { // also those without rings: the store may have some
		step := b.step.Load()
		s.Ready = s.Ready && !step.Good.IsZero() && !errors.Is(step.err, errClock)
		s.Fresh = s.Fresh && step.fresh(now, k.times.Load().fresh)
		if s.Err == nil && !s.Fresh {
			s.Err = cannotTell(step.err)
		}
	}
	for _, r := range rings {
		t := k.status(r, now)
		if empty := !t.exists && !r.step.Load().bad; empty && k.holdsAll() {
			continue
		}
		if s.Tenants == 0 || t.LastGood.Before(s.LastGood) {
			s.LastGood = t.LastGood
		}
		s.Tenants++
		s.Ready, s.Fresh = s.Ready && t.Ready, s.Fresh && t.Fresh
		if t.Err != nil && (s.Err == nil || len(named) == 0) {
			named = r.tenant
			s.Err = fmt.Errorf("tenant %q: %w", r.tenant, t.Err)
		}
	}
	return s
}

// A TenantStatus is the state of one ring.
type TenantStatus struct {
	Ready     bool                 // as in Status, of this ring
	Fresh     bool                 // likewise
	InDoubt   bool                 // recovering: the store may have lost something that other instances still restore
	Err       error                // why it is not fresh, or nil
	LastGood  time.Time            // the last good sync; zero before the first
	Ring      ring.Ring            // as this instance sees it now
	Published map[string]time.Time // when each kid was published, as the store has it: not authenticated

	exists bool
}

// Tenant returns the state of the ring of tenant now. The error wraps
// [keystore.ErrNotFound] if none is held.
func (k *Keyring) Tenant(tenant string) (TenantStatus, error) {
	r := k.ring(tenant)
	if r == nil {
		return TenantStatus{}, &ring.Error{Text: fmt.Sprintf("this keyring holds no ring of tenant %q", tenant), Err: keystore.ErrNotFound}
	}
	now := k.cfg.Now()
	t := k.status(r, now)
	t.Ring.Signer = -1
	if h := r.state.Load(); h != nil {
		t.Ring = h.Plan.At(now)
		t.Published = make(map[string]time.Time, len(h.Published))
		for _, p := range h.Published {
			t.Published[p.KID] = p.At
		}
	}
	return t, nil
}

func (k *Keyring) status(r *tenantRing, now time.Time) TenantStatus {
	step, h := r.step.Load(), r.state.Load()
	s := TenantStatus{InDoubt: step.Recovering || step.Complete.IsZero(), Err: step.err, LastGood: step.Good, exists: h.newest() != nil}
	s.Fresh = s.exists && step.fresh(now, k.times.Load().fresh)
	switch {
	case s.exists:
		s.Ready = !step.Good.IsZero() && protocol.Age(now, step.Good) <= h.newest().Timing.SignFor && !errors.Is(step.err, errClock)
	case h != nil && h.Plan.Dead:
		s.Ready, s.Fresh = true, step.fresh(now, k.times.Load().fresh)
	}
	if s.Err == nil && !s.Fresh {
		s.Err = s.reason(now, step)
	}
	return s
}

func (s *TenantStatus) reason(now time.Time, step *syncStatus) error {
	switch {
	case s.InDoubt && step.Recovering && step.Until.After(now):
		return fmt.Errorf("in doubt for another %v: the store may have lost something, and others get the time to put it back", step.Until.Sub(now).Round(time.Second))
	case s.InDoubt:
		return errors.New("in doubt: the store may have lost something, and others get the time to put it back")
	case !s.exists:
		return errors.New("the store has no ring of it")
	case s.LastGood.IsZero():
		return errors.New("no good sync yet")
	}
	return fmt.Errorf("the last good sync was %v ago", protocol.Age(now, s.LastGood).Round(time.Millisecond))
}

// WaitReady waits until the keyring is ready: see [Status]. It returns nil then, or why it is
// not ready when ctx ends. Call it before the first Sign.
func (k *Keyring) WaitReady(ctx context.Context) error {
	for {
		moved := k.loop.moved()
		s := k.Status()
		if s.Ready {
			return nil
		}
		select {
		case <-moved:
		case <-k.done:
			return &ring.Error{Text: "the keyring is closed"}
		case <-ctx.Done():
			return fmt.Errorf("rotation: not ready: %w (%w)", cannotTell(s.Err), ctx.Err())
		}
	}
}
