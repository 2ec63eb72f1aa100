package rotation

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
)

// A pass is one sync of some buckets, from the request to the repair. Only the loop
// makes passes, one at a time.
type syncRun struct {
	k       *Keyring
	ctx     context.Context
	buckets []*bucket
	compare map[string]bool // tenants whose rings are to be compared in any case
	changed bool            // some ring is another than before
	asked   times           // when the round began
}

func (sr *syncRun) run() {
	sr.k.counts.syncs.Add(1)
	again := sr.buckets
	for range syncRounds {
		if again = sr.attempt(again); len(again) == 0 {
			break
		}
	}
}

// round syncs buckets once, and returns those of which there is more.
func (sr *syncRun) attempt(buckets []*bucket) (more []*bucket) {
	sent := sr.k.cfg.Now()
	sr.asked = *sr.k.times.Load()
	replies := sr.sync(buckets, sent)
	received := sr.k.cfg.Now()
	sr.listTenants(buckets, replies)
	sr.loadRings(sr.staleRings(buckets, replies))
	sr.k.dropEmpty(buckets)
	if sr.changed {
		sr.k.retime()
	}
	before := sr.k.loop.recoveringRings()
	failed, unreached := 0, error(nil)
	for i, b := range buckets {
		switch reply := &replies[i]; {
		case reply.Err != nil:
			failed, unreached = failed+1, reply.Err
			sr.failBucket(b, reply.Err)
		case reply.More:
			b.place, b.quietSince = reply.Place, sent
			more = append(more, b)
		case b.state.Complete.IsZero() && sr.asked.maxPollGap() != sr.k.times.Load().maxPollGap() && !sr.k.cfg.TrustFirstRead:
			more = append(more, b) // others vouch for as long as W says, which we know only now
		default:
			sr.finishBucket(b, reply, sent, received)
		}
	}
	sr.logAttempt(failed, unreached, before)
	return more
}

// call returns the context of one call of the store.
func (sr *syncRun) callContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(sr.ctx, sr.k.times.Load().deadline)
}

func (sr *syncRun) sync(buckets []*bucket, now time.Time) []SyncReply {
	gap := sr.asked.maxPollGap()
	requests := make([]SyncRequest, len(buckets))
	for i, b := range buckets {
		if b.state.Recovering || protocol.Age(now, b.state.Complete) > max(sr.asked.fresh, b.fresh) {
			b.goodSince = time.Time{} // we have no say for others
		}
		requests[i] = SyncRequest{Bucket: b.index, Place: b.place, GoodSince: b.goodSince, Digests: sr.digests(b)}
		if b.state.Complete.IsZero() {
			requests[i].VouchWithin, requests[i].VouchFor = gap, 2*gap
		}
	}
	instance := sr.k.cfg.Instance
	if sr.k.cfg.OneShot {
		instance = ""
	}
	ctx, cancel := sr.callContext()
	defer cancel()
	return sr.k.store.Sync(ctx, instance, requests)
}

// digests returns the tenants of b whose turn it is to be compared, in the order of
// the bucket.
func (sr *syncRun) digests(b *bucket) []string {
	var tenants []string
	for i, r := range b.rings {
		if i%digestSlices == b.digestTurn%digestSlices || sr.compare[r.tenant] {
			tenants = append(tenants, r.tenant)
		}
	}
	return tenants
}

// list learns of the tenants of the buckets in which anything may have changed.
func (sr *syncRun) listTenants(buckets []*bucket, replies []SyncReply) {
	if !sr.k.holdsAll() {
		return
	}
	var indexes, at []int
	for i, b := range buckets {
		if replies[i].Err == nil && replies[i].Resync {
			indexes, at = append(indexes, b.index), append(at, i)
		}
	}
	if len(indexes) == 0 {
		return
	}
	ctx, cancel := sr.callContext()
	defer cancel()
	tenants, err := sr.k.store.Tenants(ctx, indexes)
	for i := range indexes {
		if err != nil {
			replies[at[i]].Err = err
			continue
		}
		replies[at[i]].Changed = tenants[i]
	}
}

