package bench

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// manyTenants is how many rings a large keyring holds.
const manyTenants = 10_000

func tenantName(i int) string { return fmt.Sprintf("tenant-%05d", i) }

// newRings returns a store in memory with a ring for each of n tenants, and a Config that opens it.
func newRings(b testing.TB, n int, alg keystore.Algorithm) (*rotationtest.Cluster, *rotation.KEKs) {
	b.Helper()
	keks, err := rotation.NewKEKs([]byte("0123456789abcdef0123456789ABCDEF"))
	if err != nil {
		b.Fatal(err)
	}
	cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{History: time.Nanosecond})
	tenants := make([]string, n)
	for i := range tenants {
		tenants[i] = tenantName(i)
	}
	for some := range slices.Chunk(tenants, 100) { // after each change a keyring looks at all of its rings
		k, err := rotation.Open(b.Context(), cluster.Connect("maker"), rotation.Config{KEKs: keks, Tenants: some, Instance: "maker", OneShot: true})
		if err != nil {
			b.Fatal(err)
		}
		r, err := rotation.NewRotator(k)
		if err != nil {
			b.Fatal(err)
		}
		for _, tenant := range some {
			if _, err := r.Create(b.Context(), tenant, rotation.Policy{Algorithm: alg}); err != nil {
				b.Fatal(err)
			}
		}
		k.Close(context.Background())
	}
	return cluster, keks
}

// polls waits until an idle keyring has polled n times more.
func polls(b testing.TB, k *rotation.Keyring, n uint64) {
	b.Helper()
	for last := k.Status().Counts.Syncs + n; k.Status().Counts.Syncs < last; {
		select {
		case <-b.Context().Done():
			b.Fatal("it does not poll")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// BenchmarkKeyring opens a keyring with 10 000 tenants. It reports the memory of an idle one, and
// how many calls of the store a poll without changes makes: one, for all buckets.
// TestAPollCostsBuckets counts the commands that Redis receives.
func BenchmarkKeyring(b *testing.B) {
	for _, alg := range []keystore.Algorithm{keystore.HS256, keystore.ES256} {
		b.Run(string(alg), func(b *testing.B) {
			cluster, keks := newRings(b, manyTenants, alg)
			cfg := rotation.Config{KEKs: keks, Instance: "b", TrustFirstRead: true, Poll: often, Deadline: patience}
			var weight int64
			var calls float64
			for b.Loop() {
				b.StopTimer()
				before := int64(heap())
				conn := cluster.Connect("b")
				b.StartTimer()
				k, err := rotation.Open(b.Context(), conn, cfg)
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				weight = int64(heap()) - before
				if s := k.Status(); !s.Fresh || s.Tenants != manyTenants {
					b.Fatalf("%+v", s)
				}
				polls(b, k, 1)
				first, made := k.Status().Counts.Syncs, conn.Calls()
				polls(b, k, 4)
				calls = float64(conn.Calls()-made) / float64(k.Status().Counts.Syncs-first)
				k.Close(b.Context())
				b.StartTimer()
			}
			b.ReportMetric(float64(weight)/manyTenants, "B/tenant")
			b.ReportMetric(calls, "calls/poll")
		})
	}
}

// The cost of a poll depends on the number of buckets, not of tenants: without changes, Redis
// receives one command for each of 256 buckets. It is the same with 10 000 tenants; 2 000 take
// seconds even with the race detector.
func TestAPollCostsBuckets(t *testing.T) {
	redistest.Need(t)
	const tenants = 2000
	rings, keks := newRings(t, tenants, keystore.HS256)
	server := redistest.Run(t, redistest.Options{})
	client, err := rediskeys.Open("redis://" + server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	store, err := rediskeys.New(client, rediskeys.Config{})
	if err != nil {
		t.Fatal(err)
	}
	copyRings(t, rings, store, tenants)
	k, err := rotation.Open(t.Context(), store, rotation.Config{KEKs: keks, Instance: "a", TrustFirstRead: true, Poll: often, Deadline: patience})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close(context.Background())
	// The first of the counted polls may have begun before, and the last may not have ended.
	const n = 8
	polls(t, k, 1)
	first := k.Status().Counts.Syncs
	made := commands(t, server)
	polls(t, k, n)
	made = commands(t, server) - made
	s := k.Status()
	polled := int(s.Counts.Syncs - first)
	if !s.Fresh || s.Tenants != tenants || s.Counts.Failures > 0 || made < (polled-1)*rotation.Buckets || made > polled*300 {
		t.Errorf("%d commands in %d polls, want at most 300 in one; %+v", made, polled, s)
	}
	t.Logf("%d commands in %d polls of %d tenants", made, polled, s.Tenants)
}

// often is the poll interval here. It does not change the cost of one poll.
const (
	often    = 250 * time.Millisecond
	patience = 2 * time.Second
)

// copyRings copies the rings of a store in memory into another store. A ring is sealed for its
// tenant, not for its store.
func copyRings(t *testing.T, from *rotationtest.Cluster, to *rediskeys.Store, n int) {
	t.Helper()
	var wg sync.WaitGroup
	const writers = 16
	for w := range writers {
		wg.Go(func() {
			for i := w; i < n; i += writers {
				c := rotation.Change{Tenant: tenantName(i), Set: from.Ring(tenantName(i)), Op: ring.OpCreate, Actor: "maker", Nonce: "n"}
				if r, err := to.Write(t.Context(), c); err != nil || r.Code != rotation.Committed {
					t.Errorf("%s: code %d, %v", c.Tenant, r.Code, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

var scriptCalls = regexp.MustCompile(`cmdstat_eval(?:sha)?:calls=(\d+)`)

// commands returns how many scripts a server has run: the store sends only scripts. Redis also
// counts the commands inside a script.
func commands(t *testing.T, s *redistest.Server) (n int) {
	t.Helper()
	stats, err := s.Client().Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, match := range scriptCalls.FindAllStringSubmatch(stats, -1) {
		calls, err := strconv.Atoi(match[1])
		if err != nil {
			t.Fatal(err)
		}
		n += calls
	}
	return n
}
