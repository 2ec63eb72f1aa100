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
// revokes all the while must not keep it waiting: it is ready within two polls.
func TestNewcomerOfABusyFleet(t *testing.T) {
	for rate, holders := range map[int]int{1: 1, 10: 3, 100: 3} {
		t.Run(fmt.Sprint(rate, " a second, holders: ", holders), func(t *testing.T) {
			virtual(t, func(t *testing.T) { joinBusy(t, rate, holders) })
		})
	}
}

// joinBusy has an instance start beside holders that revoke rate tokens a second.
func joinBusy(t *testing.T, rate, holders int) {
	cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{Page: 1 << 16})
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
	if err := join("new").WaitReady(waiting); err != nil || time.Since(begin) > 5*time.Second {
		t.Errorf("ready after %v: %v", time.Since(begin), err)
	}
}
