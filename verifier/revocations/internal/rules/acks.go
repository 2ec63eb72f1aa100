package rules

import (
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/verifier/revocations/internal/codec"
)

// A Gone is an entry that has ended: it was forgotten, or the store has it still.
type Gone struct {
	End         int64
	Fingerprint codec.Fingerprint
}

// A Held is what an instance holds in a bucket after it has read the log up to a place.
type Held struct {
	Place  string // of the newest entry of the log, as in an acknowledgement; "" compares with none
	Last   string // the nonce of the newest authentic entry of the log; "" if it has seen none
	Minute int64  // entries that end up to it are not counted
	Print  codec.Fingerprint
}

// at returns the fingerprint of what h was when later minutes had not passed yet. gone are the entries
// that have ended of late.
func (h Held) at(minute int64, gone []Gone) codec.Fingerprint {
	f := h.Print
	for _, e := range gone {
		if e.End > minute && e.End <= h.Minute {
			f ^= e.Fingerprint
		}
	}
	return f
}

// with reports whether a was made at the place of h, or no authentic entry of the log lies between. At one
// place the newest authentic entry may differ: a person may have cut it from the middle of the log.
func (h Held) with(a codec.Ack) bool {
	return a.Last == h.Last || a.Place == h.Place && a.Place != ""
}

// A Comparison says how what another instance holds compares with ours.
type Comparison int

// The results of [Compare].
const (
	Unknown   Comparison = iota // it was at another place of the log, or has forgotten other entries
	Same                        // it holds the same entries
	Different                   // one of the two holds entries that the other has not
)

// oldMinute is how long ago, in seconds, entries may have ended that an instance still counts.
const oldMinute = 60

// Compare compares an acknowledgement with what this instance holds now, and with what it held at
// earlier places. Two instances at the same place hold the same entries, unless one of them has read a
// store that had lost some.
//
// A reader of a log whose newest entries are all forged has seen no authentic one. Nothing authentic was
// written since, so it is at the place of anyone.
func Compare(a codec.Ack, now Held, gone []Gone, earlier []Held) Comparison {
	if (now.with(a) || now.Last == "") && a.Minute <= now.Minute {
		switch {
		case now.at(a.Minute, gone) == a.Held:
			return Same
		case a.Minute < now.Minute-oldMinute:
			return Unknown // its clock is behind, and others have removed what it still holds
		}
		return Different
	}
	for _, h := range earlier {
		switch {
		case !h.with(a) || h.Minute != a.Minute:
		case h.Print == a.Held:
			return Same
		default:
			return Different
		}
	}
	return Unknown
}

// A View is what one instance sees of a bucket when it compares acknowledgements.
type View struct {
	Self string
	Now  time.Time // by the store's clock, which a person can push ahead
	Here time.Time // by this one
	Run  string    // of the store, or ""
	// Place is that of the newest entry of the log, as in an acknowledgement. Seen has places, and nonces of entries,
	// that were read.
	Place string
	Seen  []string

	Gap  time.Duration
	Held Held
	Gone []Gone
	Past []Held
}

// Live reports whether an instance said so within fresh. A clock that is ahead by less counts too.
func Live(at, storeNow time.Time, fresh time.Duration) bool { return storeNow.Sub(at).Abs() <= fresh }

// fresh is how long an acknowledgement stands for a live instance.
func (v *View) fresh() time.Duration { return 3 * v.Gap }

// live reports whether an instance said so of late by either clock.
func (v *View) live(at time.Time) bool {
	return Live(at, v.Now, v.fresh()) || Live(at, v.Here, v.fresh())
}

// Vouches reports whether a proves that the store lacks nothing of the bucket: its instance was in sync for two
// polls in this run of the store, and holds the entries that we have read. It is live, or the log has not
// changed since: a run loses nothing.
//
// The two polls are in this run, so every holder had time to put back what a failover before it had lost.
// Where the store does not tell its run, nothing vouches: a failover brings back acknowledgements from
// before the writes that it loses.
func (v *View) Vouches(a codec.Ack) bool {
	if a.Good.IsZero() || Compare(a, v.Held, v.Gone, v.Past) != Same {
		return false
	}
	if a.Run == "" || a.Run != v.Run {
		return false
	}
	return v.Speaks(a) || a.Place == v.Place
}

// Speaks reports whether a is of another instance that has said within W that it was in sync for two polls. If such an
// instance vouches, no other need be asked.
func (v *View) Speaks(a codec.Ack) bool {
	return a.Instance != v.Self && Live(a.At, v.Now, v.Gap) && a.At.Sub(a.Good) >= 2*v.Gap
}

