package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/server"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

const keysLong = `keys makes and rotates the keys of a tenant's ring on Redis. A ring always has a key
that signs, and nearly always the next one, which is pending: published, so that
all verifiers know it before it signs. "keyturn serve", or a service that runs a
rotator, rotates the keys by itself; these commands are for the first ring, for a
look, and for the day on which a key has leaked.

` + ringForm + `

Exit codes: 0 done, and applied by every live instance, 1 refused (stderr says why
and, where waiting helps, from when on it is not), or no such ring or key, 2 the
command line is not right, 3 Redis cannot be reached, or what it holds cannot be
opened: then nothing was changed, unless stderr says otherwise; or Redis lost the
change, 4 done, but within --wait a live instance has not applied it, or none that
holds the ring has confirmed a revocation.`

// A keysCommand holds the flags of the commands under "keyturn keys".
type keysCommand struct {
	*app
	ring        ringFlags
	tenant      *option[string]
	policy      policyFlags
	again       bool // also of a tenant whose ring was destroyed
	waits       waitFlags
	json, force bool
	dryRun      bool
	printed     bool // the answer is on stdout, so that an error is not printed there

	// Of accept: the tenant need not have a ring, and until when the key is accepted.
	ringless bool
	until    time.Time
}

func newKeys(a *app) *cobra.Command {
	keys := &cobra.Command{
		Use:     "keys COMMAND --redis URL [--tenant TENANT] [KID]",
		Short:   "Make and rotate the keys of a ring on Redis",
		Long:    keysLong,
		Example: "  keyturn keys list --redis redis://localhost:6379 --tenant acme --kek-file kek",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return usagef("say what to do with the keys: %s; %s", commandNames(cmd), seeHelp(cmd))
		},
	}
	keys.SuggestionsMinimumDistance = 2
	keys.AddCommand(
		newKeysCreate(a),
		newKeysList(a),
		newKeysLog(a),
		newKeysRotate(a),
		newKeysPromote(a),
		newKeysRevoke(a),
		newKeysReplace(a),
		newKeysAccept(a),
		newKeysRekey(a),
		newKeysShred(a),
		newKeysImport(a),
		newKeysPolicy(a),
		newKeysBackup(a),
		newKeysRestore(a),
		newKeysACL(a),
	)
	return keys
}

// newKeysCommand returns a command under "keyturn keys", with the flags that all of them have.
func newKeysCommand(a *app, use, short, long, example string) (*keysCommand, *cobra.Command) {
	c := &keysCommand{app: a, ring: newRingFlags(), tenant: newRingTenant(), waits: newWaitFlags()}
	cmd := &cobra.Command{Use: use, Short: short, Long: long + "\n\n" + ringForm, Example: example, Args: wantNothing(kidHint)}
	c.ring.register(cmd, "the Redis that has the ring; required")
	cmd.Flags().Var(c.tenant, "tenant", "the tenant whose ring it is")
	cmd.Flags().BoolVar(&c.json, "json", false, "answer in one line of JSON")
	return c, cmd
}

func kidHint(string) string { return "only promote, revoke and replace take a KID" }

func newKeysCreate(a *app) *cobra.Command {
	c, cmd := newKeysCommand(a, "create --redis URL [--tenant TENANT]", "Make a tenant's first ring",
		`create makes a tenant's first ring: one key that signs now, and one that is
pending. If there is a ring already, it is refused (exit code 1). If Redis may have
lost the ring, as after a FLUSHALL, create first waits for the instances that hold it.
The name of a ring that "keyturn keys shred" destroyed is refused too, unless --again
says that the tenant is to have another one.

The policy is fixed with the ring. The defaults follow from --every; a policy that
would cost tokens is refused, with the inequality that does not hold.

`+waitHelp+`

With --json it prints the array that "keyturn keys list --help" describes: the key
that signs, and the pending one. If it is refused: {"ok":false,"error","from"},
where "from" is null: waiting does not help.`,
		`  keyturn keys create --redis redis://localhost:6379 --tenant acme --kek-file kek
  keyturn keys create --redis redis://localhost:6379 --tenant globex --kek-file kek --alg ES256 --every 7d`)
	c.policy = newPolicyFlags()
	c.policy.register(cmd)
	cmd.Flags().BoolVar(&c.again, "again", false, "make another ring of a tenant whose ring was destroyed")
	c.waits.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return c.create(cmd.Context()) }
	return cmd
}

