package rotation

import (
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

// inTenant says whose ring err is about.
func inTenant(tenant string, err error) error {
	return &Error{Text: fmt.Sprintf("tenant %q", tenant), Err: err}
}

// A RingError says which fields of a ring in the store cannot be opened. It wraps each reason.
type RingError struct {
	Tenant string
	Fields int              // how many fields the ring has
	Failed map[string]error // by name of the field; wraps ErrWrongKEK, ErrTampered, ErrNewer or ErrMalformed
}

// Error names the first few.
func (e *RingError) Error() string {
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
func (e *RingError) Unwrap() []error { return slices.Collect(maps.Values(e.Failed)) }

// A ClockError says that the clock of this instance and the store's differ by more than
// ClockSkew. It wraps [keystore.ErrUnavailable].
type ClockError struct {
	Store          time.Time // by the store's clock
	Sent, Received time.Time // by this instance's clock, around the store's answer
	ClockSkew      time.Duration

	// Since is why the store could not be asked again since then, or nil.
	Since error
}

// Error says what each clock says.
func (e *ClockError) Error() string {
	at := func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
	text := fmt.Sprintf("%v: %v: the store says %s, between our %s and %s, and ClockSkew is %v", keystore.ErrUnavailable, errClock,
		at(e.Store), at(e.Sent), at(e.Received), e.ClockSkew)
	if e.Since != nil {
		return fmt.Sprintf("%v; before that: %s", e.Since, text)
	}
	return text
}

// Unwrap returns the reasons.
func (e *ClockError) Unwrap() []error {
	reasons := []error{keystore.ErrUnavailable, errClock}
	if e.Since != nil {
		reasons = append(reasons, e.Since)
	}
	return reasons
}

// A ClaimsError says why [Signer.Sign] does not put claims into a token. It holds no claim's value.
type ClaimsError struct {
	Type  string // the Go type of the claims
	Claim string // the registered claim (RFC 7519, section 4.1) whose value is not of its type, or ""
	Err   error  // what is wrong with them, or nil if they cannot be encoded as JSON
}

// Error says so in words.
func (e *ClaimsError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("rotation: the claims, a %s, cannot be encoded as JSON", e.Type)
	}
	return fmt.Sprintf("rotation: the claims, a %s: %v", e.Type, e.Err)
}

// Unwrap returns Err.
func (e *ClaimsError) Unwrap() error { return e.Err }
