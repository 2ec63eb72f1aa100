package rotation

import "github.com/keyturn/keyturn/rotation/ring"

// What package ring defines, under the names of this package.
type (
	Policy       = ring.Policy
	PolicyError  = ring.PolicyError
	Error        = ring.Error
	RefusedError = ring.RefusedError
	RingError    = ring.UnreadableError
	Record       = ring.Record
	Ring         = ring.Ring
	RingKey      = ring.Key
	State        = ring.State
	Facts        = ring.Facts
	FactKind     = ring.FactKind
	Op           = ring.Op
	Bound        = ring.Bound
)

const (
	FactRevoked     = ring.FactRevoked
	FactPromoted    = ring.FactPromoted
	FactForced      = ring.FactForced
	FactRepublished = ring.FactRepublished

	Pending = ring.Pending
	Signing = ring.Signing
	Retired = ring.Retired
	Dropped = ring.Dropped
	Revoked = ring.Revoked

	OpCreate  = ring.OpCreate
	OpMint    = ring.OpMint
	OpPromote = ring.OpPromote
	OpRotate  = ring.OpRotate
	OpRevoke  = ring.OpRevoke
	OpMerge   = ring.OpMerge
	OpCollect = ring.OpCollect
)

// ErrRefused reports that a change was not made since it would cost tokens, or
// makes no sense. Nothing is wrong with the store. See [RefusedError].
var ErrRefused = ring.ErrRefused