// stale returns the rings that have to be read.
func (sr *syncRun) staleRings(buckets []*bucket, replies []SyncReply) []*tenantRing {
	var stale []*tenantRing
	for i, b := range buckets {
		reply := &replies[i]
		if reply.Err != nil {
			continue
		}
		if reply.Resync {
			sr.k.counts.resyncs.Add(1)
		}
		sr.markDirty(b, reply)
		for _, r := range b.rings {
			if r.dirty || reply.Resync {
				stale = append(stale, r)
			}
		}
	}
	return stale
}

// mark makes dirty what the reply says has changed.
func (sr *syncRun) markDirty(b *bucket, reply *SyncReply) {
	for i, tenant := range sr.digests(b) {
		if r := sr.k.ring(tenant); i < len(reply.Digests) && reply.Digests[i] != r.digest {
			r.dirty = true
		}
	}
	for _, tenant := range reply.Changed {
		r := sr.k.ring(tenant)
		if r == nil && sr.k.holdsAll() && BucketOf(tenant) == b.index && isTenant(tenant) {
			r = sr.k.addTenant(tenant)
		}
		if r != nil {
			r.dirty = true
		}
	}
	b.digestTurn++
}

// load reads rings, and brings together what they say and what is held.
func (sr *syncRun) loadRings(stale []*tenantRing) {
	for len(stale) > 0 {
		n := min(len(stale), loadAtOnce)
		some := stale[:n]
		stale = stale[n:]
		tenants := make([]string, n)
		for i, r := range some {
			tenants[i] = r.tenant
		}
		sr.joinAll(some, sr.read(tenants))
	}
}

// A snapshot is one with our clock's time before and after it was read.
type snapshot struct {
	Snapshot
	sent, received time.Time
}

func (sr *syncRun) read(tenants []string) []snapshot {
	ctx, cancel := sr.callContext()
	defer cancel()
	sent := sr.k.cfg.Now()
	loaded := sr.k.store.Load(ctx, tenants)
	received := sr.k.cfg.Now()
	snapshots := make([]snapshot, len(loaded))
	for i := range loaded {
		snapshots[i] = snapshot{loaded[i], sent, received}
	}
	return snapshots
}

// absorbers is how many rings are opened, and merged back, at once.
const joiners = 8

func (sr *syncRun) joinAll(rings []*tenantRing, snapshots []snapshot) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(joiners, len(rings)) {
		wg.Go(func() {
			for i := range next {
				sr.noteJoined(rings[i], sr.join(rings[i], snapshots[i]))
			}
		})
	}
	for i, r := range rings {
		if snapshots[i].Err == nil && (snapshots[i].Digest != r.digest || r.dirty) {
			sr.changed = true
		}
		next <- i
	}
	close(next)
	wg.Wait()
}

// absorbed notes whether a ring is what the store has.
func (sr *syncRun) noteJoined(r *tenantRing, err error) {
	r.dirty = err != nil
	old := r.status.Load()
	if err == nil {
		return // settle follows
	}
	if old.err == nil && sr.ctx.Err() == nil {
		sr.k.cfg.Logger.Warn("a ring is out of step", "tenant", r.tenant, "error", err)
	}
	out := *old
	out.err, out.bad = unavailable(err), true
	r.status.Store(&out)
}

// maxMerges bounds how often a merge is tried again that somebody came before.
const maxMerges = 4

