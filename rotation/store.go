package rotation

// This file is for authors of a Store. A service needs only an implementation, such as rediskeys.

import (
	"context"
	"hash/fnv"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// Buckets is how many buckets a store has. The cost of a poll depends on them and on the number
// of changes, not on the number of tenants.
const Buckets = 256

// BucketOf returns the bucket of a tenant: FNV-1a (32 bits) of its bytes, modulo
// [Buckets]. It is part of the format.
func BucketOf(tenant string) int {
	h := fnv.New32a()
	h.Write([]byte(tenant))
	return int(h.Sum32() % Buckets)
}

// A Store is where rings live, such as Redis (package rediskeys). For each bucket it
// keeps the rings of its tenants, each a set of named fields; a log of all changes;
// and how far each instance has applied the log. It knows no keys and trusts no
// caller's clock. [Keyring] is its only caller.
//
// Every method is one round trip to each server that it needs, and ends when ctx
// does. An error, of the whole or of a part, means that the state is unknown. It
// never means that something is missing. Implementations must be safe for concurrent
// use; rotationtest.TestStore checks one.
//
// The store's clock never goes back: it is the later of its server's clock and the
// time of the newest entry of the bucket's log.
type Store interface {
	// Sync answers each request in one atomic step of its own, and always
	// returns as many replies as there are requests, in their order.
	//
	// It checks that the log still has the entry of the request's place, with that
	// nonce, as Raft checks a log. If so, it stores the acknowledgement, unless
	// instance is empty, and replies with the entries after the place. If not, or if
	// the place is zero, the reply is Resync, with the newest place. An empty log
	// gets a first entry, so there always is a newest place.
	//
	// If a request asks for the digest of a tenant that has a ring but is missing
	// from Tenants, the tenant is listed again, and the log says so; unless instance
	// is empty.
	Sync(ctx context.Context, instance string, requests []SyncRequest) []SyncReply

	// Load reads the rings of tenants, each at one moment, and always returns as
	// many snapshots, in their order.
	Load(ctx context.Context, tenants []string) []Snapshot

	// Tenants returns the tenants of each of the buckets, in their order.
	Tenants(ctx context.Context, buckets []int) ([][]string, error)

	// Write makes a change, all of it or nothing, in one atomic step, and logs
	// it. After an error the change may or may not have been made.
	Write(ctx context.Context, c Change) (Result, error)

	// Acks returns which instances have acknowledged places in the bucket, and
	// whether that included the place.
	Acks(ctx context.Context, bucket int, place Place) ([]Ack, error)

	// Forget removes the acknowledgements of instance in the buckets.
	Forget(ctx context.Context, instance string, buckets []int) error

	// Listen calls changed for each bucket that it hears has changed, until ctx
	// ends or it can no longer listen. It may miss changes, repeat them, or make
	// them up.
	Listen(ctx context.Context, changed func(bucket int)) error
}

// A Place is one entry of a bucket's log. The zero Place is nowhere.
type Place struct {
	ID    string // orders the entries; the store's own
	Nonce string // random: the same ID in another life of the store is another place
}

// A SyncRequest asks for the changes in a bucket.
type SyncRequest struct {
	Bucket int
	Place  Place // that the instance has applied

	// GoodSince is since when, by the store's clock, the instance has been in sync;
	// zero while it is recovering or out of sync. It goes into the acknowledgement.
	GoodSince time.Time

	// Digests are the tenants whose rings' digests are wanted.
	Digests []string

	// The reply is Vouched if another instance's acknowledgement is younger than
	// VouchWithin, and says that it has been in sync for VouchFor. Zero asks for
	// nothing.
	VouchWithin, VouchFor time.Duration
}

// A SyncReply lists the changes in a bucket.
type SyncReply struct {
	Err error // if not nil, the rest says nothing

	// Resync reports that the log does not have the place: anything may have changed,
	// and Changed says nothing.
	Resync bool

	Place   Place    // the newest, or the last that Changed covers
	Changed []string // the tenants that entries after the place name, each once
	More    bool     // there is more after Place: ask again

	Digests []string  // as requested; "" if there is no ring; equal to no digest if the ring cannot be read
	Now     time.Time // by the store's clock
	Vouched bool
}

// A Snapshot is a ring as the store has it.
type Snapshot struct {
	Err    error             // if not nil, the rest says nothing
	Fields map[string][]byte // empty if there is no ring
	Digest string            // of the fields; "" if there is no ring. Equal digests mean equal fields
	Now    time.Time         // by the store's clock, not later than when Fields were read
}

// A Change is a change of one ring. It was decided on one state of that ring, and the
// store makes it only if the ring still has that state.
type Change struct {
	Tenant string
	If     string // the digest of the ring that it was decided on; "" if there was none

	Bounds  []ring.Bound      // that must hold by the store's clock
	Set     map[string][]byte // fields
	Delete  []string          // fields
	Publish []string          // kids: their "p:" fields become the store's time, in decimal milliseconds

	// For the log.
	Op    ring.Op
	KID   string
	Seq   int
	Actor string
}

// A Code is the outcome of a Change.
type Code int

// The codes.
const (
	Committed   Code = iota + 1
	Conflict         // the ring has changed since: load it, and decide again
	OutOfBounds      // a Bound does not hold: decide again, at Result.Now
)

// A Result of a Write.
type Result struct {
	Code   Code
	Now    time.Time // by the store's clock, when it decided
	Place  Place     // of the entry in the log, if Committed
	Digest string    // of the ring now, if Committed
}

// An Ack is an instance's acknowledgement in one bucket.
type Ack struct {
	Instance  string    // its Config.Instance
	At        time.Time // by the store's clock
	GoodSince time.Time // zero: it is recovering, or out of sync
	Applied   bool      // it has applied the place that the caller named, or a later one
}
