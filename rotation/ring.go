package rotation

import "github.com/keyturn/keyturn/rotation/ring"

// A Policy says how the keys of a ring are timed: see [ring.Policy]. Set Every, MaxTokenTTL and
// Algorithm; the defaults of the other fields follow from them.
type Policy = ring.Policy

// A PolicyError says which field or inequality of a [Policy] does not hold: see [ring.PolicyError].
type PolicyError = ring.PolicyError

// An Error says in parts what failed: Kind to decide by, Text in words, Err the cause. See
// [ring.Error].
type Error = ring.Error

// A RefusedError says why a change was refused, and from when on it would not be: see
// [ring.RefusedError]. It matches [ErrRefused].
type RefusedError = ring.RefusedError

// ErrRefused reports that a change was not made since it would cost tokens, or
// makes no sense. Nothing is wrong with the store. See [RefusedError].
var ErrRefused = ring.ErrRefused
