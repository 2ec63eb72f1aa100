// Package protocol decides about one ring: what to change, what to restore, and whether this
// instance may sign. Its functions are pure. They take what is known and the time, and return a
// value. They do no I/O, read no clock, hold no lock and know no sealed bytes, so a model checker can
// call them.
//
//	what the store has --+                    +-- Merge --> what to hold, and what to restore
//	                     +--> Copy, SyncState +
//	what is held here ---+                    +-- Base  --> Create, Rotate, Promote, Revoke ...
//	                                                              |
//	                                        Proposal <------------+
//
// A [Copy] is a ring as one party knows it: the store, or this instance. [Merge] joins two copies,
// and proposes to write back what the store lacks. A [Base] is a copy at one moment; its methods
// decide about a change of it. Both return a [Proposal]: facts to state, keys to mint, records to
// restore or to remove, and the bounds that the store checks by its own clock.
//
// [SyncState] says how far this instance trusts what it reads, and [Copy.Signing] what follows from
// that for signing.
//
// docs/protocol.md explains the rules, and why they hold.
package protocol
