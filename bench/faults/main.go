// The command faults breaks real Redis servers under a fleet that signs, verifies and
// turns its keys, counts what goes wrong, and writes docs/faults.md:
//
//	go run ./bench/faults              # all faults, about ten minutes
//	go run ./bench/faults -only cut    # those whose name contains "cut": prints, writes nothing
//	go run ./bench/faults -list
//
// It ends with 1 if a promise was broken, and needs redis-server. Nothing of it can be
// replayed exactly, as servers are killed for real; -seed chooses who is struck, and for
// how long.
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
	redis.SetLogger(silent{})
	if what := os.Getenv(raceVariable); what != "" {
		exitOn(asRacer(what))
		return
	}
	only := flag.String("only", "", "run the faults whose name contains `TEXT`, and write no file")
	list := flag.Bool("list", false, "say what there is, and run nothing")
	out := flag.String("out", "docs/faults.md", "the `file` to write")
	atOnce := flag.Int("parallel", 3, "how many faults run at once")
	verbose := flag.Bool("v", false, "show what the instances log")
	o := options{pace: fast, log: slog.New(slog.DiscardHandler)}
	flag.Uint64Var(&o.seed, "seed", 1, "chooses who is struck, and for how long")
	flag.IntVar(&o.tokens, "tokens", 25_000, "how many tokens are signed under each fault, at least")
	flag.IntVar(&o.rate, "rate", 500, "how many a second")
	flag.Parse()
	if *verbose {
		o.log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	if *list {
		for _, s := range scenarios {
			fmt.Printf("%-14s%s\n", s.name, s.title)
		}
		return
	}
	exitOn(redistest.Missing())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	r := &report{when: time.Now(), command: "go run ./bench/faults"}
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

// run runs the faults whose name contains only, several at once; then the race and the
// measurement alone. The error says what was broken.
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
		errs = append(errs, r.rest(ctx))
	}
	r.took = time.Since(r.when)
	return errors.Join(errs...)
}

// rest is what is not a fault.
func (r *report) rest(ctx context.Context) error {
	fmt.Fprintln(os.Stderr, "a race of rotators")
	race, err := race(ctx, 10)
	r.race = &race
	if err == nil && race.Twice > 0 {
		err = fmt.Errorf("race: %+v", race)
	}
	fmt.Fprintln(os.Stderr, "verifying while Redis hangs")
	var err2 error
	r.away, err2 = measureAway(ctx, 10)
	return errors.Join(err, err2)
}

// runRows runs scenarios, so many at once, and tells of each that has ended.
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
			x.count, x.said, x.err = x.scenario.run(ctx, o)
			telling.Lock()
			defer telling.Unlock()
			ended(x)
		})
	}
}

// line says how a run went.
func (x *row) line(after time.Duration) string {
	c := &x.count
	line := fmt.Sprintf("%4.0fs %-13s%2d strikes, %d tokens, %d verifications, %d false rejects, %d not signed, %d unavailable", after.Seconds(), x.scenario.name,
		c.Strikes, c.Signed, c.Verified, c.RejectedFresh+c.Rejected, c.Fenced+c.NoSigner+c.Unsure, c.Unavailable+c.UnavailFresh)
	for _, said := range x.said {
		line += "\n      " + said
	}
	if x.err != nil {
		line += "\n      " + x.err.Error()
	}
	return line
}

// broken reports which promise was broken, or that it could not be looked at.
func (x *row) broken() error {
	if x.err != nil || !x.count.bad() {
		return x.err
	}
	c := &x.count
	return fmt.Errorf("%s: %d false rejects by fresh instances, %d tokens of keys that a fresh instance lacked, %d places minted twice",
		x.scenario.name, c.RejectedFresh, c.Lacking, c.TwiceInLife)
}

// redisVersion returns the server's own, such as 7.0.15.
func redisVersion() string {
	out, _ := exec.Command("redis-server", "--version").Output()
	for word := range strings.FieldsSeq(string(out)) {
		if version, ok := strings.CutPrefix(word, "v="); ok {
			return version
		}
	}
	return "of an unknown version"
}
