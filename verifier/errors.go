package verifier

import (
	"errors"
	"strconv"
	"strings"

	"github.com/keyturn/keyturn/keystore"
)

// A Reason says why a token was refused, in a form for programs: the command prints
// it, and metrics use it as a label.
type Reason string

// The reasons. Each has a sentinel error of nearly the same name.
const (
	ReasonMalformed     Reason = "malformed"
	ReasonTooLarge      Reason = "too_large"
	ReasonType          Reason = "type"
	ReasonCritical      Reason = "critical"
	ReasonAlgorithm     Reason = "algorithm"
	ReasonUnknownTenant Reason = "unknown_tenant"
	ReasonSuspended     Reason = "suspended"
	ReasonUnknownKey    Reason = "unknown_key"
	ReasonRevokedKey    Reason = "revoked_key"
	ReasonSignature     Reason = "signature"
	ReasonExpired       Reason = "expired"
	ReasonNotYetValid   Reason = "not_yet_valid"
	ReasonTooOld        Reason = "too_old"
	ReasonIssuer        Reason = "issuer"
	ReasonAudience      Reason = "audience"
	ReasonTenant        Reason = "tenant"
	ReasonMissingClaim  Reason = "missing_claim"
	ReasonClaim         Reason = "claim"
	ReasonRevoked       Reason = "revoked"
	ReasonUnavailable   Reason = "unavailable"
)

// ErrInvalid matches every error which says that the token is bad (HTTP 401):
// errors.Is(err, ErrInvalid) is true for them, and false for [ErrUnavailable].
var ErrInvalid error = &refusal{"invalid", "token refused"}

// The errors for bad tokens. Each of them is [ErrInvalid]. A response to a client
// should not say which one it was.
var (
	ErrMalformed      error = &refusal{ReasonMalformed, "malformed token"}
	ErrTooLarge       error = &refusal{ReasonTooLarge, "token too large"}
	ErrType           error = &refusal{ReasonType, "token type not accepted"}
	ErrCritical       error = &refusal{ReasonCritical, "header asks for an extension that is not understood"}
	ErrAlgorithm      error = &refusal{ReasonAlgorithm, "algorithm not allowed"}
	ErrUnknownTenant  error = &refusal{ReasonUnknownTenant, "unknown tenant"}
	ErrSuspended      error = &refusal{ReasonSuspended, "tenant suspended"}
	ErrUnknownKey     error = &refusal{ReasonUnknownKey, "unknown key"}
	ErrRevokedKey     error = &refusal{ReasonRevokedKey, "key revoked"} // it is ErrUnknownKey too
	ErrSignature      error = &refusal{ReasonSignature, "invalid signature"}
	ErrExpired        error = &refusal{ReasonExpired, "token expired"}
	ErrNotYetValid    error = &refusal{ReasonNotYetValid, "token not yet valid"}
	ErrTooOld         error = &refusal{ReasonTooOld, "token too old"}
	ErrIssuer         error = &refusal{ReasonIssuer, "wrong issuer"}
	ErrAudience       error = &refusal{ReasonAudience, "wrong audience"}
	ErrTenantMismatch error = &refusal{ReasonTenant, "token of another tenant"}
	ErrMissingClaim   error = &refusal{ReasonMissingClaim, "claim missing"}
	ErrClaim          error = &refusal{ReasonClaim, "claim not accepted"}
	ErrRevoked        error = &refusal{ReasonRevoked, "token revoked"}
)

// ErrSharedIssuer is the [ErrUnknownTenant] of a token whose issuer several tenants have, or a tenant with
// AnyIssuer may have. [Verifier.Verify] is not told which tenant it is of. It may be good for one of them.
var ErrSharedIssuer = detail(ErrUnknownTenant, "several tenants may have the token's issuer: VerifyTenant tells them apart")

// ErrUnavailable reports that the verifier cannot tell now whether the token is
// good. Answer 503 with Retry-After, not 401. It is never [ErrInvalid].
var ErrUnavailable = keystore.ErrUnavailable

// A refusal is the sentinel error for one reason. It is also ErrInvalid.
type refusal struct {
	reason Reason
	text   string
}

