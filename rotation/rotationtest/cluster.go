package rotationtest

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/keyturn/keyturn/rotation"
)

// ClusterConfig configures a [Cluster]. The zero value is ready to use.
type ClusterConfig struct {
	// Seed seeds the nonces, the delays and the losses.
	Seed uint64

	// Page is how many log entries one reply covers at most. 0 means 100.
	Page int

	// NoRun says that replies do not name the run, as those of a Redis that does not tell it.
	NoRun bool

	// History is how far back a replica can lag at most. 0 means one minute. It is
	// a lower bound: the Cluster may remember more.
	History time.Duration

	// Committed, if not nil, is called with each committed change, in order. It
	// must not call the Cluster.
	Committed func(Commit)
}

// A Commit is a change that a server committed.
type Commit struct {
	rotation.Change
	Instance string // the one that asked for the change
	At       time.Time
	Life     int  // counts the losses and splits of the store before this change
	Primary  bool // false: committed by a server that a split or SelectDatabase left behind
	Result   rotation.Result
}

// A Cluster is a simulated store in memory. Instances use it through connections,
// see [Cluster.Connect]. The methods of Cluster do to its servers what can happen
// to Redis servers; [Faults] do it to one connection.
//
// Its time is that of [time.Now]. In a bubble of testing/synctest it is
// deterministic, as long as no two events happen at the same instant. It is safe
// for concurrent use.
type Cluster struct {
	page      int
	noRun     bool
	history   time.Duration
	committed func(Commit)
	seed      uint64

	mu        sync.Mutex
	rng       *rand.Rand
	nonces    uint64
	runs      int
	life      int
	primary   *server
	conns     []*Conn
	databases map[int]*server
}

// NewCluster returns an empty store.
func NewCluster(cfg ClusterConfig) *Cluster {
	c := &Cluster{
		page: cfg.Page, noRun: cfg.NoRun, history: cfg.History, committed: cfg.Committed, seed: cfg.Seed,
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

// nonce returns a nonce that was never used before, not even before a failover.
func (c *Cluster) nonce() string {
	c.nonces++
	return strconv.FormatUint(c.rng.Uint64(), 36) + "." + strconv.FormatUint(c.nonces, 36)
}

// newRun names a run that was never named before.
func (c *Cluster) newRun() string {
	if c.noRun {
		return ""
	}
	c.runs++
	return "run " + strconv.Itoa(c.runs)
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

// replacePrimary makes s the primary, also for the connections to the old one.
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

// Failover promotes a replica that lags: everything that was written within lag is
// lost, including log entries and acknowledgements.
func (c *Cluster) Failover(lag time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.primary.clone()
	s.run = c.newRun()
	s.rollback(time.Now().Add(-lag))
	c.replacePrimary(s)
}

// Flush removes all data of the primary, as FLUSHALL does. The server runs on.
func (c *Cluster) Flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := newServer(c)
	s.ahead, s.readOnly, s.run = c.primary.ahead, c.primary.readOnly, c.primary.run
	c.replacePrimary(s)
}

// Wipe restarts the primary without any data.
func (c *Cluster) Wipe() {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := newServer(c)
	s.ahead = c.primary.ahead
	c.replacePrimary(s)
}

// A Dump is a copy of a primary's data.
type Dump struct{ server *server }

// Dump copies the primary's data.
func (c *Cluster) Dump() Dump {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Dump{c.primary.clone()}
}

// Restore restarts the primary with the data of a dump.
func (c *Cluster) Restore(d Dump) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := d.server.clone()
	s.run = c.newRun()
	s.ahead, s.readOnly = c.primary.ahead, false
	c.replacePrimary(s)
}

// Split promotes a replica that lags by lag. The connections in stay keep the old
// primary, all others get the new one. With minReplicas the old primary refuses
// writes from then on (min-replicas-to-write 1).
func (c *Cluster) Split(lag time.Duration, minReplicas bool, stay ...*Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.primary
	s := old.clone()
	s.run = c.newRun()
	s.rollback(time.Now().Add(-lag))
	c.replacePrimary(s)
	for _, conn := range stay {
		conn.server = old
	}
	old.readOnly = minReplicas
}

// Heal connects all connections to the primary. Writes to other servers since a
// [Cluster.Split] are lost.
func (c *Cluster) Heal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.primary.readOnly = false
	for _, conn := range c.conns {
		conn.server = c.primary
	}
}

