package revocations

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier/revocations/internal/codec"
	"github.com/keyturn/keyturn/verifier/revocations/internal/rules"
)

// Applied says which instances have applied a revocation.
type Applied struct {
	By      []string `json:"by"`      // names of instances that refuse the tokens
	Missing []string `json:"missing"` // of those that have not said so
	Holders int      `json:"holders"` // how many there are together
}

// watchEvery is how often Watch asks the store.
const watchEvery = 50 * time.Millisecond

// Watch waits until every live instance has acknowledged the revocation, or until ctx ends. An instance
// that was there at first and is silent since counts as missing: it may run on, cut off from the store.
// It refuses everything then, MaxStale after its last sync, unless it has StaleOK.
//
// If ctx ends first, the error is that of ctx, and Applied says who is missing. Without any instance
// Watch returns after 1.2 Poll + Deadline, and Holders is 0. If the store has told a listener of the
// change, there is an instance, and a person may have removed its acknowledgement: Watch waits on.
func (l *List) Watch(ctx context.Context, r Receipt) (Applied, error) {
	var roster rules.Roster
	begin, last := l.cfg.Now(), error(nil)
	for {
		raw, now, err := l.acks(ctx, r.bucket)
		if err == nil {
			roster = rules.RosterOf(r.nonce, l.openAcks(raw, r.bucket), now, l.cfg.Now(), 3*l.cfg.gap(), roster)
			nobody := r.told == 0 && rules.Age(l.cfg.Now(), begin) > l.cfg.gap()
			if len(roster.Missing) == 0 && (len(roster.Applied) > 0 || nobody) {
				return appliedOf(roster), nil
			}
		}
		last = err
		select {
		case <-ctx.Done():
			if last != nil {
				return appliedOf(roster), fmt.Errorf("revocations: watch: %w: %w", ctx.Err(), last)
			}
			return appliedOf(roster), fmt.Errorf("revocations: watch: %w", ctx.Err())
		case <-time.After(watchEvery):
		}
	}
}

func appliedOf(r rules.Roster) Applied {
	return Applied{By: slices.Clone(r.Applied), Missing: slices.Clone(r.Missing), Holders: len(r.Applied) + len(r.Missing)}
}

func (l *List) acks(ctx context.Context, bucket int) ([]rotation.RawAck, time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Deadline)
	defer cancel()
	return l.store.Acks(ctx, bucket)
}

// openAcks returns the acknowledgements that are authentic, of instances that have not ended.
func (l *List) openAcks(raw []rotation.RawAck, bucket int) []codec.Ack {
	keys := l.current()
	var all []codec.Ack
	for _, r := range raw {
		if a, err := codec.OpenAck(keys, r.Instance, bucket, r.Sealed); err == nil && !r.Parted() {
			all = append(all, a)
		}
	}
	return all
}

// ackOf returns the acknowledgement of a bucket, or nil: without a digest key nothing can be
// authenticated. The caller holds mu.
func (l *List) ackOf(b *bucket, at time.Time, instance string) []byte {
	k := l.keys.set.First()
	if k == nil || b.place == (rotation.Place{}) || l.cfg.Transient {
		return nil
	}
	held := l.heldAt(b)
	if !b.exact || l.partial {
		held.Minute = codec.Forever // no reader compares it
	}
	a := codec.Ack{Instance: instance, Bucket: b.index, At: at, Good: b.state.Since, Place: b.place.Nonce, Last: held.Last, Held: held.Print, Minute: held.Minute, Applied: b.applied}
	if !b.state.Since.IsZero() && b.state.Complete.Sub(b.state.Since) >= 2*l.cfg.gap() {
		a.Run = b.state.Run
	}
	return k.SealAck(a)
}

// ended is the name under which an instance that ends leaves what it can say of the store. It stands for
// no instance: only one that starts reads it.
const ended = "\x00ended"

// part leaves what this instance knows of the store, and removes its acknowledgements. The loop has
// ended.
func (l *List) part(ctx context.Context) error {
	if l.cfg.Transient {
		return nil
	}
	now := l.cfg.Now()
	var requests []rotation.SyncRequest
	var indexes []int
	l.mu.Lock()
	for _, b := range l.all {
		if b.err == nil && b.exact && !b.state.Since.IsZero() {
			requests = append(requests, rotation.SyncRequest{Bucket: b.index, Place: b.place, Ack: l.ackOf(b, now, ended)})
		}
		indexes = append(indexes, b.index)
	}
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 2*l.cfg.Deadline)
	defer cancel()
	if len(requests) > 0 {
		l.store.Sync(ctx, ended, requests) // if it fails, the next instance that starts waits longer
	}
	if err := l.store.Forget(ctx, l.cfg.Instance, indexes); err != nil {
		return fmt.Errorf("revocations: close: %w", err)
	}
	return nil
}
