package rotation

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
)

// Config says how an instance keeps its copy of the rings.
type Config struct {
	// KEKs open what the store holds. Required: see [ParseKEKs].
	KEKs *KEKs

	// Tenants are those whose rings are held. None means all that the store has,
	// and will have: then whoever can write it can name one whose ring cannot be
	// read, and the keyring is not ready.
	Tenants []string

	// Instance names this process in the store, for whoever asks who has heard
	// of a change. The default is the host's name, the process's number and
	// something random. Two processes must not have the same.
	Instance string

	// Poll is how long after one sync the next begins, give or take a fifth. The
	// default follows from the policies of the rings: a quarter of the shortest
	// Freshness, at most 15s. All instances should have the same.
	Poll time.Duration

	// Deadline is how long a call of the store may take. The default is a
	// thirtieth of the shortest Freshness, at most 2s. Freshness must be at
	// least three times as long as 1.2 Poll and Deadline together.
	Deadline time.Duration

	// TrustFirstRead takes the first complete read for the truth, instead of
	// giving others the time to merge back what the store may have lost. It is
	// for a store that this process has just started.
	TrustFirstRead bool

	// OneShot is for a command that ends soon: it trusts its first read, leaves no
	// acknowledgement, and repairs nothing.
	OneShot bool

	// AllowBootstrap lets [Rotator.Run] make the first ring of each of Tenants, with
	// Policy, once the store has stood still for long enough. Else only
	// [Rotator.Create] makes rings.
	AllowBootstrap bool

	// Policy is that of the rings that AllowBootstrap makes. Zero fields take their
	// defaults; it is not looked at otherwise.
	Policy ring.Policy

	// Logger hears what no caller is told: rings that cannot be read, repairs,
	// doubt. The default discards it. It never hears a secret.
	Logger *slog.Logger

	// Now reports the wall clock's time. The default is [time.Now].
	Now func() time.Time
}

const (
	maxPoll          = 15 * time.Second
	maxDeadline      = 2 * time.Second
	defaultFreshness = time.Minute // before any ring is known

	// loadAtOnce is how many rings one call loads: it has to fit into a deadline.
	loadAtOnce = 256
	// syncRounds bounds how often a sync goes on where the last reply ended.
	syncRounds = 16
	// nudgeGap is the least between two syncs that nudges ask for, so that forged
	// ones cost little.
	nudgeGap = 20 * time.Millisecond
	// digestSlices is in how many polls every ring is compared: those of one F.
	digestSlices = 3
)