func (r *refusal) Error() string { return r.text }

func (r *refusal) Is(target error) bool {
	return target == ErrInvalid || r.reason == ReasonRevokedKey && target == ErrUnknownKey
}

// A detailed refusal tells the operator more.
type detailed struct {
	*refusal
	detail string
}

func (d *detailed) Error() string { return d.text + ": " + d.detail }
func (d *detailed) Unwrap() error { return d.refusal }

func detail(sentinel error, text string) error {
	return &detailed{sentinel.(*refusal), text}
}

// An Error tells the operator why a token was refused. It may be logged: it holds
// the kid, quoted when printed, the name of a claim, and for iss, aud, typ, alg, Match,
// MatchHeader and TenantClaim the values that the [Tenant] wants. It never holds the token, a claim's
// value or key material.
//
// A client should learn none of it: see package middleware.
type Error struct {
	Reason Reason
	Tenant string      // empty unless it is a configured tenant
	Key    keystore.ID // zero if the token was refused before its key was looked up
	Claim  string      // the name of the claim at fault; empty if it was none
	Err    error       // wraps one of the errors above
}

// Error implements the error interface. It leaves out the text of an error of the
// [Tenant]'s Check, since that may quote a claim. [errors.As] still finds that
// error.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("verifier: ")
	switch {
	case e.Key != (keystore.ID{}):
		b.WriteString("key " + e.Key.String() + ": ")
	case e.Tenant != "":
		b.WriteString("tenant " + strconv.Quote(e.Tenant) + ": ")
	}
	if e.Err != nil {
		b.WriteString(e.Err.Error())
	}
	if claim := "claim " + strconv.Quote(e.Claim); e.Claim != "" && !strings.Contains(b.String(), claim) {
		b.WriteString(": " + claim)
	}
	return b.String()
}

// Unwrap returns e.Err, for [errors.Is] and [errors.As].
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is [ErrInvalid] and the token is bad.
func (e *Error) Is(target error) bool {
	return target == ErrInvalid && e.Reason != ReasonUnavailable
}

// withTenant sets the tenant, if r is not nil, and returns e.
func (e *Error) withTenant(r *rules) *Error {
	if r != nil {
		e.Tenant = r.ID
	}
	return e
}

// withKey sets the key and returns e.
func (e *Error) withKey(id keystore.ID) *Error {
	e.Key = id
	return e
}

// refuse returns the Error for a refusal or a detailed one.
func refuse(err error) *Error { return refuseClaim(err, "") }

// refuseClaim is refuse for a claim at fault.
func refuseClaim(err error, claim string) *Error {
	e := &Error{Claim: claim, Err: err}
	switch r := err.(type) {
	case *refusal:
		e.Reason = r.reason
	case *detailed:
		e.Reason = r.reason
	}
	return e
}

// cannotTell returns the Error for a failure that says nothing about the token. It is
// both ErrUnavailable and cause.
func cannotTell(cause error) *Error {
	return &Error{Reason: ReasonUnavailable, Err: &unavailable{cause}}
}

// unavailable is ErrUnavailable with its cause. It is never ErrInvalid, even if the
// cause is: a store may call another verifier, whose verdict is about another
// token.
type unavailable struct{ cause error }

func (u *unavailable) Error() string { return "cannot tell now: " + u.cause.Error() }

func (u *unavailable) Is(target error) bool {
	if _, verdict := target.(*refusal); verdict {
		return false
	}
	return target == ErrUnavailable || errors.Is(u.cause, target)
}

func (u *unavailable) As(target any) bool { return errors.As(u.cause, target) }

// checkFailed is ErrClaim with the error of a tenant's Check, whose text it does not
// print. It is never ErrUnavailable, even if that error is.
type checkFailed struct{ cause error }

func (c *checkFailed) Error() string { return "the tenant's own check refused the token" }

func (c *checkFailed) Is(target error) bool {
	return target == ErrClaim || target != ErrUnavailable && errors.Is(c.cause, target)
}

func (c *checkFailed) As(target any) bool { return errors.As(c.cause, target) }
