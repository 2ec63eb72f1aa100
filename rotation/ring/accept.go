package ring

import (
	"fmt"
	"strconv"
	"time"

	"github.com/keyturn/keyturn/keystore"
)

// Bounds of keys that are accepted beside a ring.
const (
	// MaxAccept is how far ahead the date may lie until which a key is accepted.
	MaxAccept = 400 * 24 * time.Hour

	// MaxAcceptWeak is for how long, from its first acceptance on, a weak secret is accepted: see
	// [keystore.NewWeakSecret].
	MaxAcceptWeak = 90 * 24 * time.Hour

	// MaxAccepted is how many accepted keys a ring may have.
	MaxAccepted = 64

	// MaxWithoutKID is how many keys are tried for a token without kid, and MaxWithoutKIDCost what they
	// may cost together: see [keystore.MaxCandidates].
	MaxWithoutKID     = 4
	MaxWithoutKIDCost = keystore.MaxCandidates
)

// A ForeignKey is a key that did not come from a ring: of another party, or of the time before the
// ring. It verifies tokens until a date, and signs none.
type ForeignKey struct {
	// KID is the one in its tokens. With NoKID it is empty: the key then gets a random one, by which it
	// is listed and can be revoked.
	KID   string
	NoKID bool // its tokens carry no kid

	Algorithm keystore.Algorithm
	Key       any  // []byte for HS*; else *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
	Weak      bool // it may be a short secret: see [keystore.NewWeakSecret]
}

// An AcceptRecord is an accepted key as it was recorded, without the key material. It never changes.
// What happens to the key later is in [Facts]: a later date, or its revocation. It has no place in the
// order of the keys that sign.
type AcceptRecord struct {
	Tenant    string // whose tokens it verifies
	KID       string // the one in its tokens, or a random one with NoKID
	Algorithm keystore.Algorithm
	Created   time.Time // when it was recorded, by the store's clock
	Until     time.Time // until when it verifies, unless a [FactAccepted] says a later date
	NoKID     bool      // its tokens carry no kid
	Weak      bool      // it is a short secret
	Life      int       // how many lives of the ring had ended when it was recorded
}

// An Accepted is an accepted key at one moment.
type Accepted struct {
	AcceptRecord

	// Until is until when the key verifies: the latest date that it was given.
	Until time.Time

	RevokedAt time.Time // when it was revoked, or zero
}

// Verifies reports whether tokens of the key are accepted at now.
func (a Accepted) Verifies(now time.Time) bool { return a.RevokedAt.IsZero() && now.Before(a.Until) }

// DateFact names the [FactAccepted] of the record. It names when the record was made, too: after a key has
// ended and was collected, another one may be accepted under its kid. The first one, put back by a dump or
// by a person who can write to the store, must not verify until the date of the second.
func (r *AcceptRecord) DateFact() FactID {
	return FactID{FactAccepted, fmt.Sprintf("%0*d.%s", DateDigits, r.Created.UnixMilli(), r.KID)}
}

// DateDigits is how many digits the creation time of a record has in the name of its [FactAccepted], in
// milliseconds since 1970. A dot and the kid follow.
const DateDigits = 13

// AcceptedKey returns the kid that a [FactAccepted] is about, and when the record was made for which it was
// stated. ok is false if the fact is of another kind, or none that keyturn states.
func (id FactID) AcceptedKey() (kid string, created time.Time, ok bool) {
	if id.Kind != FactAccepted || len(id.KID) <= DateDigits+1 || id.KID[DateDigits] != '.' {
		return "", time.Time{}, false
	}
	ms, err := strconv.ParseUint(id.KID[:DateDigits], 10, 63)
	return id.KID[DateDigits+1:], time.UnixMilli(int64(ms)).UTC(), err == nil
}

// Accepted returns an accepted key as the facts have it.
//
// Two sides of a split may accept one key, and make a record each. One of them counts, and the later of
// the dates: so the date of a record counts that was made before this one had its first date behind it.
func (f Facts) Accepted(r *AcceptRecord) Accepted {
	a := Accepted{AcceptRecord: *r, Until: r.Until}
	from, _ := f.find(FactAccepted, "")
	for _, d := range f.dated[from:] {
		if d.Kind != FactAccepted {
			break
		}
		if len(d.KID) != DateDigits+1+len(r.KID) || d.KID[DateDigits+1:] != r.KID {
			continue
		}
		if _, created, ok := d.AcceptedKey(); ok && !created.Before(r.Created) && created.Before(r.Until) {
			a.Until = later(a.Until, d.at)
		}
	}
	a.RevokedAt, _ = f.At(FactRevoked, r.KID)
	return a
}
