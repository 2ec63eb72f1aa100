package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/backup"
	"github.com/keyturn/keyturn/rotation/rediskeys"
)

const backupLong = `backup writes the rings to standard output, or to the file of --out, as Redis has them:
all rings, or that of --tenant. They stay sealed, so it needs no KEK, and without the
KEK the file is of no use. "keyturn keys restore" merges it back: keep the KEK
somewhere else, or both are lost at once. It changes nothing.

Each ring is read at one moment, and the rings one after the other. The file ends with
their number and a digest, so restore refuses one that is not whole. It is only there
under the name of --out once it is whole, and only its owner can read it.

Exit codes: 0 done, 1 the tenant has no ring, 2 the command line is not right, 3 Redis
cannot be reached, and there is no whole file; or a ring cannot be read, as one that is
too large: then the file has the others, and says which one is missing.

With --out, --json prints {"file","rings","missed","bytes","sha256","taken_at"}: "missed"
is an array of {"tenant","error"}, "sha256" the digest in the file's last 32 bytes.`

// A backupCommand writes a backup.
type backupCommand struct {
	*keysCommand
	out *option[string]

	read   atomic.Int64 // tenants that were looked at, for the progress
	missed []missedRing
}

// A missedRing is a tenant whose ring could not be read.
type missedRing struct {
	Tenant string `json:"tenant"`
	Error  string `json:"error"`
}

func newKeysBackup(a *app) *cobra.Command {
	c := &backupCommand{out: newPath()}
	var cmd *cobra.Command
	c.keysCommand, cmd = newKeysCommand(a, "backup --redis URL [--tenant TENANT] [--out FILE]", "Write the rings to a file, as they are sealed", backupLong,
		`  keyturn keys backup --redis redis://localhost:6379 --out rings.ktb
  keyturn keys backup --redis redis://localhost:6379 > rings.ktb`)
	cmd.Flags().Var(c.out, "out", "the file to write; standard output without it")
	describeTenant(cmd, "the tenant whose ring it is; all tenants without it", "")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return c.run(cmd.Context()) }
	return cmd
}

func (c *backupCommand) run(ctx context.Context) error {
	switch {
	case c.json && !c.out.given:
		return usagef("--json goes with --out: standard output has the backup")
	case !c.out.given && isTerminal(c.stdout):
		return usagef("a backup is no text for a terminal: give --out, or write it to a file with >")
	}
	s, err := c.connectWith(&c.ring, func() (*rotation.KEKs, error) { return nil, nil })
	if err != nil {
		return err
	}
	defer s.store.close()
	ctx, stop := interruptible(ctx)
	defer stop()
	var summary backup.Summary
	write := func(w io.Writer) error {
		summary, err = c.write(ctx, s, w)
		return err
	}
	if c.out.given {
		err = writeWhole(c.out.value, write)
	} else {
		err = write(c.stdout)
	}
	if err != nil {
		return c.failed(err)
	}
	return c.tell(summary)
}

// failed returns the words for a backup that was not made.
func (c *backupCommand) failed(err error) error {
	const none = "; there is no whole backup"
	if e := (*exitError)(nil); errors.As(err, &e) {
		if e.code == exitCannotTell {
			return exitf(e.code, "%s%s", e.text, none)
		}
		return e
	}
	return exitf(exitCannotTell, "the backup cannot be written: %s%s", printable(err.Error(), false), none)
}

