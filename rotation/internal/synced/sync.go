package synced

import (
	"context"
	"errors"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/rotation/internal/held"
	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/store"
)

// A syncRun is one sync of some buckets: ask what changed, read it, open it, join it with the
// copies that are held, and write back what the store lacks. Only the loop runs one, and one at a
// time; before the loop starts, Open does. Goroutines that a run starts have ended when it returns.
type syncRun struct {
	k       *Rings
	ctx     context.Context // ends the run early, which says nothing about the store
	buckets []*Bucket       // to be synced
	compare map[string]bool // tenants whose digests are compared although it is not their turn
	changed bool            // the copy of some ring may have changed, and with it the times
	asked   Times           // those under which this attempt asked the store
}

// run syncs the buckets, and asks again for those whose reply did not cover the whole log.
func (run *syncRun) run() {
	run.k.Counts.Syncs.Add(1)
	run.rounds(run.buckets, syncRounds)
}

// rounds asks for the buckets at most so many times.
func (run *syncRun) rounds(again []*Bucket, most int) {
	for range most {
		if len(again) == 0 {
			break
		}
		a := run.ask(again)
		run.loadRings(a.stale)
		again = run.conclude(a)
	}
}

// asked are buckets whose changes the store was asked for. sent is read before that: a sync proves what the
// store had at that moment, not what it has when the answer is here.
type asked struct {
	buckets        []*Bucket
	replies        []store.SyncReply
	sent, received time.Time
	stale          []*Ring // that have to be read
	repairs        uint64  // that were made before they are
}

// ask asks the store for the changes in buckets.
func (run *syncRun) ask(buckets []*Bucket) asked {
	dropRemoved(buckets)
	run.k.held = run.k.Len()
	a := asked{buckets: buckets, sent: run.k.cfg.Now()}
	run.asked = *run.k.Times.Load()
	a.replies = run.sync(buckets, a.sent)
	a.received = run.k.cfg.Now()
	run.listTenants(buckets, a.replies)
	a.repairs = run.k.Counts.Repairs.Load()
	a.stale = run.staleRings(buckets, a.replies)
	return a
}

// conclude ends the sync of buckets whose rings were read, and returns those that have to be asked again.
func (run *syncRun) conclude(a asked) (more []*Bucket) {
	buckets, replies, sent, received := a.buckets, a.replies, a.sent, a.received
	if run.k.Counts.Repairs.Load() > a.repairs {
		run.k.lastMerge = run.k.cfg.Now()
	}
	run.k.dropEmpty(buckets)
	if run.changed {
		run.k.retime()
	}
	before := run.k.stand()
	unreached := error(nil)
	for i, b := range buckets {
		switch reply := &replies[i]; {
		case reply.Err != nil:
			unreached = reply.Err
			run.failBucket(b, reply.Err)
		case reply.More:
			b.place, b.quietSince = reply.Place, sent
			more = append(more, b)
		case b.state.First() && run.asked.MaxPollGap() != run.k.Times.Load().MaxPollGap() && !run.k.cfg.TrustFirstRead:
			// Whether another instance vouches depends on the poll interval. The policies that this
			// attempt has read changed it, so ask again.
			more = append(more, b)
		case !b.asksAcks && protocol.CheckClock(reply.Now, sent, received, b.skew()) != nil:
			b.asksAcks = true // whose clock is right? The acknowledgements of the others say so.
			more = append(more, b)
		default:
			run.finishBucket(b, reply, sent, received)
			if b.unlisted > 0 {
				more = append(more, b)
			}
		}
	}
	run.logAttempt(unreached, before)
	return more
}

// callContext returns the context of one call of the store.
func (run *syncRun) callContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(run.ctx, run.k.Times.Load().Deadline)
}