// absorb brings together what the store has and what is held, and merges back what
// the store lacks. The error says why the ring is not in step.
func (sr *syncRun) join(r *tenantRing, s snapshot) error {
	wrote := false
	for range maxMerges {
		if s.Err != nil {
			return s.Err
		}
		old := r.state.Load()
		theirs, failed := sr.open(r, s)
		off := checkClock(s.Now, s.sent, s.received, min(old.protocolCopy().ClockSkew(), theirs.ClockSkew()))
		result := protocol.Merge(protocol.MergeInput{Mine: old.protocolCopy(), Theirs: theirs.Copy, Unreadable: unreadable(failed), Now: s.Now, ClockOff: off != nil,
			Good: r.status.Load().Good, Local: s.received, Deadline: sr.k.times.Load().deadline})
		union := assemble(result.Union, theirs, old)
		sr.install(r, union, s.Digest)
		switch {
		case off != nil:
			return off
		case result.Change == nil, sr.k.cfg.OneShot, wrote:
			return sr.checkOpened(r, failed)
		}
		done, err := sr.write(r, union, result, s.Digest)
		if err != nil {
			return &ring.Error{Text: "what the store lacks could not be put back", Err: err}
		}
		if done && failed == nil {
			return sr.checkOpened(r, nil)
		}
		wrote = done
		s = sr.read([]string{r.tenant})[0]
	}
	return &ring.Error{Text: "the ring changes faster than it can be merged"}
}

// open opens what the store has. A field that cannot be opened counts neither as new data nor as
// missing data.
func (sr *syncRun) open(r *tenantRing, s snapshot) (*ringCopy, *ring.UnreadableError) {
	opened, err := seal.OpenRing(sr.k.cfg.KEKs.sealing(), r.tenant, s.Fields)
	var failed *ring.UnreadableError
	errors.As(err, &failed)
	return openCopy(r.state.Load(), s.Fields, opened), failed
}

// judge says whether a ring that has been read is in step.
func (sr *syncRun) checkOpened(r *tenantRing, failed *ring.UnreadableError) error {
	if failed != nil {
		return failed
	}
	if n := r.state.Load().newest(); n != nil {
		return sr.k.checkTimes(n.Timing.Freshness)
	}
	return nil
}

// install makes c what this process holds of r.
func (sr *syncRun) install(r *tenantRing, c *ringCopy, digest string) {
	r.digest = digest
	old := r.state.Load()
	if old == nil && len(c.Records) == 0 && c.Facts.Equal(ring.Facts{}) {
		return
	}
	r.state.Store(c)
	c.applyEnds(old, r.status.Load().Complete)
}

// write makes the repair. It reports false if the ring has to be read again.
func (sr *syncRun) write(r *tenantRing, union *ringCopy, m protocol.MergeResult, digest string) (bool, error) {
	s := &sealer{keks: sr.k.cfg.KEKs.sealing(), tenant: r.tenant, digest: digest, have: union, actor: sr.k.cfg.Instance}
	c, err := s.change(m.Change, nil)
	if err != nil {
		return false, err
	}
	ctx, cancel := sr.callContext()
	defer cancel()
	result, err := sr.k.store.Write(ctx, c)
	if err != nil || result.Code != Committed {
		return false, err
	}
	sr.k.counts.repairs.Add(1)
	sr.k.cfg.Logger.Info("merged back into the store what it lacked", "tenant", r.tenant, "records", len(m.Change.Restore), "facts", len(m.Change.Facts))
	sr.install(r, assemble(m.Healed, union), result.Digest)
	return true, nil
}

// note logs what has changed with this round, in few lines: there are many buckets. That
// a pass was called off says nothing of the store.
func (sr *syncRun) logAttempt(failed int, err error, before int) {
	if sr.ctx.Err() != nil {
		return
	}
	log, down := sr.k.cfg.Logger, sr.k.down
	sr.k.down = failed > 0
	switch {
	case failed > 0:
		sr.k.counts.failures.Add(1)
		if !down {
			log.Warn("the store cannot be reached: verifying goes on, and signing for SignFor", "buckets", failed, "error", err)
		}
	case down:
		log.Info("the store is reached again")
	}
	switch now := sr.k.loop.recoveringRings(); {
	case now > before:
		log.Info("in doubt about the store: others get the time to put back what it may have lost", "rings", now)
	case now == 0 && before > 0:
		log.Info("in step with the store")
	}
}

