// The command faults breaks real Redis servers while a fleet of instances signs tokens, verifies
// them and rotates its keys. It counts what goes wrong and writes docs/faults.md:
//
//	go run ./bench/faults              # all faults, about 45 minutes
//	go run ./bench/faults -only cut    # the faults whose name contains "cut"; writes no page
//	go run ./bench/faults -list
//
// It needs redis-server, and exits with 1 if a promise was broken. -seed chooses the instances that
// a fault strikes, and how long it lasts. A run cannot be repeated exactly, because real servers
// are killed.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/internal/redistest"
)

func main() {
	redis.SetLogger(discardLogger{})
	if racer := os.Getenv(raceVariable); racer != "" {
		exitOn(runRacer(racer))
		return
	}
	only := flag.String("only", "", "run the faults whose name contains `TEXT`, and write no file")
	list := flag.Bool("list", false, "list the faults, and run none")
	out := flag.String("out", "docs/faults.md", "the `file` to write")
	atOnce := flag.Int("parallel", 3, "how many faults run at once")
	attack := flag.Duration("attack", 10*time.Minute, "how long an adversary writes to Redis")
	verbose := flag.Bool("v", false, "show what the instances log")
	o := options{pace: fast, guests: 3, logouts: inAll, log: slog.New(slog.DiscardHandler)}
	flag.Uint64Var(&o.seed, "seed", 1, "chooses the instances that a fault strikes, and how long it lasts")
	flag.IntVar(&o.tokens, "tokens", 25_000, "how many tokens are signed under each fault at least")
	flag.IntVar(&o.rate, "rate", 500, "how many tokens are signed a second")
	flag.Parse()
	if *verbose {
		o.log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	if *list {
		for _, s := range scenarios {
			fmt.Printf("%-14s%s\n", s.name, s.title)
		}
		fmt.Printf("%-14s%s\n", "adversary", "an adversary writes to Redis")
		fmt.Printf("%-14s%s\n", "logouts", "an adversary writes to the lists of revocations")
		return
	}
	exitOn(redistest.Missing())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	r := &report{when: time.Now(), command: "go run ./bench/faults", attack: *attack}
	if len(os.Args) > 1 {
		r.command += " " + strings.Join(os.Args[1:], " ")
	}
	err := r.run(ctx, o, *only, *atOnce)
	if *only != "" {
		r.write(os.Stdout)
	} else if ctx.Err() == nil {
		err = errors.Join(err, writeFile(*out, r.write))
	}
	exitOn(err)
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(1)
	}
}

func writeFile(name string, write func(io.Writer)) error {
	var text bytes.Buffer
	write(&text)
	return os.WriteFile(name, text.Bytes(), 0o644)
}

// run runs the faults whose name contains only, several at once. If only is "", it then runs the
// race and the measurement, each alone. Its error says which promises were broken.
func (r *report) run(ctx context.Context, o options, only string, parallel int) (err error) {
	r.redis, r.load = redisVersion(), load()
	for i := range scenarios {
		if strings.Contains(scenarios[i].name, only) {
			r.rows = append(r.rows, row{scenario: &scenarios[i]})
		}
	}
	runRows(ctx, r.rows, o, parallel, func(x *row) { fmt.Fprintln(os.Stderr, x.line(time.Since(r.when))) })
	if err := ctx.Err(); err != nil {
		return err
	}
	var errs []error
	for i := range r.rows {
		errs = append(errs, r.rows[i].broken())
	}
	if only == "" {
		errs = append(errs, r.runAlone(ctx))
	}
	if strings.Contains("adversary", only) {
		errs = append(errs, r.runAdversary(ctx, o))
	}
	if strings.Contains("logouts", only) {
		errs = append(errs, r.runLogoutAdversary(ctx, o))
	}
	r.took = time.Since(r.when)
	return errors.Join(errs...)
}

