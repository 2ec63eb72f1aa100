package main

import (
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startDraining runs the built command, with a drain that no test waits for.
func startDraining(t *testing.T, flags ...string) (s *served, signal func(syscall.Signal), ended chan error) {
	t.Helper()
	return startWithAdmin(t, append([]string{"--drain", "10m"}, flags...)...)
}

// startWithAdmin runs the built command, with an admin listener.
func startWithAdmin(t *testing.T, flags ...string) (s *served, signal func(syscall.Signal), ended chan error) {
	t.Helper()
	s = &served{log: new(syncBuffer), out: new(syncBuffer)}
	cmd := exec.Command(builtBinary(t), append([]string{"serve", "--addr", "127.0.0.1:0", "--admin", "127.0.0.1:0"}, flags...)...)
	cmd.Env, cmd.Stderr, cmd.Stdout = cleanEnv(envSecret+"="+testSecret), s.log, s.out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended = make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { cmd.Process.Kill() })
	wait(t, func() bool {
		return adminOn.MatchString(s.out.String()) && strings.Contains(s.out.String(), "Ctrl-C ends it")
	})
	s.url, s.admin = listening.FindStringSubmatch(s.out.String())[1], adminOn.FindStringSubmatch(s.out.String())[1]
	return s, func(sig syscall.Signal) { cmd.Process.Signal(sig) }, ended
}

// At SIGTERM the server goes on, and /readyz says on both listeners that it will end. A second signal ends
// it at once.
func TestServeDrains(t *testing.T) {
	t.Parallel()
	s, signal, ended := startDraining(t)
	signal(syscall.SIGTERM)
	wait(t, func() bool { return strings.Contains(s.out.String(), "stopping: serving on for 10m0s") })
	for _, at := range []string{s.url, s.admin} {
		if a := askAt(t, at, "GET", "/readyz", ""); a.status != http.StatusServiceUnavailable || !strings.Contains(a.body, `"status":"stopping"`) {
			t.Errorf("/readyz = %d %s", a.status, a.body)
		}
		res, err := http.Get(at + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusOK || !res.Close {
			t.Errorf("/healthz = %d, and the connection ends = %v", res.StatusCode, res.Close)
		}
	}
	s.ask(t, "GET", "/api/x", hs256(testSecret, plainHeader, in(time.Hour, `,"sub":"ann"`))).wantOK(t, "default", "ann", "/api/x")
	if len(ended) > 0 {
		t.Error("it has ended before its drain was over")
	}
	signal(syscall.SIGTERM)
	select {
	case err := <-ended:
		if err == nil {
			t.Error("a second signal ends with exit code 0")
		}
	case <-time.After(time.Minute):
		t.Error("a second signal did not end it")
	}
}

// Ctrl-C is a user who waits, and no load balancer.
func TestServeDoesNotDrainAtCtrlC(t *testing.T) {
	t.Parallel()
	s, signal, ended := startDraining(t)
	signal(syscall.SIGINT)
	select {
	case err := <-ended:
		if err != nil || strings.Contains(s.out.String(), "stopping") || !strings.HasSuffix(s.out.String(), "\nstopped\n") {
			t.Errorf("%v: %s", err, s.out)
		}
	case <-time.After(time.Minute):
		t.Error("Ctrl-C did not end it")
	}
}

// A flag beats the file, and both beat the default, which is for servers whose /readyz is asked.
func TestDrainIsGiven(t *testing.T) {
	path := func(more string) string {
		return configFolder(t, more+"tenants:\n"+acmeTenant, map[string]string{"s": testSecret})
	}
	for _, tt := range []struct {
		config, flag, admin string
		want                time.Duration
	}{
		{"", "", "", 0},
		{"", "", "127.0.0.1:0", 5 * time.Second},
		{"admin: {addr: 127.0.0.1:0}\n", "", "", 5 * time.Second},
		{"drain: 20s\n", "", "", 20 * time.Second},
		{"drain: 0s\n", "", "127.0.0.1:0", 0},
		{"drain: 20s\n", "7s", "", 7 * time.Second},
	} {
		cmd := newServeCommand(&app{env: func(string) (string, bool) { return "", false }, stderr: new(syncBuffer), now: time.Now})
		cmd.configFile.Set(path(tt.config))
		if tt.flag != "" {
			cmd.drain.Set(tt.flag)
		}
		if tt.admin != "" {
			cmd.admin.Set(tt.admin)
		}
		o, err := cmd.offer()
		if err != nil {
			t.Fatal(err)
		}
		if o.server.Drain != tt.want {
			t.Errorf("%+v: drain = %v", tt, o.server.Drain)
		}
	}
	keyturn(t, "serve", "--check", "--config", path("drain: 1h\n")).wantUsage(t, "drain: want at most 10m0s")
	keyturn(t, "serve", "--check", "--drain", "soon").wantUsage(t, "--drain", "want a duration")
}
