package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
)

// calm is the policy of rings for which a Redis on a busy machine may take a second to answer: a call
// has a thirtieth of the Freshness. For tests that need no time to pass.
var calm = []string{"--freshness", "30s", "--skew", "1s", "--dwell", "1s"}

// peer opens an instance that holds the rings of the tenants.
func (c *ringCLI) peer(name, kek string, tenants ...string) *rotation.Keyring {
	c.t.Helper()
	return c.peerIn("", nil, name, kek, tenants...)
}

// peerIn is peer in a realm, which opens other realms too.
func (c *ringCLI) peerIn(realm string, others []string, name, kek string, tenants ...string) *rotation.Keyring {
	c.t.Helper()
	s, err := openStore(c.url, rediskeys.Options{})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { s.close() })
	keks, err := rotation.ParseKEKs([]byte(kek))
	if err != nil {
		c.t.Fatal(err)
	}
	k, err := rotation.Open(c.t.Context(), s, rotation.Config{
		KEKs: keks, Tenants: tenants, Instance: name, TrustFirstRead: true, Poll: 100 * time.Millisecond,
		Realm: realm, OtherRealms: others, StoreMayBeAway: true, // a Redis on a busy machine may answer late
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { k.Close(context.WithoutCancel(c.t.Context())) })
	c.awaitAcks(s, name, tenants[:min(1, len(tenants))]...) // the bucket of another may hold rubbish, and is not acknowledged
	return k
}

// awaitAcks waits until an instance has acknowledged the buckets of the tenants, or those of the tests if there are
// no tenants: the instance holds all rings then. Its first acknowledgement comes with its second sync.
func (c *ringCLI) awaitAcks(s *store, name string, tenants ...string) {
	c.t.Helper()
	if len(tenants) == 0 {
		tenants = []string{"canary", defaultTenant}
	}
	for _, tenant := range tenants {
		wait(c.t, func() bool {
			acks, _, err := s.Acks(c.t.Context(), rotation.BucketOf(tenant))
			return err == nil && slices.ContainsFunc(acks, func(a rotation.RawAck) bool { return a.Instance == name })
		})
	}
}

// A shownReceipt is the receipt of --json, as far as these tests read it.
type shownReceipt struct {
	Acks []struct {
		Instance      string
		Applied, Live bool
		Holds         bool
		KEKs          []string
	}
	Undone bool
	Waited float64
}

func (r result) receipt(t *testing.T) (shown shownReceipt) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.stdout), &shown); err != nil || strings.Count(r.stdout, "\n") != 1 {
		t.Fatalf("stdout = %q, %v", r.stdout, err)
	}
	return shown
}

// A change is done if every live instance has applied it: exit code 0, whatever the change.
func TestWaitApplied(t *testing.T) {
	t.Parallel()
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		c.run(append([]string{"keys", "create"}, calm...)...).wantCode(t, exitYes)
		c.peer("peer-1", c.kek, "default")
		c.peerAt("peer-2", 100*time.Millisecond, 5*time.Second) // holds all rings: miniredis takes long for 256 buckets
		r := c.run("keys", "rotate", "--force", "--json", "--wait", "60s").wantCode(t, exitYes)
		shown := r.receipt(t)
		if len(shown.Acks) != 2 || shown.Undone || shown.Waited <= 0 {
			t.Errorf("receipt = %s", r.stdout)
		}
		for _, a := range shown.Acks {
			if !a.Applied || !a.Live || !a.Holds || len(a.KEKs) != 1 {
				t.Errorf("ack = %+v", a)
			}
		}
		pending := c.wantStates("retired", "signing", "pending")["pending"].KID
		c.run("keys", "promote", "--force", "--wait", "60s", "--", pending).wantCode(t, exitYes, "2 of 2 instances have applied it")
		c.run("keys", "revoke", "--force", "--wait", "60s", "--", pending).wantCode(t, exitYes, "2 of 2 instances have applied it")
	})
}