// runAlone runs the race, the measurement while Redis hangs, the flipped bits, the newcomer and the
// forced rotations, one after the other.
func (r *report) runAlone(ctx context.Context) error {
	fmt.Fprintln(os.Stderr, "a race of rotators")
	race, err := race(ctx, 10)
	r.race = &race
	if err == nil && race.Twice > 0 {
		err = fmt.Errorf("race: %+v", race)
	}
	fmt.Fprintln(os.Stderr, "verifying while Redis hangs")
	var err2 error
	r.away, err2 = measureAway(ctx, 10)
	fmt.Fprintln(os.Stderr, "every bit of a ring is flipped")
	bits, err3 := flipBits(ctx, 128, true, 10*time.Second)
	r.bits = &bits
	fmt.Fprintln(os.Stderr, "a newcomer that may make rings")
	bootstrapped, err4 := bootstrap(ctx, 20_000, fast.slower(8), 0)
	r.bootstrap = &bootstrapped
	fmt.Fprintln(os.Stderr, "keys are forced to sign around failovers")
	forced, err5 := forcedRotations(ctx, 1000, 3, forcedPace(), 1, func(int, forcedResult) {})
	r.forced = &forced
	return errors.Join(err, err2, err3, err4, err5, bits.broken(), bootstrapped.broken(), forced.broken())
}

// runAdversary lets an adversary write to the Redis of a fleet, alone.
func (r *report) runAdversary(ctx context.Context, o options) error {
	fmt.Fprintln(os.Stderr, "an adversary, for", r.attack)
	o.pace = hostilePace(hostileLife)
	result, err := underAttack(ctx, o, moves, r.attack)
	r.hostile = &result
	for _, note := range result.Notes {
		fmt.Fprintln(os.Stderr, "     ", note)
	}
	return errors.Join(err, result.broken())
}

// runLogoutAdversary lets an adversary write to the lists of a fleet, alone.
func (r *report) runLogoutAdversary(ctx context.Context, o options) (err error) {
	fmt.Fprintln(os.Stderr, "an adversary of users, for", r.attack)
	if r.logouts, err = underLogoutAttack(ctx, o, logoutMoves, r.attack); r.logouts == nil {
		return err
	}
	for _, note := range r.logouts.notes() {
		fmt.Fprintln(os.Stderr, "     ", note)
	}
	return errors.Join(err, r.logouts.broken())
}

// runRows runs the scenarios of the rows, several at once. It calls ended for each that has ended.
func runRows(ctx context.Context, rows []row, o options, parallel int, ended func(*row)) {
	var wg sync.WaitGroup
	defer wg.Wait()
	var telling sync.Mutex
	free := make(chan struct{}, parallel)
	for i := range rows {
		free <- struct{}{}
		if rows[i].err = ctx.Err(); rows[i].err != nil {
			return
		}
		wg.Go(func() {
			defer func() { <-free }()
			x := &rows[i]
			x.count, x.notes, x.err = x.scenario.run(ctx, o)
			telling.Lock()
			defer telling.Unlock()
			ended(x)
		})
	}
}

// line returns the result of a run in one line, and a line for each note.
func (x *row) line(after time.Duration) string {
	c := &x.count
	line := fmt.Sprintf("%4.0fs %-13s%2d strikes, %d tokens, %d verifications, %d false rejects, %d not signed, %d unavailable; %d guests, %d shredded, %d restarts; %d revoked, %d late, %d forgotten, %d refused", after.Seconds(), x.scenario.name,
		c.Strikes, c.Signed, c.Verified, c.RejectedFresh+c.Rejected, c.Fenced+c.NoSigner+c.Unsure, c.Unavailable+c.UnavailFresh, c.Ops.Imported, c.Ops.Shredded, c.Ops.Restarts,
		c.Logouts.Revoked, c.Logouts.Late, c.Logouts.Forgotten, c.Logouts.Refused)
	for _, notes := range x.notes {
		line += "\n      " + notes
	}
	if x.err != nil {
		line += "\n      " + x.err.Error()
	}
	return line
}

// broken returns an error if the run broke a promise, or failed.
func (x *row) broken() error {
	if x.err != nil || !x.count.bad() {
		return x.err
	}
	c := &x.count
	return fmt.Errorf("%s: %d false rejects by fresh instances, %d tokens of keys that a fresh instance lacked, %d places minted twice; %v; of users %d late, %d forgotten, %d refused",
		x.scenario.name, c.RejectedFresh, c.Lacking, c.TwiceInLife, &c.Ops, c.Logouts.Late, c.Logouts.Forgotten, c.Logouts.Refused)
}

// redisVersion returns the version of redis-server, such as 7.0.15.
func redisVersion() string {
	out, _ := exec.Command("redis-server", "--version").Output()
	for word := range strings.FieldsSeq(string(out)) {
		if version, ok := strings.CutPrefix(word, "v="); ok {
			return version
		}
	}
	return "of an unknown version"
}
