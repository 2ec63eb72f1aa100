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
	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
)

// A Keyring is this process's copy of the rings in a [Store]. It finds keys for a
// verifier and for a [Signer] without asking the store, and stays in sync with it
// on its own: it is a keystore.Refresher, and a middleware.PublicKeySource. It is
// safe for concurrent use. Close it.
//
// Three mutexes guard its state: mu, unknownKids.mu and loop.mu. unknownKids.mu may be held while
// loop.mu is taken. No other two are held together.
type Keyring struct {
	store Store
	cfg   Config

	mu    sync.RWMutex // guards rings
	rings map[string]*tenantRing

	buckets []*bucket        // those that are synced; fixed once Open has returned, as is byIndex
	byIndex [Buckets]*bucket // nil where the bucket is not synced

	times atomic.Pointer[times]

	cancel context.CancelFunc
	done   chan struct{} // closed when the loop has ended
	loop   loop
	down   bool // the last sync did not reach all of the store; only the loop uses it

	unknown unknownKids
	counts  counts
}

// times follow from the policies of the rings that are held.
type times struct{ poll, deadline, fresh time.Duration }

// w is how long it takes at most until every instance that reaches the store has read a change.
func (t times) w() time.Duration { return t.poll + t.poll/5 + t.deadline }

// A tenantRing is the ring of one tenant in a Keyring. Any goroutine may read the atomic fields. Only
// the loop writes them, and only it uses the fields below them.
type tenantRing struct {
	tenant string
	bucket *bucket
	budget unknown.Budget // for unknown kids; guarded by unknownKids.mu

	state atomic.Pointer[ringCopy]   // nil: none is known
	step  atomic.Pointer[syncStatus] // how far it is in sync; never nil

	digest     string // of the fields that were read last
	dirty      bool   // it has to be read again
	emptySyncs int    // syncs in a row that found no ring in the store
}

// A syncStatus says how far a ring is in sync with the store. It is immutable. Its times are of this
// instance's clock.
type syncStatus struct {
	protocol.SyncState
	quietSince time.Time // since when nothing has changed in the bucket
	err        error     // why the last sync was not a good one
	bad        bool      // the ring itself could not be read, or restored
}

// fresh reports whether a key that the ring does not have does not exist.
func (s *syncStatus) fresh(now time.Time, within time.Duration) bool {
	return !s.bad && !s.Recovering && !s.Good.IsZero() && protocol.Age(now, s.Good) <= within
}

// A bucket is a part of the store that is synced as a whole. Only the loop uses it, except for step.
type bucket struct {
	index      int
	rings      []*tenantRing
	state      protocol.SyncState
	place      Place
	quietSince time.Time     // since when the place has not moved
	goodSince  time.Time     // by the store's clock; zero while it is not in sync
	fresh      time.Duration // Freshness when it was synced last, which bounds the gap since then
	digestTurn int           // counts syncs: which rings have their digests compared
	err        error         // why the last sync failed, or nil

	step atomic.Pointer[syncStatus] // for any goroutine; never nil
}

