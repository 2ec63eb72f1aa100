package rotation

import (
	"time"

	"github.com/keyturn/keyturn/keystore"
)

// An Origin says where a key came from.
type Origin string

// The origins.
const (
	Generated Origin = "generated" // minted by a rotator
	Imported  Origin = "imported"  // brought in by hand
	Legacy    Origin = "legacy"    // a shared secret from before there was a ring
)

// A Record is one key of a ring with its times: immutable, and authenticated as a
// whole by the seal around it. Times are in whole milliseconds, UTC.
type Record struct {
	Tenant string
	KID    string // RFC 7638 thumbprint, or 128 random bits in base64url for HS*
	Seq    int    // 1 for the first of a ring

	Algorithm  keystore.Algorithm
	Created    time.Time
	ActivateAt time.Time // when it is to sign, if nothing comes between
	SignUntil  time.Time // when it stops, if there is no other
	Origin     Origin
	NoKID      bool   // its tokens carry no kid
	Timing     Policy // that it was minted under, complete
}

// A FactKind is one of the facts that there may be about a record.
type FactKind byte

// The kinds, as the letters that formats.md has for them.
const (
	FactRevoked     FactKind = 'x' // it vouches for nothing from then on; the earliest counts
	FactPromoted    FactKind = 'a' // it was made to sign by hand; the earliest counts
	FactForced      FactKind = 'f' // it was made to sign before it was known everywhere; the earliest counts
	FactRepublished FactKind = 'r' // it was merged back, and has to become known anew; the latest counts
	FactAnnounced   FactKind = 'w' // it became known, or was made to sign, or was merged back; the latest counts
)

// kinds are all of them.
var kinds = []FactKind{FactRevoked, FactPromoted, FactForced, FactRepublished, FactAnnounced}

// earliest reports whether of two facts of a kind the earlier one counts.
func (k FactKind) earliest() bool { return k == FactRevoked || k == FactPromoted || k == FactForced }

func (k FactKind) known() bool {
	switch k {
	case FactRevoked, FactPromoted, FactForced, FactRepublished, FactAnnounced:
		return true
	}
	return false
}
