//go:build unix

// Package proxytest runs real reverse proxies for tests: nginx, Caddy and others, each with a
// configuration file of docs/proxies. The file is used byte for byte, except that its addresses become
// those of the test. A proxy listens on a free loopback port, keeps its files in a temporary folder,
// and ends with the test.
package proxytest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/freeport"
)

// A Config says which file a proxy runs with.
type Config struct {
	// File is the path of the configuration, seen from the folder of the test.
	File string

	// Listen is the address in the file where clients reach the proxy, such as 127.0.0.1:8080. A
	// free one takes its place.
	Listen string

	// Replace has the other addresses of the file, and those that take their places. The file may
	// hold no other address of this machine.
	Replace map[string]string

	// Edit changes the text of the file, for a test of what happens without one of its lines. Nil
	// leaves it as it is.
	Edit func(text string) string
}

// A Program says how a proxy is started. In all texts, {dir} is the temporary folder, {file} the
// path of the configuration with the test's addresses, and {main} the path of a file with Main.
type Program struct {
	Command []string
	Env     []string
	Main    string
}

// A Proxy is a proxy that runs.
type Proxy struct {
	Addr string // HOST:PORT, where clients reach it
	log  *output
	stop func()
}

// URL returns the address of the proxy as a URL.
func (p *Proxy) URL() string { return "http://" + p.Addr }

// Log returns what the proxy has written so far.
func (p *Proxy) Log() string { return p.log.String() }

// Stop ends the proxy before the end of the test.
func (p *Proxy) Stop() { p.stop() }

// Need skips a test if a program is not installed. With CI=true in the environment it fails the
// test instead, because a skipped test looks like a passed one.
func Need(t testing.TB, program string) {
	t.Helper()
	_, err := exec.LookPath(program)
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("proxytest: %v (make setup brings it)", err)
	default:
		t.Skipf("proxytest: %v (make setup brings it)", err)
	}
}

// Nginx starts nginx. The file has what belongs into the http block of its configuration, as files in
// /etc/nginx/conf.d do.
func Nginx(t testing.TB, c Config) *Proxy {
	t.Helper()
	user := ""
	if os.Getuid() == 0 {
		user = "user root;\n" // another user could not enter the test's folder
	}
	return Start(t, c, Program{
		Command: []string{"nginx", "-p", "{dir}", "-e", "stderr", "-c", "{main}"},
		Main: user + `daemon off;
pid nginx.pid;
error_log stderr warn;
worker_processes 1;
events { worker_connections 1024; }
http {
	access_log off;
	client_body_temp_path body;
	proxy_temp_path proxy;
	fastcgi_temp_path fastcgi;
	uwsgi_temp_path uwsgi;
	scgi_temp_path scgi;
	include {file};
}
`})
}

// Caddy starts Caddy. The file is a Caddyfile without global options.
func Caddy(t testing.TB, c Config) *Proxy {
	t.Helper()
	return Start(t, c, Program{
		Command: []string{"caddy", "run", "--adapter", "caddyfile", "--config", "{main}"},
		Env:     []string{"XDG_DATA_HOME={dir}", "XDG_CONFIG_HOME={dir}", "HOME={dir}"},
		Main:    "{\n\tadmin off\n\tauto_https off\n}\nimport {file}\n",
	})
}

const (
	startTime = 60 * time.Second // a machine under load is slow
	stopTime  = 10 * time.Second
	attempts  = 4 // another process may have taken the port

	// workerTime is how long workers may go on without the process that started them.
	workerTime = 200 * time.Millisecond
)

