package rotation

import (
	"fmt"

	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/ring"
)

// inTenant says whose ring err is about.
func inTenant(tenant string, err error) error {
	return &ring.Error{Text: fmt.Sprintf("tenant %q", tenant), Err: err}
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

var (
	// ErrFenced reports that an instance must not sign, since it was not in sync with the store for
	// too long: it cannot know what others have decided meanwhile, and its tokens might be refused.
	// It wraps no error of keystore's.
	ErrFenced = protocol.ErrFenced

	// ErrNoSigner reports that no key of the ring signs now: the one that did was revoked, or has
	// come to its end, and the next has not taken effect.
	ErrNoSigner = protocol.ErrNoSigner
)
