package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier/revocations"
)

const revokeLong = `revoke ends tokens before their exp, in every instance that asks the list of revocations
in Redis: "keyturn serve" with revocations in its file, or a service with package
revocations. There is no undo. What is revoked:

  --subject S        the user's tokens that were issued before --before, or now
  --session SID      all tokens of a session, by their claim sid
  --jti J --exp T    one token, which expires at T
  --all              all tokens of the tenant that were issued before --before, or now

iat has whole seconds, so a login in the second of the revocation does not count: the
receipt says from which second on logins do. --session - and --jti - read one line from
standard input, which other users of the machine cannot see.

The list keeps a revocation until --exp, or without that for --max-ttl. Then a token that lives
longer is accepted again. The command does not see max_token_ttl in the file of
serve, which has to be the same.

The command stays until every live instance has applied the revocation, or --wait is over,
and writes it again if Redis loses it meanwhile. Ctrl-C ends the wait; the revocation stays.

With --json it prints {"kind","tenant","before","ends","committed_at","known","applied",
"missing","undone","waited"}: "known" says that it was revoked already, at least as far;
"applied" and "missing" are the live instances, or null if none was asked; "undone" says
that Redis lost it. "before" is null for a token and a session, and "ends" is when the
revocation may be forgotten. If it is refused: {"ok":false,"error"}. With --dry-run nothing
is changed, and it prints {"dry_run","kind","tenant","before","ends","entries","live",
"silent"}: "live" are the instances that would hear of it, and "silent" those that were
heard of within a day and have not ended, but are cut off or have crashed.

Exit codes: 0 done, and applied by every live instance, 1 refused (no room, or a time in
the future), 2 the command line is not right, 3 Redis cannot be reached, or what it holds
cannot be opened, or it lost the revocation while the command watched: to repeat the
command does no harm, 4 done, but a live instance has not applied it within --wait.`

const revokeExample = `  keyturn revoke --redis redis://localhost:6379 --kek-file kek --tenant acme --subject ann
  keyturn revoke --redis redis://localhost:6379 --kek-file kek --tenant acme --jti 7f3e --exp 2026-12-24T03:00:00Z
  printf %s "$SID" | keyturn revoke --redis redis://localhost:6379 --kek-file kek --tenant acme --session -
  keyturn revoke --redis redis://localhost:6379 --kek-file kek --tenant acme --all --dry-run`

// listForm is what the help says of the Redis and the KEK of a list.
const listForm = `The KEK is that of the service: revocations.kek_file in the file of serve. A list may have
none. It comes from --kek-file or KEYTURN_KEK_FILE, or from KEYTURN_KEK.

--redis, or without it KEYTURN_REDIS, takes the URLs that "keyturn keys --help" lists.
The password of Redis comes from --redis-password-file or KEYTURN_REDIS_PASSWORD.`

// listFlags say where a list of revocations is.
type listFlags struct {
	*app
	ring ringFlags
	json bool
}

func (l *listFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Var(l.ring.redis, "redis", "the Redis that has the list; required (default: "+envRedis+")")
	l.ring.link.register(cmd)
	f.Var(l.ring.kekFile, "kek-file", "the file that holds the KEK of the list (default: "+envKEKFile+")")
	f.Var(l.ring.realm, "realm", "the realm that the list belongs to, such as production (default: none)")
	f.BoolVar(&l.json, "json", false, "answer in one line of JSON")
}

// commandDeadline bounds each call of a command, which may be far from Redis, and has nothing to answer
// meanwhile.
const commandDeadline = 2 * time.Second

// withList calls use with the list, which stays open until use returns.
func (l *listFlags) withList(ctx context.Context, ttl time.Duration, use func(context.Context, *revocations.List) error) error {
	s, err := l.connectList(&l.ring)
	if err != nil {
		return err
	}
	defer s.store.close()
	list, err := revocations.Open(ctx, s.store.client, revocations.Config{
		KEKs: s.keks, Realm: s.realm, MaxTokenTTL: ttl, Transient: true, Deadline: commandDeadline, Logger: discard(), Now: l.now,
	})
	if err != nil {
		return usagef("%s", errorText(err))
	}
	defer list.Close(context.WithoutCancel(ctx))
	return use(ctx, list)
}

