package rotationtest

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/keyturn/keyturn/rotation"
)

// ClusterConfig configures a [Cluster]. The zero value is useful.
type ClusterConfig struct {
	// Seed is what nonces, delays and losses are drawn from.
	Seed uint64

	// Page is how many entries of a log one reply covers at most: 0 means 100.
	Page int

	// History is how far back a replica may lag: 0 means one minute. More may be
	// remembered.
	History time.Duration

	// Committed, if not nil, is called with each change that was made, in order.
	// It must not call the Cluster.
	Committed func(Commit)
}

// A Commit is a change that a server has made.
type Commit struct {
	rotation.Change
	Instance string // that asked for it
	At       time.Time
	Life     int // how often the store had lost something, or split, before
	Primary  bool
	Result   rotation.Result
}

// A Cluster is a store in memory: the truth, as the servers have it. Instances
// reach it through connections, see [Cluster.Connect]. Its methods are what can
// happen to servers; what can happen to a connection are [Faults].
//
// It has the clock of [time.Now], so that it is deterministic in a bubble of
// testing/synctest, as long as no two things happen at the same instant. It is
// safe for concurrent use.
type Cluster struct {
	page      int
	history   time.Duration
	committed func(Commit)
	seed      uint64

	mu        sync.Mutex
	rng       *rand.Rand
	nonces    uint64
	life      int
	primary   *server
	conns     []*Conn
	databases map[int]*server
}

// NewCluster returns an empty store.
func NewCluster(cfg ClusterConfig) *Cluster {
	c := &Cluster{
		page: cfg.Page, history: cfg.History, committed: cfg.Committed, seed: cfg.Seed,
		rng:       rand.New(rand.NewPCG(cfg.Seed, 0)),
		databases: make(map[int]*server),
	}
	if c.page == 0 {
		c.page = 100
	}
	if c.history == 0 {
		c.history = time.Minute
	}
	c.primary = newServer(c)
	return c
}

// nonce returns a nonce that no life of the store has had.
func (c *Cluster) nonce() string {
	c.nonces++
	return strconv.FormatUint(c.rng.Uint64(), 36) + "." + strconv.FormatUint(c.nonces, 36)
}

// Connect returns a connection without faults to the primary.
func (c *Cluster) Connect(instance string) *Conn {
	conn := &Conn{cluster: c, instance: instance}
	c.mu.Lock()
	defer c.mu.Unlock()
	conn.server = c.primary
	c.conns = append(c.conns, conn)
	return conn
}

// replacePrimary makes s the primary of everyone who had the old one.
func (c *Cluster) replacePrimary(s *server) {
	old := c.primary
	c.life++
	c.primary = s
	for _, conn := range c.conns {
		if conn.server == old {
			conn.server = s
		}
	}
}

// Failover promotes a replica that lags: what was written within lag is lost,
// acknowledged or not, log and acknowledgements with it.
func (c *Cluster) Failover(lag time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.primary.clone()
	s.rollback(time.Now().Add(-lag))
	c.replacePrimary(s)
}

// Wipe restarts the primary empty.
func (c *Cluster) Wipe() {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := newServer(c)
	s.ahead = c.primary.ahead
	c.replacePrimary(s)
}

// A Dump is a copy of all that a primary held.
type Dump struct{ server *server }

// Dump copies what the primary holds.
func (c *Cluster) Dump() Dump {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Dump{c.primary.clone()}
}

// Restore restarts the primary with a dump.
func (c *Cluster) Restore(d Dump) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := d.server.clone()
	s.ahead, s.readOnly = c.primary.ahead, false
	c.replacePrimary(s)
}

// Split leaves the connections with the old primary that are named, and promotes
// a replica for the others, lagging by lag. With minReplicas the old primary
// takes no writes any more (min-replicas-to-write 1).
func (c *Cluster) Split(lag time.Duration, minReplicas bool, stay ...*Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.primary
	s := old.clone()
	s.rollback(time.Now().Add(-lag))
	c.replacePrimary(s)
	for _, conn := range stay {
		conn.server = old
	}
	old.readOnly = minReplicas
}

// Heal brings all connections back to the primary. What others have written since
// a [Cluster.Split] is discarded.
func (c *Cluster) Heal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.primary.readOnly = false
	for _, conn := range c.conns {
		conn.server = c.primary
	}
}

// HealTo is Heal, but it is the server of conn that becomes the primary.
func (c *Cluster) HealTo(conn *Conn) {
	c.mu.Lock()
	if conn.server != c.primary {
		c.replacePrimary(conn.server)
	}
	c.mu.Unlock()
	c.Heal()
}

// SetReadOnly says whether the primary refuses writes, as one without enough
// replicas does. Loading works.
func (c *Cluster) SetReadOnly(readOnly bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.primary.readOnly = readOnly
}

// Advance moves the clock of the primary, relative to the true time: forward, or
// back if d is negative.
func (c *Cluster) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.primary.ahead += d
}

// DeleteRing deletes a ring, as an eviction does: nothing is logged.
func (c *Cluster) DeleteRing(tenant string) {
	c.EditRing(tenant, func(f map[string][]byte) { clear(f) })
}

// EditRing changes the fields of a ring, as somebody with a shell does: nothing is
// logged. It reports whether there was a ring to edit.
func (c *Cluster) EditRing(tenant string, edit func(fields map[string][]byte)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.primary.bucket(rotation.BucketOf(tenant)).rings[tenant]
	if r == nil {
		return false
	}
	fields := r.copy()
	edit(fields)
	c.primary.replace(tenant, newRing(fields))
	return true
}

// SetWrongType says whether something that is not a ring is in the place of the
// tenant's. The ring comes back with false.
func (c *Cluster) SetWrongType(tenant string, wrong bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.primary.bucket(rotation.BucketOf(tenant)).rings[tenant]
	if r == nil && !wrong || r != nil && r.wrongType == wrong {
		return
	}
	set := ring{wrongType: wrong}
	if r != nil {
		set = *r
		set.wrongType = wrong
	}
	if !wrong && len(set.fields) == 0 {
		c.primary.replace(tenant, nil)
		return
	}
	c.primary.replace(tenant, &set)
}

// Trim shortens the log of a bucket to its newest entries.
func (c *Cluster) Trim(bucket, keep int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.primary.bucket(bucket)
	b.log = slices.Clone(b.log[max(0, len(b.log)-keep):])
	c.primary.undo = nil // there is no going back behind it
}

// Ring returns a copy of a tenant's fields, as the primary has them.
func (c *Cluster) Ring(tenant string) map[string][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.primary.bucket(rotation.BucketOf(tenant)).rings[tenant].copy()
}

// Tenants returns all tenants that the primary has a ring of, sorted.
func (c *Cluster) Tenants() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []string
	for _, b := range c.primary.buckets {
		if b != nil {
			all = slices.AppendSeq(all, maps.Keys(b.rings))
		}
	}
	slices.Sort(all)
	return all
}

// Now returns the primary's clock.
func (c *Cluster) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.primary.ahead).UTC()
}
