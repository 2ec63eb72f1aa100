package synced

import (
	"context"
	"errors"
	"time"
)

// This file has the tenants that come and go while Rings are in use.

// Add adds tenants, and waits until their rings were read. Those that are held are read again.
func (k *Rings) Add(ctx context.Context, tenants []string) error {
	asks := make([]*Pending, len(tenants))
	for i, tenant := range tenants {
		asks[i] = k.loop.request(tenant, nil, func() { k.addLater(tenant) })
	}
	var errs []error
	for i, a := range asks {
		if err := k.await(ctx, a); err != nil {
			errs = append(errs, InTenant(tenants[i], err))
		}
	}
	return errors.Join(errs...)
}

// addLater adds a tenant for [Rings.Add]. Only the loop calls it.
func (k *Rings) addLater(tenant string) {
	switch {
	case k.Ring(tenant) != nil:
	case k.cfg.OneShot:
		k.addRing(tenant, time.Time{}) // it trusts what it reads first
	default:
		k.addRing(tenant, k.cfg.Now())
	}
}

// Remove forgets tenants. When it returns, no key of theirs verifies anything any more, not even a token
// that a verifier has cached. It does not wait for the loop, which may be reading one of their rings.
func (k *Rings) Remove(tenants []string) {
	var gone []*Ring
	k.mu.Lock()
	for _, tenant := range tenants {
		if r := k.rings[tenant]; r != nil {
			r.removed.Store(true)
			r.bucket.gone.Add(1)
			delete(k.rings, tenant)
			gone = append(gone, r)
		}
	}
	k.mu.Unlock()
	for _, r := range gone {
		r.Copy().WithdrawAll()
		k.loop.nudge(r.bucket.index) // so that the loop forgets it
	}
}

// dropRemoved forgets the rings that were removed. Only the loop calls it.
func dropRemoved(buckets []*Bucket) {
	for _, b := range buckets {
		if n := b.gone.Load(); n > 0 { // one that is removed now may be forgotten now, and is counted then
			b.forget(func(r *Ring) bool { return r.removed.Load() })
			b.gone.Add(-n)
		}
	}
}

// certainOf returns the status of r in a bucket with that status. A ring that was added to a bucket
// long in sync may just have been edited without an entry in the log. Its holders notice that within
// Freshness, and until then a key that is missing may exist.
func (r *Ring) certainOf(status *Status) *Status {
	from := r.certainFrom()
	if !from.After(status.Certain) || !from.After(status.Complete) {
		return status
	}
	own := *status
	own.Certain = from
	return &own
}

// certainFrom is when every holder of a ring that was added has noticed an edit of before, or zero.
func (r *Ring) certainFrom() time.Time {
	if r.added == nil {
		return time.Time{}
	}
	fresh := r.bucket.fresh
	if p, ok := r.policy(); ok {
		fresh = max(fresh, p.Freshness)
	}
	return r.added.Add(fresh)
}
