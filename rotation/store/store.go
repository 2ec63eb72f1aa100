// Package store is for authors of a store: it has the contract between a rotation.Keyring and the
// place where rings live. A service needs only an implementation, such as rediskeys. Package
// rotation has every name of it too.
package store

import (
	"context"
	"encoding/binary"
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
// and does not trust any caller's clock. A rotation.Keyring and a rotation.Rotator are its only callers.
//
// Every method takes one round trip, or one for each server, and ends when ctx does. An error, of a
// whole call or of one part, means that nothing is known, and never that something is missing.
// Implementations must be safe for concurrent use; rotationtest.TestStore checks one.
//
// A store refuses every call while it may be behind another: a Redis server that is a replica fails
// every call, even if it would accept writes.
//
// Anyone who can write to the store chooses what it answers, but must not choose how much. So a
// store bounds what it returns: an entry of the log with an oversized field has that field empty,
// and of many acknowledgements those are returned whose dates are nearest to its time. One that is dated
// ahead takes the place of none that an instance has just made.
//
// A store may have a method Name() string besides, which tells it from other stores that a process
// could be given by mistake. A snapshot is used with a store of the same name only.
//
// A store may be a [Digester] besides.
//
// The store's clock never goes back: it is the later of its server's clock and the newest entry of
// the bucket's log.
type Store interface {
	// Sync answers each request in one atomic step of its own. It always returns as many replies as
	// there are requests, in their order.
	//
	// It proves the request's place: the log still has that entry, with that nonce. (Raft proves a
	// follower's log in the same way.) If so, it stores the request's acknowledgement under the name
	// instance, and replies with the entries after that place. If not, or if the place is zero, the
	// reply is Resync with the newest place, and no acknowledgement is stored. An empty log gets a
	// first entry then, so that there always is a newest place.
	//
	// If a digest is requested for a tenant that has a ring, but is missing from Tenants, Sync
	// lists the tenant again and logs that, unless instance is empty. A Sync with an empty instance
	// stores nothing else than that first entry.
	Sync(ctx context.Context, instance string, requests []SyncRequest) []SyncReply

	// Load reads the rings of tenants, each as it was at one moment. It always returns as many
	// snapshots as there are tenants, in their order.
	Load(ctx context.Context, tenants []string) []Snapshot

	// Tenants returns the tenants of each of the buckets, in the order of buckets.
	Tenants(ctx context.Context, buckets []int) ([][]string, error)

	// Write makes a change completely or not at all, in one atomic step, and logs it. After an
	// error the caller does not know whether the change was made, unless Result.Code is [NotMade].
	Write(ctx context.Context, c Change) (Result, error)

	// Acks returns the acknowledgements in the bucket, at most 4096, sorted by instance, and the
	// store's time. If there are more, it returns those whose dates are nearest to that.
	Acks(ctx context.Context, bucket int) (acks []RawAck, now time.Time, err error)

	// Forget removes the acknowledgements of instance in the buckets.
	Forget(ctx context.Context, instance string, buckets []int) error

	// Listen calls changed for each bucket that has changed, until ctx ends or it cannot listen any
	// longer. It may miss changes, repeat them, or report changes that did not happen: the poll
	// finds every change.
	Listen(ctx context.Context, changed func(bucket int)) error
}

// A Digester is a [Store] that can put the digests of rings off. A keyring that starts reads a hundred thousand rings,
// and needs no digest before it opens a ring. The keyring works with any other store, and starts a little later.
//
// A type that embeds a Digester, and has a Load of its own, needs a LoadFields of its own too.
type Digester interface {
	Store

	// LoadFields is Load, but each Digest is empty.
	LoadFields(ctx context.Context, tenants []string) []Snapshot

	// Digest returns what Load would, had it read these fields. It makes no call, and does not change fields.
	Digest(fields map[string][]byte) string
}

// A Place is one entry of a bucket's log. The zero Place is before every entry. Places are
// comparable with ==.
type Place struct {
	ID    string // orders the entries, in a form of the store's choice; at most 64 bytes
	Nonce string // random, so that the same ID after a loss of the log is another place; at most 64 bytes
}

// A LogEntry is an entry of a bucket's log: a change that was made, as a store has it. Anyone who
// can write to the store can write one. Only the MAC proves what it says.
type LogEntry struct {
	Op          ring.Op
	Tenant, KID string
	Seq         int // 0 if the store holds no number
	Actor       string
	Nonce       string
	MAC         []byte // byte for byte as it was written; empty if there is none
}

// A RawAck is the acknowledgement of an instance in one bucket, as the store has it. The store does
// not open it. Only its date is readable: bytes 4 to 11 are when it was made, by the instance's
// clock, in milliseconds since 1970, big-endian. A store may drop acknowledgements older than a day,
// or longer than 8192 bytes.
type RawAck struct {
	Instance string
	Sealed   []byte
}

// Parted reports whether an instance that has ended left the acknowledgement, for the next one that
// starts: see "Acknowledgement" of docs/formats.md. It stands for no instance.
func (a RawAck) Parted() bool { return a.Instance == "\x00ended" }

// At returns the readable date, or zero. It is not authentic.
func (a RawAck) At() time.Time {
	if len(a.Sealed) < 12 {
		return time.Time{}
	}
	return time.UnixMilli(int64(binary.BigEndian.Uint64(a.Sealed[4:]))).UTC()
}

// A SyncRequest asks for the changes in a bucket.
type SyncRequest struct {
	Bucket int   // from 0 to Buckets - 1
	Place  Place // up to which the instance has applied the log

	// Ack is the instance's acknowledgement, sealed: see [RawAck]. It is stored if Place is proved.
	// Without one nothing is stored, and an earlier one stays.
	Ack []byte

	// Digests are the tenants whose rings' digests the reply must have, in this order.
	Digests []string

	// Acks says that the reply must have the acknowledgements of the bucket.
	Acks bool

	// ListsAll says that the instance holds every tenant that the bucket had at its last good read, and asks for the
	// digests of all of them within some polls. So the store may begin the set of tenants again if it cannot be read.
	// If another instance asked for that, the instances that start would miss rings, or revocations.
	ListsAll bool
}

// A SyncReply has the changes in a bucket.
type SyncReply struct {
	Err error // if not nil, the other fields mean nothing

	// Resync reports that the place could not be proved: anything may have changed.
	Resync bool

	// Place is the newest, or if there is More the last that Changed covers.
	Place Place

	// Changed are the entries of the log after the request's place, the oldest first. With Resync
	// they are some of the newest entries: they say what has happened lately, and not what has
	// changed since any place. Entries that name no tenant are left out.
	Changed []LogEntry

	More    bool      // there are entries after Place: ask again from there
	Digests []string  // as requested; "" without a ring, and unlike any digest if it cannot be read
	Now     time.Time // by the store's clock

	// Run names the time for which one process has been the primary without a break, in at most 64
	// bytes of UTF-8. It is another one after each start, failover and failback. Within one, the store
	// loses nothing, unless a person removes it. It is empty if the store cannot tell.
	Run string

	// Acks, if they were requested, are those that are stored after this sync, sorted by instance.
	// If there are more than 64, they are the 64 whose dates are nearest to the store's time.
	Acks []RawAck

	// Mended names what this sync has removed from the bucket, since it was nothing that a store writes, and made
	// again: "log", "tenants" or "ack". A person or another program writes to the store. It counts with Err too.
	// After "tenants" the instance asks for the digests of all at once.
	Mended []string
}

// A Snapshot is a ring as the store has it at one moment.
type Snapshot struct {
	Err    error             // if not nil, the other fields mean nothing
	Fields map[string][]byte // empty if there is no ring
	Digest string            // of the fields; "" if there is no ring, and by LoadFields. Equal digests mean equal fields
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

	// For the log, where operators and instances read it: which change it was, of which key, and by
	// which instance.
	Op    ring.Op
	KID   string
	Seq   int
	Actor string
	Nonce string // of the entry, see [Place]; random, at most 64 bytes, and never empty
	MAC   []byte // of the entry, see [LogEntry]
}

// A Code says what a [Store] did with a [Change].
type Code int

// The results of a [Store.Write]. Without an error it is one of the first three. With an error it is
// NotMade, or 0: then it is not known whether the change was made.
const (
	Committed   Code = iota + 1 // the change was made, and logged
	Conflict                    // not made: the ring's digest is not Change.If; load it and decide again
	OutOfBounds                 // not made: a Bound does not hold; decide again, at Result.Now
	NotMade                     // not made, and nothing was written: the error says why
)

// A Result says what a [Store] did with a [Change].
type Result struct {
	Code   Code      // whether the change was made
	Now    time.Time // the moment of the decision, by the store's clock
	Place  Place     // of the change in the log, if Committed
	Digest string    // of the changed ring, if Committed

	// Told is how many listeners the store has told of the change, if Committed, as far as it knows.
	// Where there is one, there may be an instance whose acknowledgement a person has removed.
	Told int
}
