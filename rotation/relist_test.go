package rotation_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// A mendedStore says once that it has made the set of tenants of a bucket again, as rediskeys does after a
// person has overwritten it. It notes whose digests the syncs of the bucket ask for from then on.
type mendedStore struct {
	rotation.Store
	bucket int

	mu    sync.Mutex // guards what follows
	mend  bool
	asked [][]string
	at    []time.Time
}

func (s *mendedStore) Sync(ctx context.Context, instance string, requests []rotation.SyncRequest) []rotation.SyncReply {
	replies := s.Store.Sync(ctx, instance, requests)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, q := range requests {
		if q.Bucket != s.bucket {
			continue
		}
		if s.at != nil {
			s.asked, s.at = append(s.asked, q.Digests), append(s.at, time.Now())
		}
		if s.mend && q.ListsAll {
			s.mend, s.at, replies[i].Mended = false, []time.Time{time.Now()}, []string{"tenants"}
		}
	}
	return replies
}

// Until the tenants are listed again, a command over all rings misses some, and does not know it. So the
// next sync, which follows at once, asks for all of them: the store lists those whose digests it is asked for.
func TestMendedTenantsAreListedAtOnce(t *testing.T) {
	virtual(t, func(t *testing.T) {
		const rings = 7
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		var tenants []string
		for i := 0; len(tenants) < rings; i++ {
			if name := fmt.Sprint("t", i); rotation.BucketOf(name) == rotation.BucketOf("t0") {
				tenants = append(tenants, name)
			}
		}
		slices.Sort(tenants)
		for _, tenant := range tenants {
			create(t, cluster, tenant, ring.Policy{})
		}
		s := &mendedStore{Store: cluster.Connect("x"), bucket: rotation.BucketOf("t0")}
		k := openStore(t, s, of(), trusting)
		defer k.Close(t.Context())
		time.Sleep(3 * time.Second)
		s.mu.Lock()
		s.mend = true
		s.mu.Unlock()
		time.Sleep(3 * time.Second)
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.asked) < 4 {
			t.Fatalf("after the mending: %d syncs", len(s.asked))
		}
		first := slices.Sorted(slices.Values(s.asked[0]))
		if gap := s.at[1].Sub(s.at[0]); !slices.Equal(first, tenants) || gap > fastPoll/2 {
			t.Errorf("%v after the mending the digests of %q are asked for, want %q at once", gap, first, tenants)
		}
		for i, asked := range s.asked[1:] {
			if len(asked) > rings/2 {
				t.Errorf("sync %d asks for %d digests: it is over by then", i+1, len(asked))
			}
		}
	})
}