// connectList is connect for a list, which may have no KEK.
func (a *app) connectList(flags *ringFlags) (*ringSession, error) {
	s, err := a.connectWith(flags, func() (*rotation.KEKs, error) { return a.optionalKEKs("--kek-file", flags.kekFile.value) })
	if err == nil && s.realm != "" && s.keks == nil {
		s.store.close()
		return nil, usagef("--realm goes with a KEK: give --kek-file, or set %s", envKEKFile)
	}
	return s, err
}

// A revokeCommand holds the flags of "keyturn revoke".
type revokeCommand struct {
	listFlags
	tenant                *option[string]
	subject, session, jti *option[string]
	exp, before           *option[time.Time]
	ttl                   *option[time.Duration]
	all, dryRun           bool
	waits                 waitFlags
	printed               bool // the answer is on stdout
}

func newRevoke(a *app) *cobra.Command {
	c := &revokeCommand{
		listFlags: listFlags{app: a, ring: newRingFlags()}, tenant: newRingTenant(),
		subject: newText("SUBJECT", ""), session: newText("SID", ""), jti: newText("JTI", ""), exp: newDate(), before: newDate(),
		ttl: newTokenTTL(), waits: newWaitFlags(),
	}
	cmd := &cobra.Command{
		Use:   "revoke --redis URL --tenant TENANT (--subject S | --session SID | --jti J --exp T | --all)",
		Short: "End tokens of a user, a session or a tenant before their exp",
		Long:  revokeLong + "\n\n" + listForm, Example: revokeExample,
		Args: wantNothing(func(string) string { return "--subject, --session or --jti says what is revoked" }),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd.Context()) },
	}
	c.listFlags.register(cmd)
	f := cmd.Flags()
	f.Var(c.tenant, "tenant", "the tenant whose tokens are revoked; required")
	describeTenant(cmd, "the tenant whose tokens are revoked; required", "")
	f.Var(c.subject, "subject", "the user, by the claim sub")
	f.Var(c.session, "session", "the session, by the claim sid; - reads it from standard input")
	f.Var(c.jti, "jti", "the token, by its claim jti; - reads it from standard input")
	f.Var(c.exp, "exp", "when the token, or the last token of the session, expires")
	f.BoolVar(&c.all, "all", false, "all tokens of the tenant")
	f.Var(c.before, "before", "revoke what was issued earlier than that (default: now)")
	f.Var(c.ttl, "max-ttl", "the longest that a token lives, as max_token_ttl in the file of serve")
	f.BoolVar(&c.dryRun, "dry-run", false, "change nothing; say what would be revoked")
	c.waits.register(cmd)
	return cmd
}

// check refuses flags that do not name one thing to revoke.
func (c *revokeCommand) check() error {
	what := 0
	for _, given := range []bool{c.subject.given, c.session.given, c.jti.given, c.all} {
		if given {
			what++
		}
	}
	switch {
	case !c.tenant.given:
		return usagef("--tenant is missing: say whose tokens are revoked")
	case what != 1:
		return usagef("say what is revoked: one of --subject, --session, --jti and --all")
	case c.jti.given && !c.exp.given:
		return usagef("--exp is missing: when the token expires; until then the revocation is kept")
	case c.exp.given && !c.jti.given && !c.session.given:
		return usagef("--exp goes with --jti or --session: tokens of a user or a tenant have their own")
	case c.exp.given && c.exp.value.Add(mostLeeway).Before(c.now()):
		return usagef("--exp is in the past: such a token has expired, and a revocation until then would do nothing; look at the year")
	case c.before.given && !c.subject.given && !c.all:
		return usagef("--before goes with --subject or --all: a token or a session is revoked whatever its iat")
	case c.before.given && c.before.value.Add(c.tokenTTL()+mostKept).Before(c.now()):
		return usagef("--before is too long ago: each token that was issued before it, and lives %s at most, has expired; look at the year and at the clock of this machine, or give the --max-ttl of the service", short(c.tokenTTL()))
	case c.jti.value == "-" && c.session.value == "-":
		return usagef("standard input has one line: give --jti or --session")
	}
	return c.waits.check()
}

const (
	mostLeeway = 5 * time.Minute            // that a verifier forgives an expired token
	mostKept   = mostLeeway + 5*time.Minute // that a revocation is kept after the last of its tokens has expired, and more
)

