package revocations

import (
	"context"
	"errors"
	"hash/fnv"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier/revocations/internal/codec"
	"github.com/keyturn/keyturn/verifier/revocations/internal/rules"
	"github.com/keyturn/keyturn/verifier/revocations/internal/table"
)

const (
	loadAtOnce = 256 // groups in one call, which has to finish within its deadline
	loaders    = 4   // calls at once: this process opens entries while the store reads others
	restorers  = 8   // writes at once

	// lostAtOnce is how many groups that lack something are read again in one round. An emptied store
	// lacks all of them, and one round puts back some thousands.
	lostAtOnce = 4096

	// restoreFor bounds how long one sync puts back, so that the next poll is not late. The rest
	// waits for the next sync, which follows at once.
	restoreFor = time.Second
)

// A groupRead is a group that was read.
type groupRead struct {
	b        *bucket
	group    int
	snapshot rotation.Snapshot
}

// A lostGroup is a group that lacks something that is held.
type lostGroup struct {
	b       *bucket
	group   int
	digest  string
	stored  map[table.Digest]table.Entry
	lost    []table.Entry
	garbage []string // fields that no keyturn wrote
}

// readGroups reads the groups that may have changed, and those that lack something.
func (r *reading) readGroups() {
	r.noKey = false
	l, keys, again := r.l, r.l.current(), 0
	var reads []groupRead
	for i, b := range r.buckets {
		if r.replies[i].Err != nil {
			continue
		}
		for g := range b.lost {
			if again++; again > lostAtOnce {
				l.nudge(b.index)
				break
			}
			b.unread[g] = true
		}
		if b.keys < len(keys) {
			maps.Copy(b.unread, b.keyless) // the key that was missing may be there now
			b.keys = len(keys)
		}
		for _, g := range slices.Sorted(maps.Keys(b.unread)) {
			reads = append(reads, groupRead{b: b, group: g})
		}
	}
	parts := make(chan []groupRead)
	var wg sync.WaitGroup
	for range min(loaders, (len(reads)+loadAtOnce-1)/loadAtOnce) {
		wg.Go(func() {
			for part := range parts {
				r.readPart(part)
			}
		})
	}
	for part := range slices.Chunk(reads, loadAtOnce) {
		parts <- part
	}
	close(parts)
	wg.Wait()
}

// readPart reads some groups with one call, and learns what they have.
func (r *reading) readPart(part []groupRead) {
	names := make([]string, len(part))
	for i := range part {
		names[i] = groupName(part[i].group)
	}
	keys := r.l.current()
	for i, s := range r.l.load(r.ctx, names) {
		part[i].snapshot = s
		r.join(keys, part[i])
	}
}

// A storedEntry is an entry as a group has it.
type storedEntry struct {
	table.Entry
	print codec.Fingerprint
}

// An openedGroup is what the fields of a group say.
type openedGroup struct {
	entries []storedEntry
	garbage []string // fields that no keyturn wrote
	noKey   bool     // an entry names a digest key that is unknown
	newer   bool     // a newer version of keyturn wrote an entry
}

const (
	// maxUnread is the most that the value of an entry which cannot be opened may have, in bytes. One of this
	// version has 43.
	maxUnread = 256

	// maxGroup is the most that a group with such entries may have, in bytes. In the largest list with twice its
	// share a group has 1024 entries of 65 bytes. A store takes four times as much: room for lost entries to come back.
	maxGroup = 256 << 10
)

// openGroup opens the fields of the group g, of so many groups. An entry that cannot be opened is kept, since
// another instance may read it: unless it, or its group, is larger than any that keyturn writes. A person who made it so
// would leave no room for a revocation.
func openGroup(keys codec.Keys, fields map[string][]byte, g, groups int) (opened openedGroup) {
	full := sizeOf(fields) > maxGroup
	for field, value := range fields {
		e, print, err := codec.OpenEntry(keys, field, value)
		keep := !full && len(value) <= maxUnread
		switch {
		case err == nil && groupOf(e.Digest, groups) == g:
			opened.entries = append(opened.entries, storedEntry{e, print})
		case keep && errors.Is(err, codec.ErrNoKey):
			opened.noKey = true
		case keep && errors.Is(err, codec.ErrNewer):
			opened.newer = true
		default:
			opened.garbage = append(opened.garbage, field)
		}
	}
	return opened
}

