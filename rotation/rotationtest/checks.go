package rotationtest

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/rotation"
)

// storeChecks are the parts of TestStore, each a sentence or two of the contract.
var storeChecks = []struct {
	name string
	run  func(*storeCheck)
}{
	{"an empty log gets a first entry", checkFirstEntry},
	{"a place that is not in the log is not proved", checkUnproved},
	{"what came after a place", checkNews},
	{"a long log comes in pages", checkPages},
	{"acknowledgements", checkAcks},
	{"no acknowledgement without proof or name", checkNoAck},
	{"forget", checkForget},
	{"digests", checkDigests},
	{"vouching", checkVouched},
	{"replies are as many as requests and in their order", checkOrder},
	{"a change is made to the ring it was decided on", checkConflict},
	{"a change is all or nothing", checkChange},
	{"bounds", checkBounds},
	{"publishing", checkPublish},
	{"a ring without fields is none", checkEmptied},
	{"tenants", checkTenants},
	{"names and values of any bytes", checkBytes},
	{"racing changes are made one by one", checkRace},
	{"syncs beside changes miss none", checkSyncRace},
	{"listen", checkListen},
	{"every method ends with its context", checkContext},
}

func checkFirstEntry(c *storeCheck) {
	first := c.start(7)
	if again := c.start(7); again != first {
		c.errorf("Sync: the place is %+v, then %+v, with no change between", first, again)
	}
	r := c.sync("", rotation.SyncRequest{Bucket: 7, Place: first})
	if r.Resync || r.Place != first || len(r.Changed) > 0 || r.More {
		c.errorf("Sync: with no change since %+v: %+v", first, r)
	}
	if other := c.start(8); other.Nonce == first.Nonce {
		c.errorf("Sync: two buckets have an entry of the same nonce")
	}
	c.wantNews(7, first)
}

func checkUnproved(c *storeCheck) {
	bucket, tenants := sameBucket(1)
	old := c.start(bucket)
	newest := c.set(tenants[0], "f", "1").Place
	for name, place := range map[string]rotation.Place{
		"another nonce":              {ID: newest.ID, Nonce: newest.Nonce + "x"},
		"no nonce":                   {ID: newest.ID},
		"the nonce of another entry": {ID: newest.ID, Nonce: old.Nonce},
		"the ID of another entry":    {ID: old.ID, Nonce: newest.Nonce},
		"no ID":                      {Nonce: newest.Nonce},
		"the zero place":             {},
	} {
		r := c.sync("i", rotation.SyncRequest{Bucket: bucket, Place: place})
		if !r.Resync || r.Place != newest || r.More {
			c.errorf("Sync: at %s: %+v, want Resync and the newest place %+v", name, r, newest)
		}
	}
	elsewhere := (bucket + 1) % rotation.Buckets
	c.start(elsewhere)
	if r := c.sync("i", rotation.SyncRequest{Bucket: elsewhere, Place: newest}); !r.Resync {
		c.errorf("Sync: a place of one bucket is proved in another")
	}
	if len(c.acks(bucket, newest)) > 0 || len(c.acks(elsewhere, newest)) > 0 {
		c.errorf("Sync: a place that was not proved is acknowledged")
	}
}

func checkNews(c *storeCheck) {
	bucket, t := sameBucket(3)
	start := c.start(bucket)
	first := c.set(t[0], "f", "1").Place
	c.set(t[1], "f", "1")
	c.set(t[0], "f", "2")
	last := c.set(t[0], "f", "3").Place
	if newest := c.wantNews(bucket, start, t[0], t[1]); newest != last {
		c.errorf("Sync: the newest place is %+v, want that of the last Write, %+v", newest, last)
	}
	c.wantNews(bucket, first, t[0], t[1])
	c.wantNews(bucket, last)
	c.set(t[2], "f", "1")
	c.wantNews(bucket, last, t[2])
	c.wantNews((bucket+1)%rotation.Buckets, c.start((bucket+1)%rotation.Buckets))
}

