package synced

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/rotation/internal/held"
	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/store"
)

// This file has what a sync learns from the log of a bucket, and what it acknowledges.

// readEntries takes over what the entries of the log say: which rings changed, and which facts that
// end trust are in an authentic entry. An instance so learns a revocation even if a person who can
// write to the store has removed it from the ring.
func (run *syncRun) readEntries(b *Bucket, reply *store.SyncReply) {
	for _, e := range reply.Changed {
		if store.BucketOf(e.Tenant) != b.index {
			continue // no keyturn writes it there, and this sync does not read that ring
		}
		ends, authentic := run.openEntry(b, e)
		if authentic && e.Op == ring.OpMerge {
			run.k.lastMerge = run.k.cfg.Now()
		}
		r := run.k.Ring(e.Tenant)
		if r == nil && run.k.HoldsAll() && IsTenant(e.Tenant) {
			r = run.k.addTenant(e.Tenant)
		}
		switch {
		case r != nil:
			r.dirty = true
			b.touch(r)
			if authentic {
				r.hear(e, ends)
			}
		case authentic: // this instance accepts no token of that tenant
			b.applied = protocol.Remember(b.applied, protocol.Entry{Op: e.Op, Nonce: e.Nonce}, seal.MaxApplied)
		}
	}
}

// hear notes what an authentic entry of the log says about r. What comes before a ring was made is
// about another one, which an operator has removed. A merge that put something back tells of a loss.
func (r *Ring) hear(e store.LogEntry, ends ring.Facts) {
	if made := makesRing(e.Op); r.news == nil || made && (!r.known() || e.Nonce == r.made) {
		r.news = new(news)
	}
	r.news.ends = r.news.ends.Join(ends)
	r.news.changes = protocol.Remember(r.news.changes, protocol.Entry{Op: e.Op, KID: e.KID, Nonce: e.Nonce, Holds: true, Lives: ends.Dead}, seal.MaxApplied)
	if e.Op == ring.OpMerge && (e.KID != "" || !ends.Equal(ring.Facts{})) {
		r.Losses.Add(1)
	}
}

// makesRing reports whether there was no ring before a change.
func makesRing(op ring.Op) bool { return op == ring.OpCreate || op == ring.OpAdopt }

// openEntry returns the facts of an entry of b's log, and whether the entry is authentic. An entry
// that is not is only a hint that a ring changed. Only the store itself writes entries
// without a MAC: the first one of a log, and those that list a tenant again.
func (run *syncRun) openEntry(b *Bucket, e store.LogEntry) (ring.Facts, bool) {
	if len(e.MAC) == 0 && (e.Op == opList || e.Op == opBegin) {
		if e.Op == opList && e.Actor != "" { // else it is of listTenants
			run.k.Raise(&run.k.Alarms.Older, "the store has lost the name of a tenant that has a ring; it is listed again", "tenant", e.Tenant, "by", e.Actor)
		}
		return ring.Facts{}, false
	}
	ends, err := held.OpenEntry(run.k.KEKs.Load(), e)
	if err != nil && !errors.Is(err, seal.ErrWrongKEK) && !errors.Is(err, seal.ErrNewer) {
		run.k.Raise(&run.k.Alarms.Forged, "an entry of the store's log is not authentic, and only counts as a hint", "tenant", e.Tenant, "op", string(e.Op), "bucket", b.index, "error", err)
	}
	return ends, err == nil
}

// The operations of entries that the store itself writes.
const opBegin, opList ring.Op = "begin", "list"

// noteApplied moves changes to b.applied once their ring was read, opened and merged, and the copy
// has what they did.
func (b *Bucket) noteApplied() {
	for _, r := range b.busy {
		if r.news == nil {
			continue
		}
		applied, waiting := protocol.Applied(r.copy().Plain(), r.news.changes, !r.dirty)
		for _, e := range applied {
			b.applied = protocol.Remember(b.applied, e, seal.MaxApplied)
		}
		if r.news.changes = waiting; len(waiting) == 0 && r.news.ends.Equal(ring.Facts{}) {
			r.news = nil
		}
	}
}

// ack returns the sealed acknowledgement of b, or nil if this process leaves none. It is dated by
// this instance's clock.
func (run *syncRun) ack(b *Bucket, now time.Time) []byte {
	if run.k.cfg.OneShot || b.place == (store.Place{}) || b.state.First() {
		return nil
	}
	return run.k.ackOf(b, run.k.cfg.Instance, now)
}

// ackOf returns the sealed acknowledgement of b under that name, or nil.
func (k *Rings) ackOf(b *Bucket, instance string, now time.Time) []byte {
	a := seal.Ack{Instance: instance, Bucket: b.index, PlaceID: b.place.ID, PlaceNonce: b.place.Nonce,
		GoodSince: b.goodSince, At: now, Ends: b.endsDigest(), Verifies: k.cfg.Verifies}
	if b.proved && !b.goodSince.IsZero() {
		a.Run = b.run
	}
	sealed, err := held.SealAck(k.KEKs.Load(), a, b.applied)
	if err != nil {
		k.cfg.Logger.Warn("an acknowledgement cannot be sealed", "bucket", b.index, "error", err)
	}
	return sealed
}

