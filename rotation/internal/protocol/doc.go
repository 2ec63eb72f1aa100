// Package protocol decides about one ring, which is a join-semilattice of records and facts: it
// changes by optimistic compare-and-set, and is repaired by merging. The decisions are how to change
// the ring, what to restore, and whether this instance may sign.
//
//   - A ring is a set of records, and of facts about them. Both only grow, so two copies can always
//     be joined: records by union, facts by their earliest or latest time. An instance and the
//     store that have heard the same have the same ring.
//   - A change is decided on a copy that was just read. The store makes the change only if the ring
//     is still the same. An instance that loses such a race decides again.
//   - A store may lose changes that it has acknowledged. So each instance joins what it holds with
//     what it reads, and writes back what the store lacks.
//
// Both roads lead to a proposal, which is sealed and written elsewhere:
//
//	    the store's ring                    the instance's ring
//	           |                                     |
//	           v                                     v
//	         Copy                                  Copy
//	           |                                     |
//	  +--------+-----------------+   +---------------+
//	  |                          |   |
//	  v                          v   v
//	Base                         Merge ------> Union, Healed: the copy to hold from now on
//	  |  Create, MintDue,          |
//	  |  Rotate, Promote,          |
//	  |  Revoke, Collect ...       |
//	  v                            v
//	Proposal                    Proposal
//	  change the ring             restore what the store lacks
//
// A [Copy] is a ring as one party knows it: the store, or this instance. [Merge] joins two copies.
// A [Base] is the store's copy at one moment, and its methods decide about a change. A [Proposal]
// has facts to state, keys to mint, records to restore or to remove, and the bounds that the store
// checks by its own clock. [SyncState] says how far this instance trusts what it reads, and
// [Copy.Signing] whether it may sign.
//
// All functions are pure. They take records, facts and the time, and return a value. They do no
// I/O, read no clock, hold no lock, change no argument and know no sealed bytes, so a model checker
// can call them: the tests of this package explore histories of plain values.
//
// Two things break the rule that both sets grow, and each has a condition that makes up for it. A
// collection removes records; [Base.Collect] says how they are kept from coming back. A merge may
// forget a promotion; that is only for one that no other instance has acted on.
//
// docs/protocol.md has the rules, the invariants (I1 to I15) and the timelines that the
// comments here refer to.
package protocol
