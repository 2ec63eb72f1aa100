package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
)

func TestSignVerifyRing(t *testing.T) {
	t.Parallel()
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		for _, alg := range []string{"HS256", "ES256", "EdDSA"} {
			c.run("keys", "create", "--tenant", alg, "--alg", alg, "--max-ttl", "10m").wantCode(t, exitYes)
			_, keys := c.list("--tenant", alg)
			r := c.run("sign", "--tenant", alg, "--claim", "sub=ann", "--iss", "i", "--aud", "a").wantCode(t, exitYes)
			token := strings.TrimSuffix(r.stdout, "\n")
			if strings.Count(token, ".") != 2 || r.stderr != "" {
				t.Errorf("sign = %q, %q", r.stdout, r.stderr)
			}
			v := c.run("verify", "--tenant", alg, "--alg", alg, "--iss", "i", "--aud", "a", "--json", token).wantCode(t, exitYes)
			var got struct {
				OK          bool
				Tenant, KID string
				Claims      struct{ Iat, Exp int64 }
			}
			if json.Unmarshal([]byte(v.stdout), &got) != nil || !got.OK || got.Tenant != alg || got.KID != keys["signing"].KID || got.Claims.Exp-got.Claims.Iat != 600 {
				t.Errorf("verify = %s", v.stdout)
			}
			c.run("sign", "--tenant", alg, "--ttl", "10m1s").wantCode(t, exitNo, "MaxTokenTTL", "--ttl")
			c.run("sign", "--tenant", alg, "--claim", "exp=1").wantCode(t, exitUsage)
			// The ring of another tenant, or one that has revoked the key.
			c.run("keys", "revoke", "--tenant", alg, "--force", "--no-wait", "--", keys["signing"].KID).wantCode(t, exitYes)
			c.run("verify", "--tenant", alg, "--alg", alg, "--json", token).wantCode(t, exitNo, `"reason":"revoked_key"`)
		}
		c.run("keys", "create").wantCode(t, exitYes)
		_, keys := c.list()
		unknown := hs256(testSecret, `{"alg":"HS256","kid":"nobody"}`, in(time.Hour, ""))
		c.run("verify", "--alg", "HS256", "--json", unknown).wantCode(t, exitNo, `"reason":"unknown_key"`)
		forged := hs256(testSecret, `{"alg":"HS256","kid":"`+keys["signing"].KID+`"}`, in(time.Hour, ""))
		c.run("verify", "--alg", "HS256", "--json", forged).wantCode(t, exitNo, `"reason":"signature"`)
		c.run("verify", "--alg", "ES256", "--json", forged).wantCode(t, exitNo, `"reason":"algorithm"`)
		c.run("verify", "--alg", "HS256", "--leeway", "1m", forged).wantCode(t, exitUsage, "leeway")
	})
}

func TestRingExitCodes(t *testing.T) {
	c := oldRing(t)
	token := strings.TrimSpace(c.run("sign").wantCode(t, exitYes).stdout)

	// Exit code 1: the tenant has no ring. verify cannot tell, since Redis may have lost it.
	c.run("keys", "list", "--tenant", "nobody").wantCode(t, exitNo, `tenant "nobody" has no ring`)
	c.run("keys", "rotate", "--tenant", "nobody").wantCode(t, exitNo, `tenant "nobody" has no ring`)
	c.run("sign", "--tenant", "nobody").wantCode(t, exitNo, `tenant "nobody" has no ring`)
	c.run("verify", "--alg", "HS256", "--tenant", "nobody", "--json", token).wantCode(t, exitCannotTell, `"reason":"unavailable"`, "no ring")

	// Exit code 3: the KEK is wrong. The error names it, and nothing is changed.
	right := c.kek
	c.kek = newKEK()
	for _, args := range [][]string{
		{"keys", "list"}, {"keys", "create"}, {"keys", "rotate", "--force"}, {"keys", "revoke", "x"}, {"sign"}, {"verify", "--alg", "HS256", token},
	} {
		r := c.run(args...).wantCode(t, exitCannotTell, "wrong KEK", "--kek-file, KEYTURN_KEK_FILE or KEYTURN_KEK")
		if strings.Contains(r.stderr, c.kek) || strings.Contains(r.stderr, right) {
			t.Error("a KEK is printed")
		}
	}
	c.kek = right
	c.wantStates("signing", "pending")

	// Exit code 3: Redis cannot be reached.
	c.url = "redis://127.0.0.1:1"
	c.run("keys", "create").wantCode(t, exitCannotTell, "keyturn: Redis cannot be reached: check its address and that it runs (dial tcp 127.0.0.1:1: ")
	c.run("verify", "--alg", "HS256", "--json", token).wantCode(t, exitCannotTell, `{"ok":false,"reason":"unavailable",`)
}