// join learns what a group has, and notes whether it lacks something.
func (r *reading) join(keys codec.Keys, read groupRead) {
	l, b, g := r.l, read.b, read.group
	opened := openGroup(keys, read.snapshot.Fields, g, len(l.prints))
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := read.snapshot.Err; err != nil {
		b.unread[g], r.failed[b] = true, err
		if isBroken(err) {
			b.broken[g] = true
		}
		return
	}
	delete(b.broken, g)
	r.noKey = r.noKey || opened.noKey
	l.alarms.Forged += uint64(len(opened.garbage))
	if delete(b.garbage, g); len(opened.garbage) > 0 {
		b.garbage[g] = true
	}
	before := l.beginGroupLocked(g)
	print, stored := r.learnGroup(keys, b, g, opened.entries)
	for _, e := range before {
		if k := keys.Find(e.Key); k != nil {
			l.learnLocked(e, k)
		}
	}
	delete(b.unread, g)
	delete(b.lost, g)
	if delete(b.keyless, g); opened.noKey || opened.newer {
		b.keyless[g] = true
	}
	b.digests[g], r.loaded[b] = read.snapshot.Digest, true
	if print != l.prints[g] && !l.cfg.Transient {
		r.lost = append(r.lost, lostGroup{b: b, group: g, digest: read.snapshot.Digest, stored: stored, garbage: opened.garbage})
	}
}

// learnGroup learns the entries of a group. It returns those that count, and their fingerprint. The
// caller holds mu.
func (r *reading) learnGroup(keys codec.Keys, b *bucket, g int, entries []storedEntry) (print codec.Fingerprint, stored map[table.Digest]table.Entry) {
	l := r.l
	stored = make(map[table.Digest]table.Entry, len(entries))
	for _, e := range entries {
		switch {
		case rules.Ended(e.Entry, time.Unix(l.swept, 0)):
			b.ended[g] = true
			if r.resyncs(b) {
				l.addGone(b, e.End, e.print)
			}
		case l.replacedLocked(e.Entry):
			b.ended[g] = true
		default:
			print ^= e.print
			stored[e.Digest] = e.Entry
			l.learnLocked(e.Entry, keys.Find(e.Key))
		}
	}
	return print, stored
}

// resyncs reports whether all groups of b are read in this round.
func (r *reading) resyncs(b *bucket) bool {
	i := slices.Index(r.buckets, b)
	return r.replies[i].Resync
}

// restore puts back what the store has lost.
func (r *reading) restore() {
	if len(r.lost) == 0 {
		return
	}
	r.findLost()
	work := make(chan *lostGroup)
	var wg sync.WaitGroup
	for range min(restorers, len(r.lost)) {
		wg.Go(func() {
			for lost := range work {
				r.putBack(lost)
			}
		})
	}
	first := firstOf(r.l.cfg.Instance, len(r.lost)) // so that holders do not all write the same group
	for i := range r.lost {
		work <- &r.lost[(first+i)%len(r.lost)]
	}
	close(work)
	wg.Wait()
}

// firstOf returns a number below n that depends on an instance's name.
func firstOf(instance string, n int) int {
	h := fnv.New32a()
	h.Write([]byte(instance))
	return int(h.Sum32() % uint32(n))
}