func (c *revokeCommand) run(ctx context.Context) error {
	if err := c.check(); err != nil {
		return err
	}
	for _, o := range []*option[string]{c.session, c.jti} {
		if o.value != "-" {
			continue
		}
		name, err := c.token("-", maxInputBytes)
		if err != nil {
			return err
		}
		if o.value, err = parseText(name); err != nil {
			return usagef("standard input %v", err)
		}
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	return c.answer(c.withList(ctx, c.ttl.value, func(ctx context.Context, list *revocations.List) error {
		if c.dryRun {
			return c.preview(ctx, list)
		}
		return c.revoke(ctx, list)
	}))
}

// answer returns err, after printing it as JSON if that is asked for and nothing was printed yet.
func (c *revokeCommand) answer(err error) error {
	e := new(exitError)
	if err == nil || !c.json || c.printed || !errors.As(err, &e) || e.code == exitUsage {
		return err
	}
	if printErr := c.print(toJSON(struct {
		OK    bool   `json:"ok"`
		Error string `json:"error"`
	}{Error: e.text})); printErr != nil {
		return printErr
	}
	return err
}

// revoke makes the revocation, waits for the live instances, and prints both.
func (c *revokeCommand) revoke(ctx context.Context, list *revocations.List) error {
	if err := c.awaitKeys(ctx, list); err != nil {
		return err
	}
	stop := tellProgress(ctx, c.app, func() string { s := list.Status(); return writeWait(&s) })
	receipt, err := c.writeNow(ctx, list)
	stop()
	if err != nil {
		return err
	}
	if !c.json {
		c.printed = true
		if err := c.print(c.text(&receipt)); err != nil {
			return err
		}
	}
	if c.waits.noWait {
		return c.shown(&receipt, nil, 0, nil)
	}
	limit := c.waits.limitOf(revocationPoll)
	begin := time.Now()
	waiting, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	stop = tellProgress(waiting, c.app, func() string { return c.waitsFor(waiting, list, begin.Add(limit)) })
	applied, err := list.Watch(waiting, receipt)
	stop()
	return c.shown(&receipt, &applied, time.Since(begin), err)
}

// writeWait says why a revocation takes long to write.
func writeWait(s *revocations.Status) string {
	if len(s.KeyNames) == 0 && s.Unread == nil {
		return "waiting for an instance to put back the digest keys of the list, as Redis has none"
	}
	return "waiting for Redis to answer"
}

// waitsFor says for which instances the command waits, at most until then.
func (c *revokeCommand) waitsFor(ctx context.Context, list *revocations.List, until time.Time) string {
	all, err := list.Instances(ctx)
	live, _ := c.liveAndSilent(all)
	return revokeWait(live, err, time.Until(until))
}

// revokeWait says what revoke waits for, with so much time left. err is why the live instances are not known,
// or nil.
func revokeWait(live []string, err error, left time.Duration) string {
	most := fmt.Sprintf("%v at most", max(0, left).Round(time.Second))
	switch {
	case err != nil:
		return "waiting for Redis to say which instances have applied it, " + most
	case len(live) == 0:
		return "waiting for an instance to apply it, if there is one, " + most
	}
	return fmt.Sprintf("waiting until %s applied it, %s: %s", haveInstances(len(live)), most, strings.Join(live[:min(3, len(live))], ", "))
}

// revocationPoll is the longest time between two polls of an instance with the default settings.
const revocationPoll = 2900 * time.Millisecond

// limitOf returns how long to wait for instances that poll as often as that.
func (w *waitFlags) limitOf(poll time.Duration) time.Duration {
	if w.wait.given {
		return w.wait.value
	}
	return 2 * poll
}

// mostBehind is how far the clock of Redis may be ahead for its time to be taken for now. A person who writes to Redis
// can set it ahead by years, and a revocation of the future cannot be undone: no login would count until then.
const mostBehind = time.Hour

// writeNow makes the revocation that the flags name. Without --before it is of now: by the store's clock, if that of
// this machine is behind it.
func (c *revokeCommand) writeNow(ctx context.Context, list *revocations.List) (revocations.Receipt, error) {
	begin := time.Now()
	receipt, err := c.write(ctx, list, c.beforeTime())
	if err != nil {
		return receipt, listError(err)
	}
	behind := receipt.Committed.Sub(receipt.Before) - time.Since(begin)
	if c.before.given || receipt.Before.IsZero() || behind <= time.Second {
		return receipt, nil
	}
	if behind > mostBehind {
		return receipt, exitf(exitCannotTell, "tokens that were issued up to %s are revoked, by the clock of this machine; that of Redis is %v ahead: look at both, and if this machine's is wrong, revoke again with --before", stamp(receipt.Before), behind.Round(time.Second))
	}
	c.note("the clock of this machine is %v behind that of Redis: tokens that were issued up to the time of Redis are revoked", behind.Round(time.Second))
	known := receipt.Known
	if receipt, err = c.write(ctx, list, receipt.Committed); err != nil {
		return receipt, listError(err)
	}
	receipt.Known = known
	return receipt, nil
}

// write makes the revocation that the flags name.
func (c *revokeCommand) write(ctx context.Context, list *revocations.List, before time.Time) (revocations.Receipt, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*ringTime) // a list without a digest key waits for one
	defer cancel()
	switch tenant := c.tenant.value; {
	case c.subject.given:
		return list.RevokeSubject(ctx, tenant, c.subject.value, before)
	case c.session.given:
		return list.RevokeSession(ctx, tenant, c.session.value, c.exp.value)
	case c.jti.given:
		return list.RevokeToken(ctx, tenant, c.jti.value, c.exp.value)
	default:
		return list.RevokeTenant(ctx, tenant, before)
	}
}

