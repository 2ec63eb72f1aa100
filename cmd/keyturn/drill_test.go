package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/drill"
	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
)

// drilled is what "keyturn drill --json" printed.
type drilled struct {
	Drill, Tenant string
	BeganAt       *time.Time `json:"began_at"`
	Result        drill.Result
	Steps         []drill.Line
	Removed       bool
}

// drill runs a drill with a quick policy.
func (c *ringCLI) drill(code int, kind string, flags ...string) (d drilled) {
	c.t.Helper()
	args := append([]string{"drill", kind, "--json"}, flags...)
	if !slices.Contains(flags, "--freshness") {
		args = append(args, "--freshness", "9s")
	}
	if kind == drillOutage {
		args = append(args, "--for", "1s")
	}
	r := c.runDrill(c.t.Context(), args...).wantCode(c.t, code)
	dec := json.NewDecoder(strings.NewReader(r.stdout))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil || strings.Count(r.stdout, "\n") != 1 || d.Drill != kind || d.BeganAt == nil {
		c.t.Fatalf("drill %s --json = %s, %v", kind, r.stdout, err)
	}
	if want := map[int]drill.Result{exitYes: drill.OK, exitNo: drill.Exceeded, exitCannotTell: drill.Unknown}[code]; d.Result != want {
		c.t.Errorf("result = %s, want %s", d.Result, want)
	}
	return d
}

// runDrill is run with a context.
func (c *ringCLI) runDrill(ctx context.Context, args ...string) result {
	var stdout, stderr bytes.Buffer
	w := &app{stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr, now: time.Now}
	w.env = func(name string) (string, bool) {
		v, ok := map[string]string{envKEK: c.kek, envRedis: c.url}[name]
		return v, ok
	}
	code := w.run(ctx, args)
	c.said.WriteString(stdout.String() + stderr.String())
	return result{code, stdout.String(), stderr.String()}
}

// step returns the line of a step, of an instance or of none.
func (d drilled) step(t *testing.T, step, instance string) drill.Line {
	t.Helper()
	for _, l := range d.Steps {
		if l.Step == step && (l.Instance == nil && instance == "" || l.Instance != nil && *l.Instance == instance) {
			return l
		}
	}
	t.Fatalf("no step %q of %q in %+v", step, instance, d.Steps)
	return drill.Line{}
}

// want checks the result of a step, and that its words hold the phrases.
func (d drilled) want(t *testing.T, r drill.Result, step, instance string, phrases ...string) {
	t.Helper()
	l := d.step(t, step, instance)
	text := l.Found
	if l.Do != nil {
		text += " -> " + *l.Do
	}
	missing := slices.ContainsFunc(phrases, func(p string) bool { return !strings.Contains(text, p) })
	if l.Result != r || missing {
		t.Errorf("%s of %q = %s: %s; want %s with %q", step, instance, l.Result, text, r, phrases)
	}
}

// wantGone checks that no key is left of a canary, and that no instance puts one back.
func (c *ringCLI) wantGone() {
	c.t.Helper()
	_, by := c.run("keys", "list", "--json").wantCode(c.t, exitYes).rings(c.t)
	if r := by["canary"]; r.State != stateDestroyed || r.Keys != 0 {
		c.t.Errorf("the canary is %+v", r)
	}
}

func newDrilled(t *testing.T) *patient {
	t.Helper()
	redistest.Need(t)
	s := redistest.Run(t, durable())
	return &patient{newRingCLI(t, s.Addr()), s}
}

// easy is a bound that a busy machine keeps.
var easy = []string{"--within", "20s"}

func TestDrillRotate(t *testing.T) {
	t.Parallel()
	c := newDrilled(t)
	c.run("keys", "create", "--tenant", "acme").wantCode(t, exitYes)
	c.peer("lists-acme", c.kek, "acme")
	c.peer("holds-all", c.kek)
	d := c.drill(exitYes, drillRotate, easy...)
	d.want(t, drill.OK, "ring made", "holds-all", "applied")
	d.want(t, drill.OK, "rotated", "holds-all", "applied")
	d.want(t, drill.OK, "old token verified", "")
	d.want(t, drill.OK, "new token verified", "")
	d.want(t, drill.Info, "instances", "lists-acme", "does not hold the canary")
	if l := d.step(t, "rotated", "holds-all"); l.Took == nil || *l.Took > 20 || l.Bound == nil || *l.Bound != 20 {
		t.Errorf("rotated: %+v", l)
	}
	c.wantGone()
	again := c.drill(exitYes, drillRestore, easy...) // with a holder of the ring of before
	again.want(t, drill.OK, "ring made", "holds-all", "applied")
	again.want(t, drill.OK, "ring put back", "")
	c.wantGone()
	c.run("keys", "list", "--tenant", "acme").wantCode(t, exitYes)
	// Without a live instance nothing can be told.
	alone := newDrilled(t)
	alone.drill(exitCannotTell, drillRotate, easy...).want(t, drill.Unknown, "instances", "", "no live instance holds the canary", "Config.Tenants")
	alone.wantGone()
}

