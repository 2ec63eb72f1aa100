package rotation

import (
	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/internal/synced"
	"github.com/keyturn/keyturn/rotation/ring"
)

// A ClockError reports that the clock of this instance and the store's differ by more than
// ClockSkew: it is [ring.ClockError], which documents the fields.
type ClockError = ring.ClockError

// A ClaimsError says why [Signer.Sign] does not put claims into a token: it is [ring.ClaimsError],
// which documents the fields.
type ClaimsError = ring.ClaimsError

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

// inTenant returns err with the tenant whose ring it is about.
func inTenant(tenant string, err error) error { return synced.InTenant(tenant, err) }

// unavailable returns reason as a [keystore.ErrUnavailable], unless it is one. reason may be nil.
func unavailable(reason error) error { return synced.Unavailable(reason) }
