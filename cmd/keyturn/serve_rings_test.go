package main

import (
	"context"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
)

func TestServeOnRedis(t *testing.T) {
	t.Parallel()
	redistest.Need(t)
	redis := redistest.Run(t, redistest.Options{})
	c := newRingCLI(t, redis.Addr())
	quick := []string{"--freshness", "6s", "--skew", "500ms", "--dwell", "1s"} // polls after 1.5s: ready in four seconds
	c.run(append([]string{"keys", "create", "--tenant", "acme"}, quick...)...).wantCode(t, exitYes)
	c.run(append([]string{"keys", "create", "--tenant", "globex", "--alg", "ES256"}, quick...)...).wantCode(t, exitYes)
	s := startServe(t, map[string]string{envKEK: c.kek, envSecret: testSecret}, "--redis", c.url,
		"--tenant", "acme", "--tenant", "globex", "--iss", "https://{tenant}.example")
	wait(t, func() bool { return strings.Contains(s.log.String(), "ready: all rings are in step") })
	if status, all, each := s.readiness(t); status != http.StatusOK || all != "ready" || each["globex"].Status != "ready" {
		t.Errorf("/readyz = %d %s %v", status, all, each)
	}
	sign := func(tenant, iss string) string {
		t.Helper()
		return strings.TrimSpace(c.run("sign", "--tenant", tenant, "--claim", "sub=ann", "--iss", iss).wantCode(t, exitYes).stdout)
	}
	if a := s.ask(t, "GET", "/globex"+discoveryPath, ""); a.status != http.StatusOK || !strings.HasPrefix(a.body, `{"issuer":"https://globex.example","jwks_uri":"https://globex.example/.well-known/jwks.json",`) {
		t.Errorf("metadata of globex: %d %s", a.status, a.body)
	}
	acme := sign("acme", "https://acme.example")
	s.ask(t, "GET", "/api/x", acme).wantOK(t, "acme", "ann", "/api/x")
	s.ask(t, "GET", "/api/x", sign("globex", "https://globex.example")).wantOK(t, "globex", "ann", "/api/x")
	s.ask(t, "GET", "/api/x", sign("globex", "https://acme.example")).wantRefused(t)
	s.ask(t, "GET", "/api/x", sign("acme", "https://other.example")).wantRefused(t)
	s.ask(t, "GET", "/api/x", hs256(testSecret, plainHeader, in(time.Hour, ""))).wantRefused(t)
	if !strings.Contains(s.log.String(), "KEYTURN_SECRET is not used") || !strings.Contains(s.log.String(), "aud is not checked") {
		t.Errorf("log = %s", s.log)
	}

	// The server rejects tokens of a revoked key, and has applied the change.
	_, keys := c.list("--tenant", "acme")
	r := c.run("keys", "revoke", "--tenant", "acme", "--force", "--json", "--", keys["signing"].KID).wantCode(t, exitYes)
	if strings.Count(r.stdout, `"applied":true`) != 1 {
		t.Errorf("receipt = %s; stderr = %s", r.stdout, r.stderr)
	}
	s.ask(t, "GET", "/api/x", acme).wantRefused(t)

	// Without Redis the server is degraded, and can verify for longer than this test.
	if err := redis.Pause(); err != nil {
		t.Fatal(err)
	}
	wait(t, func() bool { _, all, _ := s.readiness(t); return all == "degraded" })
	if err := redis.Resume(); err != nil {
		t.Fatal(err)
	}
	if code := s.stop(); code != exitYes {
		t.Errorf("exit code = %d", code)
	}
	if out := s.log.String() + s.out.String(); strings.Contains(out, c.kek) || strings.Contains(out, acme[:60]) {
		t.Error("the KEK or a token is in the output")
	}
}

