package rotationtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

// The errors of a server.
var (
	errNoReplicas = errors.New("rotationtest: NOREPLICAS not enough good replicas to write")
	errWrongType  = errors.New("rotationtest: WRONGTYPE operation against a key holding the wrong kind of value")
)

// A server is one Redis server with its data. The cluster's mutex guards it.
type server struct {
	cluster  *Cluster
	buckets  [rotation.Buckets]*bucket // nil: no data
	ahead    time.Duration             // how far its clock is ahead of true time
	readOnly bool
	undo     []undo // the oldest change first
}

// A bucket is the data of one bucket of the store.
type bucket struct {
	rings   map[string]*storedRing
	tenants map[string]bool
	log     []entry
	acks    map[string]ack
}

// A storedRing is immutable: a change replaces it.
type storedRing struct {
	fields    map[string][]byte
	digest    string
	wrongType bool
}

// An entry of a bucket's log. The first entry of a log has no tenant.
type entry struct {
	place  rotation.Place
	ms     int64
	n      int // counts the entries of one millisecond
	tenant string
}

func (e entry) compare(ms int64, n int) int {
	if e.ms != ms {
		return int(min(max(e.ms-ms, -1), 1))
	}
	return e.n - n
}

type ack struct {
	place         entry // without the tenant
	at, goodSince time.Time
}

// An undo is the data that a write replaced. With it a server can be rolled back to
// the state of a replica that lags.
type undo struct {
	at      time.Time // true time
	bucket  int
	name    string // of a tenant or instance
	what    undoKind
	ring    *storedRing
	tenants bool // the tenant was new in the bucket
	ack     ack
	had     bool
}

type undoKind byte

const (
	undoRing  undoKind = iota // a tenant's ring
	undoEntry                 // the newest log entry
	undoAck
)

func newServer(c *Cluster) *server { return &server{cluster: c} }

// clone returns a replica that does not lag.
func (s *server) clone() *server {
	c := *s
	c.undo = slices.Clone(s.undo)
	for i, b := range s.buckets {
		if b != nil {
			c.buckets[i] = &bucket{maps.Clone(b.rings), maps.Clone(b.tenants), slices.Clone(b.log), maps.Clone(b.acks)}
		}
	}
	return &c
}

// rollback undoes all writes after t.
func (s *server) rollback(t time.Time) {
	for len(s.undo) > 0 && s.undo[len(s.undo)-1].at.After(t) {
		u := s.undo[len(s.undo)-1]
		s.undo = s.undo[:len(s.undo)-1]
		s.buckets[u.bucket].revert(u)
	}
}

func (b *bucket) revert(u undo) {
	switch u.what {
	case undoRing:
		b.setRing(u.name, u.ring)
		if u.tenants {
			delete(b.tenants, u.name)
		}
	case undoEntry:
		b.log = b.log[:len(b.log)-1]
	case undoAck:
		if u.had {
			b.acks[u.name] = u.ack
		} else {
			delete(b.acks, u.name)
		}
	}
}

// maxUndo is the length of the undo list from which on entries older than
// [ClusterConfig.History] are removed.
const maxUndo = 4096

func (s *server) remember(u undo) {
	u.at = time.Now()
	if len(s.undo) >= maxUndo && u.at.Sub(s.undo[len(s.undo)/2].at) > s.cluster.history {
		s.undo = append(s.undo[:0], s.undo[len(s.undo)/2:]...)
	}
	s.undo = append(s.undo, u)
}

func (s *server) bucket(i int) *bucket {
	if s.buckets[i] == nil {
		s.buckets[i] = &bucket{rings: map[string]*storedRing{}, tenants: map[string]bool{}, acks: map[string]ack{}}
	}
	return s.buckets[i]
}

// now returns the bucket's clock, in milliseconds: it never goes back.
func (s *server) now(b *bucket) int64 {
	ms := time.Now().Add(s.ahead).UnixMilli()
	if n := len(b.log); n > 0 {
		ms = max(ms, b.log[n-1].ms)
	}
	return ms
}

