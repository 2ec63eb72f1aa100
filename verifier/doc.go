// Package verifier decides whether a JSON Web Token is good, and whose it is.
//
// [New] builds a [Verifier] from the rules of its [Tenant]s, each of which has a
// [keystore.KeyStore]; [Verifier.Verify] decides one token, and
// [Verifier.VerifyTenant] one that must be of a tenant known beforehand. Tenants
// come and go at run time.
//
// # The rules
//
// They apply in this order, and the first that fails decides the error. The
// order is part of the contract: an expired token with a bad signature has a bad
// signature.
//
//  1. At most [Config.MaxTokenBytes] long ([ErrTooLarge]).
//  2. Three parts of base64url, in their only spelling ([ErrMalformed]).
//  3. The header one strict JSON object with alg, kid and typ of their types;
//     no crit, b64 or zip ([ErrCritical]), no cty ([ErrType]). Keys that a
//     header brings along are never read.
//  4. The payload one strict JSON object ([ErrMalformed]).
//  5. No other serialization, no encryption.
//  6. The tenant: by the hint, or by iss, compared byte for byte
//     ([ErrUnknownTenant], [ErrIssuer]).
//  7. The tenant is not suspended ([ErrSuspended]).
//  8. alg is on the tenant's list ([ErrAlgorithm]).
//  9. Only a token that passes 12 to 16 makes the store ask for an unknown key.
//  10. A key of that tenant, kid and algorithm ([ErrUnknownKey], or
//     [ErrUnavailable] if the store cannot tell).
//  11. The signature, over the bytes received ([ErrSignature]).
//  12. exp, nbf, iat and MaxAge ([ErrMissingClaim], [ErrClaim], [ErrExpired],
//     [ErrNotYetValid], [ErrTooOld]).
//  13. iss, aud, sub and jti ([ErrIssuer], [ErrAudience], [ErrClaim]).
//  14. No claim whose name differs from a registered one by case ([ErrClaim]).
//  15. typ is on the tenant's list ([ErrType]).
//  16. The tenant's own: TenantClaim, Required, Check ([ErrTenantMismatch],
//     [ErrMissingClaim], [ErrClaim]).
//  17. Not revoked ([ErrRevoked]).
//
// Every one of these errors is [ErrInvalid] but [ErrUnavailable], which says
// nothing about the token: answer 401 to the former and 503 to the latter.
//
// # Cost
//
// A token that was found good is remembered, for [Config.CacheTTL] at most, and
// costs about as much as a map look-up when it comes again. Then the time, the
// key, the tenant's rules and the revocations are looked at again: if anything
// has changed, that is no verdict, and the full check decides. A cached token
// gets the verdict that an uncached one gets. Refusals are never remembered.
//
// Verifying does no I/O, and waits for nothing, but where a token that is
// otherwise plausible names a key that the store does not hold, and the store
// can ask for it: see [keystore.Refresher].
//
// # Specifications
//
// The package implements the verifying side of RFC 7519 and RFC 7515 (compact
// serialization) and the advice of RFC 8725.
package verifier