// On a busy machine a bucket may not be read in time. It is read again: an instance that lives there alone
// was left out before, without a word. What cannot be read at all is counted.
func TestDrillReadsLateBucketsAgain(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex // guards reads
	reads := make(map[string]int)
	lost := rotation.BucketOf("lost")
	all, unread := elsewhere(t.Context(), func(_ context.Context, tenant string) ([]string, error) {
		mu.Lock()
		defer mu.Unlock()
		reads[tenant]++
		bucket := rotation.BucketOf(tenant)
		switch {
		case bucket == lost:
			return nil, context.DeadlineExceeded
		case bucket%64 == 1 && reads[tenant] < 3:
			return nil, context.DeadlineExceeded
		}
		return []string{fmt.Sprint("lives-in-", bucket)}, nil
	})
	if unread != 1 || len(all) != rotation.Buckets-1 {
		t.Errorf("%d instances were found and %d buckets not read, want %d and 1", len(all), unread, rotation.Buckets-1)
	}
}

func TestDrillRevoke(t *testing.T) {
	t.Parallel()
	c := newDrilled(t)
	c.peer("holds-all", c.kek)
	d := c.drill(exitYes, drillRevoke, easy...)
	d.want(t, drill.OK, "revoked", "holds-all", "applied")
	d.want(t, drill.OK, "revoked token refused", "")
	d.want(t, drill.OK, "new token verified", "")
	d.want(t, drill.Info, "worst case", "", "until 20")
}

func TestDrillOutage(t *testing.T) {
	t.Parallel()
	c := newDrilled(t)
	d := c.drill(exitYes, drillOutage, easy...)
	for _, step := range []string{"signed while away", "verified while away", "change heard of", "in sync again", "token verified", "canary removed"} {
		d.want(t, drill.OK, step, "")
	}
	d.want(t, drill.Info, "link cut", "", "the drill's own instance drill-")
	c.wantGone()
	if r := c.runDrill(t.Context(), "drill", "outage", "--for", "1s", "--within", "20s", "--freshness", "6s").wantCode(t, exitYes, "link cut", "canary removed"); strings.Contains(r.stdout, "\x1b") {
		t.Errorf("stdout = %q", r.stdout)
	}
}

func TestDrillRestore(t *testing.T) {
	t.Parallel()
	c := newDrilled(t)
	d := c.drill(exitYes, drillRestore, easy...)
	d.want(t, drill.OK, "ring put back", "", "all keys")
	d.want(t, drill.OK, "verified meanwhile", "")
	d.want(t, drill.Info, "put back by", "", "the drill's own instance")
	c.wantGone()
}

