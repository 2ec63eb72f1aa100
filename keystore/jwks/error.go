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
	StepURL       Step = "url"       // keys are not read from such a URL
	StepHeader    Step = "header"    // SourceConfig.Header failed, or returned no good header
	StepDNS       Step = "dns"       // the name does not resolve
	StepAddress   Step = "address"   // the guard refuses the address that it resolves to
	StepConnect   Step = "connect"   // the address does not answer
	StepTLS       Step = "tls"       // no handshake, or not with the right host
	StepResponse  Step = "response"  // no answer in time, or not one of HTTP
	StepRedirect  Step = "redirect"  // the answer is a redirect that is not followed
	StepStatus    Step = "status"    // an answer with a status that brings no keys
	StepBody      Step = "body"      // too large, too slow, or broken off
	StepDiscovery Step = "discovery" // not the metadata of that issuer
	StepSet       Step = "set"       // not a JWK Set, or no key in it serves
	StepClosed    Step = "closed"    // the Source or Client was closed
)

// A Setting is the name of a field of [SourceConfig].
type Setting string

// The settings that an [Error] names.
const (
	SettingAllowLoopback Setting = "AllowLoopback"
	SettingAllowCIDR     Setting = "AllowCIDR"
	SettingAcceptEmpty   Setting = "AcceptEmpty"
	SettingMaxKeys       Setting = "MaxKeys"
	SettingMaxBytes      Setting = "MaxBytes"
	SettingAllowHTTP     Setting = "AllowHTTP"
)

// An Error says what failed while keys were read. Its text is for operators. It holds no userinfo
// and no query of a URL and nothing of a request. Of the text that an issuer sent, it holds only
// the reasons of
// [Skipped].
//
// Its fields are the parts of that text, for a program that has its own names for our settings.
type Error struct {
	Step    Step    // "" if an argument is wrong, or a document given to [Parse]
	Status  int     // the HTTP status, at StepStatus and StepRedirect; 0 at other steps
	Detail  string  // what failed, such as "scheme http: want https"
	Setting Setting // the setting that would allow it, or ""
	Hint    string  // the effect of Setting, or without one what to do; often ""

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

// Unwrap returns why this side ended the attempt, such as [context.DeadlineExceeded], or nil.
func (e *Error) Unwrap() error { return e.cause }

func failf(step Step, format string, args ...any) *Error {
	return &Error{Step: step, Detail: fmt.Sprintf(format, args...)}
}

// hint adds what to do, and returns e.
func (e *Error) hint(text string) *Error {
	e.Hint = text
	return e
}

// allowedBy adds the setting that would allow what e refuses, and its effect, and returns e.
func (e *Error) allowedBy(setting Setting, effect string) *Error {
	e.Setting, e.Hint = setting, effect
	return e
}

// within returns e as an error at another step. Its detail begins with where e was found.
func (e *Error) within(step Step, where string) *Error {
	outer := *e
	outer.Step, outer.Detail = step, where+": "+e.Detail
	return &outer
}

// asError returns the Error that err wraps, or else one at step with the given text. The text of
// err itself may quote the answer, and is not used.
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
	errQueued  = failf(StepResponse, "not asked within %v: other fetches went first", maxWait)
	errNoReply = failf(StepResponse, "no answer within %v", maxWait)
	errCrowd   = failf(StepResponse, "%d callers wait already", maxWaiters)
	errHeld    = failf(StepStatus, "the issuer asked to be left alone for now")
	errFirst   = failf(StepResponse, "not asked yet")
)
