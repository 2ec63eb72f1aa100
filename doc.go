// Package keyturn is the front page of a library that verifies JSON Web Tokens for multi-tenant
// services and rotates signing keys without downtime. It exports nothing itself:
//
//   - [github.com/keyturn/keyturn/verifier] decides whether a token is good
//   - [github.com/keyturn/keyturn/keystore] holds the keys that it decides with;
//     [github.com/keyturn/keyturn/keystore/jwks] reads them from the JWK Set of an issuer
//   - [github.com/keyturn/keyturn/cache] remembers verified tokens
//   - [github.com/keyturn/keyturn/rotation] rotates the keys of each tenant, finds them for a
//     verifier, and signs tokens with them; [github.com/keyturn/keyturn/rotation/rediskeys] keeps
//     them in Redis
//   - [github.com/keyturn/keyturn/middleware] puts a verifier before an http.Handler, publishes
//     public keys, and puts a live token on an http.Client's requests
//   - cmd/keyturn is the command: serve, keys, sign, verify, inspect
//
// Start with the README and docs/guide.md. docs/README.md is an index by question.
package keyturn
