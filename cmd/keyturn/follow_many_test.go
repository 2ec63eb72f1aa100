//go:build unix

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// cpu returns the processor time of this process so far.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// manyTenants writes a tenants_dir with n tenants, each with a secret of its own, and returns keyturn.yaml.
func manyTenants(tb testing.TB, n int) (path string) {
	tb.Helper()
	dir := tb.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "t.d", ".s"), 0o700); err != nil {
		tb.Fatal(err)
	}
	path = filepath.Join(dir, "keyturn.yaml")
	if err := os.WriteFile(path, []byte("tenants_dir: t.d\nreload: {every: 0s}\n"), 0o600); err != nil {
		tb.Fatal(err)
	}
	for i := range n {
		addTenant(tb, dir, i, "api")
	}
	return path
}

func addTenant(tb testing.TB, dir string, i int, audience string) {
	tb.Helper()
	id := fmt.Sprintf("t%05d", i)
	text := fmt.Sprintf("{id: %s, kind: static, secret_file: .s/%[1]s, issuer: 'https://%[1]s.example', audiences: [%s]}\n", id, audience)
	for name, text := range map[string]string{filepath.Join(dir, "t.d", ".s", id): secretOf(id), filepath.Join(dir, "t.d", id+".yaml"): text} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
}

// BenchmarkTenantsDir measures a server with many files in tenants_dir: what reading them costs, a look
// at files that are as they were, and one that finds a file changed. The times are of the processor.
func BenchmarkTenantsDir(b *testing.B) {
	for _, n := range []int{100, 1000, 10_000} {
		path := manyTenants(b, n)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		cmd := newServeCommand(&app{env: func(string) (string, bool) { return "", false }, stdout: new(strings.Builder), stderr: new(strings.Builder), now: time.Now})
		if err := cmd.configFile.Set(path); err != nil {
			b.Fatal(err)
		}
		begin := cpuTime(b)
		o, err := cmd.offer()
		if err != nil {
			b.Fatal(err)
		}
		start := cpuTime(b) - begin
		cmd.followConfig(o)
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.Run(fmt.Sprintf("tenants=%d/start", n), func(b *testing.B) {
			for b.Loop() {
			}
			b.ReportMetric(start.Seconds()*1000, "ms/op")
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(n), "B/tenant")
			b.ReportMetric(0, "ns/op")
		})
		files := o.server.Reload.Files
		b.Run(fmt.Sprintf("tenants=%d/look", n), func(b *testing.B) {
			begin := cpuTime(b)
			for b.Loop() {
				if files.Sum() != o.server.Reload.Sum {
					b.Fatal("it has changed")
				}
			}
			b.ReportMetric((cpuTime(b)-begin).Seconds()*1000/float64(b.N), "cpu-ms/op")
		})
		b.Run(fmt.Sprintf("tenants=%d/load", n), func(b *testing.B) {
			begin := cpuTime(b)
			for i := 0; b.Loop(); i++ {
				addTenant(b, filepath.Dir(path), n/2, fmt.Sprint("api", i))
				if _, err := files.Load(); err != nil {
					b.Fatal(err)
				}
				files.Used()
			}
			b.ReportMetric((cpuTime(b)-begin).Seconds()*1000/float64(b.N), "cpu-ms/op")
		})
	}
}

// Tenants of a large folder come, change and go while tokens are verified. None of a tenant that stays is
// refused, and no other tenant is touched: the log counts those alone.
func TestReloadOfManyTenantsUnderLoad(t *testing.T) {
	t.Parallel()
	const n, stays = 400, 7
	path := manyTenants(t, n)
	dir := filepath.Dir(path)
	f := follow(t, path)
	id := func(i int) string { return fmt.Sprintf("t%05d", i) }
	stop, refused, asked := make(chan struct{}), new(atomic.Int64), new(atomic.Int64)
	var load sync.WaitGroup
	load.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if askOnce(f.url+"/api/x?", tokenOf(id(stays+i%3), secretOf(id(stays+i%3)))) != nil {
				refused.Add(1)
			}
			asked.Add(1)
		}
	})
	for round := range 5 {
		addTenant(t, dir, n+round, "api")
		addTenant(t, dir, 20+round, "other")
		if err := os.Remove(filepath.Join(dir, "t.d", id(100+round)+".yaml")); err != nil {
			t.Fatal(err)
		}
		f.reload("added=1 changed=1 removed=1")
		f.wantGood(true, id(n+round), secretOf(id(n+round)))
		f.wantGood(false, id(20+round), secretOf(id(20+round)))
		f.wantGood(false, id(100+round), secretOf(id(100+round)))
	}
	wait(t, func() bool { return asked.Load() > 100 })
	close(stop)
	load.Wait()
	if refused.Load() > 0 {
		t.Errorf("%d of %d good tokens were refused: %s", refused.Load(), asked.Load(), f.log)
	}
	f.reload(asItWas)
}
