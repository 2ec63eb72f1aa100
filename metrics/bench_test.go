package metrics_test

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/metrics"
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