func checkPages(c *storeCheck) {
	const n = 300
	bucket, t := sameBucket(n)
	start := c.start(bucket)
	places := make(map[rotation.Place]bool)
	nonces := make(map[string]bool)
	for _, tenant := range t {
		p := c.want(rotation.Committed, rotation.Change{Tenant: tenant, Set: fields("f", "1")}).Place
		places[p], nonces[p.Nonce] = true, true
	}
	if len(places) != n || len(nonces) != n {
		c.errorf("Write: %d changes have %d places with %d nonces", n, len(places), len(nonces))
	}
	c.wantNews(bucket, start, t...)
}

func checkAcks(c *storeCheck) {
	bucket, t := sameBucket(1)
	start := c.start(bucket)
	since := date(time.Now().UnixMilli()).Add(-time.Hour)
	before := c.shown(bucket)
	c.sync("one", rotation.SyncRequest{Bucket: bucket, Place: start, GoodSince: since})
	after := c.sync("two", rotation.SyncRequest{Bucket: bucket, Place: start}).Now
	acks := c.acks(bucket, start)
	if len(acks) != 2 || !acks["one"].GoodSince.Equal(since) || !acks["two"].GoodSince.IsZero() {
		c.errorf("Acks: %+v, want one of %q, good since %v, and one of %q in doubt", acks, "one", since, "two")
	}
	for _, a := range acks {
		if !a.Applied || a.At.Before(before) || a.At.After(after) {
			c.errorf("Acks: %+v, want Applied, and a time from %v to %v", a, before, after)
		}
	}
	place := c.set(t[0], "f", "1").Place
	c.sync("one", rotation.SyncRequest{Bucket: bucket, Place: start})
	if acks := c.acks(bucket, place); len(acks) != 2 || acks["one"].Applied || !acks["one"].GoodSince.IsZero() {
		c.errorf("Acks: %+v: what is acknowledged is the place that was sent, and the GoodSince sent with it", acks)
	}
	c.sync("one", rotation.SyncRequest{Bucket: bucket, Place: place})
	if acks := c.acks(bucket, place); !acks["one"].Applied || acks["two"].Applied {
		c.errorf("Acks: %+v, want Applied of %q alone", acks, "one")
	}
	if acks := c.acks(bucket, start); !acks["one"].Applied || !acks["two"].Applied {
		c.errorf("Acks: %+v, want Applied of both, one with a later place", acks)
	}
	if acks := c.acks(bucket, rotation.Place{ID: start.ID, Nonce: "of another life"}); acks["one"].Applied || acks["two"].Applied {
		c.errorf("Acks: %+v: a place of another life is Applied", acks)
	}
	if acks := c.acks((bucket+1)%rotation.Buckets, start); len(acks) > 0 {
		c.errorf("Acks: %+v in another bucket", acks)
	}
}

func checkNoAck(c *storeCheck) {
	place := c.start(3)
	c.sync("resyncs", rotation.SyncRequest{Bucket: 3})
	c.sync("", rotation.SyncRequest{Bucket: 3, Place: place})
	if acks := c.acks(3, place); len(acks) > 0 {
		c.errorf("Acks: %+v, want none: one had no place, the other no name", acks)
	}
	c.sync("once", rotation.SyncRequest{Bucket: 3, Place: place, GoodSince: time.Now()})
	before := c.acks(3, place)["once"]
	c.sync("once", rotation.SyncRequest{Bucket: 3})
	if after := c.acks(3, place)["once"]; after != before || !after.Applied {
		c.errorf("Acks: %+v, then, after a Resync, %+v", before, after)
	}
}