// fail notes that a bucket could not be synced: nothing moves.
func (sr *syncRun) failBucket(b *bucket, err error) {
	b.err = unavailable(err)
	out := *b.status.Load()
	out.err = withClock(out.err, b.err)
	b.status.Store(&out)
	for _, r := range b.rings {
		if old := r.status.Load(); !old.bad {
			out := *old
			out.err = withClock(out.err, b.err)
			r.status.Store(&out)
		}
	}
}

// withClock returns err, with what is known of the clocks: that the store cannot be
// reached does not put one right.
func withClock(known, err error) error {
	if off := (*ClockError)(nil); errors.As(known, &off) {
		since := *off
		since.Since = err
		return &since
	}
	return err
}

// settle moves the freshness of a bucket that is completely in.
func (sr *syncRun) finishBucket(b *bucket, reply *SyncReply, sent, received time.Time) {
	sr.advance(b, reply, sent, received)
	status := &syncStatus{SyncState: b.state, quietSince: b.quietSince, err: b.err}
	b.status.Store(status)
	good := b.err == nil && !b.state.Recovering
	for _, r := range b.rings {
		off := checkClock(reply.Now, sent, received, r.state.Load().protocolCopy().ClockSkew())
		sr.finishRing(r, status, off, good)
		good = good && !r.dirty && off == nil
	}
	switch {
	case !good:
		b.goodSince = time.Time{}
	case b.goodSince.IsZero():
		b.goodSince = reply.Now
	}
}

// advance moves the state of b to that after a complete sync, unless the clocks differ.
func (sr *syncRun) advance(b *bucket, reply *SyncReply, sent, received time.Time) {
	t := sr.k.times.Load()
	switch b.err = checkClock(reply.Now, sent, received, b.skew()); {
	case b.err == nil:
		reading := protocol.SyncReading{Sent: sent, Resync: reply.Resync, Trusted: sr.k.cfg.TrustFirstRead, Vouched: reply.Vouched}
		b.state = b.state.After(reading, protocol.Limits{Fresh: max(t.fresh, b.fresh), Recover: 2 * t.maxPollGap()})
		b.fresh = t.fresh
		if reply.Place != b.place || b.quietSince.IsZero() {
			b.place, b.quietSince = reply.Place, sent
		}
	case !b.state.Complete.IsZero():
		b.state.Complete = sent
	}
}

// finishRing publishes the status of r after a complete sync of its bucket. off is why the clocks
// differ by more than r allows, or nil.
func (sr *syncRun) finishRing(r *tenantRing, status *syncStatus, off error, good bool) {
	if r.dirty {
		return
	}
	c := r.state.Load()
	if off != nil {
		behind := *r.status.Load()
		behind.Complete, behind.err = status.Complete, off
		r.status.Store(&behind)
	} else {
		r.status.Store(status)
		sr.logNoRing(r, good && c == nil)
	}
	if c != nil {
		c.applyEnds(nil, status.Complete)
	}
}

// sayNoRing logs, once, that a tenant whose ring is to be held has none. Whoever opens a
// keyring to make a ring gets a poll's time to do so.
func (sr *syncRun) logNoRing(r *tenantRing, none bool) {
	if !none {
		r.emptySyncs = 0
		return
	}
	if r.emptySyncs++; r.emptySyncs == 2 && !sr.k.holdsAll() && !sr.k.cfg.AllowBootstrap && !sr.k.cfg.OneShot {
		sr.k.cfg.Logger.Warn("the store has no ring of the tenant: make one (keyturn keys create, or Rotator.Create)", "tenant", r.tenant)
	}
}

// retime takes the times from the policies of the rings that are held now, but for those
// that the Config's own times do not do for: they are out of step, and no others.
func (k *Keyring) retime() {
	fresh := time.Duration(0)
	for _, r := range k.allRings() {
		n := r.state.Load().newest()
		if n != nil && (fresh == 0 || n.Timing.Freshness < fresh) && k.checkTimes(n.Timing.Freshness) == nil {
			fresh = n.Timing.Freshness
		}
	}
	if fresh > 0 {
		k.setTimes(fresh)
	}
}
