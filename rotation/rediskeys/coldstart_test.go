package rediskeys_test

import (
	"context"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

// A whole fleet is restarted and Redis runs on: the first token verifies, and the first instance signs,
// with no wait. If Redis has started again as well, it takes two polls. The server tells the same run as
// long as it runs, also after FLUSHALL, and another one afterwards.
func TestFleetRestartsOnRedis(t *testing.T) {
	redistest.Need(t)
	server := redistest.Run(t, redistest.Options{Keep: true})
	policy := ring.Policy{Freshness: 10 * time.Second, SignFor: 15 * time.Second, Dwell: time.Second, ClockSkew: 5 * time.Second}
	calm := func(c *rotation.Config) { c.Poll, c.Deadline = 300*time.Millisecond, 700*time.Millisecond }
	begin := nemesisMember(t, server.Addr(), "begin", calm, func(c *rotation.Config) { c.TrustFirstRead = true })
	if _, err := begin.rotator.Create(t.Context(), nemesisTenant, policy); err != nil {
		t.Fatal(err)
	}
	_, token := begin.signing(t)
	last, took := begin, time.Duration(0)
	eventually(t, "a fleet that is ready at once", func() bool {
		if err := last.keys.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second) // it has to be in sync for two polls; if it was not, another one tries
		_ = last.keys.Close(context.Background())
		at := time.Now()
		last = nemesisMember(t, server.Addr(), "next", calm)
		took = time.Since(at)
		return !last.inSync(t).InDoubt
	})
	if _, err := last.verifier.Verify(t.Context(), token); err != nil {
		t.Errorf("the first token: %v", err)
	}
	if _, err := last.signer.Sign(t.Context(), nemesisTenant, nil); err != nil {
		t.Errorf("the first login: %v", err)
	}
	_ = last.keys.Close(context.Background())
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	at := time.Now()
	cold := nemesisMember(t, server.Addr(), "cold", calm)
	if !cold.inSync(t).InDoubt {
		t.Error("Redis has started again, and the acknowledgements of before count")
	}
	if err := cold.keys.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("ready after %v, and with another Redis after %v", took, time.Since(at))
	if _, err := cold.verifier.Verify(t.Context(), token); err != nil {
		t.Errorf("after Redis has started again: %v", err)
	}
}

// The run is that of the process, whatever the data: FLUSHALL keeps it. A start and a promotion name
// another one.
func TestRunOfServer(t *testing.T) {
	redistest.Need(t)
	pair := redistest.RunPair(t, redistest.Options{})
	run := func(s *redistest.Server) string {
		r := open(t, "redis://"+s.Addr()).Sync(t.Context(), "", []rotation.SyncRequest{{Bucket: 7}})[0]
		if r.Err != nil || len(r.Run) != 40 {
			t.Fatalf("%+v", r)
		}
		return r.Run
	}
	first := run(pair.Primary)
	flush(t, pair.Primary)
	if again := run(pair.Primary); again != first {
		t.Errorf("after FLUSHALL the run is %s, and was %s", again, first)
	}
	if err := pair.Settled(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := pair.Replica.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	promoted := run(pair.Replica)
	if err := pair.Primary.Follow(t.Context(), pair.Replica.Addr()); err != nil {
		t.Fatal(err)
	}
	if err := pair.Primary.Promote(t.Context()); err != nil { // the failback
		t.Fatal(err)
	}
	back := run(pair.Primary)
	if err := pair.Primary.Restart(); err != nil {
		t.Fatal(err)
	}
	if started := run(pair.Primary); promoted == first || back == first || back == promoted || started == first || started == back {
		t.Errorf("the runs are %s, %s promoted, %s after the failback, %s after a start", first, promoted, back, started)
	}
}

// A Redis whose scripts cannot ask for the role names no run.
func TestNoRun(t *testing.T) {
	r := open(t, "redis://"+mini(t).Addr()).Sync(t.Context(), "", []rotation.SyncRequest{{Bucket: 7}})[0]
	if r.Err != nil || r.Run != "" {
		t.Errorf("run %q, %v", r.Run, r.Err)
	}
}
