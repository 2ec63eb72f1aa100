package synced

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/rotation/internal/held"
	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/store"
)

// A loop keeps a keyring in sync. One goroutine polls, and syncs the buckets that a nudge or a
// caller names, one sync at a time. So what a sync writes needs no lock. A second goroutine listens
// to the store, and only sets nudges.
//
// Open starts the loop, and Close cancels its context and waits for it. run waits for the listener.
type loop struct {
	k      *Rings     // that it keeps in sync
	jitter *rand.Rand // only the loop's goroutine uses it

	nudges    [store.Buckets]atomic.Bool // by index of the bucket: something in it may have changed
	woken     chan struct{}              // holds an element while there are nudges
	requested chan struct{}              // holds an element while there are pending syncs

	mu       sync.Mutex // guards pending and next
	pending  []*Pending
	nextSync chan struct{} // closed and replaced when a sync ends
}

// A Pending is a request for a sync of a tenant's bucket. Several may be answered by one sync.
type Pending struct {
	tenant  string
	written *Written      // a change that this process has just made, held even if the store loses it; or nil
	begin   func()        // called by the loop before the sync begins; may be nil
	done    chan struct{} // closed when it has ended
	err     error         // why the ring is not in sync, or nil; set before done is closed
}

// init makes l ready to take requests and nudges. run answers them.
func (l *loop) init(k *Rings) {
	l.k, l.jitter = k, held.NewJitter(k.cfg.Instance, 0)
	l.woken, l.requested, l.nextSync = make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{})
}

// run ends the sync that Open has left, if it is not nil, and syncs until ctx ends.
func (l *loop) run(ctx context.Context, left *opening) {
	var wg sync.WaitGroup
	defer wg.Wait()
	if !l.k.cfg.OneShot {
		wg.Go(func() { l.listen(ctx) })
	}
	if l.k.cfg.Snapshot != "" {
		wg.Go(func() { l.k.keepSnapshot(ctx) })
	}
	if left != nil {
		left.finish()
	}
	t := l.newTimers()
	defer t.stop()
	for ctx.Err() == nil {
		l.syncNext(ctx, t)
	}
}

// loopTimers are the timers of a loop. Only the loop's goroutine uses them.
type loopTimers struct {
	poll     *time.Timer
	every    time.Duration // the poll interval for which poll was set
	recovery *time.Timer   // fires when a bucket may stop recovering

	woken <-chan struct{} // loop.woken, or nil for nudgeGap after a nudged sync
	gap   *time.Timer     // fires when that gap is over
}

// newTimers starts the timers. That of the gap does not matter until the first nudge.
func (l *loop) newTimers() *loopTimers {
	return &loopTimers{
		poll:     time.NewTimer(l.untilPoll()),
		every:    l.k.Times.Load().Poll,
		recovery: time.NewTimer(l.recoveryLeft()),
		woken:    l.woken,
		gap:      time.NewTimer(time.Hour),
	}
}

func (t *loopTimers) stop() {
	t.poll.Stop()
	t.recovery.Stop()
	t.gap.Stop()
}

// syncNext waits for the next reason to sync, and syncs.
func (l *loop) syncNext(ctx context.Context, t *loopTimers) {
	// A poll that is due goes first. Among several ready channels the select below chooses at
	// random, and the promise that every instance polls in time must not depend on that.
	select {
	case <-t.poll.C:
		l.poll(ctx, t)
	default:
	}
	if poll := l.k.Times.Load().Poll; poll < t.every {
		t.poll.Reset(l.untilPoll()) // a new ring has a shorter Freshness than those before
		t.every = poll
	}
	select {
	case <-ctx.Done():
		return
	case <-t.poll.C:
		l.poll(ctx, t)
		t.every = l.k.Times.Load().Poll
	case <-t.recovery.C:
		l.syncNow(ctx, l.recoveryOver(), nil)
	case <-t.woken:
		l.syncNudged(ctx)
		t.woken = nil // any client of the store can send nudges, so they must stay cheap
		t.gap.Reset(nudgeGap)
	case <-t.gap.C:
		t.woken = l.woken
	case <-l.requested:
		l.syncRequested(ctx)
	}
	t.recovery.Reset(l.recoveryLeft())
}

// poll syncs all buckets. Nudges from before need no sync of their own then.
func (l *loop) poll(ctx context.Context, t *loopTimers) {
	for i := range l.nudges {
		l.nudges[i].Store(false)
	}
	l.syncNow(ctx, l.k.buckets, nil)
	l.k.watch()
	l.k.wakeSaver()
	t.poll.Reset(l.untilPoll())
}

