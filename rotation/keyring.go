package rotation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/internal/unknown"
	"github.com/keyturn/keyturn/rotation/internal/held"
	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
)

// A Keyring is this process's copy of the rings in a [Store]. It finds keys for a verifier and for
// a [Signer] from memory, without asking the store, and one goroutine of its own keeps it in sync.
// It is a keystore.Refresher, so give it to a verifier's tenants as their Keys, and a
// middleware.PublicKeySource. [Open] makes one. It is safe for concurrent use. Call [Keyring.Close]
// when done with it.
//
// While the store is away, a keyring goes on for a bounded time: its signer for the policy's
// SignFor, its keys until the last token that any instance may have signed has expired.
// docs/rotation.md has a table of what works for how long.
type Keyring struct {
	// Three mutexes guard the state: mu, unknownKids.mu and loop.mu. unknownKids.mu may be held
	// while loop.mu is taken. No other two are held together.
	//
	// Each ring's copy and status are immutable values behind atomic pointers. Only the loop
	// replaces them, so readers take no lock but mu, for the map.

	store Store
	cfg   Config
	keks  atomic.Pointer[seal.KEKs] // of Config.Realm; never nil

	mu    sync.RWMutex // guards rings
	rings map[string]*tenantRing

	buckets []*bucket        // that are synced; fixed once Open has returned, as is byIndex
	byIndex [Buckets]*bucket // nil where the bucket is not synced

	times atomic.Pointer[times] // never nil; only the loop replaces it once Open has returned

	cancel context.CancelFunc // ends the loop
	done   chan struct{}      // closed when the loop has ended
	loop   loop

	// Only the loop uses these two.
	down      bool      // the last sync did not reach all of the store
	lastMerge time.Time // when a log told of a merge last, or this instance made one

	unknown unknownKids
	counts  counts
	alarms  alarms
}

// times are the durations that follow from the shortest Freshness of the rings that are held: how
// long after a poll the next one begins, how long a call of the store may take, and that Freshness.
type times struct{ poll, deadline, fresh time.Duration }

// maxPollGap is W of docs/protocol.md: the longest time between the starts of two polls. Within it
// every instance that reaches the store has read a change. The fifth is the jitter of
// [loop.untilPoll].
func (t times) maxPollGap() time.Duration { return t.poll + t.poll/5 + t.deadline }

// A tenantRing is the ring of one tenant in a Keyring. Any goroutine may read the atomic fields.
// Only the loop writes them, and only it uses the fields below them.
//
// Read status before state. A sync replaces state first, so the copy is then at least as new as the
// status that one judges it by. In the other order, a sync between the two reads would make an old
// copy look in sync.
type tenantRing struct {
	tenant string
	bucket *bucket
	budget unknown.Budget // for unknown kids; guarded by unknownKids.mu

	state  atomic.Pointer[held.Ring]  // nil: none is known
	status atomic.Pointer[syncStatus] // how far it is in sync; never nil
	losses atomic.Uint64              // how often the store lacked something of it

	digest     string // of the fields that were read last; "" if there were none
	dirty      bool   // the copy may be out of date or incomplete: read the ring again
	changed    bool   // this process has changed it, and restores the change even with OneShot
	emptySyncs int    // syncs in a row that found no ring in the store
	news       *news  // of it in the log, that the copy may not have yet; nil for none
}

// news are what authentic entries of the log say about a ring.
type news struct {
	ends    ring.Facts       // that end trust; the next merge takes them into account
	changes []protocol.Entry // acknowledged once the ring was read, opened and merged, and has them
}

// A syncStatus says how far a ring, or a bucket, is in sync with the store. It is immutable. Its
// times are of this instance's clock.
type syncStatus struct {
	protocol.SyncState
	quietSince time.Time // since when no change in the bucket was logged
	err        error     // why the last sync failed, or nil
	bad        bool      // the bucket was read, but this ring could not be read or repaired
}

// fresh reports whether the instance is in sync: the last good sync is at most within old. Only
// then does a key that the ring lacks not exist, and only then may a rotator decide.
func (s *syncStatus) fresh(now time.Time, within time.Duration) bool {
	return !s.bad && !s.Recovering && !s.Good.IsZero() && protocol.Age(now, s.Good) <= within
}

// A bucket is a part of the store that is synced as a whole, with one place in one log. Only the
// loop uses it, except for status.
type bucket struct {
	index      int // in the store, and in Keyring.byIndex
	rings      []*tenantRing
	state      protocol.SyncState
	place      Place            // in the log, up to which changes were applied
	quietSince time.Time        // since when the place has not synced
	goodSince  time.Time        // since when it is in sync, by the store's clock; zero while it is not
	fresh      time.Duration    // the Freshness at the last sync: after a longer gap it recovers
	digestTurn int              // counts syncs, and so chooses the rings whose digests are compared
	err        error            // why the last sync failed, or nil
	applied    []protocol.Entry // changes of late that were applied here; see [protocol.Remember]
	ends       [16]byte         // see endsDigest
	endsStale  bool             // some ring may have changed since ends was computed
	undoneAt   atomic.Int64     // when a ring lacked a revocation last, in nanoseconds since 1970; 0 for never

	status atomic.Pointer[syncStatus] // for any goroutine; never nil
}

