package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
)

// benchKEK seals the rings. It protects nothing.
const benchKEK = "0123456789abcdef0123456789ABCDEF"

func newKEKs() (*rotation.KEKs, error) { return rotation.NewKEKs([]byte(benchKEK)) }

func tenantName(i int) string { return fmt.Sprintf("tenant-%07d", i) }

// makers is how many rings are made at once, and batch how many one keyring makes before it is replaced:
// a keyring looks at all of its rings after each change.
const makers, batch = 4, 200

// fill makes n rings as a rotator does, and writes them into Redis, without an entry in the log for each: a
// million calls of the script would take minutes, and an instance that starts reads the rings alone.
func fill(ctx context.Context, n int, url string) error {
	client, err := rediskeys.Open(url)
	if err != nil {
		return err
	}
	defer client.Close()
	keks, err := newKEKs()
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	var next atomic.Int64
	failed := make(chan error, makers)
	for range makers {
		wg.Go(func() {
			for len(failed) == 0 {
				first := int(next.Add(batch)) - batch
				if first >= n {
					return
				}
				if err := fillSome(ctx, client, keks, first, min(first+batch, n)); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(failed)
	return <-failed
}

// fillSome makes the rings of tenants from first up to end.
func fillSome(ctx context.Context, client redis.UniversalClient, keks *rotation.KEKs, first, end int) error {
	sink := &sink{rings: make(map[string]map[string][]byte)}
	k, err := rotation.Open(ctx, sink, rotation.Config{KEKs: keks, Tenants: []string{tenantName(first)}, Instance: "maker", OneShot: true, Now: now})
	if err != nil {
		return err
	}
	defer k.Close(ctx)
	r, err := rotation.NewRotator(k)
	if err != nil {
		return err
	}
	pipe := client.Pipeline()
	for i := first; i < end; i++ {
		tenant := tenantName(i)
		if err := k.Add(ctx, tenant); err != nil {
			return err
		}
		if _, err := r.Create(ctx, tenant, rotation.Policy{Algorithm: keystore.HS256}); err != nil {
			return err
		}
		k.Remove(tenant)
		copyRing(ctx, pipe, tenant, sink.take(tenant))
	}
	_, err = pipe.Exec(ctx)
	return err
}

// copyRing writes a ring where docs/formats.md says.
func copyRing(ctx context.Context, pipe redis.Pipeliner, tenant string, fields map[string][]byte) {
	bucket, values := fmt.Sprintf("kt:{%d}:", rotation.BucketOf(tenant)), make(map[string]any)
	for field, value := range fields {
		values[field] = value
	}
	pipe.HSet(ctx, bucket+"ring:"+tenant, values)
	pipe.SAdd(ctx, bucket+"tenants", tenant)
}

// A sink is a store for a process that makes rings: it keeps each ring until it is taken.
type sink struct {
	mu    sync.Mutex // guards rings
	rings map[string]map[string][]byte
}

// take returns the fields of a ring, and forgets it.
func (s *sink) take(tenant string) map[string][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer delete(s.rings, tenant)
	return s.rings[tenant]
}

// age is how old the rings are. Younger than Freshness + Dwell + ClockSkew, some two minutes, the clock would change
// each of them while it is measured.
const age = 10 * time.Minute

// now is the time by the store and by the instance that makes the rings: whole milliseconds, as Redis tells it.
func now() time.Time { return time.Now().Add(-age).UTC().Truncate(time.Millisecond) }

func (s *sink) Sync(_ context.Context, _ string, requests []rotation.SyncRequest) []rotation.SyncReply {
	replies := make([]rotation.SyncReply, len(requests))
	for i, r := range requests {
		replies[i] = rotation.SyncReply{Place: rotation.Place{ID: "1-0", Nonce: "n"}, Now: now(), Digests: make([]string, len(r.Digests))}
		for n, tenant := range r.Digests {
			replies[i].Digests[n] = s.digest(tenant)
		}
	}
	return replies
}

// digest stands for that of a ring: each is written once.
func (s *sink) digest(tenant string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rings[tenant] == nil {
		return ""
	}
	return "made"
}

func (s *sink) Load(_ context.Context, tenants []string) []rotation.Snapshot {
	all := make([]rotation.Snapshot, len(tenants))
	for i, tenant := range tenants {
		digest := s.digest(tenant)
		s.mu.Lock()
		all[i] = rotation.Snapshot{Fields: s.rings[tenant], Digest: digest, Now: now()}
		s.mu.Unlock()
	}
	return all
}

func (s *sink) Tenants(context.Context, []int) ([][]string, error) {
	return nil, errors.New("a sink names no tenants")
}

func (s *sink) Write(_ context.Context, c rotation.Change) (rotation.Result, error) {
	at := now()
	fields := c.Set
	for _, kid := range c.Publish {
		fields["p:"+kid] = fmt.Append(nil, at.UnixMilli())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rings[c.Tenant] = fields
	return rotation.Result{Code: rotation.Committed, Now: at, Place: rotation.Place{ID: "1-0", Nonce: c.Nonce}, Digest: "made"}, nil
}

func (s *sink) Acks(context.Context, int) ([]rotation.RawAck, time.Time, error) {
	return nil, now(), nil
}

func (s *sink) Forget(context.Context, string, []int) error { return nil }

func (s *sink) Listen(ctx context.Context, _ func(int)) error {
	<-ctx.Done()
	return ctx.Err()
}
