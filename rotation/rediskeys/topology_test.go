package rediskeys_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

func TestStoreOnCluster(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	c := redistest.RunCluster(t, redistest.Options{})
	rotationtest.TestStore(t, func(t *testing.T) rotation.Store {
		flush(t, c.Servers...)
		return open(t, "redis-cluster://"+strings.Join(c.Addrs(), ","))
	})
}

// If a slot has moved to another server, the change is made once, on that server.
func TestClusterMovesSlot(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	c := redistest.RunCluster(t, redistest.Options{})
	s := open(t, "redis-cluster://"+strings.Join(c.Addrs(), ","))
	begin(t, s)
	flush(t, c.Servers...)
	from, err := c.Owner(t.Context(), logKey(bucket))
	if err != nil {
		t.Fatal(err)
	}
	to := (from + 1) % len(c.Servers)
	slot := c.Servers[0].Client().ClusterKeySlot(t.Context(), logKey(bucket)).Val()
	id := c.Servers[to].Client().Do(t.Context(), "CLUSTER", "MYID").Val()
	for _, server := range []int{to, from} {
		do(t, c.Servers[server], "CLUSTER", "SETSLOT", slot, "NODE", id)
	}
	r := write(t, s, rotation.Change{Tenant: tenant, Set: map[string][]byte{"f": []byte("1")}})
	if got := s.Load(t.Context(), []string{tenant})[0]; got.Err != nil || got.Digest != r.Digest {
		t.Errorf("after the slot has moved: %+v", got)
	}
	if n := c.Servers[to].Client().XLen(t.Context(), key("log")).Val(); n != 1 {
		t.Errorf("%d entries in the log of the new server, want 1", n)
	}
}

// If one server of a Cluster hangs or is dead, only the calls to its buckets fail.
func TestClusterLosesOneServer(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	c := redistest.RunCluster(t, redistest.Options{})
	s := open(t, "redis-cluster://"+strings.Join(c.Addrs(), ","))
	requests := allBuckets()
	place(t, requests, s.Sync(deadline(t, 10*time.Second), "me", requests))
	tenants := make([]string, rotation.Buckets)
	for i := 0; i < 10_000; i++ {
		name := fmt.Sprint("t", i)
		tenants[rotation.BucketOf(name)] = name
	}
	check := func(what string, d time.Duration) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		start := time.Now()
		replies := s.Sync(ctx, "me", requests)
		snapshots := s.Load(ctx, tenants)
		if took := time.Since(start); took > d+2*time.Second {
			t.Errorf("%s: took %v, the deadline is %v", what, took, d)
		}
		failed := 0
		for i, r := range replies {
			owner, err := c.Owner(t.Context(), logKey(i))
			if err != nil {
				t.Fatal(err)
			}
			if lost := owner == 2; (r.Err != nil) != lost || r.Resync || lost != (snapshots[i].Err != nil) && time.Since(start) < d {
				t.Fatalf("%s: bucket %d of server %d: Sync %+v, Load error %v", what, i, owner, r, snapshots[i].Err)
			}
			if r.Err != nil {
				failed++
			}
		}
		if failed == 0 || failed == rotation.Buckets {
			t.Errorf("%s: %d buckets failed", what, failed)
		}
	}
	if err := c.Servers[2].Pause(); err != nil {
		t.Fatal(err)
	}
	check("hangs", 2*time.Second)
	check("hangs, again", 2*time.Second) // with new connections
	if err := c.Servers[2].Resume(); err != nil {
		t.Fatal(err)
	}
	c.Servers[2].Kill()
	check("killed", 10*time.Second)
	check("killed, again", 10*time.Second)
	if err := c.Servers[2].Restart(); err != nil {
		t.Fatal(err)
	}
	for ctx := deadline(t, time.Minute); ; time.Sleep(50 * time.Millisecond) { // waits for other processes
		bad := 0
		for _, r := range s.Sync(ctx, "me", requests) {
			if r.Err != nil {
				bad++
			}
		}
		if bad == 0 {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("%d buckets have not come back", bad)
		}
	}
}

// If a replica takes over in a Cluster, the store finds it within seconds.
func TestClusterFailover(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	c := redistest.RunCluster(t, redistest.Options{})
	lost, err := c.Owner(t.Context(), logKey(bucket))
	if err != nil {
		t.Fatal(err)
	}
	replica, err := c.AddReplica(lost)
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, "redis-cluster://"+strings.Join(c.Addrs(), ","))
	set(t, s, tenant, "f", "1")
	c.Servers[lost].Kill()
	eventually(t, "the replica to take over", func() bool {
		info, err := replica.Client().Info(t.Context(), "replication").Result()
		return err == nil && strings.Contains(info, "role:master")
	})
	took := time.Now()
	eventually(t, "the store", func() bool { return s.Load(deadline(t, 5*time.Second), []string{tenant})[0].Err == nil })
	if d := time.Since(took); d > 20*time.Second { // the client alone needs up to a minute
		t.Errorf("it took %v", d)
	}
	set(t, s, tenant, "f", "2")
}

func TestStoreOnSentinel(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	three := redistest.RunSentinel(t, redistest.Options{})
	url := "redis-sentinel://" + strings.Join(three.Addrs(), ",") + "/" + three.Name
	rotationtest.TestStore(t, func(t *testing.T) rotation.Store {
		flush(t, three.Primary)
		return open(t, url)
	})
	if t.Failed() {
		return
	}
	flush(t, three.Primary)
	s := open(t, url)
	at := begin(t, s)
	ring := set(t, s, tenant, "f", "1")
	if err := three.Settled(t.Context()); err != nil {
		t.Fatal(err)
	}
	three.Primary.Kill()
	if err := s.Load(deadline(t, 300*time.Millisecond), []string{tenant})[0].Err; err == nil {
		t.Error("no error before a replica has taken over")
	}
	if err := three.Failover(); err != nil {
		t.Fatal(err)
	}
	for ctx := deadline(t, 15*time.Second); ; time.Sleep(20 * time.Millisecond) { // waits for other processes
		r := s.Sync(ctx, "me", []rotation.SyncRequest{{Bucket: bucket, Place: at}})[0]
		if r.Err == nil && !r.Resync && r.Place == ring.Place {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("after the failover: %+v", r)
		}
	}
	set(t, s, tenant, "f", "2")
}

// A demoted primary is a replica, but connections that were open before still reach it.
func TestOldConnectionToDemotedPrimary(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	p := redistest.RunPair(t, redistest.Options{})
	s := open(t, "redis://"+p.Primary.Addr())
	set(t, s, tenant, "f", "1")
	if err := p.Replica.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.Primary.Follow(t.Context(), p.Replica.Addr()); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "Load", s.Load(t.Context(), []string{tenant})[0].Err, rediskeys.ErrReplica)
}
