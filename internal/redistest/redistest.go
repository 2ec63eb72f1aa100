// Package redistest runs real Redis servers for tests and for measurements of faults: a
// single server, a primary with a replica, such a pair with three Sentinels, or a
// Cluster of three. The servers listen on free loopback ports and store their data in
// temporary folders. A Redis that already runs on the machine is not touched.
//
// A [Server] can be killed, paused, and started again with or without its data. A
// [Proxy] before a server delays, cuts or holds its connections.
//
// The caller must stop what a Start function returns. A Run function does that at the
// end of the test, and fails the test if a server does not start. On Linux the servers
// die with the process that started them.
package redistest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// A T has the methods of a test that the Run functions use.
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

// binary is the program of servers and Sentinels.
const binary = "redis-server"

// Missing returns an error if there is no redis-server to run.
func Missing() error {
	if _, err := exec.LookPath(binary); err != nil {
		return fmt.Errorf("redistest: %w (make setup brings it)", err)
	}
	return nil
}

// Need skips a test if there is no redis-server to run. With CI=true in the
// environment it fails the test instead, because a skipped test looks like a passed one.
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

// stopAll stops the servers that were started; the others are nil.
func stopAll(servers ...*Server) error {
	var errs []error
	for _, s := range servers {
		if s != nil {
			errs = append(errs, s.Stop())
		}
	}
	return errors.Join(errs...)
}
