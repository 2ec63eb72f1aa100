package rotation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/internal/synced"
	"github.com/keyturn/keyturn/rotation/ring"
)

// A Status says whether a keyring can serve, as a whole. [Keyring.Status] returns it.
type Status struct {
	// Ready reports whether every ring is known, was in sync within its SignFor, and agrees with
	// this clock to within ClockSkew. Then tokens can be signed and verified. Route traffic by it.
	//
	// A ring that is [TenantStatus].Unreadable counts neither here nor in CanVerify and CanSign, unless
	// all are: it must not take the instance from the others. Err tells of it.
	Ready bool

	// Fresh reports whether every ring is also in sync within the shortest Freshness, and not
	// recovering. Ready without Fresh is degraded: unknown keys are unavailable, and no key is
	// made.
	Fresh bool

	// CanVerify reports whether this instance answers every token of every ring rightly, for now also
	// without the store: until the keys that it knows have ended, or a key may sign that it does not
	// know. It is false as long as an instance that has never been in sync recovers, and while its
	// clock cannot be trusted. Route traffic by it if the instance only verifies.
	CanVerify bool

	// CanSign reports whether this instance may sign for every ring: it is Ready, and not fenced. A
	// ring that no instance can sign for, because its key was revoked, does not count.
	CanSign bool

	// Err says why it is not Fresh, or is nil. It names one tenant if the reason is in its ring. It
	// is for people: do not decide by it.
	Err error

	Tenants  int       // whose rings are held
	LastGood time.Time // the oldest of the rings' last good syncs, by this clock; zero if one has had none
	Counts   Counts    // since Open
}

// Counts say how often something has happened since [Open]. They only grow.
type Counts struct {
	Syncs, Failures uint64 // syncs of one or more buckets, and those in which a bucket failed
	Repairs         uint64 // rings in which something was restored
	Resyncs         uint64 // times that a bucket's place in the log could not be proved
	Refreshes       uint64 // syncs that unknown kids caused

	// The following are alarms: nothing causes them but a store that lost what it had acknowledged,
	// or a person who writes to it. Each is logged too.
	Undone uint64 // rings in which the store lacked a revocation or collection that was known here
	Older  uint64 // rings of which the store had counted fewer changes than were known here, or lost the name
	Forged uint64 // acknowledgements and log entries that were not authentic, and keys of another type that were removed
}

// Status returns how the keyring stands now. It does not wait for the store.
func (k *Keyring) Status() Status {
	s := Status{Ready: true, Fresh: true, CanVerify: true, CanSign: true, Counts: k.counts()}
	now := k.cfg.Now()
	k.addBuckets(&s, now)
	rings, alike := k.rings.Standing(now)
	k.addRings(&s, now, rings, alike)
	s.CanSign = s.CanSign && s.Ready
	return s
}

// counts returns the counts now, each for itself.
func (k *Keyring) counts() Counts {
	c, a := &k.rings.Counts, &k.rings.Alarms
	return Counts{Syncs: c.Syncs.Load(), Failures: c.Failures.Load(), Repairs: c.Repairs.Load(),
		Resyncs: c.Resyncs.Load(), Refreshes: c.Refreshes.Load(),
		Undone: a.Undone.Count(), Older: a.Older.Count(), Forged: a.Forged.Count()}
}

// addBuckets adds the state of the buckets to s, also of those without a ring: a bucket that cannot
// be read may have rings that this keyring does not know.
func (k *Keyring) addBuckets(s *Status, now time.Time) {
	for _, b := range k.rings.Buckets() {
		status := b.Status.Load()
		s.Ready = s.Ready && !status.Good.IsZero() && !errors.Is(status.Err, ring.ErrClock)
		s.CanVerify = s.CanVerify && !status.Knew.IsZero()
		s.Fresh = s.Fresh && status.InSync(now, k.times.Load().Fresh) && !errors.Is(status.Err, ring.ErrClock)
		if s.Err == nil && !s.Fresh {
			s.Err = unavailable(status.Err)
		}
	}
}

// addRings adds the state of the rings to s, sorted by tenant, so that Err is always that of the same
// ring. The reason of a ring replaces that of a bucket, since it names the tenant. alike says how many others
// a ring stands for: see [synced.Rings.Standing].
func (k *Keyring) addRings(s *Status, now time.Time, rings []*synced.Ring, alike map[*synced.Ring]int) {
	slices.SortFunc(rings, func(a, b *synced.Ring) int { return cmp.Compare(a.Tenant, b.Tenant) })
	named := false // Err names a tenant
	whole, unread := 0, Status{Ready: true, CanVerify: true, CanSign: true}
	for _, r := range rings {
		t := k.status(r, now)
		if empty := !t.exists && !r.SyncStatus().Bad; empty && k.holdsAll() {
			continue // the store named the tenant, but has no ring of it
		}
		if s.Tenants == 0 || t.LastGood.Before(s.LastGood) {
			s.LastGood = t.LastGood
		}
		s.Tenants += 1 + alike[r]
		s.Fresh = s.Fresh && t.Fresh
		if t.Unreadable {
			unread.add(&t)
		} else {
			whole++
			s.add(&t)
		}
		if t.Err != nil && !named {
			named = true
			s.Err = fmt.Errorf("tenant %q: %w", r.Tenant, t.Err)
		}
	}
	if whole == 0 {
		s.Ready, s.CanVerify, s.CanSign = s.Ready && unread.Ready, s.CanVerify && unread.CanVerify, s.CanSign && unread.CanSign
	}
}

// add adds the state of a ring to that of a keyring.
func (s *Status) add(t *TenantStatus) {
	s.Ready, s.CanVerify, s.CanSign = s.Ready && t.Ready, s.CanVerify && t.CanVerify, s.CanSign && !t.fenced
}

