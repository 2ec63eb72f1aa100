package rotation

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/internal/synced"
	"github.com/keyturn/keyturn/rotation/ring"
)

// rotateAtOnce is how many rings Run works on at once. A mint takes a few calls of the store, and
// more would let one instance crowd out the others.
const rotateAtOnce = 4

// Run rotates keys by itself, and returns nil when ctx ends or the keyring is closed. After each
// sync it looks at every ring that is in sync, and
//
//   - mints the next key if none is pending,
//   - promotes the pending key if the signing one was revoked,
//   - revokes a key that waits although no key holds it back any longer,
//   - removes keys whose last token expired long ago,
//   - makes missing rings if [Config.AllowBootstrap] is set.
//
// An error is logged, and the work tried again after the next sync. A scheduled switch needs no
// Run, since a pending key takes effect by the clock. But the key after it does: a ring stops
// signing after three periods without one. Run it in several instances; they do not get in each
// other's way. The caller owns the goroutine, and Run waits for those that it starts.
func (r *Rotator) Run(ctx context.Context) error {
	for {
		synced := r.k.rings.NextSync() // before the work, so that no sync during it is missed
		r.rotateDue(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-r.k.rings.Done():
			return nil
		case <-synced:
		}
	}
}

// rotateDue does the work that is due, for rotateAtOnce rings at once, and waits until it is done.
func (r *Rotator) rotateDue(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	free := make(chan struct{}, rotateAtOnce)
	do := func(tr *synced.Ring, work func(context.Context) error) {
		if work == nil || ctx.Err() != nil {
			return
		}
		free <- struct{}{}
		wg.Go(func() {
			defer func() { <-free }()
			if err := work(ctx); err != nil && ctx.Err() == nil {
				r.k.cfg.Logger.Warn("a ring could not be rotated; it will be tried again", "tenant", tr.Tenant, "error", err)
			}
		})
	}
	now := r.k.cfg.Now()
	for _, tr := range r.k.rings.Work(now) {
		work, unsure := r.due(tr, now)
		r.k.rings.Again(tr, now, work != nil || unsure)
		do(tr, work)
	}
	if unknown := r.k.rings.Unknown(); len(unknown) > 0 && r.mayBootstrap() {
		for _, tr := range unknown {
			do(tr, r.dueRing(tr, now))
		}
	}
}

// due returns the work that is due for a ring, or nil. It decides on this instance's copy and
// clock, which costs nothing. The work itself decides again, on the ring in the store. One change a
// sync is enough, so the first that applies is returned. unsure says that this instance cannot tell: the
// ring is not in sync.
func (r *Rotator) due(tr *synced.Ring, now time.Time) (work func(context.Context) error, unsure bool) {
	status := tr.SyncStatus()
	if status.Err != nil || !status.InSync(now, r.k.times.Load().Fresh) {
		return nil, true
	}
	c := tr.Copy()
	b := protocol.Base{Tenant: tr.Tenant, Now: now, Copy: c.Plain()}
	if !b.IsWorkDue() {
		return nil, false
	}
	if c.Newest() == nil {
		return r.making(tr.Tenant, func(b *base) (*protocol.Proposal, error) { return b.Collect(), nil }), false
	}
	switch {
	case b.IsTakeOverDue():
		return r.making(tr.Tenant, func(b *base) (*protocol.Proposal, error) { return b.TakeOver() }), false
	case b.RevokeStray() != nil:
		return r.making(tr.Tenant, func(b *base) (*protocol.Proposal, error) { return b.RevokeStray(), nil }), false
	case b.IsMintDue():
		return r.making(tr.Tenant, func(b *base) (*protocol.Proposal, error) { return b.MintDue() }), false
	}
	return r.making(tr.Tenant, func(b *base) (*protocol.Proposal, error) { return b.Collect(), b.Ring() }), false
}

// dueRing returns the making of a ring of which this instance knows nothing, or nil if it is not in sync, or
// has not held the tenant for long enough.
func (r *Rotator) dueRing(tr *synced.Ring, now time.Time) func(context.Context) error {
	status, added := tr.SyncStatus(), tr.Added()
	if status.Err != nil || !status.InSync(now, r.k.times.Load().Fresh) || tr.Known() || !added.IsZero() && protocol.Age(now, added) < r.stillFor() {
		return nil
	}
	return func(ctx context.Context) error { return r.bootstrap(ctx, tr.Tenant) }
}

// mayBootstrap reports whether rings may be made where the store has none: the whole store is in
// sync, and has been unchanged for so long that every instance which holds a ring that the store
// lost would have restored it (timeline K). One bucket that stands still is not enough: holders that
// put thousands of rings back reach it late.
//
// It also takes that no ring has another algorithm than [Config.Policy]. Then the policy cannot be
// the one for all tenants, and a ring made under it would be of the wrong kind.
func (r *Rotator) mayBootstrap() bool {
	if !r.k.cfg.AllowBootstrap {
		return false
	}
	now, t, p := r.k.cfg.Now(), r.k.times.Load(), r.k.cfg.Policy
	still := r.stillFor()
	for _, b := range r.k.rings.Buckets() {
		status := b.Status.Load()
		if !status.InSync(now, t.Fresh) || protocol.Age(now, status.QuietSince) < still {
			return false
		}
	}
	for _, tr := range r.k.rings.All() {
		if n, ok := tr.Policy(); ok && n.Algorithm != p.Algorithm {
			r.k.rings.Raise(&r.k.rings.Alarms.Bootstrap, "AllowBootstrap makes no rings: a ring has another algorithm than Config.Policy; create each with Rotator.Create, or keyturn keys create",
				"tenant", tr.Tenant, "algorithm", string(n.Algorithm), "policy", string(p.Algorithm))
			return false
		}
	}
	return true
}

// stillFor is how long the store must have been unchanged, and a tenant have been held, before a ring is
// made. A tenant that was just added may have a ring that was evicted without an entry in the log: its
// holders put it back within that time.
func (r *Rotator) stillFor() time.Duration {
	return max(2*r.k.times.Load().MaxPollGap(), r.k.cfg.Policy.HeardWithin())
}

// bootstrap makes the ring of a tenant that has none, unless a live instance is recovering: it may
// hold the ring, and be about to restore it.
func (r *Rotator) bootstrap(ctx context.Context, tenant string) error {
	if err := r.allHold(ctx, tenant, r.k.keks.Load().Primary()); err != nil {
		return err
	}
	live, err := r.roster(ctx, tenant, true)
	if err != nil {
		return err
	}
	for _, a := range live.Views {
		if a.GoodSince.IsZero() && a.Instance != r.k.cfg.Instance {
			return nil
		}
	}
	_, err = r.found(ctx, tenant, r.k.cfg.Policy, options{}, func(b *base, policy ring.Policy) (*protocol.Proposal, error) { return b.Bootstrap(policy) })
	switch {
	case errors.Is(err, ring.ErrRefused):
		return nil // another instance was first
	case err == nil:
		r.k.cfg.Logger.Warn("made the first ring of a tenant, because AllowBootstrap is set and the store has none", "tenant", tenant)
	}
	return err
}

// making returns the work of making the change of a ring that decide decides on.
func (r *Rotator) making(tenant string, decide decision) func(context.Context) error {
	return func(ctx context.Context) error {
		p, _, err := r.apply(ctx, tenant, r.base, decide)
		if p != nil && p.Op == ring.OpMint {
			r.k.cfg.Logger.Info("minted the next key", "tenant", tenant, "seq", p.Seq)
		}
		return err
	}
}
