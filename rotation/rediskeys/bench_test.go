package rediskeys_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
)

// eachRedis runs a benchmark on miniredis and, if it is installed, on redis-server.
func eachRedis(b *testing.B, run func(b *testing.B, s *rediskeys.Store)) {
	b.Run("miniredis", func(b *testing.B) { run(b, open(b, "redis://"+miniredis.RunT(b).Addr())) })
	if redistest.Missing() == nil {
		b.Run("redis", func(b *testing.B) {
			run(b, open(b, "redis://"+redistest.Run(b, redistest.Options{}).Addr()))
		})
	}
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