// sync asks the store for the changes in buckets, and acknowledges those that were applied before.
// On the first sync of a bucket it also asks whether another instance vouches for the store: one
// that was in sync for two polls, and said so within the last.
func (run *syncRun) sync(buckets []*Bucket, now time.Time) []store.SyncReply {
	gap := run.asked.MaxPollGap()
	requests := make([]store.SyncRequest, len(buckets))
	most := digestsAtOnce // of rings that are compared although it is not their turn
	for i, b := range buckets {
		if b.state.Recovering || protocol.Age(now, b.state.Complete) > max(run.asked.Fresh, b.fresh) || !b.vouches(now, gap) {
			b.goodSince = time.Time{} // an instance out of sync cannot vouch for the store
		}
		b.asked = run.digests(b, most)
		most -= min(b.unlisted, most)
		tenants := make([]string, len(b.asked))
		for n, r := range b.asked {
			tenants[n] = r.Tenant
		}
		requests[i] = store.SyncRequest{Bucket: b.index, Place: b.place, Ack: run.ack(b, now), Digests: tenants,
			Acks:     b.asksAcks || b.state.First() && !run.k.cfg.TrustFirstRead,
			ListsAll: run.k.HoldsAll() && !b.state.First() && !b.state.Recovering}
	}
	instance := run.k.cfg.Instance
	if run.k.cfg.OneShot {
		instance = ""
	}
	ctx, cancel := run.callContext()
	defer cancel()
	replies := run.k.store.Sync(ctx, instance, requests)
	for i, b := range buckets {
		if replies[i].Err == nil {
			b.unlisted = max(0, min(b.unlisted, len(b.rings))-len(b.asked))
		}
		if names := replies[i].Mended; len(names) > 0 {
			if slices.Contains(names, "tenants") {
				b.unlisted = len(b.rings)
			}
			run.k.Raise(&run.k.Alarms.Forged, "a key of the store held something that keyturn did not write: it was removed, and is made again; a person or another program writes to the store", "bucket", requests[i].Bucket, "keys", names)
		}
	}
	return replies
}

// digests returns the rings of b whose digests this sync compares: by turns a part of them, see
// [Times.digestSlices], and those of compare. If the store has to list its tenants again, these are all, or as
// many as most.
func (run *syncRun) digests(b *Bucket, most int) []*Ring {
	n := len(b.rings)
	if n == 0 {
		return nil
	}
	turns := run.asked.digestSlices(run.k.held)
	part := digestPart(n, b.digestTurn%turns, turns)
	part = max(part, min(b.unlisted, most, n))
	b.digestTurn++
	rings := make([]*Ring, 0, part+len(run.compare))
	for i := range part {
		rings = append(rings, b.rings[(b.digestAt+i)%n])
	}
	for tenant := range run.compare {
		if r := run.k.Ring(tenant); r != nil && r.bucket == b && !slices.Contains(rings, r) {
			rings = append(rings, r)
		}
	}
	b.digestAt = (b.digestAt + part) % n
	return rings
}

// digestPart returns how many of the n rings of a bucket are compared in a turn. Over turns syncs in a row the
// parts add up to all rings, also where a bucket has fewer rings than turns.
func digestPart(n, turn, turns int) int {
	upTo := func(turn int) int { return (turn*n + turns - 1) / turns }
	return upTo(turn+1) - upTo(turn)
}

// listTenants asks the store which tenants there are in the buckets that resync, or that are read for
// the first time, if the keyring holds them all, and has their rings read. Their log no longer says which
// were added, and a snapshot leaves out tenants without a ring.
func (run *syncRun) listTenants(buckets []*Bucket, replies []store.SyncReply) {
	if !run.k.HoldsAll() {
		return
	}
	var indexes, at []int
	for i, b := range buckets {
		if replies[i].Err == nil && (replies[i].Resync || b.state.First()) {
			indexes, at = append(indexes, b.index), append(at, i)
		}
	}
	run.listPages(indexes, func(i int, tenants []string, err error) {
		if err != nil {
			replies[at[i]].Err = err
			return
		}
		run.addListed(buckets[at[i]], tenants)
	})
}

// A listed is a page of tenants, or why it could not be read.
type listed struct {
	tenants [][]string
	err     error
}

// listPages asks for the tenants of the buckets of these indexes, listAtOnce with one call, and calls use with those
// of each. Meanwhile the next calls are under way, one at a time.
func (run *syncRun) listPages(indexes []int, use func(i int, tenants []string, err error)) {
	var wg sync.WaitGroup
	defer wg.Wait()
	pages := make(chan listed, 1+len(indexes)/listAtOnce) // it has room for all, so that the goroutine ends in any case
	wg.Go(func() {
		defer close(pages)
		for part := range slices.Chunk(indexes, listAtOnce) {
			pages <- run.listPage(part)
		}
	})
	var p listed
	for i := range indexes {
		n := i % listAtOnce
		if n == 0 {
			p = <-pages
		}
		if p.err != nil {
			use(i, nil, p.err)
			continue
		}
		use(i, p.tenants[n], nil)
	}
}

func (run *syncRun) listPage(indexes []int) (p listed) {
	ctx, cancel := run.callContext()
	defer cancel()
	p.tenants, p.err = run.k.store.Tenants(ctx, indexes)
	return p
}

