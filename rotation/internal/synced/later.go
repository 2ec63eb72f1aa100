package synced

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/rotation/internal/held"
	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/store"
)

// This file has how many rings are opened: read, authenticated, and joined with the copies that are held. To read a hundred
// thousand takes a part of the time that the rest does, and one token needs the rest of one ring. So Open returns
// when the rings were read. Each is opened when something asks for it first, and the loop opens all others before
// its first poll. Nothing sees a ring that was not opened: each method of [Ring] opens it first.
//
// Until the loop has opened all, every bucket recovers: the instance is not ready, it vouches for nothing, and a
// key that is missing may exist. A revocation in a ring counts from the first lookup.

// openAtOnce is up to how many rings Open opens all before it returns, which takes some 30 ms.
const openAtOnce = 512

// maxUnopened is how much memory the rings take at most that are opened later, in bytes: 180 000 rings of HS256
// with two keys. Others are opened as they are read. A person who writes to the store can add a megabyte to each
// ring, and nothing of that is left once it was opened.
const maxUnopened = 256 << 20

const perField = 80 // bytes that a map takes besides for each field

// errOpening is why an instance is not in sync that has read the rings, and has not opened all.
var errOpening = Unavailable(errors.New("the rings were read, and are being opened"))

// An opening is what the rings have in common that one Open leaves to be opened later.
type opening struct {
	k       *Rings
	trusted *Status        // of a ring that was opened, with TrustFirstRead; else nil
	later   store.Digester // that computes the digest of a ring when it is opened; nil if the store has read it

	// The rest is of the loop.
	run   *syncRun
	asked asked
	rings []*Ring     // some of which are not opened
	bytes int         // of memory that they take, about
	full  atomic.Bool // there is no room for more; goroutines that read rings look at it
}

// An unopened ring was read, and not opened.
type unopened struct {
	of     *opening
	at     *readTimes
	digest uint64 // see Ring.digest; computed later if the store can
	fields map[string][]byte

	mu sync.Mutex // held while the ring is opened; Bucket.mu, Agenda.mu and those of keys may be taken meanwhile
}

// readTimes are those of a loadedRing. Many rings have the same.
type readTimes struct{ now, sent, received time.Time }

// opened opens r if it was only read before, and returns it. Any goroutine may call it, except where r is being
// opened. It does no I/O. r may be nil.
func (r *Ring) opened() *Ring {
	if r != nil {
		if u := r.unopened.Load(); u != nil {
			u.open(r)
		}
	}
	return r
}

// open opens r. If something speaks against it, r stays dirty, with the authentic parts of it and keys that verify
// nothing yet, and the loop reads it again. The loop alone reports faults of a ring, and alone writes to the
// store.
func (u *unopened) open(r *Ring) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if r.unopened.Load() == nil {
		return // another goroutine has opened it
	}
	k := u.of.k
	if u.of.later != nil {
		u.digest = k.hash(u.of.later.Digest(u.fields))
	}
	c, ok := k.openPlain(r.Tenant, u.loaded())
	if ok {
		r.digest, r.dirty = u.digest, false
	} else {
		r.own.Store(&Status{Err: errOpening}) // before its copy: no read of it was complete
	}
	if worthHolding(c) {
		k.set(r, c, nil)
	}
	if p, has := r.policy(); ok && u.of.trusted != nil && (!has || p.Freshness >= k.Times.Load().Fresh) {
		r.own.Store(u.of.trusted) // not for longer than its Freshness: the loop makes Times short enough for all
	}
	r.unopened.Store(nil)
}

// openPlain opens a ring of which nothing else is known. ok is false if not all of it is authentic, the clocks
// differ, the instance polls too seldom for it, or something is to be put back. c has the authentic parts.
func (k *Rings) openPlain(tenant string, s *loadedRing) (c *held.Ring, ok bool) {
	c, failed := k.openFields(tenant, s.Fields, nil)
	if failed != nil || protocol.CheckClock(s.Now, s.sent, s.received, c.ClockSkew()) != nil {
		return c, false
	}
	if n := c.Newest(); n != nil && k.CheckTimes(n.Timing.Freshness) != nil {
		return c, false
	}
	m := protocol.Merge(protocol.MergeInput{Stored: c.Copy, Now: s.Now, LocalNow: s.received, Deadline: k.Times.Load().Deadline})
	return c, m.Change == nil && m.Union == c.Copy
}

// first is run for Open, which leaves it to the loop to end if there are many rings. It returns the rest, or
// nil.
func (run *syncRun) first() *opening {
	run.k.Counts.Syncs.Add(1)
	a := run.ask(run.buckets)
	o := &opening{k: run.k, run: run, asked: a}
	at := run.mustOpen(a.stale)
	run.loadRings(a.stale[:at])
	if run.k.cfg.TrustFirstRead {
		o.trusted = &Status{SyncState: protocol.SyncState{Complete: a.sent, Good: a.sent, Knew: a.sent}}
	}
	if rest := a.stale[at:]; slices.ContainsFunc(a.stale[:at], func(r *Ring) bool { return !r.dirty && r.known() }) {
		o.read(rest)
	} else {
		run.loadRings(rest) // there may be no ring that can be opened: then Open returns the reason
	}
	if len(o.rings) == 0 {
		run.rounds(run.conclude(a), syncRounds-1)
		return nil
	}
	run.k.retime()
	o.publish()
	return o
}

