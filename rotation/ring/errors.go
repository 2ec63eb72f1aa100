package ring

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/keystore"
)

// An Error is an error of package rotation in parts, so that a caller can write its own sentence.
// Its text is "Kind: Text: Err (Also)" without the parts that are missing. If Kind is missing the
// text begins with "rotation". It holds no secret, so it may be logged.
type Error struct {
	// Kind is the error by which a caller decides, such as [keystore.ErrUnavailable]. It is nil if
	// the caller decides by Err.
	Kind error

	// Text says what failed, without the name of the package. It may be empty.
	Text string

	// Err is the cause, or nil.
	Err error

	// Also may explain the error, or is nil. The Error does not wrap it.
	Also error
}

// Error returns the parts as one line.
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

// Unwrap returns Kind and Err, where they are not nil.
func (e *Error) Unwrap() []error {
	return slices.DeleteFunc([]error{e.Kind, e.Err}, func(err error) bool { return err == nil })
}

// An UnreadableError reports that some fields of a ring in the store cannot be opened. So the
// reader cannot tell which keys exist, or which were revoked. It wraps the reason of each field.
type UnreadableError struct {
	Tenant string // whose ring it is
	Fields int    // how many fields the ring has

	// Failed has the reason by the name of the field. Each wraps one of ErrWrongKEK, ErrTampered,
	// ErrNewer and ErrMalformed of package rotation. Other callers have the same map: do not change it.
	Failed map[string]error
}

// Error names the first three fields, with their reasons.
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

// Unwrap returns the reasons, in no order.
func (e *UnreadableError) Unwrap() []error { return slices.Collect(maps.Values(e.Failed)) }

// ErrRefused reports that a change was not made because it would cost tokens or make no sense. The
// store is sound. See [RefusedError].
var ErrRefused = errors.New("rotation: refused")

// A RefusedError reports why a change, or a token, was refused. It is [ErrRefused].
type RefusedError struct {
	Tenant string // whose ring it is
	KID    string // the key that the reason is about, or ""
	Reason string // in words, without a secret; docs/operations.md has a section for each

	// From is the time, by the store's clock, from which the change would be made, or the earliest date
	// that it may name. It is zero if neither helps.
	From time.Time

	// MaxTokenTTL is that of the ring if the reason is that a token would live longer: its exp, or
	// the TTL of the signer, is too late. Otherwise it is zero.
	MaxTokenTTL time.Duration
}

// Error returns the fields as one line.
func (e *RefusedError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v: tenant %q", ErrRefused, e.Tenant)
	if e.KID != "" {
		fmt.Fprintf(&b, ", key %q", e.KID)
	}
	fmt.Fprintf(&b, ": %s", e.Reason)
	if !e.From.IsZero() {
		fmt.Fprintf(&b, "; it may be from %s on", formatTime(e.From))
	}
	return b.String()
}

// ErrUndone reports that the store lost a change after it had acknowledged it, while the process
// that made the change watched. It has put the change back. If the store has not lost data, a person
// writes to it.
var ErrUndone = errors.New("rotation: the store lost the change after it was made; it was put back")

// ErrUnconfirmed reports that a revocation was made, and that there are instances, but that none which
// holds the ring has confirmed it. If the tenant has no instances, nothing is to do. Otherwise a
// person may have removed their acknowledgements, and can then remove the revocation: look at the
// instances, and revoke again.
var ErrUnconfirmed = errors.New("rotation: the change is made, but no instance that holds the ring has confirmed it")

// formatTime writes a time of the store, to the millisecond.
func formatTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z07:00") }

// Is reports whether target is [ErrRefused].
func (e *RefusedError) Is(target error) bool { return target == ErrRefused }

// A MissingError reports that a ring, or a key of it, does not exist. It wraps
// [keystore.ErrNotFound].
type MissingError struct {
	Tenant string // whose ring it is
	KID    string // the key, or "" if there is no ring
}

// Error names the tenant, and the key if it is a key that is missing.
func (e *MissingError) Error() string {
	missing := &Error{Text: fmt.Sprintf("tenant %q has no ring in the store: create one", e.Tenant), Err: keystore.ErrNotFound}
	if e.KID != "" {
		missing = &Error{Text: fmt.Sprintf("tenant %q has no key %q", e.Tenant, e.KID), Err: keystore.ErrNotFound}
	}
	return missing.Error()
}

// Unwrap returns [keystore.ErrNotFound].
func (e *MissingError) Unwrap() error { return keystore.ErrNotFound }
