package rules

import "time"

// A State says how far an instance trusts what it has read of a bucket. It is a value, and
// [State.After] is the whole of its logic.
//
// A store that was rolled back or emptied looks like one in which nothing was revoked. An instance
// that cannot tell is in doubt, until every instance that holds what the store has lost had time to
// put it back.
type State struct {
	Began    time.Time // when the first complete read was sent
	Complete time.Time // when the last complete read was sent; zero before the first
	Good     time.Time // when the last one was sent that did not leave the instance in doubt
	Since    time.Time // since when Good has moved without a break; zero while in doubt
	Run      string    // of the store, at Complete
	Doubt    bool
	Until    time.Time // when Doubt may end, with a read
}

// A Reading is one complete read of a bucket.
type Reading struct {
	Sent     time.Time // later writes may be missing
	Run      string    // of the store, or ""
	Resync   bool      // there was no place in the log, or the store could not prove it
	Trusted  bool      // the first read counts: this process has made the store
	Vouched  bool      // an acknowledgement proves that nothing is missing
	Disputed bool      // a live instance holds other entries than the store has
	Merging  bool      // what the store had lost was put back since the last read
	Hidden   bool      // what a live instance holds could not be seen, and may be with the next read
}

// maxDisputes is how many times recover a dispute may keep an instance waiting.
const maxDisputes = 6

// After returns the state after a complete read. recover is the time in which every instance polls
// twice, and puts back what the store has lost.
//
// In doubt Good does not move. An instance that was in sync before goes on for MaxStale after Good, as
// it would without the store. One that never was in sync answers nothing. It waits on while the store
// is being repaired, and while a live instance holds other entries than it has read.
//
// A dispute is settled within two polls of the holder. One that lasts much longer is no loss of the store, but
// instances that are configured differently, and must not keep all new instances from answering.
//
// It also waits on, and as long as it takes, while it cannot see what live instances hold. No fault and no
// configuration keeps that from it for long, only a person who writes to the store all the while.
//
// Another run of the store means a failover or a restart: the place may be proved, and writes after it
// be lost.
func (s State) After(r Reading, recover time.Duration) State {
	first := s.Complete.IsZero()
	switch {
	case first:
		s.Began, s.Doubt, s.Until = r.Sent, !r.Trusted && !r.Vouched, r.Sent.Add(recover)
	case r.Resync, r.Run != s.Run && r.Run != "" && s.Run != "":
		s.Doubt, s.Until = true, r.Sent.Add(recover)
	case !s.Doubt:
	case s.Good.IsZero() && r.Vouched:
		s.Doubt = false
	case s.Good.IsZero() && (r.Merging || r.Disputed && r.Sent.Sub(s.Began) < maxDisputes*recover):
		s.Until = r.Sent.Add(recover)
	case s.Good.IsZero() && r.Hidden:
	case !r.Sent.Before(s.Until):
		s.Doubt = false
	}
	s.Complete, s.Run = r.Sent, r.Run
	if s.Doubt {
		s.Since = time.Time{}
		return s
	}
	if s.Good = r.Sent; s.Since.IsZero() {
		s.Since = r.Sent
	}
	return s
}

// Age returns how long ago t was, by the monotonic or the wall clock, whichever says more. The
// monotonic clock stands still while a machine sleeps, and the wall clock may be set back.
func Age(now, t time.Time) time.Duration {
	return max(now.Sub(t), now.Round(0).Sub(t.Round(0)))
}

// Serves reports whether an instance may answer whose last good read was sent at good. stale is
// MaxStale; waived says that it may grow older than that.
func Serves(now, good time.Time, stale time.Duration, waived bool) bool {
	return !good.IsZero() && (waived || Age(now, good) <= stale)
}

// Off reports whether this clock and the store's differ by more than skew. The store's was read
// between sent and received.
func Off(storeNow, sent, received time.Time, skew time.Duration) bool {
	return storeNow.Before(sent.Add(-skew)) || storeNow.After(received.Add(skew))
}

// MayDiscard reports whether an instance removes a group that cannot be read, and is nothing that keyturn
// writes. It must hold everything that it could read of the bucket, and know of no entry that it could not read or
// had no room for. Then it can put back everything. A person who made the group so could have deleted it as well.
func MayDiscard(s State, unreadable bool) bool { return !s.Good.IsZero() && !s.Doubt && !unreadable }
