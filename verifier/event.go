package verifier

import (
	"context"
	"errors"
	"time"
)

// An Outcome is how a verification ended.
type Outcome string

// The outcomes.
const (
	Accepted    Outcome = "accepted"
	Refused     Outcome = "refused"     // the token is bad
	Unavailable Outcome = "unavailable" // it cannot be told now: an outage
	Canceled    Outcome = "canceled"    // the caller's context ended first: no outage
)

// An Event tells of one verification. It is a flat value without anything that
// the token's sender chose freely: never a kid, sub or jti.
type Event struct {
	Tenant   string // empty unless it is a configured tenant
	Outcome  Outcome
	Reason   Reason // empty if the token is good
	Cached   bool   // answered from memory
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
