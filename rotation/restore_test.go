package rotation_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// A countedStore counts its calls.
type countedStore struct {
	rotation.Store
	calls atomic.Int64
}

func (s *countedStore) Sync(ctx context.Context, instance string, requests []rotation.SyncRequest) []rotation.SyncReply {
	s.calls.Add(1)
	return s.Store.Sync(ctx, instance, requests)
}

func (s *countedStore) Load(ctx context.Context, tenants []string) []rotation.Snapshot {
	s.calls.Add(1)
	return s.Store.Load(ctx, tenants)
}

func (s *countedStore) Acks(ctx context.Context, bucket int) ([]rotation.RawAck, time.Time, error) {
	s.calls.Add(1)
	return s.Store.Acks(ctx, bucket)
}

func (s *countedStore) Write(ctx context.Context, c rotation.Change) (rotation.Result, error) {
	s.calls.Add(1)
	return s.Store.Write(ctx, c)
}

// A command restores a hundred thousand rings: each takes one call that reads it, one that reads who
// lives, and one that writes it.
func TestRestoreTakesFewCalls(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		f.leave()
		saved := f.conn.Load(t.Context(), []string{"acme"})[0]
		f.cluster.Restore(rotationtest.NewCluster(rotationtest.ClusterConfig{}).Dump())
		store := &countedStore{Store: f.conn}
		k, err := rotation.Open(t.Context(), store, rotation.Config{KEKs: testKEK, Tenants: []string{"acme"}, OneShot: true})
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close(t.Context())
		rotator, err := rotation.NewRotator(k)
		if err != nil {
			t.Fatal(err)
		}
		before := store.calls.Load()
		report, receipt, err := rotator.Restore(t.Context(), "acme", saved)
		if err != nil || receipt.CommittedAt.IsZero() || len(report.PutBack) == 0 {
			t.Fatalf("%+v, %+v, %v", report, receipt, err)
		}
		if n := store.calls.Load() - before; n != 3 {
			t.Errorf("%d calls of the store, want 3", n)
		}
	})
}