// untilPoll returns how long to wait for the next poll: the poll interval, give or take a fifth, so
// that a fleet that was started at one moment does not poll at one moment.
func (l *loop) untilPoll() time.Duration {
	poll := l.k.Times.Load().Poll
	if slices.ContainsFunc(l.k.buckets, func(b *Bucket) bool { return b.unreached && b.state.First() }) {
		poll = min(poll, firstPoll)
	}
	return time.Duration(float64(poll) * (0.8 + 0.4*l.jitter.Float64()))
}

// recoveryLeft returns how long it takes until the first bucket may stop recovering, or an hour.
func (l *loop) recoveryLeft() time.Duration {
	now, least := l.k.cfg.Now(), time.Hour
	for _, b := range l.k.buckets {
		if left := b.state.Until.Sub(now); b.state.Recovering && left > 0 {
			least = min(least, left)
		}
	}
	return least
}

// recoveryOver returns the buckets that stop recovering with their next sync.
func (l *loop) recoveryOver() []*Bucket {
	now := l.k.cfg.Now()
	var ended []*Bucket
	for _, b := range l.k.buckets {
		if b.state.Recovering && !now.Before(b.state.Until) {
			ended = append(ended, b)
		}
	}
	return ended
}

// syncNow syncs buckets, and wakes the goroutines that wait for the end of a sync. compare names
// tenants whose digests are compared although it is not their turn.
func (l *loop) syncNow(ctx context.Context, buckets []*Bucket, compare map[string]bool) {
	if len(buckets) == 0 {
		return
	}
	(&syncRun{k: l.k, ctx: ctx, buckets: buckets, compare: compare}).run()
	l.endSync()
}

// endSync wakes the goroutines that wait for the end of a sync.
func (l *loop) endSync() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.nextSync)
	l.nextSync = make(chan struct{})
}

// nextEnd returns a channel that is closed when the next sync has ended.
func (l *loop) nextEnd() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nextSync
}