// A Redis that accepts connections and never answers does not block the command.
func TestRingHangs(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := newRingCLI(t, l.Addr().String())
	for _, args := range [][]string{{"keys", "list"}, {"verify", "--alg", "HS256", "x.y.z"}, {"serve", "--addr", "127.0.0.1:0"}} {
		begin := time.Now()
		c.run(args...).wantCode(t, exitCannotTell, "did not answer in time")
		if d := time.Since(begin); d > ringTime {
			t.Errorf("%q took %v", args, d)
		}
	}
}

// A Redis on a busy machine may answer a read too late: a call has one second. The command asks again.
func TestRingAnswersLate(t *testing.T) {
	t.Parallel()
	redistest.Need(t)
	s := redistest.Run(t, redistest.Options{})
	c := newRingCLI(t, s.Addr())
	c.run("keys", "create").wantCode(t, exitYes)
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	resumed := make(chan error)
	time.AfterFunc(1500*time.Millisecond, func() { resumed <- s.Resume() })
	c.run("sign").wantCode(t, exitYes)
	if err := <-resumed; err != nil {
		t.Fatal(err)
	}
}

func TestRingUsage(t *testing.T) {
	kek := file(t, newKEK())
	url := "redis://127.0.0.1:1"
	keyturn(t, "keys").wantUsage(t, "create, list, log, rotate, promote, revoke or rekey")
	keyturn(t, "keys", "lst").wantUsage(t, `did you mean "list"?`)
	keyturn(t, "keys", "list").wantUsage(t, "--redis is missing")
	keyturn(t, "keys", "list", "--redis", url).wantUsage(t, "no KEK", "--kek-file", envKEK)
	keyturn(t, "keys", "list", "--redis", url, "--kek-file", file(t, testSecret)).wantUsage(t, "--kek-file", "line 1", "32 bytes")
	call{env: map[string]string{envKEK: testSecret}}.run(t, "keys", "list", "--redis", url).wantUsage(t, "KEYTURN_KEK", "32 bytes")
	keyturn(t, "keys", "list", "--redis", "http://hush", "--kek-file", kek).wantUsage(t, "want redis://")
	keyturn(t, "keys", "list", "--redis", url, "--kek-file", kek, "kid").wantUsage(t, "only promote, revoke and replace take a KID")
	keyturn(t, "keys", "revoke", "--redis", url, "--kek-file", kek).wantUsage(t, "give a KID")
	keyturn(t, "keys", "revoke", "--redis", url, hs256(testSecret, plainHeader, `{"sub":"hush"}`)).wantUsage(t, "looks like a token")
	keyturn(t, "keys", "revoke", "--redis", url, "-Abc").wantUsage(t, "as does a KID")
	keyturn(t, "keys", "list", "--redis", url, "--tenant", strings.Repeat("x", 257)).wantUsage(t, "--tenant: has 257 bytes")
	keyturn(t, "keys", "create", "--redis", url, "--kek-file", kek, "--every", "soon").wantUsage(t, "--every: want a duration such as 30d")
	keyturn(t, "keys", "create", "--redis", url, "--kek-file", kek, "--skew", "20s").wantUsage(t, "--leeway >= 2 --skew", "30s is less than 40s")
	keyturn(t, "keys", "create", "--redis", url, "--kek-file", kek, "--alg", "none").wantUsage(t, "not an algorithm")
	keyturn(t, "sign", "--redis", url, "--kid", "x").wantUsage(t, "--kid goes with a secret")
	keyturn(t, "sign", "--kek-file", kek).wantUsage(t, "--kek-file goes with --redis")
	keyturn(t, "verify", "--alg", "HS256", "--redis", url, "--jwks", kek, "t").wantUsage(t, "give one of them")
	keyturn(t, "verify", "--alg", "HS256", "--kek-file", kek, "t").wantUsage(t, "--kek-file goes with --redis")
	keyturn(t, "serve", "--tenant", "acme").wantUsage(t, "--tenant goes with --redis")
	keyturn(t, "serve", "--every", "7d").wantUsage(t, "--every goes with --redis")
	keyturn(t, "serve", "--redis", url, "--kek-file", kek, "--every", "7d").wantUsage(t, "--bootstrap")
	keyturn(t, "serve", "--redis", url, "--tenant", "a", "--tenant", "a").wantUsage(t, "given twice")
	keyturn(t, "serve", "--redis", url, "--tenant", "a", "--tenant", "b", "--iss", "x").wantUsage(t, "{tenant}")
	keyturn(t, "serve", "--redis", url, "--allow-no-exp").wantUsage(t, "--allow-no-exp goes with a secret")
}

