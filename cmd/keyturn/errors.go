package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/server"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/verifier"
)

// errorText returns the words of the command for an error of the library. They are made from the
// error's parts. They leave out what a user cannot know: the names of packages and Go identifiers,
// and how rings lie in Redis.
func errorText(err error) string {
	switch e := err.(type) {
	case *keystore.Error:
		return e.Detail // the hint names Go functions
	case *jwks.Error:
		return issuerText(e, settingFlag)
	case *verifier.Error:
		return refusalText(e)
	case *rotation.Error:
		return rotationText(e)
	case *rotation.RefusedError:
		return refusedText(e)
	case *ring.UnreadableError:
		return unopenedText(e)
	case *rotation.ClockError:
		return clockText(e)
	case *rotation.PolicyError:
		return e.Text(policyFlagOf)
	case *rotation.ClaimsError:
		return claimsText(e)
	case *rediskeys.Error:
		return redisText(e)
	}
	if text, ok := kindText(err); ok {
		return text
	}
	return err.Error()
}

// kindText returns the words for an error that is a kind of errors.
func kindText(kind error) (text string, ok bool) {
	switch kind {
	case keystore.ErrUnavailable:
		return "unavailable", true
	case keystore.ErrNotFound:
		return "key not found", true
	case rotation.ErrFenced:
		return "fenced: out of step with the store", true
	case rotation.ErrNoSigner:
		return "no key signs now", true
	case rotation.ErrWrongKEK:
		return "wrong KEK", true
	case rotation.ErrTampered:
		return "authentication failed", true
	case rotation.ErrNewer:
		return "written by a newer keyturn", true
	case rotation.ErrMalformed:
		return "malformed", true
	}
	return "", false
}

// rotationText puts the parts of an error in a row. The kind "unavailable" is left out if
// a text or a cause follows: that says more.
func rotationText(e *rotation.Error) string {
	var parts []string
	if e.Kind != nil && (e.Kind != keystore.ErrUnavailable || e.Text == "" && e.Err == nil) {
		parts = append(parts, errorText(e.Kind))
	}
	if e.Text != "" {
		parts = append(parts, e.Text)
	}
	if e.Err != nil {
		parts = append(parts, errorText(e.Err))
	}
	text := strings.Join(parts, ": ")
	if e.Also != nil {
		text += " (" + errorText(e.Also) + ")"
	}
	return text
}

// refusedText says why a ring refuses a change or a token, and until when.
func refusedText(e *rotation.RefusedError) string {
	text := fmt.Sprintf("refused: tenant %q", e.Tenant)
	if e.KID != "" {
		text += fmt.Sprintf(", key %q", e.KID)
	}
	if e.MaxTokenTTL != 0 {
		return fmt.Sprintf("%s: the token would live for longer than the ring's MaxTokenTTL, %v: shorten --ttl, or its exp", text, e.MaxTokenTTL)
	}
	text += ": " + e.Reason
	if !e.From.IsZero() {
		text += "; it may be from " + e.From.UTC().Format(milliseconds) + " on"
	}
	return text
}

// unopenedText says which fields of a ring cannot be opened, and why.
func unopenedText(e *ring.UnreadableError) string {
	const most = 3
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d fields of tenant %q cannot be opened", len(e.Failed), e.Fields, e.Tenant)
	for i, name := range slices.Sorted(maps.Keys(e.Failed)) {
		if i == most {
			b.WriteString("; and so on")
			break
		}
		fmt.Fprintf(&b, "; %.300q: %s", name, errorText(e.Failed[name]))
	}
	return b.String()
}

// wrongKEK returns the part of an error that names the KEK of a ring and ours, or nil. A ring has it
// once for each of its fields.
func wrongKEK(err error) *rotation.Error {
	if ring := new(ring.UnreadableError); errors.As(err, &ring) {
		for _, name := range slices.Sorted(maps.Keys(ring.Failed)) {
			if wrong := wrongKEK(ring.Failed[name]); wrong != nil {
				return wrong
			}
		}
		return nil
	}
	for e := new(rotation.Error); errors.As(err, &e); err = e.Err {
		if e.Kind == rotation.ErrWrongKEK || e.Kind == rotation.ErrWrongRealm {
			return e
		}
	}
	return nil
}

func clockText(e *rotation.ClockError) string {
	text := fmt.Sprintf("this clock and the store's differ by more than ClockSkew: the store says %s, between our %s and %s, and ClockSkew is %v",
		stampNano(e.Store), stampNano(e.Sent), stampNano(e.Received), e.ClockSkew)
	if e.Since != nil {
		return errorText(e.Since) + "; before that: " + text
	}
	return text
}

// claimsText says why claims do not make a token.
func claimsText(e *rotation.ClaimsError) string {
	switch {
	case e.Err == nil:
		return "the claims cannot be encoded as JSON"
	case e.Claim != "":
		return fmt.Sprintf("the claims: %v; --claim makes strings, --claim-json all else", e.Err)
	}
	return fmt.Sprintf("the claims: %v", e.Err)
}

