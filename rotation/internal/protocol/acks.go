package protocol

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/ring"
)

// An AckView is an instance's statement about itself in one bucket, which it authenticates with a MAC.
// All times are by its own clock, except GoodSince.
type AckView struct {
	Instance  string
	At        time.Time // when it said so
	GoodSince time.Time // since when it has been in sync, by the store's clock; zero if it is not
	ReadTo    string    // the ID of the newest entry of the log up to which it has read
	Nonce     string    // of that entry
	Run       string    // of the store, in which it has been in sync for two polls; empty if it has not
	KEKs      []string  // the names of its KEKs, the primary first
	Applied   []Entry   // changes of late that it has applied; only Nonce and Holds are known
	Ends      [16]byte  // the digest of all facts that it holds in the bucket and that end trust

	Verifies []keystore.Algorithm // of tokens that it accepts; none means all

	// Unreadable says that it cannot be opened: its instance has another primary KEK, which this one
	// lacks, or a person without a KEK wrote it. Then only Instance and At are set, and they are not
	// authentic.
	Unreadable bool
}

// age returns how long before now a said so. An instance whose clock is ahead has said so in the
// future.
func (a *AckView) age(now time.Time) time.Duration { return now.Sub(a.At).Abs() }

// Live returns the acks of the instances that were there within fresh before storeNow. One that is
// ahead by less than that counts too: its clock is wrong, but it is there.
func Live(acks []AckView, storeNow time.Time, fresh time.Duration) []AckView {
	return slices.DeleteFunc(slices.Clone(acks), func(a AckView) bool { return a.age(storeNow) > fresh })
}

// A FirstRead is the first complete read of a bucket by an instance that has just started.
type FirstRead struct {
	Self  string        // the instance
	Ends  [16]byte      // the digest of the facts that it has read and that end trust
	Now   time.Time     // by the store's clock
	Run   string        // of the store; empty if that does not tell
	Place string        // the nonce of the newest entry of the log
	Late  []string      // the nonces of others of the newest entries
	Gap   time.Duration // W of docs/protocol.md
}

// Vouched reports whether an acknowledgement proves that the store lacks nothing of the bucket: one of
// another instance that is there, or one of any instance that was there in this run of the store. Its
// instance had been in sync for two polls, and knows of the same facts that end trust.
//
// Without the last condition, a person who can write to the store could remove a revocation. An
// instance that starts then would accept the revoked key, although all others reject it.
func (f *FirstRead) Vouched(acks []AckView) bool {
	return slices.ContainsFunc(acks, func(a AckView) bool {
		return !a.Unreadable && !a.GoodSince.IsZero() && a.Ends == f.Ends && (f.there(&a) || f.sameRun(&a))
	})
}

// there reports whether a is of another instance that has said just now that it is in sync. If the
// store has failed over since, it has not said so of this store.
func (f *FirstRead) there(a *AckView) bool {
	other := a.Run != "" && f.Run != "" && a.Run != f.Run
	return a.Instance != f.Self && !other && a.age(f.Now) < f.Gap && f.Now.Sub(a.GoodSince) >= 2*f.Gap
}

// sameRun reports whether a was made in this run of the store. A run loses nothing, so what the store
// had then it has now, however long ago that is, and whether or not an instance is left. Its place must
// still be in the log. Where a person has emptied the store, it is not.
func (f *FirstRead) sameRun(a *AckView) bool {
	return a.Run != "" && a.Run == f.Run && (a.Nonce == f.Place || slices.Contains(f.Late, a.Nonce))
}

// AgreeOn reports whether primary is the primary KEK of all live instances.
func AgreeOn(primary string, live []AckView) bool {
	return !slices.ContainsFunc(live, func(a AckView) bool { return a.Unreadable || len(a.KEKs) == 0 || a.KEKs[0] != primary })
}

// AllHold returns the live instances that lack kek, or of which that is not known.
func AllHold(kek string, live []AckView) (lack []string) {
	for _, a := range live {
		if a.Unreadable || !slices.Contains(a.KEKs, kek) {
			lack = append(lack, a.Instance)
		}
	}
	return lack
}

// NotVerifying returns the live instances that accept no tokens of alg. One that cannot be read is
// none of them: anyone who can write to the store could forbid a rotation with it.
func NotVerifying(alg keystore.Algorithm, live []AckView) (instances []string) {
	for _, a := range live {
		if !a.Unreadable && len(a.Verifies) > 0 && !slices.ContainsFunc(a.Verifies, alg.Same) {
			instances = append(instances, a.Instance)
		}
	}
	return instances
}

