package revocations

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/verifier/revocations/internal/rules"
)

// A discarder is a store that can remove a group which it cannot read: a person or another program put
// something else in its place. [rediskeys.Store] is one.
type discarder interface {
	Discard(ctx context.Context, tenant string) (removed bool, err error)
}

// discardAtOnce is how many groups one poll removes at most.
const discardAtOnce = 64

// isBroken reports whether an error of a load says that the group is nothing that keyturn writes.
func isBroken(err error) bool {
	return errors.Is(err, rediskeys.ErrWrongType) || errors.Is(err, rediskeys.ErrTooLarge)
}

// discardBroken removes the groups that cannot be read, so that this instance can put back what it holds of
// them. Otherwise one such group would make the list of every instance stale.
func (l *List) discardBroken(ctx context.Context) {
	store, ok := l.store.(discarder)
	if !ok || l.cfg.Transient {
		return
	}
	left := discardAtOnce
	for _, b := range l.all {
		var names []string
		if b == l.keys.bucket && l.keys.broken && l.holdsKeys() {
			names = append(names, keysGroup)
		}
		for _, g := range slices.Sorted(maps.Keys(b.broken)) {
			if rules.MayDiscard(b.state, b.keyless[g] || l.isShortOf(g)) {
				names = append(names, groupName(g))
			}
		}
		for _, name := range names {
			if left--; left < 0 || ctx.Err() != nil {
				return
			}
			l.discardGroup(ctx, store, b, name)
		}
	}
}

// holdsKeys reports whether the digest keys are held, and none was there that could not be opened.
func (l *List) holdsKeys() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.keys.set) > 0 && l.keysErr == nil
}

func (l *List) discardGroup(ctx context.Context, store discarder, b *bucket, name string) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Deadline)
	defer cancel()
	removed, err := store.Discard(ctx, name)
	if err != nil {
		return // at the next poll
	}
	l.nudge(b.index) // it can be read now
	if removed {
		l.count(&l.alarms.Forged)
		l.cfg.Logger.Error("revocations: a group of the store was nothing that keyturn writes: it was removed, and what this instance holds of it is put back; a person or another program writes to the store", "group", name)
	}
}
