package rotationtest

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/rotation"
)

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
		c.errorf("Acks: %+v, want one of %q, good since %v, and one of %q that is recovering", acks, "one", since, "two")
	}
	for _, a := range acks {
		if !a.Applied || a.At.Before(before) || a.At.After(after) {
			c.errorf("Acks: %+v, want Applied, and a time from %v to %v", a, before, after)
		}
	}
	checkApplied(c, start, c.set(t[0], "f", "1").Place)
	if acks := c.acks((bucket+1)%rotation.Buckets, start); len(acks) > 0 {
		c.errorf("Acks: %+v in another bucket", acks)
	}
}

// checkApplied checks Applied while instance "one" syncs at two places, start and then place, and
// "two" has synced at start.
func checkApplied(c *storeCheck, start, place rotation.Place) {
	bucket, _ := sameBucket(0)
	c.sync("one", rotation.SyncRequest{Bucket: bucket, Place: start})
	if acks := c.acks(bucket, place); len(acks) != 2 || acks["one"].Applied || !acks["one"].GoodSince.IsZero() {
		c.errorf("Acks: %+v, want an acknowledgement of the place and the GoodSince that were sent", acks)
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
	for _, instance := range []string{"a", "unknown"} {
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

// distinctRings are rings that a careless digest confuses.
func distinctRings() []map[string][]byte {
	return []map[string][]byte{
		fields("a", "bc"), fields("ab", "c"), fields("a", "b", "c", "d"), fields("a", "d", "c", "b"), fields("a", "bcd"),
		fields("a", "", "b", "c"), fields("a", "b", "", "c"), fields("a", "b\x00c"), fields("a", "b\nc"), fields("a", "b", "\nc", ""),
		fields("a", ""), fields("", "a"), fields("a", "\xff"), fields("a", "\xfe"), fields("a", strings.Repeat("x", 10<<10)),
		fields("1", "11"), fields("11", "1"), fields("1", "1:1"), fields("1:1", "1"),
	}
}

func checkDigests(c *storeCheck) {
	bucket, t := sameBucket(2)
	digest := checkDistinctDigests(c, t[0])
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

// checkDistinctDigests gives a tenant one ring after the other and checks that their digests
// differ. It returns the last digest.
func checkDistinctDigests(c *storeCheck, tenant string) (digest string) {
	rings, seen := distinctRings(), make(map[string]int)
	var old []string
	for i, ring := range rings {
		digest = c.want(rotation.Committed, rotation.Change{Tenant: tenant, If: digest, Delete: old, Set: ring}).Digest
		old = slices.DeleteFunc(slices.Collect(maps.Keys(ring)), func(name string) bool {
			return i+1 < len(rings) && rings[i+1][name] != nil
		})
		if j, ok := seen[digest]; ok {
			c.errorf("the digests of the rings %.50q and %.50q are equal", ring, rings[j])
		}
		seen[digest] = i
		if loaded := c.wantFields(tenant, ring); loaded != digest || digest == "" {
			c.errorf("the digest is %q by Write, %q by Load", digest, loaded)
		}
	}
	return digest
}

// checkSameDigest checks that a digest depends on the fields alone, not on the changes that led to
// them.
func checkSameDigest(c *storeCheck, tenant string) {
	one := c.want(rotation.Committed, rotation.Change{Tenant: tenant, Set: fields("x", "1", "y", "2")}).Digest
	two := c.want(rotation.Committed, rotation.Change{Tenant: tenant, If: one, Set: fields("z", "3"), Delete: []string{"x"}}).Digest
	back := c.want(rotation.Committed, rotation.Change{Tenant: tenant, If: two, Set: fields("x", "1"), Delete: []string{"z"}}).Digest
	if back != one {
		c.errorf("the digests of the same fields are %q and %q", one, back)
	}
}

// checkVouched checks Vouched with two peers: "long" has been in sync for ten minutes, "recovering"
// is not in sync.
func checkVouched(c *storeCheck) {
	place := c.start(5)
	goodSince := c.shown(5).Add(-10 * time.Minute)
	c.sync("long", rotation.SyncRequest{Bucket: 5, Place: place, GoodSince: goodSince})
	c.sync("recovering", rotation.SyncRequest{Bucket: 5, Place: place})
	time.Sleep(3 * time.Millisecond)
	checkVouchLimits(c, place, goodSince)
	if err := c.s.Forget(c.ctx, "long", []int{5}); err != nil {
		c.errorf("Forget: %v", err)
	}
	q := rotation.SyncRequest{Bucket: 5, VouchWithin: time.Hour, VouchFor: time.Millisecond}
	if c.sync("new", q).Vouched {
		c.errorf("Sync: vouched by an instance that is recovering")
	}
	if q.Bucket = 6; c.sync("new", q).Vouched {
		c.errorf("Sync: vouched by an instance in another bucket")
	}
}

// checkVouchLimits checks both sides of VouchWithin and VouchFor.
func checkVouchLimits(c *storeCheck, place rotation.Place, goodSince time.Time) {
	const hour, minute, ms = time.Hour, time.Minute, time.Millisecond
	for _, tt := range []struct {
		what          string
		instance      string
		within, since time.Duration
		want          bool
	}{
		{"a peer that has been in sync for long enough", "new", hour, 5 * minute, true},
		{"a peer that has not been in sync for long enough", "new", hour, 20 * minute, false},
		{"a peer whose acknowledgement is too old", "new", ms, 5 * minute, false},
		{"the instance itself", "long", hour, 5 * minute, false},
		{"a peer, for a sync without an instance", "", hour, 5 * minute, true},
		{"a peer, but nothing was asked", "new", 0, 0, false},
	} {
		for _, at := range []rotation.Place{{}, place} {
			q := rotation.SyncRequest{Bucket: 5, Place: at, VouchWithin: tt.within, VouchFor: tt.since}
			if tt.instance == "long" {
				q.GoodSince = goodSince
			}
			if r := c.sync(tt.instance, q); r.Vouched != tt.want {
				c.errorf("Sync: vouched by %s: %v, want %v (Resync %v)", tt.what, r.Vouched, tt.want, r.Resync)
			}
		}
		if err := c.s.Forget(c.ctx, "new", []int{5}); err != nil {
			c.errorf("Forget: %v", err)
		}
	}
}

func checkOrder(c *storeCheck) {
	_, same := sameBucket(2)
	tenants := []string{"a", same[0], "b", "missing", "a", same[1], "missing", "c"}
	for _, tenant := range []string{"a", "b", "c", same[0], same[1]} {
		c.set(tenant, "name", tenant)
	}
	var requests []rotation.SyncRequest
	for _, tenant := range tenants {
		requests = append(requests, rotation.SyncRequest{Bucket: rotation.BucketOf(tenant), Digests: []string{tenant}})
	}
	checkLoadOrder(c, tenants, c.syncAll("i", requests...))
	checkAllBuckets(c)
	c.syncAll("i")
	if got := c.s.Load(c.ctx, nil); len(got) > 0 {
		c.errorf("Load of no tenant returned %d snapshots", len(got))
	}
}

// checkLoadOrder checks that the snapshots and the replies are in the order of the tenants. Each
// tenant's ring has its name in a field, except "missing", which has no ring.
func checkLoadOrder(c *storeCheck, tenants []string, replies []rotation.SyncReply) {
	snapshots := c.s.Load(c.ctx, tenants)
	if len(snapshots) != len(tenants) {
		c.errorf("Load returned %d snapshots of %d tenants", len(snapshots), len(tenants))
		return
	}
	for i, tenant := range tenants {
		want := fields("name", tenant)
		if tenant == "missing" {
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
}

// checkAllBuckets syncs all buckets in one call, twice.
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
