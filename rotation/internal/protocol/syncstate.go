package protocol

import "time"

// A SyncState says how far an instance trusts what it reads in a bucket. It is a value, and
// [SyncState.After] is the whole of its logic.
//
// A store that was rolled back or emptied makes an instance that missed something look in sync. So
// an instance that cannot tell whether that has happened is recovering: it reads and restores, but
// is not in sync, until every instance that holds what the store has lost had time to write it
// back. Without that, a new instance would take an emptied store for a tenant without keys
// (timelines H and K).
type SyncState struct {
	Complete time.Time // when the last complete sync was sent; zero before the first
	Good     time.Time // when the last one was sent that did not leave the instance recovering

	// Knew is Good, also after the process has started again and recovers: then it is the Good that
	// its snapshot has. Nothing signs by it.
	Knew time.Time

	// Restored is Complete as the snapshot has it that the process began with; zero without one.
	Restored time.Time

	Recovering bool
	Until      time.Time // when Recovering may end, with a sync

	// Certain is from when on a missing key does not exist. A peer vouches for the log at once, but
	// finds a ring that was edited without an entry in the log only within Freshness.
	Certain time.Time
}

// First reports whether this process has not read the bucket completely yet.
func (s *SyncState) First() bool { return s.Complete.Equal(s.Restored) }

// A SyncReading is one complete sync of a bucket.
type SyncReading struct {
	Sent    time.Time // a change after this moment may be missing from the sync, so it counts from here
	Now     time.Time // by the store's clock
	Resync  bool      // there was no place in the log, or it could not be proved
	Trusted bool      // the first sync counts, as this process has just made the store
	Vouched bool      // the first sync counts, as a peer vouches for the store

	// Merging says that the log of some bucket has a new merge, or that this instance has just made
	// one: what the store lost is being put back.
	Merging bool
}

// Limits are the two durations that decide about recovering.
type Limits struct {
	Fresh   time.Duration // after so long without a sync, anything may have happened
	Recover time.Duration // in which every instance polls once, and restores
}

// After returns the state after a complete sync.
//
// While the instance recovers, Good does not move. So an instance that has lost its place signs on
// for SignFor after the last sync that it could trust, and no longer. A second loss begins the wait
// again, since an instance that has restored the ring may have done so before it.
//
// Each merge extends the wait of an instance that has never been in sync: holders that put thousands
// of rings back need longer than two polls. An instance that was in sync before holds the rings
// itself, and its own restoring is over with its sync. It may sign, so its wait stays bounded: a
// longer one would fence a healthy fleet. But what it does not know may exist until Certain.
func (s SyncState) After(r SyncReading, l Limits) SyncState {
	switch {
	case s.First():
		known := r.Vouched || s.paused(r, l)
		s.Recovering, s.Until = !r.Trusted && !known, r.Sent.Add(l.Recover)
		if known && !r.Trusted {
			s.Certain = r.Sent.Add(l.Fresh)
		}
	case r.Resync, Age(r.Sent, s.Complete) > l.Fresh:
		s.Recovering, s.Until = true, r.Sent.Add(l.Recover)
	case s.Recovering && r.Merging && s.Good.IsZero():
		s.Until = r.Sent.Add(l.Recover)
	case s.Recovering && !r.Sent.Before(s.Until):
		s.Recovering = false
	}
	if r.Merging && !s.Good.IsZero() && r.Sent.Before(s.Until) {
		s.Certain = r.Sent.Add(l.Recover)
	}
	s.Complete = r.Sent
	if !s.Recovering {
		s.Good, s.Knew = r.Sent, r.Sent
	}
	return s
}

// paused reports whether the process that wrote the snapshot was in sync, and so short a time before r
// that an instance which runs on would not recover either, as the store still has its place. Only the
// wall clock spans a restart. If it was set back meanwhile, the store's says so.
func (s *SyncState) paused(r SyncReading, l Limits) bool {
	return !s.Restored.IsZero() && s.Knew.Equal(s.Restored) && !r.Resync &&
		max(Age(r.Sent, s.Restored), r.Now.Sub(s.Restored)) <= l.Fresh
}

// Age returns how long ago t was, by the monotonic or the wall clock, whichever says more. The
// monotonic clock stands still while a machine sleeps, and the wall clock may be set back. Either
// would make an old sync look recent.
func Age(now, t time.Time) time.Duration {
	return max(now.Sub(t), now.Round(0).Sub(t.Round(0)))
}
