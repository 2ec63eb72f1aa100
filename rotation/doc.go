// Package rotation signs tokens, and turns the keys that sign them.
//
// A tenant's ring is a set of sealed, immutable [Record]s, keys with their times, and
// of [Facts] about them. Both only grow, by a join that does not care for order, and
// [View], a pure function of them and of the time, says who signs, who verifies and
// who is dropped: a scheduled switch needs no live writer and no store, only the
// clock. A [Policy] times it; [KEKs] seal it.
//
// A [Keyring] is one process's copy of the rings in a [Store], such as Redis (package
// rediskeys). It finds keys for a verifier, and stays in step with the store. A
// [Rotator] mints, promotes and revokes. A [Signer] puts claims into a token, signed
// with the key of the ring that signs now, and adds what every token must have: kid,
// iat, exp, jti, iss and aud.
//
//	keys, err := rotation.Open(ctx, store, rotation.Config{KEKs: keks, Tenants: []string{"acme"}})
//	rotator, err := rotation.NewRotator(keys)
//	go rotator.Run(ctx)
//	err = keys.WaitReady(ctx)
//	signer, err := rotation.NewSigner(keys, rotation.SignerConfig{})
//	token, err := signer.Sign(ctx, "acme", map[string]any{"sub": "ann"})
//
// [NewStaticSigner] signs without any of this, with one key that its caller holds and
// changes.
//
// docs/rotation.md in this module says how it works, what it promises, and the limits.
package rotation
