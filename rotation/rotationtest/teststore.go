package rotationtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

// TestStore checks that a store keeps the contract of [rotation.Store]. It calls open
// once for each subtest; open returns a store without data, and may register cleanups
// with t:
//
//	func TestMyStore(t *testing.T) {
//		rotationtest.TestStore(t, func(t *testing.T) rotation.Store { return openMyStore(t) })
//	}
//
// TestStore checks only what the contract promises. About the store's clock that is only
// that it does not go back.
func TestStore(t *testing.T, open func(t *testing.T) rotation.Store) {
	for _, c := range storeChecks {
		t.Run(c.name, func(t *testing.T) {
			for _, err := range runCheck(t, c.run, open(t)) {
				t.Error(err)
			}
		})
	}
}

// TestReplica checks that every method of a store fails, because its server may be behind another:
// a Redis server that is a replica, for one. The replica may accept writes: then it must refuse all the
// same.
func TestReplica(t *testing.T, s rotation.Store) {
	for _, err := range runCheck(t, checkReplica, s) {
		t.Error(err)
	}
}

// runCheck runs one check on a store and returns what the store did wrong.
func runCheck(t *testing.T, check func(*storeCheck), s rotation.Store) []error {
	c := &storeCheck{s: s, ctx: t.Context()}
	check(c)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.errs
}

// patience is how long a call may go on after its context has ended, and how long a
// check waits for an event that should come at once. It allows for a busy machine.
const patience = 5 * time.Second

// maxPlace is the most bytes of a place's ID, and of its nonce: acknowledgements hold no longer ones.
const maxPlace = 64

// maxErrors is how many errors one check reports at most.
const maxErrors = 20

// A storeCheck calls a store and checks the rules that hold for every answer. It is safe
// for concurrent use.
type storeCheck struct {
	s   rotation.Store
	ctx context.Context

	mu   sync.Mutex
	errs []error
	last [rotation.Buckets]time.Time // the latest time that each bucket's clock has shown
}

func (c *storeCheck) errorf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.errs) < maxErrors {
		c.errs = append(c.errs, fmt.Errorf(format, args...))
	}
}

// clock checks that a bucket's clock does not go back. before is the latest time that
// it had shown when the call began.
func (c *storeCheck) clock(bucket int, before, now time.Time, call string) {
	if now.Before(before) {
		c.errorf("%s: the store's clock went back, from %v to %v", call, before, now)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.After(c.last[bucket]) {
		c.last[bucket] = now
	}
}

func (c *storeCheck) shown(bucket int) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last[bucket]
}

// syncAll calls Sync and checks each reply. It always returns as many replies as there
// are requests.
func (c *storeCheck) syncAll(instance string, requests ...rotation.SyncRequest) []rotation.SyncReply {
	before := make([]time.Time, len(requests))
	for i, q := range requests {
		before[i] = c.shown(q.Bucket)
	}
	replies := c.s.Sync(c.ctx, instance, requests)
	if len(replies) != len(requests) {
		c.errorf("Sync returned %d replies to %d requests", len(replies), len(requests))
		return make([]rotation.SyncReply, len(requests))
	}
	for i, r := range replies {
		c.checkReply(requests[i], r, before[i])
	}
	return replies
}

func (c *storeCheck) checkReply(q rotation.SyncRequest, r rotation.SyncReply, before time.Time) {
	if r.Err != nil {
		c.errorf("Sync: %v", r.Err)
		return
	}
	c.clock(q.Bucket, before, r.Now, "Sync")
	if r.Place.ID == "" || r.Place.Nonce == "" || max(len(r.Place.ID), len(r.Place.Nonce)) > maxPlace {
		c.errorf("Sync: the place %+v in a reply: want an ID and a nonce of 1 to %d bytes: there always is one", r.Place, maxPlace)
	}
	if len(r.Digests) != len(q.Digests) {
		c.errorf("Sync returned %d digests, %d were requested", len(r.Digests), len(q.Digests))
	}
	seen := make(map[string]bool)
	for _, e := range r.Changed {
		if e.Tenant == "" || e.Nonce == "" || seen[e.Nonce] {
			c.errorf("Sync: Changed has %+v: want each entry once, with a tenant and a nonce", e)
			return
		}
		seen[e.Nonce] = true
	}
	if len(r.Acks) > maxSyncAcks || len(r.Acks) > 0 && !q.Acks {
		c.errorf("Sync: %d acknowledgements, requested: %v", len(r.Acks), q.Acks)
	}
}

// sync syncs one bucket.
func (c *storeCheck) sync(instance string, q rotation.SyncRequest) rotation.SyncReply {
	return c.syncAll(instance, q)[0]
}

// start returns the newest place of a bucket, from where a check starts.
func (c *storeCheck) start(bucket int) rotation.Place {
	r := c.sync("", rotation.SyncRequest{Bucket: bucket})
	if !r.Resync {
		c.errorf("Sync: from the zero place: Resync is not set")
	}
	return r.Place
}

// news syncs from a place to the end of the log, page by page. It returns the entries after it, and
// the newest place.
func (c *storeCheck) news(bucket int, from rotation.Place) ([]rotation.LogEntry, rotation.Place) {
	var all []rotation.LogEntry
	for range 1000 {
		r := c.sync("", rotation.SyncRequest{Bucket: bucket, Place: from})
		if r.Resync {
			c.errorf("Sync: Resync at the place %+v, which is in the log", from)
			return all, from
		}
		all = append(all, r.Changed...)
		if r.More && r.Place == from {
			c.errorf("Sync: there is more, and the place %+v stays", from)
			return all, from
		}
		if from = r.Place; !r.More {
			return all, from
		}
	}
	c.errorf("Sync: always more")
	return all, from
}

