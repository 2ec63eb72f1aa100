package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/backup"
	"github.com/keyturn/keyturn/rotation/ring"
)

const restoreLong = `restore merges the rings of a backup into Redis: all of them, or that of --tenant. It
writes over nothing and removes nothing, so it can be repeated, and instances may run
meanwhile. What Redis lacks is put back. What Redis or an instance knows better stays: a
key that was revoked or collected since, and a ring that was destroyed.

Revocations after the backup are not in it. If neither Redis nor an instance has them any
more, such a key is good again: revoke it again. The answer says of when the backup is.

Of a backup of more than 30 days only revocations, collections and destructions are put
back, since tenants may have been destroyed after it; --older puts back its keys too.

It needs the KEK that the rings were sealed under. If that is an older line of the file,
they are sealed under the KEK of the ring in Redis, or the first one. It is refused (exit
code 1) while a live instance lacks that KEK, and if the file is damaged. On a terminal it
asks first; --yes answers. --dry-run only says what would be put back.

Exit codes: 0 done, 1 refused, or keys were left out because the backup is old, 2 the
command line is not right, 3 Redis cannot be reached, or a ring cannot be read: the others
are restored.

With --json it prints {"taken_at","rings","restored","missed","failed","tenants"}:
"taken_at" is when the first ring was read, "missed" are the tenants whose ring the backup
lacks. "tenants" is an array of {"tenant","taken_at","put_back","better","left",
"ends_only","error"}, without those of which Redis has everything. "put_back" are fields,
such as k:KID, a key, or x:KID, its revocation: docs/formats.md lists them. "better" are
fields of Redis that the backup lacks and that end what it has, "left" the kids of keys
that stay away, and "ends_only" says that the backup is too old for its keys.`

// A restoreCommand restores a backup.
type restoreCommand struct {
	*keysCommand
	dryRun, older, yes bool
}

func newKeysRestore(a *app) *cobra.Command {
	c := new(restoreCommand)
	var cmd *cobra.Command
	c.keysCommand, cmd = newKeysCommand(a, "restore --redis URL [--tenant TENANT] [--dry-run] [--older] FILE", "Merge a backup into Redis", restoreLong,
		`  keyturn keys restore --redis redis://localhost:6379 --kek-file kek --dry-run rings.ktb
  keyturn keys restore --redis redis://localhost:6379 --kek-file kek rings.ktb`)
	cmd.Flags().BoolVar(&c.dryRun, "dry-run", false, "change nothing; say what would be put back")
	cmd.Flags().BoolVar(&c.older, "older", false, "put back the keys of a backup of more than 30 days too")
	cmd.Flags().BoolVar(&c.yes, "yes", false, "do not ask")
	describeTenant(cmd, "the tenant whose ring it is; all tenants without it", "")
	cmd.Args = wantBackup
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args[0]) }
	return cmd
}

// wantBackup is the [cobra.PositionalArgs] of restore.
func wantBackup(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) != 1:
		return usagef(`%d arguments where one FILE is wanted, that of "keyturn keys backup"; %s`, len(args), seeHelp(cmd))
	case args[0] == "" || args[0] == "-":
		return usagef("FILE is a name: the file is read twice, so standard input cannot be it; %s", seeHelp(cmd))
	}
	return nil
}

func (c *restoreCommand) run(ctx context.Context, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return usagef("FILE: cannot open it: %v", causeOf(err))
	}
	defer f.Close()
	file, err := c.survey(f)
	if err != nil {
		return c.answer(err)
	}
	s, err := c.connect(&c.ring)
	if err != nil {
		return err
	}
	defer s.store.close()
	if err := c.ask(file); err != nil {
		return err
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	r := &restoring{restoreCommand: c, session: s, file: file, out: bufio.NewWriter(c.stdout)}
	c.printed = true
	return c.answer(r.run(ctx, f))
}

// A surveyed is what a first reading of a backup has found. It holds no ring.
type surveyed struct {
	summary backup.Summary
	wanted  int             // rings that are to be restored
	dead    map[string]bool // tenants whose ring is destroyed
	missed  []missedRing
	first   time.Time // when the first ring was read, by the store's clock
}

// survey reads the whole file, so that nothing of a damaged one is restored.
func (c *restoreCommand) survey(f io.Reader) (*surveyed, error) {
	file := &surveyed{dead: make(map[string]bool)}
	var err error
	file.summary, err = c.eachEntry(f, func(e backup.Entry) error {
		if e.Missed != "" {
			file.missed = append(file.missed, missedRing{e.Tenant, printable(e.Missed, false)})
			return nil
		}
		file.wanted++
		if _, dead := e.Ring.Fields["dead"]; dead {
			file.dead[e.Tenant] = true
		}
		if file.first.IsZero() || e.Ring.Now.Before(file.first) {
			file.first = e.Ring.Now
		}
		return nil
	})
	switch {
	case err != nil:
	case c.tenant.given && file.wanted+len(file.missed) == 0:
		err = exitf(exitNo, "the backup has no ring of tenant %s", quoteShort(c.tenant.value))
	}
	return file, err
}

