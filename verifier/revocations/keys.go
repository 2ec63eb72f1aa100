package revocations

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/verifier/revocations/internal/codec"
	"github.com/keyturn/keyturn/verifier/revocations/internal/table"
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
	failed bool              // it could not be written: the next poll tries again; only the loop uses it
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

// readKeys reads the digest keys, and puts back those that the store has lost. If the store refuses that, the next poll
// tries again: this list can tell all the same.
func (l *List) readKeys(ctx context.Context) error {
	for range maxTries {
		s := l.load(ctx, []string{keysGroup})[0]
		if l.keys.broken = isBroken(s.Err); s.Err != nil {
			return s.Err
		}
		l.yieldKeys(s.Fields)
		lost := l.joinKeys(s.Fields)
		l.keys.digest, l.keys.unread = s.Digest, false
		junk := l.junkKeys(s.Fields)
		if len(lost)+len(junk) == 0 || l.cfg.Transient {
			return nil
		}
		if len(junk) > 0 { // it goes first: it may leave no room for a key
			if code, err := l.writeKeys(ctx, s.Digest, nil, junk); err != nil {
				l.keysNotPutBack(ctx, code, err)
				return nil
			}
			continue
		}
		code, err := l.writeKeys(ctx, s.Digest, lost, nil)
		switch {
		case err != nil:
			l.keysNotPutBack(ctx, code, err)
			return nil
		case code == rotation.Committed:
			l.keys.digest = ""
			l.count(&l.alarms.Restored)
			return nil
		}
	}
	l.keys.failed = true
	return errBusy
}

