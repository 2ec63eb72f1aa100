package rotation

// This file is for authors of a Store. A service needs only an implementation, such as rediskeys.

import (
	"context"
	"hash/fnv"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// Buckets is how many buckets a store has. A poll costs one small request for each bucket, and the
// reading of the rings that changed, however many tenants there are.
const Buckets = 256

// BucketOf returns the bucket of a tenant, from 0 to [Buckets] - 1: FNV-1a (32 bits) of its bytes,
// modulo Buckets. It is part of the stored format, so it never changes.
func BucketOf(tenant string) int {
	h := fnv.New32a()
	h.Write([]byte(tenant))
	return int(h.Sum32() % Buckets)
}

// A Store is the place where rings live, such as Redis (package rediskeys). It keeps, for each
// bucket, the rings of its tenants, each a set of named fields; a log of all changes; and the
// acknowledgements of the instances, which say how far each has applied the log. It has no keys,
// and does not trust any caller's clock. [Keyring] and [Rotator] are its only callers.
//
// Every method takes one round trip, or one for each server, and ends when ctx does. An error, of a
// whole call or of one part, means that nothing is known, and never that something is missing.
// Implementations must be safe for concurrent use; rotationtest.TestStore checks one.
//
// The store's clock never goes back: it is the later of its server's clock and the newest entry of
// the bucket's log.
type Store interface {
	// Sync answers each request in one atomic step of its own. It always returns as many replies as
	// there are requests, in their order.
	//
	// It proves the request's place: the log still has that entry, with that nonce. (Raft proves a
	// follower's log in the same way.) If so, it stores the acknowledgement, unless instance is
	// empty, and replies with the changes after that place. If not, or if the place is zero, the
	// reply is Resync with the newest place. An empty log gets a first entry then, so that there
	// always is a newest place.
	//
	// If a digest is requested for a tenant that has a ring, but is missing from Tenants, Sync
	// lists the tenant again and logs that, unless instance is empty.
	Sync(ctx context.Context, instance string, requests []SyncRequest) []SyncReply

	// Load reads the rings of tenants, each as it was at one moment. It always returns as many
	// snapshots as there are tenants, in their order.
	Load(ctx context.Context, tenants []string) []Snapshot

	// Tenants returns the tenants of each of the buckets, in the order of buckets.
	Tenants(ctx context.Context, buckets []int) ([][]string, error)

	// Write makes a change completely or not at all, in one atomic step, and logs it. After an
	// error the caller does not know whether the change was made.
	Write(ctx context.Context, c Change) (Result, error)

	// Acks returns the acknowledgements in the bucket, and for each whether it includes place.
	Acks(ctx context.Context, bucket int, place Place) ([]Ack, error)

	// Forget removes the acknowledgements of instance in the buckets.
	Forget(ctx context.Context, instance string, buckets []int) error

	// Listen calls changed for each bucket that has changed, until ctx ends or it cannot listen any
	// longer. It may miss changes, repeat them, or report changes that did not happen: the poll
	// finds every change.
	Listen(ctx context.Context, changed func(bucket int)) error
}

// A Place is one entry of a bucket's log. The zero Place is before every entry. Places are
// comparable with ==.
type Place struct {
	ID    string // orders the entries, in a form of the store's choice
	Nonce string // random, so that the same ID after a loss of the log is another place
}

// A SyncRequest asks for the changes in a bucket.
type SyncRequest struct {
	Bucket int   // from 0 to Buckets - 1
	Place  Place // up to which the instance has applied the log

	// GoodSince is the time since which the instance has been in sync, by the store's clock, or zero
	// while it is not. It is stored with the acknowledgement.
	GoodSince time.Time

	// Digests are the tenants whose rings' digests the reply must have, in this order.
	Digests []string

	// The reply is Vouched if the acknowledgement of another instance is younger than VouchWithin,
	// and says that this instance has been in sync for VouchFor. If they are zero nothing is asked.
	VouchWithin, VouchFor time.Duration
}

// A SyncReply has the changes in a bucket.
type SyncReply struct {
	Err error // if not nil, the other fields mean nothing

	// Resync reports that the place could not be proved: anything may have changed, and Changed
	// means nothing.
	Resync bool

	Place   Place    // the newest, or if there is More the last that Changed covers
	Changed []string // the tenants in entries after the request's place, each once
	More    bool     // there are entries after Place: ask again from there

	Digests []string  // as requested; "" without a ring, and unlike any digest if it cannot be read
	Now     time.Time // by the store's clock
	Vouched bool      // see SyncRequest.VouchWithin
}

// A Snapshot is a ring as the store has it at one moment.
type Snapshot struct {
	Err    error             // if not nil, the other fields mean nothing
	Fields map[string][]byte // empty if there is no ring
	Digest string            // of the fields; "" if there is no ring. Equal digests mean equal fields
	Now    time.Time         // by the store's clock, not later than when Fields were read
}

// A Change is a change of one ring. It was decided on one state of that ring, and the store must
// not make it to another.
type Change struct {
	Tenant string
	If     string // the digest of the ring that it was decided on; "" if there was none

	Bounds  []ring.Bound      // that must hold by the store's clock, or the change is not made
	Set     map[string][]byte // fields to write
	Delete  []string          // fields to remove; a field that is also in Set is written
	Publish []string          // kids: their "p:" fields become the store's time, in decimal milliseconds

	// For the log, where operators read it: which change it was, of which key, and by which
	// instance.
	Op    ring.Op
	KID   string
	Seq   int
	Actor string
}

// A Code says what a [Store] did with a [Change].
type Code int

// The results of a [Store.Write] without an error.
const (
	Committed   Code = iota + 1 // the change was made, and logged
	Conflict                    // not made: the ring's digest is not Change.If; load it and decide again
	OutOfBounds                 // not made: a Bound does not hold; decide again, at Result.Now
)

// A Result says what a [Store] did with a [Change].
type Result struct {
	Code   Code      // whether the change was made
	Now    time.Time // the moment of the decision, by the store's clock
	Place  Place     // of the change in the log, if Committed
	Digest string    // of the changed ring, if Committed
}

// An Ack is an instance's acknowledgement in one bucket: how far it has applied the log.
// [Rotator.Acks] returns them.
type Ack struct {
	Instance  string    // its Config.Instance
	At        time.Time // of the acknowledgement, by the store's clock
	GoodSince time.Time // since when it has been in sync, by the store's clock; zero if it is not
	Applied   bool      // it has applied the log up to the place in question, or further
}