// listen waits for nudges from the store until ctx ends. They only save time. If they are lost, the
// poll still finds every change, so listening begins again a poll later. An error is logged once, and
// only if the polls reach the store: otherwise they have logged that.
func (l *loop) listen(ctx context.Context) {
	failed, said := 0, false
	for ctx.Err() == nil {
		begin := l.k.cfg.Now()
		err := l.k.store.Listen(ctx, l.nudge)
		if ctx.Err() != nil {
			return
		}
		poll := l.k.Times.Load().Poll
		if failed++; protocol.Age(l.k.cfg.Now(), begin) > poll {
			failed, said = 1, false // it has listened
		}
		if failed > 1 && !said && !l.k.down.Load() {
			said = true
			l.k.cfg.Logger.Warn("the store cannot be listened to: changes are found with the next poll", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(poll):
		}
	}
}

// nudge notes that a bucket may have changed, and wakes the loop. Any goroutine may call it, with
// any number. It never waits.
func (l *loop) nudge(bucket int) {
	if bucket < 0 || bucket >= store.Buckets || l.k.byIndex[bucket].Load() == nil {
		return
	}
	l.nudges[bucket].Store(true)
	select {
	case l.woken <- struct{}{}:
	default:
	}
}

// syncNudged syncs the buckets that were nudged.
func (l *loop) syncNudged(ctx context.Context) {
	var buckets []*Bucket
	for _, b := range l.k.buckets {
		if l.nudges[b.index].Swap(false) {
			buckets = append(buckets, b)
		}
	}
	l.syncAndAck(ctx, buckets, nil)
}

// syncAndAck syncs buckets, and nudges those in which something was new. A sync acknowledges only
// changes that were applied before it, and an operator may be waiting to see which instances have
// applied a revocation. So a second sync follows soon.
func (l *loop) syncAndAck(ctx context.Context, buckets []*Bucket, compare map[string]bool) {
	before := make([]store.Place, len(buckets))
	for i, b := range buckets {
		before[i] = b.place
	}
	l.syncNow(ctx, buckets, compare)
	for i, b := range buckets {
		if b.place != before[i] {
			l.nudge(b.index)
		}
	}
}

// request asks the loop for a sync of tenant's bucket, and returns at once. Several requests that
// the loop finds together cost one sync.
func (l *loop) request(tenant string, written *Written, begin func()) *Pending {
	a := &Pending{tenant: tenant, written: written, done: make(chan struct{}), begin: begin}
	l.mu.Lock()
	l.pending = append(l.pending, a)
	l.mu.Unlock()
	select {
	case l.requested <- struct{}{}:
	default:
	}
	return a
}

// syncRequested answers all pending requests with one sync.
func (l *loop) syncRequested(ctx context.Context) {
	l.mu.Lock()
	asks := l.pending
	l.pending = nil
	l.mu.Unlock()
	compare := make(map[string]bool)
	var buckets []*Bucket
	for _, a := range asks {
		if a.begin != nil {
			a.begin() // a request from now on may be about a change that this sync misses
		}
		l.learn(ctx, a)
		b := l.k.byIndex[store.BucketOf(a.tenant)].Load()
		compare[a.tenant] = true
		if b != nil && !slices.Contains(buckets, b) {
			buckets = append(buckets, b)
		}
	}
	l.syncAndAck(ctx, buckets, compare)
	for _, a := range asks {
		a.err = l.result(a.tenant)
		close(a.done)
	}
}

// A Written is a ring as this process has just written it.
type Written struct {
	Facts          ring.Facts     // that the change states
	Made           string         // the nonce of the change if it made the ring
	Base           string         // the digest of the ring that the change was made to
	Ring           store.Snapshot // the ring with the change, at the moment of the change
	Sent, Received time.Time      // before and after the call, by this instance's clock
}

// Note notes the change c that was made.
func (w *Written) Note(c *store.Change) {
	if makesRing(c.Op) {
		w.Made = c.Nonce
	}
}

// learn adds what this process has just written to its copy. It keeps that even if the store loses it before any
// instance has read it, and the next sync restores it. The ring is read again, too.
func (l *loop) learn(ctx context.Context, a *Pending) {
	w := a.written
	if w == nil {
		return
	}
	r := l.k.Ring(a.tenant).opened()
	switch {
	case r != nil:
		l.hold(ctx, r, w)
	case l.k.HoldsAll() && w.Base == "":
		r = l.k.addTenant(a.tenant)
		if l.hold(ctx, r, w) {
			r.own.Store(nil) // nothing was there before, so it is as good as its bucket
		}
	default:
		return
	}
	r.dirty, r.changed, r.bucket.endsStale, r.bucket.sums.stale = true, true, true, true
	r.bucket.touch(r)
	if old := r.copy(); old != nil && !w.Facts.Equal(ring.Facts{}) {
		learned := held.Assemble(old.Learn(w.Facts), old)
		l.k.logEnds(r, old, learned)
		l.k.set(r, learned, old)
	}
}

// hold merges the ring that this process has written with its copy, if the ring before that is the one that was read,
// or held, last: then it is what a read at that moment would have found. Otherwise the copy may be newer than the
// change, and hold does nothing. It reports whether it has merged all of it.
//
// If the change made the ring, what the log told before is about another one: see hear.
func (l *loop) hold(ctx context.Context, r *Ring, w *Written) bool {
	if r.digest != l.k.hash(w.Base) {
		return false
	}
	if w.Made != "" && !r.known() {
		r.news, r.made = nil, w.Made
	}
	run := &syncRun{k: l.k, ctx: ctx}
	_, _, failed, off := run.merge(r, &loadedRing{w.Ring, w.Sent, w.Received})
	return failed == nil && off == nil
}

// result returns why a tenant's ring is not in sync, or nil.
func (l *loop) result(tenant string) error {
	if b := l.k.byIndex[store.BucketOf(tenant)].Load(); b != nil && b.err != nil {
		return b.err
	}
	if r := l.k.Ring(tenant); r != nil {
		return r.syncStatus().Err
	}
	return nil
}

// ErrClosed ends the waiting for a sync that will not come.
var ErrClosed = errors.New("rotation: the keyring is closed")

// Sync asks for a sync of tenant's bucket, with what this process has written or nil, and waits for it. The error wraps
// [keystore.ErrUnavailable].
func (k *Rings) Sync(ctx context.Context, tenant string, written *Written) error {
	return k.await(ctx, k.loop.request(tenant, written, nil))
}

// await waits until a has been answered, ctx ends, or the keyring is closed. The sync goes on if
// ctx ends, since others may wait for it too.
func (k *Rings) await(ctx context.Context, a *Pending) error {
	select {
	case <-a.done:
		return a.err
	case <-k.done:
		return Unavailable(ErrClosed)
	case <-ctx.Done():
		return &ring.Error{Text: "the store has not answered yet", Err: Unavailable(ctx.Err())}
	}
}

// NextSync returns a channel that is closed when the next sync has ended.
func (k *Rings) NextSync() <-chan struct{} { return k.loop.nextEnd() }

// Nudge asks for a sync of every bucket, and does not wait for it.
func (k *Rings) Nudge() {
	for i := range k.byIndex {
		k.loop.nudge(i)
	}
}
