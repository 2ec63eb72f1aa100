package revocations

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier/revocations/internal/codec"
	"github.com/keyturn/keyturn/verifier/revocations/internal/rules"
)

// buckets are the buckets of the store that the list uses: all of them, but in a simulation.
type buckets struct {
	all     []*bucket
	byIndex [rotation.Buckets]*bucket
	keys    keysState
	turn    int                  // counts polls
	live    map[string]time.Time // instances, and when they were seen last; by the store's clock
	merged  time.Time            // when the log last showed that something was put back
	offset  time.Duration        // of the store's clock to this one, as of the last poll
}

// A bucket is what the loop knows of a bucket of the store. Only the loop uses it, except for state and
// err, which heldState.mu guards too when they are written.
type bucket struct {
	index  int
	groups []int // that lie in it

	place   rotation.Place           // up to which the log was read
	last    string                   // see rules.Held
	past    []rules.Held             // at earlier places, one for each newest authentic entry
	been    []rules.Held             // the same, one for each place
	met     map[string]rules.Meeting // with live instances, until the first good read
	seen    []string                 // nonces of entries of the log that a newcomer has read
	applied []string                 // nonces of the changes of late that were applied
	begun   bool                     // its groups were read once
	exact   bool                     // the held entries are exactly those of the log up to place

	unread  map[int]bool   // groups that must be read before the bucket is complete
	lost    map[int]bool   // groups that lack something that is held
	refused map[int]bool   // of those, groups that could not be written: the next poll tries again
	ended   map[int]bool   // groups that have entries to be removed
	garbage map[int]bool   // groups that have fields which no keyturn wrote
	keyless map[int]bool   // groups that have entries under an unknown digest key, or of a newer version
	broken  map[int]bool   // groups that are nothing that keyturn writes, see isBroken
	keys    int            // how many digest keys were known when keyless was read last
	digests map[int]string // of the groups as they were read last; "" or missing if that is unknown
	audited int            // the group whose digest was compared last
	recheck bool           // compare the digests of all groups
	checked time.Time      // when that was done last because of a dispute

	state rules.State
	off   bool // the clocks differ
	err   error
}

// maxPast is how many earlier places an instance remembers. Acknowledgements of others are at most a
// poll old, and most buckets change less often than that.
const maxPast = 16

// placeOf returns what an acknowledgement says of p.
func placeOf(p rotation.Place) string { return codec.PlaceOf(p.ID, p.Nonce) }

// maxSeen is how many nonces a newcomer remembers. A place that it has forgotten costs it a wait.
const maxSeen = 128

// see remembers the nonces of a reply, until the first good read.
func (b *bucket) see(reply *rotation.SyncReply) {
	if !b.state.Good.IsZero() {
		b.seen = nil
		return
	}
	for _, e := range reply.Changed {
		b.seen = append(b.seen, e.Nonce)
	}
	b.seen = append(b.seen, reply.Place.Nonce, placeOf(reply.Place))
	b.seen = b.seen[max(0, len(b.seen)-maxSeen):]
}

func newBuckets(groups int) buckets {
	bs := buckets{live: make(map[string]time.Time)}
	of := bucketsOf()
	for g := range groups {
		b := bs.add(int(of[g]))
		b.groups = append(b.groups, g)
	}
	bs.keys.unread = true
	bs.keys.bucket = bs.add(rotation.BucketOf(keysGroup))
	slices.SortFunc(bs.all, func(a, b *bucket) int { return a.index - b.index })
	return bs
}

// add returns the bucket of that index, which it makes if it is missing.
func (bs *buckets) add(index int) *bucket {
	if b := bs.byIndex[index]; b != nil {
		return b
	}
	b := &bucket{index: index, unread: make(map[int]bool), lost: make(map[int]bool), refused: make(map[int]bool), ended: make(map[int]bool), garbage: make(map[int]bool), keyless: make(map[int]bool), broken: make(map[int]bool), digests: make(map[int]string)}
	bs.byIndex[index] = b
	bs.all = append(bs.all, b)
	return b
}

// heldAt returns what the list holds of b, with the minute up to which entries were forgotten. The
// caller holds mu.
func (l *List) heldAt(b *bucket) rules.Held {
	h := rules.Held{Place: placeOf(b.place), Last: b.last, Minute: l.swept}
	for _, g := range b.groups {
		h.Print ^= l.prints[g]
	}
	return h
}

// goneOf returns the entries of b that have ended of late. The caller holds mu.
func (l *List) goneOf(b *bucket) []rules.Gone {
	var gone []rules.Gone
	for minute, print := range l.gone[b.index] {
		gone = append(gone, rules.Gone{End: minute, Fingerprint: print})
	}
	return gone
}

