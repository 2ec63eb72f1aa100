package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
)

// flush empties the Redis, as an operator by mistake would.
func (c *ringCLI) flush() {
	c.t.Helper()
	client, err := rediskeys.Open(c.url)
	if err != nil {
		c.t.Fatal(err)
	}
	defer client.Close()
	if err := client.FlushAll(c.t.Context()).Err(); err != nil {
		c.t.Fatal(err)
	}
}

// kids returns the kids of a ring, by state.
func (c *ringCLI) kids(tenant string) string {
	c.t.Helper()
	_, keys := c.list("--tenant", tenant)
	return keys["signing"].KID + " " + keys["pending"].KID
}

// Right after a FLUSHALL, create makes no second ring of a tenant that a live instance holds.
func TestCreateAfterFlush(t *testing.T) {
	t.Parallel()
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		var tenants []string
		before := make(map[string]string)
		for i := range 5 {
			tenant := fmt.Sprintf("tenant-%d", i)
			c.run("keys", "create", "--tenant", tenant).wantCode(t, exitYes)
			tenants, before[tenant] = append(tenants, tenant), c.kids(tenant)
		}
		c.slowPeer(tenants...)
		c.flush()
		for _, tenant := range tenants {
			c.run("keys", "create", "--tenant", tenant).wantCode(t, exitNo, "it has a ring already")
		}
		for _, tenant := range tenants {
			if got := c.kids(tenant); got != before[tenant] {
				t.Errorf("%s: kids = %s, want %s", tenant, got, before[tenant])
			}
		}
	})
}

// slowPeer opens an instance that polls as rarely as one in production.
func (c *ringCLI) slowPeer(tenants ...string) {
	c.t.Helper()
	s, err := openStore(c.url, rediskeys.Options{})
	if err != nil {
		c.t.Fatal(err)
	}
	keks, err := rotation.ParseKEKs([]byte(c.kek))
	if err != nil {
		c.t.Fatal(err)
	}
	k, err := rotation.Open(c.t.Context(), s, rotation.Config{KEKs: keks, Tenants: tenants, Instance: "slow", TrustFirstRead: true, StoreMayBeAway: true})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { k.Close(c.t.Context()); s.close() })
	wait(c.t, func() bool { n, err := s.nudge(c.t.Context(), 0); return err == nil && n > 0 })
}

// A command that is to change a ring which Redis has just lost waits until an instance has put it back,
// and a rotation for all others too. A revocation does not.
func TestChangeAfterFlush(t *testing.T) {
	t.Parallel()
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		c.run("keys", "create", "--freshness", "12s", "--skew", "1s", "--dwell", "1s").wantCode(t, exitYes)
		kids := strings.Fields(c.kids("default"))
		c.slowPeer("default")
		c.flush()
		begin := time.Now()
		c.run("keys", "revoke", "--wait", "10s", "--", kids[1]).wantCode(t, exitYes, "is revoked", "1 of 1 instance has applied it")
		if d := time.Since(begin); d > 6*time.Second {
			t.Errorf("the revocation took %v", d)
		}
		c.wantStates("signing", "revoked")
		// Two polls are 8 seconds with this policy. The ring was put back a moment ago.
		c.run("keys", "rotate").wantCode(t, exitNo, "it may be from ", "instances may still put keys back: waiting, ")
		if d := time.Since(begin); d < 6*time.Second {
			t.Errorf("the rotation was decided after %v", d)
		}
	})
}

// Where nothing could put anything back, nothing waits; nor does a command with --no-wait or --force.
func TestNothingToSettle(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	c := newRingCLI(t, m.Addr())
	const waits = "instances may still put keys back"
	atOnce := func(r result) {
		t.Helper()
		if strings.Contains(r.stderr, waits) {
			t.Errorf("it waits: %s", r.stderr)
		}
	}
	atOnce(c.run("keys", "rotate").wantCode(t, exitNo, "has no ring"))
	atOnce(c.run("keys", "create").wantCode(t, exitYes))
	c.slowPeer("default")
	m.FlushAll()
	atOnce(c.run("keys", "create", "--no-wait").wantCode(t, exitYes, "made a ring"))
	atOnce(c.run("keys", "rotate", "--force", "--no-wait").wantCode(t, exitYes))
	// A new tenant of a bucket that nothing is known of: those who listen are asked, for a moment.
	begin := time.Now()
	c.run("keys", "create", "--tenant", "new").wantCode(t, exitYes, waits)
	if d := time.Since(begin); d < answerTime {
		t.Errorf("that took %v", d)
	}
}

// A ring that Redis loses while the command watches is not said to be made. If the command has read it
// back by then, it puts it back.
func TestCreateUndone(t *testing.T) {
	t.Parallel()
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		peer := c.freezable("peer") // it waits for the ring
		client, err := rediskeys.Open(c.url)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			key := fmt.Sprintf("kt:{%d}:ring:default", rotation.BucketOf("default"))
			for range 5000 {
				if n, err := client.Exists(t.Context(), key).Result(); err != nil || n > 0 {
					break
				}
				time.Sleep(time.Millisecond)
			}
			peer.freeze()
			client.Del(t.Context(), key)
		}()
		c.run("keys", "create", "--wait", "500ms", "--json").wantCode(t, exitCannotTell, "Redis lost the ", " after it was made")
		<-ended
	})
}