// An instance that lives and cannot read the change is named: exit code 4. With --no-wait a change
// that is made is enough.
func TestWaitNotApplied(t *testing.T) {
	t.Parallel()
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		c.run(append([]string{"keys", "create"}, calm...)...).wantCode(t, exitYes)
		c.peer("good", c.kek, "default")
		c.stuck("stuck")
		r := c.run("keys", "rotate", "--force", "--json", "--wait", "300ms")
		r.wantCode(t, exitNotEverywhere, "1 instance had not applied it within 300ms: stuck", "with their next poll")
		if strings.Contains(r.stderr, "good") {
			t.Errorf("stderr = %s", r.stderr)
		}
		if shown := r.receipt(t); len(shown.Acks) != 2 || !shown.Acks[0].Applied || shown.Acks[1].Applied || !shown.Acks[1].Live || shown.Waited < 0.3 {
			t.Errorf("receipt = %s", r.stdout)
		}
		keys := c.wantStates("retired", "signing", "pending")
		c.run("keys", "promote", "--force", "--wait", "2500ms", "--", keys["pending"].KID).wantCode(t, exitNotEverywhere,
			" signs ", "keyturn: note: waiting for 1 instance to apply it", ": stuck", "stuck  NOT applied; last heard of")
		r = c.run("keys", "revoke", "--force", "--no-wait", "--", keys["pending"].KID).wantCode(t, exitYes, "NOT applied")
		if strings.Contains(r.stderr, "waiting") {
			t.Errorf("stderr = %s", r.stderr)
		}
		c.run("keys", "rotate", "--wait", "1s", "--no-wait").wantUsage(t, "--wait and --no-wait: give one of them")
	})
}

// stuck adds an instance that was cut off from Redis a moment ago.
func (c *ringCLI) stuck(name string) { c.freezable(name).freeze() }

// freezable adds an instance that can be cut off.
func (c *ringCLI) freezable(name string) *freezing { return c.freezableOf(name, "default") }

// freezableOf is freezable for an instance that holds the rings of the tenants.
func (c *ringCLI) freezableOf(name string, tenants ...string) *freezing {
	c.t.Helper()
	s, err := openStore(c.url, rediskeys.Options{})
	if err != nil {
		c.t.Fatal(err)
	}
	keks, err := rotation.ParseKEKs([]byte(c.kek))
	if err != nil {
		c.t.Fatal(err)
	}
	frozen := &freezing{Store: s}
	k, err := rotation.Open(c.t.Context(), frozen, rotation.Config{
		KEKs: keks, Tenants: tenants, Instance: name, TrustFirstRead: true, Poll: 100 * time.Millisecond,
		StoreMayBeAway: true,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.awaitAcks(s, name, tenants...)
	c.t.Cleanup(func() { k.Close(context.WithoutCancel(c.t.Context())); s.close() })
	return frozen
}

// Ctrl-C ends the wait, and not the change: what was done is printed, with exit code 4.
func TestWaitInterrupted(t *testing.T) {
	t.Parallel()
	redistest.Need(t)
	c := newRingCLI(t, redistest.Run(t, redistest.Options{}).Addr())
	c.run("keys", "create", "--freshness", "60s").wantCode(t, exitYes)
	binary := builtBinary(t) // that may take longer than the next instance counts as live
	c.stuck("stuck")
	cmd := exec.Command(binary, "keys", "rotate", "--force", "--json", "--redis", c.url)
	cmd.Env = cleanEnv(envKEK + "=" + c.kek)
	var stdout, stderr syncBuffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	wait(t, func() bool {
		return regexp.MustCompile(`waiting for 1 instance to apply it, \ds at most: stuck`).MatchString(stderr.String())
	})
	cmd.Process.Signal(syscall.SIGINT)
	cmd.Wait()
	r := result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
	r.wantCode(t, exitNotEverywhere, `"promoted":"`, `"instance":"stuck","applied":false`, "when the wait was interrupted: stuck")
	if shown := r.receipt(t); shown.Waited > 5 {
		t.Errorf("waited for %v seconds", shown.Waited)
	}
}

// If Redis loses a revocation while the command watches, the command puts it back, and says so: exit
// code 3.
func TestWaitUndone(t *testing.T) {
	t.Parallel()
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		c.run(append([]string{"keys", "create"}, calm...)...).wantCode(t, exitYes)
		c.stuck("stuck")
		kid := c.wantStates("signing", "pending")["pending"].KID
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			c.removeOnce("x:" + kid)
		}()
		r := c.run("keys", "revoke", "--json", "--wait", "1s", "--", kid)
		<-ended
		r.wantCode(t, exitCannotTell, "Redis lost the change after it was made, and it was put back", "not applied by stuck", "Someone writes to Redis")
		if !r.receipt(t).Undone {
			t.Errorf("receipt = %s", r.stdout)
		}
		c.wantStates("signing", "revoked")
	})
}