// redisText says why a call to Redis failed. It names the call only if a single key in Redis is
// wrong: then the call names that key.
func redisText(e *rediskeys.Error) string {
	text := e.Err.Error()
	if e.Kind != nil {
		text = fmt.Sprintf("%v%s (%v)", e.Kind, linkHint(e.Kind), e.Err)
	}
	if errors.Is(e.Kind, rediskeys.ErrWrongType) {
		return e.Call + ": " + text
	}
	return text
}

// issuerText returns the words for an error, without its step. nameOf returns the name by which the
// user can set a setting, or "".
func issuerText(e *jwks.Error, nameOf func(jwks.Setting) string) string {
	switch name := nameOf(e.Setting); {
	case name != "":
		return fmt.Sprintf("%s (%s %s)", e.Detail, name, e.Hint)
	case e.Setting == "" && e.Hint != "":
		return fmt.Sprintf("%s (%s)", e.Detail, e.Hint)
	}
	return e.Detail
}

// settingFlag returns the flag of a setting, or "".
func settingFlag(s jwks.Setting) string {
	switch s {
	case jwks.SettingAllowLoopback:
		return "--allow-loopback"
	case jwks.SettingAllowCIDR:
		return "--allow-cidr"
	case jwks.SettingAllowHTTP:
		return "--allow-http"
	}
	return ""
}

// settingField returns the field of a tenant in the file of --config for a setting, or "".
func settingField(s jwks.Setting) string {
	switch s {
	case jwks.SettingAllowLoopback:
		return allowLoopback + ": true"
	case jwks.SettingAllowHTTP:
		return allowHTTP + ": true"
	case jwks.SettingAllowCIDR:
		return allowCIDR
	case jwks.SettingMaxKeys:
		return "max_keys"
	case jwks.SettingMaxBytes:
		return "max_bytes"
	}
	return ""
}

// refusalText says why a token is not good.
func refusalText(e *verifier.Error) string {
	text := ""
	switch {
	case e.Key != (keystore.ID{}):
		text = "key " + e.Key.String() + ": "
	case e.Tenant != "":
		text = fmt.Sprintf("tenant %q: ", e.Tenant)
	}
	text += e.Err.Error()
	if claim := fmt.Sprintf("claim %q", e.Claim); e.Claim != "" && !strings.Contains(text, claim) {
		text += ": " + claim
	}
	return text
}

// ringError returns the words and the exit code for an error about a ring, with what to do. An error
// of no known kind is a mistake in the command line.
func ringError(err error) error {
	if missing := (*ring.MissingError)(nil); errors.As(err, &missing) {
		return noRing(missing.Tenant)
	}
	code := exitUsage
	switch {
	case errors.Is(err, rotation.ErrRefused), errors.Is(err, rotation.ErrFenced), errors.Is(err, rotation.ErrNoSigner):
		code = exitNo
	case errors.Is(err, keystore.ErrUnavailable), errors.Is(err, context.DeadlineExceeded), server.IsSealError(err):
		code = exitCannotTell
	case errors.Is(err, keystore.ErrNotFound):
		code = exitNo
	}
	text := errorText(err)
	if wrong := wrongKEK(err); wrong != nil {
		text = errorText(wrong)
	}
	return exitf(code, "%s", printable(text, false)+advice(err))
}

// openingError is ringError for an error of [rotation.Open]. The cause alone matters: that the
// keyring cannot be opened is known.
func openingError(err error) error {
	if e, ok := err.(*rotation.Error); ok && e.Err != nil {
		err = e.Err
	}
	return ringError(err)
}

// storeError returns the words for a URL that names no store.
func storeError(err error) error {
	return usagef("--redis or %s: %s", envRedis, storeText(err))
}

func storeText(err error) string {
	if e := new(rediskeys.Error); errors.As(err, &e) {
		return printable(e.Call+": "+e.Err.Error(), false)
	}
	return printable(err.Error(), false)
}

// advice says what to do where the error does not.
func advice(err error) string {
	switch {
	case errors.Is(err, rotation.ErrWrongRealm):
		return "; give the realm that the service has, with --realm (rings.realm in the file of serve); keyturn keys rekey --from-realm moves rings to another one"
	case errors.Is(err, rotation.ErrWrongKEK):
		return "; give the KEK that the service has, with --kek-file, " + envKEKFile + " or " + envKEK
	case errors.Is(err, rotation.ErrTampered), errors.Is(err, rotation.ErrMalformed):
		return "; somebody without the KEK has written to this Redis, or a backup is broken: an instance that holds the ring puts back what it has; if it stays, docs/operations.md says how to remove it"
	case errors.Is(err, rotation.ErrNoSigner):
		return `; "keyturn keys list" shows from when on one does`
	case errors.Is(err, rotation.ErrNewer):
		return "; use the version of keyturn that the service has"
	}
	return ""
}
