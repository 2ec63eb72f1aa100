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
	// pageSize is how many log entries one reply covers at most.
	pageSize = 500

	// maxRings is how many rings one script reads at most. Redis does nothing else
	// while a script runs.
	maxRings = 32
)

var errUnexpected = errors.New("the reply is not what the script returns")

// Sync implements [rotation.Store]. If nothing is new, a poll costs one command for
// each bucket.
func (s *Store) Sync(ctx context.Context, instance string, requests []rotation.SyncRequest) []rotation.SyncReply {
	replies := make([]rotation.SyncReply, len(requests))
	calls := make([]call, 0, len(requests))
	requestOf := make([]int, 0, len(requests)) // the index of each call's request
	nonce := newNonce()
	for i, r := range requests {
		c, err := s.syncCall(instance, r, nonce)
		if err != nil {
			replies[i].Err = err
			continue
		}
		calls, requestOf = append(calls, c), append(requestOf, i)
	}
	for n, r := range s.run(ctx, s.scripts.sync, calls) {
		i := requestOf[n]
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
		names = append(names, k.ring(tenant))
	}
	id, placeNonce := placeArgs(r.Place)
	return call{keys: names, args: append([]string{
		id, placeNonce, instance, formatMillis(r.GoodSince),
		strconv.FormatInt(r.VouchWithin.Milliseconds(), 10),
		strconv.FormatInt(ceil(r.VouchFor, time.Millisecond), 10),
		nonce + "/" + strconv.Itoa(r.Bucket), strconv.Itoa(pageSize), s.logLength,
	}, r.Digests...)}, nil
}

func readSync(r reply, q rotation.SyncRequest) rotation.SyncReply {
	what := "sync of bucket " + strconv.Itoa(q.Bucket)
	if r.err != nil {
		return rotation.SyncReply{Err: explain(what, r.err)}
	}
	in := replyReader{items: r.value}
	out := rotation.SyncReply{
		Resync:  in.text() == "resync",
		Place:   rotation.Place{ID: in.text(), Nonce: in.text()},
		More:    in.flag(),
		Now:     in.time(),
		Vouched: in.flag(),
		Changed: in.texts(),
		Digests: in.texts(),
	}
	if in.bad || len(out.Digests) != len(q.Digests) {
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

// loadCalls returns the calls that load the tenants' rings, and for each call the
// indexes of its tenants.
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
				names = append(names, k.ring(tenants[i]))
			}
			calls, parts = append(calls, call{keys: names}), append(parts, part)
		}
	}
	return calls, parts
}

// readLoad stores the snapshots that one reply has: those of the tenants in part.
func readLoad(r reply, tenants []string, part []int, snapshots []rotation.Snapshot) {
	in := replyReader{items: r.value}
	now := in.time()
	if r.err == nil && (in.bad || in.remaining() != len(part)) {
		r.err = errUnexpected
	}
	for _, i := range part {
		if r.err != nil {
			snapshots[i].Err = explain(loadOf(tenants[i]), r.err)
			continue
		}
		snapshots[i] = readRing(in.item(), tenants[i], now)
	}
}

// loadOf names a load in an error. With the bucket an operator can type the key.
func loadOf(tenant string) string {
	return fmt.Sprintf("load of tenant %q (bucket %d)", tenant, rotation.BucketOf(tenant))
}

func readRing(item any, tenant string, now time.Time) rotation.Snapshot {
	what := loadOf(tenant)
	if text, ok := item.(string); ok {
		return rotation.Snapshot{Err: explain(what, serverError(text))}
	}
	in := replyReader{items: item}
	fields := make(map[string][]byte, in.remaining()/2)
	for in.remaining() > 0 {
		name := in.text()
		fields[name] = []byte(in.text())
	}
	if in.bad {
		return rotation.Snapshot{Err: explain(what, errUnexpected)}
	}
	return rotation.Snapshot{Fields: fields, Digest: digest(fields), Now: now}
}

// A serverError is an error of a Redis command that a script returned as text.
type serverError string

func (e serverError) Error() string { return string(e) }

// RedisError makes it a [redis.Error], like the client's own.
func (serverError) RedisError() {}

// Tenants implements [rotation.Store]. The tenants of each bucket are sorted.
func (s *Store) Tenants(ctx context.Context, buckets []int) ([][]string, error) {
	calls, err := s.callBuckets(buckets, func(k bucketKeys) call { return call{keys: []string{k.tenants, k.ack}} })
	if err != nil {
		return nil, err
	}
	all := make([][]string, len(buckets))
	for i, r := range s.run(ctx, s.scripts.tenants, calls) {
		if r.err != nil {
			return nil, explain("tenants of bucket "+strconv.Itoa(buckets[i]), r.err)
		}
		in := replyReader{items: []any{r.value}}
		if all[i] = in.texts(); in.bad {
			return nil, explain("tenants of bucket "+strconv.Itoa(buckets[i]), errUnexpected)
		}
		slices.Sort(all[i])
	}
	return all, nil
}

