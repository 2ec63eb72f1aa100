package revocations

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier/revocations/internal/codec"
	"github.com/keyturn/keyturn/verifier/revocations/internal/rules"
)

// syncRounds bounds how often one sync asks again, since a reply did not cover the whole log, or groups
// were read after it. The rest waits for the next poll.
const syncRounds = 8

// sync asks what changed in buckets, reads it, and puts back what the store has lost.
func (l *List) sync(ctx context.Context, buckets []*bucket) {
	for round := range syncRounds {
		if len(buckets) == 0 || ctx.Err() != nil {
			return
		}
		r := &reading{l: l, ctx: ctx, first: round == 0, buckets: buckets, sent: l.cfg.Now(), loaded: make(map[*bucket]bool), failed: make(map[*bucket]error)}
		buckets = r.run()
	}
}

// A reading is one round of a sync.
type reading struct {
	l              *List
	ctx            context.Context
	first          bool // of its sync
	buckets        []*bucket
	sent, received time.Time
	replies        []rotation.SyncReply
	lost           []lostGroup
	loaded         map[*bucket]bool  // in which groups were read
	failed         map[*bucket]error // why a group could not be read
	noKey          bool              // an entry names a digest key that is unknown
}

// run returns the buckets that have to be asked again.
func (r *reading) run() (again []*bucket) {
	l := r.l
	l.turn++
	if l.rebox.Swap(false) {
		l.keys.unread = true
	}
	r.ask()
	if !r.sweep() {
		for i := range r.replies {
			r.replies[i].Err = cmp.Or(r.replies[i].Err, errSetBack)
		}
	}
	l.takeUnsure()
	keysErr := r.readKeys()
	r.readLogs()
	r.listGroups()
	keysErr = cmp.Or(r.readKeys(), keysErr)
	r.readGroups()
	if r.noKey {
		l.keys.unread = true
		keysErr = cmp.Or(r.readKeys(), keysErr)
		r.readGroups()
	}
	l.sweepTenants()
	r.restore()
	read := make(map[*bucket]bool)
	for i, b := range r.buckets {
		switch reply := &r.replies[i]; {
		case reply.Err != nil:
			l.setState(b, b.state, b.off, reply.Err)
		case b == l.keys.bucket && keysErr != nil:
			b.exact = false
			l.setState(b, b.state, b.off, keysErr)
		case reply.More:
			b.place, b.exact = reply.Place, false
			again = append(again, b)
		default:
			read[b] = true
			if r.finish(b, reply) {
				again = append(again, b)
			}
		}
	}
	l.settleEarly(read, r.sent)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.endShortagesLocked()
	l.publishLocked(nil)
	return again
}

// readKeys reads the digest keys if they may have changed. Without them nothing else can be opened, so
// until they were read once, their error is that of all buckets.
func (r *reading) readKeys() error {
	l := r.l
	if !l.keys.unread {
		return nil
	}
	err := l.readKeys(r.ctx)
	select {
	case <-l.keysAt:
		return err
	default:
	}
	for i := range r.replies {
		r.replies[i].Err = cmp.Or(r.replies[i].Err, err)
	}
	return err
}

// ask asks the store, and acknowledges the changes that were applied before.
func (r *reading) ask() {
	l := r.l
	requests := make([]rotation.SyncRequest, len(r.buckets))
	l.mu.Lock()
	for i, b := range r.buckets {
		requests[i] = rotation.SyncRequest{
			Bucket: b.index, Place: b.place, Digests: l.digestsToCompare(b, r.first), Ack: l.ackOf(b, r.sent, l.cfg.Instance),
			Acks:     b.state.Doubt || b.state.Complete.IsZero() || (b.index+l.turn)%3 == 0,
			ListsAll: rules.MayDiscard(b.state, l.short.partial() || len(b.keyless)+len(b.broken) > 0),
		}
	}
	l.mu.Unlock()
	instance := l.cfg.Instance
	if l.cfg.Transient {
		instance = ""
	}
	ctx, cancel := context.WithTimeout(r.ctx, l.cfg.Deadline)
	defer cancel()
	r.replies = l.store.Sync(ctx, instance, requests)
	r.received = l.cfg.Now()
	r.noteMended(requests)
	r.noteClock()
	for i, b := range r.buckets {
		if reply := &r.replies[i]; reply.Err == nil {
			r.compareDigests(b, requests[i].Digests, reply)
		}
	}
}