func newKeysList(a *app) *cobra.Command {
	c, cmd := newKeysCommand(a, "list --redis URL [--tenant TENANT]", "Show all rings, or a tenant's keys, each with its life as a line",
		listLong, `  keyturn keys list --redis redis://localhost:6379 --kek-file kek
  keyturn keys list --redis redis://localhost:6379 --tenant acme --kek-file kek
  keyturn keys list --redis redis://localhost:6379 --tenant acme --kek-file kek --json`)
	describeTenant(cmd, "the tenant whose ring it is; all tenants without it", "")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if !c.tenant.given {
			return c.listAll(cmd.Context())
		}
		return c.list(cmd.Context())
	}
	return cmd
}

const dryRunUsage = "change nothing; say what the change would cost"

const forceUsage = "do it all the same, and say who may reject tokens meanwhile"

func newKeysRotate(a *app) *cobra.Command {
	c, cmd := newKeysCommand(a, "rotate --redis URL [--tenant TENANT] [--force]", "Make the pending key sign now, and mint the next",
		`rotate makes the pending key sign now, and mints the next. It is refused (exit
code 1, with the time from which it may be) before that key has been published for
long enough: an instance that has not heard of it would reject its tokens. So of two
in a row the second is refused.

That is --freshness + --dwell + --skew after its publication (--reader-staleness more
if others read the JWK Set): 125 seconds by default, an hour more for public keys. It
is sooner than the schedule, by which a key is published for --propagation before it
signs. By hand it is enough that all instances in reach know it.

With --force a key younger than --dwell signs only after --dwell, since a failover may
still lose it. Until then the key before it signs on, so no login is refused.

`+waitHelp+`

`+dryRunHelp+`

With --json it prints the receipt that "keyturn keys revoke --help" describes.`,
		`  keyturn keys rotate --redis redis://localhost:6379 --tenant acme --kek-file kek --dry-run
  keyturn keys rotate --redis redis://localhost:6379 --tenant acme --kek-file kek`)
	cmd.Flags().BoolVar(&c.force, "force", false, forceUsage)
	cmd.Flags().BoolVar(&c.dryRun, "dry-run", false, dryRunUsage)
	c.waits.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.change(cmd.Context(), "", func(ctx context.Context, r *rotation.Rotator, opts ...rotation.Option) (rotation.Receipt, error) {
			return r.Rotate(ctx, c.tenant.value, opts...)
		})
	}
	return cmd
}

func newKeysPromote(a *app) *cobra.Command {
	c, cmd := newKeysCommand(a, "promote --redis URL [--tenant TENANT] [--force] KID", "Make one pending key sign now",
		`promote makes the pending key of that name sign now, and mints none. It is refused
(exit code 1) under the same conditions as rotate, and if another key is pending
before it. A KID that begins with a dash goes after "--".

With --force a key younger than --dwell signs only after --dwell, since a failover may
still lose it. Until then the key before it signs on, so no login is refused.

`+waitHelp+`

`+dryRunHelp+`

With --json it prints the receipt that "keyturn keys revoke --help" describes.`,
		`  keyturn keys promote --redis redis://localhost:6379 --tenant acme --kek-file kek KID`)
	cmd.Flags().BoolVar(&c.force, "force", false, forceUsage)
	cmd.Flags().BoolVar(&c.dryRun, "dry-run", false, dryRunUsage)
	c.waits.register(cmd)
	cmd.Args = wantKID
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.change(cmd.Context(), "", func(ctx context.Context, r *rotation.Rotator, opts ...rotation.Option) (rotation.Receipt, error) {
			return r.Promote(ctx, c.tenant.value, args[0], opts...)
		})
	}
	return cmd
}

