// Package rotation signs tokens, and rotates the keys that sign them, without downtime.
//
// A [Keyring] is one process's copy of the rings in a [Store], such as Redis (package rediskeys). It
// finds keys for a verifier, and stays in sync with the store. A [Rotator] mints, promotes and
// revokes keys. A [Signer] puts claims into a token, signed with the key of the ring that signs now.
// A [Policy] times the keys, and [KEKs] seal them, so the store never sees a private key.
//
//	keys, err := rotation.Open(ctx, store, rotation.Config{KEKs: keks, Tenants: []string{"acme"}})
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
// A tenant's ring is a set of sealed, immutable records, keys with their times, and of facts about
// them. Package [github.com/keyturn/keyturn/rotation/ring] says, as a pure function of both and of the
// time, who signs and who verifies: a scheduled rotation needs no live writer and no store, only the
// clock. The decisions are pure functions, too (internal/protocol). This package does the I/O: it
// polls the store, opens what it reads (internal/seal), and writes changes.
//
// # For authors of a Store
//
// Store, Change, Code, Result, Place, SyncRequest, SyncReply, Snapshot, Ack, Buckets and BucketOf are
// the contract between a Keyring and its store. A service does not need them. Package rotationtest
// checks an implementation.
//
// docs/rotation.md in this module says what it promises, and the limits.
package rotation
