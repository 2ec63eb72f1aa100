package rotation

import (
	"context"
	"fmt"
	"io"

	"github.com/keyturn/keyturn/rotation/internal/held"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
)

// The errors below say why a field of a ring in the store cannot be opened. A
// [ring.UnreadableError] wraps one of them for each such field. Each leaves this instance unable to
// tell: there may be a key, or a revocation, that it cannot read. None means that there is no key,
// and none leads to a new one.
var (
	// ErrWrongKEK reports that a field is sealed under a KEK that this process does not have: the
	// KEKs are those of another service, or a new KEK was not given to all instances before one
	// used it.
	ErrWrongKEK = seal.ErrWrongKEK

	// ErrWrongRealm reports that a field is sealed under a KEK of this process, in another realm: see
	// [Config.Realm]. It is an ErrWrongKEK too.
	ErrWrongRealm = seal.ErrWrongRealm

	// ErrTampered reports that a field was changed, moved to another tenant or key, or forged,
	// without the KEK. A holder of an authentic copy restores it.
	ErrTampered = seal.ErrTampered

	// ErrNewer reports that a newer version of keyturn has written a field. Deploy that version
	// here too.
	ErrNewer = seal.ErrNewer

	// ErrMalformed reports that a field has a form that no version of keyturn writes. A holder of
	// an authentic copy restores it.
	ErrMalformed = seal.ErrMalformed
)

// KEKs are key-encryption keys (NIST SP 800-57, part 1, section 5.1.1): secrets that all instances
// of a service share, and the store does not have. They seal the records of rings and authenticate
// the facts about them. The first is the primary, which seals; the others are older ones that still
// open. Make them with [ParseKEKs], [NewKEKs], [UnwrapKEKs] or [InsecurePlaintext]. The zero KEKs
// seal and open nothing.
//
// KEKs are immutable and safe for concurrent use. They hold their keys in closures, so no fmt verb,
// log handler or encoder reaches them.
type KEKs struct{ keks *seal.KEKs }

// wrapKEKs returns the KEKs that package seal made, or its error.
func wrapKEKs(keks *seal.KEKs, err error) (*KEKs, error) {
	if err != nil {
		return nil, err
	}
	return &KEKs{keks}, nil
}

// sealing returns the KEKs as package seal takes them. ks may be nil.
func (ks *KEKs) sealing() *seal.KEKs {
	if ks == nil {
		return nil
	}
	return ks.keks
}

// ParseKEKs reads the text of a KEK file, or of KEYTURN_KEK: one key a line, as the base64 (RFC
// 4648, section 4, with padding) of 32 bytes, alone or after an id and a colon. The first is the
// primary; further lines are older keys that still open what they sealed. Empty lines are ignored.
// There are no comments.
//
// An id is 1 to 64 of the characters A-Z a-z 0-9 . _ and -. A key without one is named by 16
// hexadecimal digits that are derived from it and do not reveal it.
//
// An error names the line, and never holds its text. ParseKEKs does not keep text.
func ParseKEKs(text []byte) (*KEKs, error) { return wrapKEKs(seal.ParseKEKs(text)) }

// NewKEKs returns KEKs of 32 bytes each, the primary first. It keeps copies, and names them as
// [ParseKEKs] names keys without an id.
func NewKEKs(keys ...[]byte) (*KEKs, error) { return wrapKEKs(seal.NewKEKs(keys...)) }

// An Unwrapper opens KEKs that are stored sealed, with a key management service or an HSM. It is
// asked once when a process starts, so a running process does not depend on the service.
type Unwrapper interface {
	// Unwrap returns the 32 bytes of the KEK that wrapped holds. Any error is final: the process
	// must not start without its KEKs. It must end when ctx does.
	Unwrap(ctx context.Context, wrapped []byte) ([]byte, error)
}

// UnwrapKEKs returns the KEKs that u finds in wrapped, the primary first. It calls u for one after
// the other, with ctx. Its error wraps that of u, and says which one failed, counted from 1.
func UnwrapKEKs(ctx context.Context, u Unwrapper, wrapped ...[]byte) (*KEKs, error) {
	keys := make([][]byte, len(wrapped))
	for i, w := range wrapped {
		key, err := u.Unwrap(ctx, w)
		if err != nil {
			return nil, &ring.Error{Text: fmt.Sprintf("KEK %d cannot be unwrapped", i+1), Err: err}
		}
		keys[i] = key
	}
	return NewKEKs(keys...)
}

// InsecurePlaintext returns KEKs whose only key is published in docs/formats.md. With it every
// reader of the store can read the keys of all rings, and every writer can sign as any tenant. It
// is for tests, and for a demo that nothing depends on. The KEK is called "insecure", and no other
// may be.
func InsecurePlaintext() *KEKs { return &KEKs{seal.InsecurePlaintext()} }

// IDs returns the names of the keys, the primary first. They are not secret.
func (ks *KEKs) IDs() []string { return ks.sealing().IDs() }

// String returns the names of the keys, such as `KEK "3f0c9a1e5b7d2468"`.
func (ks *KEKs) String() string { return ks.sealing().String() }

// Format implements [fmt.Formatter]: every verb prints what [KEKs.String] does.
func (ks *KEKs) Format(f fmt.State, _ rune) { io.WriteString(f, ks.String()) }

// SecretBox returns functions that seal and open small secrets which are no part of a ring, in the
// first realm; the second takes those of the others too. purpose keeps the secrets of different packages
// apart, and a sealed secret opens only at the place that it was sealed for. The second says besides which
// other KEK than the primary one the secret is under, or "". Its error wraps one of the errors above. Package
// verifier/revocations seals its digest keys with it.
func (ks *KEKs) SecretBox(purpose, realm string, others ...string) (sealIt func(place string, secret []byte) ([]byte, error), openIt func(place string, sealed []byte) (secret []byte, other string, err error), err error) {
	in, err := ks.sealing().In(realm, others...)
	if err != nil {
		return nil, nil, err
	}
	return func(place string, secret []byte) ([]byte, error) { return seal.SealSecret(in, purpose, place, secret) },
		func(place string, sealed []byte) ([]byte, string, error) {
			return seal.OpenSecret(in, purpose, place, sealed)
		}, nil
}

// EntryCheck returns a function that says whether an instance with one of these KEKs wrote an entry of
// a store's log, in one of the realms. Its error wraps one of the errors above; the time of an entry
// and its place in the log are not proved. The function is safe for concurrent use.
func (ks *KEKs) EntryCheck(realm string, others ...string) (func(LogEntry) error, error) {
	in, err := ks.sealing().In(realm, others...)
	return func(e LogEntry) error { _, err := held.OpenEntry(in, e); return err }, err
}
