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

// A syncRun is one sync of some buckets, from the request to the repair. Only the loop makes them, one
// at a time.
type syncRun struct {
	k       *Keyring
	ctx     context.Context
	buckets []*bucket
	compare map[string]bool // tenants whose digests are compared, whatever digestTurn says
	changed bool            // some ring has changed
	asked   times           // the times when the attempt began
}

func (run *syncRun) run() {
	run.k.counts.syncs.Add(1)
	again := run.buckets
	for range syncRounds {
		if again = run.attempt(again); len(again) == 0 {
			break
		}
	}
}

// attempt syncs buckets once, and returns those whose log has more entries.
func (run *syncRun) attempt(buckets []*bucket) (more []*bucket) {
	sent := run.k.cfg.Now()
	run.asked = *run.k.times.Load()
	replies := run.sync(buckets, sent)
	received := run.k.cfg.Now()
	run.list(buckets, replies)
	run.load(run.stale(buckets, replies))
	run.k.drop(buckets)
	if run.changed {
		run.k.retime()
	}
	failed, unreached, before := 0, error(nil), run.k.loop.recovering()
	for i, b := range buckets {
		switch reply := &replies[i]; {
		case reply.Err != nil:
			failed, unreached = failed+1, reply.Err
			run.failBucket(b, reply.Err)
		case reply.More:
			b.place, b.quietSince = reply.Place, sent
			more = append(more, b)
		case b.state.Complete.IsZero() && run.asked.w() != run.k.times.Load().w() && !run.k.cfg.TrustFirstRead:
			more = append(more, b) // peers vouch for W, which we know only now
		default:
			run.finishBucket(b, reply, sent, received)
		}
	}
	run.logAttempt(failed, unreached, before)
	return more
}

// call returns the context of one call of the store.
func (run *syncRun) call() (context.Context, context.CancelFunc) {
	return context.WithTimeout(run.ctx, run.k.times.Load().deadline)
}

func (run *syncRun) sync(buckets []*bucket, now time.Time) []SyncReply {
	w := run.asked.w()
	requests := make([]SyncRequest, len(buckets))
	for i, b := range buckets {
		if b.state.Recovering || protocol.Age(now, b.state.Complete) > max(run.asked.fresh, b.fresh) {
			b.goodSince = time.Time{} // we vouch for no peer
		}
		requests[i] = SyncRequest{Bucket: b.index, Place: b.place, GoodSince: b.goodSince, Digests: run.digests(b)}
		if b.state.Complete.IsZero() {
			requests[i].VouchWithin, requests[i].VouchFor = w, 2*w
		}
	}
	instance := run.k.cfg.Instance
	if run.k.cfg.OneShot {
		instance = ""
	}
	ctx, cancel := run.call()
	defer cancel()
	return run.k.store.Sync(ctx, instance, requests)
}

// digests returns the tenants of b whose digests are compared this time, in the order of the bucket.
// Each sync compares a part of them, so that every ring is compared within one Freshness.
func (run *syncRun) digests(b *bucket) []string {
	var tenants []string
	for i, r := range b.rings {
		if i%digestSlices == b.digestTurn%digestSlices || run.compare[r.tenant] {
			tenants = append(tenants, r.tenant)
		}
	}
	return tenants
}

// list learns of the tenants of the buckets in which anything may have changed.
func (run *syncRun) list(buckets []*bucket, replies []SyncReply) {
	if !run.k.holdsAll() {
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
	ctx, cancel := run.call()
	defer cancel()
	tenants, err := run.k.store.Tenants(ctx, indexes)
	for i := range indexes {
		if err != nil {
			replies[at[i]].Err = err
			continue
		}
		replies[at[i]].Changed = tenants[i]
	}
}

// stale returns the rings that have to be read.
func (run *syncRun) stale(buckets []*bucket, replies []SyncReply) []*tenantRing {
	var stale []*tenantRing
	for i, b := range buckets {
		reply := &replies[i]
		if reply.Err != nil {
			continue
		}
		if reply.Resync {
			run.k.counts.resyncs.Add(1)
		}
		run.mark(b, reply)
		for _, r := range b.rings {
			if r.dirty || reply.Resync {
				stale = append(stale, r)
			}
		}
	}
	return stale
}

// mark makes those rings dirty that the reply says have changed.
func (run *syncRun) mark(b *bucket, reply *SyncReply) {
	for i, tenant := range run.digests(b) {
		if r := run.k.ring(tenant); i < len(reply.Digests) && reply.Digests[i] != r.digest {
			r.dirty = true
		}
	}
	for _, tenant := range reply.Changed {
		r := run.k.ring(tenant)
		if r == nil && run.k.holdsAll() && BucketOf(tenant) == b.index && isTenant(tenant) {
			r = run.k.add(tenant)
		}
		if r != nil {
			r.dirty = true
		}
	}
	b.digestTurn++
}

// load reads rings, and joins them with the copies that are held.
func (run *syncRun) load(stale []*tenantRing) {
	for len(stale) > 0 {
		n := min(len(stale), loadAtOnce)
		some := stale[:n]
		stale = stale[n:]
		tenants := make([]string, n)
		for i, r := range some {
			tenants[i] = r.tenant
		}
		run.joinAll(some, run.read(tenants))
	}
}

// A snapshot is a Snapshot with our clock's time before and after it was read.
type snapshot struct {
	Snapshot
	sent, received time.Time
}

func (run *syncRun) read(tenants []string) []snapshot {
	ctx, cancel := run.call()
	defer cancel()
	sent := run.k.cfg.Now()
	loaded := run.k.store.Load(ctx, tenants)
	received := run.k.cfg.Now()
	snapshots := make([]snapshot, len(loaded))
	for i := range loaded {
		snapshots[i] = snapshot{loaded[i], sent, received}
	}
	return snapshots
}

// joiners is how many rings are opened, and repaired, at once.
const joiners = 8

func (run *syncRun) joinAll(rings []*tenantRing, snapshots []snapshot) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(joiners, len(rings)) {
		wg.Go(func() {
			for i := range next {
				run.noteJoined(rings[i], run.join(rings[i], snapshots[i]))
			}
		})
	}
	for i, r := range rings {
		if snapshots[i].Err == nil && (snapshots[i].Digest != r.digest || r.dirty) {
			run.changed = true
		}
		next <- i
	}
	close(next)
	wg.Wait()
}

