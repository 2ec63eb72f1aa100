package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/drill"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

const drillLong = `drill runs the real path of a rotation, a revocation, an outage or a restore on a canary
tenant, which it makes and removes, and prints what it measured beside the bound. It
changes no other tenant. It refuses a tenant that exists and that no drill made.

  rotate   the next key takes over: every live instance says so, an old token and a
           new one are good
  revoke   the key that signs is revoked: every live instance says so, its token is
           refused, the next key signs
  outage   the link of an instance that the drill starts itself is cut for --for: it
           signs and verifies meanwhile, and catches up afterwards. The others stay
           connected
  restore  the canary's ring is removed from Redis, and nothing else: an instance that
           holds it puts it back. The instances log that as a loss, and count an alarm

Live instances that hold all tenants, those of a service without Config.Tenants, take
part. Those whose tenants are listed, as with "keyturn serve --redis --tenant acme",
hold the canary only if it is among them, and are named. The drill has an instance of its own beside them, in this
process. Rotate and revoke wait for --freshness and a few seconds, as every change by
hand does. At the end the canary's ring is destroyed, and after Ctrl-C too: its name stays
in "keyturn keys list", and the next drill takes it again.`

const drillExits = `The bounds are those of docs/rotation.md: a change is applied within --within by pub/sub,
and within two polls otherwise (--wait), which counts as exceeded too.

Exit codes: 0 all is within its bounds, 1 a bound was exceeded, or the tenant is not the
drill's, 2 the command line is not right, 3 it cannot be told: Redis cannot be reached,
or no live instance holds the canary.

With --json it prints {"drill","tenant","began_at","result","steps","removed"}: result is
ok, exceeded or unknown; steps are {"step","instance","took","bound","result","found",
"do"}, with seconds for took and bound. What does not apply is null. If the drill does
not begin: {"ok":false,"error","from"}.`

// The kinds of drills.
const (
	drillRotate  = "rotate"
	drillRevoke  = "revoke"
	drillOutage  = "outage"
	drillRestore = "restore"
)

// A drillCommand holds the flags of a command under "keyturn drill".
type drillCommand struct {
	*keysCommand
	kind              string
	within, freshness *option[time.Duration]
	lasts             *option[time.Duration] // of an outage
}

func newDrill(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "drill (rotate | revoke | outage | restore) --redis URL [--tenant canary]",
		Short:   "Rehearse a rotation, a revocation, an outage or a restore on a canary",
		Long:    drillLong,
		Example: "  keyturn drill rotate --redis redis://localhost:6379 --kek-file kek",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return usagef("say what to rehearse: %s; %s", commandNames(cmd), seeHelp(cmd))
		},
	}
	cmd.SuggestionsMinimumDistance = 2
	for _, d := range [][2]string{
		{drillRotate, "Rotate the canary's key, and measure who hears of it"},
		{drillRevoke, "Revoke the canary's key, and measure until its token is refused"},
		{drillOutage, "Cut an instance off from Redis, and measure what it can do"},
		{drillRestore, "Remove the canary's ring, and measure until it is put back"},
	} {
		cmd.AddCommand(newDrillOf(a, d[0], d[1]))
	}
	return cmd
}

func newDrillOf(a *app, kind, short string) *cobra.Command {
	long := drillLong + "\n\n" + drillExits
	k, cmd := newKeysCommand(a, kind+" --redis URL [--tenant canary]", short, long, fmt.Sprintf(`  keyturn drill %s --redis redis://localhost:6379 --kek-file kek
  keyturn drill %s --redis redis://localhost:6379 --kek-file kek --json`, kind, kind))
	c := &drillCommand{keysCommand: k, kind: kind,
		within:    newDuration(time.Millisecond, time.Minute, time.Second, "1s"),
		freshness: newDuration(ring.MinFreshness, 10*time.Minute, time.Minute, "60s"),
		lasts:     newDuration(time.Second, 24*time.Hour, 20*time.Second, "20s"),
	}
	c.waits.wait.shown = "two polls: 9s by default"
	c.tenant.value = "canary"
	f := cmd.Flags()
	describeTenant(cmd, "the name of the canary, which must not be that of a tenant", `"canary"`)
	f.Var(c.within, "within", "how soon a live instance has to say that it applied a change")
	f.Var(c.waits.wait, "wait", "how long to wait for those that do not")
	f.Var(c.freshness, "freshness", "of the canary's policy: instances that hold it poll four times as often, so give none below that of your rings")
	if kind == drillOutage {
		f.Var(c.lasts, "for", "how long the link is cut")
	}
	cmd.Args = wantNothing(func(string) string { return "the name of the canary goes after --tenant" })
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return c.run(cmd.Context()) }
	return cmd
}

