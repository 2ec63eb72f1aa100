package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestServeSignals(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		s, cmd := startProcess(t)
		cmd.Process.Signal(sig)
		if code := s.stop(); code != exitYes {
			t.Errorf("%v: exit code = %d, want 0; log: %s", sig, code, s.log)
		}
		wait(t, func() bool {
			return strings.Contains(s.out.String(), "shutting down") && strings.HasSuffix(s.out.String(), "\nstopped\n")
		})
	}
}

func TestServeEndsRequestsInFlight(t *testing.T) {
	s, cmd := startProcess(t)
	conn := half(t, s)
	cmd.Process.Signal(syscall.SIGINT)
	wait(t, func() bool { return strings.Contains(s.out.String(), "shutting down") })
	wait(t, func() bool { // no new connections
		c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	io.WriteString(conn, "0123456789")
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("status = %d, want 200", res.StatusCode)
	}
	if code := s.stop(); code != exitYes {
		t.Errorf("exit code = %d, want 0", code)
	}
}

func TestServeSecondSignal(t *testing.T) {
	s, cmd := startProcess(t)
	half(t, s)
	begin := time.Now()
	cmd.Process.Signal(syscall.SIGINT)
	wait(t, func() bool { return strings.Contains(s.out.String(), "shutting down") })
	cmd.Process.Signal(syscall.SIGINT)
	if code := s.stop(); code == exitYes || time.Since(begin) > 9*time.Second {
		t.Errorf("exit code = %d after %v, want it to end at once", code, time.Since(begin))
	}
}

// A request that does not end within Config.Grace is cut off.
func TestServeDrainEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := &served{log: new(syncBuffer), out: new(syncBuffer)}
	stdout, w := io.Pipe()
	env := func(name string) (string, bool) { return testSecret, name == envSecret }
	cmd := newServeCommand(&app{env: env, stdout: w, stderr: s.log, now: time.Now})
	o, err := cmd.offer()
	if err != nil {
		t.Fatal(err)
	}
	o.server.Addr, o.server.Grace = "127.0.0.1:0", 50*time.Millisecond
	ended := make(chan error, 1)
	go func() { ended <- cmd.serve(ctx, o); w.Close() }()
	s.url = waitURL(t, stdout, s.out)
	conn := half(t, s)
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("run = %v", err)
	}
	if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
		t.Error("the request was answered, want it cut off")
	}
	if !strings.Contains(s.log.String(), "cut off") {
		t.Errorf("log = %s", s.log)
	}
}

// A reader of the output that goes away does not end the server.
func TestServeOutlivesReader(t *testing.T) {
	cmd := exec.Command(builtBinary(t), "serve", "--addr", "127.0.0.1:0")
	cmd.Env = cleanEnv()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	buf := make([]byte, 4096)
	n, err := io.ReadAtLeast(stdout, buf, 200)
	m := listening.FindSubmatch(buf[:n])
	if err != nil || m == nil {
		t.Fatalf("stdout = %q, %v", buf[:n], err)
	}
	stdout.Close()
	stderr.Close()
	s := &served{url: string(m[1])}
	s.ask(t, "GET", "/api/", "").wantRefused(t)
	s.ask(t, "GET", "/api/", "").wantRefused(t)
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("serve ended with %v", err)
	}
}