// findLost finds the entries that the groups lack.
func (r *reading) findLost() {
	l := r.l
	byGroup := make(map[int]*lostGroup, len(r.lost))
	for i := range r.lost {
		byGroup[r.lost[i].group] = &r.lost[i]
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(byGroup, func(g int, lost *lostGroup) bool { return lost.b.refused[g] })
	for e := range l.table.All() {
		lost := byGroup[groupOf(e.Digest, len(l.prints))]
		if lost == nil || l.replacedLocked(e) {
			continue
		}
		if early, written := l.early[e.Digest]; written { // it is being written
			if !early.ok {
				continue
			}
			e = early.counted
		}
		if s, ok := lost.stored[e.Digest]; !ok || rules.Lacks(s, e) {
			lost.lost = append(lost.lost, e)
		}
	}
}

// putBack writes what a group lacks. If others were faster, it is read again at once. If the store refuses it, or is
// away, the next poll tries again.
func (r *reading) putBack(lost *lostGroup) {
	l, b := r.l, lost.b
	if len(lost.lost) == 0 {
		return
	}
	again := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		b.lost[lost.group] = true
		l.nudge(b.index)
	}
	if rules.Age(l.cfg.Now(), r.received) > restoreFor || r.ctx.Err() != nil {
		again()
		return
	}
	result, err := r.writeBack(lost)
	switch {
	case err != nil:
		r.notPutBack(lost, result.Code, err)
		return
	case result.Code != rotation.Committed:
		again()
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.alarms.Restored++
	l.merged = r.sent
	b.digests[lost.group] = result.Digest
}

// writeBack writes the entries that a group lacks. Garbage goes first, since it may leave no room for them. An instance
// that has answered nothing yet removes none: it may have read a forged digest key.
func (r *reading) writeBack(lost *lostGroup) (rotation.Result, error) {
	l := r.l
	keys, digest, name := l.current(), lost.digest, groupName(lost.group)
	if len(lost.garbage) > 0 && !lost.b.state.Good.IsZero() {
		result, err := l.removeGarbage(r.ctx, lost.group, digest, lost.garbage)
		if err != nil || result.Code != rotation.Committed {
			return result, err
		}
		digest = result.Digest
	}
	set := make(map[string][]byte)
	for _, e := range lost.lost {
		if k := keys.Find(e.Key); k != nil {
			set[codec.Field(e.Digest)] = k.SealEntry(e)
		}
	}
	change := rotation.Change{Tenant: name, If: digest, Set: set, Op: opRestore}
	return l.write(r.ctx, change, keys.First(), codec.Logged{Entries: lost.lost, Whole: true})
}

// removeGarbage removes fields that no keyturn wrote from a group.
func (l *List) removeGarbage(ctx context.Context, g int, digest string, garbage []string) (rotation.Result, error) {
	change := rotation.Change{Tenant: groupName(g), If: digest, Delete: garbage, Op: opCollect}
	return l.write(ctx, change, l.current().First(), codec.Logged{Whole: true})
}

// tryAgain has the groups read that could not be written. Only the loop calls it.
func (l *List) tryAgain() {
	l.keys.unread, l.keys.failed = l.keys.unread || l.keys.failed, false
	for _, b := range l.all {
		maps.Copy(b.lost, b.refused)
		clear(b.refused)
	}
}

// sayAgain is how often a list says that something cannot be put back.
const sayAgain = time.Minute

// notPutBack notes that a group still lacks what it has lost.
func (r *reading) notPutBack(lost *lostGroup, code rotation.Code, err error) {
	l := r.l
	l.mu.Lock()
	defer l.mu.Unlock()
	lost.b.refused[lost.group] = true
	l.notPutBackLocked(r.ctx, groupName(lost.group), code, err)
}

// notPutBackLocked says that something could not be put back. A person who writes to the store can have it refuse
// the change; then it raises an alarm. The caller holds mu.
func (l *List) notPutBackLocked(ctx context.Context, group string, code rotation.Code, err error) {
	if code == rotation.NotMade && isBroken(err) {
		l.alarms.Forged++
	}
	now := l.cfg.Now()
	if ctx.Err() != nil || !l.saidLost.IsZero() && rules.Age(now, l.saidLost) < sayAgain {
		return
	}
	l.saidLost = now
	l.cfg.Logger.Error("revocations: what the store has lost could not be put back: it is tried again with each poll", "group", group, "error", err)
}
