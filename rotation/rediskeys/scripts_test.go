package rediskeys_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
)

// tenant is of bucket: 7.
const tenant = "tenant {7}:\x00"

var bucket = rotation.BucketOf(tenant)

func key(name string) string { return "kt:{" + strconv.Itoa(bucket) + "}:" + name }

// running returns a server and a store on it.
func running(t testing.TB, args ...string) (*redistest.Server, *rediskeys.Store) {
	t.Helper()
	s := redistest.Run(t, redistest.Options{Args: args})
	return s, open(t, "redis://"+s.Addr())
}

func deadline(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func sync1(t testing.TB, s *rediskeys.Store, instance string, r rotation.SyncRequest) rotation.SyncReply {
	t.Helper()
	reply := s.Sync(deadline(t, 10*time.Second), instance, []rotation.SyncRequest{r})[0]
	if reply.Err != nil {
		t.Fatal(reply.Err)
	}
	return reply
}

// begin returns the newest place of the bucket of tenant.
func begin(t testing.TB, s *rediskeys.Store) rotation.Place {
	t.Helper()
	return sync1(t, s, "", rotation.SyncRequest{Bucket: bucket}).Place
}

func write(t testing.TB, s *rediskeys.Store, c rotation.Change) rotation.Result {
	t.Helper()
	r, err := s.Write(deadline(t, 10*time.Second), c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// set changes a ring, whatever it is.
func set(t testing.TB, s *rediskeys.Store, tenant, name, value string) rotation.Result {
	t.Helper()
	now := s.Load(deadline(t, 10*time.Second), []string{tenant})[0]
	r := write(t, s, rotation.Change{Tenant: tenant, If: now.Digest, Set: map[string][]byte{name: []byte(value)}})
	if now.Err != nil || r.Code != rotation.Committed {
		t.Fatalf("set: %v, code %d", now.Err, r.Code)
	}
	return r
}

func do(t testing.TB, s *redistest.Server, args ...any) {
	t.Helper()
	if err := s.Do(t.Context(), args...); err != nil {
		t.Fatal(err)
	}
}

// What docs/formats.md says, byte for byte.
func TestFormat(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	ctx := t.Context()
	first := begin(t, s)
	r := write(t, s, rotation.Change{
		Tenant: tenant, Set: map[string][]byte{"head": []byte("1"), "k:a": {0, 0xff}}, Publish: []string{"a"},
		Op: rotation.OpCreate, KID: "a", Seq: 1, Actor: "somebody",
	})
	since := time.UnixMilli(1_700_000_000_123)
	reply := sync1(t, s, "one", rotation.SyncRequest{Bucket: bucket, Place: first, GoodSince: since})

	keys := server.Client().Keys(ctx, "*").Val()
	slices.Sort(keys)
	if want := []string{key("ack"), key("log"), key("ring:" + tenant), key("tenants")}; !slices.Equal(keys, want) {
		t.Errorf("keys %q, want %q", keys, want)
	}
	for _, k := range keys {
		if ttl := server.Client().TTL(ctx, k).Val(); ttl != -1 {
			t.Errorf("%q has a time to live: %v", k, ttl)
		}
	}
	ms := strconv.FormatInt(r.Now.UnixMilli(), 10)
	if got, want := server.Client().HGetAll(ctx, key("ring:"+tenant)).Val(), map[string]string{"head": "1", "k:a": "\x00\xff", "p:a": ms}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("ring %q, want %q", got, want)
	}
	if got := server.Client().SMembers(ctx, key("tenants")).Val(); !slices.Equal(got, []string{tenant}) {
		t.Errorf("tenants %q", got)
	}
	wantLog := [][]string{
		{first.ID, "op", "begin", "tenant", "", "kid", "", "seq", "0", "actor", "", "nonce", first.Nonce},
		{r.Place.ID, "op", "create", "tenant", tenant, "kid", "a", "seq", "1", "actor", "somebody", "nonce", r.Place.Nonce},
	}
	if got := rawLog(t, server); !slices.EqualFunc(got, wantLog, slices.Equal) {
		t.Errorf("log %q, want %q", got, wantLog)
	}
	wantAck := first.ID + " " + first.Nonce + " 1700000000123 " + strconv.FormatInt(reply.Now.UnixMilli(), 10)
	if got := server.Client().HGet(ctx, key("ack"), "one").Val(); got != wantAck {
		t.Errorf("acknowledgement %q, want %q", got, wantAck)
	}
}

func rawLog(t *testing.T, server *redistest.Server) [][]string {
	entries, err := server.Client().Do(t.Context(), "XRANGE", key("log"), "-", "+").Slice()
	if err != nil {
		t.Fatal(err)
	}
	var all [][]string
	for _, e := range entries {
		one := []string{e.([]any)[0].(string)}
		for _, field := range e.([]any)[1].([]any) {
			one = append(one, field.(string))
		}
		all = append(all, one)
	}
	return all
}

// The digest is part of the format. These were computed by hand, and are in docs/formats.md.
func TestDigestVector(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	_, s := running(t)
	r := write(t, s, rotation.Change{Tenant: tenant, Set: map[string][]byte{"head": []byte("1"), "k:a": {0, 0xff}}})
	// printf '4:head1:1' | sha1sum; printf '3:k:a2:\0\377' | sha1sum; both sorted, in one line | sha1sum
	const want = "981e7e094efd4a79056ac78de5e79200269e1f81"
	if r.Digest != want {
		t.Errorf("Write: %s, want %s", r.Digest, want)
	}
	if got := s.Load(t.Context(), []string{tenant})[0].Digest; got != want {
		t.Errorf("Load: %s, want %s", got, want)
	}
	if got := sync1(t, s, "", rotation.SyncRequest{Bucket: bucket, Digests: []string{tenant}}).Digests[0]; got != want {
		t.Errorf("Sync: %s, want %s", got, want)
	}
}

// A counter counts the commands that a client sends.
type counter struct{ commands, eval atomic.Int64 }

func (c *counter) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c *counter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.count(cmd)
		return next(ctx, cmd)
	}
}

