// Package rules has the decisions of a revocation list, as pure functions of their arguments: when
// entries end, which of them a tenant's revocation replaces, how far an instance trusts what it has
// read of a store, and what an acknowledgement proves.
//
//	       first read, nothing vouches          2W later, undisputed
//	new ------------------------------> in doubt --------------------> in sync
//	 |                                     ^                              |
//	 '-- first read, vouched: in sync      '---- place lost, other run ---'
//
// One that starts waits on while what live instances hold is hidden, too.
package rules