// noteMended raises an alarm for what the store has removed. The log is read again from its beginning, and
// acknowledgements come with the next polls. All groups are listed again at once: an instance that starts reads those
// that are listed.
func (r *reading) noteMended(requests []rotation.SyncRequest) {
	for i := range r.replies {
		if names := r.replies[i].Mended; len(names) > 0 {
			r.buckets[i].recheck = true
			r.l.nudge(requests[i].Bucket)
			r.l.count(&r.l.alarms.Forged)
			r.l.cfg.Logger.Error("revocations: a key of the store held something that keyturn did not write: it was removed, and is made again; a person or another program writes to the store", "bucket", requests[i].Bucket, "keys", names)
		}
	}
}

// digestsToCompare returns the groups of b whose digests this sync compares: the next one by turns, all
// after a dispute, and that of the digest keys each time. The log names no change that a person makes
// by hand. A group that is missing in the store's list of groups is listed again. turn says that the next one's turn
// has come, once in each sync: to read a group makes another round.
func (l *List) digestsToCompare(b *bucket, turn bool) (names []string) {
	if b == l.keys.bucket {
		names = append(names, keysGroup)
	}
	if b.state.Complete.IsZero() || !turn && !b.recheck {
		return names // all is read in any case, or one was compared just now
	}
	for n := range b.groups {
		g := b.groups[(b.audited+1+n)%len(b.groups)]
		if l.prints[g] == 0 && !b.keyless[g] && !b.recheck {
			continue // nothing is held that could be lost, or that cannot be read
		}
		names = append(names, groupName(g))
		if !b.recheck {
			b.audited = (b.audited + 1 + n) % len(b.groups)
			break
		}
	}
	b.recheck = false
	return names
}

// compareDigests notes which groups are not as they were read.
func (r *reading) compareDigests(b *bucket, names []string, reply *rotation.SyncReply) {
	for i, name := range names {
		if i >= len(reply.Digests) {
			return
		}
		g, ok := groupNumber(name)
		switch {
		case !ok:
			r.l.keys.unread = r.l.keys.unread || reply.Digests[i] != r.l.keys.digest
		case reply.Digests[i] != b.digests[g] || reply.Digests[i] == "":
			b.unread[g] = true
		}
	}
}

// readLogs learns from the entries of the log.
func (r *reading) readLogs() {
	keys := r.l.current()
	for i, b := range r.buckets {
		reply := &r.replies[i]
		if reply.Err != nil {
			continue
		}
		if reply.Resync {
			b.last = ""
		}
		b.see(reply)
		for _, e := range reply.Changed {
			r.readEntry(keys, b, e)
		}
		if reply.Resync && b == r.l.keys.bucket {
			r.l.keys.unread = true
		}
	}
}

// readEntry learns from an entry of the log. One that is not authentic may be a person's, or of a newer
// version: the group that it names is read.
func (r *reading) readEntry(keys codec.Keys, b *bucket, e rotation.LogEntry) {
	l := r.l
	g, isGroup := groupNumber(e.Tenant)
	isGroup = isGroup && l.lies(g, b)
	logged, err := codec.OpenLog(keys, codec.Logged{Op: string(e.Op), Group: e.Tenant, Actor: e.Actor, Nonce: e.Nonce}, e.MAC)
	if e.Tenant == keysGroup && b == l.keys.bucket {
		l.keys.unread = true
	}
	switch {
	case err != nil && isGroup:
		b.unread[g] = true
	case err != nil:
	case !isGroup:
		b.last = e.Nonce
	default:
		b.last = e.Nonce
		r.learnLogged(b, g, logged)
		if e.Op == opRestore {
			l.merged = r.sent
		}
	}
}

