package rotation

import (
	"fmt"

	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/ring"
)

// inTenant returns err with the tenant whose ring it is about.
func inTenant(tenant string, err error) error {
	return &ring.Error{Text: fmt.Sprintf("tenant %q", tenant), Err: err}
}

// A ClaimsError says why [Signer.Sign] does not put claims into a token. It holds no claim's value,
// so it may be logged.
type ClaimsError struct {
	Type  string // the Go type of the claims
	Claim string // the registered claim (RFC 7519, section 4.1) whose value is not of its type, or ""
	Err   error  // why they are refused, or nil if they cannot be encoded as JSON
}

// Error returns the fields as one line.
func (e *ClaimsError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("rotation: the claims, a %s, cannot be encoded as JSON", e.Type)
	}
	return fmt.Sprintf("rotation: the claims, a %s: %v", e.Type, e.Err)
}

// Unwrap returns Err.
func (e *ClaimsError) Unwrap() error { return e.Err }

var (
	// ErrFenced reports that this instance must not sign, because it cannot know whether others
	// have meanwhile revoked or replaced the key: its last good sync is older than the policy's
	// SignFor, or it has had none, or no sync has confirmed the key or a revocation yet. Other
	// instances may sign. Answer 503; it goes away with a later sync. It wraps no error of package
	// keystore.
	ErrFenced = protocol.ErrFenced

	// ErrNoSigner reports that no key of the ring signs now, on any instance that knows the same:
	// the signing key was revoked, or has ended after three periods of Every without a successor,
	// and the next has not taken effect. Or this instance knows no ring. Answer 503, and see
	// [Rotator.Rotate].
	ErrNoSigner = protocol.ErrNoSigner
)
