// Package redistest runs real Redis servers for tests and for what measures
// faults: one, one with a replica, three behind Sentinel, a Cluster of three. They
// listen on free loopback ports and keep what they keep in folders of their own;
// a Redis that the machine runs anyway is left alone.
//
// A [Server] can be killed, stopped for a while and started again, empty or not;
// a [Proxy] before it delays, cuts and swallows what passes. What Start functions
// return has to be stopped. The Run functions do that when a test ends, and fail
// it if something does not start. If the process dies, its servers do (on Linux).
package redistest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// A T is what the Run functions need of a test.
type T interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
}

// A Skipper is a test that can be skipped.
type Skipper interface {
	T
	Skipf(format string, args ...any)
}

// binary is the one that is also a Sentinel.
const binary = "redis-server"

// Missing returns an error if there is no redis-server to run.
func Missing() error {
	if _, err := exec.LookPath(binary); err != nil {
		return fmt.Errorf("redistest: %w (make setup brings it)", err)
	}
	return nil
}

// Need skips a test if there is no redis-server to run. Under CI=true it fails:
// what is skipped must not look like what passed.
func Need(t Skipper) {
	t.Helper()
	err := Missing()
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("%v", err)
	default:
		t.Skipf("%v", err)
	}
}

// Run is [Start] for a test.
func Run(t T, o Options) *Server {
	t.Helper()
	s, err := Start(o)
	return keep(t, s, err)
}

// RunPair is [StartPair] for a test.
func RunPair(t T, o Options) *Pair {
	t.Helper()
	p, err := StartPair(o)
	return keep(t, p, err)
}

// RunSentinel is [StartSentinel] for a test.
func RunSentinel(t T, o Options) *Sentinel {
	t.Helper()
	s, err := StartSentinel(o)
	return keep(t, s, err)
}

// RunCluster is [StartCluster] for a test.
func RunCluster(t T, o Options) *Cluster {
	t.Helper()
	c, err := StartCluster(o)
	return keep(t, c, err)
}

// RunProxy is [StartProxy] for a test.
func RunProxy(t T, target string) *Proxy {
	t.Helper()
	p, err := StartProxy(target)
	return keep(t, p, err)
}

func keep[S interface{ Stop() error }](t T, s S, err error) S {
	t.Helper()
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Logf("redistest: stop: %v", err)
		}
	})
	return s
}

// stopAll stops servers, whether all or only some of them have started.
func stopAll(servers ...*Server) error {
	var errs []error
	for _, s := range servers {
		if s != nil {
			errs = append(errs, s.Stop())
		}
	}
	return errors.Join(errs...)
}