// addListed has the rings of the tenants read that the store names in b.
func (run *syncRun) addListed(b *Bucket, tenants []string) {
	for _, tenant := range tenants {
		if store.BucketOf(tenant) != b.index || !IsTenant(tenant) {
			continue // no keyturn writes it there
		}
		r := run.k.addTenant(tenant)
		r.dirty = true
		b.touch(r)
	}
}

// staleRings returns the rings that have to be read: those that are marked dirty, and all of a
// bucket that resyncs.
func (run *syncRun) staleRings(buckets []*Bucket, replies []store.SyncReply) []*Ring {
	var stale []*Ring
	for i, b := range buckets {
		reply := &replies[i]
		if reply.Err != nil {
			continue
		}
		if reply.Resync {
			run.k.Counts.Resyncs.Add(1)
		}
		run.markDirty(b, reply)
		rings := b.busy
		if reply.Resync {
			rings = b.rings
		}
		for _, r := range rings {
			if r.dirty || reply.Resync {
				stale = append(stale, r)
			}
		}
	}
	return stale
}

// markDirty marks the rings of b that changed: those that the log names, and those whose digest
// differs from that of the copy. The digest finds a ring that was deleted or edited without a log
// entry (invariant I12).
func (run *syncRun) markDirty(b *Bucket, reply *store.SyncReply) {
	for i, r := range b.asked {
		if i < len(reply.Digests) && run.k.hash(reply.Digests[i]) != r.digest && !r.removed.Load() {
			r.dirty = true
			b.touch(r)
		}
	}
	b.asked = nil
	run.readEntries(b, reply)
}

// hash returns a short form of the digest of a ring, 0 without a ring. The seed is random: a person who
// writes to the store finds no ring with the same one.
func (k *Rings) hash(digest string) uint64 {
	if digest == "" {
		return 0
	}
	return maphash.String(k.seed, digest)
}

// loadRings reads rings and joins them with their copies.
func (run *syncRun) loadRings(stale []*Ring) {
	run.readPages(stale, run.k.store.Load, run.joinAll)
}

// A loader is [store.Store.Load], or the same without digests.
type loader = func(ctx context.Context, tenants []string) []store.Snapshot

// readPages reads rings, loadAtOnce with one call of load, and calls use with each page. While one is in use
// others are read, so that neither the store nor this instance waits for the other. At most loadAhead
// pages are in memory at once.
func (run *syncRun) readPages(rings []*Ring, load loader, use func([]*Ring, []loadedRing)) {
	pages := slices.Collect(slices.Chunk(rings, loadAtOnce))
	loaded := make([]chan []loadedRing, len(pages))
	for i := range loaded {
		loaded[i] = make(chan []loadedRing, 1)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	read := func(i int) {
		tenants := make([]string, len(pages[i]))
		for n, r := range pages[i] {
			tenants[n] = r.Tenant
		}
		loaded[i] <- run.read(tenants, load)
	}
	begun := 0
	for i, page := range pages {
		if i == len(pages)-1 && begun == i {
			read(i) // nothing to read besides
			begun++
		}
		for ; begun < min(len(pages), i+loadAhead); begun++ {
			n := begun
			wg.Go(func() { read(n) })
		}
		use(page, <-loaded[i])
	}
}

// A loadedRing is a ring as it was read, with the time before and after the call by this instance's
// clock.
type loadedRing struct {
	store.Snapshot
	sent, received time.Time
}

// read reads rings with one call of load.
func (run *syncRun) read(tenants []string, load loader) []loadedRing {
	ctx, cancel := run.callContext()
	defer cancel()
	sent := run.k.cfg.Now()
	loaded := load(ctx, tenants)
	received := run.k.cfg.Now()
	snapshots := make([]loadedRing, len(loaded))
	for i := range loaded {
		snapshots[i] = loadedRing{loaded[i], sent, received}
	}
	return snapshots
}

// joiners is how many rings are opened and repaired at once. Opening is work for the processor, and
// a repair waits for the store.
const joiners = 8

// joinAll joins snapshots with the copies of rings, and waits until all are done. Each ring has one
// goroutine at a time, which is the only one to write its fields meanwhile.
func (run *syncRun) joinAll(rings []*Ring, snapshots []loadedRing) {
	for i, r := range rings {
		if snapshots[i].Err == nil && (run.k.hash(snapshots[i].Digest) != r.digest || r.dirty) {
			run.changed = true
		}
		r.bucket.touch(r)
		r.bucket.endsStale, r.bucket.sums.stale = true, true
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	var next atomic.Int64
	for range min(joiners, len(rings)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(rings); i = int(next.Add(1)) - 1 {
				run.noteJoined(rings[i], run.join(rings[i], &snapshots[i]))
			}
		})
	}
}