// wantNews checks which tenants changed after a place, and returns the newest place.
func (c *storeCheck) wantNews(bucket int, from rotation.Place, tenants ...string) rotation.Place {
	entries, newest := c.news(bucket, from)
	got, want := make(map[string]bool), make(map[string]bool)
	for _, e := range entries {
		got[e.Tenant] = true
	}
	for _, tenant := range tenants {
		want[tenant] = true
	}
	if !maps.Equal(got, want) {
		c.errorf("Sync: changed since then: %v, want %q", got, tenants)
	}
	return newest
}

// load reads one ring.
func (c *storeCheck) load(tenant string) rotation.Snapshot {
	bucket := rotation.BucketOf(tenant)
	before := c.shown(bucket)
	all := c.s.Load(c.ctx, []string{tenant})
	switch {
	case len(all) != 1:
		c.errorf("Load returned %d snapshots of one tenant", len(all))
		return rotation.Snapshot{}
	case all[0].Err != nil:
		c.errorf("Load of %q: %v", tenant, all[0].Err)
		return all[0]
	case (all[0].Digest == "") != (len(all[0].Fields) == 0):
		c.errorf("Load of %q: the digest %q of %d fields: only no ring has none", tenant, all[0].Digest, len(all[0].Fields))
	}
	c.clock(bucket, before, all[0].Now, "Load")
	return all[0]
}

// wantFields checks the fields of a ring and returns its digest.
func (c *storeCheck) wantFields(tenant string, want map[string][]byte) string {
	s := c.load(tenant)
	if !maps.EqualFunc(s.Fields, want, bytes.Equal) {
		c.errorf("Load of %q: the fields are %q, want %q", tenant, s.Fields, want)
	}
	return s.Digest
}

// write makes a change and checks the rules that hold for every result.
func (c *storeCheck) write(change rotation.Change) rotation.Result {
	bucket := rotation.BucketOf(change.Tenant)
	before := c.shown(bucket)
	if change.Op == "" {
		change.Op, change.KID, change.Seq, change.Actor = ring.OpMint, "kid", 1, "rotationtest"
	}
	if change.Nonce == "" {
		change.Nonce = rand.Text()
	}
	r, err := c.s.Write(c.ctx, change)
	if err != nil {
		c.errorf("Write of %q: %v", change.Tenant, err)
		return r
	}
	c.clock(bucket, before, r.Now, "Write")
	if r.Code < rotation.Committed || r.Code > rotation.OutOfBounds {
		c.errorf("Write of %q: the code is %d", change.Tenant, r.Code)
	}
	if r.Code == rotation.Committed && (r.Place.ID == "" || r.Place.Nonce != change.Nonce) {
		c.errorf("Write of %q: committed at the place %+v: want an ID, and the nonce %q", change.Tenant, r.Place, change.Nonce)
	}
	return r
}

// want makes a change and checks the code of the result.
func (c *storeCheck) want(code rotation.Code, change rotation.Change) rotation.Result {
	r := c.write(change)
	if r.Code != code {
		c.errorf("Write of %q, If %q: the code is %d, want %d", change.Tenant, change.If, r.Code, code)
	}
	return r
}

// set sets one field of a ring, whether or not the ring exists.
func (c *storeCheck) set(tenant, field, value string) rotation.Result {
	return c.want(rotation.Committed, rotation.Change{
		Tenant: tenant, If: c.load(tenant).Digest, Set: fields(field, value),
	})
}

// fields returns the fields whose names and values pairs has in turn.
func fields(pairs ...string) map[string][]byte {
	f := make(map[string][]byte)
	for i := 0; i < len(pairs); i += 2 {
		f[pairs[i]] = []byte(pairs[i+1])
	}
	return f
}

// acks returns the acknowledgements in a bucket, by instance.
func (c *storeCheck) acks(bucket int) map[string]string {
	before := c.shown(bucket)
	all, now, err := c.s.Acks(c.ctx, bucket)
	if err != nil {
		c.errorf("Acks: %v", err)
		return nil
	}
	c.clock(bucket, before, now, "Acks")
	return c.byInstance("Acks", all)
}

// byInstance returns acknowledgements by instance, and checks that they are sorted, each once.
func (c *storeCheck) byInstance(call string, all []rotation.RawAck) map[string]string {
	by := make(map[string]string)
	for i, a := range all {
		if i > 0 && all[i-1].Instance >= a.Instance {
			c.errorf("%s: %q comes before %q: want them sorted, each once", call, all[i-1].Instance, a.Instance)
		}
		by[a.Instance] = string(a.Sealed)
	}
	return by
}

// ackOf returns an acknowledgement with that date, in which each kind of byte is. The store cannot
// tell it from a sealed one.
func ackOf(at time.Time, text string) []byte {
	b := binary.BigEndian.AppendUint64([]byte("kt\x01A"), uint64(at.UnixMilli()))
	return append(b, "\x00\xff\r\n"+text+"\x00"...)
}

// sameBucket returns a bucket and n tenants in it.
func sameBucket(n int) (bucket int, tenants []string) {
	bucket = rotation.BucketOf("tenant")
	for i := 0; len(tenants) < n; i++ {
		if name := fmt.Sprintf("tenant%d", i); rotation.BucketOf(name) == bucket {
			tenants = append(tenants, name)
		}
	}
	return bucket, tenants
}
