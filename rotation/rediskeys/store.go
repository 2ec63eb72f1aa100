package rediskeys

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

const (
	// pageSize is how many log entries one reply covers at most.
	pageSize = 500

	// newestSize is how many log entries a reply has at most without a place. They tell a starting
	// instance of revocations that are being removed from their rings at this moment, so the last few
	// do. Each one costs Redis some 7 µs, in each of 256 buckets.
	newestSize = 32

	// maxSyncAcks is how many acknowledgements a reply to Sync has at most.
	maxSyncAcks = 64

	// The bounds of common.lua, in bytes. What is longer the scripts do not return, so it is
	// refused before it is written.
	maxAck, maxName, maxNonce, maxMAC, maxKID, maxOp = 8192, 256, 64, 73728, 256, 32

	// maxRings is how many rings one script reads at most. Redis does nothing else
	// while a script runs.
	maxRings = 32
)

var errUnexpected = errors.New("the reply is not what the script returns")

// Sync implements [rotation.Store]. If nothing is new, a poll costs one command for
// each bucket.
//
// If a bucket's log, tenants or acknowledgements have another type than this store gives them, a person or another
// program has overwritten them. An instance removes the key, syncs again, and finds it in SyncReply.Mended; the tenants
// only if it can list them again ([rotation.SyncRequest.ListsAll]). Without an instance, as for a command that only
// looks, the error is [ErrWrongType].
//
// The same goes for a log that has had the last ID that Redis can give: it takes no change any more. An instance removes it
// that has read up to that ID, or whose write it has refused.
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
	early := s.mendExhausted(ctx, instance, requests)
	got := s.run(ctx, s.scripts.sync, calls)
	mended := s.mend(ctx, instance, calls, got)
	for n, r := range got {
		i := requestOf[n]
		replies[i] = readSync(r, requests[i])
		replies[i].Mended = append(early[requests[i].Bucket], mended[n]...)
	}
	return replies
}

// mendExhausted removes the logs that have refused an entry of this store because they are exhausted. It returns what
// it has removed, by bucket.
func (s *Store) mendExhausted(ctx context.Context, instance string, requests []rotation.SyncRequest) map[int][]string {
	var mends []call
	var buckets []int
	for _, r := range requests {
		if b := r.Bucket; instance != "" && b >= 0 && b < rotation.Buckets && s.exhausted[b].Swap(false) {
			k := s.buckets[b]
			mends, buckets = append(mends, call{keys: []string{k.log, k.tenants, k.ack}, args: []string{""}}), append(buckets, b)
		}
	}
	if len(mends) == 0 {
		return nil
	}
	mended := make(map[int][]string, len(mends))
	for i, r := range s.run(ctx, s.scripts.mend, mends) {
		in := replyReader{items: []any{r.value}}
		if r.err == nil {
			mended[buckets[i]] = in.texts()
		}
	}
	return mended
}

// listsAllArg is which argument of a sync says [rotation.SyncRequest.ListsAll].
const listsAllArg = 9

// mend removes keys of the wrong type from the buckets of the calls of a sync that failed because of one, and
// repeats these calls. It returns what it has removed, by the index of the call.
func (s *Store) mend(ctx context.Context, instance string, calls []call, replies []reply) map[int][]string {
	var broken []int
	var mends []call
	for n, r := range replies {
		if instance != "" && r.err != nil && kindOf(r.err) == ErrWrongType {
			keys := calls[n].keys // log, ack, tenants, rings
			broken, mends = append(broken, n), append(mends, call{keys: []string{keys[0], keys[2], keys[1]}, args: calls[n].args[listsAllArg : listsAllArg+1]})
		}
	}
	if len(broken) == 0 {
		return nil
	}
	mended := make(map[int][]string, len(broken))
	var again []call
	var at []int
	for i, r := range s.run(ctx, s.scripts.mend, mends) {
		in := replyReader{items: []any{r.value}}
		names, n := in.texts(), broken[i]
		if r.err != nil || len(names) == 0 && calls[n].args[listsAllArg] == "" {
			continue
		}
		mended[n] = names
		repeated := calls[n]
		if !slices.Contains(names, "tenants") { // a set that this user may not mend does not stop the sync
			repeated.args = slices.Clone(repeated.args)
			repeated.args[listsAllArg] = ""
		}
		again, at = append(again, repeated), append(at, n)
	}
	for i, r := range s.run(ctx, s.scripts.sync, again) {
		replies[at[i]] = r
	}
	return mended
}

