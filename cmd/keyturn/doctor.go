package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/doctor"
)

const doctorLong = `doctor looks at a Redis, its rings and the clock, and says what would hurt, and what to
type. It changes nothing. Each check is a line: its level, its name, the tenant if it is
about one, what was found, and after -> what to do. With up to 20 rings each has its
lines; with more, only those in which something is wrong.

Levels are ok; warn: it hurts together with another fault; bad: it hurts, or is about
to; unknown: it cannot be told, and the line says what to grant or to give. Without a
KEK no ring is opened.

The checks are reach, version, role, persistence, replicas, eviction, clock, rights,
cluster and latency, of the servers; rings, ring, rotation, algorithms, policy, outage
and kek, of the rings; revocations, of the list that ends tokens; instances, of the
processes that share them. docs/operations.md, "Doctor", has what each looks at.

` + ringForm + `

Exit codes: 0 nothing is bad, 1 something is, 2 the command line is not right,
3 something cannot be told, and nothing is bad.

With --json standard output is one array of {"check","tenant","level","found","do"}, and
nothing else: "tenant" is null if it is about no tenant, "do" if there is nothing to do.`

const doctorExample = `  keyturn doctor --redis redis://localhost:6379 --kek-file kek
  KEYTURN_REDIS=redis://localhost:6379 KEYTURN_KEK_FILE=kek keyturn doctor --json`

// A doctorCommand holds the flags of "keyturn doctor".
type doctorCommand struct {
	*app
	ring   ringFlags
	tenant *option[string]
	json   bool

	fromEnv bool // the URL came from the environment
}

func newDoctor(a *app) *cobra.Command {
	c := &doctorCommand{app: a, ring: newRingFlags(), tenant: newRingTenant()}
	c.tenant.shown = ""
	cmd := &cobra.Command{
		Use:     "doctor --redis URL [--tenant TENANT]",
		Short:   "Say what in Redis, the rings and the clock would hurt",
		Long:    doctorLong,
		Example: doctorExample,
		Args:    wantNothing(func(string) string { return "" }),
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.run(cmd.Context()) },
	}
	c.ring.register(cmd, "the Redis to look at; required")
	cmd.Flags().Var(c.tenant, "tenant", "the tenant whose ring is looked at; all tenants without it")
	cmd.Flags().BoolVar(&c.json, "json", false, "answer in one line of JSON")
	return cmd
}

func (c *doctorCommand) run(ctx context.Context) error {
	s, err := c.session()
	if err != nil {
		return err
	}
	defer s.store.close()
	ctx, stop := interruptible(ctx)
	defer stop()
	findings := c.look(ctx, s)
	if ctx.Err() != nil {
		return exitf(exitCannotTell, "interrupted: not all was looked at")
	}
	text := findingsText(findings)
	if c.json {
		text = toJSON(findings)
	}
	if err := c.print(text); err != nil {
		return err
	}
	return outcomeOf(findings)
}

// session is connect for a command that can do without a KEK.
func (c *doctorCommand) session() (*ringSession, error) {
	c.fromEnv = !c.ring.redis.given
	return c.anySession(&c.ring)
}

// flags returns how a keyturn command reaches this Redis, for a person to paste. A password that is in
// the URL stays out of it.
func (c *doctorCommand) flags(tenant string) string {
	var words []string
	switch url := c.ring.redis.value; {
	case c.fromEnv:
	case strings.ContainsAny(url, "@?"):
		words = append(words, `--redis "$REDIS"`)
	default:
		words = append(words, "--redis "+shellWord(url))
	}
	for _, word := range c.ring.link.words() {
		words = append(words, shellWord(word))
	}
	if c.ring.kekFile.given {
		words = append(words, "--kek-file "+shellWord(c.ring.kekFile.value))
	}
	if c.ring.realm.given {
		words = append(words, "--realm "+shellWord(c.ring.realm.value))
	}
	for _, realm := range c.ring.otherRealms.values {
		words = append(words, "--other-realm "+shellWord(realm))
	}
	if tenant != "" {
		words = append(words, "--tenant "+shellWord(tenant))
	}
	return strings.Join(words, " ")
}

// findingsText is for people: a line each. Of many findings of one kind it shows the first few.
func findingsText(findings []doctor.Finding) string {
	const most = 20
	type kind struct {
		check string
		level doctor.Level
	}
	var b strings.Builder
	seen := make(map[kind]int)
	for _, f := range findings {
		k := kind{f.Check, f.Level}
		if seen[k]++; seen[k] > most {
			continue
		}
		tenant := ""
		if f.Tenant != nil {
			tenant = "tenant " + quoteShort(*f.Tenant) + ": "
		}
		line := fmt.Sprintf("%-7s  %-11s  %s%s", f.Level, f.Check, tenant, f.Found)
		if f.Do != nil {
			line += " -> " + *f.Do
		}
		b.WriteString(printable(line, false) + "\n")
	}
	for _, k := range slices.SortedFunc(maps.Keys(seen), func(a, b kind) int { return strings.Compare(a.check+string(a.level), b.check+string(b.level)) }) {
		if more := seen[k] - most; more > 0 {
			fmt.Fprintf(&b, "%-7s  %-11s  and %d more: --json lists them\n", k.level, k.check, more)
		}
	}
	return b.String()
}

// outcomeOf returns the exit code for the findings, with its text.
func outcomeOf(findings []doctor.Finding) error {
	counts := make(map[doctor.Level]int)
	for _, f := range findings {
		counts[f.Level]++
	}
	switch code := doctor.Exit(findings); code {
	case exitNo:
		return exitf(code, "%d bad: do what those lines say after ->", counts[doctor.Bad])
	case exitCannotTell:
		return exitf(code, "nothing is bad, but %d cannot be told: those lines say what to grant or to give", counts[doctor.Unknown])
	}
	return nil
}
