package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/verifier/revocations"
)

// asUser returns a patient whose command is the user U of Redis, with the rights that "keys acl" prints.
func asUser(t *testing.T, o redistest.Options, flags ...string) *patient {
	t.Helper()
	p := newPatient(t, o)
	r := keyturn(t, append([]string{"keys", "acl", "--user", "clerk"}, flags...)...).wantCode(t, exitYes, "printf", "ACL SETUSER clerk")
	if strings.Count(r.stdout, "\n") != 1 || strings.Contains(r.stdout, ">") {
		t.Fatalf("stdout = %s", r.stdout)
	}
	var line []any
	for word := range strings.FieldsSeq(r.stdout) {
		line = append(line, word)
	}
	p.do(line...)
	p.do("ACL", "SETUSER", "clerk", ">pw-hush")
	p.url = "redis://clerk:pw-hush@" + p.server.Addr()
	return p
}

// wantNoDenials checks that Redis noted no command that a user was not allowed to call.
func (p *patient) wantNoDenials(when string) {
	p.t.Helper()
	entries, err := p.server.Client().ACLLog(p.t.Context(), 100).Result()
	if err != nil {
		p.t.Fatal(err)
	}
	for _, e := range entries {
		p.t.Errorf("%s: Redis noted: %s %s", when, e.Reason, e.Object)
	}
	p.do("ACL", "LOG", "RESET")
}

// The user of the printed line runs every command, the server, a drill and the doctor, and Redis
// notes no denial.
func TestACLUserRunsEverything(t *testing.T) {
	p := asUser(t, durable())
	secret := file(t, testSecret)
	p.run("keys", "create", "--tenant", "acme", "--every", "1h", "--freshness", "6s", "--skew", "100ms").wantCode(t, exitYes)
	for end := time.Now().Add(time.Minute); p.run("keys", "rotate", "--tenant", "acme", "--force", "--no-wait").code != exitYes; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) { // a ring is left alone at first
			t.Fatal(p.run("keys", "rotate", "--tenant", "acme", "--force", "--no-wait"))
		}
	}
	for _, state := range []string{"retired"} {
		_, keys := p.list("--tenant", "acme")
		p.run("keys", "revoke", "--tenant", "acme", "--force", "--no-wait", "--", keys[state].KID).wantCode(t, exitYes)
	}
	p.run("keys", "accept", "--tenant", "acme", "--secret-file", secret, "--no-kid", "--until", tomorrow(), "--no-wait").wantCode(t, exitYes)
	p.run("keys", "import", "--tenant", "globex", "--secret-file", secret, "--no-kid", "--longest-token", "20h", "--hold", "--shared-secret", "--no-wait")
	backup := t.TempDir() + "/rings.ktb"
	p.run("keys", "backup", "--out", backup).wantCode(t, exitYes)
	p.run("keys", "list").wantCode(t, exitYes, "acme")
	p.run("keys", "log").wantCode(t, exitYes, "create")
	p.run("keys", "rekey", "--check").wantCode(t, exitYes)
	p.wantNoDenials("the commands")
	p.run("keys", "create", "--tenant", "initech").wantCode(t, exitYes)
	token := strings.TrimSpace(p.run("sign", "--tenant", "initech", "--claim", "sub=ann").wantCode(t, exitYes).stdout)
	p.run("verify", "--tenant", "initech", "--alg", "HS256", token).wantCode(t, exitYes)
	s := startServe(t, map[string]string{envKEK: p.kek}, "--redis", p.url, "--tenant", "initech")
	s.ask(t, "GET", "/api/x", token).wantOK(t, "initech", "ann", "/api/x")
	p.wantNoDenials("serve")
	l := p.listOfUser()
	p.run("revoke", "--tenant", "initech", "--subject", "ann", "--json", "--wait", "20s").wantCode(t, exitYes, `"applied":["instance"]`)
	p.run("revocations", "count").wantCode(t, exitYes, "1 revocation:")
	if l.Len() != 1 {
		t.Errorf("the list holds %d revocations", l.Len())
	}
	p.wantNoDenials("a list of revocations")
	p.doctor(exitYes).want("rights", "ok", "user clerk may call all")
	p.wantNoDenials("the doctor")
	p.run("drill", "outage", "--for", "1s", "--within", "20s", "--freshness", "6s").wantCode(t, exitYes, "canary removed")
	p.wantNoDenials("a drill")
	p.run("keys", "shred", "--tenant", "acme", "--confirm", "acme", "--no-wait")
	p.run("keys", "restore", "--dry-run", backup).wantCode(t, exitYes)
	p.wantNoDenials("shred and restore")
}

// listOfUser opens the list of revocations as an instance does, with the user of p.url.
func (p *patient) listOfUser() *revocations.List {
	p.t.Helper()
	client, err := rediskeys.Open(p.url)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { client.Close() })
	return listOn(p.t, client, "instance", p.kek)
}