// canaryEvery marks the rings that drills make: no person types such a policy, and the records of a
// ring are sealed. A drill removes no other ring.
const canaryEvery = 30*24*time.Hour + 719*time.Millisecond

// canaryPolicy returns the policy of a canary. It must not disturb the instances that hold it beside
// other rings: the shortest Freshness of all sets how often they poll, and the shortest SignFor and
// ClockSkew when they are not ready. So only Dwell is shorter than by default: how long a write may
// still be lost does not matter for a canary.
func canaryPolicy(freshness time.Duration) rotation.Policy {
	return rotation.Policy{
		Every: canaryEvery, Freshness: freshness,
		ClockSkew: min(5*time.Second, freshness/12).Truncate(time.Millisecond),
		Dwell:     min(time.Second, freshness/6).Truncate(time.Millisecond),
	}.WithDefaults()
}

// isCanary reports whether a drill made the ring.
func isCanary(r ring.Ring) bool {
	for _, k := range r.Keys {
		if k.Timing.Every != canaryEvery {
			return false
		}
	}
	return len(r.Keys) > 0
}

// drillPrefix begins the names of the drill's own instances, in acknowledgements and in the log.
const drillPrefix = "drill-"

func drillName(random string) string {
	host, _ := os.Hostname() // for people; the random part makes it unique
	return fmt.Sprintf("%s%s-%d-%s", drillPrefix, host, os.Getpid(), random)
}

// A drillJSON is what "keyturn drill --json" prints.
type drillJSON struct {
	Drill   string       `json:"drill"`
	Tenant  string       `json:"tenant"`
	BeganAt *string      `json:"began_at"`
	Result  drill.Result `json:"result"`
	Steps   []drill.Line `json:"steps"`
	Removed bool         `json:"removed"`
}

// run runs the drill, and prints what it measured.
func (c *drillCommand) run(ctx context.Context) error {
	s, err := c.connect(&c.ring)
	if err != nil {
		return err
	}
	defer s.store.close()
	ctx, stop := interruptible(ctx)
	defer stop()
	began := c.now()
	r, err := c.begin(ctx, s)
	switch {
	case err != nil && ctx.Err() != nil:
		return c.answer(exitf(exitCannotTell, "interrupted before the drill began"))
	case err != nil:
		return c.answer(err)
	}
	r.rehearse(ctx)
	r.end(ctx)
	text := r.table(began)
	if c.json {
		text = toJSON(drillJSON{c.kind, c.tenant.value, when(began), drill.Sum(r.lines), r.lines, r.removed})
	}
	if err := c.print(text); err != nil {
		return err
	}
	c.printed = true
	return r.outcome()
}

// table is for people.
func (r *drillRun) table(began time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "drill %s on tenant %s at %s\n\n", r.kind, quoteShort(r.tenant.value), stamp(began))
	fmt.Fprintf(&b, "%-8s  %-22s  %-24s  %8s  %8s\n", "", "step", "instance", "took", "bound")
	for _, l := range r.lines {
		name := ""
		if l.Instance != nil {
			name = shownName(*l.Instance, 64)
		}
		text := fmt.Sprintf("%-8s  %-22s  %-24s  %8s  %8s  %s", l.Result, l.Step, name, shownSeconds(l.Took), shownSeconds(l.Bound), l.Found)
		if l.Do != nil {
			text += " -> " + *l.Do
		}
		b.WriteString(printable(text, false) + "\n")
	}
	return b.String()
}

func shownSeconds(s *float64) string {
	if s == nil {
		return ""
	}
	return time.Duration(*s * float64(time.Second)).Round(time.Millisecond).String()
}

// outcome returns the exit code of the drill, with its text.
func (r *drillRun) outcome() error {
	switch code := drill.Exit(r.lines); {
	case code == exitNo:
		return exitf(code, "a bound was exceeded: do what those lines say after ->")
	case code == exitCannotTell:
		return exitf(code, "no bound was exceeded, but not all could be measured: those lines say what is missing")
	}
	return nil
}