// eachEntry calls use with what a backup has of the tenants that are meant.
func (c *restoreCommand) eachEntry(f io.Reader, use func(backup.Entry) error) (backup.Summary, error) {
	in, err := backup.NewReader(f)
	for err == nil {
		var e backup.Entry
		if e, err = in.Next(); err == nil && (!c.tenant.given || e.Tenant == c.tenant.value) {
			err = use(e)
		}
	}
	switch {
	case err == io.EOF:
		return in.Summary(), nil
	case errors.Is(err, backup.ErrDamaged), errors.Is(err, backup.ErrNewer):
		return backup.Summary{}, exitf(exitNo, "%s: nothing is restored", printable(err.Error(), false))
	}
	if e := (*exitError)(nil); errors.As(err, &e) {
		return backup.Summary{}, e
	}
	return backup.Summary{}, exitf(exitCannotTell, "%s", printable(err.Error(), false))
}

// ask asks whether to go on, if a person is there to answer.
func (c *restoreCommand) ask(file *surveyed) error {
	in, ok := c.stdin.(*os.File)
	if c.yes || c.dryRun || !ok || !isTerminal(in) {
		return nil
	}
	fmt.Fprintf(c.stderr, "Merge %s of %s into the Redis of --redis? [y/N] ", countRings(file.wanted), stamp(file.first))
	answer, _ := bufio.NewReader(in).ReadString('\n')
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return exitf(exitNo, "nothing was restored")
	}
	return nil
}

// A restoring is one run of the command over the rings of a backup.
type restoring struct {
	*restoreCommand
	session *ringSession
	file    *surveyed
	out     *bufio.Writer

	done     atomic.Int64 // rings that were looked at, for the progress too
	restored int          // of them, those of which something was put back
	failed   int
	failure  string // the first
	tooOld   int    // rings with keys that were left out because the backup is old
	shown    int    // tenants in the array of --json
}

func (r *restoring) run(ctx context.Context, f io.ReadSeeker) error {
	if r.json {
		r.out.WriteString(`{"tenants":[`) // more tenants than memory may hold
	}
	stop := tellProgress(ctx, r.app, func() string {
		return fmt.Sprintf("%d of %s; Ctrl-C ends it, and it can be repeated", r.done.Load(), countRings(r.file.wanted))
	})
	// Destroyed rings come first: until Redis has that, one that holds such a ring can bring it back.
	var err error
	for _, dead := range []bool{true, false} {
		if _, err = f.Seek(0, io.SeekStart); err == nil && (!dead || len(r.file.dead) > 0) {
			err = r.pass(ctx, f, dead)
		}
		if err != nil {
			break
		}
	}
	stop()
	r.end()
	if r.out.Flush() != nil {
		return exitf(exitCannotTell, "cannot write the answer to standard output")
	}
	return r.outcome(err)
}

// pass restores the rings that were destroyed, or the others.
func (r *restoring) pass(ctx context.Context, f io.Reader, dead bool) error {
	var some []backup.Entry // of one bucket
	flush := func() error {
		err := r.restore(ctx, some)
		some = some[:0]
		return err
	}
	_, err := r.eachEntry(f, func(e backup.Entry) error {
		if e.Missed != "" || r.file.dead[e.Tenant] != dead {
			return nil
		}
		if len(some) > 0 && (len(some) == readAtOnce || rotation.BucketOf(some[0].Tenant) != rotation.BucketOf(e.Tenant)) {
			if err := flush(); err != nil {
				return err
			}
		}
		some = append(some, e)
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}

// restore merges rings, which are of one bucket. The error ends the run.
func (r *restoring) restore(ctx context.Context, some []backup.Entry) error {
	if len(some) == 0 {
		return nil
	}
	tenants := make([]string, len(some))
	for i, e := range some {
		tenants[i] = e.Tenant
	}
	k, err := r.session.openRings(ctx, tenants...)
	if err != nil && len(some) > 1 {
		for i := range some { // each may have a reason of its own
			if err := r.restore(ctx, some[i:i+1]); err != nil {
				return err
			}
		}
		return nil
	}
	if err != nil {
		return r.add(ctx, some[0], ring.Restored{}, openingError(err))
	}
	defer k.Close(context.WithoutCancel(ctx))
	rotator, err := rotation.NewRotator(k)
	if err != nil {
		return ringError(err)
	}
	return r.mergeAll(ctx, rotator, some)
}

// mergeAll merges rings, mergeAtOnce at once.
func (r *restoring) mergeAll(ctx context.Context, rotator *rotation.Rotator, some []backup.Entry) error {
	reports, errs := make([]ring.Restored, len(some)), make([]error, len(some))
	var wg sync.WaitGroup
	for first := range mergeAtOnce {
		wg.Go(func() {
			for i := first; i < len(some); i += mergeAtOnce {
				reports[i], errs[i] = r.merge(ctx, rotator, some[i])
			}
		})
	}
	wg.Wait()
	for i, e := range some {
		if err := r.add(ctx, e, reports[i], errs[i]); err != nil {
			return err
		}
	}
	return nil
}

// mergeAtOnce is how many rings are merged at once: each takes a few calls of Redis, one after the other.
const mergeAtOnce = 8

// merge merges one ring.
func (r *restoring) merge(ctx context.Context, rotator *rotation.Rotator, e backup.Entry) (ring.Restored, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ringTime)
	defer cancel()
	var opts []rotation.Option
	if r.dryRun {
		opts = append(opts, rotation.DryRun)
	}
	if r.older {
		opts = append(opts, rotation.Force)
	}
	report, _, err := rotator.Restore(ctx, e.Tenant, e.Ring, opts...)
	return report, err
}
