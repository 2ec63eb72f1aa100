package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
)

const shredLong = `shred destroys the keys of one tenant, and cannot be undone. All instances in reach
refuse its tokens in seconds, live ones too, as those of an unknown key (401). No
instance, dump or backup brings a key back. The name stays taken: "keyturn keys create"
refuses it without --again. --confirm repeats the name of the tenant.

It removes the keys from Redis, and no copy of them from elsewhere: backups, dumps,
snapshots, replicas that are away, and the memory of processes still have them, sealed,
and the KEK opens them.

With --after-drain it first waits until the last token has ended that was signed by now,
and changes nothing before that. It cannot see whether a program still signs: stop that
first, or those tokens end with the shred. Ctrl-C ends the wait, and nothing is changed.

A ring of which a part cannot be opened is destroyed too; one of which nothing can be
opened only with --force, since the KEK may be that of another service; and so is one
that may have been destroyed before, by a newer keyturn or under another KEK. Shredding a
tenant again removes what has come back since, as from a dump.

` + waitHelp + `

With --dry-run it changes nothing, and says what it would end. With --json it prints
{"tenant","destroyed_at","committed_at","worst_case","readers_until","keys","acks",
"undone","waited"}: "keys" is how many keys verified tokens before; until "worst_case" an
instance that hears of nothing accepts tokens. "committed_at" is null if nothing was
changed. The others are those of "keyturn keys revoke --help". If it is refused, or cannot
be told: {"ok":false,"error","from"}.`

// A shredCommand destroys a tenant's ring.
type shredCommand struct {
	*keysCommand
	confirm            *option[string]
	afterDrain, dryRun bool
}

func newKeysShred(a *app) *cobra.Command {
	c := &shredCommand{confirm: &option[string]{kind: "TENANT", parse: parseTenant}}
	var cmd *cobra.Command
	c.keysCommand, cmd = newKeysCommand(a, "shred --redis URL --tenant TENANT --confirm TENANT [--after-drain] [--dry-run]", "Destroy the keys of a tenant who leaves", shredLong,
		`  keyturn keys shred --redis redis://localhost:6379 --kek-file kek --tenant acme --confirm acme --dry-run
  keyturn keys shred --redis redis://localhost:6379 --kek-file kek --tenant acme --confirm acme --after-drain`)
	describeTenant(cmd, "the tenant whose keys are destroyed; required", "")
	cmd.Flags().Var(c.confirm, "confirm", "the same name once more; required")
	cmd.Flags().BoolVar(&c.afterDrain, "after-drain", false, "wait first until the last token that was signed by now has ended")
	cmd.Flags().BoolVar(&c.dryRun, "dry-run", false, "change nothing; say what would end")
	cmd.Flags().BoolVar(&c.force, "force", false, "destroy a ring of which nothing can be opened, or not how often it was destroyed before")
	c.waits.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return c.run(cmd.Context()) }
	return cmd
}

// check refuses flags that leave it open which tenant is meant.
func (c *shredCommand) check() error {
	switch {
	case !c.tenant.given:
		return usagef("--tenant is missing: say whose keys are destroyed")
	case !c.confirm.given:
		return usagef("--confirm is missing: this cannot be undone, so repeat the tenant's name: --confirm %s", quoteShort(c.tenant.value))
	case c.confirm.value != c.tenant.value:
		return usagef("--confirm %s is not --tenant %s: nothing was destroyed", quoteShort(c.confirm.value), quoteShort(c.tenant.value))
	}
	return c.waits.check()
}

func (c *shredCommand) run(ctx context.Context) error {
	if err := c.check(); err != nil {
		return err
	}
	if c.afterDrain && !c.dryRun {
		if err := c.drain(ctx); err != nil {
			return c.answer(err)
		}
	}
	return c.answer(c.withRotator(ctx, settleRing, c.shred))
}

