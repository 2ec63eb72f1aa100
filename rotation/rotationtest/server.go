package rotationtest

import (
	"bytes"
	"cmp"
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
	errNoNonce    = errors.New("rotationtest: the change has no nonce")
)

// A server is one Redis server with its data. The cluster's mutex guards it.
type server struct {
	cluster  *Cluster
	buckets  [rotation.Buckets]*bucket // nil: no data
	ahead    time.Duration             // how far its clock is ahead of true time
	readOnly bool
	run      string // see [rotation.SyncReply]
	undo     []undo // the oldest change first
}

// A bucket is the data of one bucket of the store.
type bucket struct {
	rings   map[string]*storedRing
	tenants map[string]bool
	log     []entry
	acks    map[string][]byte // sealed; a value is never changed
}

// A storedRing is immutable: a change replaces it.
type storedRing struct {
	fields    map[string][]byte
	digest    string
	wrongType bool
}

// An entry of a bucket's log. The first entry of a log has no tenant.
type entry struct {
	rotation.LogEntry
	id string
	ms int64
	n  int // counts the entries of one millisecond
}

func (e entry) place() rotation.Place { return rotation.Place{ID: e.id, Nonce: e.Nonce} }

func (e entry) compare(ms int64, n int) int {
	if e.ms != ms {
		return int(min(max(e.ms-ms, -1), 1))
	}
	return e.n - n
}

// An undo is the data that a write replaced. With it a server can be rolled back to
// the state of a replica that lags.
type undo struct {
	at      time.Time // true time
	bucket  int
	name    string // of a tenant or instance
	what    undoKind
	ring    *storedRing
	tenants bool   // the tenant was new in the bucket
	ack     []byte // nil: there was none
}

type undoKind byte

const (
	undoRing  undoKind = iota // a tenant's ring
	undoEntry                 // the newest log entry
	undoAck
)

