package rediskeys_test

import (
	"errors"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/rotation/ring"
)

// farFuture are IDs of log entries that a person who can write to Redis may add. The last one is the
// last that a log can hold.
var farFuture = []string{"7258118400000-0", "99999999999999-0", "18446744073709551615-0", "18446744073709551615-18446744073709551615"}

// An entry from the far future moves the store's clock, at most to the end of 2199. Deleting the
// bucket's log mends it, and changes no ring. Deleting the entry does not: the log remembers its ID.
func TestFarFutureEntry(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	end := time.UnixMilli(7258118399999)
	for i, id := range farFuture {
		flush(t, server)
		begin(t, s)
		ring := set(t, s, tenant, "f", "1")
		do(t, server, "XADD", key("log"), id, "op", "x", "nonce", "n")
		q := rotation.SyncRequest{Bucket: bucket, Place: ring.Place, Ack: ack("me", 0), Acks: true, Digests: []string{tenant}}
		r := sync1(t, s, "me", q)
		if !r.Now.Equal(end) || r.Resync || r.Place.ID != id || r.Digests[0] != ring.Digest || len(r.Acks) != 1 {
			t.Fatalf("%s: Sync: %+v, want %v", id, r, end)
		}
		if got := s.Load(t.Context(), []string{tenant})[0]; !got.Now.Equal(end) || got.Digest != ring.Digest {
			t.Errorf("%s: Load: %+v, want %v", id, got, end)
		}
		change := rotation.Change{Tenant: tenant, If: ring.Digest, Nonce: "n", Set: map[string][]byte{"f": []byte("2")}}
		made, err := s.Write(t.Context(), change)
		if i == len(farFuture)-1 {
			if wantErr(t, "Write", err, rediskeys.ErrWrongType); made.Code != rotation.NotMade {
				t.Errorf("%s: Write: code %d", id, made.Code)
			}
		} else if err != nil || !made.Now.Equal(end) {
			t.Errorf("%s: Write: %+v, error %v", id, made, err)
		}
		do(t, server, "XDEL", key("log"), id)
		if w, err := s.Write(t.Context(), rotation.Change{Tenant: other, Nonce: "n2", Set: map[string][]byte{"f": nil}}); err == nil && w.Place.ID < id {
			t.Errorf("%s: after XDEL of the entry an entry has the ID %s: then XDEL would mend it", id, w.Place.ID)
		}
		before := s.Load(t.Context(), []string{tenant})[0].Digest
		do(t, server, "DEL", key("log"))
		q.Place = sync1(t, s, "me", q).Place
		r = sync1(t, s, "me", q)
		if d := time.Since(r.Now).Abs(); r.Resync || d > time.Minute || r.Digests[0] != before || len(r.Acks) != 1 {
			t.Errorf("%s: after DEL of the log: %+v", id, r)
		}
		set(t, s, tenant, "f", "3")
	}
}

// An instance that meets such an entry says that the clocks differ, keeps its keys, and comes back by
// itself once the log is deleted.
func TestInstanceSurvivesFarFutureEntry(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	keks, err := rotation.NewKEKs([]byte("0123456789abcdef0123456789ABCDEF"))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := rotation.Open(t.Context(), s, rotation.Config{
		KEKs: keks, Tenants: []string{tenant}, TrustFirstRead: true, Poll: 100 * time.Millisecond, Deadline: 450 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = keys.Close(deadline(t, 5*time.Second)) }()
	rotator, err1 := rotation.NewRotator(keys)
	signer, err2 := rotation.NewSigner(keys, rotation.SignerConfig{})
	_, err3 := rotator.Create(t.Context(), tenant, ring.Policy{
		Algorithm: keystore.HS256, Every: time.Hour, Propagation: time.Minute, MaxTokenTTL: time.Minute, Freshness: 5 * time.Second, Dwell: time.Second, ClockSkew: time.Second,
	})
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	until := func(what string, reached func(rotation.Status) bool) {
		t.Helper()
		for ctx := deadline(t, 20*time.Second); ; time.Sleep(10 * time.Millisecond) { // waits for another process
			if reached(keys.Status()) {
				return
			}
			if ctx.Err() != nil {
				t.Fatalf("%s: %+v", what, keys.Status())
			}
		}
	}
	until("in sync", func(s rotation.Status) bool { return s.Ready && s.Fresh && s.Err == nil })
	do(t, server, "XADD", key("log"), "99999999999999-0", "op", "x", "nonce", "n")
	off := (*rotation.ClockError)(nil)
	until("the clocks differ", func(s rotation.Status) bool { return errors.As(s.Err, &off) && off.Store.Year() == 2199 })
	if _, err := signer.Sign(t.Context(), tenant, map[string]any{"sub": "ann"}); err != nil {
		t.Errorf("Sign, while the clocks differ: %v", err)
	}
	if _, err := rotator.Rotate(t.Context(), tenant, rotation.Force); !errors.As(err, &off) {
		t.Errorf("Rotate, while the clocks differ: %v", err)
	}
	do(t, server, "DEL", key("log"))
	until("in sync again", func(s rotation.Status) bool { return s.Ready && s.Fresh && s.Err == nil })
	if _, err := rotator.Rotate(t.Context(), tenant, rotation.Force); err != nil {
		t.Errorf("Rotate, after the log was deleted: %v", err)
	}
}
