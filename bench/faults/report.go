package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// A row is one line of the tables.
type row struct {
	scenario *scenario
	count    count
	said     []string
	err      error
}

// A report is all that a run has measured.
type report struct {
	when    time.Time
	took    time.Duration
	command string
	redis   string
	load    string
	rows    []row
	race    *raceResult
	away    []awayResult
}

func (r *report) write(w io.Writer) {
	fmt.Fprintf(w, head, r.when.UTC().Format(time.DateOnly), machine(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(), r.redis,
		r.took.Round(time.Second), r.load, r.command)
	r.zero(w)
	r.cost(w)
	r.revocations(w)
	r.raced(w)
	r.verified(w)
	r.expected(w)
}

const head = `# Faults, on real Redis

<!-- Written by make faults. Do not edit: the next run overwrites it. -->

Measured %s on %s, %d cores, %s/%s, %s, Redis %s, in %s, the machine's load average before
the run %s: on a busy one polls miss their deadline, and instances refuse to sign without a fault. To measure again, from the root: ` + "`%s`" + `
(` + "`make faults`" + `; it takes about ten minutes and needs ` + "`redis-server`" + `). ` + "`-only NAME`" + ` runs some of
the faults, and then writes nothing. ` + "`go test ./bench/faults`" + ` runs a short version of each.

Six instances, each with its own keyring, rotator, signer and verifiers, and its own proxies before each Redis server, share
five tenants (four HS256, one ES256). Their clocks are off by up to ±200 ms (ClockSkew is 250 ms). Keys sign for 6 s and
are published 4.5 s before; tokens live for 3 s, and one more of leeway; an instance polls every 250 ms with a deadline of
450 ms, is fresh for 2.25 s after a good sync, and signs for 3 s. A fault strikes again and again, at random times, until
enough tokens are signed, while keys are also turned by hand. A token is signed by a random instance, and verified by random
instances at once, at two random ages, and in the last quarter of a second in which the verifier has to accept it: until its
exp and the leeway, by the verifier's own clock. Every other token is verified with a cache. An instance counts as fresh if it
says so right before and right after.

`

// zero has what must not happen.
func (r *report) zero(w io.Writer) {
	fmt.Fprint(w, "## What must be zero\n\n",
		"*False rejects*: unexpired tokens of unrevoked keys that were refused (401). *Unknown key*: tokens signed by a key that a\n",
		"fresh instance did not have. *Minted twice*: places in a ring for which two keys were minted in one life of the store.\n\n",
		"| fault | strikes | tokens | verifications | false rejects, fresh | unknown key | minted twice | false rejects, not fresh |\n",
		"|---|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, x := range r.rows {
		c := &x.count
		fmt.Fprintf(w, "| %s | %d | %d | %d | %s | %s | %s | %d |\n", x.scenario.title, c.Strikes, c.Signed, c.Verified,
			zero(c.RejectedFresh), zero(c.Lacking), zero(c.TwiceInLife), c.Rejected)
	}
	fmt.Fprintln(w)
}

func zero(n int) string {
	if n == 0 {
		return "0"
	}
	return fmt.Sprintf("**%d**", n)
}

// cost has what the faults cost.
func (r *report) cost(w io.Writer) {
	fmt.Fprint(w, "## What it costs\n\n",
		"*503*: unexpired tokens of which an instance could not tell. *Fenced*, *no signer*: refusals to sign, ErrFenced\n",
		"and ErrNoSigner. *Rotations*: keys that took over, of them by hand. *Lost mints*: keys that the store had, and lost. *Other life*: places for which another life of the\n",
		"store has another key. *Repairs*: rings into which something was merged back. *Resyncs*: buckets that were read again as a whole.\n",
		"*Fresh again*: the longest from a fault's end until all instances were fresh; microseconds where none had noticed yet, or all had recovered.\n\n",
		"| fault | 503, fresh | 503, not fresh | fenced | no signer | of both, fresh | rotations | by hand | lost mints | other life | repairs | resyncs | fresh again |\n",
		"|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, x := range r.rows {
		c := &x.count
		fmt.Fprintf(w, "| %s | %d | %d | %d | %d | %d | %d | %d | %d | %d | %d | %d | %s |\n", x.scenario.title, c.UnavailFresh, c.Unavailable,
			c.Fenced, c.NoSigner, c.FreshRefused, c.Rotations, c.ByHand, c.LostMints, c.Twice-c.TwiceInLife, c.Repairs, c.Resyncs, round(c.Healed))
	}
	fmt.Fprintln(w)
}

// round keeps three digits.
func round(d time.Duration) string {
	unit := time.Nanosecond
	for d/unit >= 1000 {
		unit *= 10
	}
	text := d.Round(unit).String()
	number := strings.TrimRight(text, "nµms")
	return number + " " + text[len(number):]
}

func (r *report) revocations(w io.Writer) {
	fmt.Fprintf(w, "## Revocations\n\nFrom the commit in Redis until an instance refuses a token that it has in its cache. One poll is at most %v.\n\n"+
		"| | measured | median | longest |\n|---|--:|--:|--:|\n", fast.onePoll())
	for _, x := range r.rows {
		if took := slices.Sorted(slices.Values(x.count.Revoked)); len(took) > 0 {
			fmt.Fprintf(w, "| %s | %d | %s | %s |\n", x.scenario.title, len(took), round(took[len(took)/2]), round(took[len(took)-1]))
		}
	}
	fmt.Fprintln(w)
}

func (r *report) raced(w io.Writer) {
	if r.race == nil {
		return
	}
	fmt.Fprintf(w, "## A race\n\n%d rotators in %d processes share one tenant. Its pending key is revoked, which all of them hear of in the\n"+
		"same instant, and the next is due: %d times. The store has logged %d mints, scheduled ones included, and **%d** of one place twice.\n\n",
		racers*racersInOne, racers, r.race.Rounds, r.race.Mints, r.race.Twice)
}

func (r *report) verified(w io.Writer) {
	if len(r.away) == 0 {
		return
	}
	fmt.Fprint(w, "## Verifying while Redis hangs\n\nTokens of known keys, in turns of half a second with Redis up and with a proxy that swallows all, so that\n",
		"a poll hangs most of the time (`go test -bench Blackholed -run '^$' ./bench/faults`).\n\n",
		"| | p50, up | p50, away | p99, up | p99, away | p99: times as long | verifications | polls that failed |\n|---|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, a := range r.away {
		name := "cache off"
		if a.Cached {
			name = "cached"
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %.2f | %d | %d |\n", name, round(a.Up.p50), round(a.Away.p50), round(a.Up.p99), round(a.Away.p99),
			a.p99Ratio(), a.Up.n+a.Away.n, a.Failures)
	}
	fmt.Fprintln(w)
}

func (r *report) expected(w io.Writer) {
	fmt.Fprint(w, "## What is expected, and why\n")
	for _, x := range r.rows {
		fmt.Fprintf(w, "\n**%s** (`%s`). %s\n", capital(x.scenario.title), x.scenario.name, x.scenario.text)
	}
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// load is the machine's load average of the last minute, where the system says.
func load() string {
	text, _ := os.ReadFile("/proc/loadavg")
	if one, _, ok := strings.Cut(string(text), " "); ok {
		return one
	}
	return "unknown"
}

// machine names the processor, where the system says.
func machine() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "an unnamed processor"
}
