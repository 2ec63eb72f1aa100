package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
)

// An aclFleet is two servers and a person with a shell, on a Redis with Sentinels. All of them are the user
// of the lines that "keys acl" prints.
type aclFleet struct {
	*ringCLI
	three   *redistest.Sentinel
	servers []*served
	alive   []*redistest.Server // data servers and Sentinels

	rotated, revoked int
}

// soakFor returns how long a test goes on: a duration of the environment, or less.
func soakFor(t *testing.T, name string, short time.Duration) time.Duration {
	t.Helper()
	text, ok := os.LookupEnv(name)
	if !ok {
		return short
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return d
}

func newACLFleet(t *testing.T) *aclFleet {
	t.Helper()
	f := &aclFleet{ringCLI: newRingCLI(t, ""), three: redistest.RunSentinel(t, durable())}
	addrs := strings.Join(f.three.Addrs(), ",") + "/" + f.three.Name
	lines := strings.Split(strings.TrimSpace(keyturn(t, "keys", "acl", "--user", "clerk", "--redis", "redis-sentinel://"+addrs).wantCode(t, exitYes).stdout), "\n")
	if len(lines) != 2 {
		t.Fatalf("keys acl prints %q", lines)
	}
	for i, servers := range [][]*redistest.Server{{f.three.Primary, f.three.Replica}, f.three.Sentinels} {
		var line []any
		for word := range strings.FieldsSeq(lines[i]) {
			line = append(line, word)
		}
		for _, s := range servers {
			for _, command := range [][]any{line, {"ACL", "SETUSER", "clerk", ">pw-hush"}, {"ACL", "LOG", "RESET"}} {
				if err := s.Do(t.Context(), command...); err != nil {
					t.Fatal(err)
				}
			}
		}
		f.alive = append(f.alive, servers...)
	}
	f.url = "redis-sentinel://clerk:pw-hush@" + addrs + "?sentinel_username=clerk&sentinel_password=pw-hush"
	f.must(append([]string{"keys", "create", "--tenant", "acme"}, quickRing...)...)
	config := "rings: {redis: 'redis-sentinel://clerk@" + addrs + "?sentinel_username=clerk', redis_password_file: pw, sentinel_password_file: pw, kek_file: kek}\n" +
		"revocations: {max_token_ttl: 24h}\ntenants: [{id: acme, kind: ring, issuer: i, any_audience: true}]\n"
	for range 2 {
		f.servers = append(f.servers, startServe(t, nil, "--config", configFolder(t, config, map[string]string{"pw": "pw-hush", "kek": f.kek})))
	}
	return f
}

// must runs a command until it is done: after a failover it may take a while, and a ring is left alone at
// first.
func (f *aclFleet) must(args ...string) (r result) {
	f.t.Helper()
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		if r = f.run(args...); r.code == exitYes || time.Now().After(end) {
			return r.wantCode(f.t, exitYes)
		}
	}
}

// wantNoDenials checks that no server noted a command that a user was not allowed to call.
func (f *aclFleet) wantNoDenials(when string) {
	f.t.Helper()
	for _, s := range f.alive {
		entries, err := s.Client().ACLLog(f.t.Context(), 100).Result()
		if err != nil {
			f.t.Fatal(err)
		}
		for _, e := range entries {
			f.t.Errorf("%s: %s noted %d times: %s %s", when, s.Addr(), e.Count, e.Reason, e.Object)
		}
	}
}

// round does once what a fleet and its operators do. Names of the n-th round are its own.
func (f *aclFleet) round(n int) {
	f.t.Helper()
	own := fmt.Sprint("t", n)
	subject := "ann-" + own
	token := strings.TrimSpace(f.must("sign", "--tenant", "acme", "--iss", "i", "--claim", "sub="+subject).stdout)
	answers := func(status int) {
		f.t.Helper()
		for _, s := range f.servers {
			wait(f.t, func() bool { return s.ask(f.t, "GET", "/api/x", token).status == status })
		}
	}
	answers(http.StatusOK)
	if f.run("keys", "rotate", "--tenant", "acme", "--force", "--no-wait").code == exitYes {
		f.rotated++
	}
	time.Sleep(1100 * time.Millisecond) // a revocation of a subject counts for the whole second
	f.must("revoke", "--tenant", "acme", "--subject", subject, "--wait", "20s")
	answers(http.StatusUnauthorized)
	if _, keys := f.list("--tenant", "acme"); keys["retired"].KID != "" {
		if f.run("keys", "revoke", "--tenant", "acme", "--force", "--no-wait", "--", keys["retired"].KID).code == exitYes {
			f.revoked++
		}
	}
	secret := file(f.t, testSecret+own)
	f.must("keys", "import", "--tenant", own, "--secret-file", secret, "--no-kid", "--longest-token", "20h", "--hold", "--no-wait")
	f.must("keys", "accept", "--tenant", "acme", "--secret-file", secret, "--kid", own, "--until", tomorrow(), "--no-wait")
	f.must("keys", "create", "--tenant", own+"-new")
	f.run("keys", "policy", "--tenant", "acme", "--every", fmt.Sprintf("%dh", 24+n), "--no-wait") // refused for a while after a rotation
	f.must("keys", "list")
	f.must("keys", "log")
	f.must("keys", "rekey", "--check")
	f.must("keys", "backup", "--out", f.t.TempDir()+"/rings.ktb")
	f.must("verify", "--tenant", own, "--alg", "HS256", strings.TrimSpace(f.must("sign", "--tenant", own).stdout))
	f.must("revocations", "list")
	f.must("revocations", "count")
	f.run("doctor") // which may find fault with servers of a test
	f.must("keys", "shred", "--tenant", own, "--confirm", own, "--no-wait")
}

// A fleet and its operators do everything for a minute (KEYTURN_ACL_FOR; a few seconds unless make soak
// runs it), with a failover in the middle, and no server denies a command.
func TestACLFleet(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	f := newACLFleet(t)
	half := soakFor(t, "KEYTURN_ACL_FOR", 0) / 2
	rounds := 0
	goOn := func(until time.Time) {
		for first := true; first || time.Now().Before(until); first = false {
			f.round(rounds)
			rounds++
		}
	}
	goOn(time.Now().Add(half))
	f.wantNoDenials("before the failover")
	if err := f.three.Settled(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.three.Primary.Kill()
	if err := f.three.Failover(); err != nil {
		t.Fatal(err)
	}
	f.alive = f.alive[1:]
	goOn(time.Now().Add(half))
	for _, s := range f.servers {
		wait(t, func() bool { _, all, _ := s.readiness(t); return all == stateReady })
	}
	f.wantNoDenials("after the failover")
	if f.rotated == 0 || half > 10*time.Second && f.revoked == 0 {
		t.Errorf("in %d rounds %d keys were rotated and %d revoked", rounds, f.rotated, f.revoked)
	}
	t.Logf("%d rounds, %d rotations, %d revocations of keys", rounds, f.rotated, f.revoked)
}