// addGone notes that an entry of b has ended. The caller holds mu.
func (l *List) addGone(b *bucket, end int64, f codec.Fingerprint) {
	if l.gone[b.index] == nil {
		l.gone[b.index] = make(minutePrint)
	}
	l.gone[b.index][end] ^= f
}

// rememberPast notes the held entries at the place of b. A person who fills the log with entries makes many places, and
// no newest authentic entry.
func (b *bucket) rememberPast(h rules.Held) {
	b.past = remember(b.past, h, func(a rules.Held) bool { return a.Last == h.Last })
	b.been = remember(b.been, h, func(a rules.Held) bool { return a.Place == h.Place })
}

// remember adds h to those of late, in place of the last one if they are alike and of one minute.
func remember(past []rules.Held, h rules.Held, alike func(rules.Held) bool) []rules.Held {
	if n := len(past); n > 0 && alike(past[n-1]) && past[n-1].Minute == h.Minute {
		past = past[:n-1]
	}
	return append(past[max(0, len(past)-maxPast+1):], h)
}

// setState writes what mu guards of b.
func (l *List) setState(b *bucket, s rules.State, off bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b.state, b.off, b.err = s, off, err
}

// publishLocked replaces the view. end is why the list cannot tell any more, or nil. The caller holds mu.
func (l *List) publishLocked(end error) {
	old, s := l.view.Load(), l.statusLocked()
	if s.Err = cmp.Or(end, l.whyNotLocked(&s)); old.err == ErrClosed {
		s.Err = ErrClosed
	}
	s.Ready = s.Err == nil
	v := &view{keys: l.keys.set, generation: old.generation, err: s.Err, earliest: l.earliest(), over: l.over, status: s, synced: s.Synced, staleAt: math.MaxInt64}
	if !l.cfg.StaleOK {
		v.staleAt = keystore.UnixNano(s.Synced.Add(l.cfg.MaxStale))
	}
	if !slices.Equal(v.keys, old.keys) {
		v.generation++
	}
	if s.Ready && !rules.Serves(l.cfg.Now(), s.Synced, l.cfg.MaxStale, false) {
		v.status.Err = ErrStale // which StaleOK waives
	}
	l.view.Store(v)
	if s.Ready != old.status.Ready {
		l.logReady(v.err)
	}
	if s.Ready && s.Unreadable > 0 && (old.status.Unreadable == 0 || !old.status.Ready) {
		l.cfg.Logger.Error("revocations: some entries cannot be read, so what they revoke is accepted: their digest key is gone, or a newer version wrote them", "groups", s.Unreadable)
	}
	if s.Ready != old.status.Ready || (s.Unread == nil) != (old.status.Unread == nil) || len(s.KeyNames) != len(old.status.KeyNames) {
		close(l.changed)
		l.changed = make(chan struct{})
	}
}

// statusLocked returns how the buckets stand.
func (l *List) statusLocked() Status {
	s := Status{Instance: l.cfg.Instance, KeyNames: l.keys.names(), Alarms: l.alarms}
	for i, b := range l.all {
		if i == 0 || b.state.Good.Before(s.Synced) {
			s.Synced = b.state.Good
		}
		if i == 0 || b.state.Complete.Before(s.Read) {
			s.Read = b.state.Complete
		}
		s.InDoubt = s.InDoubt || b.state.Doubt
		s.ClockOff = s.ClockOff || b.off
		for g := range b.keyless {
			s.Unreadable++
			s.UnreadableIn = append(s.UnreadableIn, groupName(g))
		}
		if s.Unread == nil {
			s.Unread = b.err
		}
	}
	slices.Sort(s.UnreadableIn)
	s.UnreadableIn = s.UnreadableIn[:min(maxNamed, len(s.UnreadableIn))]
	return s
}

// whyNotLocked returns why the list cannot tell, or nil.
func (l *List) whyNotLocked(s *Status) error {
	switch {
	case l.keysErr != nil:
		return l.keysErr
	case s.Synced.IsZero():
		return ErrNotReady
	case !rules.Serves(l.cfg.Now(), s.Synced, l.cfg.MaxStale, l.cfg.StaleOK):
		return ErrStale
	case l.short.whole != nil:
		return ErrFull
	}
	return nil
}

// logReady logs that the list can tell now, or why it cannot any more.
func (l *List) logReady(err error) {
	switch {
	case err == nil:
		l.cfg.Logger.Info("revocations: the list is ready", "entries", l.Len())
	case err != ErrClosed:
		l.cfg.Logger.Error("revocations: the list cannot tell which tokens are revoked: they are answered with 503", "error", err)
	}
}
