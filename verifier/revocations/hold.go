package revocations

import (
	"slices"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier/revocations/internal/codec"
	"github.com/keyturn/keyturn/verifier/revocations/internal/rules"
	"github.com/keyturn/keyturn/verifier/revocations/internal/table"
)

// This file has what changes the entries that are held. Each function whose name ends in Locked needs
// heldState.mu.

// learnLocked joins an authentic entry that the store has, or has logged, with the held one.
func (l *List) learnLocked(e table.Entry, k *codec.Key) {
	switch {
	case rules.Ended(e, time.Unix(l.swept, 0)):
		return
	case l.replacedLocked(e):
		if _, written := l.early[e.Digest]; written {
			l.toSweep = true
		}
		return
	}
	held, inTable := l.table.Get(e.Digest)
	if !inTable && !l.roomLocked(e) {
		return
	}
	counted := earlyEntry{counted: held, ok: inTable}
	early, written := l.early[e.Digest]
	if written {
		counted = early
	}
	joined := l.countLocked(counted, e, k)
	l.table.Put(e)
	switch {
	case !written:
	case rules.Lacks(joined, held):
		l.early[e.Digest] = earlyEntry{joined, true, early.at}
	default:
		delete(l.early, e.Digest)
	}
	if e.Kind == table.Tenant && tenantOf(e.Digest) == e.Tenant { // others are forged, see rules.Replaces
		l.tenants[e.Tenant] = joined
		l.toSweep = true
	}
}

// countLocked counts e in the fingerprints, joined with the counted entry of its digest. It returns the
// joined one.
func (l *List) countLocked(counted earlyEntry, e table.Entry, k *codec.Key) table.Entry {
	g := groupOf(e.Digest, len(l.prints))
	switch {
	case !counted.ok:
		l.prints[g] ^= k.Fingerprint(e)
		return e
	case rules.Lacks(counted.counted, e):
		joined := rules.Join(counted.counted, e)
		l.prints[g] ^= k.Fingerprint(counted.counted) ^ k.Fingerprint(joined)
		return joined
	}
	return counted.counted
}

// replacedLocked reports whether the revocation of the whole tenant does what e does.
func (l *List) replacedLocked(e table.Entry) bool {
	t, ok := l.tenants[e.Tenant]
	return ok && rules.Replaces(t, e, l.cfg.ClockSkew)
}

// holdEarly holds an entry that this process writes, before it has read it back. It revokes at once, but
// is not counted among what the store has: the place of the log says nothing of it yet.
func (l *List) holdEarly(e table.Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	held, ok := l.table.Get(e.Digest)
	early, written := l.early[e.Digest]
	if !written && ok && !rules.Lacks(held, e) {
		return
	}
	if !written {
		early = earlyEntry{counted: held, ok: ok}
	}
	early.at = l.cfg.Now()
	l.early[e.Digest] = early
	l.table.Put(e)
}

// settleEarly counts the early entries of the buckets that were read with a sync sent after they were
// written: the log did not have them, so the store has lost them. A failover may do that.
func (l *List) settleEarly(read map[*bucket]bool, sent time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for digest, early := range l.early {
		g := groupOf(digest, len(l.prints))
		b := l.byIndex[bucketsOf()[g]]
		if !read[b] || !early.at.Before(sent) {
			continue
		}
		e, _ := l.table.Get(digest)
		if k := l.keys.set.Find(e.Key); k != nil {
			l.learnLocked(e, k)
		}
		b.lost[g] = true
		l.nudge(b.index)
	}
}

// countEarly counts an early entry as held: whether the store has it is unknown, so it is compared, and
// put back if it is not there.
func (l *List) countEarly(e table.Entry, k *codec.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, written := l.early[e.Digest]; written {
		l.learnLocked(e, k)
	}
	l.unsure[groupOf(e.Digest, len(l.prints))] = true
}

// takeUnsure has the groups read whose writes had an unknown outcome.
func (l *List) takeUnsure() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for g := range l.unsure {
		l.byIndex[bucketsOf()[g]].lost[g] = true
	}
	clear(l.unsure)
}

// sweep forgets entries that have ended, once a minute. The minute goes by the clock that is behind,
// this one or the store's: without the store's nothing is forgotten. It reports whether the reading
// counts. It does not if the minutes went by a clock that was ahead and is set back now: what was
// forgotten has to be read again.
func (r *reading) sweep() (counts bool) {
	l := r.l
	if !slices.ContainsFunc(r.replies, func(reply rotation.SyncReply) bool { return reply.Err == nil }) {
		return true
	}
	now := r.sent
	if r.received.Before(now) {
		now = r.received
	}
	now = now.Add(min(l.offset, 0))
	l.mu.Lock()
	defer l.mu.Unlock()
	minute := rules.Minute(now)
	switch {
	case now.Unix() < l.earliest():
		l.beginAnewLocked(minute)
		return false
	case minute <= l.swept:
		return true
	}
	l.swept = minute
	for i := range l.gone {
		for end := range l.gone[i] {
			if end < minute-60 && l.byIndex[i] != nil && !l.byIndex[i].state.Good.IsZero() {
				delete(l.gone[i], end)
			}
		}
	}
	l.dropLocked(func(e table.Entry) bool { return rules.Ended(e, time.Unix(minute, 0)) }, true)
	return true
}

// earliest returns the second before which a clock was set back since entries were forgotten, and does
// not only differ. The caller holds mu.
func (l *List) earliest() int64 {
	return l.swept - int64((2*l.cfg.ClockSkew+l.cfg.Deadline)/time.Second) - 1
}

// beginAnewLocked has everything read as after a start. Until then the list cannot tell.
func (l *List) beginAnewLocked(minute int64) {
	l.swept = minute
	for _, b := range l.all {
		b.state, b.place, b.past, b.been, b.begun = rules.State{}, rotation.Place{}, nil, nil, false
		l.nudge(b.index)
	}
	l.cfg.Logger.Error("revocations: a clock was ahead and is set back: all revocations are read again")
}

// sweepTenants forgets what the revocations of whole tenants replace.
func (l *List) sweepTenants() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.toSweep {
		l.toSweep = false
		l.dropLocked(l.replacedLocked, false)
	}
}

// dropLocked forgets the entries that goes selects. ended says that they have ended.
func (l *List) dropLocked(goes func(table.Entry) bool, ended bool) {
	keys := l.keys.set
	l.table.Drop(func(e table.Entry) bool {
		if !goes(e) {
			return false
		}
		counted, ok := e, true
		if early, written := l.early[e.Digest]; written {
			counted, ok = early.counted, early.ok
			delete(l.early, e.Digest)
		}
		g := groupOf(e.Digest, len(l.prints))
		b := l.byIndex[bucketsOf()[g]]
		if k := keys.Find(e.Key); ok && k != nil {
			f := k.Fingerprint(counted)
			l.prints[g] ^= f
			if ended {
				l.addGone(b, counted.End, f)
			}
		}
		if e.Kind == table.Tenant && tenantOf(e.Digest) == e.Tenant {
			delete(l.tenants, e.Tenant)
		}
		b.ended[g] = true
		return true
	})
}

// noteClock notes how far the store's clock is ahead of this one.
func (r *reading) noteClock() {
	offset, known := time.Duration(0), len(r.buckets) < len(r.l.all)
	if known {
		offset = r.l.offset
	}
	for i := range r.replies {
		if d := r.replies[i].Now.Sub(r.received); r.replies[i].Err == nil && (!known || d < offset) {
			offset, known = d, true
		}
	}
	if known {
		r.l.offset = offset
	}
}