func checkForget(c *storeCheck) {
	var places [3]rotation.Place
	for bucket := range places {
		places[bucket] = c.start(bucket)
		for _, instance := range []string{"a", "ab"} {
			c.sync(instance, rotation.SyncRequest{Bucket: bucket, Place: places[bucket]})
		}
	}
	for _, instance := range []string{"a", "nobody"} {
		if err := c.s.Forget(c.ctx, instance, []int{0, 2, 9}); err != nil {
			c.errorf("Forget of %q: %v", instance, err)
		}
	}
	for bucket, want := range [][]string{{"ab"}, {"a", "ab"}, {"ab"}} {
		if got := slices.Sorted(maps.Keys(c.acks(bucket, places[bucket]))); !slices.Equal(got, want) {
			c.errorf("Acks in bucket %d: %q, want %q", bucket, got, want)
		}
	}
	if err := c.s.Forget(c.ctx, "a", nil); err != nil {
		c.errorf("Forget in no bucket: %v", err)
	}
}

func checkDigests(c *storeCheck) {
	bucket, t := sameBucket(2)
	seen := make(map[string]int)
	rings := []map[string][]byte{
		fields("a", "bc"), fields("ab", "c"), fields("a", "b", "c", "d"), fields("a", "d", "c", "b"), fields("a", "bcd"),
		fields("a", "", "b", "c"), fields("a", "b", "", "c"), fields("a", "b\x00c"), fields("a", "b\nc"), fields("a", "b", "\nc", ""),
		fields("a", ""), fields("", "a"), fields("a", "\xff"), fields("a", "\xfe"), fields("a", strings.Repeat("x", 10<<10)),
		fields("1", "11"), fields("11", "1"), fields("1", "1:1"), fields("1:1", "1"),
	}
	digest := ""
	var old []string
	for i, ring := range rings {
		digest = c.want(rotation.Committed, rotation.Change{Tenant: t[0], If: digest, Delete: old, Set: ring}).Digest
		old = slices.DeleteFunc(slices.Collect(maps.Keys(ring)), func(name string) bool {
			return i+1 < len(rings) && rings[i+1][name] != nil
		})
		if j, ok := seen[digest]; ok {
			c.errorf("the digests of the rings %.50q and %.50q are equal", ring, rings[j])
		}
		seen[digest] = i
		if loaded := c.wantFields(t[0], ring); loaded != digest || digest == "" {
			c.errorf("the digest is %q by Write, %q by Load", digest, loaded)
		}
	}
	r := c.sync("", rotation.SyncRequest{Bucket: bucket, Digests: []string{t[1], t[0], t[1], t[0]}})
	if !slices.Equal(r.Digests, []string{"", digest, "", digest}) {
		c.errorf("Sync: the digests of no ring and of one, twice, are %q; Load says %q", r.Digests, digest)
	}
	q := rotation.SyncRequest{Bucket: bucket, Place: r.Place, Digests: []string{t[0]}}
	if r := c.sync("i", q); !slices.Equal(r.Digests, []string{digest}) {
		c.errorf("Sync: the digest is %q at a place that is proved, want %q", r.Digests, digest)
	}
	checkSameDigest(c, t[1])
}

// checkSameDigest checks that a digest is of the fields, not of how they came.
func checkSameDigest(c *storeCheck, tenant string) {
	one := c.want(rotation.Committed, rotation.Change{Tenant: tenant, Set: fields("x", "1", "y", "2")}).Digest
	two := c.want(rotation.Committed, rotation.Change{Tenant: tenant, If: one, Set: fields("z", "3"), Delete: []string{"x"}}).Digest
	back := c.want(rotation.Committed, rotation.Change{Tenant: tenant, If: two, Set: fields("x", "1"), Delete: []string{"z"}}).Digest
	if back != one {
		c.errorf("the digests of the same fields are %q and %q", one, back)
	}
}

