package rediskeys_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
)

// eachRedis runs a benchmark on miniredis and, if it is installed, on redis-server. Of that it also
// reports the processor time, which a busy machine does not change.
func eachRedis(b *testing.B, run func(b *testing.B, s *rediskeys.Store)) {
	b.Run("miniredis", func(b *testing.B) { run(b, open(b, "redis://"+mini(b).Addr())) })
	if redistest.Missing() == nil {
		b.Run("redis", func(b *testing.B) {
			server := redistest.Run(b, redistest.Options{})
			before := processorTime(b, server)
			run(b, open(b, "redis://"+server.Addr()))
			b.ReportMetric((processorTime(b, server)-before)/float64(b.N)*1e6, "redis-us/op")
		})
	}
}

// processorTime returns how many seconds of processor time a server has used.
func processorTime(b *testing.B, server *redistest.Server) (sum float64) {
	b.Helper()
	info, err := server.Client().Info(context.Background(), "cpu").Result()
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(info) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), ":"); name == "used_cpu_user" || name == "used_cpu_sys" {
			seconds, err := strconv.ParseFloat(value, 64)
			if err != nil {
				b.Fatal(err)
			}
			sum += seconds
		}
	}
	return sum
}

// BenchmarkSyncIdle measures a poll of all buckets that finds nothing new.
func BenchmarkSyncIdle(b *testing.B) {
	eachRedis(b, func(b *testing.B, s *rediskeys.Store) {
		requests := allBuckets()
		place(b, requests, s.Sync(b.Context(), "me", requests))
		for i := range requests {
			requests[i].Ack = ack(strings.Repeat("x", 1000), 0)
		}
		for b.Loop() {
			place(b, requests, s.Sync(b.Context(), "me", requests))
		}
	})
}

// BenchmarkSyncCold measures the first sync of an instance, in which each bucket replies with its
// newest 32 entries.
func BenchmarkSyncCold(b *testing.B) {
	eachRedis(b, func(b *testing.B, s *rediskeys.Store) {
		for i := range 40 * rotation.Buckets {
			write(b, s, rotation.Change{Tenant: fmt.Sprint("tenant-", i%10_000), MAC: make([]byte, 120), Actor: "an-instance-with-a-name", KID: strings.Repeat("k", 43),
				If: s.Load(b.Context(), []string{fmt.Sprint("tenant-", i%10_000)})[0].Digest})
		}
		b.ResetTimer()
		for b.Loop() {
			for _, r := range s.Sync(b.Context(), "me", allBuckets()) {
				if r.Err != nil || len(r.Changed) < 10 {
					b.Fatal(r)
				}
			}
		}
	})
}

// BenchmarkLoad10000 measures how an instance reads all rings when it starts. Each ring has two
// keys and one fact, 1.3 KB.
func BenchmarkLoad10000(b *testing.B) {
	eachRedis(b, func(b *testing.B, s *rediskeys.Store) {
		tenants := make([]string, 10_000)
		for i := range tenants {
			tenants[i] = fmt.Sprint("tenant-", i)
			write(b, s, rotation.Change{Tenant: tenants[i], Publish: []string{"a", "b"}, Set: map[string][]byte{
				"k:a": make([]byte, 500), "k:b": make([]byte, 500), "x:a": make([]byte, 80), "tk:0123456789abcdef": make([]byte, 120), "head": []byte("2"),
			}})
		}
		for b.Loop() {
			for part := range slices.Chunk(tenants, 1000) {
				for _, snapshot := range s.Load(b.Context(), part) {
					if snapshot.Err != nil || len(snapshot.Fields) != 7 {
						b.Fatal(snapshot.Err)
					}
				}
			}
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	eachRedis(b, func(b *testing.B, s *rediskeys.Store) {
		digest := ""
		for b.Loop() {
			digest = write(b, s, rotation.Change{Tenant: tenant, If: digest, Set: map[string][]byte{"k:a": make([]byte, 500)}}).Digest
		}
	})
}