// The password of Redis can come from the environment, where other users cannot read it.
func TestRedisPassword(t *testing.T) {
	for url, want := range map[string]string{
		"redis://h:1/2":             "redis://:p%2F%40w@h:1/2",
		"redis://ann@h":             "redis://ann:p%2F%40w@h",
		"redis-cluster://a,b?x=y":   "redis-cluster://:p%2F%40w@a,b?x=y",
		"redis-sentinel://u@a,b/n/": "redis-sentinel://u:p%2F%40w@a,b/n/",
		"nonsense":                  "nonsense",
	} {
		if got, err := withLogin(url, "", "p/@w"); err != nil || got != want {
			t.Errorf("withLogin(%s) = %s, %v, want %s", url, got, err, want)
		}
	}
	for url, want := range map[string]string{
		"redis://h": "redis://an%40n@h", "redis://an%40n:p@h": "redis://an%40n:p@h", "redis://bob@h": "", "unix:///s?db=1": "unix://an%40n@/s?db=1",
	} {
		if got, err := withLogin(url, "an@n", ""); (err == nil) != (want != "") || got != want {
			t.Errorf("withLogin(%s) = %s, %v, want %s", url, got, err, want)
		}
	}
	m := miniredis.RunT(t)
	m.RequireAuth("hush/@:hush")
	env := map[string]string{envKEK: newKEK(), envRedisPassword: "hush/@:hush"}
	call{env: env}.run(t, "keys", "create", "--redis", "redis://"+m.Addr()).wantCode(t, exitYes)
	call{env: env}.run(t, "keys", "list", "--redis", "redis://u:p@"+m.Addr()).wantUsage(t, "give one")
	env[envRedisPassword] = "wrong-hush"
	r := call{env: env}.run(t, "keys", "list", "--redis", "redis://"+m.Addr()).wantCode(t, exitCannotTell, "does not accept the user or the password")
	if strings.Contains(r.stderr, "hush") {
		t.Errorf("stderr = %s", r.stderr)
	}
}

// The built command on a real Redis: a rotation succeeds as soon as it may, and a second is refused.
func TestRingProcess(t *testing.T) {
	t.Parallel()
	redistest.Need(t)
	s := redistest.Run(t, redistest.Options{})
	kek := newKEK()
	keyturn := func(stdin string, args ...string) result {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), builtBinary(t), args...)
		cmd.Env = cleanEnv(envKEK + "=" + kek)
		cmd.Stdin = strings.NewReader(stdin)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		cmd.Run()
		return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
	}
	at := []string{"--redis", "redis://" + s.Addr(), "--tenant", "acme"}
	with := func(args ...string) []string { return append(args, at...) }
	keyturn("", with("keys", "create", "--freshness", "6s", "--skew", "200ms", "--dwell", "1s")...).wantCode(t, exitYes)
	old := keyturn("", with("sign", "--claim", "sub=ann")...).wantCode(t, exitYes).stdout
	r := keyturn("", with("keys", "rotate")...).wantCode(t, exitNo, "it may be from ")
	for end := time.Now().Add(time.Minute); r.code == exitNo && time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		r = keyturn("", with("keys", "rotate")...)
	}
	r.wantCode(t, exitYes, "signs now")
	keyturn("", with("keys", "rotate")...).wantCode(t, exitNo, "it may be from ")
	turned := keyturn("", with("sign", "--claim", "sub=ann")...).wantCode(t, exitYes).stdout
	for _, token := range []string{old, turned} {
		keyturn(token, append(with("verify", "--alg", "HS256", "--json"), "-")...).wantCode(t, exitYes, `{"ok":true,"tenant":"acme"`)
	}
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	keyturn(turned, append(with("verify", "--alg", "HS256", "--json"), "-")...).wantCode(t, exitCannotTell, `"reason":"unavailable"`)
	if d := time.Since(begin); d > ringTime {
		t.Errorf("with a Redis that hangs: %v", d)
	}
}

// A part of a ring that cannot be opened may be a revocation, so that the rest is not an answer.
func TestKeysGarbledRing(t *testing.T) {
	m := miniredis.RunT(t)
	c := newRingCLI(t, m.Addr())
	c.run("keys", "create").wantCode(t, exitYes)
	keys := c.wantStates("signing", "pending")
	ring := fmt.Sprintf("kt:{%d}:ring:default", rotation.BucketOf("default"))
	m.HSet(ring, "x:"+keys["pending"].KID, "rubbish")
	c.run("keys", "list", "--tenant", "default").wantCode(t, exitCannotTell, "NOT THE WHOLE RING", "pending  ")
	c.run("keys", "list", "--tenant", "default", "--json").wantCode(t, exitCannotTell, "NOT THE WHOLE RING")
	c.run("sign").wantCode(t, exitCannotTell, "malformed")
	c.run("keys", "rotate", "--force").wantCode(t, exitCannotTell, "malformed")
	m.HDel(ring, "x:"+keys["pending"].KID)
	c.run("sign").wantCode(t, exitYes)
}
