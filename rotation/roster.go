package rotation

import (
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
// their acknowledgements, beside an error too. Live are the instances whose acknowledgement is at
// most Freshness old. Meanwhile this process restores the change if the store loses it, even with
// [Config.OneShot]. Where no instance seems to be live, it watches a revocation for a poll: someone
// may have removed what they say. Give ctx a deadline: an instance that reads the ring again after
// the log was lost never says that it applied a change.
//
// The error is [ring.ErrUndone] if the store lost the change, even if it is back: find out who writes
// to the store. It wraps the error of ctx, or [keystore.ErrUnavailable] if nothing could be read.
func (r *Rotator) Await(ctx context.Context, receipt Receipt) ([]Ack, error) {
	seen, alone := make(map[string]Ack), r.k.cfg.Now().Add(r.k.times.Load().maxPollGap())
	var waiting []string
	for looked := false; ; {
		err := r.notApplied(ctx, receipt, seen, &waiting)
		looked = looked || err == nil
		acks := slices.SortedFunc(maps.Values(seen), func(a, b Ack) int { return strings.Compare(a.Instance, b.Instance) })
		if err == nil && len(waiting) == 0 && (len(seen) > 0 || receipt.CommittedAt.IsZero() || receipt.RevokedAt.IsZero() || r.k.cfg.Now().After(alone)) {
			return acks, r.undone(receipt)
		}
		select {
		case <-ctx.Done():
			if looked {
				err = nil // ctx has ended during a look: the one before counts
			}
			if len(waiting) > 0 {
				err = &ring.Error{Text: fmt.Sprintf("tenant %q: the change is made, but these instances have not applied it yet: %s", receipt.Tenant, strings.Join(waiting, ", ")), Err: ctx.Err()}
			}
			return acks, errors.Join(r.undone(receipt), err)
		case <-r.k.done:
			return acks, unavailable(errClosed)
		case <-time.After(awaitEvery):
		}
	}
}

// notApplied restores what the store lost of the ring, notes the live instances in seen, and sets
// waiting to those that have not applied the change. An instance that was seen stays until it is no
// longer live: a person who can write to the store could remove its acknowledgement.
func (r *Rotator) notApplied(ctx context.Context, receipt Receipt, seen map[string]Ack, waiting *[]string) error {
	unread := r.k.sync(ctx, receipt.Tenant, ring.Facts{}) // such as a ring that is not whole
	live, err := r.roster(ctx, receipt.Tenant, true)
	if err != nil {
		return err
	}
	for _, a := range live.Acks(receipt.Place.Nonce) {
		seen[a.Instance] = a
	}
	*waiting = nil
	for _, name := range slices.Sorted(maps.Keys(seen)) {
		switch a := seen[name]; {
		case r.k.cfg.Now().Sub(a.At) > r.k.times.Load().fresh:
			delete(seen, name)
		case !a.Applied && !receipt.CommittedAt.IsZero():
			*waiting = append(*waiting, name)
		}
	}
	return unread
}

// undone returns an error if the store has lost something of the ring since the change was made.
func (r *Rotator) undone(receipt Receipt) error {
	tr := r.k.ring(receipt.Tenant)
	if tr == nil || tr.losses.Load() == receipt.losses {
		return nil
	}
	return &ring.Error{Kind: ring.ErrUndone, Text: fmt.Sprintf("tenant %q", receipt.Tenant), Err: keystore.ErrUnavailable}
}
