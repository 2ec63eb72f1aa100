package bench

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// manyTenants is how many rings a large keyring holds.
const manyTenants = 10_000

// newRings returns a store in memory with a ring for each of n tenants, and what opens it.
func newRings(b *testing.B, n int, alg keystore.Algorithm) (*rotationtest.Cluster, *rotation.KEKs) {
	b.Helper()
	keks, err := rotation.NewKEKs([]byte("0123456789abcdef0123456789ABCDEF"))
	if err != nil {
		b.Fatal(err)
	}
	cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{History: time.Nanosecond})
	k, err := rotation.Open(b.Context(), cluster.Connect("maker"), rotation.Config{KEKs: keks, Instance: "maker", OneShot: true})
	if err != nil {
		b.Fatal(err)
	}
	defer k.Close(context.Background())
	r, err := rotation.NewRotator(k)
	if err != nil {
		b.Fatal(err)
	}
	for i := range n {
		if err := r.Create(b.Context(), fmt.Sprintf("tenant-%05d", i), rotation.Policy{Algorithm: alg}); err != nil {
			b.Fatal(err)
		}
	}
	return cluster, keks
}

// BenchmarkKeyring opens a keyring with 10 000 tenants, and reports what an idle one
// weighs, and how many calls of the store a poll takes in which nothing has changed.
func BenchmarkKeyring(b *testing.B) {
	for _, alg := range []keystore.Algorithm{keystore.HS256, keystore.ES256} {
		b.Run(string(alg), func(b *testing.B) {
			cluster, keks := newRings(b, manyTenants, alg)
			cfg := rotation.Config{KEKs: keks, Instance: "b", TrustFirstRead: true}
			var weight int64
			for b.Loop() {
				b.StopTimer()
				before := int64(heap())
				b.StartTimer()
				k, err := rotation.Open(b.Context(), cluster.Connect("b"), cfg)
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				weight = int64(heap()) - before
				if s := k.Status(); !s.Fresh || s.Tenants != manyTenants {
					b.Fatalf("%+v", s)
				}
				k.Close(b.Context())
				b.StartTimer()
			}
			b.ReportMetric(float64(weight)/manyTenants, "B/tenant")
		})
	}
}
