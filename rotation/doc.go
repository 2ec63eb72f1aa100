// Package rotation signs tokens, and decides how the keys that sign them turn.
//
// A [Signer] puts claims into a signed JSON Web Token, and adds what every token
// must have: kid, iat, exp, jti, iss and aud. [NewStaticSigner] signs with one
// key that its caller holds and changes.
//
// What a ring of keys that turn by themselves is, [View] says as a pure function
// of its [Record]s and [Facts]; a [Policy] times it, and [KEKs] seal it. Nothing
// in this package stores rings yet: see docs/rotation.md.
package rotation
