// Package synced has the rings that an instance keeps in sync with a store: their copies, the loop
// that polls, the sync that reads, joins and repairs, and the budget of syncs that unknown kids
// cause. It is the anti-entropy of docs/protocol.md: each sync exchanges a place in a log and
// digests, and merges what differs.
//
// Package protocol decides, package held has the bytes of a copy, and this package calls the store
// and says when. A rotation.Keyring reads the copies, and a rotation.Rotator changes the rings in
// the store; neither writes a copy.
package synced
