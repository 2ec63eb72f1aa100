package rotationtest

import (
	"context"
	"errors"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/rotation"
)

// The errors of calls whose connection fails.
var (
	errRefused = errors.New("rotationtest: connection refused")
	errLost    = errors.New("rotationtest: the connection broke before the reply came")
)

// A Cut says whether and how a connection is cut.
type Cut int

// The cuts.
const (
	Connected Cut = iota
	Refused       // calls fail at once
	BlackHole     // calls hang until their context ends
)

// Faults are the faults of a connection. The zero value is a connection without
// faults, whose calls take no time.
type Faults struct {
	Cut Cut

	// LostBuckets, if not nil, reports the buckets whose server does not answer, as
	// when one server of a Cluster is unreachable.
	LostBuckets func(bucket int) bool

	// ReadOnly refuses this connection's writes and acknowledgements.
	ReadOnly bool

	// Before and After are how long a call takes before and after its effect. A
	// random duration below Spread is added to each. If the caller stops waiting,
	// a call that has begun still has its effect, but late.
	Before, After, Spread time.Duration

	// LoseRequest is the probability that a call fails without an effect, LoseReply
	// that it fails after its effect. Both fail at once.
	LoseRequest, LoseReply float64

	// LoseNudge is the probability that [Conn.Listen] misses a change, DoubleNudge
	// that it hears of it twice. Each nudge arrives after a random duration below
	// DelayNudge, so one may overtake another.
	LoseNudge, DoubleNudge float64
	DelayNudge             time.Duration
}

// A Conn is an instance's connection to a [Cluster]: a [rotation.Store]. It is
// safe for concurrent use.
type Conn struct {
	cluster  *Cluster
	instance string

	// Guarded by the cluster's mutex.
	server    *server
	faults    Faults
	listeners []*listener
	calls     int
}

var _ rotation.Digester = (*Conn)(nil)

// SetFaults replaces the connection's faults, from the next call on.
func (c *Conn) SetFaults(f Faults) {
	c.cluster.mu.Lock()
	defer c.cluster.mu.Unlock()
	c.faults = f
	for _, l := range c.listeners {
		l.wake()
	}
}

// SelectDatabase connects to the database of that number. 0 is the primary's own;
// the others begin without data.
func (c *Conn) SelectDatabase(n int) {
	c.cluster.mu.Lock()
	defer c.cluster.mu.Unlock()
	if n == 0 {
		c.server = c.cluster.primary
		return
	}
	if c.cluster.databases[n] == nil {
		c.cluster.databases[n] = newServer(c.cluster)
	}
	c.server = c.cluster.databases[n]
}

// Disconnect ends Listen and makes all later calls fail.
func (c *Conn) Disconnect() {
	c.SetFaults(Faults{Cut: Refused})
	c.cluster.mu.Lock()
	defer c.cluster.mu.Unlock()
	c.cluster.conns = slices.DeleteFunc(c.cluster.conns, func(o *Conn) bool { return o == c })
}

// Ring returns a copy of the fields of a tenant's ring on the server of this
// connection.
func (c *Conn) Ring(tenant string) map[string][]byte {
	c.cluster.mu.Lock()
	defer c.cluster.mu.Unlock()
	return c.server.bucket(rotation.BucketOf(tenant)).rings[tenant].copy()
}

// Calls returns how many calls the connection has made.
func (c *Conn) Calls() int {
	c.cluster.mu.Lock()
	defer c.cluster.mu.Unlock()
	return c.calls
}

// A fate decides what happens to one call.
type fate struct {
	Faults
	loseRequest, loseReply bool
	before, after          time.Duration
}

// fate draws the fate of a call. It depends only on the call and the time, not on
// earlier calls. So goroutines that call at the same time do not change each
// other's fate, whatever their order.
func (c *Conn) fate(what string) fate {
	c.cluster.mu.Lock()
	defer c.cluster.mu.Unlock()
	c.calls++
	f := fate{Faults: c.faults, before: c.faults.Before, after: c.faults.After}
	if f.Spread == 0 && f.LoseRequest == 0 && f.LoseReply == 0 {
		return f
	}
	rng := c.chance(what)
	if f.Spread > 0 {
		f.before += draw(rng, f.Spread)
		f.after += draw(rng, f.Spread)
	}
	f.loseRequest = f.LoseRequest > 0 && rng.Float64() < f.LoseRequest
	f.loseReply = f.LoseReply > 0 && rng.Float64() < f.LoseReply
	return f
}

// chance returns a source of random numbers for one decision at this moment.
func (c *Conn) chance(what string) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(what))
	h.Write([]byte(c.instance))
	return rand.New(rand.NewPCG(c.cluster.seed^h.Sum64(), uint64(time.Now().UnixNano())))
}

// draw returns a duration below d.
func draw(rng *rand.Rand, d time.Duration) time.Duration { return time.Duration(rng.Int64N(int64(d))) }

