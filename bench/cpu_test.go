//go:build unix

package bench

import (
	"syscall"
	"testing"
	"time"
)

// A usage is the CPU time of this process at one moment: on a machine that others use too, it says more
// than the time that has passed.
type usage time.Duration

// used returns the CPU time until now, of all threads, the garbage collector's included.
func used(b *testing.B) usage {
	b.Helper()
	var r syscall.Rusage
	check(b, syscall.Getrusage(syscall.RUSAGE_SELF, &r))
	return usage(r.Utime.Nano() + r.Stime.Nano())
}

// report adds the CPU time since then to what the benchmark prints.
func (u usage) report(b *testing.B) {
	b.Helper()
	b.ReportMetric(float64(used(b)-u)/float64(b.N), "cpu-ns/op")
}
