package rotation

import (
	"context"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/internal/synced"
	"github.com/keyturn/keyturn/rotation/ring"
)

// Accept lets keys of others verify a tenant's tokens until a date, at most [ring.MaxAccept] ahead: a
// partner's, or one from before the ring. They sign nothing, have no place in the order of the ring's
// keys, and are in no JWK Set. The tenant need not have a ring. A later date for the same key extends
// the time. [Rotator.Revoke] ends it before that, for every instance and for ever.
//
// It is refused ([ErrRefused]) for a kid that was revoked or that another key has, for an earlier date,
// and if too many keys would be accepted: see the constants of package ring. A key whose tokens have no
// kid is known again by its material, also long after it was revoked. That does not hold for a key that
// the ring began with: its material goes when the key is collected. Receipt.Accepted has the kids by which
// the keys are listed and revoked. Receipt.CommittedAt is zero if all keys were accepted until that date
// already, and with [DryRun].
func (r *Rotator) Accept(ctx context.Context, tenant string, keys []ring.ForeignKey, until time.Time, opts ...Option) (Receipt, error) {
	if !synced.IsTenant(tenant) {
		return Receipt{}, &ring.Error{Text: fmt.Sprintf("a tenant of %d bytes: want 1 to %d, in UTF-8", len(tenant), ring.MaxTenantBytes)}
	}
	var foreign []*seal.ForeignKey
	for i, key := range keys {
		f, err := seal.NewForeignKey(key)
		if err != nil {
			return Receipt{}, &ring.Error{Text: fmt.Sprintf("key %d of %d cannot be accepted", i+1, len(keys)), Err: err}
		}
		foreign = append(foreign, f)
	}
	var kids []string
	read := func(ctx context.Context, tenant string) (*base, error) {
		return r.load(ctx, tenant, r.k.ring(tenant) == nil)
	}
	_, receipt, err := r.change(ctx, tenant, read, func(b *base) (*protocol.Proposal, error) {
		if b.Copy.NewestKeyID() == "" { // the change makes the tenant's first tenant key
			if err := r.allHold(ctx, tenant, b.keks.Primary()); err != nil {
				return nil, err
			}
		}
		b.foreign, b.dryRun, kids = foreign, optionsOf(opts).dryRun, nil
		requests := make([]protocol.AcceptRequest, len(foreign))
		for i, f := range foreign {
			requests[i] = b.have.Request(b.keks, f)
			kids = append(kids, f.KID)
		}
		return b.Accept(requests, protocol.WholeMillis(until))
	})
	if err == nil {
		receipt.Tenant, receipt.Accepted = tenant, kids
	}
	return receipt, err
}
