// Package rotation signs tokens, and rotates the keys that sign them, without downtime.
//
// A service needs these, in this order:
//
//   - [KEKs] are the secrets that its instances share and the store does not have. [ParseKEKs] reads
//     them.
//   - A [Store] is the place that all instances read and write, such as Redis: package rediskeys.
//   - [Open], with a [Config], returns a [Keyring]: this process's copy of the rings. It is the Keys of
//     a verifier's tenants, and stays in sync with the store by itself.
//   - A [Rotator] creates a tenant's ring, once, with a [Policy]. Its Run mints keys when they are due.
//     An operator rotates, promotes and revokes through it.
//   - A [Signer], with a [SignerConfig], puts claims into a token, and signs it with the key of the ring
//     that signs now.
//
// In short, without the handling of errors (the package's example has it):
//
//	keys, err := rotation.Open(ctx, store, rotation.Config{KEKs: keks, Tenants: []string{"acme"}})
//	defer keys.Close(ctx)
//	rotator, err := rotation.NewRotator(keys)
//	go rotator.Run(ctx)
//	err = keys.WaitReady(ctx)
//	signer, err := rotation.NewSigner(keys, rotation.SignerConfig{})
//	token, err := signer.Sign(ctx, "acme", map[string]any{"sub": "ann"})
//
// [NewStaticSigner] signs with one key that its caller holds, without a ring.
//
// # How it works
//
//	          poll, nudge, unknown kid
//	                     |
//	store --- read ---> open ---> merge ---> Keyring's copy ---> Lookup, Sign
//	  ^                             |              |
//	  +------ write back what the store lacks      +---> Rotator decides ---> write
//
// A tenant's ring is a set of sealed, immutable records, which are keys with their times, and of facts
// about them, such as a revocation. Package [github.com/keyturn/keyturn/rotation/ring] computes from
// both, and the time, which key signs and which keys verify. That is a pure function. So a scheduled
// rotation needs only the clock: no store, and no instance that writes.
//
// The decisions about changes are pure functions too (internal/protocol). This package does the I/O:
// it polls the store, opens what it reads (internal/seal), and writes changes. It never does I/O to
// verify or sign. Only an unknown kid may ask the store, within bounds: see [Keyring.Refresh].
//
// # Errors
//
// Decide by errors.Is. [keystore.ErrUnavailable], [ErrFenced] and [ErrNoSigner] mean that this instance
// cannot tell, or must not sign, for now: answer 503. [keystore.ErrNotFound] means that there is no
// such tenant, ring or key. [ErrRefused] means that a change would cost tokens. [ErrWrongKEK],
// [ErrTampered], [ErrNewer] and [ErrMalformed] say why the store's data cannot be opened. No error holds
// a secret or a claim's value.
//
// # For authors of a Store
//
// Package store has the contract between a Keyring and its store. A service does not need it.
// Package rotationtest checks an implementation.
//
// docs/rotation.md in this module says what the package promises, and its limits. docs/protocol.md has
// the rules, the invariants (I1 to I15) and the timelines that comments refer to by letters.
package rotation