// drain waits until the last token has ended that was signed by now. Then the caller reads the ring
// again: another command may have destroyed it meanwhile.
func (c *shredCommand) drain(ctx context.Context) error {
	begin, until := c.now(), time.Time{}
	err := c.withRing(ctx, &c.ring, c.tenant.value, func(_ context.Context, k *rotation.Keyring) error {
		status, err := k.Tenant(c.tenant.value)
		until = status.Ring.DrainedAt(begin)
		return err
	})
	if err != nil || !until.After(begin) {
		return err
	}
	c.note("waiting until %s (%s), when the last token has ended that was signed by now; nothing is changed before that", stamp(until), since(until, begin))
	ctx, stop := interruptible(ctx)
	defer stop()
	for left := until.Sub(c.now()); left > 0; left = until.Sub(c.now()) {
		select {
		case <-ctx.Done():
			return exitf(exitNo, "the wait for the last token was ended: nothing was destroyed")
		case <-time.After(min(left, time.Second)): // not longer, since the machine may sleep
		}
	}
	return nil
}

// shred makes the change, and prints its receipt.
func (c *shredCommand) shred(ctx context.Context, o *opened) error {
	before, err := o.keyring.Tenant(c.tenant.value)
	if err != nil {
		return err
	}
	waiting, stop := interruptible(ctx) // from here on the user is told what was done
	defer stop()
	var opts []rotation.Option
	if c.force {
		opts = append(opts, rotation.Force)
	}
	if c.dryRun {
		opts = append(opts, rotation.DryRun)
	}
	receipt, err := c.destroy(ctx, o.rotator, opts)
	if errors.Is(err, keystore.ErrNotFound) {
		return noRing(c.tenant.value)
	}
	if err != nil {
		return err
	}
	timing := rotation.Policy{}.WithDefaults()
	if len(before.Ring.Keys) > 0 {
		timing = newestTiming(before.Ring)
	}
	w := watcher{keysCommand: c.keysCommand, rotator: o.rotator, receipt: receipt, timing: timing, limit: c.waits.limit(timing)}
	return (&shredPrinter{receiptPrinter{watcher: w, revoking: true}, before, c.dryRun, c.afterDrain}).print(waiting)
}

func (c *shredCommand) destroy(ctx context.Context, r *rotation.Rotator, opts []rotation.Option) (rotation.Receipt, error) {
	ctx, cancel := context.WithTimeout(ctx, ringTime)
	defer cancel()
	return r.Destroy(ctx, c.tenant.value, opts...)
}

// A shredPrinter prints a shred, and which instances have applied it.
type shredPrinter struct {
	receiptPrinter
	before rotation.TenantStatus
	dryRun bool
	drains bool // it would wait first until the last token has ended that was signed by now
}

// A shredJSON is what --json prints about a shred.
type shredJSON struct {
	Tenant       string     `json:"tenant"`
	DestroyedAt  *string    `json:"destroyed_at"`
	CommittedAt  *string    `json:"committed_at"`
	WorstCase    *string    `json:"worst_case"`
	ReadersUntil *string    `json:"readers_until,omitempty"` // of public keys alone
	Keys         int        `json:"keys"`
	Acks         *[]ackJSON `json:"acks"`
	Undone       bool       `json:"undone"`
	Waited       float64    `json:"waited"` // in seconds
}

// print prints the receipt, waits for the instances that live, and prints which have applied the shred.
func (p *shredPrinter) print(ctx context.Context) error {
	made := !p.receipt.CommittedAt.IsZero()
	if !p.json {
		if err := p.keysCommand.print(p.text()); err != nil || !made {
			return err
		}
	}
	seen := watched{}
	if made {
		seen = p.see(ctx)
	}
	p.printed = true
	text := p.rosterText(&seen)
	if p.json {
		text = p.object(&seen)
	}
	if err := p.keysCommand.print(text); err != nil || !made {
		return err
	}
	return p.settled(&seen)
}