func checkVouched(c *storeCheck) {
	place := c.start(5)
	now := c.shown(5)
	for _, peer := range []struct {
		name string
		good time.Time
	}{{"long", now.Add(-10 * time.Minute)}, {"doubting", time.Time{}}} {
		c.sync(peer.name, rotation.SyncRequest{Bucket: 5, Place: place, GoodSince: peer.good})
	}
	time.Sleep(3 * time.Millisecond)
	const hour, minute, ms = time.Hour, time.Minute, time.Millisecond
	for _, tt := range []struct {
		what          string
		instance      string
		within, since time.Duration
		want          bool
	}{
		{"a peer that has been in step for long enough", "new", hour, 5 * minute, true},
		{"a peer that has not been in step for long enough", "new", hour, 20 * minute, false},
		{"a peer whose acknowledgement is too old", "new", ms, 5 * minute, false},
		{"the instance itself", "long", hour, 5 * minute, false},
		{"a peer, without a name of our own", "", hour, 5 * minute, true},
		{"a peer, but nothing was asked", "new", 0, 0, false},
	} {
		for _, at := range []rotation.Place{{}, place} {
			q := rotation.SyncRequest{Bucket: 5, Place: at, VouchWithin: tt.within, VouchFor: tt.since}
			if tt.instance == "long" {
				q.GoodSince = now.Add(-10 * minute)
			}
			if r := c.sync(tt.instance, q); r.Vouched != tt.want {
				c.errorf("Sync: vouched by %s: %v, want %v (Resync %v)", tt.what, r.Vouched, tt.want, r.Resync)
			}
		}
		if err := c.s.Forget(c.ctx, "new", []int{5}); err != nil {
			c.errorf("Forget: %v", err)
		}
	}
	if err := c.s.Forget(c.ctx, "long", []int{5}); err != nil {
		c.errorf("Forget: %v", err)
	}
	q := rotation.SyncRequest{Bucket: 5, VouchWithin: hour, VouchFor: ms}
	if c.sync("new", q).Vouched {
		c.errorf("Sync: vouched by an instance in doubt")
	}
	if q.Bucket = 6; c.sync("new", q).Vouched {
		c.errorf("Sync: vouched by an instance in another bucket")
	}
}

func checkOrder(c *storeCheck) {
	_, same := sameBucket(2)
	tenants := []string{"a", same[0], "b", "nobody", "a", same[1], "nobody", "c"}
	for _, tenant := range []string{"a", "b", "c", same[0], same[1]} {
		c.set(tenant, "name", tenant)
	}
	var requests []rotation.SyncRequest
	for _, tenant := range tenants {
		requests = append(requests, rotation.SyncRequest{Bucket: rotation.BucketOf(tenant), Digests: []string{tenant}})
	}
	replies := c.syncAll("i", requests...)
	snapshots := c.s.Load(c.ctx, tenants)
	if len(snapshots) != len(tenants) {
		c.errorf("Load returned %d snapshots of %d tenants", len(snapshots), len(tenants))
		return
	}
	for i, tenant := range tenants {
		want := fields("name", tenant)
		if tenant == "nobody" {
			want = nil
		}
		if s := snapshots[i]; s.Err != nil || !maps.EqualFunc(s.Fields, want, bytes.Equal) {
			c.errorf("Load: at the place of %q: %q, %v", tenant, s.Fields, s.Err)
		}
		if d := replies[i].Digests; len(d) == 1 && d[0] != snapshots[i].Digest {
			c.errorf("Sync: at the place of %q: digest %q; Load says %q", tenant, d[0], snapshots[i].Digest)
		}
		if place := c.start(rotation.BucketOf(tenant)); replies[i].Place != place {
			c.errorf("Sync: at the place of %q: %+v, want %+v", tenant, replies[i].Place, place)
		}
	}
	checkAllBuckets(c)
	c.syncAll("i")
	if got := c.s.Load(c.ctx, nil); len(got) > 0 {
		c.errorf("Load of nobody returned %d snapshots", len(got))
	}
}

