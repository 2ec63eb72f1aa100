package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
)

// openOptions are those of the process that opens a keyring.
type openOptions struct{ url, cpu, poll, heap string }

// profiles returns the flags by which the process of n tenants writes its profiles, each with n in its name.
func (o openOptions) profiles(n int) (args []string) {
	for flag, file := range map[string]string{"-cpuprofile": o.cpu, "-pollprofile": o.poll, "-heapprofile": o.heap} {
		if file != "" {
			args = append(args, flag, file+"."+strconv.Itoa(n))
		}
	}
	return args
}

// figures are what the process that opens a keyring finds out.
type figures struct {
	Held     int
	Open     float64 // seconds that Open took
	Ready    float64 // seconds until all rings were opened, from the beginning of Open on
	ReadyCPU float64 // seconds of processor time until then
	Bytes    float64 // of heap in use a tenant, once idle
	RSS      float64 // MiB that the process takes at most
	IdleRSS  float64 // MiB that it takes once idle, with memory given back
	Poll     float64 // milliseconds of processor time of a poll that finds nothing new
	Rotating float64 // the same, with a rotator that runs
	Status   float64 // milliseconds of one call of Keyring.Status
	First    float64 // microseconds of the first Lookup of a tenant
	Lookup   float64 // nanoseconds of those after it, the fastest of nine rounds
}

const (
	pollEvery = time.Second     // with deadline it leaves as many polls in Freshness as the defaults do
	deadline  = 3 * time.Second // of a call: Redis shares the cores with this process. A third of Freshness has room for it
	polls     = 8               // over which the cost is measured: each digest is compared twice
)

// open opens a keyring, and prints its figures as JSON.
func open(ctx context.Context, o openOptions) error {
	client, err := rediskeys.Open(o.url)
	if err != nil {
		return err
	}
	defer client.Close()
	redis, err := rediskeys.New(client, rediskeys.Config{})
	if err != nil {
		return err
	}
	keks, err := newKEKs()
	if err != nil {
		return err
	}
	var f figures
	before, store := heapInUse(), &counted{Store: redis}
	k, err := f.timeOpen(ctx, store, keks, o.cpu)
	if err != nil {
		return err
	}
	defer k.Close(ctx)
	if err := f.measure(ctx, store, k, before, o); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(f)
}

// measure measures a keyring that was opened. before is the heap that was in use before that.
func (f *figures) measure(ctx context.Context, store *counted, k *rotation.Keyring, before float64, o openOptions) (err error) {
	f.Held = k.Status().Tenants
	if err := store.await(ctx, 3); err != nil {
		return err
	}
	f.Bytes = (heapInUse() - before) / float64(f.Held)
	if f.IdleRSS, err = memory("VmRSS"); err != nil {
		return err
	}
	if err := profileHeap(o.heap); err != nil {
		return err
	}
	if f.Poll, err = pollCost(ctx, store, o.poll); err != nil {
		return err
	}
	if err := f.timeRotator(ctx, store, k); err != nil {
		return err
	}
	begin := time.Now()
	if s := k.Status(); !s.Fresh {
		return fmt.Errorf("not in sync: %w", s.Err)
	}
	f.Status = time.Since(begin).Seconds() * 1e3
	if err := f.timeLookups(k); err != nil {
		return err
	}
	f.RSS, err = memory("VmHWM")
	return err
}