// A TenantStatus says whether one ring can serve. [Keyring.Tenant] returns it.
type TenantStatus struct {
	Ready      bool                 // as in [Status], for this ring
	Fresh      bool                 // as in [Status], for this ring
	CanVerify  bool                 // as in [Status], for this ring
	CanSign    bool                 // as in [Status], for this ring, and it has a key that signs
	InDoubt    bool                 // recovering: the store may have lost something that others will restore
	Unreadable bool                 // the store can be read, and this ring cannot: a field of it cannot be opened, or its place holds something else
	Held       bool                 // the signing key has Hold: only [Rotator.Rotate] ends it
	Err        error                // why it is not Fresh, or nil
	LastGood   time.Time            // the last good sync, by this clock; zero before the first
	Ring       ring.Ring            // as this instance sees it now
	SignsWith  string               // the kid with which this instance signs now, or "": see Receipt.ConfirmedAt
	Accepted   []ring.Accepted      // keys that verify until a date and sign nothing: see [Rotator.Accept]
	Published  map[string]time.Time // when each kid was published, as the store has it: not authenticated

	exists bool // some record of it is known
	fenced bool // this instance must not sign, whereas others may
}

// Tenant returns the state of tenant's ring now. It does not wait for the store. The error wraps
// [keystore.ErrNotFound] if no ring of the tenant is held.
func (k *Keyring) Tenant(tenant string) (TenantStatus, error) {
	r := k.ring(tenant)
	if r == nil {
		return TenantStatus{}, notHeld(tenant)
	}
	now := k.cfg.Now()
	t := k.status(r, now)
	t.Ring.Signer = -1
	if c := r.Copy(); c != nil {
		t.Ring, t.SignsWith = c.Plan.At(now), c.SignsWith(now, t.LastGood, k.times.Load().Deadline)
		t.Accepted = c.ListAccepted(now)
		t.Published = make(map[string]time.Time, len(c.Published))
		for _, p := range c.Published {
			t.Published[p.KID] = p.At
		}
	}
	return t, nil
}

// Ready returns nil if tenant's ring is [TenantStatus].CanVerify, and otherwise the reason.
func (k *Keyring) Ready(tenant string) error {
	s, err := k.Tenant(tenant)
	if err == nil && !s.CanVerify {
		err = inTenant(tenant, unavailable(s.Err))
	}
	return err
}

// status returns the state of r without its keys. A ring that was destroyed is ready: there is
// nothing to wait for.
func (k *Keyring) status(r *synced.Ring, now time.Time) TenantStatus {
	status, c := r.SyncStatus(), r.Copy()
	s := TenantStatus{InDoubt: status.Recovering || status.Complete.IsZero(), Err: status.Err, LastGood: status.Good, Held: c.Plain().Held(now), exists: c.Newest() != nil}
	s.Fresh = s.exists && status.InSync(now, k.times.Load().Fresh) && !errors.Is(status.Err, ring.ErrClock)
	switch {
	case s.exists:
		s.Ready = !status.Good.IsZero() && protocol.Age(now, status.Good) <= c.Newest().Timing.SignFor && !errors.Is(status.Err, ring.ErrClock)
	case c != nil && c.Plan.Dead:
		s.Ready, s.Fresh = true, status.InSync(now, k.times.Load().Fresh)
	}
	s.Unreadable = status.Bad
	s.CanVerify = c.Plain().CanVerify(status.SyncState, now, status.InSync(now, k.times.Load().Fresh), r.ClockHolds(now))
	if s.exists {
		_, err := c.Signing(now, status.Good, k.times.Load().Deadline)
		s.CanSign, s.fenced = s.Ready && err == nil, errors.Is(err, ErrFenced)
	}
	switch {
	case s.Fresh:
		s.Err = nil // a sync may have failed since; it is no reason yet
	case s.Err == nil:
		s.Err = s.reason(now, status)
	}
	return s
}

// reason returns why s is not fresh, where the last sync itself did not fail.
func (s *TenantStatus) reason(now time.Time, status *synced.Status) error {
	switch {
	case s.InDoubt && status.Recovering && status.Until.After(now):
		return fmt.Errorf("in doubt for another %v: the store may have lost something, and others get the time to put it back", status.Until.Sub(now).Round(time.Second))
	case s.InDoubt:
		return errors.New("in doubt: the store may have lost something, and others get the time to put it back")
	case !s.exists:
		return errors.New("the store has no ring of it")
	case s.LastGood.IsZero():
		return errors.New("no good sync yet")
	}
	return fmt.Errorf("the last good sync was %v ago", protocol.Age(now, s.LastGood).Round(time.Millisecond))
}

// WaitReady waits until the keyring is [Status].Ready and returns nil. An instance needs it after
// [Open], before it serves: until then it neither signs nor reports a key as missing. A keyring
// without a [Signer] need only be CanVerify. If ctx ends
// first the error says why it is not ready, and wraps [keystore.ErrUnavailable] and the error of
// ctx. It also returns an error when the keyring is closed.
func (k *Keyring) WaitReady(ctx context.Context) error {
	for {
		synced := k.rings.NextSync() // before Status, so that no sync in between is missed
		s := k.Status()
		if s.Ready || s.CanVerify && !k.rings.Signs.Load() {
			return nil
		}
		select {
		case <-synced:
		case <-k.rings.Done():
			return &ring.Error{Text: "the keyring is closed"}
		case <-ctx.Done():
			return fmt.Errorf("rotation: not ready: %w (%w)", unavailable(s.Err), ctx.Err())
		}
	}
}