// A tenant that no drill made is refused, and left alone. What a drill that was killed has left is
// removed, and a drill that runs is not disturbed.
func TestDrillTenant(t *testing.T) {
	t.Parallel()
	c := newDrilled(t)
	c.run("keys", "create", "--tenant", "acme").wantCode(t, exitYes)
	before := c.contents()
	r := c.runDrill(t.Context(), "drill", "restore", "--tenant", "acme", "--json").wantCode(t, exitNo, "no drill made it", `"ok":false`)
	if after := c.contents(); len(after) != len(before) || after[ringKey("acme")] != before[ringKey("acme")] || strings.Count(r.stdout, "\n") != 1 {
		t.Errorf("the ring of acme has changed, or stdout = %s", r.stdout)
	}
	c.run("keys", "create", "--tenant", "canary", "--every", canaryEvery.String()).wantCode(t, exitYes)
	c.drill(exitYes, drillRestore, easy...)
	c.wantGone()

	c.run("keys", "create", "--tenant", "globex").wantCode(t, exitYes)
	rotator, err := rotation.NewRotator(c.peer("a-person", c.kek, "globex"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rotator.Destroy(t.Context(), "globex"); err != nil {
		t.Fatal(err)
	}
	c.runDrill(t.Context(), "drill", "restore", "--tenant", "globex").wantCode(t, exitNo, "was destroyed", "does not say that a drill did it")

	c.peer(drillPrefix+"other", c.kek, "canary")
	c.runDrill(t.Context(), "drill", "restore").wantCode(t, exitNo, "another drill works on tenant")
	c.run("keys", "list", "--tenant", "acme").wantCode(t, exitYes)
	own := c.kek
	c.kek = newKEK()
	c.runDrill(t.Context(), "drill", "restore", "--tenant", "acme").wantCode(t, exitCannotTell, "wrong KEK")
	c.kek = own
	c.server.Kill()
	c.runDrill(t.Context(), "drill", "restore").wantCode(t, exitCannotTell, "cannot be reached")
	keyturn(t, "drill").wantUsage(t, "rotate, revoke, outage or restore")
	keyturn(t, "drill", "rotatte").wantUsage(t, `did you mean "rotate"`)
	keyturn(t, "drill", "rotate", "acme").wantUsage(t, "--tenant")
	keyturn(t, "drill", "rotate", "--redis", c.url, "--freshness", "1ms").wantUsage(t, "--freshness", "at least 1s")
}

// Ctrl-C removes the canary.
func TestDrillInterrupted(t *testing.T) {
	t.Parallel()
	c := newDrilled(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan result)
	go func() { done <- c.runDrill(ctx, "drill", "rotate", "--json") }()
	wait(t, func() bool { return c.server.Client().Exists(t.Context(), ringKey("canary")).Val() == 1 })
	cancel()
	r := <-done
	r.wantCode(t, exitCannotTell, `"removed":true`, "interrupted")
	c.wantGone()
	if n := c.server.Client().HLen(t.Context(), "kt:{89}:ack").Val(); n != 0 {
		t.Errorf("%d acknowledgements are left", n)
	}
}

// A peer that hears nothing by pub/sub applies changes with its polls. If no instance hears, pub/sub is
// at fault.
func TestDrillFindsLostPubSub(t *testing.T) {
	t.Parallel()
	c := newDrilled(t)
	c.do("ACL", "SETUSER", "deaf", "on", "nopass", "allkeys", "allcommands", "-subscribe", "resetchannels")
	deaf := *c.ringCLI
	deaf.url = "redis://deaf:x@" + c.server.Addr()
	deaf.peerAt("deaf", 500*time.Millisecond, 2*time.Second)
	d := c.drill(exitNo, drillRestore, "--within", "300ms", "--freshness", "9s", "--wait", "30s")
	d.want(t, drill.Exceeded, "ring made", "deaf", "applied, slowly", "cannot be listened to")
	d.want(t, drill.Exceeded, "ring made: pub/sub", "", "none of the 1 instance", "SUBSCRIBE")
}

// An instance on a slow link is named, and the others are not.
func TestDrillFindsSlowInstance(t *testing.T) {
	t.Parallel()
	c := newDrilled(t)
	proxy := redistest.RunProxy(t, c.server.Addr())
	slow := *c.ringCLI
	slow.url = "redis://" + proxy.Addr()
	slow.peerAt("slow", 400*time.Millisecond, 2500*time.Millisecond)
	c.peer("quick", c.kek)
	proxy.Delay(300 * time.Millisecond)
	d := c.drill(exitNo, drillRestore, "--within", "500ms", "--freshness", "9s", "--wait", "30s")
	d.want(t, drill.Exceeded, "ring made", "slow", "slowly")
	if quick := d.step(t, "ring made", "quick"); quick.Result == drill.OK && slices.ContainsFunc(d.Steps, func(l drill.Line) bool { return l.Step == "ring made: pub/sub" }) {
		t.Errorf("steps = %+v", d.Steps)
	}
}

// A live instance that does not say that it applied a change is named, with how long the drill waited.
func TestDrillFindsMissingAck(t *testing.T) {
	t.Parallel()
	c := newDrilled(t)
	c.freezableOf("stuck").freeze() // it holds all rings, and acknowledged a moment ago
	d := c.drill(exitNo, drillRestore, "--within", "500ms", "--wait", "1s")
	d.want(t, drill.Exceeded, "ring made", "stuck", "NOT applied it after", "its log")
}

// An instance with another KEK cannot be read: nothing can be told of it.
func TestDrillUnreadInstance(t *testing.T) {
	t.Parallel()
	c := newDrilled(t)
	both := newKEK() + "\n" + c.kek
	c.peer("other-kek", both)
	r := c.runDrill(t.Context(), "drill", "restore", "--json", "--freshness", "6s")
	r.wantCode(t, exitNo, "other-kek")
}

// peerAt is peer for an instance that holds all rings, with those times.
func (c *ringCLI) peerAt(name string, poll, deadline time.Duration, verifies ...keystore.Algorithm) {
	c.t.Helper()
	s, err := openStore(c.url, rediskeys.Options{})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { s.close() })
	keks, err := rotation.ParseKEKs([]byte(c.kek))
	if err != nil {
		c.t.Fatal(err)
	}
	k, err := rotation.Open(c.t.Context(), s, rotation.Config{KEKs: keks, Instance: name, TrustFirstRead: true, StoreMayBeAway: true, Poll: poll, Deadline: deadline, Verifies: verifies})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { k.Close(context.WithoutCancel(c.t.Context())) })
	c.awaitAcks(s, name)
}

// The link carries the connections to each server of a Cluster, and to a primary that Sentinels name.
func TestDrillOutageTopologies(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	cluster := redistest.RunCluster(t, durable())
	sentinel := redistest.RunSentinel(t, durable())
	urls := []string{"redis-cluster://" + strings.Join(cluster.Addrs(), ","), "redis-sentinel://" + strings.Join(sentinel.Addrs(), ",") + "/" + sentinel.Name}
	for _, url := range urls {
		c := newRingCLI(t, "")
		c.url = url
		d := c.drill(exitYes, drillOutage, easy...)
		for _, step := range []string{"signed while away", "change heard of", "in sync again"} {
			d.want(t, drill.OK, step, "")
		}
	}
}
