// Package keyturn is the front page of a library that services embed to verify
// JSON Web Tokens for many tenants, and to turn their signing keys without
// anyone noticing. It exports nothing itself:
//
//   - [github.com/keyturn/keyturn/verifier] decides whether a token is good
//   - [github.com/keyturn/keyturn/keystore] holds the keys it decides with;
//     [github.com/keyturn/keyturn/keystore/jwks] reads them from a JWK Set
//   - [github.com/keyturn/keyturn/cache] remembers verified tokens for it
//   - [github.com/keyturn/keyturn/rotation] signs tokens
//   - [github.com/keyturn/keyturn/middleware] puts the verifier before an
//     http.Handler, and a live token on an http.Client's requests
//   - cmd/keyturn is the command: serve, sign, verify, inspect
//
// Start with the README and docs/guide.md.
package keyturn
