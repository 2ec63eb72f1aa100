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
// A ring of which a field cannot be opened is destroyed too, but one of which nothing can be opened only
// with [Force]: the KEKs of this process may be those of another service. WorstCase of the Receipt is
// the time until which an instance that is cut off may accept tokens. With [DryRun] nothing is
// changed, and the Receipt says what would be.
func (r *Rotator) Destroy(ctx context.Context, tenant string, opts ...Option) (Receipt, error) {
	o := optionsOf(opts)
	var before Receipt
	read := func(ctx context.Context, tenant string) (*base, error) {
		b, err := r.base(ctx, tenant)
		parts := (*ring.UnreadableError)(nil)
		if !errors.As(err, &parts) || parts.Failed[seal.FieldDead] != nil {
			return b, err // what says how many lives have ended must be known
		}
		head := parts.Failed[seal.FieldHead]
		if b, err = r.unwhole(ctx, tenant, o.force); b != nil {
			b.leaveHead = errors.Is(head, seal.ErrWrongKEK) || errors.Is(head, seal.ErrNewer)
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

// endsTrust reports whether the change of a receipt ends the trust in a key, or in all of a ring.
func (r *Receipt) endsTrust() bool { return r.Revoked != "" || !r.DestroyedAt.IsZero() }