func date(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// append adds an entry to the log of a bucket and returns its place.
func (s *server) append(i int, ms int64, tenant string) rotation.Place {
	b := s.bucket(i)
	e := entry{ms: ms, tenant: tenant}
	if n := len(b.log); n > 0 && b.log[n-1].ms == ms {
		e.n = b.log[n-1].n + 1
	}
	e.place = rotation.Place{ID: strconv.FormatInt(e.ms, 10) + "-" + strconv.Itoa(e.n), Nonce: s.cluster.nonce()}
	b.log = append(b.log, e)
	s.remember(undo{bucket: i, what: undoEntry})
	return e.place
}

// find returns the index of a place in the log, and whether the log has it.
func (b *bucket) find(p rotation.Place) (int, bool) {
	if n := len(b.log); n > 0 && b.log[n-1].place == p {
		return n - 1, true
	}
	ms, n, ok := parseID(p.ID)
	if !ok {
		return 0, false
	}
	i, ok := slices.BinarySearchFunc(b.log, 0, func(e entry, _ int) int { return e.compare(ms, n) })
	return i, ok && b.log[i].place == p
}

func parseID(id string) (ms int64, n int, ok bool) {
	left, right, _ := strings.Cut(id, "-")
	ms, err1 := strconv.ParseInt(left, 10, 64)
	n, err2 := strconv.Atoi(right)
	return ms, n, err1 == nil && err2 == nil
}

func (s *server) sync(instance string, q rotation.SyncRequest) (reply rotation.SyncReply) {
	b := s.bucket(q.Bucket)
	now := s.now(b)
	reply.Now = date(now)
	at, proved := b.find(q.Place)
	if s.readOnly && (proved && instance != "" || len(b.log) == 0) {
		return rotation.SyncReply{Err: errNoReplicas}
	}
	if proved {
		if instance != "" {
			s.acknowledge(q.Bucket, instance, ack{b.log[at], reply.Now, q.GoodSince})
		}
		reply.Place, reply.Changed, reply.More = b.after(at, s.cluster.page)
	} else {
		if len(b.log) == 0 {
			s.append(q.Bucket, now, "")
		}
		reply.Resync = true
		reply.Place = b.log[len(b.log)-1].place
	}
	for _, tenant := range q.Digests {
		r := b.rings[tenant]
		sum := r.sum()
		if r != nil && r.wrongType {
			sum = "!wrongtype" // equals no digest, so the instance loads the ring and gets the error
		}
		reply.Digests = append(reply.Digests, sum)
		if instance != "" && !s.readOnly && r != nil && !r.wrongType && !b.tenants[tenant] {
			b.tenants[tenant] = true
			s.append(q.Bucket, now, tenant)
		}
	}
	reply.Vouched = b.vouched(instance, reply.Now, q)
	return reply
}

func (s *server) acknowledge(i int, instance string, a ack) {
	b := s.bucket(i)
	old, had := b.acks[instance]
	s.remember(undo{bucket: i, what: undoAck, name: instance, ack: old, had: had})
	b.acks[instance] = a
}

// after returns the tenants that changed after the entry at an index. It reads at most
// page entries and returns the place of the last.
func (b *bucket) after(at, page int) (place rotation.Place, changed []string, more bool) {
	rest := b.log[at+1:]
	if more = len(rest) > page; more {
		rest = rest[:page]
	}
	place = b.log[at].place
	for _, e := range rest {
		place = e.place
		if e.tenant != "" && !slices.Contains(changed, e.tenant) {
			changed = append(changed, e.tenant)
		}
	}
	return place, changed, more
}

func (b *bucket) vouched(instance string, now time.Time, q rotation.SyncRequest) bool {
	for name, a := range b.acks {
		if name != instance && !a.at.After(now) && now.Sub(a.at) < q.VouchWithin && !a.goodSince.IsZero() && now.Sub(a.goodSince) >= q.VouchFor {
			return true
		}
	}
	return false
}

func (s *server) load(tenant string) rotation.Snapshot {
	b := s.bucket(rotation.BucketOf(tenant))
	r := b.rings[tenant]
	if r != nil && r.wrongType {
		return rotation.Snapshot{Err: errWrongType}
	}
	return rotation.Snapshot{Fields: r.copy(), Digest: r.sum(), Now: date(s.now(b))}
}

func (s *server) write(c rotation.Change) (rotation.Result, error) {
	i := rotation.BucketOf(c.Tenant)
	b := s.bucket(i)
	if s.readOnly {
		return rotation.Result{}, errNoReplicas
	}
	old := b.rings[c.Tenant]
	if old != nil && old.wrongType {
		return rotation.Result{}, errWrongType
	}
	ms := s.now(b)
	result := rotation.Result{Code: rotation.Committed, Now: date(ms)}
	switch {
	case old.sum() != c.If:
		result.Code = rotation.Conflict
		return result, nil
	case slices.ContainsFunc(c.Bounds, func(bound ring.Bound) bool { return !holds(bound, result.Now) }):
		result.Code = rotation.OutOfBounds
		return result, nil
	}
	r := newRing(old.changed(c, ms))
	s.replace(c.Tenant, r)
	result.Digest = r.sum()
	result.Place = s.append(i, ms, c.Tenant)
	return result, nil
}

func holds(b ring.Bound, now time.Time) bool {
	d := b.At.Sub(now)
	return b.From <= d && d <= b.To
}

// replace replaces a tenant's ring without a log entry.
func (s *server) replace(tenant string, r *storedRing) {
	i := rotation.BucketOf(tenant)
	b := s.bucket(i)
	s.remember(undo{bucket: i, what: undoRing, name: tenant, ring: b.rings[tenant], tenants: !b.tenants[tenant]})
	b.setRing(tenant, r)
	b.tenants[tenant] = true
}

func (b *bucket) setRing(tenant string, r *storedRing) {
	if r == nil {
		delete(b.rings, tenant)
	} else {
		b.rings[tenant] = r
	}
}

func (s *server) tenants(i int) []string {
	if s.buckets[i] == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(s.buckets[i].tenants))
}