func newKeysRevoke(a *app) *cobra.Command {
	c, cmd := newKeysCommand(a, "revoke --redis URL [--tenant TENANT] [--force] KID", "End a key: no token that it signed is good any more",
		`revoke ends a key, and cannot be undone: all instances in reach reject its tokens in
seconds. If the key signs, the pending one takes over in the same step; if none can
yet, revoke is refused (exit code 1). With --force it then mints a key, and the tenant
has none to sign with until all instances know the new one. The same holds for a key
that signs in place of one which was forced to sign less than --dwell after it was
minted.

It prints a receipt: when it was committed, who signs now, until when the unluckiest
instance may accept the key's tokens, and which instances have said that they have
applied it. A KID that begins with a dash goes after "--".

`+waitHelp+`

`+dryRunHelp+`

With --json it prints {"tenant","revoked","promoted","minted","committed_at",
"revoked_at","signs_from","confirmed_at","no_signer_until","tokens_until",
"worst_case","readers_until","acks","undone","waited"}:
"promoted" is the kid that signs now, or at "confirmed_at" if that is not null: until
then the key before it signs. "minted" is one that was made, to sign from
"signs_from" on. Until "tokens_until" tokens may live of
the revoked key, or of the one that signed before, which verifies until then.
Until "no_signer_until" no key signs for the tenant; until
"worst_case" an instance that hears of nothing accepts the key's tokens, and until
"readers_until" so do readers of the JWK Set (only where there are public keys).
"acks" is an array of {"instance","applied","heard_at","live","holds","keks"}, or null
if none was asked: "holds" says that the instance that has applied the change holds
the ring; "keks" are the instance's KEKs, the first one seals, and there are none if
this command cannot read them. "undone" says that Redis lost the change and
the command put it back; "waited" is for how many seconds it waited. Times are in
RFC 3339. What does not apply is null; "committed_at" is null if there was nothing
to change. If it is refused, or cannot be told: {"ok":false,"error","from"},
where "from" is when it may be made, or null.`,
		`  keyturn keys revoke --redis redis://localhost:6379 --tenant acme --kek-file kek --dry-run KID
  keyturn keys revoke --redis redis://localhost:6379 --tenant acme --kek-file kek KID
  keyturn keys revoke --redis redis://localhost:6379 --tenant acme --kek-file kek --json --no-wait KID`)
	cmd.Flags().BoolVar(&c.force, "force", false, "revoke the key that signs though no other can take over")
	cmd.Flags().BoolVar(&c.dryRun, "dry-run", false, dryRunUsage)
	c.waits.register(cmd)
	cmd.Args = wantKID
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.change(cmd.Context(), args[0], func(ctx context.Context, r *rotation.Rotator, opts ...rotation.Option) (rotation.Receipt, error) {
			return r.Revoke(ctx, c.tenant.value, args[0], opts...)
		})
	}
	return cmd
}

// wantKID is the [cobra.PositionalArgs] of the commands that take a kid.
func wantKID(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return usagef(`give a KID: "keyturn keys list --tenant TENANT" shows them; %s`, seeHelp(cmd))
	case len(args) > 1:
		return usagef("%d arguments where one KID is wanted; %s", len(args), seeHelp(cmd))
	case strings.Count(args[0], ".") == 2 && len(args[0]) > 40:
		return usagef(`that looks like a token, where a KID is wanted: "keyturn inspect" shows a token's kid; %s`, seeHelp(cmd))
	case args[0] == "" || len(args[0]) > keystore.MaxKIDBytes:
		return usagef(`that is no KID: "keyturn keys list --tenant TENANT" shows them; %s`, seeHelp(cmd))
	}
	return nil
}

// An opened is a tenant's ring that a command changes.
type opened struct {
	*ringSession
	keyring *rotation.Keyring
	rotator *rotation.Rotator
}

// withRotator is withRing for a command that changes the ring. If Redis may have lost something of
// it, it first waits for the instances that put it back: see [settler].
func (c *keysCommand) withRotator(ctx context.Context, w settling, use func(context.Context, *opened) error) error {
	s, err := c.connect(&c.ring)
	if err != nil {
		return err
	}
	defer s.store.close()
	k, err := c.settled(ctx, s, w, c.tenant.value)
	if e := (*exitError)(nil); errors.As(err, &e) && e.code == exitCannotTell {
		return exitf(e.code, "%s; the change was not made", e.text)
	}
	if err != nil {
		return err
	}
	defer k.Close(context.WithoutCancel(ctx))
	r, err := rotation.NewRotator(k)
	if err != nil {
		return ringError(err)
	}
	return use(ctx, &opened{s, k, r})
}

// A settling says for what a command waits before it reads the ring that it changes.
type settling int

const (
	settleTime   settling = iota // until all instances have had the time to put back what they hold
	settleBucket                 // the same, for a command that shows its own progress
	settleRing                   // until there is a ring
	settleNot
)

