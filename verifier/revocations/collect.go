package revocations

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/verifier/revocations/internal/codec"
	"github.com/keyturn/keyturn/verifier/revocations/internal/rules"
)

// collectAtOnce is how many groups one poll clears of ended entries at most.
const collectAtOnce = 256

// collect removes ended entries from the store, if this instance is the one that does. While the clocks
// differ, nothing is removed. Without a digest key nothing can be logged, and no entry be told from junk.
func (l *List) collect(ctx context.Context) {
	if l.cfg.Transient || ctx.Err() != nil || len(l.current()) == 0 || !l.isCollector() {
		return
	}
	var reads []groupRead
	for _, b := range l.all {
		for _, g := range b.toCollect() {
			if len(reads) < collectAtOnce {
				reads = append(reads, groupRead{b: b, group: g})
			}
		}
	}
	if len(reads) == 0 {
		return
	}
	names := make([]string, len(reads))
	for i := range reads {
		names[i] = groupName(reads[i].group)
	}
	loaded := l.load(ctx, names)
	var wg sync.WaitGroup
	slots := make(chan struct{}, restorers)
	for i, s := range loaded {
		if s.Err != nil {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			l.collectGroup(ctx, reads[i], s)
		})
	}
	wg.Wait()
}

// isCollector reports whether this instance removes ended entries.
func (l *List) isCollector() bool {
	now := l.cfg.Now()
	var names []string
	for name, at := range l.live {
		if rules.Live(at, now, 3*l.cfg.gap()+l.cfg.ClockSkew) {
			names = append(names, name)
		} else {
			delete(l.live, name)
		}
	}
	return rules.Collects(l.cfg.Instance, names)
}

// toCollect returns the groups of b from which something may be removed, sorted. Whether a field is garbage does not
// depend on a clock, and garbage may leave no room for a revocation.
func (b *bucket) toCollect() []int {
	groups := make(map[int]bool)
	if b.err == nil && !b.state.Good.IsZero() {
		maps.Copy(groups, b.garbage)
	}
	if b.mayEnd() {
		maps.Copy(groups, b.ended)
	}
	return slices.Sorted(maps.Keys(groups))
}

// mayEnd reports whether ended entries of b may be removed.
func (b *bucket) mayEnd() bool {
	return b.err == nil && !b.off && !b.state.Doubt && !b.state.Good.IsZero()
}

// collectGroup removes from a group the ended entries, those that the revocation of a whole tenant
// replaces, and the values that no keyturn wrote.
func (l *List) collectGroup(ctx context.Context, read groupRead, s rotation.Snapshot) {
	keys := l.current()
	opened := openGroup(keys, s.Fields, read.group, len(l.prints))
	fields, last := opened.garbage, int64(0)
	ended := read.b.mayEnd()
	l.mu.Lock()
	for _, e := range opened.entries {
		switch {
		case !ended:
		case rules.Ended(e.Entry, time.Unix(l.swept, 0)):
			fields, last = append(fields, codec.Field(e.Digest)), max(last, e.End)
		case l.replacedLocked(e.Entry):
			fields = append(fields, codec.Field(e.Digest))
		}
	}
	l.mu.Unlock()
	if len(fields) > 0 {
		change := rotation.Change{Tenant: groupName(read.group), If: s.Digest, Delete: fields, Op: opCollect,
			Bounds: []ring.Bound{{At: time.Unix(last, 0), From: -ages, To: 0}}}
		if result, err := l.write(ctx, change, keys.First(), codec.Logged{Whole: true}); err != nil || result.Code != rotation.Committed {
			return // at the next poll
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if ended {
		delete(read.b.ended, read.group)
	}
	delete(read.b.garbage, read.group)
	delete(read.b.digests, read.group)
}
