// Package jwks reads verification keys from JWK Sets (RFC 7517): from a document
// at hand, from a URL, and from an OpenID Connect issuer.
//
// [Parse] is for sets that anyone may read; [ParseWithSecrets] is for a file
// that you trust, which may hold shared secrets too. Both judge each JWK by
// itself: one that cannot serve is reported as [Skipped] and never fails the
// set. What they return can be handed to [keystore.NewStatic] as it is.
//
// A [Client] keeps any number of [Source]s in step with their issuers:
// [Client.Open] takes the URL of a set, [Client.Discover] an issuer. A Source is
// the keystore of one tenant. Its Lookup is memory and never waits; its Refresh
// asks the issuer for a kid that is not known, within a budget.
//
// # What a Source answers
//
//	state    since                                 a known kid   an unknown kid
//	Cold     Open                                  unavailable   unavailable
//	Fresh    a good answer                         its key       not found
//	Aging    4/5 of its TTL: being refreshed       its key       not found, or unavailable if the last attempt failed
//	Stale    its TTL is over, no refresh went well its key       unavailable
//	Expired  4 hours without a good answer         unavailable   unavailable
//
// "Unavailable" wraps [keystore.ErrUnavailable] (HTTP 503) and says in an [*Error]
// which step failed; "not found" wraps [keystore.ErrNotFound] (401). The TTL is the
// answer's max-age, at least a minute and at most an hour, or ten minutes if it
// does not say. An answer that is no JWK Set, or has no key that serves, is a failed
// attempt: the old keys stay.
//
// A key that a new set lacks is withdrawn at once, and the tokens that it vouched
// for, cached ones included, end with it; a key that stays keeps its pointer.
//
// A source that nobody asks for ten minutes, or for its TTL if that is longer, goes
// to sleep: it costs no fetch, no goroutine and no timer. Its keys then end for
// tokens that were verified earlier, so that the next one asks and wakes it; within
// the TTL that costs nothing, past it nothing is answered until a fetch has ended,
// or for two seconds. One whose last attempt failed, or that has never had an
// answer, stays awake, so that its state, and whatever readiness is made of it,
// comes back by itself.
//
// # Bounds
//
// docs/jwks.md has all of them, with their reasons, and what each fault of an
// issuer leads to.
package jwks
