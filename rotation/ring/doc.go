// Package ring says which key of a tenant signs and which keys verify, at any moment.
//
// A ring is the keys of one tenant. Every instance of a service has a copy of it, and all must come
// to the same answer without asking each other. So the answer is a pure function:
//
//	records, facts, now  --View-->  which key signs, which keys verify, which are dropped
//
// What a program needs, in this order:
//
//   - [Policy] times a ring. Most services set Every, MaxTokenTTL and Algorithm and leave the rest
//     to its defaults. [Policy.Validate] checks the inequalities that the guarantees rest on.
//   - [View] returns the [Ring] at one moment: each [Key] with its [State].
//   - [Record] and [Facts] are the arguments of View: keys with their schedules, and what happened
//     to them later.
//   - [Plan] is a View for all moments, for a program that asks often. [Op] and [Bound] are parts
//     of a change, for a program that is a store.
//
// # The life of a key
//
//	Created     ActivatesAt           RetiresAt               DroppedAt
//	   |------------>|-------------------->|----------------------->|--------> time
//	      Pending           Signing                Retired              Dropped
//	      verifies     signs and verifies   verifies what it signed     nothing
//
// ActivatesAt is the time in the key's schedule, or earlier if the key was promoted. RetiresAt is
// the ActivatesAt of the next key. DroppedAt is when the last token has expired that any instance
// may have signed with the key. So a scheduled rotation needs only the clock: no instance writes
// anything at that moment, and none needs the store. A revoked key does nothing from then on.
//
// # Records and facts only grow
//
// A record never changes, and facts are only added. The order in which a copy learns of them does
// not matter. [Facts.Join] keeps every fact of two copies. If both have a time for the same fact,
// the earlier or the later one counts, always the same by the kind of the fact. To join twice, in
// another order or in other groups gives the same result. (Facts are a join-semilattice, and the
// copies a state-based CRDT.) So copies that have diverged become equal once each has received the
// other, even if messages are lost or repeated.
//
// Nothing here does I/O, reads a clock or holds key material. All functions are safe for concurrent
// use on values that no goroutine changes. docs/rotation.md shows how the parts work together, and
// docs/protocol.md has the rules.
package ring
