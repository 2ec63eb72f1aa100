// Package rotationtest tests what package rotation rests on.
//
// [TestStore] checks that an implementation of [rotation.Store] keeps the
// contract, word by word. A [Cluster] is a store in memory, whose connections,
// replicas and clock fail as Redis fails, on command and in virtual time, so that
// the protocol can be tried on thousands of bad days in a minute.
package rotationtest
