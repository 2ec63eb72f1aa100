package synced

import (
	"context"
	"crypto/rand"
	"fmt"
	"hash/maphash"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/internal/held"
	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/store"
)

// A Config has what Rings need of a rotation.Config, which documents the fields, with its defaults
// set.
type Config struct {
	Store          store.Store
	Tenants        []string
	Instance       string
	Poll, Deadline time.Duration
	TrustFirstRead bool
	OneShot        bool
	AllowBootstrap bool
	Snapshot       string // the file; "" for none
	StoreName      string // see [seal.SealSnapshot]
	Verifies       []keystore.Algorithm
	StoreMayBeAway bool
	Logger         *slog.Logger
	Now            func() time.Time

	OpenAtOnce  int // of more rings than so many, Open leaves most to be opened later; 0 for openAtOnce
	MaxUnopened int // bytes of memory that those take at most, about; 0 for maxUnopened
}

// Rings are this process's copies of the rings in a store. [Open] makes them. They are safe for
// concurrent use. Call [Rings.Close] when done with them.
type Rings struct {
	// Three mutexes guard the state: mu, unknownKids.mu and loop.mu. unknownKids.mu may be held
	// while loop.mu is taken. No other two are held together.
	//
	// Each ring's copy and status are immutable values behind atomic pointers. Only the loop
	// replaces them, so readers take no lock but mu, for the map, and that of an unopened ring.

	store store.Store
	cfg   Config

	KEKs atomic.Pointer[seal.KEKs] // of the Config's realm; never nil

	mu      sync.RWMutex // guards rings, and buckets against the loop, which alone adds some
	rings   map[string]*Ring
	buckets []*Bucket // that are synced

	byIndex [store.Buckets]atomic.Pointer[Bucket] // nil where the bucket is not synced; only the loop sets one

	Times atomic.Pointer[Times] // never nil; only the loop replaces it once Open has returned

	cancel context.CancelFunc // ends the loop
	done   chan struct{}      // closed when the loop has ended
	loop   loop

	Signs atomic.Bool // there is a signer of these rings
	down  atomic.Bool // the last sync did not reach all of the store; only the loop writes it

	// Only the loop uses these.
	opened    time.Time // when Open was called
	awaySince time.Time // when down became true last
	skewed    bool      // the log says that the clocks differ
	held      int       // rings
	lastMerge time.Time // when a log told of a merge last, or this instance made one
	fenced    int       // rings that it said last it does not sign for

	watching Agenda                 // for watch
	working  atomic.Pointer[Agenda] // for a rotator; nil until there is one

	seed    maphash.Seed // of the hashes of digests
	unknown unknownKids
	saver   saver
	Counts  Counts
	Alarms  Alarms
}

// Counts say how often something has happened since [Open]: see rotation.Counts.
type Counts struct{ Syncs, Failures, Repairs, Resyncs, Refreshes atomic.Uint64 }

// Close stops syncing, waits until the loop has ended, and removes this instance's acknowledgements
// from the store: see rotation.Keyring.Close.
func (k *Rings) Close(ctx context.Context) error {
	k.cancel()
	select {
	case <-k.done:
	case <-ctx.Done():
		return &ring.Error{Text: "the keyring is still closing", Err: ctx.Err()}
	}
	if k.cfg.OneShot {
		return nil
	}
	k.saver.closing.Lock()
	err := k.save()
	k.part(ctx)
	k.saver.closing.Unlock()
	if err != nil {
		k.cfg.Logger.Warn("the snapshot cannot be written", "error", err)
	}
	indexes := make([]int, len(k.buckets))
	for i, b := range k.buckets {
		indexes[i] = b.index
	}
	ctx, cancel := context.WithTimeout(ctx, k.Times.Load().Deadline)
	defer cancel()
	if err := k.store.Forget(ctx, k.cfg.Instance, indexes); err != nil {
		return &ring.Error{Text: fmt.Sprintf("closed, but the acknowledgements of %q stay in the store", k.cfg.Instance), Err: err}
	}
	return nil
}

// Done returns a channel that is closed when the loop has ended.
func (k *Rings) Done() <-chan struct{} { return k.done }

// addTenant returns the ring of tenant, and adds it if it is not held yet. Only Open and the loop
// add rings, so no other goroutine can add the same one between the check and the lock. One that
// [Rings.Remove] removes meanwhile is not found, and is added as another Ring.
func (k *Rings) addTenant(tenant string) *Ring {
	if r := k.Ring(tenant); r != nil {
		return r
	}
	return k.addRing(tenant, time.Time{})
}

