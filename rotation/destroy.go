package rotation

import (
	"context"
	"errors"

	"github.com/keyturn/keyturn/rotation/internal/held"
	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
)

// Again makes [Rotator.Create] give a name whose ring was destroyed another one.
func Again(o *options) { o.again = true }

// Destroy destroys a tenant's ring, and cannot be undone. One change removes its keys, and states that
// the ring was destroyed: every instance in reach refuses its tokens from its next nudge or poll on, live
// ones too, as those of an unknown key. No instance, dump or backup brings a key back. The name stays
// taken: [Rotator.Create] refuses it without [Again]. Destroying a ring again removes what has come
// back of it since, and changes nothing if that is nothing.
//
// It is not an erasure. Backups, dumps and snapshots of before still hold the keys, sealed, and the
// KEKs open them.
//
// A ring of which a field cannot be opened is destroyed too. It takes [Force] if nothing can be opened,
// since the KEKs of this process may be those of another service, and if the fact that the ring was
// destroyed before is under an unknown KEK or by a newer keyturn. WorstCase of the Receipt is
// the time until which an instance that is cut off may accept tokens. With [DryRun] nothing is
// changed, and the Receipt says what would be.
func (r *Rotator) Destroy(ctx context.Context, tenant string, opts ...Option) (Receipt, error) {
	o := optionsOf(opts)
	var before Receipt
	read := func(ctx context.Context, tenant string) (*base, error) {
		b, err := r.base(ctx, tenant)
		if parts := (*ring.UnreadableError)(nil); errors.As(err, &parts) {
			return r.garbled(ctx, parts, o.force)
		}
		return b, err
	}
	p, receipt, err := r.change(ctx, tenant, read, func(b *base) (*protocol.Proposal, error) {
		b.SealedUnder = held.UnderKEKs(b.fields)
		p, err := b.Destroy()
		before = Receipt{Tenant: tenant, DestroyedAt: b.Copy.Facts.DeadAt}
		before.WorstCase, before.ReadersUntil = b.Copy.WorstCaseOfAll(b.Now)
		if p != nil {
			p.LeaveHead = b.leaveHead
		}
		if o.dryRun {
			p = nil
		}
		return p, err
	})
	if err != nil || p == nil {
		return before, err
	}
	receipt.WorstCase, receipt.ReadersUntil = before.WorstCase, before.ReadersUntil
	if receipt.DestroyedAt.IsZero() {
		receipt.DestroyedAt = before.DestroyedAt // it was destroyed before
	}
	return receipt, nil
}

// garbled reads a ring of which a field cannot be opened, to destroy it. If that is the fact that the ring
// was destroyed, its records say how many of its lives have ended, and so may this instance. Forged bytes
// there hide no more than their removal would. But bytes that may be authentic are only overwritten by
// force.
func (r *Rotator) garbled(ctx context.Context, parts *ring.UnreadableError, force bool) (*base, error) {
	mayBeNewer := func(field string) bool {
		err := parts.Failed[field]
		return errors.Is(err, seal.ErrWrongKEK) || errors.Is(err, seal.ErrNewer)
	}
	if mayBeNewer(seal.FieldDead) && !force {
		return nil, &ring.RefusedError{Tenant: parts.Tenant, Reason: "it cannot be opened how often its ring was destroyed before; force it if the KEKs of this process are right"}
	}
	b, err := r.unwhole(ctx, parts.Tenant, force)
	if b == nil {
		return nil, err
	}
	if b.leaveHead = mayBeNewer(seal.FieldHead); b.mine != nil {
		b.Copy = b.Copy.Learn(b.mine.Facts)
	}
	return b, err
}

// endsTrust reports whether the change of a receipt ends the trust in a key, or in all of a ring.
func (r *Receipt) endsTrust() bool { return r.Revoked != "" || !r.DestroyedAt.IsZero() }