// Open returns a Keyring after the first complete read of the store. The instance
// is recovering for a while then, unless another one vouches for what it read: see
// [Keyring.WaitReady]. ctx bounds Open alone.
//
// It reports an error that wraps [keystore.ErrUnavailable] if nothing of the store can
// be read, and one that wraps [ErrWrongKEK] if no ring can be opened for that reason. A part
// that cannot be read, such as one server of a Cluster, is tried again with each poll:
// [Keyring.Status] says so, and [Keyring.WaitReady] waits for it.
func Open(ctx context.Context, store Store, cfg Config) (*Keyring, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	k := &Keyring{store: store, cfg: cfg, rings: make(map[string]*tenantRing), done: make(chan struct{})}
	k.unknown.init()
	k.loop.init(k)
	k.setTimes(defaultFreshness)
	for _, tenant := range cfg.Tenants {
		k.add(tenant)
	}
	if len(cfg.Tenants) == 0 {
		for i := range Buckets {
			k.bucketAt(i)
		}
	}
	p := &syncRun{k: k, ctx: ctx, buckets: k.buckets}
	p.run()
	if err := k.checkFirstRead(ctx); err != nil {
		return nil, err
	}
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
		return &ring.Error{Text: "the keyring was not opened", Err: cannotTell(err)}
	}
	failed, why := 0, error(nil)
	for _, b := range k.buckets {
		if b.err != nil && (k.cfg.OneShot || !errors.Is(b.err, errClock)) { // a clock may be put right
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

// checkOwnTimes returns why the Config's own times are too long for every ring, or nil.
func (k *Keyring) checkOwnTimes() (err error) {
	for _, r := range k.rings {
		if n := r.state.Load().newest(); n != nil {
			if err = k.checkTimes(n.Timing.Freshness); err == nil {
				return nil
			}
		}
	}
	return err
}

// checkAnyOpened returns why no ring at all could be read, or nil: the KEK is wrong, or the store
// answers but refuses to give them. If only some rings cannot be read, those are not ready, and the
// others are.
func (k *Keyring) checkAnyOpened() error {
	var why error
	for _, r := range k.rings {
		step := r.step.Load()
		parts := (*ring.UnreadableError)(nil)
		if !step.bad || errors.As(step.err, &parts) && !errors.Is(step.err, seal.ErrWrongKEK) || r.state.Load().newest() != nil {
			return nil
		}
		why = step.err
	}
	return why
}

// checkTimes returns an error if the Config's own times are too long for a policy's Freshness. Times
// that follow from the policy never are.
func (k *Keyring) checkTimes(fresh time.Duration) error {
	if k.cfg.Poll+k.cfg.Deadline == 0 {
		return nil
	}
	if w := k.timesOf(fresh).w(); fresh < 3*w {
		return &ring.Error{Text: fmt.Sprintf("Freshness >= 3 (1.2 Poll + Deadline) does not hold: %v is less than %v; "+
			"lower Config.Poll and Config.Deadline, or leave them 0", fresh, 3*w)}
	}
	return nil
}

// setTimes takes the shortest Freshness of the rings.
func (k *Keyring) setTimes(fresh time.Duration) {
	t := k.timesOf(max(fresh, ring.MinFreshness))
	k.times.Store(&t)
}

func (k *Keyring) timesOf(fresh time.Duration) times {
	deadline := cmp.Or(k.cfg.Deadline, min(maxDeadline, fresh/30))
	return times{
		fresh:    fresh,
		poll:     cmp.Or(k.cfg.Poll, min(maxPoll, fresh/4)),
		deadline: max(time.Millisecond, deadline.Truncate(time.Millisecond)), // proposed times depend on it, and are whole milliseconds
	}
}

// Close ends the syncing and waits for it, and removes this instance's acknowledgements.
// The keys end as if the store could no longer be reached.
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

// Format implements [fmt.Formatter]: every verb says how many rings there are.
func (k *Keyring) Format(f fmt.State, _ rune) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	fmt.Fprintf(f, "keyring of %d tenants", len(k.rings))
}

// add returns the ring of tenant, and adds it if it is missing.
func (k *Keyring) add(tenant string) *tenantRing {
	if r := k.ring(tenant); r != nil {
		return r
	}
	b := k.bucketAt(BucketOf(tenant))
	r := &tenantRing{tenant: tenant, bucket: b, budget: newRefreshBudget(), dirty: true}
	r.step.Store(&syncStatus{})
	b.rings = append(b.rings, r)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.rings[tenant] = r
	return r
}

// drop forgets tenants without a ring. Tenant names in the store are not authenticated and must not
// accumulate.
func (k *Keyring) drop(buckets []*bucket) {
	if !k.holdsAll() {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, b := range buckets {
		b.rings = slices.DeleteFunc(b.rings, func(r *tenantRing) bool {
			empty := !r.dirty && r.state.Load() == nil
			if empty {
				delete(k.rings, r.tenant)
			}
			return empty
		})
	}
}

func (k *Keyring) bucketAt(index int) *bucket {
	if k.byIndex[index] == nil {
		k.byIndex[index] = &bucket{index: index}
		k.byIndex[index].step.Store(&syncStatus{})
		k.buckets = append(k.buckets, k.byIndex[index])
	}
	return k.byIndex[index]
}

func (k *Keyring) ring(tenant string) *tenantRing {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.rings[tenant]
}

func (k *Keyring) all() []*tenantRing {
	k.mu.RLock()
	defer k.mu.RUnlock()
	rings := make([]*tenantRing, 0, len(k.rings))
	for _, r := range k.rings {
		rings = append(rings, r)
	}
	return rings
}

func (k *Keyring) holdsAll() bool { return len(k.cfg.Tenants) == 0 }

// Tenants returns the tenants that the keyring was told to hold, or those that have a
// ring in the store, sorted.
func (k *Keyring) Tenants() []string {
	var tenants []string
	for _, r := range k.all() {
		if !k.holdsAll() || r.state.Load() != nil {
			tenants = append(tenants, r.tenant)
		}
	}
	slices.Sort(tenants)
	return tenants
}
