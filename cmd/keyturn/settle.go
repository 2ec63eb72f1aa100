package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

// This file has what a command does before it decides about a ring of which Redis may just have lost
// a part. A command does not know what instances hold. Right after a FLUSHALL one made a second ring
// of a tenant, and another promoted a key that had retired, since a holder with an older ring had put
// back its own first.

// answerTime is how long an instance that holds a bucket takes to acknowledge it after a nudge, and
// more.
const answerTime = 5 * time.Second

// A settler waits until instances have put back what Redis lost.
type settler struct {
	*app
	store  *store
	tenant string
	gap    time.Duration           // between two polls of an instance
	quiet  bool                    // it shows no progress of its own
	until  func(hasRing bool) bool // it need not wait any longer; nil: only the time says so

	// acks returns the authentic acknowledgements in the bucket.
	acks func(context.Context) ([]rotation.Ack, error)
}

// wait waits while the bucket of the tenant may lack something that an instance holds: its log has
// begun, or an instance has put something back, less than two polls ago. Each instance polls once in
// that time. If Redis has none that could hold anything, it does not wait. waited reports whether it
// did.
func (s *settler) wait(ctx context.Context) (waited bool, err error) {
	begin := time.Now()
	var stop func()
	defer func() {
		if stop != nil {
			stop()
		}
	}()
	for nudged, old := 0, map[string]time.Time(nil); ; {
		state, err := s.look(ctx)
		if err != nil || state.left <= 0 || s.until != nil && s.until(state.hasRing) {
			return waited, nil // an error comes again when the ring is read
		}
		if !waited {
			old = s.times(ctx)
			nudged, err = s.store.nudge(ctx, rotation.BucketOf(s.tenant))
			if err == nil && nudged == 0 && state.acks == 0 {
				return false, nil
			}
			waited, stop = true, s.tell(ctx)
		}
		switch age := time.Since(begin); {
		case state.empty && s.answered(ctx, old) >= max(1, nudged):
			return waited, nil
		case state.empty && state.acks == 0 && age > answerTime:
			return waited, nil // those that listen do not hold this bucket
		case age > 4*s.gap+answerTime:
			return waited, exitf(exitCannotTell, "instances still put back what Redis has lost: repeat it when they are done, or give --no-wait if the ring is complete")
		}
		select {
		case <-ctx.Done():
			return waited, ringError(ctx.Err())
		case <-time.After(min(state.left, 200*time.Millisecond)):
		}
	}
}

// times returns when the instances in the bucket have made their acknowledgements.
func (s *settler) times(ctx context.Context) map[string]time.Time {
	ctx, cancel := context.WithTimeout(ctx, ringTime)
	defer cancel()
	times := make(map[string]time.Time)
	acks, _ := s.acks(ctx) // without them it waits for longer
	for _, a := range acks {
		times[a.Instance] = a.At
	}
	return times
}

// answered returns how many instances have acknowledged the bucket since old was read. An instance does
// so only after it has put back what it holds, if the log has begun again: before, it cannot prove its
// place.
func (s *settler) answered(ctx context.Context, old map[string]time.Time) (n int) {
	for instance, at := range s.times(ctx) {
		if before, there := old[instance]; !there || at.After(before) {
			n++
		}
	}
	return n
}

// tell shows on stderr why the command waits, until stop is called.
func (s *settler) tell(ctx context.Context) (stop func()) {
	if s.quiet {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	p := &progress{out: s.stderr, terminal: isTerminal(s.stderr)}
	begin := time.Now()
	go func() {
		defer close(ended)
		p.run(ctx, func() string {
			return fmt.Sprintf("this part of Redis is new or was just restored, so instances may still put keys back: waiting, %v at most (--no-wait does not)",
				max(0, 2*s.gap-time.Since(begin)).Round(time.Second))
		})
	}()
	return func() { cancel(); <-ended }
}

// A bucketState is what Redis says about the past of a bucket.
type bucketState struct {
	left    time.Duration // until instances have had the time to put back what was lost
	empty   bool          // nothing has happened in the bucket
	hasRing bool          // of the tenant
	acks    int
}

// look asks Redis. It is not an instance, so it leaves no acknowledgement.
func (s *settler) look(ctx context.Context) (state bucketState, err error) {
	ctx, cancel := context.WithTimeout(ctx, ringTime)
	defer cancel()
	request := rotation.SyncRequest{Bucket: rotation.BucketOf(s.tenant), Digests: []string{s.tenant}, Acks: true}
	reply := s.store.Sync(ctx, "", []rotation.SyncRequest{request})[0]
	if reply.Err != nil {
		return state, reply.Err
	}
	state.empty, state.acks = len(reply.Changed) == 0, len(reply.Acks)
	state.hasRing = len(reply.Digests) == 1 && reply.Digests[0] != ""
	merged := slices.ContainsFunc(reply.Changed, func(e rotation.LogEntry) bool { return e.Op == ring.OpMerge })
	if state.empty || merged {
		state.left = 2*s.gap - reply.Now.Sub(placeTime(reply.Place, reply.Now))
	}
	return state, nil
}

// placeTime returns when the entry at a place of a Redis log was written: its ID begins with
// milliseconds.
func placeTime(p rotation.Place, now time.Time) time.Time {
	ms, _, _ := strings.Cut(p.ID, "-")
	n, err := strconv.ParseInt(ms, 10, 64)
	if err != nil {
		return now
	}
	return time.UnixMilli(n)
}
