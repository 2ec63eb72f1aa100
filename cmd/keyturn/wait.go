package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

// waitFlags say how long a command watches a change that it has made.
type waitFlags struct {
	wait   *option[time.Duration]
	noWait bool
}

func newWaitFlags() waitFlags {
	return waitFlags{wait: newDuration(time.Millisecond, time.Hour, 0, "two polls, at most 60s")}
}

func (w *waitFlags) register(cmd *cobra.Command) {
	cmd.Flags().Var(w.wait, "wait", "how long to wait for the live instances")
	cmd.Flags().BoolVar(&w.noWait, "no-wait", false, "do not wait for the instances, neither before nor after the change")
}

// check refuses flags that contradict each other.
func (w *waitFlags) check() error {
	if w.noWait && w.wait.given {
		return usagef("--wait and --no-wait: give one of them")
	}
	return nil
}

// limit returns how long to wait for instances whose rings have that policy.
func (w *waitFlags) limit(timing rotation.Policy) time.Duration {
	if w.wait.given {
		return w.wait.value
	}
	return min(2*pollGap(timing.Freshness), time.Minute)
}

// pollGap returns the longest time between two polls of an instance with the default settings, the
// call included.
func pollGap(fresh time.Duration) time.Duration {
	return min(3*time.Second, fresh/4)*6/5 + min(time.Second, fresh/30)
}

// waitHelp is what the help of each change says about the wait.
const waitHelp = `The command stays until every live instance has applied the change, or --wait is
over, and puts the change back if Redis loses it meanwhile. An instance is live if it
has said so within --freshness, now or just before the change. A revocation also has
to be confirmed by an instance that holds the ring: until one has read it, a writer of
Redis can remove it. Where no instance seems to run, it is watched for a poll. Ctrl-C
ends the wait; the change stays. Exit code 3: Redis lost the change while the command
watched, or cannot be asked. Exit code 4: the change is made, and stderr names the live
instances that have not applied it, or says that none which holds the ring confirms it.`

// interruptible returns a context that ends with Ctrl-C or SIGTERM. A second one ends the process.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// An ackSeen is the acknowledgement of an instance. It is live if it is recent.
type ackSeen struct {
	rotation.Ack
	live bool
}

// A watched is what a command saw of a change after it had made it.
type watched struct {
	acks   []ackSeen // sorted by instance; nil if none could be read
	undone bool      // the store lost the change, and it was put back
	alone  bool      // a revocation that no instance which holds the ring has confirmed
	waited time.Duration
	cut    bool  // by Ctrl-C
	err    error // why it is not known which instances have applied it, or nil
}

// missing returns the live instances that have not applied the change.
func (w *watched) missing() (names []string) {
	for _, a := range w.acks {
		if a.live && !a.Applied {
			names = append(names, printable(a.Instance, false))
		}
	}
	return names
}

// A watcher watches a change that was made.
type watcher struct {
	*keysCommand
	rotator *rotation.Rotator
	receipt rotation.Receipt
	timing  rotation.Policy
	limit   time.Duration
	quiet   bool // it shows no progress of its own
}

// watch waits until all live instances have applied the change, the limit is over, or ctx ends.
func (w *watcher) watch(ctx context.Context) watched {
	begin := time.Now()
	waiting, cancel := context.WithTimeout(ctx, w.limit)
	stop := w.tellProgress(waiting)
	awaited, err := w.rotator.Await(waiting, w.receipt)
	cancel()
	stop()
	seen := watched{undone: errors.Is(err, ring.ErrUndone), alone: errors.Is(err, ring.ErrUnconfirmed), waited: time.Since(begin), cut: ctx.Err() != nil}
	if err != nil && !seen.undone && !seen.alone && !isTimeout(err) {
		seen.err = err
	}
	w.look(context.WithoutCancel(ctx), &seen, awaited)
	return seen
}

