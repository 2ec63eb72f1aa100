package rotation

import (
	"context"
	"errors"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// A loop keeps a keyring in sync. It polls, and syncs the buckets that a nudge or a caller names, one
// sync at a time. It is one goroutine, with another one that listens to the store.
type loop struct {
	k      *Keyring
	jitter *rand.Rand

	nudges [Buckets]atomic.Bool // by index of the bucket
	woken  chan struct{}        // holds one: there are nudges
	asked  chan struct{}        // holds one: there are pending syncs

	mu      sync.Mutex // guards pending and next
	pending []*pendingSync
	next    chan struct{} // closed, and replaced, when a sync has ended
}

// A pendingSync is a request for a sync of a tenant's bucket.
type pendingSync struct {
	tenant  string
	learned ring.Facts    // to be held from now on, whether the store still has them or not
	begin   func()        // called when the sync begins; may be nil
	done    chan struct{} // closed when it has ended
	err     error         // why the ring is not in sync; to be read after done
}

func (l *loop) init(k *Keyring) {
	l.k, l.jitter = k, newJitter(k.cfg.Instance, 0)
	l.woken, l.asked, l.next = make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{})
}

// newJitter returns random numbers that spread instances. They are no secret, and the same each time.
func newJitter(instance string, use uint64) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(instance))
	return rand.New(rand.NewPCG(h.Sum64(), use))
}

func (l *loop) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	if !l.k.cfg.OneShot {
		wg.Go(func() { l.listen(ctx) })
	}
	poll, doubt := time.NewTimer(l.untilPoll()), time.NewTimer(l.recoveryLeft())
	defer poll.Stop()
	defer doubt.Stop()
	every := l.k.times.Load().poll
	woken, gap := l.woken, time.NewTimer(time.Hour)
	defer gap.Stop()
	for {
		// The poll is the guarantee: no other event may delay it without end.
		select {
		case <-poll.C:
			l.poll(ctx)
			poll.Reset(l.untilPoll())
		default:
		}
		if now := l.k.times.Load().poll; now < every {
			poll.Reset(l.untilPoll()) // a ring with a shorter Freshness was found
			every = now
		}
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
			l.poll(ctx)
			poll.Reset(l.untilPoll())
			every = l.k.times.Load().poll
		case <-doubt.C:
			l.syncNow(ctx, l.recovered(), nil)
		case <-woken:
			l.syncNudged(ctx)
			woken = nil // for a while: forged nudges must be cheap
			gap.Reset(nudgeGap)
		case <-gap.C:
			woken = l.woken
		case <-l.asked:
			l.syncRequested(ctx)
		}
		doubt.Reset(l.recoveryLeft())
	}
}

// poll syncs everything.
func (l *loop) poll(ctx context.Context) {
	for i := range l.nudges {
		l.nudges[i].Store(false)
	}
	l.syncNow(ctx, l.k.buckets, nil)
}

// untilPoll returns how long to wait for the next poll.
func (l *loop) untilPoll() time.Duration {
	poll := l.k.times.Load().poll
	return time.Duration(float64(poll) * (0.8 + 0.4*l.jitter.Float64()))
}

// recoveryLeft returns how long it is until the first bucket may have recovered.
func (l *loop) recoveryLeft() time.Duration {
	now, least := l.k.cfg.Now(), time.Hour
	for _, b := range l.k.buckets {
		if left := b.state.Until.Sub(now); b.state.Recovering && left > 0 {
			least = min(least, left)
		}
	}
	return least
}

// recovering returns how many rings are recovering.
func (l *loop) recovering() (n int) {
	for _, b := range l.k.buckets {
		if b.state.Recovering {
			n += len(b.rings)
		}
	}
	return n
}

func (l *loop) recovered() []*bucket {
	now := l.k.cfg.Now()
	var ended []*bucket
	for _, b := range l.k.buckets {
		if b.state.Recovering && !now.Before(b.state.Until) {
			ended = append(ended, b)
		}
	}
	return ended
}

