// Package rotation signs tokens. A [Signer] puts claims into a signed JSON Web
// Token, and adds what every token must have: kid, iat, exp, jti, iss and aud.
//
// [NewStaticSigner] signs with one key that its caller holds and changes.
package rotation
