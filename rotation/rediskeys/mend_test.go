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
		q := rotation.SyncRequest{Bucket: bucket, Place: made.Place, Ack: ack("me", 0), Acks: true, Digests: []string{tenant}, ListsAll: true}
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

// TestMendExhaustedLog: a person writes an entry with the last ID that a log can have, and the log takes no change any
// more. An instance removes it that has read up to there, or whose change was refused; a command does not.
func TestMendExhaustedLog(t *testing.T) {
	redistest.Need(t)
	server, s := running(t)
	last := farFuture[len(farFuture)-1]
	for name, tt := range map[string]struct{ deleted, written bool }{
		"read":                              {},
		"a change was refused":              {written: true},
		"deleted again, and a change since": {deleted: true, written: true},
	} {
		flush(t, server)
		made := set(t, s, tenant, "f", "1")
		do(t, server, "XADD", key("log"), last, "op", "x", "nonce", "n")
		q := rotation.SyncRequest{Bucket: bucket, Place: made.Place, Ack: ack("me", 0), Digests: []string{tenant}, ListsAll: true}
		if !tt.written {
			q.Place = sync1(t, s, "me", q).Place
		}
		if tt.deleted {
			do(t, server, "XDEL", key("log"), last)
		}
		change := rotation.Change{Tenant: tenant, If: made.Digest, Nonce: "n2", Set: map[string][]byte{"f": []byte("2")}}
		if tt.written {
			_, err := s.Write(t.Context(), change)
			wantErr(t, name, err, rediskeys.ErrWrongType)
			if r := sync1(t, s, "", rotation.SyncRequest{Bucket: bucket}); len(r.Mended) > 0 {
				t.Errorf("%s: a command has removed the log: %+v", name, r)
			}
		}
		r := sync1(t, s, "me", q)
		if !slices.Equal(r.Mended, []string{"log"}) || !r.Resync || r.Digests[0] != made.Digest || r.Now.Year() > 2100 {
			t.Errorf("%s: %+v, want the log mended", name, r)
		}
		q.Place = r.Place
		if r = sync1(t, s, "me", q); r.Resync || len(r.Mended) > 0 {
			t.Errorf("%s: after: %+v", name, r)
		}
		if made, err := s.Write(t.Context(), change); err != nil || made.Code != rotation.Committed {
			t.Errorf("%s: the change: %+v, %v", name, made, err)
		}
	}
}

// TestMendUnknownTenants: an instance that starts, or holds some tenants alone, leaves a set of tenants that cannot be
// read. It could not list all of them again, and the next one that starts would take none for the truth.
func TestMendUnknownTenants(t *testing.T) {
	redistest.Need(t)
	server, s := running(t)
	made := set(t, s, tenant, "f", "1")
	do(t, server, "SET", key("tenants"), "text")
	for _, q := range []rotation.SyncRequest{{Bucket: bucket}, {Bucket: bucket, Place: made.Place, Ack: ack("me", 0), Digests: []string{tenant}}} {
		if r := sync1(t, s, "me", q); len(r.Mended) > 0 {
			t.Errorf("%+v", r)
		}
		if names, err := s.Tenants(t.Context(), []int{bucket}); !errors.Is(err, rediskeys.ErrWrongType) {
			t.Errorf("tenants %q, error %v, want ErrWrongType", names, err)
		}
	}
	do(t, server, "SET", key("log"), "text") // that one is mended, and the tenants are not
	if r := sync1(t, s, "me", rotation.SyncRequest{Bucket: bucket}); !slices.Equal(r.Mended, []string{"log"}) {
		t.Errorf("%+v", r)
	}
	if _, err := s.Tenants(t.Context(), []int{bucket}); !errors.Is(err, rediskeys.ErrWrongType) {
		t.Errorf("error %v, want ErrWrongType", err)
	}
}

// TestReaderMendsNoTenants: a user that may not list tenants does not begin the set of them again, and is in sync.
func TestReaderMendsNoTenants(t *testing.T) {
	redistest.Need(t)
	server, s := running(t)
	made := set(t, s, tenant, "f", "1")
	do(t, server, "SET", key("tenants"), "text")
	setUser(t, server, aclOf("redis://h", rediskeys.RoleReader).Server)
	reader := open(t, "redis://keyturn:right@"+server.Addr())
	q := rotation.SyncRequest{Bucket: bucket, Place: made.Place, Ack: ack("me", 0), Digests: []string{tenant}, ListsAll: true}
	if r := sync1(t, reader, "me", q); r.Resync || len(r.Mended) > 0 || r.Digests[0] != made.Digest {
		t.Errorf("a reader: %+v", r)
	}
	if r := sync1(t, s, "me", q); !slices.Equal(r.Mended, []string{"tenants"}) {
		t.Errorf("a writer: %+v", r)
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
	keys, err := rotation.Open(t.Context(), s, rotation.Config{KEKs: keks, TrustFirstRead: true})
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