// timeOpen opens the keyring, and waits until it is ready.
func (f *figures) timeOpen(ctx context.Context, store rotation.Store, keks *rotation.KEKs, profile string) (k *rotation.Keyring, err error) {
	err = profiled(profile, func() error {
		begin, used := time.Now(), processorTime()
		k, err = rotation.Open(ctx, store, rotation.Config{KEKs: keks, Instance: "scale", TrustFirstRead: true, Poll: pollEvery, Deadline: deadline,
			Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
		if f.Open = time.Since(begin).Seconds(); err == nil {
			err = k.WaitReady(ctx)
		}
		f.Ready, f.ReadyCPU = time.Since(begin).Seconds(), (processorTime() - used).Seconds()
		return err
	})
	return k, err
}

// timeRotator measures polls while a rotator runs that finds nothing due.
func (f *figures) timeRotator(ctx context.Context, store *counted, k *rotation.Keyring) error {
	r, err := rotation.NewRotator(k)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error)
	go func() { ended <- r.Run(ctx) }()
	f.Rotating, err = pollCost(ctx, store, "")
	cancel()
	<-ended
	return err
}

// timeLookups measures lookups of a thousand tenants, the first and later ones.
func (f *figures) timeLookups(k *rotation.Keyring) error {
	tenants := k.Tenants()
	var ids []keystore.ID
	for _, tenant := range tenants[:min(len(tenants), 1000)] {
		s, err := k.Tenant(tenant)
		if err != nil {
			return err
		}
		ids = append(ids, keystore.ID{Tenant: tenant, KID: s.Ring.Keys[0].KID})
	}
	first, err := timeLookup(k, ids)
	f.First, f.Lookup = first/1e3, math.MaxFloat64
	for range 9 { // the machine may be busy with something else in one of them
		each, failed := timeLookup(k, ids)
		f.Lookup, err = min(f.Lookup, each), errors.Join(err, failed)
	}
	return err
}

// timeLookup looks up each of ids, and returns how many nanoseconds one takes.
func timeLookup(k *rotation.Keyring, ids []keystore.ID) (float64, error) {
	begin := time.Now()
	for _, id := range ids {
		if _, err := k.Lookup(id, keystore.HS256); err != nil {
			return 0, err
		}
	}
	return float64(time.Since(begin).Nanoseconds()) / float64(len(ids)), nil
}

// A counted store counts the polls.
type counted struct {
	*rediskeys.Store
	polls atomic.Int64
}

// Sync implements [rotation.Store].
func (c *counted) Sync(ctx context.Context, instance string, requests []rotation.SyncRequest) []rotation.SyncReply {
	defer c.polls.Add(1)
	return c.Store.Sync(ctx, instance, requests)
}

// await waits until an idle keyring has polled n times more.
func (c *counted) await(ctx context.Context, n int64) error {
	for last := c.polls.Load() + n; c.polls.Load() < last; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// pollCost returns the milliseconds of processor time that a poll takes, of this whole process. It begins
// and ends between two polls.
func pollCost(ctx context.Context, store *counted, profile string) (ms float64, err error) {
	between := func(n int64) error {
		err := store.await(ctx, n)
		time.Sleep(pollEvery / 2)
		return err
	}
	if err := between(1); err != nil {
		return 0, err
	}
	err = profiled(profile, func() error {
		first, used := store.polls.Load(), processorTime()
		if err := between(polls); err != nil {
			return err
		}
		ms = (processorTime() - used).Seconds() * 1e3 / float64(store.polls.Load()-first)
		return nil
	})
	return ms, err
}

// heapInUse returns the bytes of the heap that are in use after a collection.
func heapInUse() float64 {
	runtime.GC()
	runtime.GC() // what the first has found to be finalized
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapInuse)
}

// processorTime returns what this process has used, in user and system mode.
func processorTime() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// memory returns a line of /proc/self/status in MiB.
func memory(name string) (float64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == name+":" {
			kib, err := strconv.ParseFloat(fields[1], 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("/proc/self/status has no %s", name)
}

// profiled runs do, and writes a profile of it if file is not empty.
func profiled(file string, do func() error) error {
	if file == "" {
		return do()
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := pprof.StartCPUProfile(out); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	return do()
}

// profileHeap writes a profile of the memory, if file is not empty.
func profileHeap(file string) error {
	if file == "" {
		return nil
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer out.Close()
	return pprof.WriteHeapProfile(out)
}
