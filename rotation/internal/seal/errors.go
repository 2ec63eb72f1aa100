package seal

import (
	"errors"

	"github.com/keyturn/keyturn/rotation/ring"
)

// Each of these errors says why a field of the store cannot be opened. None means that there is no
// key: there may be one, or a revocation, that this process cannot read. So none may lead to a new
// key.
var (
	// ErrWrongKEK reports that a field is sealed under a KEK that this process does not have.
	ErrWrongKEK = errors.New("rotation: wrong KEK")

	// ErrWrongRealm reports that a field is sealed under a KEK that this process has, in another
	// realm. It is ErrWrongKEK too.
	ErrWrongRealm error = &ring.Error{Kind: ErrWrongKEK, Text: "wrong realm"}

	// ErrTampered reports that a field was changed, moved or forged without the KEK.
	ErrTampered = errors.New("rotation: authentication failed")

	// ErrNewer reports that a newer keyturn has written a field.
	ErrNewer = errors.New("rotation: written by a newer keyturn")

	// ErrMalformed reports that a field has a form that no keyturn writes.
	ErrMalformed = errors.New("rotation: malformed")
)