// isTimeout reports whether waiting has ended because its time was over.
func isTimeout(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// look notes in seen all acknowledgements that the store has now, also those of instances that are
// not live, and those of awaited that it has no more.
func (w *watcher) look(ctx context.Context, seen *watched, awaited []rotation.Ack) {
	ctx, cancel := context.WithTimeout(ctx, ringTime)
	defer cancel()
	all, err := w.rotator.Acks(ctx, w.receipt)
	if err != nil && seen.err == nil {
		seen.err = err
	}
	for _, a := range awaited {
		if !slices.ContainsFunc(all, func(b rotation.Ack) bool { return a.Instance == b.Instance }) {
			all = append(all, a)
		}
	}
	for _, a := range all {
		live := w.now().Sub(a.At) <= w.timing.Freshness
		for _, b := range awaited {
			if a.Instance == b.Instance {
				live = true
				a.Applied, a.Holds = a.Applied || b.Applied, a.Holds || b.Holds
			}
		}
		seen.acks = append(seen.acks, ackSeen{a, live})
	}
	slices.SortFunc(seen.acks, func(a, b ackSeen) int { return strings.Compare(a.Instance, b.Instance) })
}

// outcome returns the exit code and the text for a change that was made, or nil if every live
// instance has applied it.
func (w *watcher) outcome(seen *watched) error {
	missing := seen.missing()
	switch {
	case seen.undone:
		text := "Redis lost the change after it was made, and it was put back: a failover or an old dump, or somebody writes to this Redis"
		if len(missing) > 0 {
			text += "; not applied by " + strings.Join(missing, ", ")
		} else {
			text += "; of those that live, " + appliedBy(len(seen.acks), len(seen.acks)) + " by now"
		}
		return exitf(exitCannotTell, `%s. See that it stays ("keyturn keys list"), and docs/operations.md, "Someone writes to Redis"`, text)
	case seen.err != nil:
		return exitf(exitCannotTell, "the change is made, but it is not known which instances have applied it: %s", printable(errorText(seen.err), false))
	case len(missing) == 0 && seen.alone:
		return exitf(exitNotEverywhere, `the change is made, but no instance that verifies the tenant's tokens had confirmed it within %v. If no service verifies them, nothing is to do. Otherwise another person may have removed what the instances say, and can remove the change: look at the instances, and repeat the command; docs/operations.md, "Not confirmed"`, max(time.Second, seen.waited.Round(time.Second)))
	case len(missing) == 0:
		if !w.receipt.DestroyedAt.IsZero() && len(seen.acks) == 0 {
			w.note(`no instance was seen, so none has confirmed the shred: if a service verifies the tenant's tokens, look at its instances, and shred again; docs/operations.md, "Not confirmed"`)
		}
		if w.receipt.Revoked != "" && len(seen.acks) == 0 {
			w.note(`no instance was seen, so none has confirmed the revocation: if a service verifies the tenant's tokens, look at its instances, and revoke again; docs/operations.md, "Not confirmed"`)
		}
		return nil
	}
	when := w.when(seen)
	return exitf(exitNotEverywhere, "the change is made, but %s had not applied it %s: %s%s", instances(len(missing)), when, strings.Join(missing, ", "), w.whyMissing(seen))
}

// when says for how long the command has waited.
func (w *watcher) when(seen *watched) string {
	if seen.cut {
		return "when the wait was interrupted"
	}
	return "within " + w.limit.Round(time.Millisecond).String()
}

// whyMissing says what is known of the instances that have not applied the change.
func (w *watcher) whyMissing(seen *watched) string {
	text := "; they do with their next poll that succeeds"
	if !w.receipt.WorstCase.IsZero() {
		text += ", or accept the key until " + stamp(w.receipt.WorstCase) + " at the latest"
	}
	if slices.ContainsFunc(seen.acks, func(a ackSeen) bool { return a.live && !a.Applied && len(a.KEKs) == 0 }) {
		text += "; some have a first KEK that this command lacks, so it cannot read what they say: give it the KEK file of the service"
	}
	return text
}

// quietFor is how long a wait is not mentioned.
const quietFor = time.Second

// tellProgress says on stderr for which instances the command waits, until ctx ends. The caller must
// call stop, which waits for the end.
func (w *watcher) tellProgress(ctx context.Context) (stop func()) {
	if w.quiet {
		return func() {}
	}
	p := &progress{out: w.stderr, terminal: isTerminal(w.stderr)}
	until := time.Now().Add(w.limit)
	watching := "no live instance is left to wait for; watching for a poll that the change stays"
	if w.receipt.Revoked != "" || !w.receipt.DestroyedAt.IsZero() {
		watching = "waiting for an instance that holds the ring to confirm it, if there is one"
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		p.run(ctx, func() string {
			acks, err := w.rotator.Acks(ctx, w.receipt)
			if err != nil {
				return "waiting for Redis to say which instances have applied it"
			}
			var names []string
			for _, a := range acks {
				if !a.Applied && w.now().Sub(a.At) <= w.timing.Freshness {
					names = append(names, printable(a.Instance, false))
				}
			}
			left := max(0, time.Until(until)).Round(time.Second)
			if len(names) == 0 {
				return fmt.Sprintf("%s, %v at most", watching, left)
			}
			return fmt.Sprintf("waiting for %s to apply it, %v at most: %s", instances(len(names)), left, strings.Join(names[:min(3, len(names))], ", "))
		})
	})
	return wg.Wait
}

// A progress is a line on stderr about something that takes long. On a terminal it is renewed every
// second; elsewhere it is printed once.
type progress struct {
	out      io.Writer
	terminal bool
	drawn    bool // the terminal has a line that is to be removed
}

// isTerminal reports whether a person probably looks at w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull) // a character device, too: that of jobs without a terminal
	return err != nil || !os.SameFile(info, null)
}

// run shows what text returns until ctx ends, for the first time after quietFor.
func (p *progress) run(ctx context.Context, text func() string) {
	tick := time.NewTicker(quietFor)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			p.clear()
			return
		case <-tick.C:
		}
		if line := text(); ctx.Err() == nil {
			p.show(line)
		}
		if !p.terminal {
			return
		}
	}
}

// show prints a line, or puts it in place of the one before.
func (p *progress) show(line string) {
	if !p.terminal {
		fmt.Fprintf(p.out, "keyturn: note: %s\n", line)
		return
	}
	const width = 79 // a longer line would wrap, and could not be replaced
	if len(line) > width {
		line = line[:width-3] + "..."
	}
	fmt.Fprintf(p.out, "\r\x1b[K%s", line)
	p.drawn = true
}

// clear removes the line from a terminal.
func (p *progress) clear() {
	if p.drawn {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.drawn = false
	}
}
