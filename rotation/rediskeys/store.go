package rediskeys

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/rotation"
)

const (
	// maxEntries is how much of a log one reply covers.
	maxEntries = 500

	// maxRings is how many rings one script reads: Redis does nothing else
	// meanwhile.
	maxRings = 32
)

var errUnexpected = errors.New("the reply is not what the script returns")

// Sync implements [rotation.Store]. A poll of all buckets with nothing new is one
// command for each.
func (s *Store) Sync(ctx context.Context, instance string, requests []rotation.SyncRequest) []rotation.SyncReply {
	replies := make([]rotation.SyncReply, len(requests))
	calls := make([]call, 0, len(requests))
	asked := make([]int, 0, len(requests))
	nonce := newNonce()
	for i, r := range requests {
		c, err := s.syncCall(instance, r, nonce)
		if err != nil {
			replies[i].Err = err
			continue
		}
		calls, asked = append(calls, c), append(asked, i)
	}
	for n, r := range s.run(ctx, s.scripts.sync, calls) {
		i := asked[n]
		replies[i] = readSync(r, requests[i])
	}
	return replies
}

func (s *Store) syncCall(instance string, r rotation.SyncRequest, nonce string) (call, error) {
	if r.Bucket < 0 || r.Bucket >= rotation.Buckets {
		return call{}, fmt.Errorf("rediskeys: sync: there is no bucket %d", r.Bucket)
	}
	k := s.buckets[r.Bucket]
	names := []string{k.log, k.ack, k.tenants}
	for _, tenant := range r.Digests {
		if rotation.BucketOf(tenant) != r.Bucket {
			return call{}, fmt.Errorf("rediskeys: sync: tenant %q is not of bucket %d", tenant, r.Bucket)
		}
		names = append(names, k.ofRing(tenant))
	}
	id, placeNonce := spell(r.Place)
	return call{keys: names, args: append([]string{
		id, placeNonce, instance, ms(r.GoodSince),
		strconv.FormatInt(r.VouchWithin.Milliseconds(), 10),
		strconv.FormatInt(ceil(r.VouchFor, time.Millisecond), 10),
		nonce + "/" + strconv.Itoa(r.Bucket), strconv.Itoa(maxEntries), s.logLength,
	}, r.Digests...)}, nil
}

func readSync(r reply, q rotation.SyncRequest) rotation.SyncReply {
	what := "sync of bucket " + strconv.Itoa(q.Bucket)
	if r.err != nil {
		return rotation.SyncReply{Err: explain(what, r.err)}
	}
	v := values{list: r.value}
	out := rotation.SyncReply{
		Resync:  v.text() == "resync",
		Place:   rotation.Place{ID: v.text(), Nonce: v.text()},
		More:    v.text() == "1",
		Now:     v.time(),
		Vouched: v.text() == "1",
		Changed: v.texts(),
		Digests: v.texts(),
	}
	if v.bad || len(out.Digests) != len(q.Digests) {
		return rotation.SyncReply{Err: explain(what, errUnexpected)}
	}
	return out
}

// Load implements [rotation.Store]. Each script reads up to 32 rings.
func (s *Store) Load(ctx context.Context, tenants []string) []rotation.Snapshot {
	snapshots := make([]rotation.Snapshot, len(tenants))
	calls, parts := s.loadCalls(tenants)
	for n, r := range s.run(ctx, s.scripts.load, calls) {
		readLoad(r, tenants, parts[n], snapshots)
	}
	return snapshots
}

// loadCalls returns calls, and for each the indexes of the tenants in it.
func (s *Store) loadCalls(tenants []string) (calls []call, parts [][]int) {
	var byBucket [rotation.Buckets][]int
	for i, tenant := range tenants {
		b := rotation.BucketOf(tenant)
		byBucket[b] = append(byBucket[b], i)
	}
	for b, all := range byBucket {
		for part := range slices.Chunk(all, maxRings) {
			k := s.buckets[b]
			names := make([]string, 0, 2+len(part))
			names = append(names, k.log, k.ack)
			for _, i := range part {
				names = append(names, k.ofRing(tenants[i]))
			}
			calls, parts = append(calls, call{keys: names}), append(parts, part)
		}
	}
	return calls, parts
}

