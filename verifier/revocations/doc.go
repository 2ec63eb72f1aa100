// Package revocations is a revocation list that the instances of a fleet share through Redis: entries
// only grow, so the list is a join-semilattice that every instance holds in memory.
package revocations
