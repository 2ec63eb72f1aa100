package revocations

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier/revocations/internal/codec"
	"github.com/keyturn/keyturn/verifier/revocations/internal/rules"
	"github.com/keyturn/keyturn/verifier/revocations/internal/table"
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
//
// If the store loses the revocation meanwhile, Watch writes it again, and the error is [ErrUndone], besides
// that of ctx: a person may remove it once more.
func (l *List) Watch(ctx context.Context, r Receipt) (Applied, error) {
	bucket := int(bucketsOf()[groupOf(r.entry.Digest, len(l.prints))])
	var roster rules.Roster
	begin, undone := l.cfg.Now(), error(nil)
	for {
		again, err := l.keep(ctx, &r)
		if again {
			begin, undone = l.cfg.Now(), ErrUndone
		}
		var raw []rotation.RawAck
		var now time.Time
		if err == nil {
			raw, now, err = l.acks(ctx, bucket)
		}
		if err == nil {
			roster = rules.RosterOf(r.nonce, l.openAcks(raw, bucket), now, l.cfg.Now(), 3*l.cfg.gap(), roster)
			alone := r.told == 0 && rules.Age(l.cfg.Now(), begin) > l.cfg.gap()
			if len(roster.Missing) == 0 && (len(roster.Applied) > 0 || alone) {
				return appliedOf(roster), undone
			}
		}
		select {
		case <-ctx.Done():
			return appliedOf(roster), errors.Join(undone, unfinished(ctx, err))
		case <-time.After(watchEvery):
		}
	}
}

// unfinished returns the error of a watch whose ctx has ended. last is why the store could not be asked, or
// nil.
func unfinished(ctx context.Context, last error) error {
	if last != nil {
		return fmt.Errorf("revocations: watch: %w: %w", ctx.Err(), last)
	}
	return fmt.Errorf("revocations: watch: %w", ctx.Err())
}

// keep writes the revocation of r again if the store has lost it, and notes in r how. It reports whether
// it did. A revocation is lost with its digest key too.
func (l *List) keep(ctx context.Context, r *Receipt) (again bool, err error) {
	k := l.current().Find(r.entry.Key)
	if k == nil {
		return false, ErrDigestKeys
	}
	s := l.load(ctx, []string{groupName(groupOf(r.entry.Digest, len(l.prints))), keysGroup})
	if err := cmp.Or(s[0].Err, s[1].Err); err != nil {
		return false, err
	}
	if rules.Ended(r.entry, l.cfg.Now()) {
		return false, nil
	}
	field := codec.FieldPrefix + k.Name()
	if _, _, err := codec.OpenKey(*l.box.Load(), field, s[1].Fields[field]); notAKey(err) || s[1].Fields[field] == nil {
		if code, err := l.writeKeys(ctx, s[1].Digest, codec.Keys{k}, nil); err != nil || code != rotation.Committed {
			return false, cmp.Or(err, errBusy)
		}
		again = true
	}
	stored, ok := l.storedEntry(s[0], r.entry.Digest)
	if ok && !rules.Lacks(stored, r.entry) {
		return again, nil
	}
	if replaced, err := l.replacedInStore(ctx, r, k); err != nil || replaced {
		return again, err
	}
	written, err := l.commit(ctx, r.entry, k)
	if err != nil {
		return again, err
	}
	r.nonce, r.told = written.nonce, written.told
	return true, nil
}

// replacedInStore reports whether the store has a revocation of the whole tenant that does what r does. An
// instance that removes a replaced entry writes the other first, so a caller looks for the entry before.
func (l *List) replacedInStore(ctx context.Context, r *Receipt, k *codec.Key) (bool, error) {
	tenant := k.Digest(table.Tenant, r.Tenant, "")
	s := l.load(ctx, []string{groupName(groupOf(tenant, len(l.prints)))})[0]
	if s.Err != nil {
		return false, s.Err
	}
	whole, ok := l.storedEntry(s, tenant)
	return ok && rules.Replaces(whole, r.entry, l.cfg.ClockSkew), nil
}

func appliedOf(r rules.Roster) Applied {
	return Applied{By: slices.Clone(r.Applied), Missing: slices.Clone(r.Missing), Holders: len(r.Applied) + len(r.Missing)}
}

// An Instance is a process that asks the list, as it says itself.
type Instance struct {
	Name   string    `json:"instance"`
	At     time.Time `json:"at"`      // when it last said so, by its own clock
	Live   bool      `json:"live"`    // of late, so that [List.Watch] would wait for it
	InSync bool      `json:"in_sync"` // it knew then that the store had lost nothing
}

// Instances returns the instances that have acknowledged the list within a day and have not ended, sorted by
// name. One that is not live has crashed, or is cut off. Without a digest key none has acknowledged anything.
func (l *List) Instances(ctx context.Context) ([]Instance, error) {
	raw, now, err := l.acks(ctx, l.keys.bucket.index) // each instance acknowledges each bucket
	if err != nil {
		return nil, fmt.Errorf("revocations: %w", err)
	}
	var all []Instance
	for _, a := range l.openAcks(raw, l.keys.bucket.index) {
		live := rules.Live(a.At, now, 3*l.cfg.gap()) || rules.Live(a.At, l.cfg.Now(), 3*l.cfg.gap())
		all = append(all, Instance{Name: a.Instance, At: a.At, Live: live, InSync: !a.Good.IsZero()})
	}
	slices.SortFunc(all, func(a, b Instance) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
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
	switch {
	case l.short.partial():
		held.Minute = codec.Partial
	case !b.exact:
		held.Minute = codec.Between
	}
	a := codec.Ack{Instance: instance, Bucket: b.index, At: at, Good: b.state.Since, Place: placeOf(b.place), Last: held.Last, Held: held.Print, Minute: held.Minute, Applied: b.applied}
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
