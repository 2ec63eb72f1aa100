package revocations

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/verifier/revocations/internal/codec"
)

// The operations in the log.
const (
	opRevoke  ring.Op = "revoke"
	opRestore ring.Op = "restore" // a holder put back what the store had lost
	opCollect ring.Op = "collect" // ended entries were removed
	opKeys    ring.Op = "keys"    // a digest key was made, put back, or sealed again
)

// keysState is what the list knows of the digest keys.
type keysState struct {
	set    codec.Keys        // heldState.mu guards it
	sealed map[string][]byte // their fields as they were read last; heldState.mu guards it
	bucket *bucket           // in which their group lies
	digest string            // of the group, as it was read last; only the loop uses it
	unread bool              // the group must be read; only the loop uses it
	broken bool              // the group is nothing that keyturn writes; only the loop uses it
}

func (k *keysState) names() (names []string) {
	for _, key := range k.set {
		names = append(names, key.Name())
	}
	return names
}

// current returns the digest keys.
func (l *List) current() codec.Keys {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.keys.set
}

// readKeys reads the digest keys, and puts back those that the store has lost.
func (l *List) readKeys(ctx context.Context) error {
	for range maxTries {
		s := l.load(ctx, []string{keysGroup})[0]
		if l.keys.broken = isBroken(s.Err); s.Err != nil {
			return s.Err
		}
		lost := l.joinKeys(s.Fields)
		l.keys.digest, l.keys.unread = s.Digest, false
		if len(lost) == 0 || l.cfg.Transient {
			return nil
		}
		code, err := l.writeKeys(ctx, s.Digest, lost)
		switch {
		case err != nil:
			return err
		case code == rotation.Committed:
			l.keys.digest = ""
			l.count(&l.alarms.Restored)
			return nil
		}
	}
	return errBusy
}

// errBusy reports that others changed a group each time that this process was about to.
var errBusy = errors.New("revocations: the group changes faster than it can be written")

// maxTries bounds how often a write is tried again because another instance was faster.
const maxTries = 16

// joinKeys adds the digest keys of fields to those that are held, and returns those that are held and
// missing in fields.
func (l *List) joinKeys(fields map[string][]byte) (lost codec.Keys) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var failed error
	stored := make(map[uint32]bool)
	for _, field := range slices.Sorted(maps.Keys(fields)) {
		k, _, err := codec.OpenKey(*l.box.Load(), field, fields[field])
		if err == nil {
			joined, ok := l.keys.set.With(k)
			if !ok {
				err = fmt.Errorf("there are more than %d", codec.MaxKeys)
			}
			l.keys.set, stored[k.ID] = joined, true
		}
		switch {
		case err == nil:
		case notAKey(err):
			l.alarms.Forged++ // it is no key, so it neither counts nor hides one: its holder puts it back
		case l.keys.heldIn(field) != nil: // sealed under a KEK that this process has not got
			stored[l.keys.heldIn(field).ID] = true
		default:
			failed = fmt.Errorf("%w: field %.64q: %w", ErrDigestKeys, field, err)
		}
	}
	l.keysErr = failed
	l.keys.sealed = make(map[string][]byte, codec.MaxKeys)
	for field, value := range fields {
		if l.keys.heldIn(field) != nil {
			l.keys.sealed[field] = value
		}
	}
	if !slices.Equal(l.keys.set, l.view.Load().keys) {
		l.publishLocked(nil) // an entry that is made under a new key now counts at once
	}
	select {
	case <-l.keysAt:
	default:
		close(l.keysAt)
	}
	for _, k := range l.keys.set {
		if !stored[k.ID] {
			lost = append(lost, k)
		}
	}
	return lost
}

// heldIn returns the digest key that is held and whose field that is, or nil. A list that holds a key need
// not open it: an instance that runs does not need the KEK under which the key was sealed again.
func (ks *keysState) heldIn(field string) *codec.Key {
	for _, k := range ks.set {
		if codec.FieldPrefix+k.Name() == field {
			return k
		}
	}
	return nil
}