// noteJoined notes whether the copy of r is complete. If it is not, the error and the need to read
// the ring again stay until a sync succeeds.
func (run *syncRun) noteJoined(r *Ring, err error) {
	r.dirty = err != nil
	old := r.syncStatus()
	if err == nil {
		return // finishRing publishes the status
	}
	if old.Err == nil && run.ctx.Err() == nil {
		run.k.cfg.Logger.Warn("a ring is out of sync", "tenant", r.Tenant, "error", err)
	}
	out := *old
	out.Err, out.Bad = Unavailable(err), true
	r.own.Store(&out)
}

// maxMerges bounds how often a repair is tried again because another instance changed the ring
// first.
const maxMerges = 4

// join joins what the store has with the copy of r, and writes back what the store lacks. The error
// says why the ring is not in sync then.
//
// The union is installed before the repair is written, so that this instance uses what it has read
// even if the write fails. If the write finds another ring than the one that was read, the ring is
// read again. After one repair join does not write another; the next sync does.
func (run *syncRun) join(r *Ring, s *loadedRing) error {
	wrote := false
	for range maxMerges {
		if s.Err != nil {
			return s.Err
		}
		old := r.copy()
		union, result, failed, off := run.merge(r, s)
		run.noteMerge(r, &result)
		if r.news != nil && (len(s.Fields) > 0 || old != nil) {
			r.news.ends = ring.Facts{} // the copy has them now
		}
		switch {
		case off != nil:
			return off
		case wrote && failed == nil && result.Change != nil:
			return &ring.Error{Text: "the ring changes faster than it can be merged"}
		case result.Change == nil, run.k.cfg.OneShot && !r.changed, wrote:
			return run.checkOpened(r, failed)
		}
		done, err := run.write(r, union, result, s.Digest)
		if err != nil {
			return &ring.Error{Text: "what the store lacks could not be put back", Err: err}
		}
		if done && failed == nil {
			return run.checkOpened(r, nil)
		}
		wrote = done
		s = &run.read([]string{r.Tenant}, run.k.store.Load)[0]
	}
	return &ring.Error{Text: "the ring changes faster than it can be merged"}
}

// merge joins what the store has with the copy of r, and installs the union. failed are parts that cannot be opened, and
// off says that the clocks differ.
func (run *syncRun) merge(r *Ring, s *loadedRing) (union *held.Ring, result protocol.MergeResult, failed *ring.UnreadableError, off error) {
	old := r.copy()
	stored, failed := run.open(r, s)
	off = protocol.CheckClock(s.Now, s.sent, s.received, min(old.Plain().ClockSkew(), stored.ClockSkew()))
	result = protocol.Merge(protocol.MergeInput{Held: old.Plain(), Stored: stored.Copy, Learned: r.learnedOf(old, s), Unreadable: held.Unreadable(failed, run.k.KEKs.Load(), s.Fields, old), Now: s.Now, ClockOff: off != nil,
		Good: r.syncStatus().Knew, Complete: r.syncStatus().Complete, LocalNow: s.received, Deadline: run.k.Times.Load().Deadline})
	union = stored
	if result.Union != stored.Copy { // else this instance knew nothing, as when it starts
		union = held.Assemble(result.Union, stored, old)
	}
	run.install(r, union, s.Digest)
	return union, result, failed, off
}

// open opens a snapshot. A field that cannot be opened counts neither as new data nor as missing
// data.
func (run *syncRun) open(r *Ring, s *loadedRing) (*held.Ring, *ring.UnreadableError) {
	return run.k.openFields(r.Tenant, s.Fields, r.copy())
}

// openFields opens the fields of a ring of which old is known, or nil.
func (k *Rings) openFields(tenant string, fields map[string][]byte, old *held.Ring) (*held.Ring, *ring.UnreadableError) {
	opened, err := seal.OpenRing(k.KEKs.Load(), tenant, fields)
	var failed *ring.UnreadableError
	errors.As(err, &failed)
	return held.Open(old, fields, opened), failed
}

// checkOpened returns why a ring that was read is not in sync, or nil.
func (run *syncRun) checkOpened(r *Ring, failed *ring.UnreadableError) error {
	if failed != nil {
		return failed
	}
	if p, ok := r.policy(); ok {
		return run.k.CheckTimes(p.Freshness)
	}
	return nil
}

