package rotationtest

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

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
	c.want(rotation.Committed, ring(two.Digest, "2")) // setting the same value is a change too
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
	for i, op := range []ring.Op{
		ring.OpCreate, ring.OpAdopt, ring.OpMint, ring.OpPromote, ring.OpRotate, ring.OpRevoke, ring.OpMerge, ring.OpCollect,
	} {
		c.want(rotation.Committed, rotation.Change{
			Tenant: tenant, If: c.load(tenant).Digest, Set: fields("op", string(op)), Op: op, KID: "k\x00{}", Seq: i, Actor: "a \"person\"\n",
		})
	}
}

// A boundCase is a change with bounds, and the code that it gets.
type boundCase struct {
	what   string
	bounds []ring.Bound
	want   rotation.Code
}

// boundCases returns the cases for a store whose clock shows now.
func boundCases(now time.Time) []boundCase {
	const hour = time.Hour
	holds := ring.Bound{At: now, From: -hour, To: hour}
	return []boundCase{
		{"none", nil, rotation.Committed},
		{"around now", []ring.Bound{holds}, rotation.Committed},
		{"in the future", []ring.Bound{{At: now.Add(2 * hour), From: hour, To: 3 * hour}}, rotation.Committed},
		{"in the past", []ring.Bound{{At: now.Add(-2 * hour), From: -3 * hour, To: -hour}}, rotation.Committed},
		{"too late", []ring.Bound{{At: now.Add(2 * hour), From: -hour, To: hour}}, rotation.OutOfBounds},
		{"too early", []ring.Bound{{At: now.Add(-2 * hour), From: -hour, To: hour}}, rotation.OutOfBounds},
		{"in the past, but it must be in the future", []ring.Bound{{At: now.Add(-time.Millisecond), From: 0, To: hour}}, rotation.OutOfBounds},
		{"in the future, but it must be in the past", []ring.Bound{{At: now.Add(hour), From: -2 * hour, To: 0}}, rotation.OutOfBounds},
		{"the second of two", []ring.Bound{holds, {At: now, From: hour, To: 2 * hour}}, rotation.OutOfBounds},
		{"the first of two", []ring.Bound{{At: now, From: hour, To: 2 * hour}, holds}, rotation.OutOfBounds},
		{"two that hold", []ring.Bound{holds, holds}, rotation.Committed},
		{"long ago", []ring.Bound{{At: time.UnixMilli(1), From: -100 * 365 * 24 * hour, To: 0}}, rotation.Committed},
	}
}

func checkBounds(c *storeCheck) {
	bucket, t := sameBucket(1)
	start := c.start(bucket)
	for _, tt := range boundCases(c.shown(bucket)) {
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
		c.errorf("Write: the digest %q is not that of the ring with its published fields, %q", two.Digest, got)
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
			Tenant: name, Set: set, Op: ring.OpMint, KID: name, Seq: i + 1, Actor: name,
		}).Digest
		c.wantFields(name, set)
		last := c.wantNews(bucket, start, name)
		ack := ackOf(c.shown(bucket), name)
		r := c.sync(name, rotation.SyncRequest{Bucket: bucket, Place: last, Digests: []string{name}, Ack: ack})
		if !slices.Equal(r.Digests, []string{digest}) {
			c.errorf("Sync: the digest of %q is %q, want %q", name, r.Digests, digest)
		}
		if got := c.acks(bucket)[name]; got != string(ack) {
			c.errorf("Acks: instance %q has left %q, want %q", name, got, ack)
		}
	}
	for i, name := range odd {
		c.wantFields(name, fields(name, name, "k:"+name, "\x00\xff\r\n\x80", "n", strconv.Itoa(i)))
	}
}
