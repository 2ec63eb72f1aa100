package seal

import (
	"fmt"

	"github.com/keyturn/keyturn/rotation/ring"
)

// Bounds of a small secret, in bytes.
const (
	maxPurpose = 64
	maxPlace   = 256
	maxSecret  = 256
)

// SealSecret seals a small secret that is no part of a ring, under the primary KEK. purpose keeps
// the secrets of different packages apart, and place says where the result must be found.
func SealSecret(keks *KEKs, purpose, place string, secret []byte) ([]byte, error) {
	if !isText(purpose, 1, maxPurpose) || !isText(place, 1, maxPlace) || len(secret) == 0 || len(secret) > maxSecret {
		return nil, &ring.Error{Text: fmt.Sprintf("a secret of %d bytes, with a purpose of %d and a place of %d", len(secret), len(purpose), len(place))}
	}
	kek, err := keks.sealing(keks.Primary())
	if err != nil {
		return nil, err
	}
	box, err := newBox(kek.derive(useSecrets))
	if err != nil {
		return nil, err
	}
	return box.seal(kek.name.append(appendStart(nil, blobSecret)), secretPlace(purpose, place), secret)
}

// OpenSecret opens what SealSecret has returned for a purpose and a place. other describes the KEK that
// it is sealed under, and is empty if that is the primary one. The error wraps one of ErrWrongKEK,
// ErrTampered, ErrNewer and ErrMalformed.
func OpenSecret(keks *KEKs, purpose, place string, sealed []byte) (secret []byte, other string, err error) {
	r := reader{rest: sealed}
	r.start(blobSecret)
	name := r.kekName()
	if r.err == nil && (len(r.rest) <= boxOverhead || len(r.rest) > boxOverhead+maxSecret) {
		r.fail("%d bytes of secret", len(r.rest))
	}
	if r.err != nil {
		return nil, "", r.err
	}
	kek, err := keks.find(name)
	if err != nil {
		return nil, "", err
	}
	box, err := newBox(kek.derive(useSecrets))
	if err != nil {
		return nil, "", err
	}
	n := len(sealed) - len(r.rest)
	if secret, err = box.open(sealed[:n:n], secretPlace(purpose, place), r.rest); err != nil {
		return nil, "", &ring.Error{Kind: ErrTampered, Text: "the secret was changed, moved or forged"}
	}
	if first := keks.Primary(); name.Check != first.Check || name.Realm != first.Realm { // the id may change
		other = keks.Describe(name)
	}
	return secret, other, nil
}

// secretPlace returns the additional data of a secret. The seal covers it.
func secretPlace(purpose, place string) []byte { return appendText(appendText(nil, purpose), place) }