func (c Config) withDefaults() (Config, error) {
	switch {
	case c.KEKs == nil:
		return c, &ring.Error{Text: "Config.KEKs is missing: the rings are sealed with them; see ParseKEKs"}
	case c.Poll < 0 || c.Deadline < 0:
		return c, &ring.Error{Text: "Config.Poll and Config.Deadline must not be negative"}
	case c.AllowBootstrap && len(c.Tenants) == 0:
		return c, &ring.Error{Text: "Config.AllowBootstrap needs Config.Tenants: whose rings are to be made"}
	}
	for _, tenant := range c.Tenants {
		if !isTenant(tenant) {
			return c, &ring.Error{Text: fmt.Sprintf("Config.Tenants has a tenant of %d bytes: want 1 to %d, in UTF-8", len(tenant), ring.MaxTenantBytes)}
		}
	}
	if c.AllowBootstrap {
		if err := c.Policy.Validate(); err != nil {
			return c, err
		}
		c.Policy = c.Policy.WithDefaults()
	}
	if c.Instance == "" {
		host, _ := os.Hostname()
		c.Instance = fmt.Sprintf("%s-%d-%s", host, os.Getpid(), rand.Text()[:8])
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.TrustFirstRead = c.TrustFirstRead || c.OneShot
	return c, nil
}

// A Keyring is this process's copy of the rings in a [Store]. It finds keys for a
// verifier and for a [Signer] without asking the store, and stays in step with it
// on its own: it is a keystore.Refresher, and a middleware.PublicKeySource. It is
// safe for concurrent use. Close it.
type Keyring struct {
	store Store
	cfg   Config

	mu      sync.RWMutex
	rings   map[string]*tenantRing
	buckets []*bucket // those that are synced
	byIndex [Buckets]*bucket

	times atomic.Pointer[times]

	cancel context.CancelFunc
	done   chan struct{}
	loop   loop
	down   bool // the last pass did not reach all of the store; the loop's

	asking asking // for unknown kids
	counts counts
}

// times follow from the policies of the rings that are held.
type times struct{ poll, deadline, fresh time.Duration }

// w is within how long of a change everybody reachable has read it.
func (t times) w() time.Duration { return t.poll + t.poll/5 + t.deadline }

// A ring is what is held of one tenant. What is atomic is read by anyone; the rest
// belongs to the loop.
type tenantRing struct {
	tenant string
	bucket *bucket

	state atomic.Pointer[ringCopy]   // nil: none is known
	step  atomic.Pointer[syncStatus] // how far it is in step; never nil
	spent spent                      // the budget for unknown kids

	digest  string // of what was read last
	dirty   bool   // it has to be read again
	without int    // syncs in a row that found none in the store
}

// A syncStatus says how far a ring is in step with the store. It is immutable. Times are
// of this instance's clock.
type syncStatus struct {
	protocol.SyncState
	still time.Time // since when nothing has changed in the bucket
	err   error     // why the last sync was not a good one
	bad   bool      // the ring itself could not be read, or put back
}

// fresh reports whether what the ring does not have does not exist.
func (s *syncStatus) fresh(now time.Time, within time.Duration) bool {
	return !s.bad && !s.Recovering && !s.Good.IsZero() && protocol.Age(now, s.Good) <= within
}

// A bucket is synced as a whole. It belongs to the loop.
type bucket struct {
	index      int
	rings      []*tenantRing
	state      protocol.SyncState
	place      Place
	stillSince time.Time     // since when the place has not moved
	goodSince  time.Time     // by the store's clock; zero while it is not good
	fresh      time.Duration // F when it was synced last: by it the gap since then is judged
	turn       int           // of the digests
	err        error

	step atomic.Pointer[syncStatus] // for anyone; never nil
}

// Open returns a Keyring after the first complete read of the store. The instance
// then is in doubt for a while, if no other one vouches for what it read: see
// [Keyring.WaitReady]. ctx bounds Open alone.
//
// It reports an error that wraps [keystore.ErrUnavailable] if nothing of the store can
// be read, and one that wraps [ErrWrongKEK] if no ring can be opened for that. What else
// cannot be read, such as one server of a Cluster, is tried again with each poll:
// [Keyring.Status] says so, and [Keyring.WaitReady] waits for it.
func Open(ctx context.Context, store Store, cfg Config) (*Keyring, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	k := &Keyring{store: store, cfg: cfg, rings: make(map[string]*tenantRing), done: make(chan struct{})}
	k.asking.init()
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
	p := &pass{k: k, ctx: ctx, buckets: k.buckets}
	p.run()
	if err := k.opened(ctx); err != nil {
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

// opened reports why the first read does not do.
func (k *Keyring) opened(ctx context.Context) error {
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
	if err := k.openedNone(); err != nil {
		return &ring.Error{Text: "the keyring cannot be opened", Err: err}
	}
	if err := k.checkTimes(k.times.Load().fresh); err != nil {
		return err
	}
	return k.refusedTimes()
}

// refusedTimes returns why the Config's own times do for no ring, or nil.
func (k *Keyring) refusedTimes() (err error) {
	for _, r := range k.rings {
		if n := r.state.Load().newest(); n != nil {
			if err = k.checkTimes(n.Timing.Freshness); err == nil {
				return nil
			}
		}
	}
	return err
}

// openedNone returns why not one ring could be read: the wrong KEK, or a store that
// answers, and does not give them away. One of many that cannot be read is not ready,
// and the others are.
func (k *Keyring) openedNone() error {
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

// checkTimes holds a Config's own times to a policy. Those that follow from it keep it.
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
		deadline: max(time.Millisecond, deadline.Truncate(time.Millisecond)), // dates are proposed by it
	}
}

// Close ends the syncing and waits for it, and takes back what this instance has
// acknowledged. The keys end as if the store could not be reached any more.
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

// add returns the ring of tenant, and makes one if there is none.
func (k *Keyring) add(tenant string) *tenantRing {
	if r := k.ring(tenant); r != nil {
		return r
	}
	b := k.bucketAt(BucketOf(tenant))
	r := &tenantRing{tenant: tenant, bucket: b, dirty: true}
	r.step.Store(&syncStatus{})
	b.rings = append(b.rings, r)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.rings[tenant] = r
	return r
}

// drop lets go of tenants that have no ring, and were only named: anyone can write
// names.
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

// Lookup implements keystore.KeyStore. What is not there is ErrNotFound only while
// the instance is fresh and not in doubt.
func (k *Keyring) Lookup(id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
	now := k.cfg.Now()
	r := k.ring(id.Tenant)
	if r == nil {
		return nil, k.missingRing(id.Tenant)
	}
	step, h := r.step.Load(), r.state.Load() // in this order: what is held is not older than what is known of it
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
	case h.Plan.Dropped(planned, now):
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

// missing says what it means that a key is not there.
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

// errDoubt is the reason that there is no other.
var errDoubt = errors.New("not in step with the store, or in doubt about it")

// cannotTell is ErrUnavailable with its reason.
func cannotTell(reason error) error {
	if reason == nil {
		reason = errDoubt
	}
	if errors.Is(reason, keystore.ErrUnavailable) {
		return reason
	}
	return &ring.Error{Kind: keystore.ErrUnavailable, Err: reason}
}

// Serves reports whether the keyring holds a ring of tenant, or was told to.
func (k *Keyring) Serves(tenant string) bool {
	r := k.ring(tenant)
	return r != nil && (!k.holdsAll() || r.state.Load() != nil)
}

// MaxLeeway returns the most leeway with which tokens of tenant may be verified:
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
		return ring.MaxDuration // nothing is known of it yet
	}
	return least
}

// signingKey returns what signs for tenant at t, and what it is held in.
func (k *Keyring) signingKey(tenant string, t time.Time) (*ringCopy, *sealedRecord, error) {
	r := k.ring(tenant)
	if r == nil {
		return nil, nil, &ring.Error{Text: fmt.Sprintf("this keyring holds no ring of tenant %q", tenant), Err: keystore.ErrNotFound}
	}
	step, h := r.step.Load(), r.state.Load() // else a sync between the two would lift the fence of what it replaces
	if h.newest() == nil {
		return nil, nil, inTenant(tenant, &ring.Error{Kind: ErrNoSigner, Text: "no ring is known"})
	}
	signer, err := h.Signing(t, step.Good, k.times.Load().deadline)
	if err != nil {
		return nil, nil, &ring.Error{Text: fmt.Sprintf("tenant %q", tenant), Err: err, Also: step.err}
	}
	return h, h.find(signer.KID), nil
}

// PublicKeys returns the public keys of tenant's ring, those that are pending
// included, and how long others may cache them: a middleware.PublicKeySource.
//
// It reports an error that wraps [keystore.ErrNotFound] if there are none, since the
// ring is of HS* or unknown, and [keystore.ErrUnavailable] if the instance is out of
// step for longer than SignFor, or in doubt and empty.
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

// cacheFor returns how long a reader may keep the set: a quarter of V, so that one that
// fails to read it thrice is not behind yet. A key is published for V + F + S before it
// signs, of which S is the clocks', and F ours.
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

// A Status says how a keyring stands.
type Status struct {
	// Ready reports whether every ring is known, in step within its SignFor, and this
	// clock and the store's agree: tokens can be signed and verified.
	Ready bool

	// Fresh reports whether every ring is also in step within its Freshness, and
	// not in doubt. Ready and not fresh is degraded.
	Fresh bool

	// Err is why it is not fresh, or nil.
	Err error

	Tenants  int       // that are held
	LastGood time.Time // the oldest of the last good syncs; zero if there is one without
	Counts   Counts
}

// Counts say how often something has happened since Open.
type Counts struct {
	Syncs, Failures uint64 // polls of the store, all buckets at once, and those that failed for a bucket
	Repairs         uint64 // rings into which something was merged back
	Resyncs         uint64 // buckets whose place could not be proved
	Refreshes       uint64 // that unknown kids caused
}

type counts struct{ syncs, failures, repairs, resyncs, refreshes atomic.Uint64 }

// Status returns how the keyring stands now.
func (k *Keyring) Status() Status {
	s := Status{Ready: true, Fresh: true, Counts: Counts{Syncs: k.counts.syncs.Load(), Failures: k.counts.failures.Load(),
		Repairs: k.counts.repairs.Load(), Resyncs: k.counts.resyncs.Load(), Refreshes: k.counts.refreshes.Load()}}
	now := k.cfg.Now()
	rings := k.all()
	slices.SortFunc(rings, func(a, b *tenantRing) int { return cmp.Compare(a.tenant, b.tenant) })
	var named string              // in s.Err
	for _, b := range k.buckets { // those without rings, too: there may be some
		step := b.step.Load()
		s.Ready = s.Ready && !step.Good.IsZero() && !errors.Is(step.err, errClock)
		s.Fresh = s.Fresh && step.fresh(now, k.times.Load().fresh)
		if s.Err == nil && !s.Fresh {
			s.Err = cannotTell(step.err)
		}
	}
	for _, r := range rings {
		t := k.status(r, now)
		if empty := !t.exists && !r.step.Load().bad; empty && k.holdsAll() {
			continue
		}
		if s.Tenants == 0 || t.LastGood.Before(s.LastGood) {
			s.LastGood = t.LastGood
		}
		s.Tenants++
		s.Ready, s.Fresh = s.Ready && t.Ready, s.Fresh && t.Fresh
		if t.Err != nil && (s.Err == nil || len(named) == 0) {
			named = r.tenant
			s.Err = fmt.Errorf("tenant %q: %w", r.tenant, t.Err)
		}
	}
	return s
}

// A TenantStatus says how one ring stands.
type TenantStatus struct {
	Ready     bool                 // as in Status, of this ring
	Fresh     bool                 // likewise
	InDoubt   bool                 // whether the store has what it had cannot be told yet
	Err       error                // why it is not fresh, or nil
	LastGood  time.Time            // the last good sync; zero before the first
	Ring      ring.Ring            // as this instance sees it now
	Published map[string]time.Time // when each kid was published, as the store has it: not authenticated

	exists bool
}

// Tenant returns how the ring of tenant stands now. The error wraps
// [keystore.ErrNotFound] if none is held.
func (k *Keyring) Tenant(tenant string) (TenantStatus, error) {
	r := k.ring(tenant)
	if r == nil {
		return TenantStatus{}, &ring.Error{Text: fmt.Sprintf("this keyring holds no ring of tenant %q", tenant), Err: keystore.ErrNotFound}
	}
	now := k.cfg.Now()
	t := k.status(r, now)
	t.Ring.Signer = -1
	if h := r.state.Load(); h != nil {
		t.Ring = h.Plan.At(now)
		t.Published = make(map[string]time.Time, len(h.Published))
		for _, p := range h.Published {
			t.Published[p.KID] = p.At
		}
	}
	return t, nil
}

func (k *Keyring) status(r *tenantRing, now time.Time) TenantStatus {
	step, h := r.step.Load(), r.state.Load()
	s := TenantStatus{InDoubt: step.Recovering || step.Complete.IsZero(), Err: step.err, LastGood: step.Good, exists: h.newest() != nil}
	s.Fresh = s.exists && step.fresh(now, k.times.Load().fresh)
	switch {
	case s.exists:
		s.Ready = !step.Good.IsZero() && protocol.Age(now, step.Good) <= h.newest().Timing.SignFor && !errors.Is(step.err, errClock)
	case h != nil && h.Plan.Dead:
		s.Ready, s.Fresh = true, step.fresh(now, k.times.Load().fresh)
	}
	if s.Err == nil && !s.Fresh {
		s.Err = s.reason(now, step)
	}
	return s
}

func (s *TenantStatus) reason(now time.Time, step *syncStatus) error {
	switch {
	case s.InDoubt && step.Recovering && step.Until.After(now):
		return fmt.Errorf("in doubt for another %v: the store may have lost something, and others get the time to put it back", step.Until.Sub(now).Round(time.Second))
	case s.InDoubt:
		return errors.New("in doubt: the store may have lost something, and others get the time to put it back")
	case !s.exists:
		return errors.New("the store has no ring of it")
	case s.LastGood.IsZero():
		return errors.New("no good sync yet")
	}
	return fmt.Errorf("the last good sync was %v ago", protocol.Age(now, s.LastGood).Round(time.Millisecond))
}

// WaitReady waits until every ring is known and in step, and returns nil, or until ctx
// ends, and returns why it is not. A fresh instance needs it before it signs.
func (k *Keyring) WaitReady(ctx context.Context) error {
	for {
		moved := k.loop.moved()
		s := k.Status()
		if s.Ready {
			return nil
		}
		select {
		case <-moved:
		case <-k.done:
			return &ring.Error{Text: "the keyring is closed"}
		case <-ctx.Done():
			return fmt.Errorf("rotation: not ready: %w (%w)", cannotTell(s.Err), ctx.Err())
		}
	}
}

// isTenant reports whether a tenant may have that name.
func isTenant(name string) bool {
	return name != "" && len(name) <= ring.MaxTenantBytes && utf8.ValidString(name)
}