// keysNotPutBack notes that the group of the digest keys still lacks what it has lost, or has junk.
func (l *List) keysNotPutBack(ctx context.Context, code rotation.Code, err error) {
	l.keys.failed = true
	l.mu.Lock()
	defer l.mu.Unlock()
	l.notPutBackLocked(ctx, keysGroup, code, err)
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
	var failed, unopened error
	stored := make(map[uint32]bool)
	for _, field := range slices.Sorted(maps.Keys(fields)) {
		id, err := l.joinKeyLocked(field, fields[field])
		held := l.keys.heldIn(field)
		switch {
		case err == nil:
			stored[id] = true
		case notAKey(err):
			l.alarms.Forged++ // it is no key, so it neither counts nor hides one: its holder puts it back
			if codec.NamesKey(field) {
				unopened = cmp.Or(unopened, unopenedError(field))
			}
		case held != nil: // sealed under a KEK that this process has not got
			stored[held.ID] = true
		default:
			failed = fmt.Errorf("%w: field %.64q: %w", ErrDigestKeys, field, err)
		}
	}
	if len(l.keys.set) == 0 {
		failed = cmp.Or(failed, unopened)
	}
	if failed != nil && l.keysErr == nil && !l.view.Load().status.Ready {
		l.cfg.Logger.Error("revocations: the digest keys in the store cannot be used: tokens are answered with 503", "error", failed)
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

// joinKeyLocked adds the digest key of a field to those that are held. Another key of the ID of a held one is
// forged: without a KEK a person can look for one. The caller holds mu.
func (l *List) joinKeyLocked(field string, value []byte) (id uint32, err error) {
	k, _, err := codec.OpenKey(*l.box.Load(), field, value)
	if err != nil {
		return 0, err
	}
	joined, ok := l.keys.set.With(k)
	switch {
	case ok:
		l.keys.set = joined
		return k.ID, nil
	case joined.Find(k.ID) != nil:
		return 0, codec.ErrForged
	}
	return 0, fmt.Errorf("there are more than %d", codec.MaxKeys)
}

// unopenedError is why a list does not begin that holds no digest key, where the store has something named as
// one. Either this process has not the KEK of the others, or has one where they have none: then everything
// that they have revoked would count for nothing, and none of them could open a key that this process makes. Or
// the key was damaged: a process that holds it puts it back.
func unopenedError(field string) error {
	return fmt.Errorf("%w: this process cannot open the field %.64q, and has no other key: give it the KEK that the other instances have, or none if they have none", ErrDigestKeys, field)
}

// maxKeysGroup is more than the fields of all digest keys have, in bytes. Beyond it what this process does not
// hold is junk, which would leave no room to put a key back.
const maxKeysGroup = 64 << 10

// junkKeys returns the fields of the group of the digest keys to be removed. A process without a key knows of
// none: it may be the one that has the wrong KEK.
func (l *List) junkKeys(fields map[string][]byte) (junk []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	big := sizeOf(fields) > maxKeysGroup
	for field, value := range fields {
		if len(l.keys.set) == 0 || l.keys.heldIn(field) != nil {
			continue
		}
		_, _, err := codec.OpenKey(*l.box.Load(), field, value)
		if err != nil && (big || !codec.MayBeKey(field, value)) {
			junk = append(junk, field)
		}
	}
	return junk
}

// sizeOf returns how many bytes the fields of a group have.
func sizeOf(fields map[string][]byte) (size int) {
	for field, value := range fields {
		size += len(field) + len(value)
	}
	return size
}

// yieldKeys takes another key of the ID of a held one, if this list has answered nothing yet: a person may
// have written the held one, and a holder put back the other. All groups are read again under it. Only the
// loop calls it.
func (l *List) yieldKeys(fields map[string][]byte) {
	if !l.keys.bucket.state.Good.IsZero() || l.cfg.Transient {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for field, value := range fields {
		k, _, err := codec.OpenKey(*l.box.Load(), field, value)
		if err != nil {
			continue
		}
		if held := l.keys.set.Find(k.ID); held == nil || held.Same(k) {
			continue
		}
		l.dropLocked(func(e table.Entry) bool { return e.Key == k.ID }, false)
		l.keys.set = l.keys.set.Replace(k)
		for _, b := range l.all {
			b.past, b.been = nil, nil
			for _, g := range b.groups {
				b.unread[g] = true
			}
		}
	}
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

// writeKeys writes digest keys to the store, and removes fields, if the group is as it was read.
func (l *List) writeKeys(ctx context.Context, digest string, keys codec.Keys, remove []string) (rotation.Code, error) {
	set := make(map[string][]byte)
	for _, k := range keys {
		field, value, err := codec.SealKey(*l.box.Load(), k)
		if err != nil {
			return 0, fmt.Errorf("%w: %w", ErrDigestKeys, err)
		}
		set[field] = value
	}
	k := keys.First()
	if k == nil {
		k = l.current().First()
	}
	result, err := l.write(ctx, rotation.Change{Tenant: keysGroup, If: digest, Set: set, Delete: remove, Op: opKeys}, k, codec.Logged{})
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
		code, err := l.writeKeys(ctx, s.Digest, codec.Keys{k}, nil)
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
	if l.cfg.Transient || l.hasKeys() || b.state.Good.IsZero() || b.state.Doubt || ctx.Err() != nil {
		return
	}
	if _, err := l.makeKey(ctx); err != nil && ctx.Err() == nil {
		l.cfg.Logger.Warn("revocations: no digest key could be made", "error", err)
	}
}

// hasKeys reports whether a digest key is held, or the store has one that cannot be used.
func (l *List) hasKeys() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.keys.set) > 0 || l.keysErr != nil
}

// keyToWrite returns the digest key for a new entry. If the store has no key, it makes one, and waits
// before that: an acknowledgement shows an instance that may hold one which the store has lost. Two keys would
// make each look-up slower, and none is ever removed. A store that was emptied has no acknowledgements, so a
// command waits for a poll of those that run, and looks again.
func (l *List) keyToWrite(ctx context.Context) (*codec.Key, error) {
	select {
	case <-l.keysAt:
	case <-l.done:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, l.whyNot(ctx)
	}
	for waited := !l.cfg.Transient || l.cfg.TrustFirstRead; ; waited = true {
		l.mu.Lock()
		first, err := l.keys.set.First(), l.keysErr
		l.mu.Unlock()
		if first != nil || err != nil {
			return first, err
		}
		acks, _, err := l.acks(ctx, l.keys.bucket.index)
		if err != nil {
			return nil, err
		}
		if len(acks) > 0 {
			if err := l.WaitReady(ctx); err != nil {
				return nil, err
			}
		}
		if len(acks) > 0 || waited {
			return l.makeKey(ctx)
		}
		if err := l.awaitPoll(ctx); err != nil {
			return nil, err
		}
	}
}

// awaitPoll waits as long as an instance with the default settings takes from one poll to the next, and to put back a
// digest key; or until a digest key is known.
func (l *List) awaitPoll(ctx context.Context) error {
	polled := time.NewTimer(l.cfg.Poll + l.cfg.Poll/5 + 2*defaultDeadline)
	defer polled.Stop()
	for !l.hasKeys() {
		l.mu.Lock()
		changed := l.changed
		l.mu.Unlock()
		if l.hasKeys() {
			break
		}
		select {
		case <-changed:
		case <-polled.C:
			return nil
		case <-l.done:
			return ErrClosed
		case <-ctx.Done():
			return l.whyNot(ctx)
		}
	}
	return nil
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
