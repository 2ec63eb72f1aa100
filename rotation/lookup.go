package rotation

import (
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

// Lookup implements keystore.KeyStore, from memory. It returns the key of id.KID, pending and retired
// keys included, and an accepted key of that kid; or for an empty KID those whose tokens have none, at
// most [keystore.MaxCandidates]. [Rotator.Accept] accepts keys.
//
// The error wraps [keystore.ErrNotFound] if the key does not exist or is not for alg,
// [keystore.ErrRevoked] if it was revoked, and [keystore.ErrUnavailable] if the instance cannot tell:
// it is out of sync, recovering, or has not read the ring. A missing key counts as such only while
// the instance is in sync. So a store that is away makes no good token look bad (invariant I1). A key
// that a ring has made, and that was destroyed while this process held it, is not found, whether or not it
// is in sync.
func (k *Keyring) Lookup(id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
	now := k.cfg.Now()
	r := k.ring(id.Tenant)
	if r == nil {
		return nil, k.missingRing(id.Tenant)
	}
	status, c := r.SyncStatus(), r.For(id.KID) // in this order: see synced.Ring
	if c == nil || !c.HasKeys() && !c.Plan.Dead {
		return nil, unknownRing(id.Tenant, status)
	}
	if id.KID == "" {
		if keys, err := c.WithoutKID(k.keks.Load(), id, alg, now); len(keys) > 0 || err != nil {
			return keys, err
		}
		// Also if the ring was destroyed: the next one may begin with a key whose tokens have no kid.
		return nil, k.missing(id, status, now)
	}
	switch {
	case c.Revoked(id.KID): // even if its record was collected
		return nil, &ring.Error{Text: id.String(), Err: keystore.ErrRevoked}
	case c.Buried(id.KID):
		return nil, &ring.Error{Text: id.String(), Err: keystore.ErrNotFound}
	}
	switch keys, found, err := c.WithKID(k.keks.Load(), id.KID, alg, now); {
	case err != nil:
		return nil, &ring.Error{Text: fmt.Sprintf("the key of %v cannot be opened", id), Err: unavailable(err)}
	case found == held.Found:
		return keys, nil
	case found == held.Stale:
		return nil, outOfStep(id, status)
	case found == held.OtherAlgorithm:
		return nil, &ring.Error{Text: id.String(), Err: keystore.ErrNotFound}
	}
	return nil, k.missing(id, status, now)
}

// Unsure returns why Lookup may lack keys although it returned some, or nil: see [keystore.KeyStore]. While this
// instance is out of sync there may be another key whose tokens have no kid, or a kid that others have chosen. And
// it may hold one that it is out of step for. It does no I/O.
func (k *Keyring) Unsure(id keystore.ID, alg keystore.Algorithm) error {
	now := k.cfg.Now()
	r := k.ring(id.Tenant)
	if r == nil {
		return nil // it was removed meanwhile
	}
	status, c := r.SyncStatus(), r.For(id.KID)
	switch {
	case c == nil || c.Alone(id.KID):
		return nil
	case c.TooOldFor(id.KID, alg, now):
		return outOfStep(id, status)
	}
	if err := k.missing(id, status, now); !errors.Is(err, keystore.ErrNotFound) {
		return err
	}
	return nil
}

// Alone returns true: a keyring answers for no other store, so a cached token needs to ask its key alone.
func (k *Keyring) Alone() bool { return true }

// outOfStep returns the error for a key that the copy has, and is too old to use.
func outOfStep(id keystore.ID, status *synced.Status) error {
	return &ring.Error{Text: fmt.Sprintf("%v: out of step for longer than its tokens live", id), Err: unavailable(status.Err)}
}

// missing returns the error for a key that the copy lacks. Before Certain it is not an ErrNotFound
// even in sync: an instance that vouches needs up to Freshness to notice an edited ring.
func (k *Keyring) missing(id keystore.ID, status *synced.Status, now time.Time) error {
	if status.InSync(now, k.times.Load().Fresh) && !now.Before(status.Certain) {
		return &ring.Error{Text: id.String(), Err: keystore.ErrNotFound}
	}
	return &ring.Error{Text: id.String(), Err: unavailable(status.Err)}
}

// missingRing returns the error for a tenant whose ring is not held. If the keyring holds all
// tenants, the next poll may bring the ring.
func (k *Keyring) missingRing(tenant string) error {
	if k.holdsAll() {
		return &ring.Error{Text: fmt.Sprintf("no ring of tenant %q is known", tenant), Err: keystore.ErrUnavailable}
	}
	return &ring.Error{Text: fmt.Sprintf("this keyring does not hold tenant %q", tenant), Err: keystore.ErrNotFound}
}

// unknownRing returns the error for a tenant that is held, but of whose ring no record is known.
func unknownRing(tenant string, status *synced.Status) error {
	return &ring.Error{Text: fmt.Sprintf("no ring of tenant %q is known", tenant), Err: unavailable(status.Err)}
}

// notHeld returns the error for a tenant that has to be held in order to sign, or to be reported on.
func notHeld(tenant string) error {
	return &ring.Error{Text: fmt.Sprintf("this keyring holds no ring of tenant %q", tenant), Err: keystore.ErrNotFound}
}

// Serves reports whether the keyring holds a ring of tenant, or [Config.Tenants] names it.
func (k *Keyring) Serves(tenant string) bool {
	r := k.ring(tenant)
	return r != nil && (!k.holdsAll() || r.Known())
}

// MaxLeeway returns the most leeway with which tokens of tenant may be verified, the least Leeway
// of its records: its keys are kept for no longer. It returns [ring.MaxDuration] if none is known.
func (k *Keyring) MaxLeeway(tenant string) time.Duration {
	least := time.Duration(-1)
	if r := k.ring(tenant); r != nil {
		if c := r.Copy(); c != nil {
			for _, rec := range c.Records {
				if least < 0 || rec.Timing.Leeway < least {
					least = rec.Timing.Leeway
				}
			}
		}
	}
	if least < 0 {
		return ring.MaxDuration // nothing is known of it yet
	}
	return least
}

// CanServe returns true: a change of the policy can bring keys of every algorithm.
func (k *Keyring) CanServe(string, keystore.Algorithm) bool { return true }

// signingKey returns the record whose key signs for tenant at t, and its copy. The error wraps
// [ErrFenced], [ErrNoSigner], or [keystore.ErrNotFound] if the tenant's ring is not held.
func (k *Keyring) signingKey(tenant string, t time.Time) (*held.Ring, *held.Record, error) {
	r := k.ring(tenant)
	if r == nil {
		return nil, nil, notHeld(tenant)
	}
	status, c := r.SyncStatus(), r.Live() // in this order: see synced.Ring
	if c.Newest() == nil {
		why := "no ring is known"
		if c != nil && c.Plan.Dead {
			why = "its ring was destroyed"
		}
		return nil, nil, inTenant(tenant, &ring.Error{Kind: ErrNoSigner, Text: why})
	}
	signer, err := c.Signing(t, status.Good, k.times.Load().Deadline)
	if err != nil {
		return nil, nil, &ring.Error{Text: fmt.Sprintf("tenant %q", tenant), Err: err, Also: status.Err}
	}
	return c, c.Find(signer.KID), nil
}

// PublicKeys implements middleware.PublicKeySource: it returns the public keys of tenant's ring,
// pending keys included, and how long others may cache them, in whole seconds. It does not wait for
// the store.
//
// The error wraps [keystore.ErrNotFound] if the ring is for HS*, which has no public keys, or was
// destroyed, or the tenant is not held. It wraps [keystore.ErrUnavailable] if the last good sync is older than
// SignFor, or no ring is known yet. Readers then keep the set that they have.
func (k *Keyring) PublicKeys(_ context.Context, tenant string) (keys []*keystore.Key, maxAge time.Duration, err error) {
	now := k.cfg.Now()
	r := k.ring(tenant)
	if r == nil {
		return nil, 0, k.missingRing(tenant)
	}
	status, c := r.SyncStatus(), r.Copy()
	newest := c.Newest()
	switch {
	case newest == nil && c != nil && c.Plan.Dead:
		return nil, 0, k.missing(keystore.ID{Tenant: tenant}, status, now)
	case newest == nil:
		return nil, 0, unknownRing(tenant, status)
	case status.Good.IsZero() || protocol.Age(now, status.Good) > newest.Timing.SignFor:
		return nil, 0, &ring.Error{Text: fmt.Sprintf("the ring of tenant %q is out of step", tenant), Err: unavailable(status.Err)}
	}
	if !newest.Algorithm.Symmetric() {
		c = r.Live()
	}
	if keys, err = c.PublicKeys(k.keks.Load(), now); err != nil {
		return nil, 0, inTenant(tenant, unavailable(err))
	}
	if len(keys) == 0 && newest.Algorithm.Symmetric() {
		return nil, 0, &ring.Error{Text: fmt.Sprintf("tenant %q signs with %s: a secret is not published", tenant, newest.Algorithm), Err: keystore.ErrNotFound}
	}
	return keys, c.CacheFor(protocol.Age(now, status.Good)), nil
}