func (c *revokeCommand) beforeTime() time.Time {
	if c.before.given {
		return c.before.value
	}
	return c.now()
}

// what names the thing to revoke, without the name of a session or of a token: those may be secret.
func (c *revokeCommand) what() string {
	tenant := quoteShort(c.tenant.value)
	switch {
	case c.subject.given:
		return fmt.Sprintf("tokens of subject %s of tenant %s", quoteShort(c.subject.value), tenant)
	case c.session.given:
		return "tokens of one session of tenant " + tenant
	case c.jti.given:
		return "one token of tenant " + tenant
	}
	return "all tokens of tenant " + tenant
}

// text is the receipt for people.
func (c *revokeCommand) text(r *revocations.Receipt) string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(&b, "%s are revoked\n", c.what())
	if c.jti.given {
		b.Reset()
		fmt.Fprintf(&b, "%s is revoked\n", c.what())
	}
	if r.Known {
		line("known", "it was revoked already, at least as far")
	}
	line("committed", "%s", r.Committed.UTC().Format(milliseconds))
	c.times(line, r.Before, r.Ends)
	return b.String()
}

// times says what the dates of a revocation mean.
func (c *revokeCommand) times(line func(name, format string, args ...any), before, ends time.Time) {
	if !before.IsZero() {
		line("issued", "before %s, and those without iat", stamp(before))
		line("logins", "count from %s on: tokens with an iat of that second or later", stamp(before))
	}
	if !ends.IsZero() {
		then := "by then all of these tokens have expired"
		if c.ttl.given && !c.exp.given { // the flag says how long they live, and no instance does
			then = "a token that lives longer than --max-ttl, " + short(c.ttl.value) + ", is accepted again then"
		}
		line("ends", "%s (%s): %s", stamp(ends), since(ends, c.now()), then)
	}
}

// A revokedJSON is what --json prints of a revocation.
type revokedJSON struct {
	Kind        string    `json:"kind"`
	Tenant      string    `json:"tenant"`
	Before      *string   `json:"before"`
	Ends        *string   `json:"ends"`
	CommittedAt *string   `json:"committed_at"`
	Known       bool      `json:"known"`
	Applied     *[]string `json:"applied"`
	Missing     *[]string `json:"missing"`
	Undone      bool      `json:"undone"`
	Waited      float64   `json:"waited"` // in seconds
}

// shown prints which instances have applied the revocation, and returns the exit code for that. applied
// is nil if none was asked.
func (c *revokeCommand) shown(r *revocations.Receipt, applied *revocations.Applied, waited time.Duration, err error) error {
	o := revokedJSON{
		Kind: string(r.Kind), Tenant: r.Tenant, Before: when(r.Before), Ends: when(r.Ends), CommittedAt: when(r.Committed), Known: r.Known,
		Undone: errors.Is(err, revocations.ErrUndone), Waited: waited.Round(time.Millisecond).Seconds(),
	}
	text := ""
	if applied != nil {
		by, missing := printables(applied.By), printables(applied.Missing)
		o.Applied, o.Missing = &by, &missing
		text = fmt.Sprintf("  %-12s %s\n", "instances", appliedBy(len(by), len(by)+len(missing)))
		for _, name := range missing {
			text += "    " + name + "  NOT applied\n"
		}
	}
	c.printed = true
	if c.json {
		text = toJSON(o)
	}
	if err := c.print(text); err != nil {
		return err
	}
	return c.outcome(applied, err)
}

func printables(names []string) []string {
	all := make([]string, len(names))
	for i, name := range names {
		all[i] = printable(name, false)
	}
	return all
}