// writeKeys writes digest keys to the store, if the group is as it was read.
func (l *List) writeKeys(ctx context.Context, digest string, keys codec.Keys) (rotation.Code, error) {
	set := make(map[string][]byte)
	for _, k := range keys {
		field, value, err := codec.SealKey(*l.box.Load(), k)
		if err != nil {
			return 0, fmt.Errorf("%w: %w", ErrDigestKeys, err)
		}
		set[field] = value
	}
	result, err := l.write(ctx, rotation.Change{Tenant: keysGroup, If: digest, Set: set, Op: opKeys}, keys[0], codec.Logged{})
	return result.Code, err
}

// write writes a change, and logs it under k with what logged has.
func (l *List) write(ctx context.Context, c rotation.Change, k *codec.Key, logged codec.Logged) (rotation.Result, error) {
	c.Actor, c.Nonce = l.cfg.Instance, rand.Text()
	logged.Op, logged.Group, logged.Actor, logged.Nonce = string(c.Op), c.Tenant, c.Actor, c.Nonce
	c.MAC = k.SealLog(logged)
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Deadline)
	defer cancel()
	result, err := l.store.Write(ctx, c)
	if result.Code == rotation.Committed {
		result.Place.Nonce = c.Nonce
	}
	return result, err
}

// load reads groups with one call.
func (l *List) load(ctx context.Context, groups []string) []rotation.Snapshot {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Deadline)
	defer cancel()
	return l.store.Load(ctx, groups)
}

// makeKey makes the first digest key, unless the store has one. It returns the key under which entries
// are made.
func (l *List) makeKey(ctx context.Context) (*codec.Key, error) {
	for range maxTries {
		s := l.load(ctx, []string{keysGroup})[0]
		if s.Err != nil {
			return nil, s.Err
		}
		l.joinKeys(s.Fields)
		l.mu.Lock()
		first, err := l.keys.set.First(), l.keysErr
		l.publishLocked(nil)
		l.mu.Unlock()
		if first != nil || err != nil {
			return first, err
		}
		k, err := codec.NewKey()
		if err != nil {
			return nil, err
		}
		code, err := l.writeKeys(ctx, s.Digest, codec.Keys{k})
		if err != nil && code != 0 {
			return nil, err
		}
		// Committed, in conflict, or unknown: read it again.
	}
	return nil, errBusy
}

// makeFirstKey makes a digest key for a store without one, so that acknowledgements can be sealed. A list
// that is in doubt does not: a holder may put one back.
func (l *List) makeFirstKey(ctx context.Context) {
	b := l.keys.bucket
	if l.cfg.Transient || len(l.current()) > 0 || b.state.Good.IsZero() || b.state.Doubt || ctx.Err() != nil {
		return
	}
	if _, err := l.makeKey(ctx); err != nil && ctx.Err() == nil {
		l.cfg.Logger.Warn("revocations: no digest key could be made", "error", err)
	}
}

// keyToWrite returns the digest key for a new entry. If the store has no key, it makes one, and waits
// before that: an acknowledgement shows an instance that may hold one which the store has lost. Two keys would
// make each look-up slower, and none is ever removed.
func (l *List) keyToWrite(ctx context.Context) (*codec.Key, error) {
	select {
	case <-l.keysAt:
	case <-l.done:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, l.whyNot(ctx)
	}
	l.mu.Lock()
	first, err := l.keys.set.First(), l.keysErr
	l.mu.Unlock()
	if first != nil || err != nil {
		return first, err
	}
	ackCtx, cancel := context.WithTimeout(ctx, l.cfg.Deadline)
	defer cancel()
	acks, _, err := l.store.Acks(ackCtx, l.keys.bucket.index)
	if err != nil {
		return nil, err
	}
	if len(acks) > 0 {
		if err := l.WaitReady(ctx); err != nil {
			return nil, err
		}
	}
	return l.makeKey(ctx)
}

// whyNot returns why something did not happen until ctx ended.
func (l *List) whyNot(ctx context.Context) error {
	if err := l.view.Load().status.Unread; err != nil {
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	return ctx.Err()
}

// count adds one to an alarm.
func (l *List) count(alarm *uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	*alarm++
}