func (s *server) acks(i int, place rotation.Place) []rotation.Ack {
	b := s.bucket(i)
	at, proved := b.find(place)
	var all []rotation.Ack
	for _, instance := range slices.Sorted(maps.Keys(b.acks)) {
		a := b.acks[instance]
		all = append(all, rotation.Ack{
			Instance: instance, At: a.at, GoodSince: a.goodSince,
			Applied: proved && a.place.compare(b.log[at].ms, b.log[at].n) >= 0,
		})
	}
	return all
}

func (s *server) forget(instance string, i int) {
	if b := s.buckets[i]; b != nil {
		if old, had := b.acks[instance]; had {
			s.remember(undo{bucket: i, what: undoAck, name: instance, ack: old, had: true})
			delete(b.acks, instance)
		}
	}
}

// newRing returns a ring with these fields, or nil without fields: in Redis a hash
// without fields does not exist.
func newRing(fields map[string][]byte) *storedRing {
	if len(fields) == 0 {
		return nil
	}
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		for _, part := range [][]byte{[]byte(name), fields[name]} {
			h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
			h.Write(part)
		}
	}
	return &storedRing{fields: fields, digest: hex.EncodeToString(h.Sum(nil)[:20])}
}

func (r *storedRing) sum() string {
	if r == nil {
		return ""
	}
	return r.digest
}

func (r *storedRing) copy() map[string][]byte {
	if r == nil {
		return nil
	}
	fields := make(map[string][]byte, len(r.fields))
	for name, value := range r.fields {
		fields[name] = bytes.Clone(value)
	}
	return fields
}

// changed returns the fields after the change c.
func (r *storedRing) changed(c rotation.Change, ms int64) map[string][]byte {
	fields := make(map[string][]byte)
	if r != nil {
		maps.Copy(fields, r.fields)
	}
	for _, name := range c.Delete {
		delete(fields, name)
	}
	for name, value := range c.Set {
		fields[name] = bytes.Clone(value)
	}
	for _, kid := range c.Publish {
		fields["p:"+kid] = strconv.AppendInt(nil, ms, 10)
	}
	return fields
}