func newServer(c *Cluster) *server { return &server{cluster: c, run: c.newRun()} }

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
		if u.ack != nil {
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
		s.buckets[i] = &bucket{rings: map[string]*storedRing{}, tenants: map[string]bool{}, acks: map[string][]byte{}}
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

// append adds an entry to the log of a bucket and returns its place. It makes a nonce for an entry
// that has none.
func (s *server) append(i int, ms int64, le rotation.LogEntry) rotation.Place {
	b := s.bucket(i)
	e := entry{LogEntry: le, ms: ms}
	e.MAC = bytes.Clone(le.MAC)
	if e.Nonce == "" {
		e.Nonce = s.cluster.nonce()
	}
	if n := len(b.log); n > 0 && b.log[n-1].ms == ms {
		e.n = b.log[n-1].n + 1
	}
	e.id = strconv.FormatInt(e.ms, 10) + "-" + strconv.Itoa(e.n)
	b.log = append(b.log, e)
	s.remember(undo{bucket: i, what: undoEntry})
	return e.place()
}

// find returns the index of a place in the log, and whether the log has it.
func (b *bucket) find(p rotation.Place) (int, bool) {
	if n := len(b.log); n > 0 && b.log[n-1].place() == p {
		return n - 1, true
	}
	ms, n, ok := parseID(p.ID)
	if !ok {
		return 0, false
	}
	i, ok := slices.BinarySearchFunc(b.log, 0, func(e entry, _ int) int { return e.compare(ms, n) })
	return i, ok && b.log[i].place() == p
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
	reply.Now, reply.Run = date(now), s.run
	at, proved := b.find(q.Place)
	acknowledges := proved && instance != "" && len(q.Ack) > 0
	if s.readOnly && (acknowledges || len(b.log) == 0) {
		return rotation.SyncReply{Err: errNoReplicas}
	}
	if acknowledges {
		s.acknowledge(q.Bucket, instance, q.Ack)
	}
	if len(b.log) == 0 {
		s.append(q.Bucket, now, rotation.LogEntry{})
		clear(b.acks) // those of an earlier log say nothing about this one
	}
	if proved {
		reply.Place, reply.Changed, reply.More = b.after(at, s.cluster.page)
	} else {
		reply.Resync = true
		reply.Place, reply.Changed, _ = b.after(max(0, len(b.log)-s.cluster.page)-1, s.cluster.page)
	}
	for _, tenant := range q.Digests {
		reply.Digests = append(reply.Digests, s.digest(q.Bucket, now, instance, tenant))
	}
	if q.Acks {
		reply.Acks = s.nearest(b, maxSyncAcks)
	}
	return reply
}

// digest returns the digest of a tenant's ring, and lists the tenant again if it is not listed.
func (s *server) digest(i int, now int64, instance, tenant string) string {
	b := s.bucket(i)
	r := b.rings[tenant]
	if r != nil && r.wrongType {
		return "!wrongtype" // equals no digest, so the instance loads the ring and gets the error
	}
	if instance != "" && !s.readOnly && r != nil && !b.tenants[tenant] {
		b.tenants[tenant] = true
		s.append(i, now, rotation.LogEntry{Op: "list", Tenant: tenant, Actor: instance})
	}
	return r.sum()
}

func (s *server) acknowledge(i int, instance string, sealed []byte) {
	b := s.bucket(i)
	s.remember(undo{bucket: i, what: undoAck, name: instance, ack: b.acks[instance]})
	b.acks[instance] = bytes.Clone(sealed)
}

// after returns the entries after the one at an index, or all if that is -1. It reads at most page
// entries and returns the place of the last.
func (b *bucket) after(at, page int) (place rotation.Place, changed []rotation.LogEntry, more bool) {
	rest := b.log[at+1:]
	if more = len(rest) > page; more {
		rest = rest[:page]
	}
	if at >= 0 {
		place = b.log[at].place()
	}
	for _, e := range rest {
		place = e.place()
		if e.Tenant != "" {
			le := e.LogEntry
			le.MAC = bytes.Clone(le.MAC)
			changed = append(changed, le)
		}
	}
	return place, changed, more
}

// The most acknowledgements that one call returns: see [rotation.Store].
const (
	maxSyncAcks = 64
	maxAcks     = 4096
)

// nearest returns the acknowledgements whose dates are nearest to the server's clock, at most n, sorted by instance.
func (s *server) nearest(b *bucket, n int) []rotation.RawAck {
	now := time.Now().Add(s.ahead)
	away := func(a rotation.RawAck) time.Duration { return now.Sub(a.At()).Abs() }
	var all []rotation.RawAck
	for instance, sealed := range b.acks {
		all = append(all, rotation.RawAck{Instance: instance, Sealed: bytes.Clone(sealed)})
	}
	slices.SortFunc(all, func(x, y rotation.RawAck) int {
		return cmp.Or(cmp.Compare(away(x), away(y)), strings.Compare(x.Instance, y.Instance))
	})
	all = all[:min(n, len(all))]
	slices.SortFunc(all, func(x, y rotation.RawAck) int { return strings.Compare(x.Instance, y.Instance) })
	return all
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
	notMade := rotation.Result{Code: rotation.NotMade}
	old := b.rings[c.Tenant]
	switch {
	case c.Nonce == "":
		return notMade, errNoNonce
	case s.readOnly:
		return notMade, errNoReplicas
	case old != nil && old.wrongType:
		return notMade, errWrongType
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
	result.Place = s.append(i, ms, rotation.LogEntry{
		Op: c.Op, Tenant: c.Tenant, KID: c.KID, Seq: c.Seq, Actor: c.Actor, Nonce: c.Nonce, MAC: c.MAC,
	})
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

func (s *server) forget(instance string, i int) {
	if b := s.buckets[i]; b != nil {
		if old := b.acks[instance]; old != nil {
			s.remember(undo{bucket: i, what: undoAck, name: instance, ack: old})
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