// Unlike reports whether a is of another live instance, and nothing shows that it holds what we do.
func (v *View) Unlike(a codec.Ack) bool {
	return a.Instance != v.Self && v.live(a.At) && Compare(a, v.Held, v.Gone, v.Past) != Same
}

// Unmet reports whether a is [View.Unlike] this one though nothing is known to differ, and the next acknowledgements
// may tell. They will not where its instance has no room for everything, or where the minutes differ since a clock
// does: no person who writes to the store can cause that.
func (v *View) Unmet(a codec.Ack) bool {
	behind := a.Minute < v.Held.Minute-oldMinute
	ahead := a.Minute > v.Held.Minute && a.Minute != codec.Between
	return v.Unlike(a) && !behind && !ahead && Compare(a, v.Held, v.Gone, v.Past) == Unknown
}

// A Meeting is when an instance that starts and a live one last held the same, or met first, and the place of that one
// when it was seen last. The zero Meeting is before the first.
type Meeting struct {
	At    time.Time
	Place string
	Same  bool // they held the same at At
}

// After returns the meeting after a look at sent: whether the other is [View.Unmet], and its place. An instance that
// starts waits for each live one, until they were seen to hold the same within gap, which is W. exact says that what it
// has read is that of one place of the log.
//
// Not every look can compare: the other may just have read groups. Of many instances some always have, so it is enough that
// they held the same within gap. An instance that runs knows as little of the others.
//
// One that cannot be compared for W, and reads no further, counts as one that holds other entries: it may have failed,
// so the wait is bounded. One that reads on can be compared soon, unless a person changes the log or the groups all the
// while: then what it holds is hidden, and the wait lasts as long.
func (m Meeting) After(unmet bool, place string, sent time.Time, exact bool, gap time.Duration) (next Meeting, hidden, disputed bool) {
	stuck := exact && place == m.Place
	switch {
	case !unmet:
		m.At, m.Same = sent, true
	case m.At.IsZero():
		m.At, hidden = sent, true
	case m.Same && Age(sent, m.At) <= gap:
	default:
		disputed = stuck && Age(sent, m.At) > gap
		hidden = !disputed
	}
	m.Place = place
	return m, hidden, disputed
}

// Disputes reports whether a live instance holds other entries than we do.
func (v *View) Disputes(a codec.Ack) bool {
	return a.Instance != v.Self && v.live(a.At) && Compare(a, v.Held, v.Gone, v.Past) == Different
}

// Ahead reports whether a live instance has read a change that the log lacks. A person may have removed
// it, or a fault: then another acknowledgement, of before the change, vouches for nothing.
func (v *View) Ahead(a codec.Ack) bool {
	nonce := a.Place[:max(0, strings.LastIndex(a.Place, "@"))]
	return a.Instance != v.Self && a.Place != "" && v.live(a.At) && !slices.Contains(v.Seen, a.Place) && !slices.Contains(v.Seen, nonce)
}

// Collects reports whether self removes ended entries from the store: the first live instance does, by
// its name. If two do, the second finds nothing left.
func Collects(self string, live []string) bool {
	return !slices.ContainsFunc(live, func(other string) bool { return strings.Compare(other, self) < 0 })
}

// Remember adds nonce to those of the changes that were applied of late.
func Remember(applied []string, nonce string) []string {
	if nonce == "" || slices.Contains(applied, nonce) {
		return applied
	}
	return append(applied[max(0, len(applied)-codec.MaxApplied+1):], nonce)
}

// A Roster is who has applied a change, as far as acknowledgements say.
type Roster struct {
	Applied, Missing []string // instances, sorted
}

// RosterOf returns the roster of a change. was are the instances that were there before; one that is
// silent now, or whose acknowledgement was removed, is missing, unless it had applied the change: it may
// run on, cut off from the store.
//
// An acknowledgement is live by the store's clock or by here, which is this one: a person can push the
// store's clock ahead.
func RosterOf(nonce string, acks []codec.Ack, storeNow, here time.Time, fresh time.Duration, was Roster) Roster {
	var r Roster
	add := func(list *[]string, name string) {
		if !slices.Contains(r.Applied, name) && !slices.Contains(r.Missing, name) {
			*list = append(*list, name)
		}
	}
	for _, name := range was.Applied {
		add(&r.Applied, name)
	}
	for _, a := range acks {
		if slices.Contains(a.Applied, nonce) {
			add(&r.Applied, a.Instance)
		}
	}
	for _, a := range acks {
		if Live(a.At, storeNow, fresh) || Live(a.At, here, fresh) {
			add(&r.Missing, a.Instance)
		}
	}
	for _, name := range was.Missing {
		add(&r.Missing, name)
	}
	slices.Sort(r.Applied)
	slices.Sort(r.Missing)
	return r
}