func readLoad(r reply, tenants []string, part []int, snapshots []rotation.Snapshot) {
	list, _ := r.value.([]any)
	v := values{list: r.value}
	now := v.time()
	if r.err == nil && (v.bad || len(list) != 1+len(part)) {
		r.err = errUnexpected
	}
	for n, i := range part {
		if r.err != nil {
			snapshots[i].Err = explain(loadOf(tenants[i]), r.err)
			continue
		}
		snapshots[i] = readRing(list[1+n], tenants[i], now)
	}
}

// loadOf names what was read so that its key can be typed.
func loadOf(tenant string) string {
	return fmt.Sprintf("load of tenant %q (bucket %d)", tenant, rotation.BucketOf(tenant))
}

func readRing(value any, tenant string, now time.Time) rotation.Snapshot {
	what := loadOf(tenant)
	if text, ok := value.(string); ok {
		return rotation.Snapshot{Err: explain(what, serverError(text))}
	}
	v := values{list: value}
	fields := make(map[string][]byte, v.left()/2)
	for v.left() > 0 {
		name := v.text()
		fields[name] = []byte(v.text())
	}
	if v.bad {
		return rotation.Snapshot{Err: explain(what, errUnexpected)}
	}
	return rotation.Snapshot{Fields: fields, Digest: digest(fields), Now: now}
}

// A serverError is an error of Redis' that came within a reply.
type serverError string

func (e serverError) Error() string { return string(e) }

// RedisError says what it is, as the client's own do.
func (serverError) RedisError() {}

// Tenants implements [rotation.Store]. Each bucket's are sorted.
func (s *Store) Tenants(ctx context.Context, buckets []int) ([][]string, error) {
	calls, err := s.eachBucket(buckets, func(k keys) call { return call{keys: []string{k.tenants, k.ack}} })
	if err != nil {
		return nil, err
	}
	all := make([][]string, len(buckets))
	for i, r := range s.run(ctx, s.scripts.tenants, calls) {
		if r.err != nil {
			return nil, explain("tenants of bucket "+strconv.Itoa(buckets[i]), r.err)
		}
		v := values{list: []any{r.value}}
		if all[i] = v.texts(); v.bad {
			return nil, explain("tenants of bucket "+strconv.Itoa(buckets[i]), errUnexpected)
		}
		slices.Sort(all[i])
	}
	return all, nil
}

func (s *Store) eachBucket(buckets []int, f func(keys) call) ([]call, error) {
	calls := make([]call, 0, len(buckets))
	for _, b := range buckets {
		if b < 0 || b >= rotation.Buckets {
			return nil, fmt.Errorf("rediskeys: there is no bucket %d", b)
		}
		calls = append(calls, f(s.buckets[b]))
	}
	return calls, nil
}

// Write implements [rotation.Store]. The client sends it once: if a connection
// breaks, it is not known whether the change was made. Had it been sent again
// after it was made, the answer would be [rotation.Conflict], and say the
// opposite. Whoever loads the ring sees what became of it.
//
// What a change sets and deletes, it sets.
func (s *Store) Write(ctx context.Context, c rotation.Change) (rotation.Result, error) {
	bucket := rotation.BucketOf(c.Tenant)
	k := s.buckets[bucket]
	nonce := newNonce()
	args := []string{
		c.Tenant, c.If, string(c.Op), c.KID, strconv.Itoa(c.Seq), c.Actor, nonce, s.logLength,
		s.channel, strconv.Itoa(bucket),
	}
	args = append(args, writeLists(c)...)
	r := s.runOnce(ctx, s.scripts.write, call{keys: []string{k.ofRing(c.Tenant), k.log, k.tenants, k.ack}, args: args})
	what := "write of tenant " + strconv.Quote(c.Tenant)
	if r.err != nil {
		return rotation.Result{}, explain(what, r.err)
	}
	result, ok := readWrite(r.value, nonce)
	if !ok {
		return rotation.Result{}, explain(what, errUnexpected)
	}
	return result, nil
}