// noteJoined notes whether a ring is in sync.
func (run *syncRun) noteJoined(r *tenantRing, err error) {
	r.dirty = err != nil
	old := r.step.Load()
	if err == nil {
		return // finishBucket follows
	}
	if old.err == nil && run.ctx.Err() == nil {
		run.k.cfg.Logger.Warn("a ring is out of step", "tenant", r.tenant, "error", err)
	}
	out := *old
	out.err, out.bad = cannotTell(err), true
	r.step.Store(&out)
}

// maxMerges bounds how often a merge is tried again because the ring has changed meanwhile.
const maxMerges = 4

// join joins a ring in the store with the copy that is held, and writes back what the store lacks. The
// error says why the ring is not in sync.
func (run *syncRun) join(r *tenantRing, s snapshot) error {
	wrote := false
	for range maxMerges {
		if s.Err != nil {
			return s.Err
		}
		old := r.state.Load()
		theirs, failed := run.open(r, s)
		off := checkClock(s.Now, s.sent, s.received, min(old.known().ClockSkew(), theirs.ClockSkew()))
		result := protocol.Merge(protocol.MergeInput{Held: old.known(), Stored: theirs.Copy, Unreadable: unreadable(failed), Now: s.Now, ClockOff: off != nil,
			Good: r.step.Load().Good, LocalNow: s.received, Deadline: run.k.times.Load().deadline})
		union := assemble(result.Union, theirs, old)
		run.install(r, union, s.Digest)
		switch {
		case off != nil:
			return off
		case result.Change == nil, run.k.cfg.OneShot, wrote:
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
		s = run.read([]string{r.tenant})[0]
	}
	return &ring.Error{Text: "the ring changes faster than it can be merged"}
}

// open opens a ring as the store has it. A field that cannot be opened counts neither as new data nor as
// missing data.
func (run *syncRun) open(r *tenantRing, s snapshot) (*ringCopy, *ring.UnreadableError) {
	opened, err := seal.OpenRing(run.k.cfg.KEKs.sealing(), r.tenant, s.Fields)
	var failed *ring.UnreadableError
	errors.As(err, &failed)
	return openCopy(r.state.Load(), s.Fields, opened), failed
}

// checkOpened returns why a ring that has been read is not in sync, or nil.
func (run *syncRun) checkOpened(r *tenantRing, failed *ring.UnreadableError) error {
	if failed != nil {
		return failed
	}
	if n := r.state.Load().newest(); n != nil {
		return run.k.checkTimes(n.Timing.Freshness)
	}
	return nil
}

// install makes c what this process holds of r.
func (run *syncRun) install(r *tenantRing, c *ringCopy, digest string) {
	r.digest = digest
	old := r.state.Load()
	if old == nil && len(c.Records) == 0 && c.Facts.Equal(ring.Facts{}) {
		return
	}
	r.state.Store(c)
	c.applyEnds(old, r.step.Load().Complete)
}

// write makes the repair. It reports false if the ring has to be read again.
func (run *syncRun) write(r *tenantRing, union *ringCopy, m protocol.MergeResult, digest string) (bool, error) {
	s := &sealer{keks: run.k.cfg.KEKs.sealing(), tenant: r.tenant, digest: digest, have: union, actor: run.k.cfg.Instance}
	c, err := s.change(m.Change, nil)
	if err != nil {
		return false, err
	}
	ctx, cancel := run.call()
	defer cancel()
	result, err := run.k.store.Write(ctx, c)
	if err != nil || result.Code != Committed {
		return false, err
	}
	run.k.counts.repairs.Add(1)
	run.k.cfg.Logger.Info("merged back into the store what it lacked", "tenant", r.tenant, "records", len(m.Change.Restore), "facts", len(m.Change.Facts))
	run.install(r, assemble(m.Healed, union), result.Digest)
	return true, nil
}

// logAttempt logs what this attempt has changed, in few lines, as there are many buckets. If ctx has
// ended, a failure says nothing about the store.
func (run *syncRun) logAttempt(failed int, err error, before int) {
	if run.ctx.Err() != nil {
		return
	}
	log, down := run.k.cfg.Logger, run.k.down
	run.k.down = failed > 0
	switch {
	case failed > 0:
		run.k.counts.failures.Add(1)
		if !down {
			log.Warn("the store cannot be reached: verifying goes on, and signing for SignFor", "buckets", failed, "error", err)
		}
	case down:
		log.Info("the store is reached again")
	}
	switch now := run.k.loop.recovering(); {
	case now > before:
		log.Info("in doubt about the store: others get the time to put back what it may have lost", "rings", now)
	case now == 0 && before > 0:
		log.Info("in step with the store")
	}
}

// failBucket notes that a bucket could not be synced. Its times stay as they are.
func (run *syncRun) failBucket(b *bucket, err error) {
	b.err = cannotTell(err)
	out := *b.step.Load()
	out.err = withClock(out.err, b.err)
	b.step.Store(&out)
	for _, r := range b.rings {
		if old := r.step.Load(); !old.bad {
			out := *old
			out.err = withClock(out.err, b.err)
			r.step.Store(&out)
		}
	}
}

// withClock returns err with the ClockError that is known, if there is one: a clock that was off stays
// off while the store cannot be reached.
func withClock(known, err error) error {
	if off := (*ClockError)(nil); errors.As(known, &off) {
		since := *off
		since.Since = err
		return &since
	}
	return err
}

// finishBucket moves the times of a bucket that has been read completely.
func (run *syncRun) finishBucket(b *bucket, reply *SyncReply, sent, received time.Time) {
	t := run.k.times.Load()
	switch b.err = checkClock(reply.Now, sent, received, b.skew()); {
	case b.err == nil:
		b.state = b.state.After(protocol.SyncReading{Sent: sent, Resync: reply.Resync, Trusted: run.k.cfg.TrustFirstRead, Vouched: reply.Vouched},
			protocol.Limits{Fresh: max(t.fresh, b.fresh), Recover: 2 * t.w()})
		b.fresh = t.fresh
		if reply.Place != b.place || b.quietSince.IsZero() {
			b.place, b.quietSince = reply.Place, sent
		}
	case !b.state.Complete.IsZero():
		b.state.Complete = sent
	}
	good := b.err == nil && !b.state.Recovering
	step := &syncStatus{SyncState: b.state, quietSince: b.quietSince, err: b.err}
	b.step.Store(step)
	for _, r := range b.rings {
		if r.dirty {
			good = false
			continue
		}
		h := r.state.Load()
		if off := checkClock(reply.Now, sent, received, h.known().ClockSkew()); off != nil {
			good = false
			out := *r.step.Load()
			out.Complete, out.err = b.state.Complete, off
			r.step.Store(&out)
		} else {
			r.step.Store(step)
			run.logNoRing(r, good && h == nil)
		}
		if h != nil {
			h.applyEnds(nil, b.state.Complete)
		}
	}
	switch {
	case !good:
		b.goodSince = time.Time{}
	case b.goodSince.IsZero():
		b.goodSince = reply.Now
	}
}

// logNoRing logs, once, that a tenant of the Config has no ring. A caller that opens a keyring to
// create a ring gets one poll's time to do so.
func (run *syncRun) logNoRing(r *tenantRing, none bool) {
	if !none {
		r.emptySyncs = 0
		return
	}
	if r.emptySyncs++; r.emptySyncs == 2 && !run.k.holdsAll() && !run.k.cfg.AllowBootstrap && !run.k.cfg.OneShot {
		run.k.cfg.Logger.Warn("the store has no ring of the tenant: make one (keyturn keys create, or Rotator.Create)", "tenant", r.tenant)
	}
}

// retime takes the times from the policies of the rings that are held now. It leaves out rings whose
// Freshness is too short for the Config's own times: only those are out of sync.
func (k *Keyring) retime() {
	fresh := time.Duration(0)
	for _, r := range k.all() {
		n := r.state.Load().newest()
		if n != nil && (fresh == 0 || n.Timing.Freshness < fresh) && k.checkTimes(n.Timing.Freshness) == nil {
			fresh = n.Timing.Freshness
		}
	}
	if fresh > 0 {
		k.setTimes(fresh)
	}
}
