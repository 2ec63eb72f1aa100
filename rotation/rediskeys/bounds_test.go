package rediskeys_test

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/rotation/ring"
)

// Anyone who can write to Redis can write log entries of any size. A field that is longer than any
// that keyturn writes is returned empty, and the place moves past its entry.
func TestOversizedEntries(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	at := begin(t, s)
	limits := map[string]int{"op": 32, "tenant": 256, "kid": 256, "seq": 10, "actor": 256, "nonce": 64, "mac": 73728}
	for _, over := range []string{"op", "tenant", "kid", "seq", "actor", "nonce", "mac"} {
		for extra := range 2 {
			args := []any{"XADD", key("log"), "*"}
			for name, n := range limits {
				if name == over {
					n += extra
				}
				args = append(args, name, strings.Repeat("7", n))
			}
			do(t, server, args...)
			r := sync1(t, s, "", rotation.SyncRequest{Bucket: bucket, Place: at})
			if r.Resync || r.More || r.Place.ID == at.ID || (r.Place.Nonce == "") != (over == "nonce" && extra == 1) {
				t.Fatalf("%s of %d bytes: Resync %v, More %v, place %+v", over, limits[over]+extra, r.Resync, r.More, r.Place)
			}
			at = r.Place
			if over == "tenant" && extra == 1 {
				if len(r.Changed) != 0 {
					t.Errorf("an entry with a tenant of 257 bytes: %.200v", r.Changed)
				}
				continue
			}
			e := r.Changed[0]
			got := map[string]int{"op": len(e.Op), "tenant": len(e.Tenant), "kid": len(e.KID), "actor": len(e.Actor), "nonce": len(e.Nonce), "mac": len(e.MAC), "seq": len(strconv.Itoa(e.Seq))}
			want := map[string]int{over: limits[over]}
			if extra == 1 {
				want[over] = 0
			}
			if over == "seq" && extra == 1 {
				want[over] = 1 // Seq is 0
			}
			for name, n := range limits {
				if _, ok := want[name]; !ok {
					want[name] = n
				}
				if got[name] != want[name] {
					t.Errorf("%s of %d bytes: %s has %d bytes, want %d", over, limits[over]+extra, name, got[name], want[name])
				}
			}
		}
	}
	for _, seq := range []string{"-1", "1.5", "x", "", "9999999999"} {
		do(t, server, "XADD", key("log"), "*", "tenant", tenant, "seq", seq)
		r := sync1(t, s, "", rotation.SyncRequest{Bucket: bucket, Place: at})
		if at = r.Place; len(r.Changed) != 1 || r.Changed[0].Tenant != tenant {
			t.Errorf("seq %q: %+v", seq, r.Changed)
		}
	}
}

// A page ends before its entries have more than a mebibyte.
func TestPagesAreBoundedInBytes(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	_, s := running(t)
	at := begin(t, s)
	const n = 40
	digest, mac := "", bytes.Repeat([]byte{0, 1, 0xff}, 73728/3)
	for i := range n {
		digest = write(t, s, rotation.Change{Tenant: tenant, If: digest, Set: map[string][]byte{"f": nil}, Seq: i + 1, MAC: mac, Op: ring.OpMerge}).Digest
	}
	newest := sync1(t, s, "", rotation.SyncRequest{Bucket: bucket})
	if k := len(newest.Changed); k < 10 || k > 14 || newest.Changed[k-1].Seq != n || newest.Changed[0].Seq != n-k+1 || newest.More {
		t.Errorf("without a place: %d entries, More %v", k, newest.More)
	}
	var seqs []int
	for pages := 1; ; pages++ {
		r := sync1(t, s, "", rotation.SyncRequest{Bucket: bucket, Place: at})
		for _, e := range r.Changed {
			seqs = append(seqs, e.Seq)
			if !bytes.Equal(e.MAC, mac) {
				t.Fatal("another mac")
			}
		}
		if at = r.Place; !r.More {
			if pages != 3 || at != newest.Place {
				t.Errorf("%d pages, up to %+v", pages, at)
			}
			break
		}
	}
	if len(seqs) != n || !slices.IsSorted(seqs) || seqs[0] != 1 || seqs[n-1] != n {
		t.Errorf("entries %v", seqs)
	}
}

