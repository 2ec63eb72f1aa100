//go:build unix

package proxytest_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/proxytest"
)

// The roles that this test binary has as a process of its own.
const (
	role       = "PROXYTEST_ROLE"
	asProxy    = "proxy"  // listens where its file says, and has a worker
	asWorker   = "worker" // keeps the listener, and ignores SIGTERM, as one with an open stream may
	asBusyOnce = "busy"   // finds its port taken the first time
	asBroken   = "broken" // refuses its file
)

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case asBroken:
		fmt.Println("unknown directive in", os.Args[1])
		os.Exit(1)
	case asBusyOnce:
		marker := filepath.Join(os.Getenv("PROXYTEST_DIR"), "met")
		if _, err := os.Stat(marker); err != nil {
			fmt.Println("bind() failed: Address already in use", os.WriteFile(marker, nil, 0o600))
			os.Exit(1)
		}
		listenAsProxy()
	case asProxy:
		listenAsProxy()
	case asWorker:
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("the worker is there")
		select {}
	}
	os.Exit(m.Run())
}

func listenAsProxy() {
	text, err := os.ReadFile(os.Args[1])
	if err != nil {
		panic(err)
	}
	l, err := net.Listen("tcp", strings.TrimSpace(strings.TrimPrefix(strings.Split(string(text), "\n")[0], "listen ")))
	if err != nil {
		panic(err)
	}
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		panic(err)
	}
	worker := exec.Command(os.Args[0])
	worker.Env, worker.ExtraFiles, worker.Stdout = append(os.Environ(), role+"="+asWorker), []*os.File{f}, os.Stdout
	if err := worker.Start(); err != nil {
		panic(err)
	}
	select {}
}

// program returns this test binary in a role.
func program(as string, env ...string) proxytest.Program {
	return proxytest.Program{Command: []string{os.Args[0], "{file}"}, Env: append([]string{role + "=" + as}, env...)}
}

// config returns a configuration of this text.
func config(t testing.TB, text string) proxytest.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "proxy.conf")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return proxytest.Config{File: path, Listen: "127.0.0.1:8080"}
}

// wantFree waits until the address can be listened at again.
func wantFree(t *testing.T, addr string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		l, err := net.Listen("tcp", addr)
		if err == nil {
			l.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s is still taken: %v", addr, err)
		}
	}
}

// A proxy ends with all its processes: a worker that goes on would keep the port.
func TestStopEndsTheWorkers(t *testing.T) {
	p := proxytest.Start(t, config(t, "listen 127.0.0.1:8080\n"), program(asProxy))
	for end := time.Now().Add(time.Minute); !strings.Contains(p.Log(), "the worker is there"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("there is no worker")
		}
	}
	p.Stop()
	wantFree(t, p.Addr)
	p.Stop() // twice is fine
}

