package rotation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/internal/held"
	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/internal/synced"
	"github.com/keyturn/keyturn/rotation/ring"
)

// roster reads the acknowledgements of a tenant's bucket, of all instances or only of those that are
// live: they were there within Freshness.
func (r *Rotator) roster(ctx context.Context, tenant string, live bool) (held.Roster, error) {
	t := r.k.times.Load()
	ctx, cancel := context.WithTimeout(ctx, t.Deadline)
	defer cancel()
	raw, now, err := r.k.store.Acks(ctx, BucketOf(tenant))
	if err != nil {
		return held.Roster{}, inTenant(tenant, unavailable(err))
	}
	all := r.k.rings.Roster(BucketOf(tenant), raw)
	if live {
		all = all.Live(now, t.Fresh)
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
// most Freshness old, now or just before the change. Meanwhile this process restores the change if the
// store loses it, even with [Config.OneShot]. Give ctx a deadline: an instance that reads the ring
// again after the log was lost never says that it applied a change.
//
// A revocation or a shred also has to be confirmed by an instance that holds the ring. Until one has read it, a
// person who can write to the store can remove it, and all acknowledgements. If none confirms it
// within two polls although there are instances, or something else listens to the store, the error is
// [ring.ErrUnconfirmed]. Where nothing seems to run, a revocation is watched for a poll.
//
// The error is [ring.ErrUndone] if the store lost the change, even if it is back: find out who writes
// to the store. It wraps the error of ctx, or [keystore.ErrUnavailable] if nothing could be read.
func (r *Rotator) Await(ctx context.Context, receipt Receipt) ([]Ack, error) {
	w, begin, gap := protocol.NewWatch(receipt.Place.Nonce, receipt.endsTrust(), receipt.before, receipt.told), r.k.cfg.Now(), r.k.times.Load().MaxPollGap()
	for looked := false; ; {
		err := r.look(ctx, receipt, w)
		looked = looked || err == nil
		if err == nil {
			if done, unconfirmed := w.Done(r.k.cfg.Now().Sub(begin), gap); done {
				return w.Acks(), errors.Join(r.undone(receipt), unconfirmed)
			}
		}
		select {
		case <-ctx.Done():
			if looked {
				err = nil // ctx has ended during a look: the one before counts
			}
			return w.Acks(), errors.Join(r.undone(receipt), cmp.Or(w.Unfinished(receipt.Tenant, ctx.Err()), err))
		case <-r.k.rings.Done():
			return w.Acks(), unavailable(synced.ErrClosed)
		case <-time.After(awaitEvery):
		}
	}
}

// look restores what the store lost of the ring, and notes the live instances in w.
func (r *Rotator) look(ctx context.Context, receipt Receipt, w *protocol.Watch) error {
	unread := r.k.rings.Sync(ctx, receipt.Tenant, nil)
	live, err := r.roster(ctx, receipt.Tenant, true)
	if err != nil {
		return err
	}
	w.Look(live.Acks(receipt.Place.Nonce), r.k.cfg.Now(), r.k.times.Load().Fresh)
	if parts := (*ring.UnreadableError)(nil); receipt.endsTrust() && errors.As(unread, &parts) {
		return nil // a ring that is not whole takes revocations and a shred, and instances apply them
	}
	return unread
}

// undone returns an error if the store has lost something of the ring since the change was made.
func (r *Rotator) undone(receipt Receipt) error {
	tr := r.k.ring(receipt.Tenant)
	if tr == nil || tr.Losses.Load() == receipt.losses {
		return nil
	}
	return &ring.Error{Kind: ring.ErrUndone, Text: fmt.Sprintf("tenant %q", receipt.Tenant), Err: keystore.ErrUnavailable}
}