// The reader signs, verifies and lists. What would change a ring is refused before anything was written.
func TestACLReader(t *testing.T) {
	p := asUser(t, durable(), "--role", "reader")
	reader := p.url
	p.url = "redis://" + p.server.Addr()
	p.run("keys", "create").wantCode(t, exitYes)
	before := p.contents()
	p.url = reader
	token := strings.TrimSpace(p.run("sign").wantCode(t, exitYes).stdout)
	p.run("verify", "--alg", "HS256", token).wantCode(t, exitYes)
	p.run("keys", "list").wantCode(t, exitYes)
	p.wantNoDenials("the reader")
	p.run("keys", "rotate", "--force", "--no-wait").wantCode(t, exitCannotTell, "may not do this")
	for key, value := range p.contents() {
		if !strings.HasSuffix(key, ":ack") && before[key] != value {
			t.Errorf("%s has changed", key)
		}
	}
}

// --check asks Redis, by ACL DRYRUN or by a script, and says which commands are missing.
func TestACLCheck(t *testing.T) {
	p := asUser(t, durable())
	check := func(user string, args ...string) result {
		return p.run(append([]string{"keys", "acl", "--user", user, "--check"}, args...)...)
	}
	check("clerk").wantCode(t, exitYes)
	check("clerk", "--role", "reader").wantCode(t, exitYes)
	check("other").wantCode(t, exitCannotTell, "clerk may not call ACL DRYRUN")
	p.wantNoDenials("--check")
	p.do("ACL", "SETUSER", "clerk", "-xadd", "-hdel")
	check("clerk").wantCode(t, exitNo, "may not call hdel, xadd")
	admin := "redis://" + p.server.Addr()
	p.url = admin
	r := check("clerk", "--json").wantCode(t, exitNo)
	var answer aclJSON
	if err := json.Unmarshal([]byte(r.stdout), &answer); err != nil || !slices.Equal(answer.Denied, []string{"hdel", "xadd"}) || len(answer.Sentinel) > 0 {
		t.Errorf("%s: %v", r.stdout, err)
	}
	p.do("ACL", "SETUSER", "clerk", "+xadd", "+hdel", "resetchannels")
	check("clerk").wantCode(t, exitNo, "may not call publish, subscribe")
	check("nobody").wantCode(t, exitCannotTell, "not found")
	p.url = "redis://127.0.0.1:1"
	check("clerk").wantCode(t, exitCannotTell, "cannot be reached")
}

func TestACLLine(t *testing.T) {
	acl := func(args ...string) result { return keyturn(t, append([]string{"keys", "acl"}, args...)...) }
	acl("--user", "u").wantCode(t, exitYes, "ACL SETUSER u on resetkeys resetchannels -@all ~kt:* &kt:* +eval ")
	acl("--user", "u", "--redis", "redis://h/3").wantCode(t, exitYes, "+select")
	acl("--user", "u", "--redis", "rediss-cluster://h").wantCode(t, exitYes, "+cluster|slots +asking")
	acl("--user", "u", "--redis", "redis-sentinel://h/m").wantCode(t, exitYes, "&+switch-master", "+sentinel|get-master-addr-by-name", "second line is for the Sentinels")
	if r := acl("--user", "u", "--role", "reader", "--json").wantCode(t, exitYes, `"role":"reader"`, `"sentinel":[]`, `"denied":[]`); strings.Contains(r.stdout, "+sadd") {
		t.Errorf("stdout = %s", r.stdout)
	}
	acl().wantUsage(t, "--user is missing")
	acl("--user", "u v").wantUsage(t, "--user: has a space")
	acl("--user", "u", "--role", "admin").wantUsage(t, "--role: want writer or reader")
	acl("--user", "u", "--check").wantUsage(t, "--check goes with --redis")
	acl("--user", "u", "--redis", "http://h").wantUsage(t, "want redis://")
}

// In a Cluster each primary is asked.
func TestACLCheckInCluster(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	c := redistest.RunCluster(t, redistest.Options{})
	url := "redis-cluster://" + strings.Join(c.Addrs(), ",")
	r := keyturn(t, "keys", "acl", "--user", "clerk", "--redis", url).wantCode(t, exitYes)
	for i, s := range c.Servers {
		var line []any
		for word := range strings.FieldsSeq(r.stdout) {
			line = append(line, word)
		}
		if i == 2 {
			line = append(line, "-time")
		}
		if err := s.Do(t.Context(), line...); err != nil {
			t.Fatal(err)
		}
	}
	begin := time.Now()
	keyturn(t, "keys", "acl", "--user", "clerk", "--redis", url, "--check").wantCode(t, exitNo, "may not call time")
	if d := time.Since(begin); d > 40*time.Second {
		t.Errorf("it took %v", d)
	}
}
