package synced

import (
	"cmp"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

const (
	// maxPoll bounds how late an instance without pub/sub hears of a revocation. With maxDeadline it
	// bounds how long an instance recovers, which is two polls: at most 9.2 s.
	maxPoll = 3 * time.Second
	// maxDeadline bounds how long one slow server holds up a poll of the others.
	maxDeadline = time.Second
	// defaultFreshness sets the times until a ring is known. It is that of a default policy.
	defaultFreshness = time.Minute

	// firstPoll is how long after a poll the next one begins at most, as long as some bucket has never
	// been read: the instance serves nothing of it.
	firstPoll = 2 * time.Second

	// loadAtOnce is how many rings one call loads. A call has to finish within its deadline.
	loadAtOnce = 256
	// listAtOnce is of how many buckets one call lists the tenants. A keyring of a million has 4000 in each, and
	// the call has to finish within its deadline.
	listAtOnce = 32
	// loadAhead is how many such calls are under way or waited for at once. A Cluster answers them in parallel.
	loadAhead = 8
	// syncRounds bounds how often one sync asks again if a reply did not cover the whole log. What
	// is left waits for the next poll.
	syncRounds = 16
	// nudgeGap is the least time between two syncs that nudges ask for. Any client of the store can
	// send nudges, so a flood of them must cost little.
	nudgeGap = 20 * time.Millisecond
	// maxAwaited is how many tenants without a ring a bucket keeps because of revocations in the log.
	maxAwaited = 64
	// The digest of every ring is compared once in digestSlices polls, or in more if that were more than
	// digestsAtOnce in one: Redis computes each, in some 15 µs. Three polls fit into Freshness, so an edit
	// without a log entry is noticed within it (invariant I12). See [Times.digestSlices].
	digestSlices  = 3
	digestsAtOnce = 4096
)

// Times are the durations that follow from the shortest Freshness of the rings that are held: how
// long after a poll the next one begins, how long a call of the store may take, and that Freshness.
type Times struct{ Poll, Deadline, Fresh time.Duration }

// MaxPollGap is W of docs/protocol.md: the longest time between the starts of two polls. Within it
// every instance that reaches the store has read a change. The fifth is the jitter of
// [loop.untilPoll].
func (t Times) MaxPollGap() time.Duration { return t.Poll + t.Poll/5 + t.Deadline }

// CheckTimes checks Config's Poll and Deadline against the Freshness of a policy. Two polls must
// fit into it, even if one of them fails, or an instance would be out of sync without any fault.
// Defaults always fit.
func (k *Rings) CheckTimes(fresh time.Duration) error {
	if k.cfg.Poll+k.cfg.Deadline == 0 {
		return nil
	}
	if w := k.timesOf(fresh).MaxPollGap(); fresh < 3*w {
		return &ring.Error{Text: fmt.Sprintf("Freshness >= 3 (1.2 Poll + Deadline) does not hold: %v is less than %v; "+
			"lower Config.Poll and Config.Deadline, or leave them 0", fresh, 3*w)}
	}
	return nil
}

// setTimes makes the keyring poll often enough for fresh, the shortest Freshness of the rings.
func (k *Rings) setTimes(fresh time.Duration) {
	t := k.timesOf(max(fresh, ring.MinFreshness))
	k.Times.Store(&t)
}

// timesOf returns the times that follow from a Freshness, unless Config sets them: four polls fit
// into it, and a deadline is short compared with a poll. Changes are dated by the deadline, so it has
// whole milliseconds, like every time in the store.
func (k *Rings) timesOf(fresh time.Duration) Times {
	deadline := cmp.Or(k.cfg.Deadline, min(maxDeadline, fresh/30))
	return Times{
		Fresh:    fresh,
		Poll:     cmp.Or(k.cfg.Poll, min(maxPoll, fresh/4)),
		Deadline: max(time.Millisecond, deadline.Truncate(time.Millisecond)),
	}
}

// retime sets the times to those of the shortest Freshness of all rings. Rings for which Config's
// own Poll and Deadline are too long do not count: they are out of sync, and must not affect the
// others.
func (k *Rings) retime() {
	fresh := time.Duration(0)
	for _, b := range k.buckets {
		for _, f := range b.sum().freshness {
			if (fresh == 0 || f < fresh) && k.CheckTimes(f) == nil {
				fresh = f
			}
		}
	}
	if fresh > 0 {
		k.setTimes(fresh)
	}
}

// skew returns the largest ClockSkew of the rings of b. A difference that one ring does not allow
// concerns that ring alone; only one that no ring allows concerns the whole bucket.
func (b *Bucket) skew() time.Duration { return b.sum().mostSkew }

// digestSlices returns in how many polls the digests of n rings are compared once. So many polls fit into
// the shortest Freshness, however late each comes.
func (t *Times) digestSlices(n int) int {
	return max(digestSlices, min(n/digestsAtOnce, int(t.Fresh/t.MaxPollGap())))
}
