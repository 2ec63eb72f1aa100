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

// A row is the result of one scenario: one line of each table.
type row struct {
	scenario *scenario
	count    count
	notes    []string
	err      error
}

// A report is the result of a whole run.
type report struct {
	when    time.Time
	took    time.Duration
	command string
	redis   string
	load    string
	rows    []row
	race    *raceResult
	away    []awayResult
	attack  time.Duration // how long the adversary writes
	hostile *hostileResult
	logouts *logoutAttack

	bits      *bitsResult
	bootstrap *bootstrapResult
	forced    *forcedResult
}

func (r *report) write(w io.Writer) {
	fmt.Fprintf(w, head, r.when.UTC().Format(time.DateOnly), machine(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(), r.redis,
		r.took.Round(time.Second), r.load, r.command)
	r.writePromises(w)
	r.writeCosts(w)
	r.writeOps(w)
	r.writeRevocations(w)
	r.writeLogouts(w)
	r.writeRace(w)
	r.writeAway(w)
	if r.bits != nil {
		r.bits.write(w)
	}
	if r.bootstrap != nil {
		r.bootstrap.write(w)
	}
	if r.forced != nil {
		r.forced.write(w)
	}
	if r.hostile != nil {
		r.hostile.write(w)
	}
	if r.logouts != nil {
		r.logouts.write(w)
	}
	r.writeExpectations(w)
}

const head = `# Faults, on real Redis

<!-- Written by make faults. Do not edit: the next run overwrites it. -->

Measured %s on %s, %d cores, %s/%s, %s, Redis %s, in %s.
The machine's load average before the run was %s. On a busy machine polls miss their deadline, and
instances refuse to sign without a fault. To measure again, run
` + "`%s`" + ` from the root (` + "`make faults`" + `). It takes about 45 minutes and needs
` + "`redis-server`" + `. With ` + "`-only NAME`" + ` it runs some of the faults and writes no page.
` + "`go test ./bench/faults`" + ` runs a short version of each fault.

Six instances share five tenants (four HS256, one ES256). Each instance has its own keyring,
rotator, signer and verifiers, and its own proxy before each Redis server. Their clocks are off by
up to ±200 ms (ClockSkew is 250 ms). A key is published 4.5 s before it signs, and signs for 6 s. A
token lives for 3 s, and the leeway is 1 s. An instance polls every 250 ms with a deadline of 450
ms. After a good sync it is in sync for 2.25 s and signs for 3 s. In the tables, *fresh* means in
sync.

A fault strikes again and again, at random times, until enough tokens are signed. Meanwhile keys are
also rotated by hand and replaced, policies are set, and backups of up to a minute ago are restored.
A random instance signs each token. Random instances verify it at once, at two random ages, and in
the last quarter of a second in which the verifier must accept it: until its exp and the leeway, by
the verifier's own clock. Every other token is verified with a cache. An instance counts as fresh if
it says so right before and right after.

`

// writePromises writes the table of the counts that must be zero.
func (r *report) writePromises(w io.Writer) {
	fmt.Fprint(w, "## What must be zero\n\n",
		"*False rejects*: unexpired tokens of unrevoked keys that an instance rejected (401). *Unknown key*:\n",
		"tokens signed by a key that a fresh instance did not have. *Minted twice*: places in a ring for\n",
		"which two keys were minted in one life of the store.\n\n",
		"| fault | strikes | tokens | verifications | false rejects, fresh | unknown key | minted twice | false rejects, not fresh |\n",
		"|---|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, x := range r.rows {
		c := &x.count
		fmt.Fprintf(w, "| %s | %d | %d | %d | %s | %s | %s | %d |\n", x.scenario.title, c.Strikes, c.Signed, c.Verified,
			zero(c.RejectedFresh), zero(c.Lacking), zero(c.TwiceInLife), c.Rejected)
	}
	fmt.Fprintln(w)
}

// zero prints a count that must be zero, in bold if it is not.
func zero(n int) string {
	if n == 0 {
		return "0"
	}
	return fmt.Sprintf("**%d**", n)
}

// writeCosts writes the table of what the faults cost.
func (r *report) writeCosts(w io.Writer) {
	fmt.Fprint(w, "## What it costs\n\n",
		"*503*: unexpired tokens that an instance could not decide. *Fenced*, *no signer*: refusals to sign,\n",
		"ErrFenced and ErrNoSigner. *Rotations*: keys that began to sign; *by hand*: those of them by a\n",
		"command. *Lost mints*: keys that the store lost. *Other life*: places for which two lives of the\n",
		"store have different keys. *Repairs*: rings to which an instance restored something. *Resyncs*:\n",
		"buckets that an instance read again as a whole. *Fresh again*: the longest time from a fault's end\n",
		"until all instances were in sync. It is microseconds if no instance had noticed the fault yet, or\n",
		"all had recovered.\n\n",
		"| fault | 503, fresh | 503, not fresh | fenced | no signer | of both, fresh | rotations | by hand | lost mints | other life | repairs | resyncs | fresh again |\n",
		"|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, x := range r.rows {
		c := &x.count
		fmt.Fprintf(w, "| %s | %d | %d | %d | %d | %d | %d | %d | %d | %d | %d | %d | %s |\n", x.scenario.title, c.UnavailFresh, c.Unavailable,
			c.Fenced, c.NoSigner, c.FreshRefused, c.Rotations, c.ByHand, c.LostMints, c.Twice-c.TwiceInLife, c.Repairs, c.Resyncs, round(c.Healed))
	}
	fmt.Fprintln(w)
}

// round prints a duration with three digits.
func round(d time.Duration) string {
	unit := time.Nanosecond
	for d/unit >= 1000 {
		unit *= 10
	}
	text := d.Round(unit).String()
	number := strings.TrimRight(text, "nµms")
	return number + " " + text[len(number):]
}

func (r *report) writeRevocations(w io.Writer) {
	fmt.Fprintf(w, "## Revocations\n\nThe time from the commit in Redis until an instance rejects a token that it has in its cache. One\npoll takes at most %v.\n\n"+
		"| | measured | median | longest |\n|---|--:|--:|--:|\n", fast.onePoll())
	for _, x := range r.rows {
		if len(x.count.Revoked) > 0 {
			writeTimes(w, x.scenario.title, x.count.Revoked)
			writeTimes(w, x.scenario.title+": until an instance shows that a ring was destroyed", x.count.Ops.Heard)
		}
	}
	fmt.Fprintln(w)
}

// writeTimes writes a row of the table of the revocations.
func writeTimes(w io.Writer, title string, took []time.Duration) {
	if took = slices.Sorted(slices.Values(took)); len(took) > 0 {
		fmt.Fprintf(w, "| %s | %d | %s | %s |\n", title, len(took), round(took[len(took)/2]), round(took[len(took)-1]))
	}
}

func (r *report) writeRace(w io.Writer) {
	if r.race == nil {
		return
	}
	fmt.Fprintf(w, "## A race\n\n%d rotators in %d processes share one tenant. Its pending key is revoked %d times. Each time all of\n"+
		"them hear of that in the same instant, and the next key is due. The store has logged %d mints,\n"+
		"including the scheduled ones, and **%d** places were minted twice.\n\n",
		racers*racersInOne, racers, r.race.Rounds, r.race.Mints, r.race.Twice)
}

func (r *report) writeAway(w io.Writer) {
	if len(r.away) == 0 {
		return
	}
	fmt.Fprint(w, "## Verifying while Redis hangs\n\nThe time to verify a token of a known key. Half a second with Redis up alternates with half a second\n",
		"in which a proxy swallows everything, so that a poll hangs most of the time\n",
		"(`go test -bench Blackholed -run '^$' ./bench/faults`).\n\n",
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

func (r *report) writeExpectations(w io.Writer) {
	fmt.Fprint(w, "## The expectation of each fault, and why\n")
	for _, x := range r.rows {
		fmt.Fprintf(w, "\n**%s** (`%s`).\n%s\n", capital(x.scenario.title), x.scenario.name, x.scenario.text)
	}
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// load returns the machine's load average of the last minute, if the system tells it.
func load() string {
	text, _ := os.ReadFile("/proc/loadavg")
	if one, _, ok := strings.Cut(string(text), " "); ok {
		return one
	}
	return "unknown"
}

// machine returns the processor's name, if the system tells it.
func machine() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "an unnamed processor"
}
