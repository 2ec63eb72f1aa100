package rotation

import (
	"context"
	"errors"

	"github.com/keyturn/keyturn/rotation/internal/held"
	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/ring"
)

// Restore merges a ring of a backup into the store: saved is what the store had of the tenant, at
// saved.Now. It removes nothing, and writes over nothing that can be opened. What was revoked, collected
// or destroyed since stays so; a revocation that neither the store nor the backup has is lost.
//
// It is refused ([ErrRefused]) if a live instance lacks the KEK of the ring. Of a backup older than 30
// days only revocations, the destruction and collections are taken; [Force] takes its keys too. With
// [DryRun] it only reports. CommittedAt of the Receipt is zero if nothing was changed.
func (r *Rotator) Restore(ctx context.Context, tenant string, saved Snapshot, opts ...Option) (report ring.Restored, receipt Receipt, err error) {
	o := optionsOf(opts)
	_, receipt, err = r.apply(ctx, tenant, func(ctx context.Context, tenant string) (*base, error) {
		b, err := r.load(ctx, tenant, true)
		if parts := (*ring.UnreadableError)(nil); errors.As(err, &parts) {
			return r.unwhole(ctx, tenant, true)
		}
		return b, err
	}, func(b *base) (*protocol.Proposal, error) {
		in := held.Restore{KEKs: b.keks, Tenant: tenant, Saved: saved, Stored: b.fields, Older: o.force, Now: b.read, Sent: b.sent, Received: b.received, Deadline: b.Deadline}
		d, err := in.Decide()
		if err != nil {
			return nil, inTenant(tenant, err)
		}
		report, b.have, b.Copy, b.under = d.Report, d.Have, d.Have.Copy, d.Under
		if d.Change == nil || o.dryRun {
			return nil, nil
		}
		// A command restores a hundred thousand rings, so each call of the store counts.
		if b.untold = r.k.cfg.OneShot; b.asked && b.unasked == nil {
			return d.Change, allHold(tenant, b.under, b.roster)
		}
		return d.Change, r.allHold(ctx, tenant, b.under)
	})
	return report, receipt, err
}
