package rotationtest

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
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
		r := c.sync("i", rotation.SyncRequest{Bucket: bucket, Place: place, Ack: ackOf(c.shown(bucket), "ack")})
		if !r.Resync || r.Place != newest || r.More {
			c.errorf("Sync: at %s: %+v, want Resync and the newest place %+v", name, r, newest)
		}
	}
	elsewhere := (bucket + 1) % rotation.Buckets
	c.start(elsewhere)
	if r := c.sync("i", rotation.SyncRequest{Bucket: elsewhere, Place: newest, Ack: ackOf(c.shown(elsewhere), "ack")}); !r.Resync {
		c.errorf("Sync: a place of one bucket is proved in another")
	}
	if len(c.acks(bucket)) > 0 || len(c.acks(elsewhere)) > 0 {
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

// checkEntries checks that the log keeps what it was given, byte for byte, in the order of the
// changes. With Resync a reply has the newest entries.
func checkEntries(c *storeCheck) {
	bucket, t := sameBucket(2)
	start := c.start(bucket)
	var want []rotation.LogEntry
	for i, mac := range [][]byte{nil, {0}, []byte("kt\x01L\x00\x00\r\n\xff\xfe"), bytes.Repeat([]byte{0, 0xff}, 8<<10)} {
		e := rotation.LogEntry{
			Op: ring.OpRevoke, Tenant: t[i%2], KID: "kid\x00" + strconv.Itoa(i), Seq: i + 1, Actor: "actor\x00\xff", Nonce: rand.Text(), MAC: mac,
		}
		want = append(want, e)
		c.want(rotation.Committed, rotation.Change{
			Tenant: e.Tenant, If: c.load(e.Tenant).Digest, Set: fields("f", strconv.Itoa(i)),
			Op: e.Op, KID: e.KID, Seq: e.Seq, Actor: e.Actor, Nonce: e.Nonce, MAC: e.MAC,
		})
	}
	got, _ := c.news(bucket, start)
	if !slices.EqualFunc(got, want, sameEntry) {
		c.errorf("Sync: the entries are %.200q, want %.200q", fmt.Sprint(got), fmt.Sprint(want))
	}
	r := c.sync("", rotation.SyncRequest{Bucket: bucket})
	if n := len(r.Changed); n == 0 || n > len(want) || !slices.EqualFunc(r.Changed, want[len(want)-n:], sameEntry) {
		c.errorf("Sync: with Resync the entries are %.200q, want the newest", fmt.Sprint(r.Changed))
	}
	if r, err := c.s.Write(c.ctx, rotation.Change{Tenant: "new", Set: fields("f", "1"), Op: ring.OpMint}); err == nil || r.Code != rotation.NotMade {
		c.errorf("Write: a change without a nonce: code %d, error %v, want NotMade and an error", r.Code, err)
	}
	c.wantFields("new", nil)
}

func sameEntry(a, b rotation.LogEntry) bool {
	return a.Op == b.Op && a.Tenant == b.Tenant && a.KID == b.KID && a.Seq == b.Seq && a.Actor == b.Actor && a.Nonce == b.Nonce && bytes.Equal(a.MAC, b.MAC)
}

func checkAcks(c *storeCheck) {
	bucket, t := sameBucket(1)
	start := c.start(bucket)
	now := c.shown(bucket)
	one, two := string(ackOf(now, "one")), string(ackOf(now, "two"))
	c.sync("one", rotation.SyncRequest{Bucket: bucket, Place: start, Ack: []byte(one)})
	r := c.sync("two\x00", rotation.SyncRequest{Bucket: bucket, Place: start, Ack: []byte(two), Acks: true})
	want := map[string]string{"one": one, "two\x00": two}
	if got := c.acks(bucket); !maps.Equal(got, want) {
		c.errorf("Acks: %q, want %q", got, want)
	}
	if got := c.byInstance("Sync", r.Acks); !maps.Equal(got, want) {
		c.errorf("Sync: acknowledgements %q, want %q, with that of this sync", got, want)
	}
	place := c.set(t[0], "f", "1").Place
	want["one"] = string(ackOf(now, "later"))
	c.sync("one", rotation.SyncRequest{Bucket: bucket, Place: place, Ack: []byte(want["one"])})
	r = c.sync("", rotation.SyncRequest{Bucket: bucket, Acks: true})
	if got := c.byInstance("Sync", r.Acks); !maps.Equal(got, want) {
		c.errorf("Sync: acknowledgements %q, want %q: the later one replaces the earlier", got, want)
	}
	if acks := c.acks((bucket + 1) % rotation.Buckets); len(acks) > 0 {
		c.errorf("Acks: %q in another bucket", acks)
	}
}

func checkNoAck(c *storeCheck) {
	place := c.start(3)
	ack := ackOf(c.shown(3), "ack")
	c.sync("no place", rotation.SyncRequest{Bucket: 3, Ack: ack})
	c.sync("another nonce", rotation.SyncRequest{Bucket: 3, Place: rotation.Place{ID: place.ID, Nonce: place.Nonce + "x"}, Ack: ack})
	c.sync("", rotation.SyncRequest{Bucket: 3, Place: place, Ack: ack})
	c.sync("nothing to say", rotation.SyncRequest{Bucket: 3, Place: place})
	if acks := c.acks(3); len(acks) > 0 {
		c.errorf("Acks: %q, want none: two had no place, one no name, one no acknowledgement", acks)
	}
	c.sync("once", rotation.SyncRequest{Bucket: 3, Place: place, Ack: ack})
	c.sync("once", rotation.SyncRequest{Bucket: 3, Ack: ackOf(c.shown(3), "unproved")})
	c.sync("once", rotation.SyncRequest{Bucket: 3, Place: place})
	if acks := c.acks(3); acks["once"] != string(ack) {
		c.errorf("Acks: %q, want %q, which only a sync at a proved place replaces", acks["once"], ack)
	}
}

// checkManyAcks stores more acknowledgements than one sync returns: every third is a minute younger
// than the others.
func checkManyAcks(c *storeCheck) {
	const n = 3 * maxSyncAcks
	place := c.start(4)
	now := c.shown(4)
	want := make(map[string]string)
	for i := range n {
		at := now.Add(-2 * time.Minute)
		if i%3 == 0 {
			at = now.Add(-time.Minute)
		}
		name := fmt.Sprintf("instance-%03d", i)
		ack := ackOf(at, name)
		c.sync(name, rotation.SyncRequest{Bucket: 4, Place: place, Ack: ack})
		if i%3 == 0 {
			want[name] = string(ack)
		}
	}
	r := c.sync("", rotation.SyncRequest{Bucket: 4, Place: place, Acks: true})
	if got := c.byInstance("Sync", r.Acks); !maps.Equal(got, want) {
		c.errorf("Sync: of %d acknowledgements it returned %d, %q, want the %d nearest", n, len(got), slices.Sorted(maps.Keys(got)), maxSyncAcks)
	}
	if got := c.acks(4); len(got) != n {
		c.errorf("Acks: %d, want all %d", len(got), n)
	}
}

func checkForget(c *storeCheck) {
	var places [3]rotation.Place
	for bucket := range places {
		places[bucket] = c.start(bucket)
		for _, instance := range []string{"a", "ab"} {
			c.sync(instance, rotation.SyncRequest{Bucket: bucket, Place: places[bucket], Ack: ackOf(c.shown(bucket), instance)})
		}
	}
	for _, instance := range []string{"a", "unknown"} {
		if err := c.s.Forget(c.ctx, instance, []int{0, 2, 9}); err != nil {
			c.errorf("Forget of %q: %v", instance, err)
		}
	}
	for bucket, want := range [][]string{{"ab"}, {"a", "ab"}, {"ab"}} {
		if got := slices.Sorted(maps.Keys(c.acks(bucket))); !slices.Equal(got, want) {
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

// checkLaterDigests checks a store that can put digests off: what it reads without them is what it reads with them,
// and what it computes afterwards is what it would have read.
func checkLaterDigests(c *storeCheck) {
	s, ok := c.s.(rotation.Digester)
	if !ok {
		return
	}
	_, t := sameBucket(2)
	digest := ""
	for _, ring := range distinctRings() {
		old := slices.DeleteFunc(slices.Collect(maps.Keys(c.load(t[0]).Fields)), func(name string) bool { return ring[name] != nil })
		digest = c.want(rotation.Committed, rotation.Change{Tenant: t[0], If: digest, Delete: old, Set: ring}).Digest
		checkLaterDigest(c, s, t, ring, digest)
	}
}

// checkLaterDigest checks what s reads of two tenants: the first has this ring, and the other has none.
func checkLaterDigest(c *storeCheck, s rotation.Digester, t []string, ring map[string][]byte, digest string) {
	all := s.LoadFields(c.ctx, []string{t[1], t[0]})
	if len(all) != 2 || all[0].Err != nil || all[1].Err != nil || len(all[0].Fields) > 0 || !maps.EqualFunc(all[1].Fields, ring, bytes.Equal) {
		c.errorf("LoadFields of no ring and of %.50q: %.200v", ring, all)
		return
	}
	if all[0].Digest != "" || all[1].Digest != "" || all[1].Now.IsZero() {
		c.errorf("LoadFields: the digests are %q and %q, want none; the time is %v", all[0].Digest, all[1].Digest, all[1].Now)
	}
	if none, got := s.Digest(all[0].Fields), s.Digest(all[1].Fields); none != "" || got != digest {
		c.errorf("Digest of no ring and of one: %q and %q, and of the change %q", none, got, digest)
	}
	if !maps.EqualFunc(all[1].Fields, ring, bytes.Equal) {
		c.errorf("Digest changes the fields")
	}
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
