package rediskeys_test

import (
	"context"
	"crypto/fips140"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
)

// connect returns a client that is closed when the test ends.
func connect(t testing.TB, url string) redis.UniversalClient {
	t.Helper()
	client, err := rediskeys.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// open returns a store with a client of its own.
func open(t testing.TB, url string) *rediskeys.Store {
	t.Helper()
	return storeOf(t, connect(t, url), rediskeys.Config{})
}

func storeOf(t testing.TB, client redis.UniversalClient, c rediskeys.Config) *rediskeys.Store {
	t.Helper()
	s, err := rediskeys.New(client, c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func flush(t testing.TB, servers ...*redistest.Server) {
	t.Helper()
	for _, s := range servers {
		if err := s.Do(t.Context(), "FLUSHALL"); err != nil {
			t.Fatal(err)
		}
	}
}

// tenant has the bytes that could confuse a key or a reply: braces, a colon and a zero byte.
const tenant = "tenant {7}:\x00"

var bucket = rotation.BucketOf(tenant)

// other is another tenant of the same bucket.
var other = func() string {
	for i := 0; ; i++ {
		if name := fmt.Sprint("other", i); rotation.BucketOf(name) == bucket {
			return name
		}
	}
}()

func key(name string) string { return "kt:{" + strconv.Itoa(bucket) + "}:" + name }

func logKey(bucket int) string { return "kt:{" + strconv.Itoa(bucket) + "}:log" }

// mini returns a miniredis. It computes SHA-1, for the names of scripts, so it runs without the
// enforcement of GODEBUG=fips140=only; the goroutines that it starts inherit that.
func mini(t testing.TB) (m *miniredis.Miniredis) {
	t.Helper()
	fips140.WithoutEnforcement(func() { m = miniredis.RunT(t) })
	return m
}

// running returns a server and a store on it.
func running(t testing.TB, args ...string) (*redistest.Server, *rediskeys.Store) {
	t.Helper()
	s := redistest.Run(t, redistest.Options{Args: args})
	return s, open(t, "redis://"+s.Addr())
}

// ack returns an acknowledgement of that age. The store cannot tell it from a sealed one.
func ack(text string, age time.Duration) []byte {
	b := binary.BigEndian.AppendUint64([]byte("kt\x01A"), uint64(time.Now().Add(-age).UnixMilli()))
	return append(b, text...)
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
	if c.Nonce == "" {
		c.Nonce = rand.Text()
	}
	r, err := s.Write(deadline(t, 10*time.Second), c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// set sets one field of a ring, whether or not the ring exists.
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

func allBuckets() []rotation.SyncRequest {
	requests := make([]rotation.SyncRequest, rotation.Buckets)
	for i := range requests {
		requests[i].Bucket = i
	}
	return requests
}

// place sets the place of each request to that of its reply.
func place(t testing.TB, requests []rotation.SyncRequest, replies []rotation.SyncReply) {
	t.Helper()
	for i, r := range replies {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		requests[i].Place = r.Place
	}
}

// calls returns one call of each method. Those that need a place use at.
func calls(ctx context.Context, s *rediskeys.Store, at rotation.Place) map[string]func() error {
	return map[string]func() error{
		"Sync": func() error {
			return s.Sync(ctx, "me", []rotation.SyncRequest{{Bucket: bucket, Place: at, Ack: ack("me", 0)}})[0].Err
		},
		"Sync without an instance": func() error {
			return s.Sync(ctx, "", []rotation.SyncRequest{{Bucket: bucket, Place: at}})[0].Err
		},
		"Load":    func() error { return s.Load(ctx, []string{tenant})[0].Err },
		"Tenants": func() error { _, err := s.Tenants(ctx, []int{bucket}); return err },
		"Write": func() error {
			_, err := s.Write(ctx, rotation.Change{Tenant: tenant, Nonce: rand.Text(), Set: map[string][]byte{"f": nil}})
			return err
		},
		"Acks":   func() error { _, _, err := s.Acks(ctx, bucket); return err },
		"Forget": func() error { return s.Forget(ctx, "me", []int{bucket}) },
		"Log":    func() error { return s.Log(ctx, []rediskeys.LogRead{{Bucket: bucket}})[0].Err },
	}
}

// wantErr checks that an error wraps kind, and that its text is one line which includes kind's.
func wantErr(t *testing.T, what string, err, kind error) {
	t.Helper()
	switch {
	case !errors.Is(err, kind):
		t.Errorf("%s: error %v, want %v", what, err, kind)
	case !strings.HasPrefix(err.Error(), "rediskeys: ") || !strings.Contains(err.Error(), kind.Error()) || strings.Contains(err.Error(), "\n"):
		t.Errorf("%s: the error is not one line with the cause: %q", what, err)
	}
}

// documented are the rights of a writer, as [rediskeys.Config.ACL] has them.
var documented = aclOf("redis://h", rediskeys.RoleWriter).Server

func aclOf(url string, role rediskeys.Role) rediskeys.ACL {
	acl, err := rediskeys.Config{}.ACL(url, role)
	if err != nil {
		panic(err)
	}
	return acl
}

// setUser gives the user keyturn some rules of ACL SETUSER, and no others.
func setUser(t testing.TB, server *redistest.Server, rules ...[]string) {
	t.Helper()
	args := []any{"ACL", "SETUSER", "keyturn", "reset", ">right"}
	for _, rule := range slices.Concat(rules...) {
		args = append(args, rule)
	}
	do(t, server, args...)
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
