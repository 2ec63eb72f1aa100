package rediskeys_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/rotation/ring"
)

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

// A sync without an instance only reads.
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
	q := rotation.SyncRequest{Bucket: bucket, Place: at, Ack: ack("", 0), Digests: []string{tenant}, Acks: true}
	if r := sync1(t, s, "", q); len(r.Changed) != 1 || r.Changed[0].Tenant != tenant {
		t.Errorf("changed %+v", r.Changed)
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
		if r.More != want || r.Resync || len(r.Changed) != 500 {
			t.Fatalf("page %d: %d entries, More %v, want More %v", page, len(r.Changed), r.More, want)
		}
		at = r.Place
	}
	if at != last {
		t.Errorf("at %+v, want %+v", at, last)
	}
	more(1500)
	if r := sync1(t, s, "one", rotation.SyncRequest{Bucket: bucket, Place: at}); !r.Resync || r.Place != last || len(r.Changed) != 32 || r.Changed[31].Nonce != last.Nonce {
		t.Errorf("at a place that was trimmed: %+v", r)
	}
}

// A server whose clock was ahead may have written the newest log entry. The store's time then
// stands still until Redis' clock has caught up.
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
	w := write(t, s, rotation.Change{Tenant: tenant, Publish: []string{"a"}, Bounds: []ring.Bound{{At: want}}})
	if w.Code != rotation.Committed || !w.Now.Equal(want) || w.Place.ID != fmt.Sprintf("%d-4", ahead) {
		t.Errorf("Write: %+v, want %v", w, want)
	}
	if p := string(s.Load(t.Context(), []string{tenant})[0].Fields["p:a"]); p != strconv.FormatInt(ahead, 10) {
		t.Errorf("published at %s, want %d", p, ahead)
	}
	sync1(t, s, "one", rotation.SyncRequest{Bucket: bucket, Place: w.Place, Ack: ack("", 0)})
	if acks, now, err := s.Acks(t.Context(), bucket); err != nil || len(acks) != 1 || !now.Equal(want) {
		t.Errorf("Acks: %+v at %v, error %v", acks, now, err)
	}
}

// A place whose ID Redis cannot have made comes from another kind of store. It gets a resync, not
// an error.
func TestPlacesOfAnotherStore(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	_, s := running(t)
	newest := begin(t, s)
	for _, id := range []string{"-", "+", "x", "1", "1-", "-1", "1-2-3", "(1-0", "01-0", "1-99999999999999999999", " 1-0", newest.ID + " "} {
		q := rotation.SyncRequest{Bucket: bucket, Place: rotation.Place{ID: id, Nonce: newest.Nonce}, Ack: ack("", 0), Acks: true}
		if r := sync1(t, s, "me", q); !r.Resync || r.Place != newest || len(r.Acks) != 0 {
			t.Errorf("%q: %+v", id, r)
		}
	}
}

func TestWrongRequestsAreRefused(t *testing.T) {
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
		if _, _, err := s.Acks(t.Context(), b); err == nil {
			t.Errorf("Acks of bucket %d: no error", b)
		}
		if err := s.Forget(t.Context(), "me", []int{b}); err == nil {
			t.Errorf("Forget in bucket %d: no error", b)
		}
	}
}

// An instance that starts cannot find a ring that is missing in the set of tenants. So an instance
// that knows the ring lists it again.
func TestLostTenantIsListedAgain(t *testing.T) {
	server, s := running(t)
	place := begin(t, s)
	write(t, s, rotation.Change{Tenant: tenant, Set: map[string][]byte{"f": []byte("1")}, Op: ring.OpMint})
	q := rotation.SyncRequest{Bucket: bucket, Place: place, Digests: []string{tenant}}
	q.Place = sync1(t, s, "i", q).Place
	if err := server.Client().SRem(t.Context(), key("tenants"), tenant).Err(); err != nil {
		t.Fatal(err)
	}
	listed := func() bool {
		all, err := s.Tenants(deadline(t, 10*time.Second), []int{bucket})
		if err != nil {
			t.Fatal(err)
		}
		return slices.Contains(all[0], tenant)
	}
	sync1(t, s, "", q) // without an instance it only reads
	if listed() {
		t.Error("listed again by a sync without an instance")
	}
	sync1(t, s, "i", q)
	if !listed() {
		t.Error("not listed again")
	}
	if r := sync1(t, s, "other", q); len(r.Changed) == 0 || r.Changed[len(r.Changed)-1].Tenant != tenant || r.Changed[len(r.Changed)-1].Op != "list" {
		t.Errorf("the log does not say so: %+v", r)
	}
	// A key of another type in place of the set does not make the sync fail.
	for _, command := range [][]any{{"DEL", key("tenants")}, {"SET", key("tenants"), "x"}} {
		if err := server.Do(t.Context(), command...); err != nil {
			t.Fatal(err)
		}
	}
	sync1(t, s, "i", q)
}

// Each of the entries that list tenants again has a nonce of its own, which fits into an
// acknowledgement however long the tenants' names are.
func TestListedEntriesHaveShortNonces(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	place := begin(t, s)
	q := rotation.SyncRequest{Bucket: bucket}
	for i := 0; len(q.Digests) < 3; i++ {
		if name := strings.Repeat("t", 250) + fmt.Sprintf("%06d", i); rotation.BucketOf(name) == bucket {
			q.Digests = append(q.Digests, name)
			set(t, s, name, "f", "1")
		}
	}
	do(t, server, "DEL", key("tenants"))
	sync1(t, s, "i", q)
	q.Place = place
	nonces := make(map[string]bool)
	for _, e := range sync1(t, s, "i", q).Changed {
		if nonces[e.Nonce] = true; len(e.Nonce) < 26 || len(e.Nonce) > 64 {
			t.Errorf("%s: nonce %q", e.Op, e.Nonce)
		}
	}
	if len(nonces) != 6 {
		t.Errorf("%d nonces of 6 entries", len(nonces))
	}
}

// If the ACL forbids to list a ring, sync does not log that it was listed.
func TestListingWithoutRightsLogsNothing(t *testing.T) {
	server, admin := running(t)
	set(t, admin, tenant, "f", "1")
	do(t, server, "SREM", key("tenants"), tenant)
	forbid(t, server, "-sadd")
	s := open(t, "redis://keyturn:right@"+server.Addr())
	length := func() int64 {
		n, err := server.Client().XLen(t.Context(), key("log")).Result()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := length()
	for range 10 {
		sync1(t, s, "i", rotation.SyncRequest{Bucket: bucket, Digests: []string{tenant}})
	}
	if after := length(); after != before {
		t.Errorf("the log had %d entries, and has %d", before, after)
	}
}
