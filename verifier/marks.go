package verifier

import (
	"sync/atomic"
	"time"
)

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
	// copy m, keep it, or change it except by [Marks.NoteClean].
	RevokedMarks(m *Marks, now time.Time) (bool, error)
}

// Marks are what a [Marker] has to know of a token to tell whether it is revoked. Only the Marker
// that made them reads them.
type Marks struct {
	// Digests are those of [Token.ID], [Token.SessionID], [Token.Subject] and
	// [Token.Tenant], in this order. They are zero for a claim that is missing.
	Digests [4][16]byte

	// IssuedAt is [Token.IssuedAt] in seconds since 1970, rounded down, or [math.MinInt64]
	// if it is missing.
	IssuedAt int64

	// Next has the digests under the next digest key, or is nil. With a single key, which
	// is the rule, all marks of a token lie beside it in memory.
	Next *Marks

	token *Token // for a RevocationList, which looks names up

	// Generation is of the Marker's digest keys. In the first of several Marks it counts
	// for all.
	Generation uint64

	clean uintptr // see NoteClean; read and written as package atomic does
}

// NoteClean notes that the token was not revoked at a version of the Marker's revocations, which is
// not 0. The Marker must give them another version after it has learned anything by which a token may
// be revoked, and before it says so. It must read the version before it looks at the revocations: one
// that is learned meanwhile then has a later version than the note. The Marker calls it for the first of
// several Marks. It is safe for concurrent use.
func (m *Marks) NoteClean(version uintptr) {
	if atomic.LoadUintptr(&m.clean) != version { // processors share what no one writes
		atomic.StoreUintptr(&m.clean, version)
	}
}

// CleanAt reports whether the last note is of that version: then the token is not revoked, and there is
// nothing to look up.
func (m *Marks) CleanAt(version uintptr) bool {
	return atomic.LoadUintptr(&m.clean) == version && version != 0
}

// marksBytes is the size of a Marks in bytes.
const marksBytes = 104

// A markedEntry is an entry of the cache with its marks, in one piece of memory. A verifier
// without Marker has no use for their bytes.
//
// A hit on a token that CleanAt says is not revoked reads the end of the marks and the start of the
// entry: two lines of the processor's cache, as for an entry without marks.
type markedEntry struct {
	marks Marks
	entry
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
		fresh.marks.token, fresh.marks.clean = t, 0 // a note in them would be of another token
		if revoked, err := v.marker.RevokedMarks(fresh.marks, now); err == nil {
			return revoked, nil
		}
		// The generation may have changed just now. The next hit finds that, and is a miss.
	}
	return v.revocations.Revoked(t)
}
