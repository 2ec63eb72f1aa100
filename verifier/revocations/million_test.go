//go:build unix

package revocations

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier/revocations/internal/codec"
	"github.com/keyturn/keyturn/verifier/revocations/internal/table"
)

// BenchmarkOpenMillion measures how long a list takes to read a million entries from a Redis server,
// what a poll costs then, and the memory in both. It takes half a minute.
func BenchmarkOpenMillion(b *testing.B) {
	redistest.Need(b)
	server := redistest.Run(b, redistest.Options{})
	url := "redis://" + server.Addr()
	first := onRedis(b, url, "first")
	ready(b, first)
	waitFor(b, "a digest key", func() bool { return len(first.current()) > 0 })
	k := first.current().First()
	if err := first.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
	fill(b, connect(b, url), k, 1_000_000)
	if info, err := server.Client().Info(b.Context(), "memory").Result(); err == nil {
		for line := range strings.Lines(info) {
			if strings.HasPrefix(line, "used_memory_human") {
				b.Log("Redis: ", strings.TrimSpace(line))
			}
		}
	}
	for b.Loop() {
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		begin, cpu := time.Now(), cpuTime()
		l := onRedis(b, url, "reader")
		ready(b, l)
		b.Logf("ready after %v, %v of CPU, with %d entries", time.Since(begin).Round(time.Millisecond), cpuTime()-cpu, l.Len())
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.Logf("%.0f bytes an entry", float64(after.HeapAlloc-before.HeapAlloc)/float64(l.Len()))
		polls := 5
		time.Sleep(2 * time.Second)
		cpu = cpuTime()
		time.Sleep(time.Duration(polls) * 2 * time.Second)
		b.Logf("%v of CPU a poll", (cpuTime()-cpu)/time.Duration(polls))
		begin = time.Now()
		if err := server.Do(b.Context(), "FLUSHALL"); err != nil {
			b.Fatal(err)
		}
		for l.Status().Alarms.Restored < allGroups-100 && time.Since(begin) < time.Minute {
			time.Sleep(10 * time.Millisecond)
		}
		b.Logf("after FLUSHALL %d groups are back after %v", l.Status().Alarms.Restored, time.Since(begin).Round(time.Millisecond))
		if err := l.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// fill writes n entries past the list, as a million calls of RevokeToken would.
func fill(b *testing.B, client redis.UniversalClient, k *codec.Key, n int) {
	b.Helper()
	groups := make(map[int][]any)
	end := time.Now().Add(time.Hour).Unix() / 60 * 60
	for i := range n {
		e := table.Entry{Digest: k.Digest(table.Token, "acme", fmt.Sprint(i)), Tenant: k.TenantID("acme"), Kind: table.Token, Key: k.ID, Before: end, End: end}
		g := groupOf(e.Digest, allGroups)
		groups[g] = append(groups[g], codec.Field(e.Digest), k.SealEntry(e))
	}
	pipe := client.Pipeline()
	flush := func() {
		if _, err := pipe.Exec(context.WithoutCancel(b.Context())); err != nil {
			b.Fatal(err)
		}
	}
	for g, fields := range groups {
		name := groupName(g)
		at := fmt.Sprintf("kt:rv:{%d}:", rotation.BucketOf(name))
		pipe.HSet(b.Context(), at+"ring:"+name, fields...)
		pipe.SAdd(b.Context(), at+"tenants", name)
		if pipe.Len() > 4000 {
			flush()
		}
	}
	flush()
}
