package rotation

import "time"

// A trust says how far an instance trusts what it reads in a bucket. It is a value:
// [trust.after] is the whole of its logic.
//
// A store that was rolled back or emptied makes an instance that missed something
// look fresh. So an instance that cannot tell whether that has happened is in
// doubt: it reads and repairs, but is not in step, until everybody who holds what
// the store has lost has had the time to merge it back.
type trust struct {
	complete time.Time // when the last complete sync was sent; zero before the first
	good     time.Time // when the last one that was not in doubt was sent
	doubt    bool
	until    time.Time // when doubt ends, with a sync

	// certain is from when on what is not there does not exist. A peer vouches for
	// the log, and finds a ring that was edited behind its back only within F.
	certain time.Time
}

// A reading is one complete sync of a bucket.
type reading struct {
	sent    time.Time
	resync  bool // its place could not be proved
	trusted bool // if it is the first, it counts: this process has just made the store
	vouched bool // the same: a peer vouches for it
}

// waits are the two times that decide about doubt.
type waits struct {
	fresh time.Duration // F: after so long without a sync, anything may have happened
	doubt time.Duration // 2W: in which everybody polls once, and repairs
}

// after returns the trust after a complete sync.
func (t trust) after(r reading, w waits) trust {
	switch {
	case t.complete.IsZero():
		t.doubt, t.until = !r.trusted && !r.vouched, r.sent.Add(w.doubt)
		if r.vouched && !r.trusted {
			t.certain = r.sent.Add(w.fresh)
		}
	case r.resync, age(r.sent, t.complete) > w.fresh:
		t.doubt, t.until = true, r.sent.Add(w.doubt)
	case t.doubt && !r.sent.Before(t.until):
		t.doubt = false
	}
	t.complete = r.sent
	if !t.doubt {
		t.good = r.sent
	}
	return t
}

// age returns how long ago t was, by the monotonic or by the wall clock, whichever
// says more: the one stands still while a machine sleeps, the other may be set
// back.
func age(now, t time.Time) time.Duration {
	return max(now.Sub(t), now.Round(0).Sub(t.Round(0)))
}
