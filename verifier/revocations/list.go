package revocations

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/verifier/revocations/internal/codec"
	"github.com/keyturn/keyturn/verifier/revocations/internal/table"
)

// A List is a [verifier.Revocations] that the instances of a fleet share. Make one with [Open], and
// close it with [List.Close]. It is safe for concurrent use.
//
// A look-up reads memory only, takes no lock and allocates nothing.
type List struct {
	cfg   Config
	store rotation.Store
	box   atomic.Pointer[codec.Box] // [List.SetKEKs] replaces it
	rebox atomic.Bool               // it was replaced, and the digest keys were not read since

	table *table.Table         // the revocations
	view  atomic.Pointer[view] // what look-ups need besides
	buckets
	heldState

	woken  chan struct{} // holds an element while there are nudges
	nudges [rotation.Buckets]atomic.Bool
	cancel context.CancelFunc // stops the loop
	done   chan struct{}      // closed when the loop has ended
	closed sync.Once
}

// A view is what look-ups read beside the table. It is replaced whole, and never changed.
type view struct {
	generation uint64          // another one for other keys, and for other lists: see newList
	err        error           // why the list cannot tell, or nil
	synced     time.Time       // Status.Synced
	staleAt    int64           // when that is older than MaxStale, by the wall clock, as of keystore.UnixNano; with StaleOK never
	earliest   int64           // see List.earliest
	over       map[uint64]bool // tenants of which the list holds more than it may; nil without any
	keys       codec.Keys
	status     Status
}

// heldState is what the list holds besides the table.
type heldState struct {
	mu      sync.Mutex                    // guards what follows, and writes to table and view
	prints  []codec.Fingerprint           // of the entries of each group, see rules.Held
	early   map[table.Digest]earlyEntry   // those that this process has written, and not read back yet
	tenants map[uint64]table.Entry        // the revocations of whole tenants, by table.Entry.Tenant
	over    map[uint64]bool               // tenants with more than twice their share; replaced whole, see view
	short   shortages                     // what is not held, since there was no room
	unsure  map[int]bool                  // groups to which a write was sent whose outcome is unknown
	changed chan struct{}                 // closed and replaced when view is
	gone    [rotation.Buckets]minutePrint // see minutePrint
	keysErr error                         // why the digest keys cannot be used
	keysAt  chan struct{}                 // closed when the digest keys were read once
	alarms  Alarms

	saidLost time.Time // when the list last said that something could not be put back

	swept   int64 // up to which minute entries were forgotten
	toSweep bool  // a tenant was revoked, and its entries are still there
}

// An earlyEntry is an entry as it is counted in prints; with ok false it is not counted at all.
type earlyEntry struct {
	counted table.Entry
	ok      bool
	at      time.Time // when it was written
}

// A minutePrint has, for each minute, the fingerprint of the entries of a bucket that ended then.
type minutePrint map[int64]codec.Fingerprint

// Alarms count events that a fault of the network cannot cause.
type Alarms struct {
	Forged   uint64 // values in the store that are not authentic
	Restored uint64 // groups in which this instance put back what the store had lost
	Over     uint64 // entries that were not held, since their tenant has more than twice its share
	Disputed uint64 // live instances that held other entries than this one, at the same place
}

// Open returns the list that lies in Redis beside the rings: its keys begin with Config.Prefix and
// ":rv:". It returns at once, also where Redis is out of reach: [List.Status] and [List.WaitReady] tell
// when the list can be used. ctx is used for nothing after Open has returned.
//
// Open refuses the clients that [rediskeys.New] refuses.
func Open(ctx context.Context, client redis.UniversalClient, cfg Config) (*List, error) {
	store, err := storeOf(client, cfg)
	if err != nil {
		return nil, err
	}
	return OpenStore(ctx, store, cfg)
}

// storeOf returns the store of the list that lies in Redis.
func storeOf(client redis.UniversalClient, cfg Config) (*rediskeys.Store, error) {
	store, err := rediskeys.New(client, rediskeys.Config{Prefix: cmp.Or(cfg.Prefix, defaultPrefix) + ":rv", LogLength: logLength})
	if err != nil {
		return nil, fmt.Errorf("revocations: %w", err)
	}
	return store, nil
}

// OpenStore is [Open] for another store, which must have no other user. Config.Prefix means nothing to it.
func OpenStore(ctx context.Context, store rotation.Store, cfg Config) (*List, error) {
	l, err := newList(store, cfg)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("revocations: %w", err)
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l.cancel = cancel
	go l.run(running)
	return l, nil
}