// The only instance does not hold the ring, so none that verifies the tenant's tokens has confirmed the
// revocation: exit code 4.
func TestWaitUnconfirmed(t *testing.T) {
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		c.run(append([]string{"keys", "create"}, calm...)...).wantCode(t, exitYes)
		keys := c.wantStates("signing", "pending")
		c.peer("stranger", c.kek, neighbour("default"))
		r := c.run("keys", "revoke", "--json", "--wait", "2s", "--", keys["pending"].KID)
		r.wantCode(t, exitNotEverywhere, "no instance that verifies the tenant's tokens had confirmed it within", "If no service verifies them, nothing is to do")
		if shown := r.receipt(t); len(shown.Acks) != 1 || !shown.Acks[0].Applied || shown.Acks[0].Holds {
			t.Errorf("receipt = %s", r.stdout)
		}
	})
}

// A person has put something else where the acknowledgements are. The revocation is made all the same, and
// the command says that it cannot tell which instances have applied it.
func TestRevokeWithoutAcknowledgements(t *testing.T) {
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		c.run(append([]string{"keys", "create"}, calm...)...).wantCode(t, exitYes)
		kid := c.wantStates("signing", "pending")["pending"].KID
		client, err := rediskeys.Open(c.url)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		key := fmt.Sprintf("kt:{%d}:ack", rotation.BucketOf("default"))
		if err := client.Set(t.Context(), key, "junk", 0).Err(); err != nil {
			t.Fatal(err)
		}
		c.run("keys", "revoke", "--wait", "300ms", "--", kid).wantCode(t, exitCannotTell, "is revoked", "it is not known which instances have applied it")
		c.wantStates("signing", "revoked")
	})
}

// neighbour returns another tenant of the bucket.
func neighbour(tenant string) string {
	for i := 0; ; i++ {
		if other := fmt.Sprint("tenant-", i); rotation.BucketOf(other) == rotation.BucketOf(tenant) {
			return other
		}
	}
}

// On a terminal the line is replaced each time, cut to the width, and removed at the end.
func TestProgressTerminal(t *testing.T) {
	var out bytes.Buffer
	p := progress{out: &out, terminal: true}
	p.clear()
	p.show("one")
	p.show(strings.Repeat("x", 100))
	p.clear()
	lines := strings.Split(out.String(), "\r\x1b[K")
	if want := []string{"", "one", strings.Repeat("x", 76) + "...", ""}; !slices.Equal(lines, want) {
		t.Errorf("lines = %q, want %q", lines, want)
	}
}

// A freezing is a store that stops to answer, so that its instance is cut off.
type freezing struct {
	rotation.Store
	frozen atomic.Bool
}

func (f *freezing) freeze() { f.frozen.Store(true) }

// Sync implements [rotation.Store].
func (f *freezing) Sync(ctx context.Context, instance string, requests []rotation.SyncRequest) []rotation.SyncReply {
	if !f.frozen.Load() {
		return f.Store.Sync(ctx, instance, requests)
	}
	replies := make([]rotation.SyncReply, len(requests))
	for i := range replies {
		replies[i].Err = errors.New("cut off")
	}
	return replies
}

// Load implements [rotation.Store].
func (f *freezing) Load(ctx context.Context, tenants []string) []rotation.Snapshot {
	if !f.frozen.Load() {
		return f.Store.Load(ctx, tenants)
	}
	all := make([]rotation.Snapshot, len(tenants))
	for i := range all {
		all[i].Err = errors.New("cut off")
	}
	return all
}

// removeOnce removes a field of the ring of the tenant default as soon as it is there.
func (c *ringCLI) removeOnce(field string) {
	client, err := rediskeys.Open(c.url)
	if err != nil {
		c.t.Error(err)
		return
	}
	defer client.Close()
	ring := fmt.Sprintf("kt:{%d}:ring:default", rotation.BucketOf("default"))
	for range 3000 {
		if n, err := client.HDel(c.t.Context(), ring, field).Result(); err != nil || n > 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
	c.t.Errorf("there never was %s", field)
}