// settled opens the rings of tenants, which are of one bucket, once the bucket is settled.
func (c *keysCommand) settled(ctx context.Context, s *ringSession, w settling, tenants ...string) (*rotation.Keyring, error) {
	k, err := s.open(ctx, tenants...)
	if err != nil || w == settleNot || c.waits.noWait {
		return k, err
	}
	rotator, err := rotation.NewRotator(k)
	if err != nil {
		return nil, ringError(err)
	}
	settler := &settler{app: c.app, store: s.store, tenant: tenants[0], gap: pollGap(timingOf(k, tenants).Freshness), quiet: w == settleBucket}
	settler.acks = func(ctx context.Context) ([]rotation.Ack, error) {
		return rotator.Acks(ctx, rotation.Receipt{Tenant: tenants[0]})
	}
	if w == settleRing {
		settler.until = func(hasRing bool) bool { return hasRing }
	}
	waited, err := settler.wait(ctx)
	if !waited && err == nil {
		return k, nil
	}
	k.Close(context.WithoutCancel(ctx))
	if err != nil {
		return nil, err
	}
	return s.open(ctx, tenants...)
}

func (c *keysCommand) create(ctx context.Context) error {
	policy, err := c.policy.policy()
	if err != nil {
		return err
	}
	if err := c.waits.check(); err != nil {
		return err
	}
	err = c.withRotator(ctx, settleRing, func(ctx context.Context, o *opened) error {
		waiting, stop := interruptible(ctx)
		defer stop()
		receipt, err := c.make(ctx, o, policy)
		if err != nil {
			return err
		}
		status, err := ringOf(o.keyring, c.tenant.value)
		if e := (*exitError)(nil); errors.As(err, &e) && e.code == exitNo {
			return lostRing()
		}
		if err != nil {
			return exitf(exitCannotTell, `the ring was made, but cannot be read back; see "keyturn keys list" (%v)`, err)
		}
		text := fmt.Sprintf("made a ring for tenant %s\n\n", quoteShort(c.tenant.value)) + listText(c.tenant.value, status, c.now())
		if c.json {
			text = listJSON(status)
		}
		if err := c.print(text); err != nil {
			return err
		}
		c.printed = true
		return c.watchMade(waiting, o, receipt, newestTiming(status.Ring))
	})
	return c.answer(err)
}

// make makes the tenant's ring.
func (c *keysCommand) make(ctx context.Context, o *opened, policy rotation.Policy) (rotation.Receipt, error) {
	ctx, cancel := context.WithTimeout(ctx, ringTime)
	defer cancel()
	return o.rotator.Create(ctx, c.tenant.value, policy, c.making()...)
}

// making returns the options of a command that makes a ring.
func (c *keysCommand) making() (opts []rotation.Option) {
	if c.again {
		opts = append(opts, rotation.Again)
	}
	return opts
}

// watchMade waits until the live instances have the new ring. Those that do not hold the tenant apply
// the change by hearing of it.
func (c *keysCommand) watchMade(ctx context.Context, o *opened, receipt rotation.Receipt, timing rotation.Policy) error {
	if c.waits.noWait {
		return nil
	}
	w := &watcher{keysCommand: c, rotator: o.rotator, receipt: receipt, timing: timing, limit: c.waits.limit(timing)}
	seen := w.watch(ctx)
	if state, err := (&settler{store: o.store, tenant: c.tenant.value}).look(context.WithoutCancel(ctx)); err == nil && !state.hasRing {
		return lostRing()
	}
	return w.outcome(&seen)
}

// lostRing returns an error for a new ring that is not there any more.
func lostRing() error {
	return exitf(exitCannotTell, "Redis lost the ring after it was made: see that it keeps what it has acknowledged, and repeat the command")
}

func (c *keysCommand) list(ctx context.Context) error {
	printed := false
	err := c.withRing(ctx, &c.ring, c.tenant.value, func(ctx context.Context, k *rotation.Keyring) error {
		status, err := ringOf(k, c.tenant.value)
		if err != nil && !status.Ring.Dead {
			return err
		}
		accepted := c.acceptedKeys(ctx, k, &status)
		text := listText(c.tenant.value, status, c.now()) + acceptedText(accepted, c.now())
		if c.json {
			text = listJSON(status, accepted...)
		}
		if err := c.print(text); err != nil {
			return err
		}
		printed = true
		return unreadPart(status)
	})
	if printed {
		return err
	}
	return c.answer(err)
}

