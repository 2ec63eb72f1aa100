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
	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
)

// openAcks returns the acknowledgements of a bucket as the protocol takes them. It leaves out those
// that are not authentic, and raises an alarm: anyone who can write to the store can write one. One
// under a KEK that this instance lacks may be an instance's own word, so it stays, as Unreadable.
// names has the KEKs of the acknowledgements as people know them.
func (k *Keyring) openAcks(bucket int, raw []RawAck) (acks []protocol.AckView, names map[string]string) {
	keks := k.keks.Load()
	names = make(map[string]string)
	for _, r := range raw {
		a, err := seal.OpenAck(keks, r.Instance, bucket, r.Sealed)
		switch {
		case err == nil:
			view := protocol.AckView{Instance: r.Instance, At: a.At, GoodSince: a.GoodSince, Applied: a.Applied, Ends: a.Ends}
			for _, name := range a.KEKs {
				view.KEKs = append(view.KEKs, held.KEK(name))
				names[held.KEK(name)] = name.String()
			}
			acks = append(acks, view)
		case errors.Is(err, seal.ErrWrongKEK), errors.Is(err, seal.ErrNewer):
			acks = append(acks, protocol.AckView{Instance: r.Instance, At: r.At(), Unreadable: true})
		default:
			k.raise(&k.alarms.forged, "an acknowledgement in the store is not authentic, and is ignored", "instance", r.Instance, "bucket", bucket, "error", err)
		}
	}
	return acks, names
}

// A roster is the acknowledgements of a bucket at one moment.
type roster struct {
	views []protocol.AckView
	names map[string]string // of the KEKs, for people
}

// roster reads the acknowledgements of a tenant's bucket, of all instances or only of those that are
// live: they were there within Freshness.
func (r *Rotator) roster(ctx context.Context, tenant string, live bool) (roster, error) {
	t := r.k.times.Load()
	ctx, cancel := context.WithTimeout(ctx, t.deadline)
	defer cancel()
	bucket := BucketOf(tenant)
	raw, now, err := r.k.store.Acks(ctx, bucket)
	if err != nil {
		return roster{}, inTenant(tenant, unavailable(err))
	}
	views, names := r.k.openAcks(bucket, raw)
	if live {
		views = protocol.Live(views, now, t.fresh)
	}
	return roster{views, names}, nil
}

// Acks returns the instances that have told the store how far they have read, and for each whether
// it has applied the change: it has opened the change's entry of the log, and merged the ring. An
// instance whose acknowledgement is old has ended without [Keyring.Close], or is cut off.
// Acknowledgements that are not authentic are left out.
func (r *Rotator) Acks(ctx context.Context, receipt Receipt) ([]Ack, error) {
	all, err := r.roster(ctx, receipt.Tenant, false)
	return all.of(receipt), err
}

// of returns the acknowledgements as a user sees them, for one change.
func (all roster) of(receipt Receipt) []Ack {
	acks := make([]Ack, len(all.views))
	for i, v := range all.views {
		acks[i] = Ack{Instance: v.Instance, At: v.At, GoodSince: v.GoodSince,
			Applied: receipt.Place.Nonce != "" && slices.Contains(v.Applied, receipt.Place.Nonce)}
		for _, kek := range v.KEKs {
			acks[i].KEKs = append(acks[i].KEKs, all.names[kek])
		}
	}
	return acks
}

// awaitEvery is how often [Rotator.Await] looks at most.
const awaitEvery = 100 * time.Millisecond

// Await waits until every live instance has applied a change that this process made, and returns
// their acknowledgements. Live are the instances whose acknowledgement is at most Freshness old.
// Meanwhile this process holds the ring, even with [Config.OneShot]: it restores the change if the
// store loses it, by accident or by a person who can write to it.
//
// The error is [ring.ErrUndone] if that has happened, even if all instances have applied the change
// since: find out who writes to the store. It wraps the error of ctx if ctx ends first, and
// [keystore.ErrUnavailable] if the acknowledgements cannot be read. The acknowledgements are valid
// beside an error, as far as they could be read.
func (r *Rotator) Await(ctx context.Context, receipt Receipt) ([]Ack, error) {
	seen := make(map[string]Ack)
	for {
		waiting, err := r.notApplied(ctx, receipt, seen)
		acks := slices.SortedFunc(maps.Values(seen), func(a, b Ack) int { return strings.Compare(a.Instance, b.Instance) })
		if err == nil && len(waiting) == 0 {
			return acks, r.undone(receipt)
		}
		select {
		case <-ctx.Done():
			if err == nil {
				err = &ring.Error{Text: fmt.Sprintf("tenant %q: the change is made, but these instances have not applied it yet: %s", receipt.Tenant, strings.Join(waiting, ", ")), Err: ctx.Err()}
			}
			return acks, errors.Join(r.undone(receipt), err)
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
	for _, a := range live.of(receipt) {
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