func (l *loop) syncNow(ctx context.Context, buckets []*bucket, compare map[string]bool) {
	if len(buckets) == 0 {
		return
	}
	(&syncRun{k: l.k, ctx: ctx, buckets: buckets, compare: compare}).run()
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.next)
	l.next = make(chan struct{})
}

// moved returns a channel that is closed when the next sync has ended.
func (l *loop) moved() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next
}

// listen listens for changes. A change is a hint: the poll is the guarantee.
func (l *loop) listen(ctx context.Context) {
	for ctx.Err() == nil {
		err := l.k.store.Listen(ctx, l.nudge)
		if ctx.Err() != nil {
			return
		}
		l.k.cfg.Logger.Warn("changes are not heard of at once, but with the next poll", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(l.k.times.Load().poll):
		}
	}
}

func (l *loop) nudge(bucket int) {
	if bucket < 0 || bucket >= Buckets || l.k.byIndex[bucket] == nil {
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
	var buckets []*bucket
	for _, b := range l.k.buckets {
		if l.nudges[b.index].Swap(false) {
			buckets = append(buckets, b)
		}
	}
	l.syncAndAck(ctx, buckets, nil)
}

// syncAndAck syncs buckets, and soon syncs those again that had changed. A sync acknowledges the
// changes that were applied before it, and an operator may be waiting for the acknowledgements of a
// revocation.
func (l *loop) syncAndAck(ctx context.Context, buckets []*bucket, compare map[string]bool) {
	before := make([]Place, len(buckets))
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

// request adds a pending sync. begin may be nil.
func (l *loop) request(tenant string, learned ring.Facts, end func()) *pendingSync {
	a := &pendingSync{tenant: tenant, learned: learned, done: make(chan struct{}), begin: end}
	l.mu.Lock()
	l.pending = append(l.pending, a)
	l.mu.Unlock()
	select {
	case l.asked <- struct{}{}:
	default:
	}
	return a
}

// syncRequested makes one sync for all that are pending.
func (l *loop) syncRequested(ctx context.Context) {
	l.mu.Lock()
	asks := l.pending
	l.pending = nil
	l.mu.Unlock()
	compare := make(map[string]bool)
	var buckets []*bucket
	seen := make(map[*bucket]bool)
	for _, a := range asks {
		if a.begin != nil {
			a.begin() // a later caller may want changes that this sync misses
		}
		l.learn(a)
		b := l.k.byIndex[BucketOf(a.tenant)]
		compare[a.tenant] = true
		if b != nil && !seen[b] {
			seen[b], buckets = true, append(buckets, b)
		}
	}
	l.syncAndAck(ctx, buckets, compare)
	for _, a := range asks {
		a.err = l.result(a.tenant)
		close(a.done)
	}
}

// learn holds the facts that this process has just written. They are known, even if the store loses
// them before any instance has read them.
func (l *loop) learn(a *pendingSync) {
	r := l.k.ring(a.tenant)
	if r == nil || a.learned.Equal(ring.Facts{}) {
		return
	}
	old := r.state.Load()
	if old == nil {
		return
	}
	learned := assemble(old.Learn(a.learned), old)
	r.state.Store(learned)
	learned.applyEnds(old, r.step.Load().Complete)
	r.dirty = true
}

// result returns why a tenant's ring is not in sync, or nil.
func (l *loop) result(tenant string) error {
	if b := l.k.byIndex[BucketOf(tenant)]; b != nil && b.err != nil {
		return b.err
	}
	if r := l.k.ring(tenant); r != nil {
		return r.step.Load().err
	}
	return nil
}

var errClosed = errors.New("rotation: the keyring is closed")

// sync asks for a sync of tenant's bucket, and waits for it. The error wraps
// [keystore.ErrUnavailable].
func (k *Keyring) sync(ctx context.Context, tenant string, learned ring.Facts) error {
	return k.await(ctx, k.loop.request(tenant, learned, nil))
}

func (k *Keyring) await(ctx context.Context, a *pendingSync) error {
	select {
	case <-a.done:
		return a.err
	case <-k.done:
		return cannotTell(errClosed)
	case <-ctx.Done():
		return &ring.Error{Text: "the store has not answered yet", Err: cannotTell(ctx.Err())}
	}
}