// writeLists spells the parts of a change that are many. Bounds are in
// microseconds, as Lua's numbers hold no nanoseconds of this century; what is
// below that makes them narrower.
func writeLists(c rotation.Change) []string {
	args := []string{strconv.Itoa(len(c.Bounds))}
	for _, b := range c.Bounds {
		args = append(args,
			strconv.FormatInt(b.At.UnixMicro(), 10),
			strconv.FormatInt(ceil(b.From, time.Microsecond), 10),
			strconv.FormatInt(floor(b.To, time.Microsecond), 10))
	}
	args = append(args, strconv.Itoa(len(c.Set)))
	for name, value := range c.Set {
		args = append(args, name, string(value))
	}
	gone := slices.DeleteFunc(slices.Clone(c.Delete), func(name string) bool { return sets(c, name) })
	args = append(args, strconv.Itoa(len(gone)))
	args = append(args, gone...)
	args = append(args, strconv.Itoa(len(c.Publish)))
	return append(args, c.Publish...)
}

func sets(c rotation.Change, name string) bool {
	_, ok := c.Set[name]
	kid, published := strings.CutPrefix(name, "p:")
	return ok || published && slices.Contains(c.Publish, kid)
}

func readWrite(value any, nonce string) (rotation.Result, bool) {
	v := values{list: value}
	code := v.text()
	result := rotation.Result{Now: v.time()}
	switch code {
	case "ok":
		result.Code = rotation.Committed
		result.Place = rotation.Place{ID: v.text(), Nonce: nonce}
		result.Digest = v.text()
	case "conflict":
		result.Code = rotation.Conflict
	case "bounds":
		result.Code = rotation.OutOfBounds
	default:
		return rotation.Result{}, false
	}
	return result, !v.bad
}

// Acks implements [rotation.Store]. Of a place that the log does not have, any
// more or at all, nobody is known to have applied it: it may have been lost with
// a server. They are sorted by instance; those older than a day are not kept.
func (s *Store) Acks(ctx context.Context, bucket int, place rotation.Place) ([]rotation.Ack, error) {
	id, nonce := spell(place)
	calls, err := s.eachBucket([]int{bucket}, func(k keys) call {
		return call{keys: []string{k.log, k.ack}, args: []string{id, nonce}}
	})
	if err != nil {
		return nil, err
	}
	r := s.run(ctx, s.scripts.acks, calls)[0]
	what := "acknowledgements of bucket " + strconv.Itoa(bucket)
	if r.err != nil {
		return nil, explain(what, r.err)
	}
	acks, ok := readAcks(r.value, id)
	if !ok {
		return nil, explain(what, errUnexpected)
	}
	return acks, nil
}

func readAcks(value any, id string) ([]rotation.Ack, bool) {
	v := values{list: value}
	proved := v.text() == "1"
	now := v.time()
	flat := v.texts()
	if v.bad || len(flat)%2 != 0 {
		return nil, false
	}
	var acks []rotation.Ack
	for i := 0; i < len(flat); i += 2 {
		ack, at, ok := readAck(flat[i+1])
		if !ok || now.Sub(ack.At) > 24*time.Hour || ack.At.Sub(now) > time.Minute {
			continue
		}
		ack.Instance = flat[i]
		ack.Applied = proved && compareIDs(at, id) >= 0
		acks = append(acks, ack)
	}
	slices.SortFunc(acks, func(a, b rotation.Ack) int { return strings.Compare(a.Instance, b.Instance) })
	return acks, true
}

// readAck reads "<id> <nonce> <good since> <at>". A time of 0 is none.
func readAck(text string) (ack rotation.Ack, id string, ok bool) {
	parts := strings.Split(text, " ")
	if len(parts) != 4 {
		return ack, "", false
	}
	_, _, isID := parseID(parts[0])
	since, err1 := strconv.ParseInt(parts[2], 10, 64)
	at, err2 := strconv.ParseInt(parts[3], 10, 64)
	ack.At = date(at)
	if since > 0 {
		ack.GoodSince = date(since)
	}
	return ack, parts[0], isID && err1 == nil && err2 == nil
}

// Forget implements [rotation.Store].
func (s *Store) Forget(ctx context.Context, instance string, buckets []int) error {
	calls, err := s.eachBucket(buckets, func(k keys) call { return call{keys: []string{k.ack}, args: []string{instance}} })
	if err != nil {
		return err
	}
	var errs []error
	for i, r := range s.run(ctx, s.scripts.forget, calls) {
		if r.err != nil {
			errs = append(errs, explain("forget in bucket "+strconv.Itoa(buckets[i]), r.err))
		}
	}
	return errors.Join(errs...)
}
