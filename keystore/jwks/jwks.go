// Package jwks reads verification keys from JWK Sets (RFC 7517): from a document, from a URL, and
// from an OpenID Connect issuer. It is a state machine for each URL, one bounded queue of fetches
// for all of them, and a budget for kids that are not known.
//
// # Documents
//
// [Parse] is for sets that others can read. [ParseWithSecrets] is for a file that you trust, which
// may hold shared secrets too. Both judge each JWK by itself: one that cannot serve is reported as
// [Skipped] and never fails the set. Their keys can be given to [keystore.NewStatic] as they are.
// Numbers are read in any spelling that stands for one number. [Inspect] reports those that other
// readers may refuse.
//
// # URLs and issuers
//
// A [Client] keeps any number of [Source]s in sync with their issuers. [Client.Open] takes the URL
// of a set, and [Client.Discover] an issuer. A Source is the key store of one tenant. Sources that
// name the same URL share its fetches, and each has its own keys. [Client.OpenPEM] is for issuers
// that publish their keys one by one.
//
//	Lookup ---> keys in memory, state      never waits
//	              ^
//	              | a good answer replaces the whole set
//	              |
//	fetch  ---> the issuer                 one at a time for each URL
//	  ^
//	  |
//	queue       64 fetches at once, 32 per host, tenants take turns, sources in use first
//	  ^  ^
//	  |  +---- schedule                    at 4/5 of the TTL, with backoff after a failure
//	  +------- Refresh, for an unknown kid, a token without kid, or a source that sleeps, within two
//	           budgets: 3 at once and then 1 every 10 s for each URL; Config.OnDemand for all together
//
// # What a Source answers
//
//	state    since                                 a known kid   an unknown kid
//	Cold     Open                                  unavailable   unavailable
//	Fresh    a good answer                         its key       not found, or unavailable if the last attempt failed
//	Aging    4/5 of its TTL: being refreshed       its key       as fresh
//	Stale    its TTL is over, no refresh went well its key       unavailable
//	Expired  4 hours without a good answer         unavailable   unavailable
//
// A token without kid that none of the keys verifies is treated as one with an unknown kid. All such
// tokens of a source together count as one kid.
//
// "Unavailable" wraps [keystore.ErrUnavailable] (HTTP 503) and says in an [*Error] which step
// failed. "Not found" wraps [keystore.ErrNotFound] (401). The TTL is the max-age of the answer, at
// least a minute and at most an hour, or ten minutes if the answer does not say. An answer that is
// not a JWK Set, or has no key that serves, counts as a failed attempt: the old keys stay.
//
// The table is for tokens that are otherwise good. The verifier refuses a token with wrong
// claims or a wrong type whatever its key. If the source does not answer with that key, in any
// state, the verifier starts no fetch for it and reports an unknown key (401).
//
// A key that a new set lacks is withdrawn at once. Tokens that it vouched for end with it, cached
// ones included. A key that stays keeps its pointer.
//
// # Use and sleep
//
// A source is in use while a token of its keys was verified in the last ten minutes, or within its
// TTL if that is longer: the verifier calls [Source.NoteUse] for each. Nothing that a stranger can
// send makes a source in use. Its fetches have first choice, a quarter of the places and half of the
// budget for themselves, so that forged tokens do not delay them.
//
// A source that is not in use goes to sleep. Then it costs no fetch, no goroutine and no timer.
// Within its TTL it answers as before, and a verified token wakes it. Past the TTL it answers
// nothing: Refresh has it ask its issuer, and it answers when that fetch has ended, or 1.75 s
// after it began.
//
// A source stays awake if its last attempt failed, or if it never had an answer. So its state, and
// a readiness check that depends on it, recovers without a token.
//
// # Bounds
//
// docs/jwks.md has all bounds with their reasons, and the effect of each fault of an issuer.
package jwks
