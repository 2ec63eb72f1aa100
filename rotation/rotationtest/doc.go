// Package rotationtest is a contract test for implementations of [rotation.Store], and a store in
// memory whose servers and connections fail on command.
//
// [TestStore] checks a store against the contract of [rotation.Store], sentence by sentence. Run it
// on every new implementation. [TestReplica] checks that a store refuses a server that may be behind
// another, if there can be one.
//
// A [Cluster] is a simulated Redis with a primary, replicas that lag, and a clock. A [Conn] is one
// instance's connection to it, and a [rotation.Store]:
//
//	instance a -- Conn, Faults --+
//	                             |             Failover, Wipe, Restore, Split, EditRing, Advance
//	instance b -- Conn, Faults --+-- primary
//	                             |             an undo list: it can make a replica that lags
//	instance c -- Conn, Faults --+             by any duration
//
// Its time is that of [time.Now]. In a bubble of testing/synctest an hour of faults therefore takes
// milliseconds, and the same seed gives the same run.
//
// # The simulator
//
// The tests of this package use the Cluster to test the protocol itself. TestHistories does that
// for thousands of seeds:
//
//	seed --> simulator --> history --> checker --> violations
//
// The simulator opens real keyrings, rotators and signers on one Cluster. From the seed it draws
// what happens: instances start and stop, sign and verify, operators rotate, promote and revoke,
// and faults begin and end (partitions, failovers, splits, old dumps, edited rings, wrong clocks).
// Then all faults end, and the instances get the time to recover.
//
// A history is the list of everything that happened, in true time: each token, each verdict on a
// token, each change that a server committed, each loss of the store, and audits, which compare
// what an instance holds with what the store has.
//
// The checker is a pure function of a history. It has one rule for each invariant of
// docs/protocol.md:
//
//	I1   no false reject: an unexpired token of an unrevoked key verifies on every instance in sync
//	I2   no instance in sync lacks a key that signs
//	I3   a revocation takes effect within one poll of the store, and within a bound without it
//	I4   an instance verifies the tokens that it signed until they expire
//	I5   once a key signs, the key before it stops within a bounded time
//	I6   a position in a ring is minted once in each life of the store
//	I7   the store gets back every key that a reachable instance holds
//	I8   a revocation is never forgotten while an instance lives that knows it
//	I9   no tenant accepts another tenant's token
//	I10  nothing is minted by a recovering instance, or where a field cannot be opened
//	I11  an instance in sync can sign
//	I12  a ring that was deleted, or replaced by an old copy, is noticed and repaired
//
// The timelines are the histories that random choice hardly ever finds. Each is a test of its own
// (TestTimelineA to TestTimelineN), directed step by step, and checked by the same rules.
//
// A failing history names its seed, the rule, and the events that led to the violation. To run it
// again, with all its events:
//
//	export KEYTURN_SEED=7 KEYTURN_HISTORIES=1 KEYTURN_TRACE=1
//	go test -v -run TestHistories ./rotation/rotationtest
//
// A seed reproduces its history as long as the code that it runs is the same. A checker that finds
// nothing may be blind. So checker_rules_test.go shows each rule a history that breaks it, and
// internal/mutants puts mistakes into the protocol that the rules must find.
package rotationtest
