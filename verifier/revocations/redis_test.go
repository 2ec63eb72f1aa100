package revocations

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/verifier"
	"github.com/keyturn/keyturn/verifier/revocations/internal/codec"
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

// onRedis opens a list on a Redis server. It is closed when the test ends.
func onRedis(t testing.TB, url, name string, options ...func(*Config)) *List {
	t.Helper()
	cfg := Config{KEKs: testKEK, Instance: name, Logger: quiet, TrustFirstRead: true, Deadline: 5 * time.Second}
	for _, o := range options {
		o(&cfg)
	}
	l, err := Open(t.Context(), connect(t, url), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close(context.WithoutCancel(t.Context())) })
	return l
}

// waitFor waits until f is true, for 20 s.
func waitFor(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("after 20 s not yet: " + what)
		}
	}
}

// TestRedis: a revocation reaches a second list on a Redis server at the nudge, which the receipt's
// acknowledgements tell; a third list that starts later has it; and Redis has none of the names.
func TestRedis(t *testing.T) {
	redistest.Need(t)
	url := "redis://" + redistest.Run(t, redistest.Options{}).Addr()
	issuer := newIssuer(t, "acme")
	a, b := onRedis(t, url, "a"), onRedis(t, url, "b")
	ready(t, a, b)
	v := issuer.verifier(b)
	token := issuer.token("acme", map[string]any{"sub": "ann-the-secret-subject"})
	if _, err := v.Verify(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	receipt, err := a.RevokeSubject(t.Context(), "acme", "ann-the-secret-subject", time.Now().Add(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	applied, err := a.Watch(ctx, receipt)
	if err != nil || !slices.Equal(applied.By, []string{"a", "b"}) || applied.Holders != 2 {
		t.Errorf("applied by %+v, %v", applied, err)
	}
	if _, err := v.Verify(t.Context(), token); !errors.Is(err, verifier.ErrRevoked) {
		t.Errorf("after the acknowledgement: %v", err)
	}
	c := onRedis(t, url, "c")
	ready(t, c)
	if _, err := issuer.verifier(c).Verify(t.Context(), token); !errors.Is(err, verifier.ErrRevoked) {
		t.Errorf("an instance that starts later: %v", err)
	}
}

// BenchmarkPropagation measures how long after Revoke has returned another list refuses.
func BenchmarkPropagation(b *testing.B) {
	redistest.Need(b)
	url := "redis://" + redistest.Run(b, redistest.Options{}).Addr()
	issuer := newIssuer(b, "acme")
	one, other := onRedis(b, url, "one"), onRedis(b, url, "other")
	ready(b, one, other)
	v := issuer.verifier(other)
	var all []time.Duration
	for n := 0; b.Loop(); n++ {
		token := issuer.token("acme", map[string]any{"jti": fmt.Sprint(n)})
		if _, err := v.Verify(b.Context(), token); err != nil {
			b.Fatal(err)
		}
		if _, err := one.RevokeToken(b.Context(), "acme", fmt.Sprint(n), time.Now().Add(time.Hour)); err != nil {
			b.Fatal(err)
		}
		begin := time.Now()
		for {
			if _, err := v.Verify(b.Context(), token); errors.Is(err, verifier.ErrRevoked) {
				break
			}
			time.Sleep(50 * time.Microsecond)
		}
		all = append(all, time.Since(begin))
	}
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "median-ms")
	b.ReportMetric(float64(all[len(all)-1].Microseconds())/1000, "worst-ms")
}

// TestRedisBrokenGroup: a person puts a string, or a hash of more than 1 MiB, in the place of a group. Its
// holder removes it and puts back the revocation. A group that can be read is not removed.
func TestRedisBrokenGroup(t *testing.T) {
	redistest.Need(t)
	server := redistest.Run(t, redistest.Options{})
	a := onRedis(t, "redis://"+server.Addr(), "a")
	waitFor(t, "a is ready", func() bool { return a.Status().Ready })
	receipt, err := a.RevokeToken(t.Context(), "acme", "1", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	group := groupName(groupOf(receipt.entry.Digest, allGroups))
	key := fmt.Sprintf("kt:rv:{%d}:ring:%s", rotation.BucketOf(group), group)
	fields := func() int64 { return server.Client().HLen(t.Context(), key).Val() }
	if removed, err := a.store.(discarder).Discard(t.Context(), group); removed || err != nil || fields() != 1 {
		t.Fatalf("a good group: removed %t, %v", removed, err)
	}
	for _, put := range []func() error{
		func() error { return server.Client().Set(t.Context(), key, "x", 0).Err() },
		func() error { return server.Client().HSet(t.Context(), key, "x", strings.Repeat("x", 1<<20)).Err() },
	} {
		if err := put(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the group is as it was", func() bool {
			return fields() == 1 && server.Client().HExists(t.Context(), key, codec.Field(receipt.entry.Digest)).Val()
		})
	}
}

// TestRedisBrokenBucket: another program overwrites the log of a bucket, its tenants or its acknowledgements. The list
// removes that, raises an alarm, and forgets nothing: an instance that starts later reads the revocation.
func TestRedisBrokenBucket(t *testing.T) {
	redistest.Need(t)
	server := redistest.Run(t, redistest.Options{})
	url := "redis://" + server.Addr()
	a := onRedis(t, url, "a")
	waitFor(t, "a is ready", func() bool { return a.Status().Ready })
	receipt, err := a.RevokeToken(t.Context(), "acme", "1", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	group := groupName(groupOf(receipt.entry.Digest, allGroups))
	bucket := rotation.BucketOf(group)
	for i, name := range []string{"log", "tenants", "ack"} {
		forged := a.Status().Alarms.Forged
		if err := server.Client().Set(t.Context(), fmt.Sprintf("kt:rv:{%d}:%s", bucket, name), "text", 0).Err(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, name+" is mended", func() bool { return a.Status().Alarms.Forged > forged })
		waitFor(t, "the group is listed", func() bool {
			names, err := a.store.Tenants(t.Context(), []int{bucket})
			return err == nil && slices.Contains(names[0], group)
		})
		if revoked, err := says(a, names{tenant: "acme", jti: "1"}); !revoked || err != nil {
			t.Errorf("%s: the token is revoked: %t, %v", name, revoked, err)
		}
		if _, err := a.RevokeToken(t.Context(), "acme", fmt.Sprint("after ", i), time.Now().Add(time.Hour)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	b := onRedis(t, url, "b")
	waitFor(t, "b is ready", func() bool { return b.Status().Ready })
	if revoked, err := says(b, names{tenant: "acme", jti: "1"}); !revoked || err != nil {
		t.Errorf("a new list: the token is revoked: %t, %v", revoked, err)
	}
}

// TestRedisBrokenTenants: another program overwrites the groups that a bucket lists, and its log, while no list runs.
// One that starts knows no group, so it must not begin that set again: it would read no revocation, and accept revoked tokens.
func TestRedisBrokenTenants(t *testing.T) {
	redistest.Need(t)
	server := redistest.Run(t, redistest.Options{})
	url := "redis://" + server.Addr()
	a := onRedis(t, url, "a")
	waitFor(t, "a is ready", func() bool { return a.Status().Ready })
	receipt, err := a.RevokeToken(t.Context(), "acme", "1", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	bucket := fmt.Sprintf("kt:rv:{%d}:", rotation.BucketOf(groupName(groupOf(receipt.entry.Digest, allGroups))))
	key := bucket + "tenants"
	if err := server.Client().MSet(t.Context(), key, "text", bucket+"log", "text").Err(); err != nil {
		t.Fatal(err)
	}
	b := onRedis(t, url, "b", func(c *Config) { c.Poll = 100 * time.Millisecond })
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if revoked, err := says(b, names{tenant: "acme", jti: "1"}); err == nil && !revoked {
			t.Fatal("a list that could not read which groups there are accepts a revoked token")
		}
	}
	if got := server.Client().Get(t.Context(), key).Val(); got != "text" {
		t.Errorf("the key was removed: %q", got)
	}
}
