// Package revocations is a revocation list that the instances of a fleet share through Redis: entries only
// grow, so copies of the list are joined (a join-semilattice), and every instance holds all of it in memory.
//
//	list, err := revocations.Open(ctx, client, revocations.Config{KEKs: keks})
//	v, err := verifier.New(verifier.Config{Tenants: tenants, Revocations: list})
//	...
//	receipt, err := list.RevokeSubject(ctx, "acme", "ann", now) // this instance refuses from here on
//	applied, err := list.Watch(ctx, receipt)                    // and now all others do
//
// What happens to a revocation:
//
//	List.RevokeSubject             Redis                            the other instances
//	  |  digest of (kind, tenant,    |                                 |
//	  |  name) under a digest key    |                                 |
//	  |----- entry and log entry --->| group e3f2: digest -> before,   |
//	  |      in one script           |   end, MAC                      |
//	  |                              |---- nudge (pub/sub) ----------->| reads the log after its place,
//	  |                              |     or the next poll            | puts the entry into its table,
//	  |                              |<--- acknowledgement ------------| and refuses from here on
//	List.Watch <---------------------|                                 |
//
// # Fail closed
//
// A list that cannot tell says so, and the verifier answers [verifier.ErrUnavailable] (HTTP 503): before its
// first complete read, until it can know that the store has lost nothing, and MaxStale after its last sync
// (60s by default). So a service with this list depends on Redis, with that budget. Config.StaleOK waives it.
//
// An instance refuses a revoked token within a second of the revocation's return while nudges reach it, within
// a poll (2.9s at most) without them, and in any case MaxStale later: it has heard of it by then, or it
// answers nothing. A failover of Redis may lose a revocation that was committed. Its writer and everyone
// who has heard of it put it back, within two polls.
//
// # What the store knows
//
// Entries are HMAC-SHA-256 digests under random digest keys, so Redis has no subject, session, jti or tenant.
// With Config.KEKs the digest keys are sealed, and every entry, log entry and acknowledgement is
// authenticated: a person who can write to Redis can remove revocations only where no instance runs that
// holds them, and can add none. Without KEKs a reader of Redis can test guesses, and a writer can forge.
//
// There is no undo: an entry grows, and ends by itself when its last token has expired.
package revocations
