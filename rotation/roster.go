package rotation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/internal/held"
	"github.com/keyturn/keyturn/rotation/ring"
)

// roster opens the acknowledgements of a bucket.
func (k *Keyring) roster(bucket int, raw []RawAck) held.Roster {
	return held.OpenAcks(k.keks.Load(), bucket, raw, func(instance string, err error) {
		k.raise(&k.alarms.forged, "an acknowledgement in the store is not authentic, and is ignored", "instance", instance, "bucket", bucket, "error", err)
	})
}

// roster reads the acknowledgements of a tenant's bucket, of all instances or only of those that are
// live: they were there within Freshness.
func (r *Rotator) roster(ctx context.Context, tenant string, live bool) (held.Roster, error) {
	t := r.k.times.Load()
	ctx, cancel := context.WithTimeout(ctx, t.deadline)
	defer cancel()
	raw, now, err := r.k.store.Acks(ctx, BucketOf(tenant))
	if err != nil {
		return held.Roster{}, inTenant(tenant, unavailable(err))
	}
	all := r.k.roster(BucketOf(tenant), raw)
	if live {
		all = all.Live(now, t.fresh)
	}
	return all, nil
}

// Acks returns the instances that have told the store how far they have read, and for each whether
// it has applied the change: it has opened the change's entry of the log, and merged the ring. An
// instance whose acknowledgement is old has ended without [Keyring.Close], or is cut off.
// Acknowledgements that are not authentic are left out.
func (r *Rotator) Acks(ctx context.Context, receipt Receipt) ([]Ack, error) {
	all, err := r.roster(ctx, receipt.Tenant, false)
	if err != nil {
		return nil, err
	}
	return all.Acks(receipt.Place.Nonce), nil
}

// awaitEvery is how often [Rotator.Await] looks at most.
const awaitEvery = 100 * time.Millisecond

// Await waits until every live instance has applied a change that this process made, and returns
// their acknowledgements. Live are the instances whose acknowledgement is at most Freshness old.
// Meanwhile this process holds the ring, even with [Config.OneShot]: it restores the change if the
// store loses it, by accident or by a person who can write to it.
//
// Give ctx a deadline: an instance that lost the log with the change never says that it applied it.
// The error is [ring.ErrUndone] if that has happened, even if all instances have applied the change
// since: find out who writes to the store. It wraps the error of ctx if ctx ends first, and
// [keystore.ErrUnavailable] if the acknowledgements cannot be read. The acknowledgements are valid
// beside an error, as far as they could be read.
func (r *Rotator) Await(ctx context.Context, receipt Receipt) ([]Ack, error) {
	seen := make(map[string]Ack)
	for last := []string(nil); ; {
		waiting, err := r.notApplied(ctx, receipt, seen)
		if err != nil && ctx.Err() != nil && last != nil {
			waiting, err = last, nil // ctx has ended during a look: the one before counts
		}
		last = waiting
		acks := slices.SortedFunc(maps.Values(seen), func(a, b Ack) int { return strings.Compare(a.Instance, b.Instance) })
		if err == nil && len(waiting) == 0 {
			return acks, r.undone(receipt)
		}
		select {
		case <-ctx.Done():
			late := &ring.Error{Text: fmt.Sprintf("tenant %q: the change is made, but these instances have not applied it yet: %s", receipt.Tenant, strings.Join(waiting, ", ")), Err: ctx.Err()}
			return acks, errors.Join(r.undone(receipt), cmp.Or(err, error(late)))
		case <-r.k.done:
			return acks, unavailable(errClosed)
		case <-time.After(awaitEvery):
		}
	}
}

// notApplied restores what the store lost of the ring, notes the live instances in seen, and returns
// those of them that have not applied the change. An instance that was seen stays until it is no
// longer live: a person who can write to the store could remove its acknowledgement.
func (r *Rotator) notApplied(ctx context.Context, receipt Receipt, seen map[string]Ack) (waiting []string, err error) {
	if err := r.k.sync(ctx, receipt.Tenant, ring.Facts{}); err != nil {
		return nil, inTenant(receipt.Tenant, unavailable(err))
	}
	live, err := r.roster(ctx, receipt.Tenant, true)
	if err != nil {
		return nil, err
	}
	for _, a := range live.Acks(receipt.Place.Nonce) {
		seen[a.Instance] = a
	}
	now, fresh := r.k.cfg.Now(), r.k.times.Load().fresh
	for _, name := range slices.Sorted(maps.Keys(seen)) {
		switch a := seen[name]; {
		case now.Sub(a.At) > fresh:
			delete(seen, name)
		case !a.Applied && !receipt.CommittedAt.IsZero():
			waiting = append(waiting, name)
		}
	}
	return waiting, nil
}

// undone returns an error if the store has lost something of the ring since the change was made.
func (r *Rotator) undone(receipt Receipt) error {
	tr := r.k.ring(receipt.Tenant)
	if tr == nil || tr.losses.Load() == receipt.losses {
		return nil
	}
	return &ring.Error{Kind: ring.ErrUndone, Text: fmt.Sprintf("tenant %q", receipt.Tenant), Err: keystore.ErrUnavailable}
}