// checkAllBuckets asks for as many as there are, twice.
func checkAllBuckets(c *storeCheck) {
	requests := make([]rotation.SyncRequest, rotation.Buckets)
	for b := range requests {
		requests[b].Bucket = rotation.Buckets - 1 - b
	}
	nonces := make(map[string]bool)
	for i, r := range c.syncAll("i", requests...) {
		nonces[r.Place.Nonce] = true
		requests[i].Place = r.Place
	}
	if len(nonces) != rotation.Buckets {
		c.errorf("Sync: %d places in %d buckets", len(nonces), rotation.Buckets)
	}
	for i, r := range c.syncAll("i", requests...) {
		if r.Resync || r.Place != requests[i].Place {
			c.errorf("Sync: bucket %d, with no change since %+v: %+v", requests[i].Bucket, requests[i].Place, r)
		}
	}
}

func checkConflict(c *storeCheck) {
	bucket, t := sameBucket(1)
	ring := func(i, v string) rotation.Change {
		return rotation.Change{Tenant: t[0], If: i, Set: fields("f", v)}
	}
	c.want(rotation.Conflict, ring("some digest", "0"))
	if newest := c.start(bucket); c.wantNews(bucket, newest) != newest || c.wantFields(t[0], nil) != "" {
		c.errorf("Write: a conflict made a ring")
	}
	one := c.want(rotation.Committed, ring("", "1"))
	two := c.want(rotation.Committed, ring(one.Digest, "2"))
	for _, stale := range []string{"", one.Digest, two.Digest + "0", strings.ToUpper(two.Digest) + "x"} {
		c.want(rotation.Conflict, ring(stale, "3"))
	}
	c.wantFields(t[0], fields("f", "2"))
	c.wantNews(bucket, two.Place)
	c.want(rotation.Committed, ring(two.Digest, "2")) // the same again is a change too
	c.wantNews(bucket, two.Place, t[0])
}

func checkChange(c *storeCheck) {
	_, t := sameBucket(2)
	other := c.want(rotation.Committed, rotation.Change{Tenant: t[1], Set: fields("a", "other")}).Digest
	r := c.want(rotation.Committed, rotation.Change{Tenant: t[0], Set: fields("a", "1", "b", "2", "c", "3")})
	r = c.want(rotation.Committed, rotation.Change{
		Tenant: t[0], If: r.Digest, Set: fields("b", "22", "d", "4"), Delete: []string{"a", "no such field"}, Publish: nil,
	})
	if got := c.wantFields(t[0], fields("b", "22", "c", "3", "d", "4")); got != r.Digest {
		c.errorf("Write: the digest is %q, of the ring now it is %q", r.Digest, got)
	}
	if got := c.wantFields(t[1], fields("a", "other")); got != other {
		c.errorf("Write: changed another ring of the bucket")
	}
	snapshot := c.load(t[0])
	for name := range snapshot.Fields {
		snapshot.Fields[name][0] = '!'
	}
	value := []byte("5")
	c.want(rotation.Committed, rotation.Change{Tenant: t[0], If: r.Digest, Set: map[string][]byte{"e": value}})
	value[0] = '!'
	c.wantFields(t[0], fields("b", "22", "c", "3", "d", "4", "e", "5"))
	checkOps(c, t[0])
}

// checkOps checks that the store takes every op.
func checkOps(c *storeCheck, tenant string) {
	for i, op := range []rotation.Op{
		rotation.OpCreate, rotation.OpMint, rotation.OpPromote, rotation.OpRotate, rotation.OpRevoke, rotation.OpMerge, rotation.OpCollect,
	} {
		c.want(rotation.Committed, rotation.Change{
			Tenant: tenant, If: c.load(tenant).Digest, Set: fields("op", string(op)), Op: op, KID: "k\x00{}", Seq: i, Actor: "a \"person\"\n",
		})
	}
}