// CheckVerified refuses p if it brings a key of another algorithm than that which signs now, and live
// instances say that they accept no tokens of it. Those of the new algorithm would be 401 there. An
// instance that starts later is not asked, so this is asked again when the key is made to sign.
func (b *Base) CheckVerified(p *Proposal, live []AckView) error {
	algs := make(map[keystore.Algorithm]bool)
	for _, r := range p.Mint {
		algs[r.Algorithm] = true
	}
	for _, f := range p.Facts {
		if r := b.Copy.Find(f.KID); r != nil && f.Kind == ring.FactPromoted {
			algs[r.Algorithm] = true
		}
	}
	today := keystore.Algorithm("")
	if c := b.current(); c != nil {
		today = c.Algorithm
	} else if p.Op == ring.OpAdopt {
		today = p.Mint[0].Algorithm
	}
	maps.DeleteFunc(algs, func(alg keystore.Algorithm, _ bool) bool { return alg.Same(today) })
	for _, alg := range slices.Sorted(maps.Keys(algs)) {
		if lack := NotVerifying(alg, live); len(lack) > 0 {
			return b.refuse("", fmt.Sprintf("these instances accept no tokens of %s: %s; let their verifiers list it beside the algorithm of today, or force it", alg, strings.Join(lack, ", ")), time.Time{})
		}
	}
	return nil
}

// An Entry is an authentic entry of the log: which change it was, and of which key.
type Entry struct {
	Op    ring.Op
	KID   string
	Nonce string
	Holds bool // the instance that read it holds the ring
	Lives int  // of [ring.OpDestroy]: how many lives of the ring have ended with it
}

// Applied returns the entries whose change c has, and those whose change it lacks. c may be nil.
// whole says that the ring was read since, and every field of it opened. Otherwise only revocations
// and shreds count. The copy that has one rejects the keys, whatever else could not be read.
//
// The entry alone proves nothing of the ring that was read after it: a person who can write the
// store can put an older ring beside the entry.
func Applied(c *Copy, entries []Entry, whole bool) (applied, waiting []Entry) {
	for _, e := range entries {
		if (whole || e.Op == ring.OpRevoke || e.Op == ring.OpDestroy) && c.has(e) {
			applied = append(applied, e)
		} else {
			waiting = append(waiting, e)
		}
	}
	return applied, waiting
}

// Remember adds e to changes, once, and returns those that there is room for. If there are more than
// most, one of another kind leaves before a change by hand, and a revocation leaves last: a person
// waits for its acknowledgement. The newest quarter stays in any case, or old revocations would leave
// no room for anything else.
func Remember(changes []Entry, e Entry, most int) []Entry {
	if slices.ContainsFunc(changes, func(o Entry) bool { return o.Nonce == e.Nonce }) {
		return changes
	}
	if changes = append(changes, e); len(changes) <= most {
		return changes
	}
	leaves := 0
	for i := range changes[:len(changes)-most/4] {
		if changes[i].weight() < changes[leaves].weight() {
			leaves = i
		}
	}
	return slices.Delete(changes, leaves, leaves+1)
}

// weight says how long a person may wait to see a change applied.
func (e *Entry) weight() int {
	switch e.Op {
	case ring.OpRevoke, ring.OpDestroy:
		return 2
	case ring.OpCreate, ring.OpAdopt, ring.OpPromote, ring.OpRotate, ring.OpRekey, ring.OpAccept:
		return 1
	}
	return 0
}

// has reports whether c has the change that e tells of, as far as e says what it was.
func (c *Copy) has(e Entry) bool {
	if c == nil {
		return false
	}
	fact := ring.FactKind(0)
	switch e.Op {
	case ring.OpCreate, ring.OpAdopt, ring.OpMint:
		return c.Find(e.KID) != nil || c.Plan.Dead
	case ring.OpAccept:
		return c.FindAccept(e.KID) != nil || c.Plan.Dead
	case ring.OpPromote, ring.OpRotate:
		fact = ring.FactPromoted
	case ring.OpRevoke:
		fact = ring.FactRevoked
	case ring.OpDestroy:
		return c.Facts.Dead >= e.Lives
	default:
		return true
	}
	_, has := c.Facts.At(fact, e.KID)
	return has || c.Plan.Dead
}
