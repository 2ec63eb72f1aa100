package rotation

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
)

// An Imported is a key that signs tokens today, for [Rotator.Adopt].
type Imported struct {
	KID   string // that the tokens carry; the key's thumbprint (RFC 7638) if it is "" and NoKID is not set
	NoKID bool   // the tokens carry no kid

	Algorithm keystore.Algorithm
	Key       any           // a []byte for HS*, else a [crypto.Signer] that is a key of package crypto
	Longest   time.Duration // the longest life of its tokens: 1s to 400 days
}

// AdoptOptions say when the second key of a ring takes over. With neither field it does after Every of
// the policy.
type AdoptOptions struct {
	RotateAt time.Time // on this date; the policy's Propagation and 2 ClockSkew from now at least
	Hold     bool      // when [Rotator.Rotate] says so, and not before
}

// Adopt makes the first ring of a tenant with a key that signs its tokens already, so that no user
// is logged out. That key signs at once, and other programs may go on signing with it until the second
// key takes over. The second one is minted under policy, which may be of another algorithm. SignsFrom
// of the Receipt is when it takes over, and TokensUntil when the last token of the first key ends;
// both are zero with Hold.
//
// It is refused as [Rotator.Create] is, and if a live instance does not list the algorithm of the
// policy in its [Config.Verifies]; [Force] overrides the latter, and [Again] that a ring was destroyed. A secret must be as long as the hash
// of its algorithm. Without a kid, tokens are told by that alone: the ring offers this key for them,
// until it ends.
func (r *Rotator) Adopt(ctx context.Context, tenant string, key Imported, policy ring.Policy, opts AdoptOptions, options ...Option) (Receipt, error) {
	adopted := protocol.Adopted{KID: key.KID, NoKID: key.NoKID, Algorithm: key.Algorithm, Longest: key.Longest, RotateAt: opts.RotateAt, Hold: opts.Hold}
	if err := adopted.Check(); err != nil {
		return Receipt{}, err
	}
	material, err := seal.ImportMaterial(key.Algorithm, key.Key, key.KID)
	if err != nil {
		return Receipt{}, err
	}
	o := optionsOf(options)
	adopted.KID, adopted.Again = material.KID, o.again
	return r.found(ctx, tenant, policy, o, func(b *base, policy ring.Policy) (*protocol.Proposal, error) {
		b.minted.Import(material)
		return b.Adopt(adopted, policy)
	})
}
