package ring

import (
	"time"

	"github.com/keyturn/keyturn/keystore"
)

// MaxTenantBytes is the longest name of a tenant, in bytes of UTF-8.
const MaxTenantBytes = 256

// An Origin says where a key came from.
type Origin string

// The origins of a key.
const (
	Generated Origin = "generated" // minted by a rotator
	Imported  Origin = "imported"  // brought in by hand
	Legacy    Origin = "legacy"    // a shared secret that existed before the ring
)

// A Record is one key of a ring with its schedule, without the key material. It never changes: what
// happens to the key later is in [Facts]. The seal around it authenticates all of it. Times are in
// whole milliseconds, UTC.
type Record struct {
	Tenant string // whose key it is
	KID    string // RFC 7638 thumbprint, or 128 random bits in base64url for HS*
	Seq    int    // its number in the ring, from 1

	Algorithm  keystore.Algorithm // what it signs with
	Created    time.Time          // when it was minted, by the store's clock; unique in its ring
	ActivateAt time.Time          // when it is scheduled to sign
	SignUntil  time.Time          // when it stops, if no other key has taken effect
	Origin     Origin
	NoKID      bool   // its tokens carry no kid
	Hold       bool   // it signs until an operator rotates: its successor has no date
	Waits      bool   // it was minted behind a key with Hold, and takes effect only once it is promoted
	Life       int    // how many lives of the ring had ended when it was minted: 0 before the first shred
	Timing     Policy // the policy that it was minted under, with no field left to its default

	// Longest is the longest life of its tokens if other programs have made them under another
	// limit than Timing.MaxTokenTTL, else 0: see [Record.TokenTTL].
	Longest time.Duration
}

// TokenTTL returns the longest life of a token of the record: Longest, or MaxTokenTTL of its policy if
// that is 0. An imported key may have tokens that live longer than those of its successors.
func (r *Record) TokenTTL() time.Duration {
	if r.Longest > 0 {
		return r.Longest
	}
	return r.Timing.MaxTokenTTL
}

// TokenID returns the ID by which tokens of the record name their key. Its KID is empty if NoKID.
func (r *Record) TokenID() keystore.ID {
	if r.NoKID {
		return keystore.ID{Tenant: r.Tenant}
	}
	return keystore.ID{Tenant: r.Tenant, KID: r.KID}
}