func (c *counter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			c.count(cmd)
		}
		return next(ctx, cmds)
	}
}

func (c *counter) count(cmd redis.Cmder) {
	c.commands.Add(1)
	if cmd.Name() == "eval" {
		c.eval.Add(1)
	}
}

func allBuckets() []rotation.SyncRequest {
	requests := make([]rotation.SyncRequest, rotation.Buckets)
	for i := range requests {
		requests[i].Bucket = i
	}
	return requests
}

// place moves requests to where the replies are.
func place(t testing.TB, requests []rotation.SyncRequest, replies []rotation.SyncReply) {
	t.Helper()
	for i, r := range replies {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		requests[i].Place = r.Place
	}
}

func TestIdlePollIsOneCommandForEachBucket(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server := redistest.Run(t, redistest.Options{})
	client := connect(t, "redis://"+server.Addr())
	s := storeOf(t, client, rediskeys.Config{})
	requests := allBuckets()
	place(t, requests, s.Sync(t.Context(), "one", requests))
	var c counter
	client.AddHook(&c)
	place(t, requests, s.Sync(t.Context(), "one", requests))
	if n := c.commands.Load(); n != rotation.Buckets || c.eval.Load() != 0 {
		t.Errorf("an idle poll is %d commands, %d of them with the script's text; want %d, none", n, c.eval.Load(), rotation.Buckets)
	}
}

func TestScriptsAreFlushed(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server := redistest.Run(t, redistest.Options{})
	client := connect(t, "redis://"+server.Addr())
	s := storeOf(t, client, rediskeys.Config{})
	requests := allBuckets()
	place(t, requests, s.Sync(t.Context(), "one", requests))
	old := set(t, s, tenant, "f", "1")
	var c counter
	client.AddHook(&c)
	for name, call := range map[string]func() error{
		"Sync":    func() error { return s.Sync(t.Context(), "one", requests[:3])[2].Err },
		"Load":    func() error { return s.Load(t.Context(), []string{tenant})[0].Err },
		"Tenants": func() error { _, err := s.Tenants(t.Context(), []int{1, 2}); return err },
		"Acks":    func() error { _, err := s.Acks(t.Context(), bucket, old.Place); return err },
		"Forget":  func() error { return s.Forget(t.Context(), "two", []int{1, 2}) },
		"Write": func() error {
			r, err := s.Write(t.Context(), rotation.Change{Tenant: tenant, If: old.Digest, Set: map[string][]byte{"f": []byte("2")}})
			if err == nil && r.Code != rotation.Committed {
				return fmt.Errorf("code %d", r.Code)
			}
			return err
		},
	} {
		do(t, server, "SCRIPT", "FLUSH")
		c.eval.Store(0)
		if err := call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if c.eval.Load() == 0 {
			t.Errorf("%s: no script had to be sent again", name)
		}
	}
}