func (s *Store) syncCall(instance string, r rotation.SyncRequest, nonce string) (call, error) {
	if r.Bucket < 0 || r.Bucket >= rotation.Buckets {
		return call{}, fmt.Errorf("rediskeys: sync: there is no bucket %d", r.Bucket)
	}
	k := s.buckets[r.Bucket]
	names := append(make([]string, 0, 3+len(r.Digests)), k.log, k.ack, k.tenants)
	for _, tenant := range r.Digests {
		if rotation.BucketOf(tenant) != r.Bucket {
			return call{}, fmt.Errorf("rediskeys: sync: tenant %q is not of bucket %d", tenant, r.Bucket)
		}
		names = append(names, k.ring(tenant))
	}
	if len(instance) > maxName || len(r.Ack) > maxAck {
		return call{}, fmt.Errorf("rediskeys: sync: an instance's name of %d bytes, an acknowledgement of %d: want at most %d and %d",
			len(instance), len(r.Ack), maxName, maxAck)
	}
	wanted := 0
	if r.Acks {
		wanted = maxSyncAcks
	}
	id, placeNonce := placeArgs(r.Place)
	return call{keys: names, args: append([]string{
		id, placeNonce, instance, string(r.Ack), strconv.Itoa(wanted),
		nonce + "/" + strconv.Itoa(r.Bucket), strconv.Itoa(pageSize), strconv.Itoa(newestSize), s.logLength,
		flagArg(instance != "" && r.ListsAll),
	}, r.Digests...)}, nil
}

// flagArg returns how a script gets a flag.
func flagArg(on bool) string {
	if on {
		return "1"
	}
	return ""
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
		Changed: in.entries(),
		Digests: in.texts(),
		Acks:    in.acks(),
		Run:     in.text(),
	}
	if in.bad || len(out.Digests) != len(q.Digests) {
		return rotation.SyncReply{Err: explain(what, errUnexpected)}
	}
	return out
}

// Load implements [rotation.Store]. Many rings of one bucket are read in transactions, others by scripts, of
// which each reads up to 32.
func (s *Store) Load(ctx context.Context, tenants []string) []rotation.Snapshot {
	snapshots := s.LoadFields(ctx, tenants)
	for i := range snapshots {
		snapshots[i].Digest = digest(snapshots[i].Fields)
	}
	return snapshots
}

// Digest implements [rotation.Digester]: it is what Load computes from fields.
func (s *Store) Digest(fields map[string][]byte) string { return digest(fields) }

// LoadFields implements [rotation.Digester]: it is Load without the digests, which take a fifth of its time.
func (s *Store) LoadFields(ctx context.Context, tenants []string) []rotation.Snapshot {
	snapshots := make([]rotation.Snapshot, len(tenants))
	var byBucket [rotation.Buckets][]int
	for i, tenant := range tenants {
		b := rotation.BucketOf(tenant)
		byBucket[b] = append(byBucket[b], i)
	}
	for b, part := range byBucket {
		byBucket[b] = s.loadPlain(ctx, tenants, part, snapshots)
	}
	calls, parts := s.loadCalls(tenants, &byBucket)
	for n, r := range s.run(ctx, s.scripts.load, calls) {
		readLoad(r, tenants, parts[n], snapshots)
	}
	return snapshots
}

