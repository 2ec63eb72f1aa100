package metrics

import (
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/verifier"
)

// A counter is an atomic counter with a cache line of its own, so that two processors that count
// different things do not wait for each other.
type counter struct {
	atomic.Uint64
	_ [56]byte
}

// The slots of the counters of verifications: one for each outcome and reason that can be. The
// refusals follow from slotRefused on, in the order of refusals.
const (
	slotAccepted = iota
	slotUnavailable
	slotCanceled
	slotRefused
)

// stripes are how many counters share the count of accepted tokens, most of which are hits of the
// cache. With one counter, processors would wait for each other.
const stripes = 8

// stripe returns which of them counts a verification. The nanoseconds that it took are as good as
// random, and cost nothing.
func stripe(d time.Duration) int { return int((uint64(d) ^ uint64(d)>>4) % stripes) }

// refusals are the reasons of tokens that were refused, in the order of their slots. The last one is
// for a reason that a later version of package verifier has and this one does not know.
var refusals = [...]verifier.Reason{
	verifier.ReasonMalformed, verifier.ReasonTooLarge, verifier.ReasonType, verifier.ReasonCritical,
	verifier.ReasonAlgorithm, verifier.ReasonUnknownTenant, verifier.ReasonSuspended, verifier.ReasonUnknownKey,
	verifier.ReasonRevokedKey, verifier.ReasonSignature, verifier.ReasonExpired, verifier.ReasonNotYetValid,
	verifier.ReasonTooOld, verifier.ReasonIssuer, verifier.ReasonAudience, verifier.ReasonTenant,
	verifier.ReasonMissingClaim, verifier.ReasonClaim, verifier.ReasonRevoked, "other",
}

const slots = slotRefused + len(refusals)

// slot returns where a verification is counted. A switch over strings neither hashes nor allocates.
func slot(e *verifier.Event) int {
	switch e.Outcome {
	case verifier.Accepted:
		return slotAccepted
	case verifier.Unavailable:
		return slotUnavailable
	case verifier.Canceled:
		return slotCanceled
	}
	return slotRefused + refusal(e.Reason)
}

// refusal returns the index in refusals of a reason.
func refusal(reason verifier.Reason) int {
	switch reason {
	case verifier.ReasonMalformed:
		return 0
	case verifier.ReasonTooLarge:
		return 1
	case verifier.ReasonType:
		return 2
	case verifier.ReasonCritical:
		return 3
	case verifier.ReasonAlgorithm:
		return 4
	case verifier.ReasonUnknownTenant:
		return 5
	case verifier.ReasonSuspended:
		return 6
	case verifier.ReasonUnknownKey:
		return 7
	case verifier.ReasonRevokedKey:
		return 8
	case verifier.ReasonSignature:
		return 9
	case verifier.ReasonExpired:
		return 10
	case verifier.ReasonNotYetValid:
		return 11
	case verifier.ReasonTooOld:
		return 12
	case verifier.ReasonIssuer:
		return 13
	case verifier.ReasonAudience:
		return 14
	case verifier.ReasonTenant:
		return 15
	case verifier.ReasonMissingClaim:
		return 16
	case verifier.ReasonClaim:
		return 17
	case verifier.ReasonRevoked:
		return 18
	}
	return len(refusals) - 1
}

// labelsOf returns the labels outcome and reason of a slot. An accepted token has the reason none,
// since Prometheus takes an empty label for a missing one.
func labelsOf(slot int) (outcome, reason string) {
	switch slot {
	case slotAccepted:
		return string(verifier.Accepted), "none"
	case slotUnavailable:
		return string(verifier.Unavailable), string(verifier.ReasonUnavailable)
	case slotCanceled:
		return string(verifier.Canceled), string(verifier.ReasonUnavailable)
	}
	return string(verifier.Refused), string(refusals[slot-slotRefused])
}

// maxBounds is how many bounds a histogram may have.
const maxBounds = 12

// A histogram counts durations by their length. It is Prometheus' own, without its locks.
type histogram struct {
	bounds  []time.Duration // sorted, at most maxBounds
	buckets [maxBounds + 1]atomic.Uint64
	sum     atomic.Int64 // nanoseconds: enough for 292 years
}

// newHistogram returns a histogram with bounds in seconds.
func newHistogram(seconds []float64) *histogram {
	h := new(histogram)
	for _, s := range seconds {
		h.bounds = append(h.bounds, time.Duration(s*float64(time.Second)+0.5))
	}
	return h
}

// observe counts a duration. A clock that was set back makes it negative: then it counts as zero,
// since a sum that falls looks like a restart.
func (h *histogram) observe(d time.Duration) {
	d = max(d, 0)
	i := 0
	for i < len(h.bounds) && d > h.bounds[i] {
		i++
	}
	h.buckets[i].Add(1)
	h.sum.Add(int64(d))
}

// read returns the count, the sum in seconds, and how many were at most each bound. The count is
// that of the buckets, so that the numbers of one page agree.
func (h *histogram) read() (count uint64, sum float64, upTo map[float64]uint64) {
	upTo = make(map[float64]uint64, len(h.bounds))
	for i := range len(h.bounds) + 1 {
		count += h.buckets[i].Load()
		if i < len(h.bounds) {
			upTo[h.bounds[i].Seconds()] = count
		}
	}
	return count, time.Duration(h.sum.Load()).Seconds(), upTo
}