// Who only looks writes nothing: not even what would be refused.
func TestSyncWithoutInstanceWritesNothing(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	at := begin(t, s)
	set(t, s, tenant, "f", "1")
	do(t, server, "HSET", key("ack"), "old", "1-0 n 0 1")
	changes := func() string {
		info := server.Client().Info(t.Context(), "persistence").Val()
		_, rest, _ := strings.Cut(info, "rdb_changes_since_last_save:")
		n, _, _ := strings.Cut(rest, "\r\n")
		return n
	}
	before := changes()
	q := rotation.SyncRequest{Bucket: bucket, Place: at, GoodSince: time.Now(), Digests: []string{tenant}, VouchWithin: time.Hour}
	if r := sync1(t, s, "", q); !slices.Equal(r.Changed, []string{tenant}) {
		t.Errorf("changed %q", r.Changed)
	}
	sync1(t, s, "", rotation.SyncRequest{Bucket: bucket})
	s.Load(t.Context(), []string{tenant})
	if after := changes(); after != before {
		t.Errorf("changes: %s, before %s", after, before)
	}
}

func TestLogComesInPagesAndIsTrimmed(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server := redistest.Run(t, redistest.Options{})
	s := storeOf(t, connect(t, "redis://"+server.Addr()), rediskeys.Config{LogLength: 1100})
	at := begin(t, s)
	digest := ""
	var last rotation.Place
	more := func(n int) {
		for i := range n {
			r := write(t, s, rotation.Change{Tenant: tenant, If: digest, Set: map[string][]byte{"f": strconv.AppendInt(nil, int64(i), 10)}})
			digest, last = r.Digest, r.Place
		}
	}
	more(1000)
	for page, want := range []bool{true, false} {
		r := sync1(t, s, "one", rotation.SyncRequest{Bucket: bucket, Place: at})
		if r.More != want || r.Resync || !slices.Equal(r.Changed, []string{tenant}) {
			t.Fatalf("page %d: %+v, want More %v", page, r, want)
		}
		at = r.Place
	}
	if at != last {
		t.Errorf("at %+v, want %+v", at, last)
	}
	more(1500)
	if r := sync1(t, s, "one", rotation.SyncRequest{Bucket: bucket, Place: at}); !r.Resync || r.Place != last {
		t.Errorf("at a place that was trimmed: %+v", r)
	}
	if acks, err := s.Acks(t.Context(), bucket, at); err != nil || len(acks) != 1 || acks[0].Applied {
		t.Errorf("acknowledgements of a place that was trimmed: %+v, error %v", acks, err)
	}
}

// The newest entry of the log may be of a server whose clock was ahead.
func TestClockNeverGoesBack(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	begin(t, s)
	ahead := time.Now().Add(time.Hour).UnixMilli()
	do(t, server, "XADD", key("log"), fmt.Sprintf("%d-3", ahead), "op", "x", "nonce", "n")
	want := time.UnixMilli(ahead)
	r := sync1(t, s, "one", rotation.SyncRequest{Bucket: bucket})
	if !r.Now.Equal(want) || r.Place != (rotation.Place{ID: fmt.Sprintf("%d-3", ahead), Nonce: "n"}) {
		t.Errorf("Sync: %v at %+v, want %v", r.Now, r.Place, want)
	}
	if got := s.Load(t.Context(), []string{tenant})[0].Now; !got.Equal(want) {
		t.Errorf("Load: %v, want %v", got, want)
	}
	w := write(t, s, rotation.Change{Tenant: tenant, Publish: []string{"a"}, Bounds: []rotation.Bound{{At: want}}})
	if w.Code != rotation.Committed || !w.Now.Equal(want) || w.Place.ID != fmt.Sprintf("%d-4", ahead) {
		t.Errorf("Write: %+v, want %v", w, want)
	}
	if p := string(s.Load(t.Context(), []string{tenant})[0].Fields["p:a"]); p != strconv.FormatInt(ahead, 10) {
		t.Errorf("published at %s, want %d", p, ahead)
	}
	sync1(t, s, "one", rotation.SyncRequest{Bucket: bucket, Place: w.Place})
	if acks, err := s.Acks(t.Context(), bucket, w.Place); err != nil || len(acks) != 1 || !acks[0].At.Equal(want) || !acks[0].Applied {
		t.Errorf("Acks: %+v, error %v", acks, err)
	}
}

