package verifier

import (
	"context"
	"errors"
	"time"
)

// An Outcome says how a verification ended.
type Outcome string

// The outcomes.
const (
	Accepted    Outcome = "accepted"
	Refused     Outcome = "refused"     // the token is bad
	Unavailable Outcome = "unavailable" // the verifier cannot tell now: an outage
	Canceled    Outcome = "canceled"    // the caller's context ended first: not an outage
)

// An Event describes one verification. It is a flat value, and holds nothing that the
// sender of the token can choose freely: never a kid, sub or jti.
type Event struct {
	Tenant   string // empty unless it is a configured tenant
	Outcome  Outcome
	Reason   Reason // empty if the token is good
	Cached   bool   // answered from the cache
	Duration time.Duration
}

func newEvent(ctx context.Context, t *Token, bad *Error, d time.Duration) Event {
	if bad == nil {
		return Event{Tenant: t.Tenant(), Outcome: Accepted, Cached: t.Cached(), Duration: d}
	}
	e := Event{Tenant: bad.Tenant, Outcome: Refused, Reason: bad.Reason, Duration: d}
	if bad.Reason == ReasonUnavailable {
		e.Outcome = Unavailable
		if ctx.Err() != nil && errors.Is(bad, ctx.Err()) {
			e.Outcome = Canceled
		}
	}
	return e
}