// learnLogged learns the entries of an authentic entry of the log.
func (r *reading) learnLogged(b *bucket, g int, logged codec.Logged) {
	l := r.l
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range logged.Entries {
		switch k := l.keys.set.Find(e.Key); {
		case groupOf(e.Digest, len(l.prints)) != g:
		case k != nil:
			l.learnLocked(e, k)
			if l.replacedLocked(e) {
				b.ended[g] = true // the store has it, and nothing else says so
			}
		default: // the log was sealed under another digest key, which is known
			b.unread[g], l.keys.unread = true, true
		}
	}
	delete(b.digests, g)
	switch {
	case !logged.Whole:
		b.unread[g] = true
	case logged.Op == string(opCollect):
		delete(b.ended, g)
	}
	b.applied = rules.Remember(b.applied, logged.Nonce)
}

// listGroups notes which groups have to be read of the buckets whose place the store could not prove.
func (r *reading) listGroups() {
	var indexes []int
	var replies []*rotation.SyncReply
	for i, b := range r.buckets {
		if reply := &r.replies[i]; reply.Err == nil && reply.Resync {
			indexes, replies = append(indexes, b.index), append(replies, reply)
		}
	}
	if len(indexes) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(r.ctx, r.l.cfg.Deadline)
	defer cancel()
	names, err := r.l.store.Tenants(ctx, indexes)
	for i, index := range indexes {
		if err != nil {
			replies[i].Err = err
			continue
		}
		r.l.readAll(r.l.byIndex[index], names[i])
	}
}

// readAll notes that all groups of b have to be read: those that the store lists, and those of which
// something is held.
func (l *List) readAll(b *bucket, names []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone[b.index] = nil // ended entries are counted again as they are read
	for _, name := range names {
		if g, ok := groupNumber(name); ok && l.lies(g, b) {
			b.unread[g] = true
		}
		l.keys.unread = l.keys.unread || name == keysGroup
	}
	for _, g := range b.groups {
		if l.prints[g] != 0 {
			b.unread[g] = true
		}
	}
	l.keys.unread = l.keys.unread || b == l.keys.bucket
}

// lies reports whether the group g lies in b. Anyone can write names into the store.
func (l *List) lies(g int, b *bucket) bool {
	return g < len(l.prints) && l.byIndex[bucketsOf()[g]] == b
}

// finish notes that a bucket was read. It reports whether to ask again at once: the groups
// may have been read later than the log, and can be compared with those of others only afterwards. Then others are
// to hear of it, too: the acknowledgement of before says that nothing can be compared.
func (r *reading) finish(b *bucket, reply *rotation.SyncReply) (again bool) {
	l := r.l
	if len(b.unread) > 0 {
		b.exact = false // the log was read further than its place says
		l.setState(b, b.state, b.off, cmp.Or(r.failed[b], errUnread))
		return false
	}
	was := b.exact
	b.place, b.exact = reply.Place, !r.loaded[b]
	l.mu.Lock()
	held, gone := l.heldAt(b), l.goneOf(b)
	l.mu.Unlock()
	if b.exact {
		b.rememberPast(held)
	}
	if b.state.Complete.IsZero() && !b.exact && !b.begun && !l.cfg.TrustFirstRead {
		b.begun = true // others can vouch only after the comparison, so the state begins with it
		return true
	}
	now := rules.Reading{Sent: r.sent, Run: reply.Run, Resync: reply.Resync, Trusted: l.cfg.TrustFirstRead, Merging: !l.merged.IsZero() && !l.merged.Before(b.state.Complete)}
	r.readAcks(b, reply, held, gone, &now)
	l.setState(b, b.state.After(now, 2*l.cfg.gap()), rules.Off(reply.Now, r.sent, r.received, l.cfg.ClockSkew), nil)
	return r.loaded[b] || b.exact && !was && !l.cfg.Transient
}

// errSetBack reports a reading that does not count, since a clock was set back.
var errSetBack = errors.New("revocations: a clock was set back")

// errUnread reports that a group of a bucket could not be read.
var errUnread = errors.New("revocations: a group of the store could not be read")