// Open returns a Keyring after the first complete read of the store. Afterwards the instance is
// recovering for two polls, unless another instance vouches for what the store has, or cfg trusts
// the first read: call [Keyring.WaitReady] before serving. ctx bounds Open alone. Store and
// cfg.KEKs are required.
//
// The error wraps [keystore.ErrUnavailable] if nothing of the store can be read, and [ErrWrongKEK]
// if no ring can be opened because the KEKs are wrong. It names the field if cfg is invalid. If
// only a part of the store cannot be read, such as one server of a Cluster, Open succeeds and each
// poll tries again: [Keyring.Status] reports it, and [Keyring.WaitReady] waits for it.
func Open(ctx context.Context, store Store, cfg Config) (*Keyring, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	keks, err := cfg.KEKs.sealing().In(cfg.Realm, cfg.OtherRealms...)
	if err != nil {
		return nil, err
	}
	k := &Keyring{store: store, cfg: cfg, rings: make(map[string]*tenantRing), done: make(chan struct{})}
	k.keks.Store(keks)
	k.unknown.init()
	k.loop.init(k)
	k.setTimes(defaultFreshness)
	for _, tenant := range cfg.Tenants {
		k.addTenant(tenant)
	}
	if len(cfg.Tenants) == 0 || cfg.AllowBootstrap { // a ring is made only where the whole store stands still
		for i := range Buckets {
			k.addBucket(i)
		}
	}
	// The first sync runs here, so that its error is the caller's. The loop starts afterwards, so
	// the two never run at once.
	p := &syncRun{k: k, ctx: ctx, buckets: k.buckets}
	p.run()
	if err := k.checkFirstRead(ctx); err != nil {
		return nil, err
	}
	// The loop outlives ctx, and ends with Close, which waits for done.
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	k.cancel = cancel
	go func() {
		defer close(k.done)
		k.loop.run(own)
	}()
	return k, nil
}

// checkFirstRead returns why the first read is not enough to open the keyring, or nil.
func (k *Keyring) checkFirstRead(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return &ring.Error{Text: "the keyring was not opened", Err: unavailable(err)}
	}
	// A long-lived process waits until the clocks are set right, so that is no reason not to start.
	failed, why := 0, error(nil)
	for _, b := range k.buckets {
		if b.err != nil && (k.cfg.OneShot || !errors.Is(b.err, ring.ErrClock)) {
			failed, why = failed+1, b.err
		}
	}
	if failed > 0 && (k.cfg.OneShot || failed == len(k.buckets)) {
		return &ring.Error{Text: "the keyring cannot be opened", Err: why}
	}
	if err := k.checkAnyOpened(); err != nil {
		return &ring.Error{Text: "the keyring cannot be opened", Err: err}
	}
	if err := k.checkTimes(k.times.Load().fresh); err != nil {
		return err
	}
	return k.checkOwnTimes()
}

// checkOwnTimes returns nil if Config's Poll and Deadline suit the policy of at least one ring, or
// if no ring is known. Otherwise it returns the error of one of them.
func (k *Keyring) checkOwnTimes() (err error) {
	for _, r := range k.rings {
		if n := r.state.Load().Newest(); n != nil {
			if err = k.checkTimes(n.Timing.Freshness); err == nil {
				return nil
			}
		}
	}
	return err
}

// checkAnyOpened returns nil if at least one ring was read, even in part, or if the store has no
// rings. Otherwise every ring failed, and it returns one of the reasons: the KEK is wrong, or the
// store does not let this process read rings. One unreadable ring among many does not stop the
// others from being served.
func (k *Keyring) checkAnyOpened() error {
	var why error
	for _, r := range k.rings {
		status := r.status.Load()
		parts := (*ring.UnreadableError)(nil)
		if !status.bad || errors.As(status.err, &parts) && !errors.Is(status.err, seal.ErrWrongKEK) || r.state.Load().Newest() != nil {
			return nil
		}
		why = status.err
	}
	return why
}

// checkTimes checks Config's Poll and Deadline against the Freshness of a policy. Two polls must
// fit into it, even if one of them fails, or an instance would be out of sync without any fault.
// Defaults always fit.
func (k *Keyring) checkTimes(fresh time.Duration) error {
	if k.cfg.Poll+k.cfg.Deadline == 0 {
		return nil
	}
	if w := k.timesOf(fresh).maxPollGap(); fresh < 3*w {
		return &ring.Error{Text: fmt.Sprintf("Freshness >= 3 (1.2 Poll + Deadline) does not hold: %v is less than %v; "+
			"lower Config.Poll and Config.Deadline, or leave them 0", fresh, 3*w)}
	}
	return nil
}

// setTimes makes the keyring poll often enough for fresh, the shortest Freshness of the rings.
func (k *Keyring) setTimes(fresh time.Duration) {
	t := k.timesOf(max(fresh, ring.MinFreshness))
	k.times.Store(&t)
}

