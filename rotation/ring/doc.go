// Package ring says what the keys of one tenant mean: who signs, who verifies and which keys are
// gone, at any moment.
//
// A ring is a set of immutable [Record]s, keys with their times, and of [Facts] about them:
// revoked, promoted, announced and so on. Both only grow. [Facts.Join] does not depend on the
// order in which it hears of facts, so two copies that have diverged become equal again once each
// has heard of the other. [View] is a pure function of records, facts and the time:
//
//	created   ActivatesAt        RetiresAt             DroppedAt
//	   |--------->|------------------>|--------------------->|
//	    Pending        Signing              Retired            Dropped
//	   verifies   signs and verifies  verifies what it signed  nothing
//
// A key retires when the next one takes effect, so a scheduled rotation happens on every instance
// at the same time, by the clock alone, without a writer and without the store.
//
// A [Policy] sets the distances between those times. [Policy.Validate] holds it to the
// inequalities that the protocol rests on. A [Plan] is a View before a moment is chosen.
//
// Nothing here does I/O, reads a clock, or holds key material. docs/rotation.md says how the
// pieces work together.
package ring