// readAcks compares the held entries with the acknowledgements of others.
func (r *reading) readAcks(b *bucket, reply *rotation.SyncReply, held rules.Held, gone []rules.Gone, now *rules.Reading) {
	l := r.l
	if len(reply.Acks) == 0 {
		return
	}
	v := rules.View{Self: l.cfg.Instance, Now: reply.Now, Here: r.received, Run: reply.Run, Place: placeOf(reply.Place), Gap: l.cfg.gap(), Held: held, Gone: gone, Past: slices.Concat(b.past, b.been)}
	v.Seen = append(slices.Clone(b.seen), v.Place, reply.Place.Nonce)
	for _, e := range reply.Changed {
		v.Seen = append(v.Seen, e.Nonce)
	}
	partial := l.isPartial()
	if partial {
		v.Past = nil
	}
	if !b.exact || v.Past == nil {
		v.Held.Place, v.Held.Last = "", notComparable
	}
	sum := ackSum{full: len(reply.Acks) >= maxAcks, partial: partial}
	for _, raw := range reply.Acks {
		r.readAck(b, raw, &v, now, &sum)
	}
	now.Vouched = (sum.speaks || sum.recalls && !sum.unlike && !now.Hidden) && !sum.ahead
	if now.Disputed && rules.Age(r.sent, b.checked) > l.cfg.gap() {
		b.recheck, b.checked = true, r.sent // one of the two has read a store that had lost something
		l.count(&l.alarms.Disputed)
		l.nudge(b.index)
	}
}

// maxAcks is how many acknowledgements a reply has at most, see [rotation.SyncReply]. Then there may be others.
const maxAcks = 64

// An ackSum is what the acknowledgements of a reply say together.
type ackSum struct {
	full    bool // the store may have others
	partial bool // there is no room for everything here, so nothing compares

	speaks  bool // one of a live instance vouches
	recalls bool // another one vouches
	unlike  bool // a live instance is not known to hold the same
	ahead   bool // a live instance has read what the log lacks
}

// isPartial reports whether something is not held, since there was no room. Then nothing can be compared.
func (l *List) isPartial() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.short.partial()
}

// readAck compares one acknowledgement. Only a person writes one that is not authentic: he may have replaced, or crowded
// out, the one that shows what he has removed.
func (r *reading) readAck(b *bucket, raw rotation.RawAck, v *rules.View, now *rules.Reading, sum *ackSum) {
	l := r.l
	a, err := codec.OpenAck(l.current(), raw.Instance, b.index, raw.Sealed)
	live := (rules.Live(raw.At(), v.Now, 3*v.Gap) || rules.Live(raw.At(), v.Here, 3*v.Gap)) && !raw.Parted()
	now.Hidden = now.Hidden || live && err != nil && !errors.Is(err, codec.ErrNewer) && sum.full
	switch {
	case errors.Is(err, codec.ErrNoKey):
		if live { // its instance holds a digest key that the store has lost
			l.keys.unread, now.Disputed = true, true
		}
	case err != nil:
		l.count(&l.alarms.Forged)
		now.Disputed = now.Disputed || live && !errors.Is(err, codec.ErrNewer)
	default:
		if live {
			l.live[a.Instance] = a.At
		}
		if v.Vouches(a) {
			sum.speaks = sum.speaks || v.Speaks(a)
			sum.recalls = true
		}
		if !raw.Parted() {
			now.Disputed = now.Disputed || v.Disputes(a)
			sum.ahead = sum.ahead || v.Ahead(a)
			sum.unlike = sum.unlike || v.Unlike(a)
			r.meet(b, a, v, now, sum)
		}
	}
}

// meet has an instance that starts wait for a live one, see [rules.Meeting].
func (r *reading) meet(b *bucket, a codec.Ack, v *rules.View, now *rules.Reading, sum *ackSum) {
	if !b.state.Good.IsZero() || sum.partial {
		b.met = nil
		return
	}
	if b.met == nil {
		b.met = make(map[string]rules.Meeting)
	}
	m, hidden, disputed := b.met[a.Instance].After(v.Unmet(a), a.Place, r.sent, b.exact, v.Gap)
	b.met[a.Instance] = m
	now.Hidden, now.Disputed = now.Hidden || hidden, now.Disputed || disputed
}

// notComparable is the nonce of no entry of a log.
const notComparable = "\x00"
