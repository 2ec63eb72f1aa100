package jwks

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/keystore"
)

// A Step is a part of an attempt to read keys.
type Step string

// The steps, in their order.
const (
	StepURL       Step = "url"       // the URL is not one to read keys from
	StepDNS       Step = "dns"       // the name does not resolve
	StepAddress   Step = "address"   // the guard refuses the address that it resolves to
	StepConnect   Step = "connect"   // the address does not answer
	StepTLS       Step = "tls"       // no handshake, or not with the right host
	StepResponse  Step = "response"  // no answer in time, or not one of HTTP
	StepRedirect  Step = "redirect"  // it points elsewhere, where we do not go
	StepStatus    Step = "status"    // an answer with a status that brings nothing
	StepBody      Step = "body"      // too large, too slow, or broken off
	StepDiscovery Step = "discovery" // not the metadata of that issuer
	StepSet       Step = "set"       // not a JWK Set, or no key in it serves
	StepClosed    Step = "closed"    // the Source or Client was closed
)

// A Setting is the name of a field of [SourceConfig].
type Setting string

// The settings that allow what is refused without them.
const (
	SettingAllowLoopback Setting = "AllowLoopback"
	SettingAllowCIDR     Setting = "AllowCIDR"
	SettingAcceptEmpty   Setting = "AcceptEmpty"
)

// An Error says what failed while keys were read. Its text is for operators: it
// holds no userinfo and no query of a URL, nothing of a request, and nothing that
// the issuer sent but reasons of [Skipped].
//
// Its fields are the parts of that text, for a program that names things in its
// own words.
type Error struct {
	Step    Step    // "" for an argument that is wrong, or a document given to [Parse]
	Status  int     // the HTTP status, at StepStatus and StepRedirect; 0 at other steps
	Detail  string  // what failed, such as "scheme http: want https"
	Setting Setting // what would allow it, or ""
	Hint    string  // what Setting does, or without one what to do; often ""

	wait  time.Duration // Retry-After
	cause error
}

// Error implements the error interface.
func (e *Error) Error() string {
	text := "jwks: "
	if e.Step != "" {
		text += string(e.Step) + ": "
	}
	return text + e.explain()
}

// explain returns the text of e without its step.
func (e *Error) explain() string {
	switch {
	case e.Setting != "":
		return fmt.Sprintf("%s (%s %s)", e.Detail, e.Setting, e.Hint)
	case e.Hint != "":
		return fmt.Sprintf("%s (%s)", e.Detail, e.Hint)
	}
	return e.Detail
}

// Unwrap returns what ended the attempt from our side, such as
// [context.DeadlineExceeded], or nil.
func (e *Error) Unwrap() error { return e.cause }

func failf(step Step, format string, args ...any) *Error {
	return &Error{Step: step, Detail: fmt.Sprintf(format, args...)}
}

// hint says what to do about e.
func (e *Error) hint(text string) *Error {
	e.Hint = text
	return e
}

// allowedBy says which setting would allow what e refuses, and what it does.
func (e *Error) allowedBy(setting Setting, effect string) *Error {
	e.Setting, e.Hint = setting, effect
	return e
}

// within returns e as an error at another step, which says first where.
func (e *Error) within(step Step, where string) *Error {
	outer := *e
	outer.Step, outer.Detail = step, where+": "+e.Detail
	return &outer
}

// asError returns the Error that err wraps, or else one at step in our own words:
// those of others may quote what was sent.
func asError(err error, step Step, text string) *Error {
	if e := new(Error); errors.As(err, &e) {
		return e
	}
	e := failf(step, "%s", text)
	switch {
	case errors.Is(err, context.Canceled):
		e.cause = context.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		e.cause = context.DeadlineExceeded
	}
	return e
}

// unavailable returns an error that wraps [keystore.ErrUnavailable] and why.
func unavailable(why error) error {
	if why == nil {
		return keystore.ErrUnavailable
	}
	return fmt.Errorf("%w: %w", keystore.ErrUnavailable, why)
}

var (
	errClosed  = failf(StepClosed, "the Source or its Client was closed")
	errNoReply = failf(StepResponse, "no answer within %v", maxWait)
	errCrowd   = failf(StepResponse, "%d callers wait already", maxWaiters)
	errHeld    = failf(StepStatus, "the issuer asked to be left alone for now")
	errFirst   = failf(StepResponse, "not asked yet")
)