// HealTo is Heal, but the server of conn becomes the primary first.
func (c *Cluster) HealTo(conn *Conn) {
	c.mu.Lock()
	if conn.server != c.primary {
		c.replacePrimary(conn.server)
	}
	c.mu.Unlock()
	c.Heal()
}

// SetReadOnly says whether the primary refuses writes, as one with too few replicas
// does. Reads still work.
func (c *Cluster) SetReadOnly(readOnly bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.primary.readOnly = readOnly
}

// SetReadOnlyAt is [Cluster.SetReadOnly] for the server that conn is connected to. After
// a [Cluster.Split] it makes an old primary refuse writes later than the split, as
// Redis does after min-replicas-max-lag.
func (c *Cluster) SetReadOnlyAt(conn *Conn, readOnly bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	conn.server.readOnly = readOnly
}

// Advance moves the primary's clock forward by d, or back if d is negative.
func (c *Cluster) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.primary.ahead += d
}

// DeleteRing deletes a ring without a log entry, as an eviction does.
func (c *Cluster) DeleteRing(tenant string) {
	c.EditRing(tenant, func(f map[string][]byte) { clear(f) })
}

// EditRing changes the fields of a ring without a log entry, as an operator with
// redis-cli may do. It reports whether the ring existed.
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

// ForgeAck stores sealed as the acknowledgement of instance in a bucket, as a person would who can
// write to the store. If sealed is nil, ForgeAck removes the acknowledgement.
func (c *Cluster) ForgeAck(bucket int, instance string, sealed []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	acks := c.primary.bucket(bucket).acks
	if acks[instance] = bytes.Clone(sealed); sealed == nil {
		delete(acks, instance)
	}
}

// SetWrongType says whether the key of the tenant's ring holds a value of another
// type. Setting it to false brings the ring back.
func (c *Cluster) SetWrongType(tenant string, wrong bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.primary.bucket(rotation.BucketOf(tenant)).rings[tenant]
	if r == nil && !wrong || r != nil && r.wrongType == wrong {
		return
	}
	set := storedRing{wrongType: wrong}
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

// Trim shortens the log of a bucket to the newest keep entries.
func (c *Cluster) Trim(bucket, keep int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.primary.bucket(bucket)
	b.log = slices.Clone(b.log[max(0, len(b.log)-keep):])
	c.primary.undo = nil // an undo would need the entries that are removed
}

// CutLog removes the newest n entries from the log of a bucket, as a person would who hides a change.
func (c *Cluster) CutLog(bucket, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.primary.bucket(bucket)
	b.log = slices.Clone(b.log[:max(0, len(b.log)-n)])
	c.primary.undo = nil
}

// AddEntry appends an entry to the log of a bucket, as a person would with XADD. Its nonce may be empty.
func (c *Cluster) AddEntry(bucket int, e rotation.LogEntry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.primary.bucket(bucket)
	c.primary.append(bucket, c.primary.now(b), e)
	b.log[len(b.log)-1].Nonce = e.Nonce
}

// DropEntry removes the entries with a nonce from the log of a bucket, as a person would with XDEL.
func (c *Cluster) DropEntry(bucket int, nonce string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.primary.bucket(bucket)
	b.log = slices.DeleteFunc(slices.Clone(b.log), func(e entry) bool { return e.Nonce == nonce })
	c.primary.undo = nil // an undo would need the entries that are removed
}

// Ring returns a copy of the fields of a tenant's ring on the primary.
func (c *Cluster) Ring(tenant string) map[string][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.primary.bucket(rotation.BucketOf(tenant)).rings[tenant].copy()
}

// Tenants returns the tenants that have a ring on the primary, sorted.
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
