package rotation

// This file is for authors of a Store. A service needs only an implementation, such as rediskeys.

import (
	"context"
	"hash/fnv"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// Buckets is how many buckets a store has. What a poll costs depends on them, and
// on what has changed, and not on how many tenants there are.
const Buckets = 256

// BucketOf returns the bucket of a tenant: FNV-1a (32 bits) of its bytes, modulo
// [Buckets]. It is part of the format.
func BucketOf(tenant string) int {
	h := fnv.New32a()
	h.Write([]byte(tenant))
	return int(h.Sum32() % Buckets)
}

// A Store is where rings live, such as Redis (package rediskeys). It keeps, for
// each bucket, the rings of its tenants, each a set of named fields; a log of all
// changes; and who has applied the log how far. It knows no keys and trusts no
// caller's clock. [Keyring] is its only caller.
//
// Every method is one round trip, or as many as there are servers, and ends when
// ctx does. An error, of the whole or of a part, says that nothing is known: not
// that something is absent. Implementations must be safe for concurrent use;
// rotationtest.TestStore checks one.
//
// The store's clock never goes back: it is the later of its server's clock and
// of the newest entry of the bucket's log.
type Store interface {
	// Sync answers each request in one atomic step of its own, and always
	// returns as many replies as there are requests, in their order.
	//
	// It proves the request's place: that the log has that entry still, with
	// that nonce, as Raft proves a log. If it has, it stores the
	// acknowledgement, unless instance is empty, and replies with what came
	// after. If it has not, or the place is zero, the reply is Resync, with the
	// newest place: if the log is empty it gets a first entry, so that there
	// always is one.
	//
	// A tenant whose digest is asked for, and that has a ring but is not among
	// Tenants any more, is listed again, and the log says so; unless instance is
	// empty.
	Sync(ctx context.Context, instance string, requests []SyncRequest) []SyncReply

	// Load reads the rings of tenants, each at one moment, and always returns as
	// many snapshots, in their order.
	Load(ctx context.Context, tenants []string) []Snapshot

	// Tenants returns the tenants of each of the buckets, in their order.
	Tenants(ctx context.Context, buckets []int) ([][]string, error)

	// Write makes a change, all of it or nothing, in one atomic step, and logs
	// it. After an error it is not known whether the change was made.
	Write(ctx context.Context, c Change) (Result, error)

	// Acks returns who has acknowledged places in the bucket, and whether that
	// included the place.
	Acks(ctx context.Context, bucket int, place Place) ([]Ack, error)

	// Forget removes the acknowledgements of instance in the buckets.
	Forget(ctx context.Context, instance string, buckets []int) error

	// Listen calls changed for each bucket that it hears has changed, until ctx
	// ends or it cannot listen any more. It may miss changes, repeat them, or
	// make them up.
	Listen(ctx context.Context, changed func(bucket int)) error
}

// A Place is one entry of a bucket's log. The zero Place is nowhere.
type Place struct {
	ID    string // orders the entries; the store's own
	Nonce string // random: the same ID in another life of the store is another place
}

// A SyncRequest asks for what is new in a bucket.
type SyncRequest struct {
	Bucket int
	Place  Place // that the instance has applied

	// GoodSince is since when, by the store's clock, the instance has been in
	// step without a doubt; zero while it is not. It goes into the
	// acknowledgement.
	GoodSince time.Time

	// Digests are the tenants whose rings' digests are wanted.
	Digests []string

	// The reply is Vouched if another instance's acknowledgement is younger than
	// VouchWithin, and says that it has been in step for VouchFor. Zero asks for
	// nothing.
	VouchWithin, VouchFor time.Duration
}

// A SyncReply says what is new in a bucket.
type SyncReply struct {
	Err error // if not nil, the rest says nothing

	// Resync reports that the place could not be proved: anything may have
	// changed, and Changed says nothing.
	Resync bool

	Place   Place    // the newest, or the last that Changed covers
	Changed []string // the tenants that entries after the place name, each once
	More    bool     // there is more after Place: ask again

	Digests []string  // as requested; "" if there is no ring, and what equals no digest if it cannot be read
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

// A Change of one ring. It was decided on one state of that ring, and is made to
// no other.
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

// A Code is what became of a Change.
type Code int

// The codes.
const (
	Committed   Code = iota + 1
	Conflict         // the ring is not the one that was decided on: load it, and decide again
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
	Instance  string    // Config.Instance of whoever acknowledged
	At        time.Time // by the store's clock
	GoodSince time.Time // zero: it is in doubt
	Applied   bool      // the place that was asked for, or a later one
}
