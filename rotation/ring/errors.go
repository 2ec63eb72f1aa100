package ring

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"fmt"

	"github.com/keyturn/keyturn/keystore"
)

// An Error says in parts what failed, so that a caller can write its own sentence. Its text is
// "Kind: Text: Err (Also)", of which missing parts are left out; without a Kind it begins with
// "rotation". It may be logged: it holds no secret.
type Error struct {
	// Kind is the error to decide by, such as [ErrTampered] or [keystore.ErrUnavailable]; nil if
	// Err decides.
	Kind error

	// Text says what failed, without the name of the package.
	Text string

	// Err is the cause, or nil.
	Err error

	// Also is something else that is known and may explain the error, or nil. The Error does not
	// wrap it.
	Also error
}

// Error returns the parts as one text.
func (e *Error) Error() string {
	parts := []string{"rotation"}
	if e.Kind != nil {
		parts[0] = e.Kind.Error()
	}
	if e.Text != "" {
		parts = append(parts, e.Text)
	}
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	}
	text := strings.Join(parts, ": ")
	if e.Also != nil {
		text += " (" + e.Also.Error() + ")"
	}
	return text
}

// Unwrap returns Kind and Err.
func (e *Error) Unwrap() []error {
	return slices.DeleteFunc([]error{e.Kind, e.Err}, func(err error) bool { return err == nil })
}

// An UnreadableError says which fields of a ring in the store cannot be opened. It wraps each reason.
type UnreadableError struct {
	Tenant string
	Fields int              // how many fields the ring has
	Failed map[string]error // by name of the field; wraps ErrWrongKEK, ErrTampered, ErrNewer or ErrMalformed
}

// Error names the first few.
func (e *UnreadableError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "rotation: %d of %d fields of tenant %q cannot be opened", len(e.Failed), e.Fields, e.Tenant)
	for i, name := range slices.Sorted(maps.Keys(e.Failed)) {
		if i == 3 {
			b.WriteString("; and so on")
			break
		}
		fmt.Fprintf(&b, "; %.300q: %v", name, e.Failed[name])
	}
	return b.String()
}

// Unwrap returns the reasons.
func (e *UnreadableError) Unwrap() []error { return slices.Collect(maps.Values(e.Failed)) }

// ErrRefused reports that a change was not made since it would cost tokens, or
// makes no sense. Nothing is wrong with the store. See [RefusedError].
var ErrRefused = errors.New("rotation: refused")

// A RefusedError says why a change was refused, and from when on it would not be.
type RefusedError struct {
	Tenant string    // whose ring it is
	KID    string    // the key that it is about, or ""
	Reason string    // in words, without a secret; docs/operations.md has them all
	From   time.Time // by the store's clock; zero if waiting does not help

	// MaxTokenTTL is the bound of the ring that a token would outlive, if that is the reason:
	// its exp, or the TTL of the signer, is too long. Else it is zero.
	MaxTokenTTL time.Duration
}

// Error says so in words.
func (e *RefusedError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v: tenant %q", ErrRefused, e.Tenant)
	if e.KID != "" {
		fmt.Fprintf(&b, ", key %q", e.KID)
	}
	fmt.Fprintf(&b, ": %s", e.Reason)
	if !e.From.IsZero() {
		fmt.Fprintf(&b, "; it may be from %s on", moment(e.From))
	}
	return b.String()
}

// moment writes a time of the store.
func moment(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z07:00") }

// Is reports whether target is [ErrRefused].
func (e *RefusedError) Is(target error) bool { return target == ErrRefused }

// A MissingError reports that a ring, or a key of it, does not exist. It wraps
// [keystore.ErrNotFound].
type MissingError struct {
	Tenant string
	KID    string // "" if there is no ring
}

// Error names what is missing.
func (e *MissingError) Error() string {
	missing := &Error{Text: fmt.Sprintf("tenant %q has no ring in the store: create one", e.Tenant), Err: keystore.ErrNotFound}
	if e.KID != "" {
		missing = &Error{Text: fmt.Sprintf("tenant %q has no key %q", e.Tenant, e.KID), Err: keystore.ErrNotFound}
	}
	return missing.Error()
}

// Unwrap returns [keystore.ErrNotFound].
func (e *MissingError) Unwrap() error { return keystore.ErrNotFound }