// callBuckets returns a call for each of the buckets.
func (s *Store) callBuckets(buckets []int, f func(bucketKeys) call) ([]call, error) {
	calls := make([]call, 0, len(buckets))
	for _, b := range buckets {
		if b < 0 || b >= rotation.Buckets {
			return nil, fmt.Errorf("rediskeys: there is no bucket %d", b)
		}
		calls = append(calls, f(s.buckets[b]))
	}
	return calls, nil
}

// Write implements [rotation.Store]. The client sends a change only once. If the
// connection breaks, Write returns an error, and the change may have been made: load
// the ring to find out. If the client sent a committed change again, the answer would
// be [rotation.Conflict], as if it had not been made.
//
// If a field is in both Set and Delete, or is deleted and published, it is set.
func (s *Store) Write(ctx context.Context, c rotation.Change) (rotation.Result, error) {
	bucket := rotation.BucketOf(c.Tenant)
	k := s.buckets[bucket]
	nonce := newNonce()
	args := []string{
		c.Tenant, c.If, string(c.Op), c.KID, strconv.Itoa(c.Seq), c.Actor, nonce, s.logLength,
		s.channel, strconv.Itoa(bucket),
	}
	args = append(args, listArgs(c)...)
	r := s.runOnce(ctx, s.scripts.write, call{keys: []string{k.ring(c.Tenant), k.log, k.tenants, k.ack}, args: args})
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

// listArgs returns the lists of a change, each after its length, as write.lua reads
// them. Bounds are in microseconds, because a number in Lua is a float64 and too
// coarse for the nanoseconds of today's dates. Fractions are rounded so that a bound
// gets narrower.
func listArgs(c rotation.Change) []string {
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
	deleted := slices.DeleteFunc(slices.Clone(c.Delete), func(name string) bool { return setsField(c, name) })
	args = append(args, strconv.Itoa(len(deleted)))
	args = append(args, deleted...)
	args = append(args, strconv.Itoa(len(c.Publish)))
	return append(args, c.Publish...)
}

// setsField reports whether a change sets a field, or publishes the key whose "p:"
// field it is.
func setsField(c rotation.Change, name string) bool {
	_, ok := c.Set[name]
	kid, published := strings.CutPrefix(name, "p:")
	return ok || published && slices.Contains(c.Publish, kid)
}

func readWrite(value any, nonce string) (rotation.Result, bool) {
	in := replyReader{items: value}
	code := in.text()
	result := rotation.Result{Now: in.time()}
	switch code {
	case "ok":
		result.Code = rotation.Committed
		result.Place = rotation.Place{ID: in.text(), Nonce: nonce}
		result.Digest = in.text()
	case "conflict":
		result.Code = rotation.Conflict
	case "bounds":
		result.Code = rotation.OutOfBounds
	default:
		return rotation.Result{}, false
	}
	return result, !in.bad
}

// Acks implements [rotation.Store]. The acknowledgements are sorted by instance;
// those older than a day are removed. If the log does not have the place, Applied is
// false for all: the entry was trimmed, or lost with a server.
func (s *Store) Acks(ctx context.Context, bucket int, place rotation.Place) ([]rotation.Ack, error) {
	id, nonce := placeArgs(place)
	calls, err := s.callBuckets([]int{bucket}, func(k bucketKeys) call {
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

// readAcks reads acknowledgements. It leaves out those that are malformed, older
// than a day, or more than a minute ahead of Redis' clock. id is that of the place
// that the caller asked for.
func readAcks(value any, id string) ([]rotation.Ack, bool) {
	in := replyReader{items: value}
	proved := in.flag()
	now := in.time()
	pairs := in.texts()
	if in.bad || len(pairs)%2 != 0 {
		return nil, false
	}
	var acks []rotation.Ack
	for i := 0; i < len(pairs); i += 2 {
		ack, appliedID, ok := parseAck(pairs[i+1])
		if !ok || now.Sub(ack.At) > 24*time.Hour || ack.At.Sub(now) > time.Minute {
			continue
		}
		ack.Instance = pairs[i]
		ack.Applied = proved && compareIDs(appliedID, id) >= 0
		acks = append(acks, ack)
	}
	slices.SortFunc(acks, func(a, b rotation.Ack) int { return strings.Compare(a.Instance, b.Instance) })
	return acks, true
}

// parseAck reads "<id> <nonce> <good since> <at>". A good since of 0 is the zero
// time: the instance is recovering.
func parseAck(text string) (ack rotation.Ack, id string, ok bool) {
	parts := strings.Split(text, " ")
	if len(parts) != 4 {
		return ack, "", false
	}
	_, _, isID := parseID(parts[0])
	since, err1 := strconv.ParseInt(parts[2], 10, 64)
	at, err2 := strconv.ParseInt(parts[3], 10, 64)
	ack.At = fromMillis(at)
	if since > 0 {
		ack.GoodSince = fromMillis(since)
	}
	return ack, parts[0], isID && err1 == nil && err2 == nil
}

// Forget implements [rotation.Store].
func (s *Store) Forget(ctx context.Context, instance string, buckets []int) error {
	calls, err := s.callBuckets(buckets, func(k bucketKeys) call { return call{keys: []string{k.ack}, args: []string{instance}} })
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
