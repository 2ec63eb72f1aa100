package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
)

// quickRing makes a ring whose instances poll after 1.5 s.
var quickRing = []string{"--freshness", "6s", "--skew", "500ms", "--dwell", "1s"}

// With --config the server starts although Redis is away. The static tenant is served. The tenant with
// a ring gets 503 until Redis is there.
func TestServeConfigWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	redistest.Need(t)
	redis := redistest.Run(t, redistest.Options{Keep: true})
	c := newRingCLI(t, redis.Addr())
	c.run(append([]string{"keys", "create", "--tenant", "initech"}, quickRing...)...).wantCode(t, exitYes)
	token := strings.TrimSpace(c.run("sign", "--tenant", "initech", "--claim", "sub=ann", "--iss", "https://initech.example").wantCode(t, exitYes).stdout)
	redis.Kill()
	path := configFolder(t, "rings: {redis: '"+c.url+"', kek_file: kek}\ntenants:\n"+acmeTenant+
		"  - {id: initech, kind: ring, issuer: https://initech.example, any_audience: true}\n",
		map[string]string{"s": testSecret, "kek": c.kek})
	s := startServe(t, nil, "--config", path)
	claims := fmt.Sprintf(`{"sub":"ann","iss":"https://acme.example","aud":"api","exp":%d}`, time.Now().Add(time.Hour).Unix())
	s.ask(t, "GET", "/api/x", hs256(testSecret, plainHeader, claims)).wantOK(t, "acme", "ann", "/api/x")
	if a := s.ask(t, "GET", "/api/x", token); a.status != http.StatusServiceUnavailable {
		t.Errorf("a token of the ring, while Redis is away: %d %s", a.status, a.body)
	}
	if _, _, each := s.readiness(t); each["acme"].Status != stateReady || each["initech"].Status != stateNotReady {
		t.Errorf("/readyz = %v", each)
	}
	if err := redis.Restart(); err != nil {
		t.Fatal(err)
	}
	wait(t, func() bool { return s.ask(t, "GET", "/api/x", token).status == http.StatusOK })
	wait(t, func() bool { _, all, _ := s.readiness(t); return all == stateReady })
	if log := s.log.String(); strings.Count(log, "the store cannot be reached") != 1 || strings.Count(log, "the store is reached again") != 1 {
		t.Errorf("log = %s", log)
	}
}

// A wrong password does not go away by waiting.
func TestServeConfigWithWrongPassword(t *testing.T) {
	redistest.Need(t)
	redis := redistest.Run(t, redistest.Options{})
	if err := redis.Do(t.Context(), "CONFIG", "SET", "requirepass", "secret"); err != nil {
		t.Fatal(err)
	}
	path := configFolder(t, "rings: {redis: 'redis://"+redis.Addr()+"', kek_file: kek}\ntenants:\n"+acmeTenant+
		"  - {id: initech, kind: ring, issuer: https://initech.example, any_audience: true}\n",
		map[string]string{"s": testSecret, "kek": newKEK()})
	keyturn(t, "serve", "--config", path, "--addr", "127.0.0.1:0").wantCode(t, exitCannotTell, "does not accept the user or the password")
}

// /readyz?for=verify outlasts ?for=sign while Redis is away, and serve asks for the former.
func TestReadyzForWhat(t *testing.T) {
	t.Parallel()
	redistest.Need(t)
	redis := redistest.Run(t, redistest.Options{})
	c := newRingCLI(t, redis.Addr())
	c.run(append([]string{"keys", "create"}, append(quickRing, "--sign-for", "6s", "--max-ttl", "1h")...)...).wantCode(t, exitYes)
	s := startServe(t, map[string]string{envKEK: c.kek}, "--redis", c.url)
	ready := func(query string) int { return askAt(t, s.admin, "GET", "/readyz"+query, "").status }
	wait(t, func() bool { return ready("") == http.StatusOK && ready("?for=sign") == http.StatusOK })
	if got := ready("?for=lunch"); got != http.StatusBadRequest {
		t.Errorf("?for=lunch: %d", got)
	}
	if err := redis.Pause(); err != nil {
		t.Fatal(err)
	}
	wait(t, func() bool { return ready("?for=sign") == http.StatusServiceUnavailable })
	for _, query := range []string{"", "?for=verify"} {
		if got := ready(query); got != http.StatusOK {
			t.Errorf("%q: %d", query, got)
		}
	}
	if err := redis.Resume(); err != nil {
		t.Fatal(err)
	}
	wait(t, func() bool { return ready("?for=sign") == http.StatusOK })
}

// Redis is away, and the server is restarted: with --snapshot it verifies.
func TestServeFromSnapshot(t *testing.T) {
	t.Parallel()
	redistest.Need(t)
	redis := redistest.Run(t, redistest.Options{Keep: true})
	c := newRingCLI(t, redis.Addr())
	c.run(append([]string{"keys", "create"}, append(quickRing, "--max-ttl", "1h")...)...).wantCode(t, exitYes)
	token := strings.TrimSpace(c.run("sign", "--claim", "sub=ann").wantCode(t, exitYes).stdout)
	args := []string{"--redis", c.url, "--snapshot", filepath.Join(t.TempDir(), "rings")}
	env := map[string]string{envKEK: c.kek}
	s := startServe(t, env, args...)
	wait(t, func() bool { return s.ask(t, "GET", "/api/x", token).status == http.StatusOK })
	wait(t, func() bool { _, all, _ := s.readiness(t); return all == stateReady })
	if code := s.stop(); code != exitYes {
		t.Fatalf("exit code = %d: %s", code, s.log)
	}
	redis.Kill()
	s = startServe(t, env, args...)
	s.ask(t, "GET", "/api/x", token).wantOK(t, "default", "ann", "/api/x")
	if status, all, _ := s.readiness(t); status != http.StatusOK || all != stateDegraded {
		t.Errorf("/readyz = %d %s", status, all)
	}
	if a := askAt(t, s.admin, "GET", "/readyz?for=sign", ""); a.status != http.StatusServiceUnavailable {
		t.Errorf("/readyz?for=sign = %d %s", a.status, a.body)
	}
	const inStep = "ready: all rings are in step"
	wait(t, func() bool { return strings.Contains(s.log.String(), "ready") })
	if log := s.log.String(); strings.Contains(log, inStep) || !strings.Contains(log, "ready to verify, and not all rings are in step with Redis yet") {
		t.Errorf("the log while Redis is away:\n%s", log)
	}
	if err := redis.Restart(); err != nil {
		t.Fatal(err)
	}
	wait(t, func() bool { return askAt(t, s.admin, "GET", "/readyz?for=sign", "").status == http.StatusOK })
	wait(t, func() bool { return strings.Contains(s.log.String(), inStep) })
	blob, err := os.ReadFile(args[3])
	if err != nil || strings.Contains(string(blob), c.kek) || strings.Contains(string(blob), "default") {
		t.Errorf("the file has something in the open: %v", err)
	}
}