// Both sides of a bound, to the millisecond: a clock that stands still shows them.
func TestBoundsToTheMillisecond(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	now := time.UnixMilli(time.Now().Add(time.Hour).UnixMilli())
	do(t, server, "XADD", key("log"), fmt.Sprintf("%d-0", now.UnixMilli()), "nonce", "n")
	const ms = time.Millisecond
	for _, tt := range []struct {
		at       time.Time
		from, to time.Duration
		want     rotation.Code
	}{
		{now, 0, 0, rotation.Committed},
		{now.Add(ms), ms, ms, rotation.Committed},
		{now.Add(ms), 0, 0, rotation.OutOfBounds},
		{now.Add(-ms), 0, time.Hour, rotation.OutOfBounds},
		{now.Add(-ms), -ms, -ms, rotation.Committed},
		{now.Add(5 * ms), 5*ms + 1, time.Hour, rotation.OutOfBounds},
		{now.Add(5 * ms), 0, 5*ms - 1, rotation.OutOfBounds},
		{now.Add(-5 * ms), -5*ms - 1, 0, rotation.Committed},
		{time.Time{}, -1 << 63, 0, rotation.OutOfBounds},
		{now, -1 << 63, 1<<63 - 1, rotation.Committed},
	} {
		ring := s.Load(t.Context(), []string{tenant})[0]
		r := write(t, s, rotation.Change{Tenant: tenant, If: ring.Digest, Bounds: []rotation.Bound{{At: tt.at, From: tt.from, To: tt.to}}})
		if r.Code != tt.want || !r.Now.Equal(now) {
			t.Errorf("%v after now, from %v to %v: %+v, want code %d", tt.at.Sub(now), tt.from, tt.to, r, tt.want)
		}
	}
}

func TestOldAcksGo(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	at := begin(t, s)
	now := sync1(t, s, "me", rotation.SyncRequest{Bucket: bucket, Place: at}).Now
	ack := func(age time.Duration) string {
		ms := now.Add(-age).UnixMilli()
		return fmt.Sprintf("%s %s %d %d", at.ID, at.Nonce, ms, ms)
	}
	plant := func() {
		do(t, server, "HSET", key("ack"), "old", ack(24*time.Hour+time.Minute), "younger", ack(24*time.Hour-time.Minute), "garbage", "x")
	}
	names := func() []string {
		names := server.Client().HKeys(t.Context(), key("ack")).Val()
		slices.Sort(names)
		return names
	}
	want := []string{"me", "younger"}
	plant()
	if r := sync1(t, s, "me", rotation.SyncRequest{Bucket: bucket, Place: at, VouchWithin: 48 * time.Hour, VouchFor: time.Hour}); !r.Vouched || !slices.Equal(names(), want) {
		t.Errorf("after Sync: vouched %v, acknowledgements of %q, want %q", r.Vouched, names(), want)
	}
	plant()
	if acks, err := s.Acks(t.Context(), bucket, at); err != nil || len(acks) != 2 || !slices.Equal(names(), want) {
		t.Errorf("after Acks: %+v, error %v, acknowledgements of %q, want %q", acks, err, names(), want)
	}
}

// What was acknowledged in another life of the log is of no worth in this one.
func TestLogIsLostAlone(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	at := begin(t, s)
	sync1(t, s, "me", rotation.SyncRequest{Bucket: bucket, Place: at})
	do(t, server, "DEL", key("log"))
	r := sync1(t, s, "me", rotation.SyncRequest{Bucket: bucket, Place: at})
	if !r.Resync || r.Place == at {
		t.Errorf("Sync: %+v", r)
	}
	if acks, err := s.Acks(t.Context(), bucket, r.Place); err != nil || len(acks) != 0 {
		t.Errorf("Acks: %+v, error %v", acks, err)
	}
}

// An ID and nonce that Redis could not have given are of another store.
func TestPlacesOfAnotherStore(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	_, s := running(t)
	newest := begin(t, s)
	for _, id := range []string{"-", "+", "x", "1", "1-", "-1", "1-2-3", "(1-0", "01-0", "1-99999999999999999999", " 1-0", newest.ID + " "} {
		r := sync1(t, s, "me", rotation.SyncRequest{Bucket: bucket, Place: rotation.Place{ID: id, Nonce: newest.Nonce}})
		if !r.Resync || r.Place != newest {
			t.Errorf("%q: %+v", id, r)
		}
		if acks, err := s.Acks(t.Context(), bucket, rotation.Place{ID: id}); err != nil || len(acks) != 0 {
			t.Errorf("%q: acknowledgements %+v, error %v", id, acks, err)
		}
	}
}