func checkBounds(c *storeCheck) {
	bucket, t := sameBucket(1)
	const hour = time.Hour
	start := c.start(bucket)
	now := c.shown(bucket)
	holds := rotation.Bound{At: now, From: -hour, To: hour}
	for _, tt := range []struct {
		what   string
		bounds []rotation.Bound
		want   rotation.Code
	}{
		{"none", nil, rotation.Committed},
		{"around now", []rotation.Bound{holds}, rotation.Committed},
		{"in the future", []rotation.Bound{{At: now.Add(2 * hour), From: hour, To: 3 * hour}}, rotation.Committed},
		{"in the past", []rotation.Bound{{At: now.Add(-2 * hour), From: -3 * hour, To: -hour}}, rotation.Committed},
		{"too late", []rotation.Bound{{At: now.Add(2 * hour), From: -hour, To: hour}}, rotation.OutOfBounds},
		{"too early", []rotation.Bound{{At: now.Add(-2 * hour), From: -hour, To: hour}}, rotation.OutOfBounds},
		{"past, but it must be to come", []rotation.Bound{{At: now.Add(-time.Millisecond), From: 0, To: hour}}, rotation.OutOfBounds},
		{"to come, but it must be past", []rotation.Bound{{At: now.Add(hour), From: -2 * hour, To: 0}}, rotation.OutOfBounds},
		{"the second of two", []rotation.Bound{holds, {At: now, From: hour, To: 2 * hour}}, rotation.OutOfBounds},
		{"the first of two", []rotation.Bound{{At: now, From: hour, To: 2 * hour}, holds}, rotation.OutOfBounds},
		{"two that hold", []rotation.Bound{holds, holds}, rotation.Committed},
		{"long ago", []rotation.Bound{{At: time.UnixMilli(1), From: -100 * 365 * 24 * hour, To: 0}}, rotation.Committed},
	} {
		before := c.load(t[0])
		from := c.start(bucket)
		r := c.write(rotation.Change{Tenant: t[0], If: before.Digest, Bounds: tt.bounds, Set: fields("f", tt.what)})
		if r.Code != tt.want {
			c.errorf("Write: bounds, %s: the code is %d, want %d", tt.what, r.Code, tt.want)
		}
		if tt.want == rotation.OutOfBounds {
			c.wantFields(t[0], before.Fields)
			c.wantNews(bucket, from)
			if r.Now.IsZero() {
				c.errorf("Write: out of bounds, and no Now to decide again at")
			}
		}
	}
	c.wantNews(bucket, start, t[0])
}

func checkPublish(c *storeCheck) {
	_, t := sameBucket(1)
	one := c.want(rotation.Committed, rotation.Change{Tenant: t[0], Set: fields("k:one", "r", "p:two", "no number"), Publish: []string{"one", "{t}w\x00"}})
	ms := strconv.FormatInt(one.Now.UnixMilli(), 10)
	c.wantFields(t[0], fields("k:one", "r", "p:two", "no number", "p:one", ms, "p:{t}w\x00", ms))
	time.Sleep(2 * time.Millisecond)
	two := c.want(rotation.Committed, rotation.Change{Tenant: t[0], If: one.Digest, Delete: []string{"p:{t}w\x00"}, Publish: []string{"two"}})
	if !two.Now.After(one.Now) {
		c.errorf("Write: the store's clock stands still: %v, and 2ms later %v", one.Now, two.Now)
	}
	got := c.wantFields(t[0], fields("k:one", "r", "p:one", ms, "p:two", strconv.FormatInt(two.Now.UnixMilli(), 10)))
	if got != two.Digest {
		c.errorf("Write: the digest %q is not that of the ring with what was published, %q", two.Digest, got)
	}
}