func (p *shredPrinter) object(seen *watched) string {
	r := &p.receipt
	o := shredJSON{Tenant: r.Tenant, DestroyedAt: when(r.DestroyedAt), CommittedAt: when(r.CommittedAt), WorstCase: when(r.WorstCase), ReadersUntil: when(r.ReadersUntil),
		Keys: p.verifying(), Undone: seen.undone, Waited: seen.waited.Round(time.Millisecond).Seconds()}
	if !r.CommittedAt.IsZero() && (seen.err == nil || len(seen.acks) > 0) {
		roster := acksJSON(seen.acks)
		o.Acks = &roster
	}
	return toJSON(o)
}

// keys says how many keys verified tokens before.
func (p *shredPrinter) keys() string {
	text := countOf(p.verifying(), "key")
	if n := p.accepted(); n > 0 {
		text += fmt.Sprintf(" (%d accepted)", n)
	}
	return text
}

// accepted returns how many accepted keys verified tokens before.
func (p *shredPrinter) accepted() (n int) {
	for _, k := range p.before.Accepted {
		if k.Verifies(p.now()) {
			n++
		}
	}
	return n
}

// countOf returns a number of things in words for people.
func countOf(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// verifying returns how many keys verified tokens before, accepted ones included.
func (p *shredPrinter) verifying() (n int) {
	n = p.accepted()
	for _, k := range p.before.Ring.Keys {
		if k.Verifies() {
			n++
		}
	}
	return n
}

func (p *shredPrinter) text() string {
	var b strings.Builder
	r, now := &p.receipt, p.now()
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	switch {
	case r.CommittedAt.IsZero() && !r.DestroyedAt.IsZero():
		fmt.Fprintf(&b, "the ring of tenant %s was destroyed %s (%s): there is nothing to do\n", quoteShort(r.Tenant), since(r.DestroyedAt, now), stamp(r.DestroyedAt))
		return b.String()
	case p.dryRun:
		fmt.Fprintf(&b, "the ring of tenant %s would be destroyed; nothing was changed\n", quoteShort(r.Tenant))
		drained, when := p.before.Ring.DrainedAt(now), "at once"
		if p.drains {
			when = "after the wait"
		}
		line("ends", "%s, and every token that they signed, %s", p.keys(), when)
		if len(p.before.Ring.Keys) > 0 {
			line("drained", "the last token that is signed by now ends %s (%s)", since(drained, now), stamp(drained))
		}
		if p.drains && drained.After(now) {
			line("the wait", "nothing is changed before %s", stamp(drained))
		}
		if p.accepted() > 0 {
			line("accepted", "keys end too, and --after-drain does not wait for their tokens")
		}
	default:
		fmt.Fprintf(&b, "the ring of tenant %s is destroyed: %s, and every token that they signed\n", quoteShort(r.Tenant), p.keys())
		line("committed", "%s", r.CommittedAt.UTC().Format(milliseconds))
	}
	if !r.WorstCase.IsZero() {
		line("worst case", "until %s: an instance that is cut off and hears", stamp(r.WorstCase))
		line("", "of nothing may accept tokens until then")
	}
	if !r.ReadersUntil.IsZero() {
		line("readers", "of the JWK Set accept tokens until they read it again: until %s", stamp(r.ReadersUntil))
		line("", "where they can, and later where they cannot")
	}
	line("not erased", "backups, dumps, snapshots, replicas that are away and the memory")
	line("", "of processes: the KEK still opens the keys there")
	line("the name", `stays taken: "keyturn keys create --again" gives it another ring`)
	return b.String()
}

// destroyedRing returns an error for a tenant whose ring was destroyed.
func destroyedRing(tenant string, at time.Time) error {
	return exitf(exitNo, `the ring of tenant %s was destroyed%s: its tokens are refused, and "keyturn keys create --again" gives the name another ring`, quoteShort(tenant), onDate(at))
}

// onDate says when something happened, if that is known.
func onDate(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return " on " + stamp(at)
}
