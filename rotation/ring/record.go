package ring

import (
	"time"

	"github.com/keyturn/keyturn/keystore"
)

// MaxTenantBytes is the longest name of a tenant, in bytes.
const MaxTenantBytes = 256

// An Origin says where a key came from.
type Origin string

// The origins.
const (
	Generated Origin = "generated" // minted by a rotator
	Imported  Origin = "imported"  // brought in by hand
	Legacy    Origin = "legacy"    // a shared secret that is older than the ring
)

// A Record is one key of a ring with its times: immutable, and authenticated as a
// whole by the seal around it. Times are in whole milliseconds, UTC.
type Record struct {
	Tenant string
	KID    string // RFC 7638 thumbprint, or 128 random bits in base64url for HS*
	Seq    int    // 1 for the first of a ring

	Algorithm  keystore.Algorithm
	Created    time.Time
	ActivateAt time.Time // when it is scheduled to sign
	SignUntil  time.Time // when it stops, if no other key has taken effect
	Origin     Origin
	NoKID      bool   // its tokens carry no kid
	Timing     Policy // the policy that it was minted under, complete
}

// TokenID returns the ID by which tokens of the record name their key. It has no kid if NoKID.
func (r *Record) TokenID() keystore.ID {
	if r.NoKID {
		return keystore.ID{Tenant: r.Tenant}
	}
	return keystore.ID{Tenant: r.Tenant, KID: r.KID}
}

// A FactKind is a kind of event in the life of a record, or of a ring.
type FactKind byte

// The kinds of facts about a record, as the letters that docs/formats.md has for them.
const (
	FactRevoked     FactKind = 'x' // it verifies nothing from then on; the earliest counts
	FactPromoted    FactKind = 'a' // it was made to sign by hand; the earliest counts
	FactForced      FactKind = 'f' // it was made to sign before it was known everywhere; the earliest counts
	FactRepublished FactKind = 'r' // it was restored, and has to become known again; the latest counts
	FactAnnounced   FactKind = 'w' // it was published, made to sign, or restored; the latest counts
)

// FactKinds returns the kinds of facts about a record.
func FactKinds() []FactKind {
	return []FactKind{FactRevoked, FactPromoted, FactForced, FactRepublished, FactAnnounced}
}

// earliest reports whether of two facts of a kind the earlier one counts.
func (k FactKind) earliest() bool { return k == FactRevoked || k == FactPromoted || k == FactForced }

// Known reports whether k is a kind of fact about a record.
func (k FactKind) Known() bool {
	switch k {
	case FactRevoked, FactPromoted, FactForced, FactRepublished, FactAnnounced:
		return true
	}
	return false
}

// The kinds of facts about a whole ring. They have no kid, and are fields of [Facts].
const (
	FactDestroyed FactKind = 'd' // Facts.Dead
	FactCollected FactKind = 'g' // Facts.CollectedUntil
)

// An Op names a change in the store's log.
type Op string

// The ops.
const (
	OpCreate  Op = "create"
	OpMint    Op = "mint"
	OpPromote Op = "promote"
	OpRotate  Op = "rotate" // promote and mint
	OpRevoke  Op = "revoke"
	OpMerge   Op = "merge"
	OpCollect Op = "collect"
)

// A Bound is a condition of a change: by the store's clock, the time At must be between From and
// To from now, both included. Negative durations are in the past.
type Bound struct {
	At       time.Time
	From, To time.Duration
}
