package rotation

import "github.com/keyturn/keyturn/rotation/ring"

// A Policy times the keys of a ring: it is [ring.Policy], which documents the fields, their
// defaults and the inequalities between them. Most services set Every, MaxTokenTTL and Algorithm.
// Zero fields take their defaults; [ring.Policy.Validate] checks the result.
type Policy = ring.Policy

// A PolicyError says which field or inequality of a [Policy] does not hold, with both sides: it is
// [ring.PolicyError], which documents the fields.
type PolicyError = ring.PolicyError

// An Error is an error of this package in parts: the Kind to decide by, the Text, and the cause. It
// is [ring.Error], which documents the fields.
type Error = ring.Error

// A RefusedError says why a change or a token was refused, and from when on the change would be
// made: it is [ring.RefusedError], which documents the fields. It matches [ErrRefused].
type RefusedError = ring.RefusedError

// ErrRefused reports that a change was not made, or a token not signed, because it would cost
// tokens or make no sense. The store is sound, and trying again helps only if [RefusedError].From
// says when.
var ErrRefused = ring.ErrRefused