// unreadPart returns an error if a part of the ring could not be opened. Then the printed keys are not
// the whole ring, and the missing part may be a revocation.
func unreadPart(status rotation.TenantStatus) error {
	if status.Err == nil || status.Fresh {
		return nil
	}
	if len(status.Ring.Keys) == 0 && !server.IsSealError(status.Err) && !errors.Is(status.Err, keystore.ErrUnavailable) {
		return nil // there is no ring, only accepted keys
	}
	f := new(exitError)
	errors.As(ringError(status.Err), &f)
	return exitf(exitCannotTell, "THIS IS NOT THE WHOLE RING, and states may be wrong: %s", f.text)
}

// A ringChange is one of the methods of a Rotator.
type ringChange func(context.Context, *rotation.Rotator, ...rotation.Option) (rotation.Receipt, error)

// change makes a change and prints its receipt. With --force it forces a change that is refused
// otherwise. revoking is the kid that the change revokes, or "".
func (c *keysCommand) change(ctx context.Context, revoking string, do ringChange) error {
	if err := c.waits.check(); err != nil {
		return err
	}
	if c.dryRun {
		return c.preview(ctx, do)
	}
	w := settleTime
	switch {
	case revoking != "":
		w = settleRing // a revocation does not wait: it is true whatever else comes back
	case c.force:
		w = settleNot
	}
	err := c.withRotator(ctx, w, func(ctx context.Context, o *opened) error {
		before, err := ringOf(o.keyring, c.tenant.value)
		none := (*exitError)(nil)
		switch {
		case c.ringless && errors.As(err, &none) && none.code == exitNo: // it has no keys yet
		case err != nil:
			return err
		case len(before.Ring.Keys) == 0 && revoking == "" && !c.ringless: // only accepted keys
			return noRing(c.tenant.value)
		}
		waiting, stop := interruptible(ctx) // from here on the user is told what was done
		defer stop()
		receipt, forced, err := c.apply(ctx, o.rotator, do)
		if errors.Is(err, keystore.ErrNotFound) {
			return noSuchKey(c.tenant.value)
		}
		if err != nil {
			return err
		}
		timing := newestTiming(before.Ring)
		p := &receiptPrinter{watcher{keysCommand: c, rotator: o.rotator, receipt: receipt, timing: timing, limit: c.waits.limit(timing)}, revoking != "", c.until}
		if forced != nil && !p.revoking {
			p.noteForced(forced)
		}
		return p.print(waiting)
	})
	return c.answer(err)
}

// apply makes the change. forced is the refusal that --force has overruled, or nil.
func (c *keysCommand) apply(ctx context.Context, r *rotation.Rotator, do ringChange) (_ rotation.Receipt, forced *rotation.RefusedError, err error) {
	ctx, cancel := context.WithTimeout(ctx, ringTime)
	defer cancel()
	var opts []rotation.Option
	if c.dryRun {
		opts = append(opts, rotation.DryRun)
	}
	receipt, err := do(ctx, r, opts...)
	if !c.force || !errors.As(err, &forced) || !receipt.SignsFrom.IsZero() {
		// A key that was minted a moment ago is known to no instance, so that none could sign with it.
		return receipt, nil, err
	}
	receipt, err = do(ctx, r, append(opts, rotation.Force)...)
	return receipt, forced, err
}

// newestTiming returns the policy of the newest key of a ring, or the default one if there is none.
func newestTiming(ring ring.Ring) rotation.Policy {
	if len(ring.Keys) == 0 {
		return rotation.Policy{}.WithDefaults()
	}
	newest := ring.Keys[0]
	for _, k := range ring.Keys {
		if k.Seq > newest.Seq {
			newest = k
		}
	}
	return newest.Timing
}

// answer returns the words and the exit code for an error. With --json it also prints the error as
// an object.
func (c *keysCommand) answer(err error) error {
	if err == nil {
		return nil
	}
	f := new(exitError)
	if !errors.As(err, &f) {
		errors.As(ringError(err), &f)
	}
	from := time.Time{}
	if refused := (*rotation.RefusedError)(nil); errors.As(err, &refused) && !refused.From.IsZero() {
		from = refused.From
		f.text += " (" + since(from.Add(time.Second-1), c.now()) + ")"
	}
	if c.json && f.code != exitUsage && !c.printed {
		if err := c.print(toJSON(refusalJSON{Error: f.text, From: when(from)})); err != nil {
			return err
		}
	}
	return f
}
