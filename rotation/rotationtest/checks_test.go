package rotationtest

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
)

// A faultyStore is a correct store with one mistake. Each function may change what passes
// through; nil leaves it as it is.
type faultyStore struct {
	rotation.Store
	request func(*rotation.SyncRequest)
	reply   func(rotation.SyncRequest, *rotation.SyncReply)
	change  func(*rotation.Change)
	result  func(*rotation.Result)
	loaded  func(*rotation.Snapshot)
	acks    func([]rotation.RawAck)
	detach  bool // calls go on after their context has ended
	deaf    bool // Listen hears nothing
}

func (f faultyStore) context(ctx context.Context) context.Context {
	if f.detach {
		return context.WithoutCancel(ctx)
	}
	return ctx
}

func (f faultyStore) Sync(ctx context.Context, instance string, requests []rotation.SyncRequest) []rotation.SyncReply {
	requests = slices.Clone(requests)
	for i := range requests {
		if f.request != nil {
			f.request(&requests[i])
		}
	}
	replies := f.Store.Sync(f.context(ctx), instance, requests)
	for i := range replies {
		if f.reply != nil {
			f.reply(requests[i], &replies[i])
		}
	}
	return replies
}

func (f faultyStore) Load(ctx context.Context, tenants []string) []rotation.Snapshot {
	all := f.Store.Load(ctx, tenants)
	for i := range all {
		if f.loaded != nil {
			f.loaded(&all[i])
		}
	}
	return all
}

func (f faultyStore) Write(ctx context.Context, c rotation.Change) (rotation.Result, error) {
	if f.change != nil {
		f.change(&c)
	}
	r, err := f.Store.Write(ctx, c)
	if f.result != nil {
		f.result(&r)
	}
	return r, err
}

func (f faultyStore) Acks(ctx context.Context, bucket int) ([]rotation.RawAck, time.Time, error) {
	all, now, err := f.Store.Acks(ctx, bucket)
	if f.acks != nil {
		f.acks(all)
	}
	return all, now, err
}

func (f faultyStore) Listen(ctx context.Context, changed func(int)) error {
	if f.deaf {
		changed = func(int) {}
	}
	return f.Store.Listen(ctx, changed)
}

// A faultyDigester is a correct store that can put digests off, with one mistake.
type faultyDigester struct {
	*Conn
	loaded func(*rotation.Snapshot)
	digest func(map[string][]byte, string) string
}

func (f faultyDigester) LoadFields(ctx context.Context, tenants []string) []rotation.Snapshot {
	all := f.Conn.LoadFields(ctx, tenants)
	for i := range all {
		f.loaded(&all[i])
	}
	return all
}

func (f faultyDigester) Digest(fields map[string][]byte) string {
	return f.digest(fields, f.Conn.Digest(fields))
}

func TestLaterDigestsFindMistakes(t *testing.T) {
	right := func(*rotation.Snapshot) {}
	same := func(_ map[string][]byte, digest string) string { return digest }
	for i, f := range []faultyDigester{
		{loaded: right, digest: same}, // none
		{loaded: func(s *rotation.Snapshot) { s.Digest = "x" }, digest: same},
		{loaded: func(s *rotation.Snapshot) { delete(s.Fields, "a") }, digest: same},
		{loaded: func(s *rotation.Snapshot) { s.Now = time.Time{} }, digest: same},
		{loaded: right, digest: func(_ map[string][]byte, digest string) string { return digest[:min(1, len(digest))] }},
		{loaded: right, digest: func(map[string][]byte, string) string { return "x" }},
		{loaded: right, digest: func(fields map[string][]byte, digest string) string { clear(fields); return digest }},
	} {
		f.Conn = NewCluster(ClusterConfig{}).Connect("i")
		if errs := runCheck(t, checkLaterDigests, f); (len(errs) > 0) != (i > 0) {
			t.Errorf("mistake %d: %q", i, errs)
		}
	}
}