// install makes c the copy of r that this instance uses. A tenant without any data keeps no copy:
// there is no ring, which is not the same as an empty one.
func (run *syncRun) install(r *Ring, c *held.Ring, digest string) {
	r.digest = run.k.hash(digest)
	old := r.copy()
	if old == nil && !worthHolding(c) {
		return
	}
	run.k.logEnds(r, old, c)
	run.k.set(r, c, old)
}

// worthHolding reports whether there is any data in c.
func worthHolding(c *held.Ring) bool { return c.HasKeys() || !c.Facts.Equal(ring.Facts{}) }

// write writes the repair m, and installs the repaired ring. It reports false if the ring has
// changed meanwhile, so it has to be read again.
func (run *syncRun) write(r *Ring, union *held.Ring, m protocol.MergeResult, digest string) (bool, error) {
	c, err := run.k.Seal(m.Change, &held.Sealer{Tenant: r.Tenant, Have: union, Count: protocol.NextCount(union.Copy, nil)}, digest, nil)
	if err != nil {
		return false, err
	}
	ctx, cancel := run.callContext()
	defer cancel()
	result, err := run.k.store.Write(ctx, c)
	if err != nil || result.Code != store.Committed {
		return false, err
	}
	run.k.Counts.Repairs.Add(1)
	run.k.cfg.Logger.Warn("merged back into the store what it lacked", "tenant", r.Tenant, "records", len(m.Change.Restore), "facts", len(m.Change.Facts))
	run.install(r, held.Assemble(m.Healed, union), result.Digest)
	return true, nil
}

// failBucket notes why b could not be synced. No time moves, so freshness runs out by itself. A
// ring that could not be read before keeps its own reason.
func (run *syncRun) failBucket(b *Bucket, err error) {
	b.err, b.unreached = Unavailable(err), true
	out := *b.Status.Load()
	out.Err = withClock(out.Err, b.err)
	b.Status.Store(&out)
	for _, r := range b.busy { // the others stand as the bucket does
		if old := r.own.Load(); old != nil && !old.Bad {
			out := *old
			out.Err = withClock(out.Err, b.err)
			r.own.Store(&out)
		}
	}
	b.sum()
}

// withClock returns err, unless the clocks were known to differ: then that stays the reason, with
// err as its Since. A store that cannot be reached sets no clock right.
func withClock(known, err error) error {
	if off := (*ring.ClockError)(nil); errors.As(known, &off) {
		since := *off
		since.Since = err
		return &since
	}
	return err
}

// finishBucket publishes the status of a bucket and its rings after a complete sync. The bucket can
// vouch for the store only while every ring of it is in sync.
func (run *syncRun) finishBucket(b *Bucket, reply *store.SyncReply, sent, received time.Time) {
	b.noteApplied()
	b.unreached = false
	run.noteClock(b, reply, sent, received)
	run.advance(b, reply, sent, received)
	status := &Status{SyncState: b.state, QuietSince: b.quietSince, Err: b.err, Agreed: b.agreed, StoreJumped: b.jumped}
	if b.whole() {
		status.Place = b.place
	}
	good := b.err == nil && !b.state.Recovering
	if reply.Run != b.run { // what the other run has lost may be in an instance that has not polled yet
		b.run, b.goodSince = reply.Run, time.Time{}
	}
	good = run.finishRings(b, reply, status, sent, received) && good
	switch {
	case !good:
		b.goodSince = time.Time{}
	case b.goodSince.IsZero():
		b.goodSince = reply.Now
	}
	b.proved = good && b.run != "" && reply.Now.Sub(b.goodSince) >= 2*run.asked.MaxPollGap()
}

// finishRings publishes the status of b and of its rings after a complete sync, and reports whether all
// rings are in sync. Rings that stand as the bucket does have no status of their own. One that does not is
// told so first, so that no reader takes it for in sync meanwhile.
func (run *syncRun) finishRings(b *Bucket, reply *store.SyncReply, status *Status, sent, received time.Time) (good bool) {
	rings, healthy := b.busy, b.err == nil && !b.state.Recovering
	if protocol.CheckClock(reply.Now, sent, received, b.sum().leastSkew) != nil {
		rings = b.rings
	}
	good = true
	var own []*Ring // that have one, and shall not
	for _, r := range rings {
		off := protocol.CheckClock(reply.Now, sent, received, r.skew())
		if run.finishRing(r, status, off, healthy && good) {
			if r.own.Load() != nil {
				own = append(own, r)
			}
		}
		good = good && !r.dirty && off == nil
	}
	b.Status.Store(status)
	for _, r := range own {
		r.setOwn(nil)
	}
	b.settle(status)
	return good
}