// A test that is killed, for example by a broken pipe, leaves no process of a proxy behind.
func TestProxiesDieWithProcess(t *testing.T) {
	const parent = "PROXYTEST_PARENT"
	if os.Getenv(parent) != "" {
		p := proxytest.Start(t, config(t, "listen 127.0.0.1:8080\n"), program(asProxy))
		for !strings.Contains(p.Log(), "the worker is there") {
			time.Sleep(10 * time.Millisecond)
		}
		fmt.Printf("\n%s%s\n", parent, p.Addr)
		select {} // waits to be killed
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), parent+"=1", "TMPDIR="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err = errors.Join(err, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	addr, found := "", false
	for lines := bufio.NewScanner(out); !found && lines.Scan(); {
		addr, found = strings.CutPrefix(lines.Text(), parent)
	}
	if c, err := net.Dial("tcp", addr); err != nil {
		t.Fatal(err)
	} else {
		c.Close()
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the error only says that the process was killed
	wantFree(t, addr)
}

// A proxy survives the thread of the goroutine that started it.
func TestProxiesSurviveThread(t *testing.T) {
	var wg sync.WaitGroup
	started := make(chan *proxytest.Proxy, 1)
	c := config(t, "listen 127.0.0.1:8080\n")
	wg.Go(func() {
		runtime.LockOSThread() // never unlocked, so the thread ends with the goroutine
		started <- proxytest.Start(t, c, program(asProxy))
	})
	wg.Wait()
	p := <-started
	time.Sleep(100 * time.Millisecond) // for another process: by then the thread has ended
	c2, err := net.Dial("tcp", p.Addr)
	if err != nil {
		t.Fatalf("%v; it wrote %s", err, p.Log())
	}
	c2.Close()
}

// A recorder is a test that fails without the test that has it.
type recorder struct {
	testing.TB
	failed   bool
	said     strings.Builder
	cleanups []func()
}

func (r *recorder) Helper()          {}
func (r *recorder) Failed() bool     { return r.failed }
func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Skipf(string, ...any) {
	r.said.WriteString("skipped")
	runtime.Goexit()
}
func (r *recorder) Logf(format string, args ...any) { fmt.Fprintf(&r.said, format+"\n", args...) }
func (r *recorder) Fatalf(format string, args ...any) {
	r.failed = true
	r.Logf(format, args...)
	runtime.Goexit()
}

// record runs f as a test of its own.
func record(t *testing.T, f func(*recorder)) *recorder {
	t.Helper()
	r := &recorder{TB: t}
	var wg sync.WaitGroup
	wg.Go(func() { f(r) })
	wg.Wait()
	for i := len(r.cleanups) - 1; i >= 0; i-- {
		r.cleanups[i]()
	}
	return r
}

// A test that fails shows what the proxy wrote.
func TestLogOfAFailedTest(t *testing.T) {
	for _, failed := range []bool{false, true} {
		r := record(t, func(r *recorder) {
			p := proxytest.Start(r, config(t, "listen 127.0.0.1:8080\n"), program(asProxy))
			for !strings.Contains(p.Log(), "the worker is there") {
				time.Sleep(10 * time.Millisecond)
			}
			r.failed = failed
		})
		if strings.Contains(r.said.String(), "the worker is there") != failed {
			t.Errorf("failed = %v, and the log of the test is %q", failed, r.said.String())
		}
	}
}

// What keeps a proxy from starting fails the test, with the reason.
func TestStartRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, text, says string
		as               string
		change           func(*proxytest.Config)
	}{
		{"the program refuses its file", "listen 127.0.0.1:8080\n", "unknown directive", asBroken, nil},
		{"an address that the test does not replace", "listen 127.0.0.1:8080\nupstream localhost:3000\n", "no address for localhost:3000", asProxy, nil},
		{"an address that the file lacks", "listen 127.0.0.1:8080\n", `does not hold "127.0.0.1:4111"`, asProxy, func(c *proxytest.Config) {
			c.Replace = map[string]string{"127.0.0.1:4111": "127.0.0.1:1"}
		}},
		{"an edit that finds nothing", "listen 127.0.0.1:8080\n", "leaves", asProxy, func(c *proxytest.Config) {
			c.Edit = func(text string) string { return text }
		}},
		{"a file that is missing", "", "no such file", asProxy, func(c *proxytest.Config) { c.File += "x" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := record(t, func(r *recorder) {
				c := config(t, tt.text)
				if tt.change != nil {
					tt.change(&c)
				}
				proxytest.Start(r, c, program(tt.as))
			})
			if !r.failed || !strings.Contains(r.said.String(), tt.says) {
				t.Errorf("failed = %v, and it says %q, want %q", r.failed, r.said.String(), tt.says)
			}
		})
	}
}

// Another process may take the port between the look at it and the start. Then another one is tried.
func TestStartTriesAnotherPort(t *testing.T) {
	p := proxytest.Start(t, config(t, "listen 127.0.0.1:8080\n"), program(asBusyOnce, "PROXYTEST_DIR="+t.TempDir()))
	c, err := net.Dial("tcp", p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// A program that is missing skips a test, and fails it in CI.
func TestNeed(t *testing.T) {
	for ci, want := range map[string]bool{"": false, "true": true} {
		t.Setenv("CI", ci)
		r := record(t, func(r *recorder) { proxytest.Need(r, "no-such-program"); r.said.WriteString("went on") })
		if r.failed != want || strings.Contains(r.said.String(), "went on") {
			t.Errorf("CI=%q: failed = %v, %s", ci, r.failed, r.said.String())
		}
	}
}

// The longer of two addresses with one beginning is replaced as a whole.
func TestAddressesWithOneBeginning(t *testing.T) {
	c := config(t, "listen 127.0.0.1:8080\nup 127.0.0.1:808\n")
	c.Replace = map[string]string{"127.0.0.1:808": "127.0.0.1:1"}
	var text string
	c.Edit = func(s string) string { text = s; return s + "\n" }
	p := proxytest.Start(t, c, proxytest.Program{Command: []string{"sh", "-c", "cat {file}; exec " + os.Args[0] + " {file}"}, Env: []string{role + "=" + asProxy}})
	if want := strings.NewReplacer("127.0.0.1:8080", p.Addr, "up 127.0.0.1:808", "up 127.0.0.1:1").Replace(text); !strings.HasPrefix(p.Log(), want) {
		t.Errorf("the file is %q, want %q", p.Log(), want)
	}
}