// do makes a call: it runs effect on the connection's server and returns its result,
// as the faults have it. what distinguishes calls at the same moment.
func do[T any](ctx context.Context, c *Conn, what string, effect func(s *server, f fate) T) (result T, err error) {
	if err := ctx.Err(); err != nil {
		return result, err
	}
	f := c.fate(what)
	switch {
	case f.Cut == Refused:
		return result, errRefused
	case f.Cut == BlackHole:
		<-ctx.Done()
		return result, ctx.Err()
	case f.loseRequest:
		return result, errLost
	}
	start := time.Now()
	if err := sleep(ctx, f.before); err != nil {
		time.AfterFunc(f.before-time.Since(start), func() { onServer(c, f, effect) })
		return result, err
	}
	made := onServer(c, f, effect)
	if f.loseReply {
		return result, errLost
	}
	if err := sleep(ctx, f.after); err != nil {
		return result, err
	}
	return made, nil
}

func onServer[T any](c *Conn, f fate, effect func(s *server, f fate) T) T {
	c.cluster.mu.Lock()
	defer c.cluster.mu.Unlock()
	return effect(c.server, f)
}

// sleep returns nil after d, or the error of ctx if that ends first.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// bucketErr returns the error of a call to a bucket whose server is lost, or nil.
func (f Faults) bucketErr(bucket int) error {
	if f.LostBuckets != nil && f.LostBuckets(bucket) {
		return errRefused
	}
	return nil
}

// Sync implements [rotation.Store].
func (c *Conn) Sync(ctx context.Context, instance string, requests []rotation.SyncRequest) []rotation.SyncReply {
	replies, err := do(ctx, c, "sync", func(s *server, f fate) []rotation.SyncReply {
		replies := make([]rotation.SyncReply, len(requests))
		for i, q := range requests {
			if replies[i].Err = f.bucketErr(q.Bucket); replies[i].Err != nil {
				continue
			}
			readOnly := s.readOnly
			s.readOnly = s.readOnly || f.ReadOnly
			replies[i] = s.sync(instance, q)
			s.readOnly = readOnly
		}
		return replies
	})
	if err != nil {
		replies = make([]rotation.SyncReply, len(requests))
		for i := range replies {
			replies[i].Err = err
		}
	}
	return replies
}

// Load implements [rotation.Store].
func (c *Conn) Load(ctx context.Context, tenants []string) []rotation.Snapshot {
	snapshots, err := do(ctx, c, "load"+strings.Join(tenants, ","), func(s *server, f fate) []rotation.Snapshot {
		snapshots := make([]rotation.Snapshot, len(tenants))
		for i, tenant := range tenants {
			if snapshots[i].Err = f.bucketErr(rotation.BucketOf(tenant)); snapshots[i].Err == nil {
				snapshots[i] = s.load(tenant)
			}
		}
		return snapshots
	})
	if err != nil {
		snapshots = make([]rotation.Snapshot, len(tenants))
		for i := range snapshots {
			snapshots[i].Err = err
		}
	}
	return snapshots
}

// LoadFields implements [rotation.Digester].
func (c *Conn) LoadFields(ctx context.Context, tenants []string) []rotation.Snapshot {
	snapshots := c.Load(ctx, tenants)
	for i := range snapshots {
		snapshots[i].Digest = ""
	}
	return snapshots
}

// Digest implements [rotation.Digester].
func (c *Conn) Digest(fields map[string][]byte) string { return newRing(fields).sum() }

// An outcome is a result or an error.
type outcome[T any] struct {
	result T
	err    error
}

// call makes a call as do does, for an effect that may fail.
func call[T any](ctx context.Context, c *Conn, what string, effect func(s *server, f fate) (T, error)) (T, error) {
	o, err := do(ctx, c, what, func(s *server, f fate) outcome[T] {
		result, err := effect(s, f)
		return outcome[T]{result, err}
	})
	if err != nil {
		var none T
		return none, err
	}
	return o.result, o.err
}

// Tenants implements [rotation.Store].
func (c *Conn) Tenants(ctx context.Context, buckets []int) ([][]string, error) {
	return call(ctx, c, "tenants", func(s *server, f fate) ([][]string, error) {
		all := make([][]string, len(buckets))
		for i, b := range buckets {
			if err := f.bucketErr(b); err != nil {
				return nil, err
			}
			all[i] = s.tenants(b)
		}
		return all, nil
	})
}

// Write implements [rotation.Store].
func (c *Conn) Write(ctx context.Context, change rotation.Change) (rotation.Result, error) {
	return call(ctx, c, "write"+change.Tenant, func(s *server, f fate) (rotation.Result, error) {
		if err := f.bucketErr(rotation.BucketOf(change.Tenant)); err != nil {
			return rotation.Result{}, err
		}
		if f.ReadOnly {
			return rotation.Result{Code: rotation.NotMade}, errNoReplicas
		}
		result, err := s.write(change)
		if err == nil && result.Code == rotation.Committed {
			result.Told = c.cluster.announce(s, c.instance, change, result)
		}
		return result, err
	})
}

