package metrics_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/metrics"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rotationtest"
	"github.com/keyturn/keyturn/verifier"
)

// events are what a busy service sees: nearly all hits, and a few of the rest.
var events = map[string]verifier.Event{
	"hit":     {Tenant: "acme", Outcome: verifier.Accepted, Cached: true, Duration: 200 * time.Nanosecond},
	"check":   {Tenant: "acme", Outcome: verifier.Accepted, Duration: 30 * time.Microsecond},
	"refused": {Tenant: "acme", Outcome: verifier.Refused, Reason: verifier.ReasonMissingClaim, Duration: 3 * time.Microsecond},
}

func BenchmarkObserve(b *testing.B) {
	for name, e := range events {
		b.Run(name, func(b *testing.B) {
			c := metrics.New(metrics.Config{})
			ctx := b.Context()
			b.ReportAllocs()
			for b.Loop() {
				c.Observe(ctx, e)
			}
		})
	}
}

func BenchmarkObserveParallel(b *testing.B) {
	for name, e := range events {
		b.Run(name, func(b *testing.B) {
			c := metrics.New(metrics.Config{})
			ctx := b.Context()
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					c.Observe(ctx, e)
				}
			})
		})
	}
}

// BenchmarkScrape scrapes an instance with 300 rings, of two keys each.
func BenchmarkScrape(b *testing.B) {
	keks, err := rotation.NewKEKs([]byte("0123456789abcdef0123456789ABCDEF"))
	if err != nil {
		b.Fatal(err)
	}
	tenants := make([]string, 300)
	for i := range tenants {
		tenants[i] = fmt.Sprint("tenant-", i)
	}
	keyring, err := rotation.Open(b.Context(), rotationtest.NewCluster(rotationtest.ClusterConfig{}).Connect("a"), rotation.Config{KEKs: keks, Tenants: tenants, TrustFirstRead: true})
	if err != nil {
		b.Fatal(err)
	}
	defer keyring.Close(context.Background())
	rotator, err := rotation.NewRotator(keyring)
	if err != nil {
		b.Fatal(err)
	}
	for _, tenant := range tenants {
		if _, err := rotator.Create(b.Context(), tenant, rotation.Policy{Algorithm: keystore.HS256}); err != nil {
			b.Fatal(err)
		}
	}
	c := metrics.New(metrics.Config{})
	c.Watch(metrics.Watched{Keyring: keyring})
	h := c.Handler()
	for b.Loop() {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/metrics", nil))
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/300, "µs/ring")
}