// newList returns a list whose loop does not run yet.
func newList(store rotation.Store, cfg Config) (*List, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	box, err := cfg.box()
	if err != nil {
		return nil, err
	}
	l := &List{
		cfg: cfg, store: store, table: table.New(0), buckets: newBuckets(cfg.groups),
		heldState: heldState{
			prints: make([]codec.Fingerprint, cfg.groups), early: make(map[table.Digest]earlyEntry), tenants: make(map[uint64]table.Entry), unsure: make(map[int]bool),
			changed: make(chan struct{}), keysAt: make(chan struct{}),
		},
		woken: make(chan struct{}, 1), done: make(chan struct{}),
	}
	l.box.Store(&box)
	// The marks of another list are of another generation. So a Marker may ask one list after another, such as
	// after a program has opened its list again: their digest keys and versions differ.
	generation := rand.Uint64()
	l.view.Store(&view{generation: generation, err: ErrNotReady, status: Status{Err: ErrNotReady, Instance: cfg.Instance}})
	return l, nil
}

// Close stops the list, and waits until it has: at most until ctx ends. It leaves what an instance that
// starts later can use, and removes the acknowledgements of this one. Afterwards the list cannot tell.
func (l *List) Close(ctx context.Context) error {
	l.closed.Do(l.cancel)
	select {
	case <-l.done:
	case <-ctx.Done():
		return fmt.Errorf("revocations: close: %w", ctx.Err())
	}
	return l.part(ctx)
}

// A Status says how a list stands.
type Status struct {
	Ready    bool      // the list can tell which tokens are revoked
	Err      error     // why not, or nil; ErrStale with Ready if StaleOK waives that
	Entries  int       // that it holds
	Synced   time.Time // when its last good sync was sent; zero before the first
	Read     time.Time // when its last complete read was sent, in doubt or not; zero before the first
	InDoubt  bool      // the store may have lost revocations; others get the time to put them back
	Unread   error     // why the last sync failed, or nil
	ClockOff bool      // this clock and the store's differ by more than ClockSkew: nothing is removed from the store
	KeyNames []string  // of the digest keys; not secret
	Instance string    // its name in acknowledgements
	Alarms   Alarms

	// Unreadable is how many groups of the store have entries that cannot be read: their digest key is
	// gone, or a newer version of keyturn wrote them. What they revoke is unknown, and is accepted.
	Unreadable int

	// UnreadableIn has the names of some of those groups, sorted, at most 8. The key of the group e3f2
	// in Redis ends in ":ring:e3f2".
	UnreadableIn []string
}

// maxNamed is how many groups Status.UnreadableIn names.
const maxNamed = 8

// Status returns how the list stands.
func (l *List) Status() Status {
	s := l.view.Load().status
	s.Entries = l.Len()
	s.KeyNames, s.UnreadableIn = slices.Clone(s.KeyNames), slices.Clone(s.UnreadableIn)
	return s
}

// WaitReady waits until the list can tell which tokens are revoked. Its error is that of ctx, with the
// reason that the list is not ready.
func (l *List) WaitReady(ctx context.Context) error {
	for {
		l.mu.Lock()
		changed := l.changed
		l.mu.Unlock()
		s := l.view.Load().status
		if s.Ready {
			return nil
		}
		select {
		case <-changed:
		case <-l.done:
			return ErrClosed
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), cmp.Or(s.Unread, s.Err))
		}
	}
}

// Len returns how many revocations the list holds.
func (l *List) Len() int { return l.table.Len() }

// An Entry is a revocation as the list holds it. What it revokes cannot be told from it.
type Entry struct {
	Kind   Kind      `json:"kind"`
	Digest string    `json:"digest"`          // stands for the jti, session, subject or tenant
	Before time.Time `json:"before,omitzero"` // tokens issued earlier are revoked; of subjects and tenants
	Ends   time.Time `json:"ends,omitzero"`   // when it is forgotten, since all its tokens have expired; zero for never
	Key    string    `json:"key"`             // the name of its digest key
}

// All returns the revocations of a tenant, or of all tenants with "", in no order.
func (l *List) All(tenant string) iter.Seq[Entry] {
	keys := l.view.Load().keys
	ids := make(map[uint64]bool)
	for _, k := range keys {
		if tenant != "" {
			ids[k.TenantID(tenant)] = true
		}
	}
	return func(yield func(Entry) bool) {
		for e := range l.table.All() {
			if (tenant == "" || ids[e.Tenant]) && !yield(entryOf(e)) {
				return
			}
		}
	}
}

func entryOf(e table.Entry) Entry {
	out := Entry{Kind: kindOf(e.Kind), Digest: codec.Field(e.Digest), Key: codec.KeyName(e.Key)}
	if e.Kind == table.Subject || e.Kind == table.Tenant {
		out.Before = time.Unix(e.Before, 0).UTC()
	}
	if e.End != codec.Forever {
		out.Ends = time.Unix(e.End, 0).UTC()
	}
	return out
}

// Format implements [fmt.Formatter]: every verb prints the number of entries, and none of them.
func (l *List) Format(f fmt.State, _ rune) {
	io.WriteString(f, fmt.Sprintf("revocation list of %d", l.Len()))
}
