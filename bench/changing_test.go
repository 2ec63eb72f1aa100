//go:build linux

package bench

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
)

// BenchmarkHitWhileChanging verifies cached tokens of one tenant among 100 000 while others change
// 10 000 times a second: Put, Suspend, Resume, Remove. Spells of 50 ms with changes and without take
// turns, and kept-% is how fast hits are with them, compared to without. The time is that of the thread
// that verifies, so that other programs on the machine count little. changes/s says what was reached.
func BenchmarkHitWhileChanging(b *testing.B) {
	for _, hinted := range []bool{false, true} {
		b.Run(fmt.Sprint("hint=", hinted), func(b *testing.B) {
			const n, spell = 100_000, 50 * time.Millisecond
			p := newPair(b, keystore.HS256)
			list := p.many(b, n)
			v, err := verifier.New(verifier.Config{Tenants: list})
			check(b, err)
			tokens := p.distinct(b, 1000)
			warm(b, v, tokens)
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			var hits [2]int
			var took, changing [2]time.Duration
			changes := 0
			for round := 0; b.Loop(); round++ {
				which := round % 2
				ended := changeMeanwhile(b, v, list[1:], which == 1)
				cpu, begun := thread(b), time.Now()
				for time.Since(begun) < spell {
					for range 100 {
						check(b, verifyOne(b, v, hinted, tokens[hits[which]%len(tokens)]))
						hits[which]++
					}
				}
				took[which] += thread(b) - cpu
				changing[which] += time.Since(begun)
				changes += ended()
			}
			perHit := func(i int) float64 { return float64(took[i]) / float64(max(hits[i], 1)) }
			b.ReportMetric(perHit(0), "quiet-ns/hit")
			b.ReportMetric(perHit(1), "changing-ns/hit")
			b.ReportMetric(100*perHit(0)/perHit(1), "kept-%")
			b.ReportMetric(float64(changes)/changing[1].Seconds(), "changes/s")
		})
	}
}

func verifyOne(b *testing.B, v *verifier.Verifier, hinted bool, token string) (err error) {
	if hinted {
		_, err = v.VerifyTenant(b.Context(), id.Tenant, token)
	} else {
		_, err = v.Verify(b.Context(), token)
	}
	return err
}

// thread returns the CPU time of this thread.
func thread(b *testing.B) time.Duration {
	b.Helper()
	var r syscall.Rusage
	check(b, syscall.Getrusage(syscall.RUSAGE_THREAD, &r))
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// changeMeanwhile changes tenants 10 000 times a second, if it is to, until the function that it returns
// is called, which returns how often.
func changeMeanwhile(b *testing.B, v *verifier.Verifier, list []verifier.Tenant, really bool) (end func() int) {
	if !really {
		return func() int { return 0 }
	}
	var stop atomic.Bool
	done := make(chan int)
	go func() {
		n := 0
		for begun := time.Now(); !stop.Load(); time.Sleep(time.Millisecond) {
			for due := int(time.Since(begun) / (100 * time.Microsecond)); n < due && !stop.Load(); n += 4 {
				r := list[n*7919%len(list)]
				for _, err := range []error{v.Put(r), v.Suspend(r.ID), v.Resume(r.ID), v.Change([]verifier.Tenant{r}, []string{r.ID})} {
					if err != nil {
						b.Error(err)
					}
				}
			}
		}
		done <- n
	}()
	return func() int { stop.Store(true); return <-done }
}
