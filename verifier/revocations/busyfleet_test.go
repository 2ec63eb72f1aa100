package revocations

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// TestNewcomerOfABusyFleet: an instance that starts waits until it was seen to hold the same as the others. A fleet that
// revokes all the while must not keep it waiting: it is ready within two polls, and where the store does not tell its
// run, so that no other can vouch, soon after 2W.
func TestNewcomerOfABusyFleet(t *testing.T) {
	for _, fleet := range []busyFleet{{1, 1, false, 5 * time.Second}, {10, 3, false, 5 * time.Second}, {100, 3, false, 5 * time.Second}, {20, 12, true, 15 * time.Second}} {
		t.Run(fmt.Sprintf("%+v", fleet), func(t *testing.T) {
			virtual(t, func(t *testing.T) { fleet.join(t) })
		})
	}
}

// A busyFleet has holders that revoke rate tokens a second. An instance that starts beside it is ready within so long.
type busyFleet struct {
	rate, holders int
	noRun         bool
	within        time.Duration
}

func (f *busyFleet) join(t *testing.T) {
	rate, holders := f.rate, f.holders
	cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{Page: 1 << 16, NoRun: f.noRun})
	join := func(name string) *List {
		conn := cluster.Connect(name)
		conn.SetFaults(rotationtest.Faults{Before: time.Millisecond})
		return open(t, conn, name, func(c *Config) { c.groups = many })
	}
	var all []*List
	for i := range holders {
		all = append(all, join(fmt.Sprint("holder-", i)))
	}
	ready(t, all...)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	const writers = 20
	for w := range writers {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if _, err := all[w%holders].RevokeToken(ctx, "acme", fmt.Sprint(w, ".", n), time.Now().Add(time.Hour)); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
				time.Sleep(writers * time.Second / time.Duration(rate))
			}
		})
	}
	time.Sleep(20 * time.Second)
	begin := time.Now()
	waiting, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := join("new").WaitReady(waiting); err != nil || time.Since(begin) > f.within {
		t.Errorf("ready after %v: %v", time.Since(begin), err)
	}
}

// TestFleetStartsOneAfterTheOther: the instances of a fleet start a second apart, and none is left from before that
// vouches. Those that have just read the list must not keep the others from being ready.
func TestFleetStartsOneAfterTheOther(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{Page: 1 << 16})
		join := func(name string) *List {
			return open(t, cluster.Connect(name), name, func(c *Config) { c.groups = many })
		}
		before := join("before")
		ready(t, before)
		for n := range 1000 {
			if _, err := before.RevokeToken(t.Context(), "acme", fmt.Sprint(n), time.Now().Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
		if err := before.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		cluster.Restore(cluster.Dump()) // another run of the store
		begin := time.Now()
		var all []*List
		first := time.Duration(0)
		for n := range 20 {
			all = append(all, join(fmt.Sprint("pod-", n)))
			for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				for _, l := range all {
					if first == 0 && l.Status().Ready {
						first = time.Since(begin)
					}
				}
			}
		}
		if first == 0 || first > 8*time.Second {
			t.Errorf("the first is ready after %v", first)
		}
		ready(t, all...)
	})
}
