package rotation

import (
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/store"
)

// A Store is the place where rings live, such as Redis (package rediskeys): it is [store.Store].
type Store = store.Store

// A Digester is a [Store] that can put the digests of rings off: it is [store.Digester].
type Digester = store.Digester

// A Place is one entry of a bucket's log: it is [store.Place].
type Place = store.Place

// A LogEntry is an entry of a bucket's log: it is [store.LogEntry].
type LogEntry = store.LogEntry

// A RawAck is an acknowledgement as the store has it: it is [store.RawAck].
type RawAck = store.RawAck

// An Ack is an instance's acknowledgement in one bucket: it is [ring.Ack].
type Ack = ring.Ack

// A SyncRequest asks for the changes in a bucket: it is [store.SyncRequest].
type SyncRequest = store.SyncRequest

// A SyncReply has the changes in a bucket: it is [store.SyncReply].
type SyncReply = store.SyncReply

// A Snapshot is a ring as the store has it at one moment: it is [store.Snapshot].
type Snapshot = store.Snapshot

// A Change is a change of one ring: it is [store.Change].
type Change = store.Change

// A Result says what a [Store] did with a [Change]: it is [store.Result].
type Result = store.Result

// A Code says what a [Store] did with a [Change]: it is [store.Code].
type Code = store.Code

// The results of a [Store.Write].
const (
	Committed   = store.Committed
	Conflict    = store.Conflict
	OutOfBounds = store.OutOfBounds
	NotMade     = store.NotMade
)

// Buckets is how many buckets a store has: it is [store.Buckets].
const Buckets = store.Buckets

// BucketOf returns the bucket of a tenant: see [store.BucketOf].
func BucketOf(tenant string) int { return store.BucketOf(tenant) }