func checkEmptied(c *storeCheck) {
	_, t := sameBucket(1)
	r := c.want(rotation.Committed, rotation.Change{Tenant: t[0], Set: fields("a", "1", "b", "2")})
	r = c.want(rotation.Committed, rotation.Change{Tenant: t[0], If: r.Digest, Delete: []string{"a", "b"}})
	if got := c.wantFields(t[0], nil); got != "" || r.Digest != "" {
		c.errorf("a ring without fields has the digest %q by Load, %q by Write", got, r.Digest)
	}
	c.want(rotation.Committed, rotation.Change{Tenant: t[0], Set: fields("c", "3")})
	c.wantFields(t[0], fields("c", "3"))
}

func checkTenants(c *storeCheck) {
	bucket, t := sameBucket(3)
	for _, tenant := range []string{t[0], t[2], "elsewhere"} {
		c.set(tenant, "f", "1")
		c.set(tenant, "f", "2")
	}
	c.want(rotation.Conflict, rotation.Change{Tenant: t[1], If: "none", Set: fields("f", "1")})
	other := rotation.BucketOf("elsewhere")
	got, err := c.s.Tenants(c.ctx, []int{other, bucket, (bucket + 1) % rotation.Buckets, bucket})
	if err != nil || len(got) != 4 {
		c.errorf("Tenants of 4 buckets: %q, %v", got, err)
		return
	}
	for i, want := range [][]string{{"elsewhere"}, {t[0], t[2]}, nil, {t[0], t[2]}} {
		slices.Sort(want)
		if slices.Sort(got[i]); !slices.Equal(got[i], want) {
			c.errorf("Tenants of the %d. bucket: %q, want %q", i+1, got[i], want)
		}
	}
	if got, err := c.s.Tenants(c.ctx, nil); err != nil || len(got) > 0 {
		c.errorf("Tenants of no bucket: %q, %v", got, err)
	}
}

func checkBytes(c *storeCheck) {
	odd := []string{
		"a:b", "a", "{0}", "}", "{", "a b", "*", "a\x00b", "a\r\n", "é", "\"", "'", "\\", "0", "-", "$", ">", ":tenants", "log", "tenants",
		strings.Repeat("t", 256),
	}
	for i, name := range odd {
		bucket := rotation.BucketOf(name)
		start := c.start(bucket)
		set := fields(name, name, "k:"+name, "\x00\xff\r\n\x80", "n", strconv.Itoa(i))
		digest := c.want(rotation.Committed, rotation.Change{
			Tenant: name, Set: set, Op: rotation.OpMint, KID: name, Seq: i + 1, Actor: name,
		}).Digest
		c.wantFields(name, set)
		last := c.wantNews(bucket, start, name)
		r := c.sync(name, rotation.SyncRequest{Bucket: bucket, Place: last, Digests: []string{name}})
		if !slices.Equal(r.Digests, []string{digest}) {
			c.errorf("Sync: the digest of %q is %q, want %q", name, r.Digests, digest)
		}
		if _, ok := c.acks(bucket, last)[name]; !ok {
			c.errorf("Acks: an instance %q has left none", name)
		}
	}
	for i, name := range odd {
		c.wantFields(name, fields(name, name, "k:"+name, "\x00\xff\r\n\x80", "n", strconv.Itoa(i)))
	}
}

// checkRace has writers count up one field, each by what it has read.
func checkRace(c *storeCheck) {
	const writers, each = 8, 10
	bucket, t := sameBucket(1)
	start := c.start(bucket)
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := make(map[rotation.Place]bool)
	for w := range writers {
		wg.Go(func() {
			for n := 0; n < each; {
				s := c.load(t[0])
				count, _ := strconv.Atoi(string(s.Fields["n"]))
				change := rotation.Change{Tenant: t[0], If: s.Digest, Set: fields("n", strconv.Itoa(count+1), fmt.Sprint("w", w), "1")}
				switch r := c.write(change); r.Code {
				case rotation.Committed:
					mu.Lock()
					seen[r.Place] = true
					mu.Unlock()
					n++
				case rotation.Conflict:
				default:
					return
				}
			}
		})
	}
	wg.Wait()
	if n := string(c.load(t[0]).Fields["n"]); n != strconv.Itoa(writers*each) || len(seen) != writers*each {
		c.errorf("Write: %d changes, each of what was loaded, came to %s, at %d places", writers*each, n, len(seen))
	}
	c.wantNews(bucket, start, t[0])
}