// writeWhole makes the file of that name once write has written all of it. Until then another name, in
// the same folder, has the part that is written. Only its owner can read it.
func writeWhole(name string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*") // 0600
	if err != nil {
		return usagef("--out: cannot make a file in its folder: %v", causeOf(err))
	}
	defer os.Remove(f.Name()) // it is gone by then if all went well
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// readAtOnce is how many rings are read with one call. A ring has at most 1 MiB, and usually 3 KiB.
const readAtOnce = 64

// write writes the backup to w.
func (c *backupCommand) write(ctx context.Context, s *ringSession, w io.Writer) (backup.Summary, error) {
	walk, err := s.walk(ctx, c.tenant)
	if err != nil {
		return backup.Summary{}, err
	}
	if walk.unnamed > 0 {
		return backup.Summary{}, exitf(exitCannotTell, "the names of the tenants in %d of %d buckets cannot be read: %s",
			walk.unnamed, rotation.Buckets, printable(errorText(walk.why), false))
	}
	out, err := backup.NewWriter(w, c.now())
	if err != nil {
		return backup.Summary{}, err
	}
	stop := tellProgress(ctx, c.app, func() string { return fmt.Sprintf("%d of %s read", c.read.Load(), countRings(walk.count())) })
	defer stop()
	for _, tenants := range walk.buckets {
		for some := range slices.Chunk(tenants, readAtOnce) {
			if err := c.copy(ctx, s, out, some); err != nil {
				return backup.Summary{}, err
			}
			c.read.Add(int64(len(some)))
		}
	}
	if c.tenant.given && out.Summary().Rings+out.Summary().Missed == 0 {
		return backup.Summary{}, noRing(c.tenant.value)
	}
	return out.Close()
}

// copy writes the rings of tenants, which are of one bucket and sorted.
func (c *backupCommand) copy(ctx context.Context, s *ringSession, out *backup.Writer, tenants []string) error {
	snaps, err := load(ctx, s.store, tenants)
	if err != nil {
		return err
	}
	for i, tenant := range tenants {
		e := backup.Entry{Tenant: tenant, Ring: snaps[i]}
		switch {
		case snaps[i].Err != nil:
			e = backup.Entry{Tenant: tenant, Missed: printable(errorText(snaps[i].Err), false)}
			c.missed = append(c.missed, missedRing{tenant, e.Missed})
		case len(snaps[i].Fields) == 0:
			continue // only the name is there
		}
		if err := out.Add(e); err != nil {
			return err
		}
	}
	return nil
}

// load reads rings. A snapshot with an error is of a ring that cannot be read. The error says that
// Redis cannot be reached, although it was tried again: then nothing is known of any of them.
func load(ctx context.Context, s *store, tenants []string) ([]rotation.Snapshot, error) {
	for attempt := 1; ; attempt++ {
		snaps := loadOnce(ctx, s, tenants)
		i := slices.IndexFunc(snaps, func(s rotation.Snapshot) bool { return isAway(s.Err) })
		switch {
		case i < 0:
			return snaps, nil
		case ctx.Err() != nil:
			return nil, exitf(exitCannotTell, "interrupted")
		case attempt == 3:
			return nil, ringError(&rotation.Error{Kind: keystore.ErrUnavailable, Err: snaps[i].Err})
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(attempt) * 500 * time.Millisecond):
		}
	}
}

func loadOnce(ctx context.Context, s *store, tenants []string) []rotation.Snapshot {
	ctx, cancel := context.WithTimeout(ctx, ringTime)
	defer cancel()
	return s.Load(ctx, tenants)
}

// isAway reports whether an error is about Redis, and not about the one ring that was read.
func isAway(err error) bool {
	return err != nil && !errors.Is(err, rediskeys.ErrTooLarge) && !errors.Is(err, rediskeys.ErrWrongType)
}

// tell reports the backup that it has written.
func (c *backupCommand) tell(s backup.Summary) error {
	digest := hex.EncodeToString(s.Digest[:])
	if c.json {
		o := struct {
			File   string       `json:"file"`
			Rings  int          `json:"rings"`
			Missed []missedRing `json:"missed"`
			Bytes  int64        `json:"bytes"`
			SHA256 string       `json:"sha256"`
			Taken  *string      `json:"taken_at"`
		}{c.out.value, s.Rings, append([]missedRing{}, c.missed...), s.Bytes, digest, when(s.Taken)}
		if err := c.print(toJSON(o)); err != nil {
			return err
		}
	} else {
		c.note("%s in the backup, %d bytes, of %s; its digest is %s", countRings(s.Rings), s.Bytes, stamp(s.Taken), digest)
	}
	if len(c.missed) > 0 {
		return exitf(exitCannotTell, "the backup lacks %s, which cannot be read; that of tenant %s: %s", countRings(len(c.missed)), quoteShort(c.missed[0].Tenant), c.missed[0].Error)
	}
	return nil
}

// tellProgress shows on stderr what text returns, until stop is called.
func tellProgress(ctx context.Context, a *app, text func() string) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	p := &progress{out: a.stderr, terminal: isTerminal(a.stderr)}
	var wg sync.WaitGroup
	wg.Go(func() { p.run(ctx, text) })
	return func() { cancel(); wg.Wait() }
}
