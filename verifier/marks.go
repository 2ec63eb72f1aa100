package verifier

import "time"

// A Marker is a [Revocations] that prepares a token once, when the verifier checks it in full. The
// verifier keeps the Marks with the cached token, and asks RevokedMarks at each hit in place of
// Revoked. So a hit reads no claim and computes no hash.
//
// Both ways must agree: RevokedMarks reports what Revoked would, or an error. So a type that embeds a
// Marker, and has a Revoked of its own, needs a RevokedMarks of its own too.
type Marker interface {
	Revocations

	// Marks returns the marks of t. They depend on the token alone, and on the digest keys
	// of the generation that they name: never on the revocations, or on the time.
	Marks(t *Token) Marks

	// RevokedMarks reports whether the token that m was made of is revoked. now is the time
	// by which the verifier judges the token. RevokedMarks may rely on it to tell whether
	// what it knows is too old, and then has no clock of its own to read.
	//
	// It returns an error if it cannot tell, and also if m is of another generation than
	// the digest keys are now. On an error the verifier checks the token in full: it makes
	// new marks, and if they give an error too, it asks Revoked.
	//
	// RevokedMarks must answer from memory and be safe for concurrent use. It must not
	// change m, or keep it.
	RevokedMarks(m *Marks, now time.Time) (bool, error)
}

// Marks are what a [Marker] has to know of a token to tell whether it is revoked. Only the Marker
// that made them reads them.
type Marks struct {
	// Generation is of the Marker's digest keys. In the first of several Marks it counts
	// for all.
	Generation uint64

	// IssuedAt is [Token.IssuedAt] in seconds since 1970, rounded down, or [math.MinInt64]
	// if it is missing.
	IssuedAt int64

	// Digests are those of [Token.ID], [Token.SessionID], [Token.Subject] and
	// [Token.Tenant], in this order. They are zero for a claim that is missing.
	Digests [4][16]byte

	// Next has the digests under the next digest key, or is nil. With a single key, which
	// is the rule, all marks of a token lie beside it in memory.
	Next *Marks

	token *Token // for a RevocationList, which looks names up
}

// marksBytes is the size of a Marks in bytes.
const marksBytes = 96

// A markedEntry is an entry of the cache with its marks, in one piece of memory. A verifier
// without Marker has no use for their bytes.
type markedEntry struct {
	entry
	marks Marks
}

// allocate returns an empty entry.
func (v *Verifier) allocate() *entry {
	if v.marker == nil {
		return new(entry)
	}
	e := new(markedEntry)
	e.Value.marks = &e.marks
	return &e.entry
}

// size returns the memory of v in bytes.
func (v *verified) size() int {
	n := verifiedBytes + len(v.payload)
	for m := v.marks; m != nil; m = m.Next {
		n += marksBytes
	}
	return n
}

// hitIsRevoked reports whether the token of a hit was revoked, or the revocations cannot tell. In
// both cases the full check asks again, and names the reason.
func (v *Verifier) hitIsRevoked(hit *verified, now time.Time) bool {
	var revoked bool
	var err error
	switch {
	case v.revocations == nil:
		return false
	case v.marker != nil:
		revoked, err = v.marker.RevokedMarks(hit.marks, now)
	default:
		revoked, err = v.revocations.Revoked(&hit.cached)
	}
	return revoked || err != nil
}

// checkRevoked asks the revocations, the last rule. It makes the marks that the cache keeps with the
// token.
func (v *Verifier) checkRevoked(e *entry, now time.Time) *Error {
	if v.revocations == nil {
		return nil
	}
	revoked, err := v.isRevoked(&e.Value, now)
	switch {
	case err != nil:
		return cannotTell(err)
	case revoked:
		return refuse(ErrRevoked)
	}
	return nil
}

func (v *Verifier) isRevoked(fresh *verified, now time.Time) (bool, error) {
	t := &fresh.fresh
	if v.marker != nil {
		*fresh.marks = v.marker.Marks(t)
		fresh.marks.token = t
		if revoked, err := v.marker.RevokedMarks(fresh.marks, now); err == nil {
			return revoked, nil
		}
		// The generation may have changed just now. The next hit finds that, and is a miss.
	}
	return v.revocations.Revoked(t)
}