// loadCalls returns the calls that load the rings of the tenants whose indexes byBucket has, and for each call
// the indexes of its tenants.
func (s *Store) loadCalls(tenants []string, byBucket *[rotation.Buckets][]int) (calls []call, parts [][]int) {
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
	var fields map[string][]byte
	var ok bool
	switch item := item.(type) {
	case string:
		fields, ok = unpackFields(item)
	case []any:
		if len(item) == 1 {
			in := replyReader{items: item}
			return rotation.Snapshot{Err: explain(loadOf(tenant), serverError(in.text()))}
		}
		fields, ok = listedFields(item)
	}
	if !ok {
		return rotation.Snapshot{Err: explain(loadOf(tenant), errUnexpected)}
	}
	return rotation.Snapshot{Fields: fields, Now: now}
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
// If Redis refuses the change, the code is [rotation.NotMade]: nothing was written, not even the log
// entry. That holds for each error of the server that this package names, and if the change could not
// be sent. The exception is [ErrNoPermission] on Redis 6: see the package comment. The code is 0 then.
//
// If a field is in both Set and Delete, or is deleted and published, it is set.
func (s *Store) Write(ctx context.Context, c rotation.Change) (rotation.Result, error) {
	bucket := rotation.BucketOf(c.Tenant)
	what := "write of tenant " + strconv.Quote(c.Tenant)
	if err := checkEntry(c); err != nil {
		return rotation.Result{Code: rotation.NotMade}, &Error{Call: what, Err: err}
	}
	k := s.buckets[bucket]
	args := []string{
		c.Tenant, c.If, string(c.Op), c.KID, strconv.Itoa(c.Seq), c.Actor, c.Nonce, string(c.MAC), s.logLength,
		s.channel, strconv.Itoa(bucket),
	}
	args = append(args, listArgs(c)...)
	r := s.runOnce(ctx, s.scripts.write, call{keys: []string{k.ring(c.Tenant), k.log, k.tenants, k.ack}, args: args})
	if r.err != nil {
		return rotation.Result{Code: codeOf(r)}, explain(what, r.err)
	}
	result, err := readWrite(r.value, c.Nonce)
	if err != nil {
		if isExhausted(err) {
			s.exhausted[bucket].Store(true)
		}
		return result, explain(what, err)
	}
	return result, nil
}

// checkEntry checks the parts of a change that go into the log.
func checkEntry(c rotation.Change) error {
	switch {
	case c.Nonce == "":
		return errors.New("the change has no nonce")
	case c.Seq < 0, c.Seq > math.MaxInt32:
		return fmt.Errorf("the seq is %d, want at most %d", c.Seq, math.MaxInt32)
	}
	for _, part := range []struct {
		name        string
		bytes, most int
	}{
		{"tenant", len(c.Tenant), ring.MaxTenantBytes}, {"op", len(c.Op), maxOp}, {"kid", len(c.KID), maxKID},
		{"actor", len(c.Actor), maxName}, {"nonce", len(c.Nonce), maxNonce}, {"mac", len(c.MAC), maxMAC},
	} {
		if part.bytes > part.most {
			return fmt.Errorf("the %s has %d bytes, want at most %d", part.name, part.bytes, part.most)
		}
	}
	return nil
}

// codeOf returns the code of a change that got an error in place of a reply: [rotation.NotMade] if the
// call was not sent, or the script did not run, or ran on a replica; else 0. A server that runs no
// script says so with the first word of its error. An error of the script itself names its place, as
// user_script.
func codeOf(r reply) rotation.Code {
	dial, text := (*net.OpError)(nil), r.err.Error()
	code, _, _ := strings.Cut(text, " ")
	switch {
	case r.notSent, errors.Is(r.err, redis.ErrPoolTimeout), errors.As(r.err, &dial) && dial.Op == "dial",
		errors.As(r.err, new(*handshakeError)), errors.As(r.err, new(*credentialsError)): // HELLO comes before any call
		return rotation.NotMade
	case !errors.As(r.err, new(redis.Error)) || strings.Contains(text, "user_script"):
		return 0
	case kindOfReply(code) != nil, strings.HasPrefix(text, "ERR unknown command"):
		return rotation.NotMade
	}
	return 0
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

// readWrite reads the reply of write.lua. Its error, if not nil, goes with the result's code.
func readWrite(value any, nonce string) (rotation.Result, error) {
	in := replyReader{items: value}
	var result rotation.Result
	switch code := in.text(); code {
	case "ok":
		result.Code, result.Now = rotation.Committed, in.time()
		result.Place = rotation.Place{ID: in.text(), Nonce: nonce}
		result.Digest, result.Told = in.text(), in.number()
	case "conflict":
		result.Code, result.Now = rotation.Conflict, in.time()
	case "bounds":
		result.Code, result.Now = rotation.OutOfBounds, in.time()
	case "refused", "broken":
		text := in.text()
		if code == "refused" && !in.bad {
			result.Code = rotation.NotMade
		}
		return result, serverError(strings.TrimLeft(text, "-"))
	default:
		return result, errUnexpected
	}
	if in.bad {
		return rotation.Result{}, errUnexpected
	}
	return result, nil
}

// Acks implements [rotation.Store]. It removes those older than a day.
func (s *Store) Acks(ctx context.Context, bucket int) ([]rotation.RawAck, time.Time, error) {
	calls, err := s.callBuckets([]int{bucket}, func(k bucketKeys) call { return call{keys: []string{k.log, k.ack}} })
	if err != nil {
		return nil, time.Time{}, err
	}
	r := s.run(ctx, s.scripts.acks, calls)[0]
	what := "acknowledgements of bucket " + strconv.Itoa(bucket)
	if r.err != nil {
		return nil, time.Time{}, explain(what, r.err)
	}
	in := replyReader{items: r.value}
	now, acks := in.time(), in.acks()
	if in.bad {
		return nil, time.Time{}, explain(what, errUnexpected)
	}
	return acks, now, nil
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

// Discard removes the key of a ring whose load fails with [ErrWrongType] or [ErrTooLarge], and nothing
// else: it looks and removes in one script. removed is false if the ring can be read, or is missing.
//
// It is for a caller that holds everything that the ring had, and writes it again: what else was in a key that is
// too large is lost. Package revocations does so with its groups. A keyring never does.
func (s *Store) Discard(ctx context.Context, tenant string) (removed bool, err error) {
	bucket := rotation.BucketOf(tenant)
	r := s.run(ctx, s.scripts.discard, []call{{keys: []string{s.buckets[bucket].ring(tenant)}}})[0]
	what := fmt.Sprintf("discard of tenant %q (bucket %d)", tenant, bucket)
	if r.err != nil {
		return false, explain(what, r.err)
	}
	n, ok := r.value.(int64)
	if !ok {
		return false, explain(what, errUnexpected)
	}
	return n > 0, nil
}