// mustOpen sorts rings so that those come first that Open must open, and returns how many they are: all, or those
// of which something is known already, and one page of the others.
func (run *syncRun) mustOpen(rings []*Ring) int {
	atOnce := cmp.Or(run.k.cfg.OpenAtOnce, openAtOnce)
	if run.k.cfg.OneShot || run.k.cfg.Snapshot != "" || len(rings) <= atOnce {
		return len(rings)
	}
	first := func(r *Ring) int {
		if r.known() || r.news != nil && !r.news.ends.Equal(ring.Facts{}) { // the log may know more than the ring has
			return 0
		}
		return 1
	}
	slices.SortStableFunc(rings, func(a, b *Ring) int { return first(a) - first(b) })
	known := 0
	for known < len(rings) && first(rings[known]) == 0 {
		known++
	}
	return min(len(rings), known+min(atOnce, loadAtOnce))
}

// read reads rings, to be opened later as far as there is room. One that cannot be read stays dirty, so that the loop
// reads it again.
func (o *opening) read(rings []*Ring) {
	at := new(readTimes)
	o.run.readPages(rings, o.loader(), func(page []*Ring, loaded []loadedRing) {
		var others []*Ring
		var theirs []loadedRing
		for i, r := range page {
			s := &loaded[i]
			if o.full.Load() {
				others, theirs = append(others, r), append(theirs, *s)
				continue
			}
			if r.bucket.touch(r); s.Err != nil {
				continue
			}
			if t := (readTimes{s.Now, s.sent, s.received}); t != *at {
				at = &t
			}
			o.keep(r, s, at)
		}
		o.digest(theirs)
		o.run.joinAll(others, theirs)
	})
	o.rings = rings
}

// loader returns how rings are read: without their digests as long as there is room to open them later.
func (o *opening) loader() loader {
	s, ok := o.k.store.(store.Digester)
	if !ok {
		return o.k.store.Load
	}
	o.later = s
	return func(ctx context.Context, tenants []string) []store.Snapshot {
		if o.full.Load() {
			return s.Load(ctx, tenants)
		}
		return s.LoadFields(ctx, tenants)
	}
}

// digest computes the digests of rings that are opened now, and were read while there was room.
func (o *opening) digest(rings []loadedRing) {
	for i := range rings {
		if s := &rings[i]; s.Err == nil && s.Digest == "" && o.later != nil {
			s.Digest = o.later.Digest(s.Fields)
		}
	}
}

// keep keeps a ring that was read, to be opened later.
func (o *opening) keep(r *Ring, s *loadedRing, at *readTimes) {
	r.unopened.Store(&unopened{of: o, at: at, digest: o.k.hash(s.Digest), fields: s.Fields})
	for name, value := range s.Fields {
		o.bytes += len(name) + len(value) + perField
	}
	if o.bytes >= cmp.Or(o.k.cfg.MaxUnopened, maxUnopened) {
		o.full.Store(true)
	}
}

// publish lets others see the buckets that were read. They recover. Of the rings that are not opened one stands
// for the others of its bucket, as far as status goes.
func (o *opening) publish() {
	status := &Status{SyncState: protocol.SyncState{Complete: o.asked.sent, Recovering: true}, Err: errOpening}
	for i, b := range o.asked.buckets {
		if err := o.asked.replies[i].Err; err != nil {
			o.run.failBucket(b, err)
			continue
		}
		b.Status.Store(status)
		outlook := &Outlook{until: math.MaxInt64, skew: protocol.AnySkew}
		for _, r := range b.rings {
			u := r.unopened.Load()
			if u == nil && !r.dirty && o.trusted != nil {
				r.own.Store(o.trusted)
			}
			switch {
			case u == nil && (r.dirty || !r.known()):
				outlook.Odd = append(outlook.Odd, r)
			case u == nil || len(u.fields) > 0:
				outlook.calm++
				if outlook.first == nil || r.Tenant < outlook.first.Tenant {
					outlook.first = r
				}
			}
		}
		b.Outlook.Store(outlook)
		b.tellEnds(status) // those that are opened were set when no read was complete
	}
}

// finish ends the sync that Open began, unless the keyring is closed meanwhile: then it leaves rings unopened.
// Only the loop calls it.
func (o *opening) finish() {
	run := o.run
	var wg sync.WaitGroup
	var next atomic.Int64
	for range joiners {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(o.rings) && run.ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				o.rings[i].opened()
			}
		})
	}
	wg.Wait()
	if run.ctx.Err() != nil {
		return
	}
	run.changed = true
	for _, b := range o.asked.buckets {
		b.endsStale, b.sums.stale = true, true
	}
	again := slices.DeleteFunc(o.rings, func(r *Ring) bool { return !r.dirty })
	for _, r := range again {
		r.own.Store(new(Status)) // it was not read well yet, as the status of its bucket says
	}
	run.loadRings(again)
	o.rings = nil
	run.rounds(run.conclude(o.asked), syncRounds-1)
	run.k.loop.endSync()
	run.k.warnOfWeak()
}

// loaded returns the ring as it was read.
func (u *unopened) loaded() *loadedRing {
	s := &loadedRing{sent: u.at.sent, received: u.at.received}
	s.Now, s.Fields = u.at.now, u.fields
	return s
}
