package revocations

import (
	"context"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier/revocations/internal/rules"
)

// nudgeGap is the least time between two syncs that nudges ask for. Any client of the store can send
// nudges, so a flood of them must cost little.
const nudgeGap = 20 * time.Millisecond

// run keeps the list in sync until ctx ends. It is the only goroutine that syncs. It owns two more: one
// that listens for nudges, and one that notices when the list grows stale.
func (l *List) run(ctx context.Context) {
	defer close(l.done)
	var wg sync.WaitGroup
	defer wg.Wait()
	if !l.cfg.Transient {
		wg.Go(func() { l.listen(ctx) })
	}
	wg.Go(func() { l.watchStale(ctx) })
	h := fnv.New64a()
	h.Write([]byte(l.cfg.Instance))
	jitter := rand.New(rand.NewPCG(h.Sum64(), 0)) // not secret, and a simulation repeats itself
	l.poll(ctx)
	for ctx.Err() == nil {
		// A fifth more or less, so that a fleet that was started at one moment does not poll at one.
		l.syncNudgedFor(ctx, l.untilPoll(time.Duration(float64(l.cfg.Poll)*(0.8+0.4*jitter.Float64()))))
		l.poll(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.publishLocked(ErrClosed)
}

// untilPoll returns how long to wait for the next poll: poll, or less if the doubt of all buckets may end before.
// A list that starts is ready that much sooner.
func (l *List) untilPoll(poll time.Duration) time.Duration {
	now, left := l.cfg.Now(), time.Duration(0)
	for _, b := range l.all {
		if b.state.Doubt {
			left = max(left, b.state.Until.Sub(now))
		}
	}
	if left > 0 {
		return min(poll, left)
	}
	return poll
}

// poll syncs all buckets. Nudges from before need no sync of their own then.
func (l *List) poll(ctx context.Context) {
	for i := range l.nudges {
		l.nudges[i].Store(false)
	}
	l.readForRoom()
	l.tryAgain()
	l.sync(ctx, l.all)
	l.discardBroken(ctx)
	l.makeFirstKey(ctx)
	l.collect(ctx)
}

// syncNudgedFor syncs the buckets that are nudged, until the time of the next poll.
func (l *List) syncNudgedFor(ctx context.Context, d time.Duration) {
	poll := time.NewTimer(d)
	defer poll.Stop()
	woken := l.woken
	gap := time.NewTimer(time.Hour)
	defer gap.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
			return
		case <-gap.C:
			woken = l.woken
		case <-woken:
			l.syncNudged(ctx)
			woken = nil
			gap.Reset(nudgeGap)
		}
	}
}

// syncNudged syncs the buckets that were nudged, and nudges those in which something was new: a sync
// acknowledges only changes that were applied before it, and a person may be waiting for that.
func (l *List) syncNudged(ctx context.Context) {
	var buckets []*bucket
	var before []rotation.Place
	for _, b := range l.all {
		if l.nudges[b.index].Swap(false) {
			buckets, before = append(buckets, b), append(before, b.place)
		}
	}
	l.sync(ctx, buckets)
	for i, b := range buckets {
		if b.place != before[i] {
			l.nudge(b.index)
		}
	}
}

// nudge notes that a bucket may have changed, and wakes the loop. Any goroutine may call it, with any
// number. It never waits.
func (l *List) nudge(bucket int) {
	if bucket < 0 || bucket >= rotation.Buckets {
		return
	}
	l.nudges[bucket].Store(true)
	select {
	case l.woken <- struct{}{}:
	default:
	}
}

// listen waits for nudges from the store. They only save time: the poll finds every change.
func (l *List) listen(ctx context.Context) {
	said := false
	for ctx.Err() == nil {
		err := l.store.Listen(ctx, l.nudge)
		if ctx.Err() != nil {
			return
		}
		if !said && err != nil && l.view.Load().status.Unread == nil {
			said = true
			l.cfg.Logger.Warn("revocations: the store cannot be listened to: changes are found with the next poll", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(l.cfg.Poll):
		}
	}
}

// watchStale replaces the view when the list grows stale, so that look-ups need no clock. It looks
// once a poll besides: a machine that slept has a monotonic clock that stood still.
func (l *List) watchStale(ctx context.Context) {
	for {
		l.mu.Lock()
		l.publishLocked(nil)
		synced := l.view.Load().status.Synced
		l.mu.Unlock()
		wait := l.cfg.Poll
		if left := l.cfg.MaxStale - rules.Age(l.cfg.Now(), synced); !synced.IsZero() && left >= 0 {
			wait = min(wait, left+time.Millisecond)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}