// outcome returns the exit code and the text for a revocation that was made.
func (c *revokeCommand) outcome(applied *revocations.Applied, err error) error {
	switch {
	case applied == nil:
		return nil
	case errors.Is(err, revocations.ErrUndone):
		text := fmt.Sprintf("it is applied by %d of %s", len(applied.By), instances(applied.Holders))
		if len(applied.Missing) > 0 {
			text += ", and not by " + strings.Join(printables(applied.Missing), ", ")
		}
		return exitf(exitCannotTell, `Redis lost the revocation after it was made, and it was written again; %s: a failover or an old dump, or a person writes to this Redis. Repeat the command, to see that it stays; docs/operations.md, "Someone writes to Redis"`, text)
	case err == nil && applied.Holders == 0:
		c.note("no instance was seen, so none has confirmed it: does the service ask this list? docs/revocation.md")
		return nil
	case err == nil:
		return nil
	case len(applied.Missing) > 0:
		return exitf(exitNotEverywhere, "the revocation is made, but %s had not applied it within the wait: %s; they do with their next poll, or answer 503 once they are cut off for max_stale",
			instances(len(applied.Missing)), strings.Join(printables(applied.Missing), ", "))
	case isTimeout(err) && applied.Holders == 0:
		return exitf(exitNotEverywhere, "the revocation is made, but no instance was seen within the wait")
	}
	return exitf(exitCannotTell, "the revocation is made, but it is not known which instances have applied it: %s", printable(errorText(err), false))
}

// preview says what would be revoked. It asks Redis, so that a wrong URL or KEK is found.
func (c *revokeCommand) preview(ctx context.Context, list *revocations.List) error {
	if err := c.awaitKeys(ctx, list); err != nil {
		return err
	}
	before, ends := time.Time{}, c.exp.value
	kind := revocations.Token
	switch {
	case c.subject.given, c.all:
		before = c.beforeTime().Truncate(time.Second)
		if before.Before(c.beforeTime()) {
			before = before.Add(time.Second)
		}
		ends = before.Add(c.tokenTTL())
		if kind = revocations.Subject; c.all {
			kind = revocations.Tenant
		}
	case c.session.given:
		if kind = revocations.Session; ends.IsZero() {
			ends = c.now().Add(c.tokenTTL())
		}
	}
	reading, cancel := context.WithTimeout(ctx, ringTime)
	defer cancel()
	all, err := list.Instances(reading)
	if err != nil {
		return listError(err)
	}
	live, silent := c.liveAndSilent(all)
	if c.json {
		return c.print(toJSON(map[string]any{
			"dry_run": true, "kind": kind, "tenant": c.tenant.value, "before": when(before), "ends": when(ends), "entries": list.Len(),
			"live": live, "silent": namesOfSilent(silent),
		}))
	}
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(&b, "%s would be revoked; nothing was changed\n", c.what())
	c.times(line, before, ends)
	heardBy(line, live, silent, c.now())
	line("the list", "has %s now; there is no undo", countOf(list.Len(), "revocation"))
	return c.print(b.String())
}

// liveAndSilent returns the names of the instances that would hear of a revocation, and those that would not.
func (c *revokeCommand) liveAndSilent(all []revocations.Instance) (live []string, silent []revocations.Instance) {
	live = []string{}
	for _, i := range all {
		if i.Live {
			live = append(live, printable(i.Name, false))
		} else {
			silent = append(silent, i)
		}
	}
	return live, silent
}

func namesOfSilent(silent []revocations.Instance) []string {
	names := []string{}
	for _, i := range silent {
		names = append(names, printable(i.Name, false))
	}
	return names
}

// heardBy writes which instances would hear of a revocation.
func heardBy(line func(name, format string, args ...any), live []string, silent []revocations.Instance, now time.Time) {
	switch {
	case len(live) == 0:
		line("instances", "none lives that could hear of it")
	default:
		line("instances", "%s would hear of it: %s", instances(len(live)), strings.Join(live, ", "))
	}
	for _, i := range silent {
		line("", "%s would NOT; last heard of %s: it has crashed, or is cut off and answers 503", printable(i.Name, false), since(i.At, now))
	}
	if len(silent) > 0 {
		line("", "once that is longer than max_stale ago")
	}
}

func (c *revokeCommand) tokenTTL() time.Duration {
	if c.ttl.given {
		return c.ttl.value
	}
	return 400 * 24 * time.Hour
}
