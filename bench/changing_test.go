//go:build linux

package bench

import (
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
)

// What the other core does while cached tokens are verified.
const (
	idle = iota
	awake
	changing
	occupations
)

// BenchmarkHitWhileChanging verifies cached tokens of one tenant among 100 000 while others change
// 10 000 times a second: Put, Suspend, Resume, Remove. Spells of 20 ms take turns: the other core is idle,
// or a goroutine awakes there a thousand times a second and does nothing, or awakes as often and changes
// tenants. kept-% is how fast hits are with changes, compared to an idle core, and awake-% how fast
// they are with a goroutine that only awakes: the difference is the cost of the changes. Each is of the
// median spell. The time is that of the thread that verifies, so that other programs on the machine count
// little. changes/s says how many it made.
func BenchmarkHitWhileChanging(b *testing.B) {
	for _, hinted := range []bool{false, true} {
		b.Run(fmt.Sprint("hint=", hinted), func(b *testing.B) {
			const n, spell = 100_000, 20 * time.Millisecond
			p := newPair(b, keystore.HS256)
			list := p.many(b, n)
			v, err := verifier.New(verifier.Config{Tenants: list})
			check(b, err)
			tokens := p.distinct(b, 1000)
			warm(b, v, tokens)
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			var perHit [occupations][]float64
			var took time.Duration
			hits, changes := 0, 0
			for b.Loop() {
				for what := range occupations {
					ended := meanwhile(b, v, list[1:], what)
					cpu, begun, before := thread(b), time.Now(), hits
					for time.Since(begun) < spell {
						for range 100 {
							check(b, verifyOne(b, v, hinted, tokens[hits%len(tokens)]))
							hits++
						}
					}
					perHit[what] = append(perHit[what], float64(thread(b)-cpu)/float64(hits-before))
					if what == changing {
						took += time.Since(begun)
					}
					changes += ended()
				}
			}
			quiet := median(perHit[idle])
			b.ReportMetric(quiet, "quiet-ns/hit")
			b.ReportMetric(median(perHit[changing]), "changing-ns/hit")
			b.ReportMetric(100*quiet/median(perHit[changing]), "kept-%")
			b.ReportMetric(100*quiet/median(perHit[awake]), "awake-%")
			b.ReportMetric(float64(changes)/took.Seconds(), "changes/s")
		})
	}
}

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
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

// meanwhile occupies the other core until the function that it returns is called, which returns how many
// changes there were: 10 000 a second if it is to change tenants.
func meanwhile(b *testing.B, v *verifier.Verifier, list []verifier.Tenant, what int) (end func() int) {
	if what == idle {
		return func() int { return 0 }
	}
	var stop atomic.Bool
	done := make(chan int)
	go func() {
		n := 0
		for begun := time.Now(); !stop.Load(); time.Sleep(time.Millisecond) {
			for due := int(time.Since(begun) / (100 * time.Microsecond)); what == changing && n < due && !stop.Load(); n += 4 {
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