// A ring that is larger than keyturn needs is not read, and no change makes one.
func TestOversizedRing(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	const most = 1 << 20
	digest := set(t, s, other, "f", "1").Digest
	do(t, server, "HSET", key("ring:"+tenant), "name", strings.Repeat("x", most-4))
	got := s.Load(t.Context(), []string{other, tenant})
	if got[1].Err != nil || got[0].Digest != digest {
		t.Errorf("a ring of %d bytes: error %v", most, got[1].Err)
	}
	change := rotation.Change{Tenant: tenant, If: got[1].Digest, Nonce: "n", Set: map[string][]byte{"f": nil}}
	r, err := s.Write(t.Context(), change)
	if wantErr(t, "Write", err, rediskeys.ErrTooLarge); r.Code != rotation.NotMade {
		t.Errorf("a change that makes a ring of %d bytes: code %d", most+1, r.Code)
	}
	do(t, server, "HSET", key("ring:"+tenant), "o", "")
	got = s.Load(t.Context(), []string{other, tenant})
	if wantErr(t, "Load", got[1].Err, rediskeys.ErrTooLarge); got[0].Digest != digest {
		t.Errorf("the ring of another tenant: %+v", got[0])
	}
	large := sync1(t, s, "", rotation.SyncRequest{Bucket: bucket, Digests: []string{tenant}}).Digests[0]
	write(t, s, rotation.Change{Tenant: tenant, If: large, Delete: []string{"name"}}) // may always be made smaller
	set(t, s, tenant, "f", "1")
}

// Names in the set of tenants that no tenant can have are left out.
func TestOversizedTenants(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	longest := strings.Repeat("t", 256)
	do(t, server, "SADD", key("tenants"), longest, longest+"t", strings.Repeat("x", 1<<20))
	got, err := s.Tenants(t.Context(), []int{bucket})
	if err != nil || len(got) != 1 || !slices.Equal(got[0], []string{longest}) {
		t.Errorf("%.500q, error %v", got, err)
	}
}

// What the scripts would not return again is refused before it is written.
func TestOversizedChangesAreRefused(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	begin(t, s)
	for _, c := range []rotation.Change{
		{Tenant: tenant},
		{Tenant: tenant, Nonce: strings.Repeat("n", 65)},
		{Tenant: tenant, Nonce: "n", MAC: make([]byte, 73729)},
		{Tenant: tenant, Nonce: "n", Actor: strings.Repeat("a", 257)},
		{Tenant: tenant, Nonce: "n", KID: strings.Repeat("k", 257)},
		{Tenant: strings.Repeat("t", 257), Nonce: "n"},
		{Tenant: tenant, Nonce: "n", Op: ring.Op(strings.Repeat("o", 33))},
		{Tenant: tenant, Nonce: "n", Seq: 99999999999},
	} {
		if r, err := s.Write(t.Context(), c); err == nil || r.Code != rotation.NotMade || !strings.Contains(err.Error(), "rediskeys: write of tenant") {
			t.Errorf("%.100v: code %d, error %v", c, r.Code, err)
		}
	}
	if n := server.Client().XLen(t.Context(), key("log")).Val(); n != 1 {
		t.Errorf("%d entries in the log, want 1", n)
	}
	write(t, s, rotation.Change{
		Tenant: tenant, Nonce: strings.Repeat("n", 64), MAC: make([]byte, 73728), Actor: strings.Repeat("a", 256), KID: strings.Repeat("k", 256), Seq: 1<<31 - 1,
		Op: ring.Op(strings.Repeat("o", 32)),
	})
}

// Lists that are empty, and lists that are longer than Lua can pass to a command.
func TestListsOfAnyLength(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	_, s := running(t)
	r := write(t, s, rotation.Change{Tenant: tenant})
	if r.Code != rotation.Committed || r.Digest != "" {
		t.Errorf("a change of nothing: %+v", r)
	}
	const n = 9000
	var c rotation.Change
	for i := range n {
		c.Publish = append(c.Publish, strconv.Itoa(i))
		c.Bounds = append(c.Bounds, ring.Bound{At: r.Now, From: -1 << 62, To: 1 << 62})
	}
	c.Tenant = tenant
	r = write(t, s, c)
	if got := s.Load(t.Context(), []string{tenant})[0]; got.Err != nil || len(got.Fields) != n || got.Digest != r.Digest {
		t.Errorf("%d fields, error %v, want %d", len(got.Fields), got.Err, n)
	}
	all := make([]string, 0, n)
	for i := range n {
		all = append(all, "p:"+strconv.Itoa(i))
	}
	if r = write(t, s, rotation.Change{Tenant: tenant, If: r.Digest, Delete: all}); r.Code != rotation.Committed || r.Digest != "" {
		t.Errorf("%+v", r)
	}
}
