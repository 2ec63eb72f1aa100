package redistest_test

import (
	"slices"
	"strconv"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/internal/redistest"
)

func TestPair(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	ctx := deadline(t)
	p := redistest.RunPair(t, redistest.Options{})
	set(t, p.Primary, "k", "v")
	if err := p.Settled(ctx); err != nil {
		t.Fatal(err)
	}
	if got := p.Replica.Client().Get(ctx, "k").Val(); got != "v" {
		t.Errorf("the replica has %q", got)
	}
	p.Primary.Kill()
	if err := p.Replica.Promote(ctx); err != nil {
		t.Fatal(err)
	}
	set(t, p.Replica, "k", "w")
	if err := p.Primary.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := p.Primary.Follow(ctx, p.Replica.Addr()); err != nil {
		t.Fatal(err)
	}
	if got := p.Primary.Client().Get(ctx, "k").Val(); got != "w" {
		t.Errorf("the former primary has %q", got)
	}
}

func TestSentinel(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	s := redistest.RunSentinel(t, redistest.Options{})
	if addr, err := s.Current(deadline(t)); err != nil || addr != s.Primary.Addr() {
		t.Fatalf("the primary is at %q, error %v; want %q", addr, err, s.Primary.Addr())
	}
	s.Primary.Kill()
	if err := s.Failover(); err != nil {
		t.Fatal(err)
	}
	set(t, s.Replica, "k", "v")
}

func TestCluster(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	ctx := deadline(t)
	c := redistest.RunCluster(t, redistest.Options{})
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: c.Addrs()})
	defer client.Close()
	var owners []int
	for i := range 32 {
		key := strconv.Itoa(i)
		if err := client.Set(ctx, key, key, 0).Err(); err != nil {
			t.Fatal(err)
		}
		owner, err := c.Owner(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.Servers[owner].Client().Get(ctx, key).Result(); got != key {
			t.Errorf("key %s is not with its owner: %q, error %v", key, got, err)
		}
		owners = append(owners, owner)
	}
	if slices.Sort(owners); len(slices.Compact(owners)) != 3 {
		t.Errorf("not all servers own keys")
	}
}