// checkSyncRace follows a log while it is written to.
func checkSyncRace(c *storeCheck) {
	const writers, each = 4, 25
	bucket, t := sameBucket(writers * each)
	from := c.start(bucket)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for _, tenant := range t[w*each : (w+1)*each] {
				c.want(rotation.Committed, rotation.Change{Tenant: tenant, Set: fields("f", "1")})
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	heard := make(map[string]bool)
	for last := false; ; {
		news, to := c.news(bucket, from)
		for tenant := range news {
			if heard[tenant] {
				c.errorf("Sync: heard twice that %q changed once", tenant)
			}
			heard[tenant] = true
		}
		if from = to; last {
			break
		}
		select {
		case <-done:
			last = true
		default:
		}
	}
	if len(heard) != len(t) {
		c.errorf("Sync: heard of %d changes of %d", len(heard), len(t))
	}
}

// checkListen checks that Listen hears at all, as a nudge that never comes would
// be none, and that it ends.
func checkListen(c *storeCheck) {
	bucket, t := sameBucket(1)
	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()
	heard := make(chan int, 1000)
	ended := make(chan error, 1)
	go func() {
		ended <- c.s.Listen(ctx, func(b int) {
			select {
			case heard <- b:
			default:
			}
		})
	}()
	for deaf := true; deaf; {
		c.set(t[0], "f", "1")
		select {
		case b := <-heard:
			if b < 0 || b >= rotation.Buckets {
				c.errorf("Listen: heard of bucket %d", b)
			}
			deaf = b != bucket
		case err := <-ended:
			c.errorf("Listen ended without having heard of %v of changes: %v", patience, err)
			return
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	select {
	case <-ended:
	case <-time.After(patience):
		c.errorf("Listen goes on %v after its context has ended", patience)
	}
}

func checkContext(c *storeCheck) {
	_, t := sameBucket(2)
	place := c.set(t[0], "f", "1").Place
	bucket := rotation.BucketOf(t[0])
	ctx, cancel := context.WithCancel(c.ctx)
	cancel()
	start := time.Now()
	replies := c.s.Sync(ctx, "i", []rotation.SyncRequest{{Bucket: bucket, Place: place}, {Bucket: 1}})
	if len(replies) != 2 || replies[0].Err == nil || replies[1].Err == nil {
		c.errorf("Sync: the context had ended: %+v, want 2 errors", replies)
	}
	snapshots := c.s.Load(ctx, t)
	if len(snapshots) != 2 || snapshots[0].Err == nil || snapshots[1].Err == nil {
		c.errorf("Load: the context had ended: %+v, want 2 errors", snapshots)
	}
	if _, err := c.s.Write(ctx, rotation.Change{Tenant: t[1], Set: fields("f", "1"), Op: rotation.OpMint}); err == nil {
		c.errorf("Write: the context had ended, and there is no error")
	}
	if _, err := c.s.Tenants(ctx, []int{bucket}); err == nil {
		c.errorf("Tenants: the context had ended, and there is no error")
	}
	if _, err := c.s.Acks(ctx, bucket, place); err == nil {
		c.errorf("Acks: the context had ended, and there is no error")
	}
	if err := c.s.Forget(ctx, "i", []int{bucket}); err == nil {
		c.errorf("Forget: the context had ended, and there is no error")
	}
	c.s.Listen(ctx, func(int) {})
	if took := time.Since(start); took > patience {
		c.errorf("the context had ended, and the calls took %v", took)
	}
}