// Start starts a proxy, and waits until it listens. The test fails if it does not.
func Start(t testing.TB, c Config, p Program) *Proxy {
	t.Helper()
	Need(t, p.Command[0])
	text, err := os.ReadFile(c.File)
	if err != nil {
		t.Fatalf("proxytest: %v", err)
	}
	if c.Edit != nil {
		edited := c.Edit(string(text))
		if edited == string(text) {
			t.Fatalf("proxytest: Edit leaves %s as it is", c.File)
		}
		text = []byte(edited)
	}
	var log string
	for range attempts {
		addr, err := freeport.Addr()
		if err != nil {
			t.Fatalf("proxytest: %v", err)
		}
		config, err := c.rewrite(string(text), addr)
		if err != nil {
			t.Fatalf("proxytest: %s: %v", c.File, err)
		}
		proxy, err := launch(t.TempDir(), filepath.Base(c.File), config, addr, p)
		if err == nil {
			t.Cleanup(func() {
				proxy.stop()
				if t.Failed() {
					t.Logf("%s wrote:\n%s", p.Command[0], proxy.Log())
				}
			})
			return proxy
		}
		if log = err.Error(); !strings.Contains(log, "in use") {
			break
		}
	}
	t.Fatalf("proxytest: %s does not start with %s: %s", p.Command[0], c.File, log)
	return nil
}

var loopback = regexp.MustCompile(`(127\.0\.0\.1|localhost|\[::1\]):[0-9]+`)

// rewrite returns the text with the addresses of the test.
func (c *Config) rewrite(text, addr string) (string, error) {
	replace := maps.Clone(c.Replace)
	if replace == nil {
		replace = make(map[string]string)
	}
	replace[c.Listen] = addr
	var pairs []string
	for _, old := range slices.Backward(slices.Sorted(maps.Keys(replace))) { // a longer port before its beginning
		if !strings.Contains(text, old) {
			return "", fmt.Errorf("it does not hold %q", old)
		}
		pairs = append(pairs, old, replace[old])
	}
	for _, found := range loopback.FindAllString(text, -1) {
		if _, ok := replace[found]; !ok {
			return "", fmt.Errorf("the test has no address for %s", found)
		}
	}
	return strings.NewReplacer(pairs...).Replace(text), nil
}

// launch starts the program in dir, and waits until it listens at addr.
func launch(dir, name, config, addr string, p Program) (*Proxy, error) {
	file, main := filepath.Join(dir, name), filepath.Join(dir, "main.conf")
	fill := strings.NewReplacer("{dir}", dir, "{file}", file, "{main}", main)
	for path, text := range map[string]string{file: config, main: fill.Replace(p.Main)} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	args := make([]string, len(p.Command))
	for i, a := range p.Command {
		args[i] = fill.Replace(a)
	}
	cmd := exec.Command(args[0], args[1:]...)
	for _, v := range p.Env {
		cmd.Env = append(cmd.Env, fill.Replace(v))
	}
	cmd.Env = append(os.Environ(), cmd.Env...)
	log := new(output)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	// A proxy has workers, which would keep the port: the whole group is ended. They also keep the output
	// open, which Wait waits for.
	cmd.SysProcAttr, cmd.WaitDelay = &syscall.SysProcAttr{Setpgid: true}, workerTime
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	release, err := guard(cmd.Process.Pid)
	if err != nil {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
		return nil, err
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	stop := sync.OnceFunc(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(stopTime):
		}
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // workers may have outlived it
		<-ended
		release()
	})
	if err := awaitListener(addr, ended); err != nil {
		stop()
		return nil, fmt.Errorf("%w\n%s", err, log)
	}
	return &Proxy{Addr: addr, log: log, stop: stop}, nil
}

// awaitListener waits until something listens at addr, or the process has ended.
func awaitListener(addr string, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	for {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err == nil {
			return c.Close()
		}
		select {
		case <-ended:
			return fmt.Errorf("it ended")
		case <-ctx.Done():
			return fmt.Errorf("nothing listens at %s after %v", addr, startTime)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// An output keeps what a process writes.
type output struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

var _ io.Writer = (*output)(nil)

// Write implements [io.Writer].
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

// String returns the text so far.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}