// tellEnds tells the keys of b that are in use when they end, after a complete read.
func (b *Bucket) tellEnds(status *Status) {
	for _, r := range b.alive() {
		if !r.dirty {
			r.copy().ApplyEnds(nil, status.Complete)
		}
	}
}

// settle tells the keys of b that are in use when they end, after a complete sync, and forgets which rings it
// had to look at.
func (b *Bucket) settle(status *Status) {
	b.tellEnds(status)
	b.busy = slices.DeleteFunc(b.busy, func(r *Ring) bool {
		if !r.dirty {
			r.made = ""
		}
		r.busy = r.dirty || r.news != nil || r.own.Load() != nil || !r.known()
		return !r.busy
	})
	if len(b.busy) == 0 {
		b.busy = nil // after the first sync it has room for all rings
	}
	b.sum()
}

// noteClock notes when the clocks agreed, or else whose clock was set.
func (run *syncRun) noteClock(b *Bucket, reply *store.SyncReply, sent, received time.Time) {
	skew := b.skew()
	if protocol.CheckClock(reply.Now, sent, received, skew) == nil {
		b.agreed, b.jumped, b.asksAcks = received, false, false
		return
	}
	view := protocol.ClockView{Now: received, Store: reply.Now, Agreed: b.agreed, Skew: skew, Gap: run.asked.MaxPollGap(), Jumped: b.jumped}
	b.jumped = view.StoreJumped(run.k.cfg.Instance, run.k.Roster(b.index, reply.Acks).Views)
}

// advance moves the state of b to that after a complete sync. If the clocks differ the place stays:
// only Complete moves, so that keys do not end early because of a clock.
func (run *syncRun) advance(b *Bucket, reply *store.SyncReply, sent, received time.Time) {
	t := run.k.Times.Load()
	switch b.err = protocol.CheckClock(reply.Now, sent, received, b.skew()); {
	case b.err == nil:
		b.state = b.state.After(run.reading(b, reply, sent), protocol.Limits{Fresh: max(t.Fresh, b.fresh), Recover: 2 * t.MaxPollGap()})
		b.fresh = t.Fresh
		if reply.Place != b.place || b.quietSince.IsZero() {
			b.place, b.quietSince = reply.Place, sent
		}
	case !b.state.Complete.IsZero():
		if b.state.First() {
			b.place = store.Place{} // it is of the snapshot, and proves nothing later
		}
		b.state.Complete = sent
	}
}

// whole reports whether the rings of b, which is in sync, have everything that the log says up to its place.
func (b *Bucket) whole() bool {
	return b.err == nil && !b.state.Recovering && !slices.ContainsFunc(b.busy, func(r *Ring) bool { return r.dirty || r.news != nil })
}

// finishRing gives r a status of its own, if it has to have one, after a complete sync of its bucket. It
// reports whether r shall have none. off is why the clocks differ by more than r allows, or nil.
func (run *syncRun) finishRing(r *Ring, status *Status, off error, good bool) (none bool) {
	switch {
	case r.dirty:
		return false
	case off != nil:
		behind := *r.syncStatus()
		behind.Complete, behind.Err = status.Complete, off
		r.setOwn(&behind)
		return false
	}
	run.logNoRing(r, good && !r.known())
	own := r.certainOf(status)
	if own == status {
		return true
	}
	r.setOwn(own)
	return false
}

// setOwn gives r a status of its own, or none. Only the loop calls it.
func (r *Ring) setOwn(own *Status) {
	r.own.Store(own)
	r.bucket.sums.stale = true
	if own != nil {
		r.bucket.touch(r)
	}
}

// logNoRing logs, once, that the store has no ring of a tenant that Config names. It does so with
// the second sync, because a program may open a keyring in order to create the ring.
func (run *syncRun) logNoRing(r *Ring, none bool) {
	if !none {
		r.emptySyncs = 0
		return
	}
	if r.emptySyncs++; r.emptySyncs == 2 && !run.k.HoldsAll() && !run.k.cfg.AllowBootstrap && !run.k.cfg.OneShot {
		run.k.cfg.Logger.Warn("the store has no ring of the tenant: make one (keyturn keys create, or Rotator.Create)", "tenant", r.Tenant)
	}
}