func TestRequestsThatAreWrong(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	_, s := running(t)
	r := s.Sync(t.Context(), "me", []rotation.SyncRequest{{Bucket: -1}, {Bucket: 3}, {Bucket: 256}, {Bucket: (bucket + 1) % 256, Digests: []string{tenant}}})
	if r[0].Err == nil || r[1].Err != nil || r[2].Err == nil || r[3].Err == nil {
		t.Errorf("Sync: %+v", r)
	}
	for _, b := range []int{-1, 256} {
		if _, err := s.Tenants(t.Context(), []int{b}); err == nil {
			t.Errorf("Tenants of bucket %d: no error", b)
		}
		if _, err := s.Acks(t.Context(), b, rotation.Place{}); err == nil {
			t.Errorf("Acks of bucket %d: no error", b)
		}
		if err := s.Forget(t.Context(), "me", []int{b}); err == nil {
			t.Errorf("Forget in bucket %d: no error", b)
		}
	}
}

// A change may be larger than what Lua passes to a command at once.
func TestLargeChange(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	fields := make(map[string][]byte)
	var names []string
	for i := range 9000 {
		name := "f" + strconv.Itoa(i)
		names = append(names, name)
		fields[name] = []byte(name)
	}
	r := write(t, s, rotation.Change{Tenant: tenant, Set: fields})
	if got := s.Load(t.Context(), []string{tenant})[0]; got.Err != nil || len(got.Fields) != len(fields) || got.Digest != r.Digest {
		t.Fatalf("%d fields, digest %s, error %v; want %d, %s", len(got.Fields), got.Digest, got.Err, len(fields), r.Digest)
	}
	r = write(t, s, rotation.Change{Tenant: tenant, If: r.Digest, Delete: names})
	if n := server.Client().Exists(t.Context(), key("ring:"+tenant)).Val(); n != 0 || r.Digest != "" {
		t.Errorf("the ring is there, with digest %q", r.Digest)
	}
	if n := server.Client().SCard(t.Context(), key("tenants")).Val(); n != 0 {
		t.Error("a tenant without a ring is among the tenants")
	}
}

// To set wins over to delete, whichever way it is said.
func TestSetAndDelete(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	_, s := running(t)
	set(t, s, tenant, "only", "1")
	now := s.Load(t.Context(), []string{tenant})[0]
	r := write(t, s, rotation.Change{
		Tenant: tenant, If: now.Digest, Delete: []string{"only", "p:a"}, Set: map[string][]byte{"only": []byte("2")}, Publish: []string{"a"},
	})
	got := s.Load(t.Context(), []string{tenant})[0].Fields
	if len(got) != 2 || string(got["only"]) != "2" || string(got["p:a"]) != strconv.FormatInt(r.Now.UnixMilli(), 10) {
		t.Errorf("fields %q", got)
	}
}

// 64 rotators on the same tick: for each state of the ring one of them wins.
func TestOneCommitForEachDigest(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server := redistest.Run(t, redistest.Options{})
	stores := make([]*rediskeys.Store, 8)
	for i := range stores {
		stores[i] = open(t, "redis://"+server.Addr())
	}
	digest := ""
	for round := range 20 {
		var won atomic.Int64
		var next atomic.Value
		var wg sync.WaitGroup
		for i := range 64 {
			wg.Go(func() {
				r, err := stores[i%len(stores)].Write(t.Context(), rotation.Change{
					Tenant: tenant, If: digest, Set: map[string][]byte{"by": []byte(fmt.Sprint(round, i))},
				})
				switch {
				case err != nil:
					t.Error(err)
				case r.Code == rotation.Committed:
					won.Add(1)
					next.Store(r.Digest)
				case r.Code != rotation.Conflict:
					t.Errorf("code %d", r.Code)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("round %d: %d commits, want 1", round, won.Load())
		}
		digest = next.Load().(string)
	}
	if n := server.Client().XLen(t.Context(), key("log")).Val(); n != 20 {
		t.Errorf("%d entries in the log, want 20", n)
	}
}

func TestPrefixes(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server := redistest.Run(t, redistest.Options{})
	client := connect(t, "redis://"+server.Addr())
	one, two := storeOf(t, client, rediskeys.Config{}), storeOf(t, client, rediskeys.Config{Prefix: "other"})
	set(t, one, tenant, "f", "1")
	if got := two.Load(t.Context(), []string{tenant})[0]; got.Err != nil || len(got.Fields) > 0 {
		t.Errorf("another prefix has %+v", got)
	}
	set(t, two, tenant, "f", "2")
	if n := server.Client().Exists(t.Context(), "other:{"+strconv.Itoa(bucket)+"}:ring:"+tenant).Val(); n != 1 {
		t.Error("no ring of that prefix")
	}
}