// announce nudges the listeners on s, and calls [ClusterConfig.Committed]. It returns how many
// listeners there are that the server can reach.
func (c *Cluster) announce(s *server, instance string, change rotation.Change, result rotation.Result) (told int) {
	for _, conn := range c.conns {
		if conn.server == s {
			conn.nudge(rotation.BucketOf(change.Tenant))
			if conn.faults.Cut == Connected {
				told += len(conn.listeners)
			}
		}
	}
	result.Told = told
	if c.committed != nil {
		c.committed(Commit{change, instance, time.Now(), c.life, s == c.primary, result})
	}
	return told
}

// Acks implements [rotation.Store].
func (c *Conn) Acks(ctx context.Context, bucket int) ([]rotation.RawAck, time.Time, error) {
	type answer struct {
		acks []rotation.RawAck
		now  time.Time
	}
	a, err := call(ctx, c, "acks", func(s *server, f fate) (answer, error) {
		if err := f.bucketErr(bucket); err != nil {
			return answer{}, err
		}
		b := s.bucket(bucket)
		return answer{s.nearest(b, maxAcks), date(s.now(b))}, nil
	})
	return a.acks, a.now, err
}

// Forget implements [rotation.Store].
func (c *Conn) Forget(ctx context.Context, instance string, buckets []int) error {
	_, err := call(ctx, c, "forget", func(s *server, f fate) (struct{}, error) {
		if f.ReadOnly || s.readOnly {
			return struct{}{}, errNoReplicas
		}
		for _, b := range buckets {
			if err := f.bucketErr(b); err != nil {
				return struct{}{}, err
			}
			s.forget(instance, b)
		}
		return struct{}{}, nil
	})
	return err
}

// A listener is one running call of Listen. The cluster's mutex guards it.
type listener struct {
	woken   chan struct{} // holds at most one
	waiting []nudge
}

type nudge struct {
	bucket int
	at     time.Time
}

func (l *listener) wake() {
	select {
	case l.woken <- struct{}{}:
	default:
	}
}

// due removes and returns the nudges that have arrived by now, and returns when the
// next one arrives.
func (l *listener) due(now time.Time) (buckets []int, next time.Time) {
	l.waiting = slices.DeleteFunc(l.waiting, func(n nudge) bool {
		due := !n.at.After(now)
		if due {
			buckets = append(buckets, n.bucket)
		} else if next.IsZero() || n.at.Before(next) {
			next = n.at
		}
		return due
	})
	return buckets, next
}

// nudge sends a change to the connection's listeners, as its faults allow.
func (c *Conn) nudge(bucket int) {
	f := c.faults
	if len(c.listeners) == 0 || f.Cut != Connected || f.bucketErr(bucket) != nil {
		return
	}
	rng, times := c.chance("nudge"+strconv.Itoa(bucket)), 1
	if f.LoseNudge > 0 && rng.Float64() < f.LoseNudge {
		times = 0
	} else if f.DoubleNudge > 0 && rng.Float64() < f.DoubleNudge {
		times = 2
	}
	for range times {
		at := time.Now()
		if f.DelayNudge > 0 {
			at = at.Add(draw(rng, f.DelayNudge))
		}
		c.hear(nudge{bucket, at})
	}
}

func (c *Conn) hear(n nudge) {
	for _, l := range c.listeners {
		l.waiting = append(l.waiting, n)
		l.wake()
	}
}

// Forge nudges the connection's listeners without a change.
func (c *Conn) Forge(bucket int) {
	c.cluster.mu.Lock()
	defer c.cluster.mu.Unlock()
	c.hear(nudge{bucket, time.Now()})
}

// Listen implements [rotation.Store].
func (c *Conn) Listen(ctx context.Context, changed func(bucket int)) error {
	l := &listener{woken: make(chan struct{}, 1)}
	if _, err := do(ctx, c, "listen", func(*server, fate) bool {
		if ctx.Err() == nil {
			c.listeners = append(c.listeners, l)
		}
		return true
	}); err != nil {
		return err
	}
	defer c.unlisten(l)
	for {
		buckets, next, err := c.heard(l)
		if err != nil {
			return err
		}
		for _, b := range buckets {
			changed(b)
		}
		if err := l.wait(ctx, next); err != nil {
			return err
		}
	}
}

func (c *Conn) heard(l *listener) (buckets []int, next time.Time, err error) {
	c.cluster.mu.Lock()
	defer c.cluster.mu.Unlock()
	if c.faults.Cut == Refused {
		return nil, next, errLost
	}
	buckets, next = l.due(time.Now())
	return buckets, next, nil
}

// wait returns at next, unless that is zero, or when the listener is woken.
func (l *listener) wait(ctx context.Context, next time.Time) error {
	var due <-chan time.Time
	if !next.IsZero() {
		t := time.NewTimer(time.Until(next))
		defer t.Stop()
		due = t.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-due:
	case <-l.woken:
	}
	return nil
}

func (c *Conn) unlisten(l *listener) {
	c.cluster.mu.Lock()
	defer c.cluster.mu.Unlock()
	c.listeners = slices.DeleteFunc(c.listeners, func(o *listener) bool { return o == l })
}