// part leaves in the store what this instance, which ends, can say of it: see [seal.Ended]. The last
// instance of a fleet so vouches for the store to the first of the next. An error costs that one two
// polls, and nothing else.
func (k *Rings) part(ctx context.Context) {
	now, t := k.cfg.Now(), k.Times.Load()
	var requests []store.SyncRequest
	for _, b := range k.buckets {
		if b.proved && !b.goodSince.IsZero() && b.vouches(now, t.MaxPollGap()) && protocol.Age(now, b.state.Complete) <= t.Fresh {
			requests = append(requests, store.SyncRequest{Bucket: b.index, Place: b.place, Ack: k.ackOf(b, seal.Ended, now)})
		}
	}
	if len(requests) > 0 {
		ctx, cancel := context.WithTimeout(ctx, t.Deadline)
		defer cancel()
		k.store.Sync(ctx, seal.Ended, requests)
	}
}

// endsDigest returns the digest of the facts that end trust, of all rings of b that this instance
// holds. An instance that starts compares it with that of one that vouches: if they differ, one of
// the two lacks a revocation.
func (b *Bucket) endsDigest() [16]byte {
	if b.endsStale {
		rings := slices.DeleteFunc(slices.Clone(b.rings), func(r *Ring) bool { return r.ends() == "" })
		slices.SortFunc(rings, func(a, b *Ring) int { return strings.Compare(a.Tenant, b.Tenant) })
		h := sha256.New()
		for _, r := range rings {
			io.WriteString(h, r.ends())
		}
		b.ends, b.endsStale = [16]byte(h.Sum(nil)), false
	}
	return b.ends
}

// reading returns what a sync of b that was sent at that time means for the protocol.
func (run *syncRun) reading(b *Bucket, reply *store.SyncReply, sent time.Time) protocol.SyncReading {
	vouched := false
	if b.state.First() {
		first := protocol.FirstRead{Self: run.k.cfg.Instance, Ends: b.endsDigest(), Now: reply.Now, Run: reply.Run, Place: reply.Place.Nonce, Gap: run.asked.MaxPollGap()}
		for _, e := range reply.Changed {
			first.Late = append(first.Late, e.Nonce)
		}
		roster := run.k.Roster(b.index, reply.Acks)
		vouched = first.Vouched(roster.Views) || first.Vouched(roster.Ended)
	}
	return protocol.SyncReading{Sent: sent, Now: reply.Now, Resync: reply.Resync, Trusted: run.k.cfg.TrustFirstRead, Vouched: vouched,
		Merging: run.k.lastMerge.After(b.state.Complete)}
}

// noteMerge raises the alarms of a merge, and notes that something was restored in r.
func (run *syncRun) noteMerge(r *Ring, m *protocol.MergeResult) {
	if m.Undone {
		r.bucket.undoneAt.Store(run.k.cfg.Now().UnixNano())
		run.k.Raise(&run.k.Alarms.Undone, "the store lacked a revocation or collection that this instance knows; it is put back: "+
			"if the store has not lost data, a person writes to it", "tenant", r.Tenant)
	}
	if m.Older {
		run.k.Raise(&run.k.Alarms.Older, "the store has an older ring than this instance has seen; what it lacks is put back: "+
			"if the store has not lost data, a person writes to it", "tenant", r.Tenant)
	}
	if len(m.Clashes) > 0 {
		run.k.Raise(&run.k.Alarms.clash, "two keys have the same kid; the one that was recorded first counts, and tokens of the other are refused", "tenant", r.Tenant, "kids", m.Clashes)
	}
	if m.Older || m.Undone || m.Change.PutsBack() {
		r.Losses.Add(1)
	}
}

// vouches reports whether b may vouch for the store to an instance that starts. It may not within
// two polls of a loss: that one could have read the ring before it was put back.
func (b *Bucket) vouches(now time.Time, gap time.Duration) bool {
	at := b.undoneAt.Load()
	return at == 0 || now.UnixNano()-at >= int64(2*gap) || now.UnixNano() < at
}

// learnedOf returns the facts that the log names and that a merge has to take into account. Where
// there is no ring, neither in the store nor here, an operator may have removed it. Then they wait.
func (r *Ring) learnedOf(old *held.Ring, s *loadedRing) ring.Facts {
	if len(s.Fields) == 0 && old == nil || r.news == nil {
		return ring.Facts{}
	}
	return r.news.ends
}

// Roster opens the acknowledgements of a bucket.
func (k *Rings) Roster(bucket int, raw []store.RawAck) held.Roster {
	return held.OpenAcks(k.KEKs.Load(), bucket, raw, func(instance string, err error) {
		k.Raise(&k.Alarms.Forged, "an acknowledgement in the store is not authentic, and is ignored", "instance", instance, "bucket", bucket, "error", err)
	})
}
