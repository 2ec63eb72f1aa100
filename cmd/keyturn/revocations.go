package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/verifier/revocations"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

const revocationsLong = `revocations shows the list of revocations in Redis: what "keyturn revoke", the paths
/revoke and /backchannel-logout of "keyturn serve", and services with package revocations
have revoked. The list holds digests: no subject, session or jti can be read from it. An
entry ends by itself when all its tokens have expired.

` + listForm

const revocationsListLong = `list prints an entry a line: what it revokes, from which second on logins count, and when
it ends. The digest stands for the name.

With --json it prints an array of {"kind","digest","before","ends","key"}: "kind" is token,
session, subject or tenant, and "key" names the digest key.

` + revocationsCodes + listForm

const revocationsCountLong = `count prints how many revocations the list holds, by their kind.

With --json it prints {"token","session","subject","tenant","total","unreadable"}:
"unreadable" is how many groups of the list, of any tenant, cannot be read in full.

` + revocationsCodes + listForm

// revocationsCodes are the exit codes of the commands under "keyturn revocations".
const revocationsCodes = `Exit codes: 0 done, 2 the command line is not right, 3 Redis cannot be reached, or the
list, or a part of it, cannot be read: what it shows is not the whole list then.

`

// A revocationsCommand holds the flags of the commands under "keyturn revocations".
type revocationsCommand struct {
	listFlags
	tenant *option[string]
}

func newRevocations(a *app) *cobra.Command {
	parent := &cobra.Command{
		Use: "revocations (list | count) --redis URL [--tenant TENANT]", Short: "Show the list of revocations",
		Long: revocationsLong, Example: "  keyturn revocations count --redis redis://localhost:6379 --kek-file kek", Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return usagef("say what to show of the revocations: %s; %s", commandNames(cmd), seeHelp(cmd))
		},
	}
	parent.SuggestionsMinimumDistance = 2
	parent.AddCommand(
		newRevocationsCommand(a, "list", "Print each revocation", revocationsListLong,
			"  keyturn revocations list --redis redis://localhost:6379 --kek-file kek --tenant acme", (*revocationsCommand).list),
		newRevocationsCommand(a, "count", "Say how many revocations there are", revocationsCountLong,
			"  keyturn revocations count --redis redis://localhost:6379 --kek-file kek --json", (*revocationsCommand).count),
	)
	return parent
}

func newRevocationsCommand(a *app, name, short, long, example string, show func(*revocationsCommand, *revocations.List) error) *cobra.Command {
	c := &revocationsCommand{listFlags: listFlags{app: a, ring: newRingFlags()}, tenant: newRingTenant()}
	cmd := &cobra.Command{
		Use: name + " --redis URL [--tenant TENANT]", Short: short, Long: long, Example: example,
		Args: wantNothing(func(string) string { return "" }),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withList(cmd.Context(), 0, func(ctx context.Context, list *revocations.List) error {
				if err := c.awaitRead(ctx, list); err != nil {
					return err
				}
				if err := show(c, list); err != nil {
					return err
				}
				return readInFull(list)
			})
		},
	}
	c.listFlags.register(cmd)
	cmd.Flags().Var(c.tenant, "tenant", "the tenant whose revocations are shown")
	describeTenant(cmd, "the tenant whose revocations are shown; all tenants without it", "")
	return cmd
}

// entries returns the entries that are asked for, in an order that stays.
func (c *revocationsCommand) entries(list *revocations.List) []revocations.Entry {
	tenant := ""
	if c.tenant.given {
		tenant = c.tenant.value
	}
	return slices.SortedFunc(list.All(tenant), func(a, b revocations.Entry) int {
		if a.Kind != b.Kind {
			return strings.Compare(string(a.Kind), string(b.Kind))
		}
		return strings.Compare(a.Digest, b.Digest)
	})
}

// An revocationJSON is an entry in the array of "revocations list --json".
type revocationJSON struct {
	Kind   string  `json:"kind"`
	Digest string  `json:"digest"`
	Before *string `json:"before"`
	Ends   *string `json:"ends"`
	Key    string  `json:"key"`
}

// readInFull returns exit code 3 if what the command has shown is not the whole list.
func readInFull(list *revocations.List) error {
	s := list.Status()
	if s.Unreadable == 0 {
		return nil
	}
	return exitf(exitCannotTell, `THIS IS NOT THE WHOLE LIST: %s cannot be read in full (such as %s): the digest key is gone, or a newer keyturn wrote entries: run the newest keyturn in use, and see docs/operations.md, "The digest keys of revocations"`,
		countOf(s.Unreadable, "group"), strings.Join(s.UnreadableIn, ", "))
}

func (c *revocationsCommand) list(list *revocations.List) error {
	entries := c.entries(list)
	if c.json {
		all := []revocationJSON{}
		for _, e := range entries {
			all = append(all, revocationJSON{string(e.Kind), e.Digest, when(e.Before), when(e.Ends), e.Key})
		}
		return c.print(toJSON(all))
	}
	var b strings.Builder
	for _, e := range entries {
		before, ends := "-", "never"
		if !e.Before.IsZero() {
			before = stamp(e.Before)
		}
		if !e.Ends.IsZero() {
			ends = stamp(e.Ends)
		}
		fmt.Fprintf(&b, "%-8s %-24s before %-20s ends %s\n", e.Kind, e.Digest, before, ends)
	}
	if len(entries) == 0 {
		c.note("no revocation is in the list")
	}
	return c.print(b.String())
}

