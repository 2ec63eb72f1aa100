package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

const policyLong = `policy mints the next key of a tenant under another policy: another algorithm, another
period, another life of tokens. Keys that exist keep theirs, and the policy takes effect
with that key, after those that are pending already. If the key that signs is held
("keyturn keys import --hold"), the new key replaces the one that waits.

What you do not give stays as it is. A duration that followed from others follows from
the new ones: see "keyturn keys create --help".

It is refused (exit code 1) within --freshness + --dwell + --skew of the last mint, 125
seconds by default, and, unless --force is given, while a live instance does not verify
the algorithm: stderr names it. With --dry-run it says what it would do, and changes
nothing.

` + waitHelp + `

With --json it prints the receipt that "keyturn keys revoke --help" describes, with
"replaced", the kids of keys that waited.`

// A policyCommand is "keyturn keys policy".
type policyCommand struct{ *keysCommand }

func newKeysPolicy(a *app) *cobra.Command {
	c, cmd := newKeysCommand(a, "policy --redis URL [--tenant TENANT] [--alg ALG] [--every DURATION] [--max-ttl DURATION] ...", "Mint the next key under another policy", policyLong,
		`  keyturn keys policy --redis redis://localhost:6379 --tenant acme --kek-file kek --alg ES256
  keyturn keys policy --redis redis://localhost:6379 --tenant acme --kek-file kek --every 7d --max-ttl 10m --dry-run`)
	p := &policyCommand{c}
	c.policy = newPolicyFlags()
	c.policy.alg.shown = "as it is"
	for _, t := range c.policy.times {
		t.shown = "as it is"
	}
	c.policy.register(cmd)
	cmd.Flags().BoolVar(&c.force, "force", false, "do it though a live instance does not verify the algorithm")
	cmd.Flags().BoolVar(&p.dryRun, "dry-run", false, dryRunUsage)
	c.waits.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return p.run(cmd.Context()) }
	return cmd
}

func (c *policyCommand) run(ctx context.Context) error {
	if c.policy.given() == "" {
		return usagef("say what to change, such as --alg ES256 or --every 7d")
	}
	if err := c.waits.check(); err != nil {
		return err
	}
	return c.answer(c.set(ctx))
}

// set gives the ring the policy of the flags, and shows the receipt.
func (c *policyCommand) set(ctx context.Context) error {
	return c.withRotator(ctx, settleTime, func(ctx context.Context, o *opened) error {
		before, err := ringOf(o.keyring, c.tenant.value)
		if err != nil {
			return err
		}
		policy := c.policy.over(newestTiming(before.Ring))
		if err := checkPolicy(policy); err != nil {
			return err
		}
		waiting, stop := interruptible(ctx)
		defer stop()
		receipt, forced, err := c.apply(ctx, o.rotator, func(ctx context.Context, r *rotation.Rotator, opts ...rotation.Option) (rotation.Receipt, error) {
			if c.dryRun {
				opts = append(opts, rotation.DryRun)
			}
			return r.SetPolicy(ctx, c.tenant.value, policy, opts...)
		})
		if err != nil {
			return err
		}
		policy = policy.WithDefaults()
		p := &receiptPrinter{watcher: watcher{keysCommand: c.keysCommand, rotator: o.rotator, receipt: receipt, timing: policy, limit: c.waits.limit(policy)}}
		if forced != nil {
			p.noteForced(forced)
		}
		if c.dryRun && !c.json {
			return c.print(p.policyText())
		}
		return p.print(waiting)
	})
}

// over returns the policy old with what the flags say instead. A duration that old has by default
// follows from the others again.
func (p *policyFlags) over(old rotation.Policy) rotation.Policy {
	policy := old
	if p.alg.given {
		policy.Algorithm = p.alg.value
	}
	for i, t := range policyTimes() {
		unset := old
		if *t.of(&unset) = 0; *t.of(ref(unset.WithDefaults())) == *t.of(&old) {
			*t.of(&policy) = 0
		}
		if p.times[i].given {
			*t.of(&policy) = p.times[i].value
		}
	}
	if policy.Algorithm.Symmetric() && !old.Algorithm.Symmetric() && !p.gives(&policy.ReaderStaleness, &policy) {
		policy.ReaderStaleness = 0 // a secret is not published, so no reader keeps it
	}
	return policy
}

// gives reports whether a flag was given for field, which is one of policy.
func (p *policyFlags) gives(field *time.Duration, policy *rotation.Policy) bool {
	for i, t := range policyTimes() {
		if t.of(policy) == field {
			return p.times[i].given
		}
	}
	return false
}

func ref[T any](v T) *T { return &v }

// policyText is the receipt of a new policy, for people. A change that was not made, with --dry-run, has
// no time.
func (p *receiptPrinter) policyText() string {
	var b strings.Builder
	r, now, t := &p.receipt, p.now(), &p.timing
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	what := "has another policy, from its next key on"
	if r.CommittedAt.IsZero() {
		what = "WOULD HAVE another policy, from its next key on; nothing was changed"
	}
	fmt.Fprintf(&b, "tenant %s %s\n", quoteShort(r.Tenant), what)
	if !r.CommittedAt.IsZero() {
		line("committed", "%s", r.CommittedAt.UTC().Format(milliseconds))
	}
	line("policy", "%s; a new key every %s, published at least %s before;", t.Algorithm, short(t.Every), short(t.Propagation))
	line("", "tokens live up to %s", short(t.MaxTokenTTL))
	for _, kid := range r.Replaced {
		line("replaced", "key %q, which waited and has signed nothing", kid)
	}
	switch {
	case r.SignsFrom.IsZero():
		line("next key", `waits until "keyturn keys rotate"`)
	default:
		line("next key", "signs %s (%s)", since(r.SignsFrom, now), stamp(r.SignsFrom))
	}
	if r.Minted != "" {
		line("", "it is %q", r.Minted)
	}
	return b.String()
}

// heldText says for people that a ring is held, or "".
func heldText(r ring.Ring, held bool) string {
	if !held {
		return ""
	}
	waits := ""
	for _, k := range r.Keys {
		if k.State == ring.Pending && k.ActivatesAt.IsZero() {
			waits = k.KID
		}
	}
	if waits == "" {
		return "\nHELD: the key that signs stays until another is minted and rotated to by hand\n"
	}
	return "\nHELD: the key that signs stays until \"keyturn keys rotate\"\n"
}

// originText says where a key came from, if it was not minted here.
func originText(k *ring.Record) string {
	text := ""
	switch {
	case k.NoKID:
		text = "imported; its tokens carry no kid"
	case k.Origin != ring.Generated:
		text = "imported"
	}
	if text != "" && k.Longest > time.Duration(0) {
		text += "; its tokens live up to " + short(k.Longest)
	}
	return text
}