// addRing adds the ring of a tenant that is not held. added is when it was added while the rings were in
// use, or zero.
func (k *Rings) addRing(tenant string, added time.Time) *Ring {
	b := k.addBucket(store.BucketOf(tenant))
	r := &Ring{Tenant: tenant, bucket: b, dirty: true}
	if !added.IsZero() {
		r.added = &added
	}
	if !b.Status.Load().Complete.IsZero() {
		r.own.Store(new(Status)) // the bucket was read without it
	}
	b.rings = append(b.rings, r)
	b.sums.stale = true
	b.touch(r)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.rings[tenant] = r
	return r
}

// dropEmpty forgets tenants without a ring, if the keyring holds all tenants. Tenant names in the
// store are not authenticated, so they must not accumulate here. A tenant of which an authentic entry
// of the log tells a revocation stays, up to maxAwaited of a bucket: a person may have removed its ring,
// and the revocation must hold when a holder puts the ring back.
func (k *Rings) dropEmpty(buckets []*Bucket) {
	if !k.HoldsAll() {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, b := range buckets {
		if !slices.ContainsFunc(b.busy, (*Ring).empty) {
			continue
		}
		awaited := 0
		slices.Reverse(b.rings) // the newest stay
		b.forget(func(r *Ring) bool {
			empty := r.empty()
			if empty && r.news != nil && !r.news.ends.Equal(ring.Facts{}) {
				awaited++
				empty = awaited > maxAwaited
			}
			if empty {
				delete(k.rings, r.Tenant)
			}
			return empty
		})
		slices.Reverse(b.rings)
	}
}

// empty reports whether the ring was read, and nothing is known of it.
func (r *Ring) empty() bool { return !r.dirty && !r.known() }

// forget removes the rings for which gone returns true. It calls gone once for each.
func (b *Bucket) forget(gone func(*Ring) bool) {
	all := make(map[*Ring]bool)
	b.rings = slices.DeleteFunc(b.rings, func(r *Ring) bool {
		if gone(r) {
			all[r] = true
		}
		return all[r]
	})
	isGone := func(r *Ring) bool { return all[r] }
	b.busy, b.living = slices.DeleteFunc(b.busy, isGone), slices.DeleteFunc(b.alive(), isGone)
	b.digestAt = max(0, b.digestAt-len(all)) // some are compared again, and none is passed over
	b.endsStale, b.sums.stale = true, true
}

// addBucket returns the bucket of that index, and adds it if it is not synced yet.
func (k *Rings) addBucket(index int) *Bucket {
	if b := k.byIndex[index].Load(); b != nil {
		return b
	}
	b := &Bucket{index: index, endsStale: true}
	b.Status.Store(new(Status))
	b.Outlook.Store(new(Outlook))
	k.mu.Lock()
	defer k.mu.Unlock()
	k.buckets = append(k.buckets, b)
	k.byIndex[index].Store(b)
	return b
}

// Ring returns the ring of tenant, or nil if it is not held.
func (k *Rings) Ring(tenant string) *Ring {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.rings[tenant]
}

// All returns the rings that are held, in no order.
func (k *Rings) All() []*Ring {
	k.mu.RLock()
	defer k.mu.RUnlock()
	rings := make([]*Ring, 0, len(k.rings))
	for _, r := range k.rings {
		rings = append(rings, r)
	}
	return rings
}

// HoldsAll reports whether Config leaves it to the store which tenants there are.
func (k *Rings) HoldsAll() bool { return len(k.cfg.Tenants) == 0 }

// Buckets returns the buckets that are synced.
func (k *Rings) Buckets() []*Bucket {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return slices.Clip(k.buckets)
}

// Len returns how many tenants are held.
func (k *Rings) Len() int {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return len(k.rings)
}

// Seal returns the change that p proposes to the ring whose digest is digest. The caller sets what s
// has of the ring. minted has the material of the records that p mints; it may be nil if p mints
// none.
func (k *Rings) Seal(p *protocol.Proposal, s *held.Sealer, digest string, minted *held.Material) (store.Change, error) {
	s.KEKs, s.Actor, s.Nonce = k.KEKs.Load(), k.cfg.Instance, rand.Text()
	c, err := s.Change(p, minted)
	if err != nil {
		return store.Change{}, InTenant(s.Tenant, err)
	}
	return store.Change{Tenant: s.Tenant, If: digest, Bounds: c.Bounds, Set: c.Set, Delete: c.Delete, Publish: c.Publish,
		Op: p.Op, KID: p.KID, Seq: p.Seq, Actor: s.Actor, Nonce: s.Nonce, MAC: c.MAC}, nil
}

// Withdraw ends the keys of the copy that this instance holds that facts end.
func (k *Rings) Withdraw(tenant string, facts ring.Facts) {
	if tr := k.Ring(tenant); tr != nil {
		tr.Live().Withdraw(facts)
	}
}

// IsTenant reports whether a tenant may have that name. The store holds names as they are, and
// anyone who can write there chooses them.
func IsTenant(name string) bool {
	return name != "" && len(name) <= ring.MaxTenantBytes && utf8.ValidString(name)
}
