package rediskeys_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/rotation/ring"
)

// mends checks on one server that an instance removes a log, a set of tenants or acknowledgements of another
// type. One sync mends it, and says so. A call without an instance removes nothing.
func mends(t *testing.T, client redis.UniversalClient, s *rediskeys.Store) {
	t.Helper()
	for _, name := range []string{"log", "tenants", "ack"} {
		if err := client.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		made := set(t, s, tenant, "f", "1")
		q := rotation.SyncRequest{Bucket: bucket, Place: made.Place, Ack: ack("me", 0), Acks: true, Digests: []string{tenant}}
		if r := sync1(t, s, "me", q); r.Resync || len(r.Mended) > 0 {
			t.Fatalf("%s: before: %+v", name, r)
		}
		if err := client.Set(t.Context(), key(name), "text", 0).Err(); err != nil {
			t.Fatal(err)
		}
		for method, call := range calls(t.Context(), s, made.Place) {
			if method != "Sync" {
				_ = call() // TestWrongType says what it returns
			}
		}
		if got := client.Get(t.Context(), key(name)).Val(); got != "text" {
			t.Errorf("%s: a call without an instance has removed it: %q", name, got)
		}
		r := sync1(t, s, "me", q)
		if !slices.Equal(r.Mended, []string{name}) || r.Resync != (name == "log") || r.Digests[0] != made.Digest {
			t.Errorf("%s: %+v, want the ring as it was, and %s mended", name, r, name)
		}
		q.Place = r.Place
		if r = sync1(t, s, "me", q); r.Resync || len(r.Mended) > 0 || len(r.Acks) != 1 {
			t.Errorf("%s: after: %+v", name, r)
		}
		if names, err := s.Tenants(t.Context(), []int{bucket}); err != nil || !slices.Contains(names[0], tenant) {
			t.Errorf("%s: tenants %q, error %v", name, names, err)
		}
		set(t, s, tenant, "f", "2")
	}
}

// TestMend: a person, or another program, replaces the log of a bucket, its acknowledgements or its tenants.
func TestMend(t *testing.T) {
	t.Run("miniredis", func(t *testing.T) {
		url := "redis://" + mini(t).Addr()
		mends(t, connect(t, url), open(t, url))
	})
	t.Run("Redis", func(t *testing.T) {
		redistest.Need(t)
		server, s := running(t)
		mends(t, connect(t, "redis://"+server.Addr()), s)
	})
}

// TestMendUnknownTenants: an instance that starts, and holds nothing, mends the tenants of a bucket too: there may be
// no other one that would.
func TestMendUnknownTenants(t *testing.T) {
	redistest.Need(t)
	server, s := running(t)
	begin(t, s)
	do(t, server, "SET", key("tenants"), "text")
	if r := sync1(t, s, "me", rotation.SyncRequest{Bucket: bucket}); !slices.Equal(r.Mended, []string{"tenants"}) {
		t.Errorf("%+v", r)
	}
	if names, err := s.Tenants(t.Context(), []int{bucket}); err != nil || len(names[0]) > 0 {
		t.Errorf("tenants %q, error %v", names, err)
	}
}

// TestInstanceMends: an instance keeps its keys while a log is replaced, raises an alarm, and is in sync again by
// itself.
func TestInstanceMends(t *testing.T) {
	redistest.Need(t)
	server, s := running(t)
	keks, err := rotation.NewKEKs([]byte("0123456789abcdef0123456789ABCDEF"))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := rotation.Open(t.Context(), s, rotation.Config{KEKs: keks, Tenants: []string{tenant}, TrustFirstRead: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = keys.Close(deadline(t, 5*time.Second)) }()
	rotator, err1 := rotation.NewRotator(keys)
	signer, err2 := rotation.NewSigner(keys, rotation.SignerConfig{})
	_, err3 := rotator.Create(t.Context(), tenant, ring.Policy{Algorithm: keystore.HS256, Every: time.Hour, Propagation: time.Minute, MaxTokenTTL: time.Minute})
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"log", "tenants", "ack"} {
		before := keys.Status().Counts.Forged
		do(t, server, "SET", key(name), "text")
		for ctx := deadline(t, 30*time.Second); keys.Status().Counts.Forged == before; time.Sleep(10 * time.Millisecond) {
			if ctx.Err() != nil {
				t.Fatalf("%s was not mended: %+v", name, keys.Status())
			}
			if _, err := signer.Sign(t.Context(), tenant, map[string]any{"sub": "ann"}); err != nil {
				t.Fatalf("%s: Sign: %v", name, err)
			}
		}
	}
}
