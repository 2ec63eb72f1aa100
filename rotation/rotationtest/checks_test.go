package rotationtest

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
)

// A liar is a store with one mistake.
type liar struct {
	rotation.Store
	request func(*rotation.SyncRequest)
	reply   func(rotation.SyncRequest, *rotation.SyncReply)
	change  func(*rotation.Change)
	result  func(*rotation.Result)
	loaded  func(*rotation.Snapshot)
	acks    func([]rotation.Ack)
	detach  bool // calls do not end with their context
	deaf    bool
}

func (l liar) of(ctx context.Context) context.Context {
	if l.detach {
		return context.WithoutCancel(ctx)
	}
	return ctx
}

func (l liar) Sync(ctx context.Context, instance string, requests []rotation.SyncRequest) []rotation.SyncReply {
	requests = slices.Clone(requests)
	for i := range requests {
		if l.request != nil {
			l.request(&requests[i])
		}
	}
	replies := l.Store.Sync(l.of(ctx), instance, requests)
	for i := range replies {
		if l.reply != nil {
			l.reply(requests[i], &replies[i])
		}
	}
	return replies
}

func (l liar) Load(ctx context.Context, tenants []string) []rotation.Snapshot {
	all := l.Store.Load(ctx, tenants)
	for i := range all {
		if l.loaded != nil {
			l.loaded(&all[i])
		}
	}
	return all
}

func (l liar) Write(ctx context.Context, c rotation.Change) (rotation.Result, error) {
	if l.change != nil {
		l.change(&c)
	}
	r, err := l.Store.Write(ctx, c)
	if l.result != nil {
		l.result(&r)
	}
	return r, err
}

func (l liar) Acks(ctx context.Context, bucket int, place rotation.Place) ([]rotation.Ack, error) {
	all, err := l.Store.Acks(ctx, bucket, place)
	if l.acks != nil {
		l.acks(all)
	}
	return all, err
}

func (l liar) Listen(ctx context.Context, changed func(int)) error {
	if l.deaf {
		changed = func(int) {}
	}
	return l.Store.Listen(ctx, changed)
}

// TestStore has to find each mistake by the check that is about it.
func TestStoreFindsMistakes(t *testing.T) {
	for _, tt := range []struct {
		check string
		liar  liar
	}{
		{"an empty log gets a first entry", liar{reply: func(_ rotation.SyncRequest, r *rotation.SyncReply) { r.Place.Nonce = "always the same" }}},
		{"a place that is not in the log is not proved", liar{reply: func(q rotation.SyncRequest, r *rotation.SyncReply) {
			r.Resync = r.Resync && q.Place.ID != r.Place.ID
		}}},
		{"what came after a place", liar{reply: func(_ rotation.SyncRequest, r *rotation.SyncReply) { r.Changed = r.Changed[:min(1, len(r.Changed))] }}},
		{"a long log comes in pages", liar{reply: func(_ rotation.SyncRequest, r *rotation.SyncReply) { r.More = false }}},
		{"acknowledgements", liar{request: func(q *rotation.SyncRequest) { q.GoodSince = time.Time{} }}},
		{"acknowledgements", liar{acks: func(all []rotation.Ack) {
			for i := range all {
				all[i].Applied = true
			}
		}}},
		{"no acknowledgement without proof or name", liar{request: func(q *rotation.SyncRequest) { q.Place = rotation.Place{} }}},
		{"digests", liar{reply: func(_ rotation.SyncRequest, r *rotation.SyncReply) { slices.Reverse(r.Digests) }}},
		{"digests", liar{loaded: func(s *rotation.Snapshot) { s.Digest = s.Digest[:min(1, len(s.Digest))] }}},
		{"vouching", liar{reply: func(_ rotation.SyncRequest, r *rotation.SyncReply) { r.Vouched = true }}},
		{"vouching", liar{request: func(q *rotation.SyncRequest) { q.VouchFor = 0 }}},
		{"a change is made to the ring it was decided on", liar{result: func(r *rotation.Result) { r.Code = rotation.Committed }}},
		{"a change is all or nothing", liar{change: func(c *rotation.Change) { c.Delete = nil }}},
		{"bounds", liar{change: func(c *rotation.Change) { c.Bounds = c.Bounds[:min(1, len(c.Bounds))] }}},
		{"publishing", liar{change: func(c *rotation.Change) { c.Publish = nil }}},
		{"a ring without fields is none", liar{loaded: func(s *rotation.Snapshot) { s.Digest += "x" }}},
		{"names and values of any bytes", liar{change: func(c *rotation.Change) { c.Tenant = strings.TrimSpace(c.Tenant) }}},
		{"listen", liar{deaf: true}},
		{"every method ends with its context", liar{detach: true}},
	} {
		t.Run(tt.check, func(t *testing.T) {
			t.Parallel() // one waits for what never comes
			n := slices.IndexFunc(storeChecks, func(c struct {
				name string
				run  func(*storeCheck)
			}) bool {
				return c.name == tt.check
			})
			tt.liar.Store = NewCluster(ClusterConfig{Page: 7}).Connect("i")
			if errs := runCheck(t, storeChecks[n].run, tt.liar); len(errs) == 0 {
				t.Error("the mistake is not found")
			}
		})
	}
}