func (c *revocationsCommand) count(list *revocations.List) error {
	entries, unreadable := c.entries(list), list.Status().Unreadable
	of := make(map[revocations.Kind]int)
	for _, e := range entries {
		of[e.Kind]++
	}
	if c.json {
		return c.print(toJSON(struct {
			Token   int `json:"token"`
			Session int `json:"session"`
			Subject int `json:"subject"`
			Tenant  int `json:"tenant"`
			Total   int `json:"total"`

			Unreadable int `json:"unreadable"`
		}{of[revocations.Token], of[revocations.Session], of[revocations.Subject], of[revocations.Tenant], len(entries), unreadable}))
	}
	return c.print(fmt.Sprintf("%s: %s, %s, %s, %s\n", countOf(len(entries), "revocation"), countOf(of[revocations.Token], "token"),
		countOf(of[revocations.Session], "session"), countOf(of[revocations.Subject], "subject"), countOf(of[revocations.Tenant], "tenant")))
}

// hasList reports whether a Redis has a list: its digest keys, or a group of entries. It makes none.
func hasList(ctx context.Context, client redis.UniversalClient) (bool, error) {
	s, err := rediskeys.New(client, rediskeys.Config{Prefix: "kt:rv"}) // docs/formats.md
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, ringTime)
	defer cancel()
	if keys := s.Load(ctx, []string{"keys"})[0]; keys.Err != nil || len(keys.Fields) > 0 {
		return len(keys.Fields) > 0, keys.Err
	}
	buckets := make([]int, rotation.Buckets)
	for i := range buckets {
		buckets[i] = i
	}
	names, err := s.Tenants(ctx, buckets)
	return slices.ContainsFunc(names, func(groups []string) bool { return len(groups) > 0 }), err
}

// awaitRead waits until the list was read once. Whether Redis has lost something does not matter to a
// command that only shows.
func (l *listFlags) awaitRead(ctx context.Context, list *revocations.List) error {
	defer tellListWait(ctx, l.app, list)()
	return awaitList(ctx, list, func(s *revocations.Status) bool { return !s.Read.IsZero() })
}

// awaitKeys waits until the digest keys are known, or known to be missing. A command whose KEK is not
// that of the service would make one of its own otherwise, which no instance can open.
func (l *listFlags) awaitKeys(ctx context.Context, list *revocations.List) error {
	defer tellListWait(ctx, l.app, list)()
	return awaitList(ctx, list, func(s *revocations.Status) bool { return len(s.KeyNames) > 0 || !s.Read.IsZero() })
}

// tellListWait shows on stderr why a command waits for the list, until stop is called.
func tellListWait(ctx context.Context, a *app, list *revocations.List) (stop func()) {
	return tellProgress(ctx, a, func() string { s := list.Status(); return listWait(&s) })
}

// listWait says why a list with that status is not ready.
func listWait(s *revocations.Status) string {
	switch {
	case s.Unread != nil:
		return "waiting for Redis to answer"
	case s.Read.IsZero():
		return "waiting until the list of revocations is read"
	}
	return "waiting until it is known that Redis has lost no revocation, as no instance that runs says so"
}

// patience is how long a command asks a Redis that does not answer: the calls of a list are short.
const patience = 3 * time.Second

func awaitList(ctx context.Context, list *revocations.List, done func(*revocations.Status) bool) error {
	return awaitListFor(ctx, ringTime, list, done)
}

// awaitListFor waits until the list is as done wants it, for so long at most. One call that fails late says
// little: a Redis, or this machine, may be busy.
func awaitListFor(ctx context.Context, most time.Duration, list *revocations.List, done func(*revocations.Status) bool) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	answered := time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		status := list.Status()
		switch {
		case len(status.KeyNames) == 0 && status.Alarms.Forged > 0: // the list says so too, and knows no flag
			return exitf(exitCannotTell, "what Redis holds of the revocations cannot be opened: give the KEK that the service has, with --kek-file, %s or %s, or none if it has none", envKEKFile, envKEK)
		case errors.Is(status.Err, revocations.ErrDigestKeys):
			return listError(status.Err)
		case errors.Is(status.Unread, revocations.ErrDigestKeys):
			return listError(status.Unread)
		case done(&status):
			return nil
		case status.Unread == nil && !status.Read.IsZero():
			answered = time.Now()
		case status.Unread != nil && time.Since(answered) > patience:
			return listError(status.Unread)
		}
		select {
		case <-ctx.Done():
			return listError(ctx.Err())
		case <-tick.C:
		}
	}
}

// listError returns the exit code and the words for an error of a list.
func listError(err error) error {
	if e := new(rediskeys.Error); errors.As(err, &e) {
		return exitf(exitCannotTell, "%s", printable(errorText(e), false))
	}
	text := printable(strings.ReplaceAll(errorText(err), "revocations: ", ""), false)
	switch {
	case errors.Is(err, revocations.ErrFuture):
		return exitf(exitNo, "refused: --before is in the future, by the clock of Redis: to revoke tokens that are not issued yet could not be undone")
	case errors.Is(err, revocations.ErrFull):
		return exitf(exitNo, "refused: %s", text)
	}
	return exitf(exitCannotTell, "the list of revocations cannot be used: %s%s", text, advice(err))
}
