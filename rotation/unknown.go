package rotation

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/internal/synced"
	"github.com/keyturn/keyturn/rotation/ring"
)

// Refresh implements keystore.Refresher: it syncs the tenant's ring because a token names a key
// that [Keyring.Lookup] does not find. It returns nil if the key is there now. It waits for 2s at
// most, or until ctx ends. A token without kid names none, and no key that Lookup found verifies it:
// then the answer is that there is no news, and what the sync has brought is in the next Lookup.
//
// Requests for one tenant share a sync. Unknown kids of a tenant cause at most three syncs at once
// and then one a second, those of all tenants 256 and then 100 a second. A kid that was not there
// is remembered for 5s. Beyond that Refresh answers from memory, and so it does for a key that is
// known to be revoked. Its errors wrap [keystore.ErrNotFound] or [keystore.ErrUnavailable], as
// those of Lookup do. It is ErrUnavailable too if 4096 requests wait already, or if nothing can be
// asked now and the last sync failed.
func (k *Keyring) Refresh(ctx context.Context, id keystore.ID) error {
	if err := ctx.Err(); err != nil {
		return &ring.Error{Text: id.String(), Err: unavailable(err)}
	}
	r := k.ring(id.Tenant)
	if r == nil && !k.holdsAll() || len(id.KID) > keystore.MaxKIDBytes || len(id.Tenant) > ring.MaxTenantBytes {
		return &ring.Error{Text: id.String(), Err: keystore.ErrNotFound}
	}
	now, status := k.cfg.Now(), r.SyncStatus()
	switch {
	case k.holds(r, id, now):
		return nil
	case r != nil && r.Copy().Revoked(id.KID):
		return &ring.Error{Text: id.String(), Err: keystore.ErrRevoked} // the store cannot say otherwise
	case r != nil && r.Copy().Buried(id.KID):
		return &ring.Error{Text: id.String(), Err: keystore.ErrNotFound}
	}
	a := k.rings.AskUnknown(r, id, now)
	switch {
	case a == nil && status != nil && status.Err != nil:
		// The token may be good: its key may have become known while the store could not be read.
		return &ring.Error{Text: id.String(), Err: unavailable(status.Err)}
	case a == nil:
		return k.absent(r, status, id, now)
	}
	if err := k.rings.AwaitUnknown(ctx, a); err != nil {
		return &ring.Error{Text: id.String(), Err: unavailable(err)}
	}
	r = k.ring(id.Tenant)
	status = r.SyncStatus()
	if k.holds(r, id, k.cfg.Now()) {
		return nil
	}
	k.rings.RememberUnknown(id, k.cfg.Now())
	return k.absent(r, status, id, k.cfg.Now())
}

// holds reports whether the copy of r has a usable key of that kid. r may be nil.
func (k *Keyring) holds(r *synced.Ring, id keystore.ID, now time.Time) bool {
	return r != nil && r.Copy().Verifies(id.KID, now)
}

// absent returns the error for a key that is not there. r may be nil.
func (k *Keyring) absent(r *synced.Ring, status *synced.Status, id keystore.ID, now time.Time) error {
	if r == nil {
		return k.missingRing(id.Tenant)
	}
	if !r.Known() {
		return unknownRing(id.Tenant, status)
	}
	return k.missing(id, status, now)
}
