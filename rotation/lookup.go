package rotation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/ring"
)

// Lookup implements keystore.KeyStore. A missing key is ErrNotFound only while the
// instance is in sync within Freshness. Otherwise it is ErrUnavailable.
func (k *Keyring) Lookup(id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
	now := k.cfg.Now()
	r := k.ring(id.Tenant)
	if r == nil {
		return nil, k.missingRing(id.Tenant)
	}
	step, h := r.step.Load(), r.state.Load() // in this order: the copy is not older than its status
	if h == nil || len(h.Records) == 0 && !h.Plan.Dead {
		return nil, &ring.Error{Text: fmt.Sprintf("no ring of tenant %q is known", id.Tenant), Err: cannotTell(step.err)}
	}
	if id.KID == "" {
		if keys := h.withoutKID(alg, now); len(keys) > 0 {
			return keys, nil
		}
		return nil, k.missing(id, step, now)
	}
	rec := h.find(id.KID)
	if rec == nil {
		return nil, k.missing(id, step, now)
	}
	planned := h.PlanOf(rec.Record.Record)
	switch {
	case rec.Algorithm != alg, !planned.RevokedAt.IsZero():
		return nil, &ring.Error{Text: id.String(), Err: keystore.ErrNotFound}
	case planned.Dropped(now):
		return nil, k.missing(id, step, now)
	case !rec.key.Usable(now):
		return nil, &ring.Error{Text: fmt.Sprintf("%v: out of step for longer than its tokens live", id), Err: cannotTell(step.err)}
	}
	return rec.only, nil
}

// withoutKID returns the keys whose tokens have no kid.
func (h *ringCopy) withoutKID(alg keystore.Algorithm, now time.Time) []*keystore.Key {
	var keys []*keystore.Key
	for _, r := range h.sealed {
		if r.NoKID && r.Algorithm == alg && r.key.Usable(now) {
			keys = append(keys, r.key)
		}
	}
	if len(keys) > keystore.MaxCandidates {
		return nil
	}
	return keys
}

// missing returns the error for a missing key: it does not exist, or this instance cannot tell.
func (k *Keyring) missing(id keystore.ID, step *syncStatus, now time.Time) error {
	if step.fresh(now, k.times.Load().fresh) && !now.Before(step.Certain) {
		return &ring.Error{Text: id.String(), Err: keystore.ErrNotFound}
	}
	return &ring.Error{Text: id.String(), Err: cannotTell(step.err)}
}

func (k *Keyring) missingRing(tenant string) error {
	if k.holdsAll() {
		return &ring.Error{Text: fmt.Sprintf("no ring of tenant %q is known", tenant), Err: keystore.ErrUnavailable}
	}
	return &ring.Error{Text: fmt.Sprintf("this keyring does not hold tenant %q", tenant), Err: keystore.ErrNotFound}
}

// errNotInSync is the reason given when no more specific one is known.
var errNotInSync = errors.New("not in step with the store, or in doubt about it")

// cannotTell returns ErrUnavailable with its reason, which may be nil.
func cannotTell(reason error) error {
	if reason == nil {
		reason = errNotInSync
	}
	if errors.Is(reason, keystore.ErrUnavailable) {
		return reason
	}
	return &ring.Error{Kind: keystore.ErrUnavailable, Err: reason}
}

// Serves reports whether the keyring holds a ring of tenant, or has to by its Config.
func (k *Keyring) Serves(tenant string) bool {
	r := k.ring(tenant)
	return r != nil && (!k.holdsAll() || r.state.Load() != nil)
}

// MaxLeeway returns the most leeway with which tokens of tenant may be verified, since
// its keys are kept for no longer.
func (k *Keyring) MaxLeeway(tenant string) time.Duration {
	least := time.Duration(-1)
	if r := k.ring(tenant); r != nil {
		if h := r.state.Load(); h != nil {
			for _, rec := range h.Records {
				if least < 0 || rec.Timing.Leeway < least {
					least = rec.Timing.Leeway
				}
			}
		}
	}
	if least < 0 {
		return ring.MaxDuration // no record is known yet
	}
	return least
}

// signingKey returns the record that signs for tenant at t, and the copy that holds it.
func (k *Keyring) signingKey(tenant string, t time.Time) (*ringCopy, *sealedRecord, error) {
	r := k.ring(tenant)
	if r == nil {
		return nil, nil, &ring.Error{Text: fmt.Sprintf("this keyring holds no ring of tenant %q", tenant), Err: keystore.ErrNotFound}
	}
	step, h := r.step.Load(), r.state.Load() // in this order: else the status of a newer sync could vouch for an older copy
	if h.newest() == nil {
		return nil, nil, inTenant(tenant, &ring.Error{Kind: ErrNoSigner, Text: "no ring is known"})
	}
	signer, err := h.Signing(t, step.Good, k.times.Load().deadline)
	if err != nil {
		return nil, nil, &ring.Error{Text: fmt.Sprintf("tenant %q", tenant), Err: err, Also: step.err}
	}
	return h, h.find(signer.KID), nil
}

// PublicKeys returns the public keys of tenant's ring, the pending ones included, and how
// long readers may cache them: a middleware.PublicKeySource.
//
// It reports an error that wraps [keystore.ErrNotFound] if there are none, since the ring
// is of HS* or unknown, and one that wraps [keystore.ErrUnavailable] if the last good sync
// is older than SignFor, or no ring is known while the instance is recovering.
func (k *Keyring) PublicKeys(_ context.Context, tenant string) (keys []*keystore.Key, maxAge time.Duration, err error) {
	now := k.cfg.Now()
	r := k.ring(tenant)
	if r == nil {
		return nil, 0, k.missingRing(tenant)
	}
	step, h := r.step.Load(), r.state.Load()
	newest := h.newest()
	switch {
	case newest == nil:
		return nil, 0, &ring.Error{Text: fmt.Sprintf("no ring of tenant %q is known", tenant), Err: cannotTell(step.err)}
	case step.Good.IsZero() || protocol.Age(now, step.Good) > newest.Timing.SignFor:
		return nil, 0, &ring.Error{Text: fmt.Sprintf("the ring of tenant %q is out of step", tenant), Err: cannotTell(step.err)}
	}
	for i := range h.Plan.InOrder {
		planned := &h.Plan.InOrder[i]
		rec := h.find(planned.KID)
		if _, public := rec.key.Public(); public && planned.Published(now) {
			keys = append(keys, rec.key)
		}
	}
	if len(keys) == 0 && newest.Algorithm.Symmetric() {
		return nil, 0, &ring.Error{Text: fmt.Sprintf("tenant %q signs with %s: a secret is not published", tenant, newest.Algorithm), Err: keystore.ErrNotFound}
	}
	return keys, h.cacheFor(protocol.Age(now, step.Good)), nil
}

// cacheFor returns how long a reader may keep the set: a quarter of ReaderStaleness, so that a reader
// that fails to read it three times still knows every key that signs. A key is published for
// ReaderStaleness + Freshness + ClockSkew before it signs. old is the age of our copy, of which
// Freshness is allowed for.
func (h *ringCopy) cacheFor(old time.Duration) time.Duration {
	least := time.Duration(-1)
	for _, r := range h.Records {
		t := &r.Timing
		if v := max(0, t.ReaderStaleness-max(0, old-t.Freshness)) / 4; least < 0 || v < least {
			least = v
		}
	}
	return max(0, least).Truncate(time.Second)
}
