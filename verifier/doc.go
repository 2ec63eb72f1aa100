// Package verifier decides whether a JSON Web Token is good, and which tenant it
// belongs to.
//
// [New] builds a [Verifier] from the rules of each [Tenant], which has a
// [keystore.KeyStore]. [Verifier.Verify] decides one token, and
// [Verifier.VerifyTenant] decides one that must belong to a tenant known from
// elsewhere, such as the host of the request. [Claims] decodes the claims of a good
// [Token]. Tenants may come and go at run time: one by one with [Verifier.Put] and
// [Verifier.Remove], as a whole list with [Verifier.Sync], or when their first token comes, with
// [Config.Resolve].
//
// Answer 401 to a token whose error is [ErrInvalid], and 503 to [ErrUnavailable],
// which says nothing about the token.
//
// # The rules
//
// The rules apply in this order, and the first one that fails decides the error.
// The order is part of the contract: an expired token with a bad signature has a
// bad signature. There is one exception: if a token has no kid and several keys may have
// signed it, rules 12 to 16 (Check apart) come before rule 11, so that a token which can
// never be good costs no check of a signature.
//
//  1. Size: the token is at most [Config.MaxTokenBytes] long ([ErrTooLarge]).
//  2. Parts: it has three parts of base64url, each in its only spelling
//     ([ErrMalformed]).
//  3. Header: it is one strict JSON object with alg, kid and typ of their types, and
//     without enc ([ErrMalformed]). It has no crit, b64 or zip ([ErrCritical]) and no
//     cty ([ErrType]). Keys in a header are never read.
//  4. Payload: it is one strict JSON object ([ErrMalformed]).
//  5. Serialization: any other form, and an encrypted token, is malformed.
//  6. Tenant: the tenant given to [Verifier.VerifyTenant] (the hint), or else the
//     token's iss, names a configured tenant, compared byte for byte
//     ([ErrUnknownTenant]). With a hint, iss must be that tenant's ([ErrIssuer]).
//     Without one, a verifier of one tenant takes that tenant, and rule 13 judges iss.
//     [Config.Resolve], if it is set, is asked for a tenant that is not held
//     ([ErrUnavailable] if it cannot tell), and no tenant is the only one.
//  7. Suspension: the tenant is not suspended ([ErrSuspended]).
//  8. Algorithm: alg is on the tenant's list ([ErrAlgorithm]). EdDSA and Ed25519 are two
//     names of one algorithm (RFC 9864): a key of one verifies tokens of the other, if the
//     list has the token's name.
//  9. Plausibility: if the store does not hold the key, or is unavailable, and the
//     token would fail one of the rules 12 to 16 (Check apart), it is refused here,
//     with [ErrUnknownKey] and not with that rule's error. The store is not asked to
//     refresh, and does not wake.
//  10. Key: the store has a key of that tenant, kid and algorithm
//     ([ErrUnknownKey]; [ErrRevokedKey] if the store knows that it was revoked, or
//     [ErrUnavailable] if the store cannot tell). If several keys fit, they cost at
//     most [keystore.MaxCandidates] together, and otherwise none is tried.
//  11. Signature: a key verifies it over the bytes received ([ErrSignature]). If none does, and a
//     plausible token has no kid, the store is asked for other keys first ([ErrUnavailable] if
//     it cannot tell).
//  12. Times: exp, nbf, iat and MaxAge ([ErrMissingClaim], [ErrClaim],
//     [ErrExpired], [ErrNotYetValid], [ErrTooOld]).
//  13. Registered claims: iss, aud, then Match and MatchHeader, then sub and jti
//     ([ErrIssuer], [ErrAudience], [ErrClaim]).
//  14. Spelling: no claim's name differs only by case from a registered one, from
//     scope or scp, or from one that TenantClaim, Required or Match names, in the objects
//     that Match reaches into as well ([ErrClaim]).
//  15. Type: typ is on the tenant's list ([ErrType]).
//  16. The tenant's own rules: TenantClaim, Required, then Check
//     ([ErrTenantMismatch], [ErrMissingClaim], [ErrClaim]).
//  17. Revocation: the token is not revoked ([ErrRevoked]).
//
// # Tolerances
//
// Some issuers depart from the standards, in every token. [Tenant.Tolerate] lets in what
// such an issuer is known for, by name and for that tenant alone: see [Tolerance]. It
// changes rules 2, 3, 12 and 13 as each [Tolerance] says, and no other. A token that needs a
// tolerance is cached like any other. The error of a token that a tolerance would let in
// names the tolerance, and [Needs] lists every one that the token needs.
//
// # Cost
//
// The verifier caches good tokens, for [Config.CacheTTL] at most. A cached token
// costs about as much as a map look-up. Each hit checks the time, the key, the
// tenant's rules and the revocations again. If any of them has changed, the full
// check decides. So a cached token gets the same verdict as an uncached one. Bad
// tokens are never cached.
//
// Verifying does no I/O and does not wait, with two exceptions. A plausible token
// names a key that the store does not hold, or has no kid and is of no key that the
// store holds, and the store can ask its source for it: see [keystore.Refresher]. Or it
// names a tenant that is not held, or is asked for again: see [Config.Resolve]. After
// the wait the clock is read again, and if the tenant was changed meanwhile, its present
// rules decide from the start.
//
// # Specifications
//
// The package implements the verifying side of RFC 7519 and RFC 7515 (compact
// serialization) and the advice of RFC 8725.
package verifier