// Without --bootstrap the server waits for a missing ring, and does not make it.
func TestServeWithoutRing(t *testing.T) {
	c := newRingCLI(t, redisAddr(t))
	s := startServe(t, map[string]string{envKEK: c.kek}, "--redis", c.url)
	status, all, each := s.readiness(t)
	if status != http.StatusServiceUnavailable || all != "not ready" || each["default"].Reason == "" {
		t.Errorf("/readyz = %d %s %v", status, all, each)
	}
	if a := s.ask(t, "GET", "/api/x", hs256(testSecret, `{"alg":"HS256","kid":"x"}`, in(time.Hour, ""))); a.status != http.StatusServiceUnavailable {
		t.Errorf("a token: %d %s", a.status, a.body)
	}
	if a := s.ask(t, "GET", "/.well-known/jwks.json", ""); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
		t.Errorf("the JWK Set: %d %s", a.status, a.body)
	}
	c.run("keys", "list", "--tenant", "default").wantCode(t, exitNo)
	if a := s.ask(t, "GET", "/healthz", ""); a.status != http.StatusOK {
		t.Errorf("/healthz = %d", a.status)
	}
}

// The commands that serve prints make tokens that it accepts. They show no password.
func TestServePrintsHowToSign(t *testing.T) {
	t.Parallel()
	redistest.Need(t)
	c := newRingCLI(t, redistest.Run(t, redistest.Options{}).Addr())
	quick := []string{"--freshness", "6s", "--skew", "500ms", "--dwell", "1s"}
	tenants := []string{"acme", "it's globex"}
	for _, tenant := range tenants {
		c.run(append([]string{"keys", "create", "--tenant", tenant}, quick...)...).wantCode(t, exitYes)
	}
	kek := file(t, c.kek)
	s := startServe(t, nil, "--redis", c.url, "--kek-file", kek, "--tenant", tenants[0], "--tenant", tenants[1],
		"--iss", "https://auth.example/{tenant}", "--aud", "the api", "--aud", "other")
	wait(t, func() bool { return strings.Contains(s.log.String(), "ready: all rings are in step") })
	commands := regexp.MustCompile(`(?m)^keyturn sign .*$`).FindAllString(s.out.String(), -1)
	if len(commands) != len(tenants) {
		t.Fatalf("commands = %q; output: %s", commands, s.out)
	}
	for i, command := range commands {
		shell := exec.CommandContext(t.Context(), "sh", "-c", `keyturn() { "$KEYTURN" "$@"; }; `+command)
		shell.Env = cleanEnv("KEYTURN=" + builtBinary(t))
		token, err := shell.Output()
		if err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		s.ask(t, "GET", "/api/x", strings.TrimSpace(string(token))).wantOK(t, tenants[i], "ann", "/api/x")
	}

	for url, want := range map[string]string{
		"redis://h:1/2": "redis://h:1/2", "redis://u:hush@h": "URL", "redis-sentinel://h/n?sentinel_password=hush": "URL",
	} {
		cmd := newServeCommand(&app{})
		cmd.ring.redis.Set(url)
		if got := cmd.signArgs("acme"); got != "sign --redis "+want+" --tenant acme --claim sub=ann" {
			t.Errorf("signArgs = %s", got)
		}
	}
}

// With --bootstrap the server makes a missing ring, after Redis has been empty for long enough.
func TestServeBootstrap(t *testing.T) {
	t.Parallel()
	redistest.Need(t)
	c := newRingCLI(t, redistest.Run(t, redistest.Options{}).Addr())
	ctx, cancel := context.WithCancel(t.Context())
	s := &served{log: new(syncBuffer), out: new(syncBuffer)}
	env := func(name string) (string, bool) { return c.kek, name == envKEK }
	cmd := newServeCommand(&app{env: env, stdout: s.out, stderr: s.log, now: time.Now})
	cmd.bootstrap = true
	cmd.ring.redis.Set(c.url)
	o, err := cmd.offer()
	if err != nil {
		t.Fatal(err)
	}
	o.server.Addr = "127.0.0.1:0"
	o.server.Rings.Bootstrap.Freshness, o.server.Rings.Bootstrap.Dwell = 2*time.Second, time.Second
	o.server.Rings.Poll, o.server.Rings.Deadline = 100*time.Millisecond, 400*time.Millisecond
	ended := make(chan error, 1)
	go func() { ended <- cmd.serve(ctx, o) }()
	for end := time.Now().Add(time.Minute); !strings.Contains(s.log.String(), "ready: all rings are in step"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not ready; log: %s", s.log)
		}
	}
	c.wantStates("signing", "pending")
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("run = %v; log: %s", err, s.log)
	}
}
