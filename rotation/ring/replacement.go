package ring

import "time"

// A Replacement says how far leaked keys of a ring are replaced. rotation.Rotator.Replace returns it.
// Times are by the store's clock.
type Replacement struct {
	Tenant string
	Left   []string // kids that are not revoked yet, in the order of the ring

	// Next is the next step: [OpMint], [OpRotate], [OpPromote] or [OpRevoke]. It is "" if no
	// step can be made now. KID is the key that a revocation ends.
	Next Op
	KID  string
	From time.Time // from when on one can be made, if Next is ""; zero if all is done

	// The outlook, if each step is made as soon as it may be:
	SignsFrom     time.Time // when another key signs
	RevokedAt     time.Time // when the last of them is revoked
	NoSignerUntil time.Time // until when there is a time in which no instance signs, or zero
	WorstCase     time.Time // until when an instance that is cut off accepts a token of one of them
	ReadersUntil  time.Time // until when readers of the JWK Set do
}