// TestStoreFindsMistakes gives each check a store that breaks its rule.
func TestStoreFindsMistakes(t *testing.T) {
	for _, tt := range []struct {
		check string
		store faultyStore
	}{
		{"an empty log gets a first entry", faultyStore{reply: func(_ rotation.SyncRequest, r *rotation.SyncReply) { r.Place.Nonce = "always the same" }}},
		{"a place that is not in the log is not proved", faultyStore{reply: func(q rotation.SyncRequest, r *rotation.SyncReply) {
			r.Resync = r.Resync && q.Place.ID != r.Place.ID
		}}},
		{"a sync returns the tenants that changed", faultyStore{reply: func(_ rotation.SyncRequest, r *rotation.SyncReply) { r.Changed = r.Changed[:min(1, len(r.Changed))] }}},
		{"a long log comes in pages", faultyStore{reply: func(_ rotation.SyncRequest, r *rotation.SyncReply) { r.More = false }}},
		{"the entries of a log", faultyStore{change: func(c *rotation.Change) { c.MAC = bytes.TrimRight(c.MAC, "\x00") }}},
		{"the entries of a log", faultyStore{reply: func(_ rotation.SyncRequest, r *rotation.SyncReply) { slices.Reverse(r.Changed) }}},
		{"the entries of a log", faultyStore{reply: func(_ rotation.SyncRequest, r *rotation.SyncReply) {
			if r.Resync {
				r.Changed = nil
			}
		}}},
		{"the entries of a log", faultyStore{change: func(c *rotation.Change) { c.Nonce = "the store's own" }}},
		{"the entries of a log", faultyStore{change: func(c *rotation.Change) {
			if c.Nonce == "" {
				c.Nonce = "the store's own"
			}
		}}},
		{"acknowledgements", faultyStore{request: func(q *rotation.SyncRequest) { q.Ack = bytes.TrimRight(q.Ack, "\x00") }}},
		{"acknowledgements", faultyStore{request: func(q *rotation.SyncRequest) { q.Acks = false }}},
		{"acknowledgements", faultyStore{acks: func(all []rotation.RawAck) { slices.Reverse(all) }}},
		{"many acknowledgements", faultyStore{reply: func(_ rotation.SyncRequest, r *rotation.SyncReply) { r.Acks = r.Acks[:min(63, len(r.Acks))] }}},
		{"many acknowledgements", faultyStore{request: func(q *rotation.SyncRequest) {
			if len(q.Ack) > 12 { // all of the same date
				q.Ack = slices.Concat([]byte("kt\x01A\x00\x00\x00\x00\x00\x00\x00\x01"), q.Ack[12:])
			}
		}}},
		{"no acknowledgement without a proof and a name", faultyStore{request: func(q *rotation.SyncRequest) { q.Place = rotation.Place{} }}},
		{"digests", faultyStore{reply: func(_ rotation.SyncRequest, r *rotation.SyncReply) { slices.Reverse(r.Digests) }}},
		{"digests", faultyStore{loaded: func(s *rotation.Snapshot) { s.Digest = s.Digest[:min(1, len(s.Digest))] }}},
		{"a change is made to the ring it was decided on", faultyStore{result: func(r *rotation.Result) { r.Code = rotation.Committed }}},
		{"a change is all or nothing", faultyStore{change: func(c *rotation.Change) { c.Delete = nil }}},
		{"bounds", faultyStore{change: func(c *rotation.Change) { c.Bounds = c.Bounds[:min(1, len(c.Bounds))] }}},
		{"publishing", faultyStore{change: func(c *rotation.Change) { c.Publish = nil }}},
		{"a ring without fields does not exist", faultyStore{loaded: func(s *rotation.Snapshot) { s.Digest += "x" }}},
		{"names and values of any bytes", faultyStore{change: func(c *rotation.Change) { c.Tenant = strings.TrimSpace(c.Tenant) }}},
		{"listen", faultyStore{deaf: true}},
		{"every method ends with its context", faultyStore{detach: true}},
	} {
		t.Run(tt.check, func(t *testing.T) {
			t.Parallel() // one check waits for an event that never comes
			n := slices.IndexFunc(storeChecks, func(c struct {
				name string
				run  func(*storeCheck)
			}) bool {
				return c.name == tt.check
			})
			tt.store.Store = NewCluster(ClusterConfig{Page: 7}).Connect("i")
			if errs := runCheck(t, storeChecks[n].run, tt.store); len(errs) == 0 {
				t.Error("the mistake is not found")
			}
		})
	}
}

func TestReplicaCheckFindsMistakes(t *testing.T) {
	conn := NewCluster(ClusterConfig{}).Connect("i")
	if errs := runCheck(t, checkReplica, conn); len(errs) < 10 {
		t.Errorf("a store that answers: %q", errs)
	}
}