// timesOf returns the times that follow from a Freshness, unless Config sets them: four polls fit
// into it, and a deadline is short compared with a poll. Changes are dated by the deadline, so it has
// whole milliseconds, like every time in the store.
func (k *Keyring) timesOf(fresh time.Duration) times {
	deadline := cmp.Or(k.cfg.Deadline, min(maxDeadline, fresh/30))
	return times{
		fresh:    fresh,
		poll:     cmp.Or(k.cfg.Poll, min(maxPoll, fresh/4)),
		deadline: max(time.Millisecond, deadline.Truncate(time.Millisecond)),
	}
}

// Close stops syncing, waits until the loop has ended, and removes this instance's acknowledgements
// from the store. Its keys remain for the time that they would if the store were away.
// [Keyring.WaitReady] and [Rotator.Run] return. ctx bounds the waiting and the removal. Close returns
// an error if ctx ends before the loop has, or if the acknowledgements remain: then [Rotator.Acks]
// still lists the instance. Close may be called again.
func (k *Keyring) Close(ctx context.Context) error {
	k.cancel()
	select {
	case <-k.done:
	case <-ctx.Done():
		return &ring.Error{Text: "the keyring is still closing", Err: ctx.Err()}
	}
	if k.cfg.OneShot {
		return nil
	}
	indexes := make([]int, len(k.buckets))
	for i, b := range k.buckets {
		indexes[i] = b.index
	}
	ctx, cancel := context.WithTimeout(ctx, k.times.Load().deadline)
	defer cancel()
	if err := k.store.Forget(ctx, k.cfg.Instance, indexes); err != nil {
		return &ring.Error{Text: fmt.Sprintf("closed, but the acknowledgements of %q stay in the store", k.cfg.Instance), Err: err}
	}
	return nil
}

// Format implements [fmt.Formatter]: every verb prints how many rings there are, and nothing else,
// so that no log holds a key.
func (k *Keyring) Format(f fmt.State, _ rune) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	fmt.Fprintf(f, "keyring of %d tenants", len(k.rings))
}

// addTenant returns the ring of tenant, and adds it if it is not held yet. Only Open and the loop
// add rings, so no other goroutine can add the same one between the check and the lock.
func (k *Keyring) addTenant(tenant string) *tenantRing {
	if r := k.ring(tenant); r != nil {
		return r
	}
	b := k.addBucket(BucketOf(tenant))
	r := &tenantRing{tenant: tenant, bucket: b, budget: newRefreshBudget(), dirty: true}
	r.status.Store(&syncStatus{})
	b.rings = append(b.rings, r)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.rings[tenant] = r
	return r
}

// dropEmpty forgets tenants without a ring, if the keyring holds all tenants. Tenant names in the
// store are not authenticated, so they must not accumulate here. A tenant of which an authentic entry
// of the log tells a revocation stays, up to maxAwaited of a bucket: a person may have removed its ring,
// and the revocation must hold when a holder puts the ring back.
func (k *Keyring) dropEmpty(buckets []*bucket) {
	if !k.holdsAll() {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, b := range buckets {
		awaited := 0
		slices.Reverse(b.rings) // the newest stay
		b.rings = slices.DeleteFunc(b.rings, func(r *tenantRing) bool {
			empty := !r.dirty && r.state.Load() == nil
			if empty && r.news != nil && !r.news.ends.Equal(ring.Facts{}) {
				awaited++
				empty = awaited > maxAwaited
			}
			if empty {
				delete(k.rings, r.tenant)
			}
			return empty
		})
		slices.Reverse(b.rings)
	}
}

// addBucket returns the bucket of that index, and adds it if it is not synced yet.
func (k *Keyring) addBucket(index int) *bucket {
	if k.byIndex[index] == nil {
		k.byIndex[index] = &bucket{index: index, endsStale: true}
		k.byIndex[index].status.Store(&syncStatus{})
		k.buckets = append(k.buckets, k.byIndex[index])
	}
	return k.byIndex[index]
}

// ring returns the ring of tenant, or nil if it is not held.
func (k *Keyring) ring(tenant string) *tenantRing {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.rings[tenant]
}

// allRings returns the rings that are held, in no order.
func (k *Keyring) allRings() []*tenantRing {
	k.mu.RLock()
	defer k.mu.RUnlock()
	rings := make([]*tenantRing, 0, len(k.rings))
	for _, r := range k.rings {
		rings = append(rings, r)
	}
	return rings
}

// holdsAll reports whether Config leaves it to the store which tenants there are.
func (k *Keyring) holdsAll() bool { return len(k.cfg.Tenants) == 0 }

// Tenants returns the tenants of [Config.Tenants], sorted, whether or not the store has a ring of
// them. If that is empty, it returns those that have a ring.
func (k *Keyring) Tenants() []string {
	var tenants []string
	for _, r := range k.allRings() {
		if !k.holdsAll() || r.state.Load() != nil {
			tenants = append(tenants, r.tenant)
		}
	}
	slices.Sort(tenants)
	return tenants
}
