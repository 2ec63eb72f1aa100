package main

import (
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestServeSharedSecret(t *testing.T) {
	const path = "/api/agents/weatherAgent/generate"
	for name, start := range map[string]func() *served{
		envSecret:       func() *served { return startServe(t, map[string]string{envSecret: testSecret}) },
		envMastraSecret: func() *served { return startServe(t, map[string]string{envMastraSecret: testSecret}) },
		"--secret-file": func() *served { return startServe(t, nil, "--secret-file", file(t, testSecret+"\n")) },
	} {
		t.Run(name, func(t *testing.T) {
			s := start()
			good := hs256(testSecret, plainHeader, in(time.Hour, `,"sub":"ann"`))
			for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"} {
				s.ask(t, method, path, good).wantOK(t, "default", "ann", path)
				s.ask(t, method, path, "").wantRefused(t)
			}
			if a := s.ask(t, "HEAD", path, good); a.status != http.StatusOK || a.body != "" {
				t.Errorf("HEAD = %d %q", a.status, a.body)
			}
			if a := s.ask(t, "HEAD", path, ""); a.status != http.StatusUnauthorized || a.body != "" {
				t.Errorf("HEAD without token = %d %q", a.status, a.body)
			}
			s.ask(t, "GET", "/api/x", hs256(testSecret, plainHeader, in(time.Hour, ""))).wantOK(t, "default", "", "/api/x")
			for _, bad := range []string{
				hs256("another"+testSecret, plainHeader, in(time.Hour, "")),
				hs256(testSecret, plainHeader, in(-time.Hour, "")),
				hs256(testSecret, plainHeader, `{"sub":"ann"}`),
				hs256(testSecret, `{"alg":"HS256","kid":"k1"}`, in(time.Hour, "")),
				hs256(testSecret, `{"alg":"none"}`, in(time.Hour, "")),
				good[:len(good)-1], "nonsense",
			} {
				s.ask(t, "POST", path, bad).wantRefused(t)
				if strings.Contains(s.log.String(), bad) {
					t.Error("a token is in the log")
				}
			}
			if strings.Contains(s.log.String()+s.out.String(), testSecret) {
				t.Error("the secret is in the output")
			}
			for _, want := range []string{
				"iss and aud are not checked", "reason=signature", "reason=expired", "reason=missing_claim", "--allow-no-exp",
				"reason=unknown_key", "make tokens without kid", "reason=algorithm", "reason=malformed",
			} {
				if !strings.Contains(s.log.String(), want) {
					t.Errorf("the log does not say %q:\n%s", want, s.log)
				}
			}
			if code := s.stop(); code != exitYes {
				t.Errorf("exit code = %d", code)
			}
		})
	}
}

// The printed commands work for users who have installed keyturn, and for those with a clone.
func TestServeBanner(t *testing.T) {
	banner := func(env map[string]string, flags ...string) string {
		s := startServe(t, env, flags...)
		s.stop()
		wait(t, func() bool { return strings.HasSuffix(s.out.String(), "\nstopped\n") })
		return s.out.String()
	}
	check := func(banner string, phrases ...string) {
		t.Helper()
		for _, p := range append(phrases, "there is no CORS") {
			if !strings.Contains(banner, p) {
				t.Errorf("the banner does not say %q:\n%s", p, banner)
			}
		}
	}
	shared := map[string]string{envMastraSecret: testSecret}
	check(banner(shared), "add an exp, or start serve with --allow-no-exp", "where MASTRA_JWT_SECRET is set to the same secret too",
		"keyturn sign --claim sub=ann   (from a clone: go run ./cmd/keyturn sign --claim sub=ann)")
	if b := banner(shared, "--allow-no-exp"); strings.Contains(b, "add an exp") || strings.Contains(b, "all addresses") {
		t.Errorf("the banner = %s", b)
	}
	check(banner(nil, "--secret-file", file(t, testSecret)), "go run ./cmd/keyturn sign --secret-file FILE")
	check(banner(nil), "KEYTURN_SECRET or MASTRA_JWT_SECRET", "go run ./cmd/keyturn serve --help")
}

func TestAddresses(t *testing.T) {
	for _, open := range []bool{false, true} {
		at := endpoint{URL: "http://localhost:4111", Open: open}
		if strings.Contains(at.addresses(), "on all addresses of this machine; for this machine alone: --addr 127.0.0.1:4111\n") != open {
			t.Errorf("%v: %s", at, at.addresses())
		}
	}
}

func TestServeAllowNoExp(t *testing.T) {
	s := startServe(t, map[string]string{envSecret: testSecret}, "--allow-no-exp")
	s.ask(t, "GET", "/api/", hs256(testSecret, plainHeader, `{"sub":"ann"}`)).wantOK(t, "default", "ann", "/api/")
	s.ask(t, "GET", "/api/", hs256(testSecret, plainHeader, in(-time.Hour, ""))).wantRefused(t)
	if !strings.Contains(s.log.String(), "they never end") {
		t.Errorf("the log has no warning:\n%s", s.log)
	}
}

func TestServeUsage(t *testing.T) {
	short := map[string]string{envMastraSecret: testSecret[:31]}
	call{env: short}.run(t, "serve", "--addr", "127.0.0.1:0").wantUsage(t, "MASTRA_JWT_SECRET", "31 bytes, want at least 32", "openssl rand -base64 32")
	call{env: map[string]string{envSecret: "", envMastraSecret: testSecret}}.run(t, "serve").wantUsage(t, "set, but empty")
	keyturn(t, "serve", "--secret-file", "/no/such/file").wantUsage(t, "cannot read the file of --secret-file: no such file")
	for _, addr := range []string{"4111", "localhost", "http://localhost:4111", "::1"} {
		keyturn(t, "serve", "--addr", addr).wantUsage(t, "want HOST:PORT")
	}
	keyturn(t, "serve", "--allow-no-exp").wantUsage(t, "--allow-no-exp goes with a secret", "--secret-file", "KEYTURN_SECRET or MASTRA_JWT_SECRET")
	keyturn(t, "serve", "--addr", "127.0.0.1:99999").wantUsage(t, "--addr: cannot listen there")
	keyturn(t, "serve", "--addr", "192.0.2.1:4111").wantUsage(t, "--addr: cannot listen there")
}

func TestServePortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	keyturn(t, "serve", "--addr", l.Addr().String()).wantUsage(t, "port "+port+" is in use", "--addr")
}
