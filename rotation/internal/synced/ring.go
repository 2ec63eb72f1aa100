package synced

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/internal/unknown"
	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/store"
)

// A Ring is the ring of one tenant in Rings. Any goroutine may read the atomic fields.
// Only the loop writes them, and only it uses the fields below them. The goroutine that opens the ring does so
// instead of the loop, under the mutex of unopened: the loop leaves an unopened ring alone.
//
// A large keyring holds a hundred thousand, so it is small: see also [node].
//
// Read status before state. A sync replaces state first, so the copy is then at least as new as the
// status that one judges it by. In the other order, a sync between the two reads would make an old
// copy look in sync.
type Ring struct {
	Tenant string
	bucket *Bucket
	budget *unknown.Budget // for unknown kids, nil for a full one; guarded by unknownKids.mu

	state    cell                     // its copy: see [Ring.Copy]
	unopened atomic.Pointer[unopened] // its fields as they were read, until it is opened
	own      atomic.Pointer[Status]   // how far it is in sync; nil: as far as its bucket

	Losses atomic.Uint64 // how often the store lacked something of it

	// added is when [Rings.Add] added the ring, by this instance's clock. It is nil for a ring that was
	// held from the start, and never changes.
	added    *time.Time
	workFrom atomic.Int64 // when a rotator may have something to do, in the form of [keystore.UnixNano]; 0 for never
	removed  atomic.Bool  // by [Rings.Remove]: its keys verify nothing, and the loop forgets it
	lives    atomic.Bool  // it is among those of its bucket whose keys are in use
	turns    [purposes]uint32

	digest     uint64 // the hash of the digest of the fields that were read, or written, last; 0 if there were none
	emptySyncs int32  // syncs in a row that found no ring in the store
	dirty      bool   // the copy may be out of date or incomplete: read the ring again
	changed    bool   // this process has changed it, and restores the change even with OneShot
	busy       bool   // it is in Bucket.busy
	looked     bool   // [Rings.watch] has looked
	calm       bool   // the clock alone changes nothing before calmUntil, and any good sync since Freshness lets it sign
	calmUntil  int64  // in the form of [keystore.UnixNano]; 0 for always
	signer     string // the kid that signed when [Rings.watch] looked last
	made       string // the nonce of the change with which this process made it, until the log was read
	news       *news  // of it in the log, that the copy may not have yet; nil for none
}

// Added returns when [Rings.Add] added the ring, by this instance's clock, or zero.
func (r *Ring) Added() time.Time {
	if r.added == nil {
		return time.Time{}
	}
	return *r.added
}

// news are what authentic entries of the log say about a ring.
type news struct {
	ends    ring.Facts       // that end trust; the next merge takes them into account
	changes []protocol.Entry // acknowledged once the ring was read, opened and merged, and has them
}

// A Status says how far a ring, or a bucket, is in sync with the store. It is immutable. Its
// Times are of this instance's clock.
type Status struct {
	protocol.SyncState
	QuietSince time.Time // since when no change in the bucket was logged
	Err        error     // why the last sync failed, or nil
	Bad        bool      // the bucket was read, but this ring could not be read or repaired

	// Of a bucket: when the clocks agreed last, zero for never, and whether it is the store's that was
	// set since. See [protocol.ClockView].
	Agreed      time.Time
	StoreJumped bool

	// Place, of a bucket, is up to where in the log all its rings have everything, as of Complete. It
	// is empty if a ring may lack something. It goes into the snapshot.
	Place store.Place
}

// InSync reports whether the instance is in sync: the last good sync is at most within old. Only
// then does a key that the ring lacks not exist, and only then may a rotator decide.
func (s *Status) InSync(now time.Time, within time.Duration) bool {
	return !s.Bad && !s.Recovering && !s.Good.IsZero() && protocol.Age(now, s.Good) <= within
}

// A Bucket is a part of the store that is synced as a whole, with one place in one log. Only the
// loop uses it, except for status.
type Bucket struct {
	index      int // in the store, and in Rings.byIndex
	rings      []*Ring
	busy       []*Ring // those that the next sync has to look at; the others are in sync with the bucket
	living     []*Ring // those whose keys are in use
	state      protocol.SyncState
	place      store.Place      // in the log, up to which changes were applied
	quietSince time.Time        // since when the place has not synced
	goodSince  time.Time        // since when it is in sync in this run, by the store's clock; zero while it is not
	run        string           // of the store at the last sync: see [store.SyncReply]
	proved     bool             // it has been in sync for two polls in this run
	fresh      time.Duration    // the Freshness at the last sync: after a longer gap it recovers
	digestTurn int              // counts syncs, and so chooses how many digests are compared
	digestAt   int              // index in rings from which the next sync compares digests
	asked      []*Ring          // whose digests the current sync compares
	unlisted   int              // how many rings the next syncs compare at once: the store has made its set of tenants again
	sums       sums             // of all rings
	err        error            // why the last sync failed, or nil
	applied    []protocol.Entry // changes of late that were applied here; see [protocol.Remember]
	ends       [16]byte         // see endsDigest
	endsStale  bool             // some ring may have changed since ends was computed
	agreed     time.Time        // see Status.Agreed
	jumped     bool             // see Status.StoreJumped
	asksAcks   bool             // the clocks differ: the acknowledgements say whose is right
	unreached  bool             // the last sync did not reach it
	undoneAt   atomic.Int64     // when a ring lacked a revocation last, in nanoseconds since 1970; 0 for never

	Status  atomic.Pointer[Status]  // for any goroutine; never nil
	Outlook atomic.Pointer[Outlook] // for any goroutine; never nil

	gone atomic.Int64 // rings that [Rings.Remove] has removed, and the loop has not forgotten yet

	mu   sync.Mutex // guards born
	born []*Ring    // see lived; the loop moves them to living
}

// touch makes the next sync look at r. Only the loop calls it.
func (b *Bucket) touch(r *Ring) {
	if !r.busy {
		r.busy, b.busy = true, append(b.busy, r)
	}
}

// lived notes that the keys of r are in use from now on, so that syncs tell them their ends.
func (b *Bucket) lived(r *Ring) {
	if r.lives.Swap(true) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.born = append(b.born, r)
}

// alive returns the rings whose keys are in use. Only the loop calls it.
func (b *Bucket) alive() []*Ring {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.living, b.born = append(b.living, b.born...), nil
	return b.living
}

// ClockHolds reports whether tokens of r can be judged by this instance's clock.
func (r *Ring) ClockHolds(now time.Time) bool {
	b, skew := r.bucket.Status.Load(), r.skew()
	off := errors.Is(r.syncStatus().Err, ring.ErrClock)
	return (b.Agreed.IsZero() || protocol.Steady(now, b.Agreed, skew)) && (!off || b.StoreJumped)
}

// skew returns the ClockSkew of the ring's policy, or AnySkew.
func (r *Ring) skew() time.Duration {
	if p, ok := r.policy(); ok {
		return p.ClockSkew
	}
	return protocol.AnySkew
}

// SyncStatus returns the status of r, to be read before its copy: see [Ring]. r may be nil.
func (r *Ring) SyncStatus() *Status { return r.opened().syncStatus() }

// syncStatus is SyncStatus of a ring that may be opened.
func (r *Ring) syncStatus() *Status {
	if r == nil {
		return nil
	}
	if own := r.own.Load(); own != nil {
		return own
	}
	of := r.bucket.Status.Load()
	// A sync that finds something wrong with this ring says so before it says that the bucket is in sync.
	if own := r.own.Load(); own != nil {
		return own
	}
	return of
}
