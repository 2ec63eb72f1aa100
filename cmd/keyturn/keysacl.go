package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/doctor"
	"github.com/keyturn/keyturn/rotation/rediskeys"
)

const keysACLLong = `acl prints the line that gives a user of Redis the least rights with which keyturn works,
as redis-cli takes it: paste it there, on each server. It takes away every other right
that the user had, and leaves its passwords. It is printed for the kind of --redis or
KEYTURN_REDIS: a Cluster, Sentinels and a database other than 0 need more. Without them it
is for a single server. Without --check Redis is not asked.

--role writer is for serve, for a service that runs a rotator, and for all commands.
--role reader is for a service that only signs or verifies: it makes no change of a ring,
and cannot put back what Redis lost. That guards against mistakes, and not against a
person who has the password.

The line has no password. stderr says how to set one without showing it to other users.

--check asks Redis (7.0 or later) whether the user may do each of these things: by
ACL DRYRUN, if the user of the URL may call that, or else, if it is that user, by a script.

Exit codes: 0 the line is printed and, with --check, the user may do all of it, 1 it may
not, 2 the command line is not right, 3 Redis cannot be asked.

With --json it prints {"user","role","server","sentinel","denied"}: the arguments of ACL
SETUSER after the user, for servers and for Sentinels, and the commands that the user may
not call. Lists may be empty.`

const keysACLExample = `  keyturn keys acl --user keyturn
  keyturn keys acl --user reader --role reader --redis redis-cluster://a:6379,b:6379
  keyturn keys acl --user keyturn --check --redis redis://keyturn@localhost:6379`

// A keysACL holds the flags of "keyturn keys acl".
type keysACL struct {
	*app
	ring        ringFlags
	user, role  *option[string]
	check, json bool
}

func newKeysACL(a *app) *cobra.Command {
	c := &keysACL{app: a, ring: newRingFlags(), user: newText("USER", ""), role: newText("ROLE", string(rediskeys.RoleWriter))}
	c.user.parse = parseRedisUser
	cmd := &cobra.Command{
		Use: "acl --user USER [--role reader] [--check]", Short: "Print the least rights of a user of Redis",
		Long: keysACLLong + "\n\n" + ringForm, Example: keysACLExample, Args: wantNothing(func(string) string { return "" }),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd.Context()) },
	}
	c.ring.register(cmd, "the Redis that the rights are for")
	f := cmd.Flags()
	f.Var(c.user, "user", "the user of Redis; required")
	f.Var(c.role, "role", "writer: rotates and changes rings; reader: signs and verifies")
	f.BoolVar(&c.check, "check", false, "ask Redis whether the user may do all of it")
	f.BoolVar(&c.json, "json", false, "answer in one line of JSON")
	return cmd
}

// parseRedisUser reads the name of a user of Redis, which has no spaces and no zero bytes there. In a
// line for redis-cli quotes and backslashes would need more.
func parseRedisUser(s string) (string, error) {
	s, err := parseText(s)
	if err == nil && strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '"' || r == '\'' || r == '\\' }) {
		err = errors.New("has a space, a quote, a backslash or a control character")
	}
	return s, err
}

// An aclJSON is the answer with --json.
type aclJSON struct {
	User     string   `json:"user"`
	Role     string   `json:"role"`
	Server   []string `json:"server"`
	Sentinel []string `json:"sentinel"`
	Denied   []string `json:"denied"`
}

func (c *keysACL) run(ctx context.Context) error {
	if !c.user.given {
		return usagef("--user is missing: the name of the user of Redis, such as --user keyturn")
	}
	if err := c.ring.fromEnv(c.app, false); err != nil {
		return err
	}
	url := "redis://localhost"
	switch {
	case c.ring.redis.given:
		url = c.ring.redis.value
	case c.check:
		return usagef("--check goes with --redis or %s, which says which Redis to ask", envRedis)
	}
	acl, err := rediskeys.Config{}.ACL(url, rediskeys.Role(c.role.value))
	if err != nil {
		return c.aclError(err)
	}
	answer := aclJSON{User: c.user.value, Role: c.role.value, Server: acl.Server, Sentinel: acl.Sentinel}
	if c.check {
		if answer.Denied, err = c.denied(ctx, acl.Server); err != nil {
			return err
		}
	}
	if err := c.print(c.text(&answer)); err != nil {
		return err
	}
	if len(answer.Denied) > 0 {
		return exitf(exitNo, "user %s may not call %s: paste the line into redis-cli", quoteShort(c.user.value), strings.Join(answer.Denied, ", "))
	}
	return nil
}

// aclError returns the words for an unknown role or a malformed URL.
func (c *keysACL) aclError(err error) error {
	if errors.As(err, new(*rediskeys.Error)) {
		return storeError(err)
	}
	return usagef("--role: want %s or %s", rediskeys.RoleWriter, rediskeys.RoleReader)
}

func (c *keysACL) text(answer *aclJSON) string {
	if c.json {
		return toJSON(answer)
	}
	line := func(rules []string) string {
		return "ACL SETUSER " + c.user.value + " " + strings.Join(rules, " ") + "\n"
	}
	text := line(answer.Server)
	if answer.Sentinel != nil {
		c.note("the second line is for the Sentinels")
		text += line(answer.Sentinel)
	}
	c.note(`the password is not in the line; with it in KEYTURN_REDIS_PASSWORD: printf '>%%s' "$KEYTURN_REDIS_PASSWORD" | redis-cli -x ACL SETUSER %s`, c.user.value)
	return text
}

// denied asks each primary which of the commands the user may not call.
func (c *keysACL) denied(ctx context.Context, rules []string) ([]string, error) {
	s, err := c.connectWith(&c.ring, noKEKs)
	if err != nil {
		return nil, err
	}
	defer s.store.close()
	ctx, cancel := context.WithTimeout(ctx, ringTime)
	defer cancel()
	denied, asked := []string{}, false
	ask := func(ctx context.Context, client *redis.Client) error {
		rights, err := askRights(ctx, client, c.user.value, callsOf(rules))
		if err != nil {
			return err
		}
		asked = true
		for _, d := range rights.denied {
			if !slices.Contains(denied, d.Command) {
				denied = append(denied, d.Command)
			}
		}
		return nil
	}
	err = eachPrimary(ctx, s.store.client, ask)
	if err == nil && !asked {
		err = errors.New("no server is known")
	}
	if err != nil {
		if _, known := s.store.Tenants(ctx, []int{0}); known != nil && !isForbidden(err) {
			return nil, exitf(exitCannotTell, "%s", printable(errorText(known), false))
		}
		return nil, exitf(exitCannotTell, "Redis cannot say what user %s may do: %s", quoteShort(c.user.value), printable(err.Error(), false))
	}
	slices.Sort(denied)
	return denied, nil
}

// eachPrimary calls f with a client of each primary, one after the other.
func eachPrimary(ctx context.Context, client redis.UniversalClient, f func(context.Context, *redis.Client) error) error {
	cluster, ok := client.(*redis.ClusterClient)
	if !ok {
		return f(ctx, client.(*redis.Client)) // what rediskeys.OpenWith makes otherwise
	}
	turn := make(chan struct{}, 1) // the client asks all primaries at once
	return cluster.ForEachMaster(ctx, func(ctx context.Context, one *redis.Client) error {
		turn <- struct{}{}
		defer func() { <-turn }()
		return f(ctx, one)
	})
}

// callsOf returns the calls to ask about, for the commands among some rules.
func callsOf(rules []string) []doctor.Call {
	var calls []doctor.Call
	for _, call := range doctor.AllCalls() {
		if slices.Contains(rules, "+"+call.Command) {
			calls = append(calls, call)
		}
	}
	return calls
}

// rightsOf are what a server says that a user may do.
type rightsOf struct {
	user   string
	denied []doctor.Denial
}

// mayScript asks for a command whether the user of the connection may call it. Redis notes nothing in
// its ACL LOG, as it would if the command was tried. Redis 6 has no acl_check_cmd.
const mayScript = `return redis.acl_check_cmd(unpack(ARGV)) and 1 or 0`

func mayCall(ctx context.Context, client *redis.Client, args ...any) (bool, error) {
	// The script names no key: in a Cluster the server would send the client elsewhere.
	n, err := client.Do(ctx, append([]any{"EVAL", mayScript, 0}, args...)...).Int()
	return n == 1, err
}

// askRights asks a server which calls a user may not make. user is "" for that of the connection. If
// the connection may call ACL DRYRUN, that says more; else a script answers, and only of its own user.
func askRights(ctx context.Context, client *redis.Client, user string, calls []doctor.Call) (rightsOf, error) {
	whoami, err := mayCall(ctx, client, "ACL", "WHOAMI")
	if err != nil {
		return rightsOf{}, err
	}
	dryrun, err := mayCall(ctx, client, "ACL", "DRYRUN", "default", "PING")
	if err != nil {
		return rightsOf{}, err
	}
	own := ownName(ctx, client, whoami)
	if user == "" {
		user = own
	}
	switch {
	case dryrun && (whoami || user != ""):
		return dryRun(ctx, client, user, calls)
	case user != own:
		return rightsOf{}, fmt.Errorf("NOPERM user %s may not call ACL DRYRUN", own)
	}
	out := rightsOf{user: user}
	for _, call := range calls {
		ok, err := mayCall(ctx, client, call.Args...)
		switch {
		case err != nil:
			return rightsOf{}, err
		case !ok:
			out.denied = append(out.denied, doctor.Denial{Command: call.Command, Answer: doctor.Undetailed})
		}
	}
	return out, nil
}

// ownName returns the user of a connection.
func ownName(ctx context.Context, client *redis.Client, mayAsk bool) string {
	if mayAsk {
		if name, err := client.Do(ctx, "ACL", "WHOAMI").Text(); err == nil {
			return name
		}
	}
	o := client.Options()
	if o.CredentialsProviderContext != nil {
		if name, _, err := o.CredentialsProviderContext(ctx); err == nil && name != "" {
			return name
		}
	}
	if o.Username != "" && (o.Password != "" || o.CredentialsProviderContext != nil) {
		return o.Username
	}
	return "default"
}

// dryRun asks a server with ACL DRYRUN which calls a user may not make.
func dryRun(ctx context.Context, client *redis.Client, user string, calls []doctor.Call) (rightsOf, error) {
	out := rightsOf{user: user}
	pipe := client.Pipeline()
	var cmds []*redis.Cmd
	for _, call := range calls {
		cmds = append(cmds, pipe.Do(ctx, append([]any{"ACL", "DRYRUN", user}, call.Args...)...))
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	for i, call := range calls {
		answer, err := cmds[i].Text()
		switch {
		case err != nil && (isForbidden(err) || isUnknownCommand(err) || strings.Contains(err.Error(), "not found")):
			return rightsOf{}, err
		case err != nil:
			answer = err.Error()
		}
		if answer != "OK" {
			out.denied = append(out.denied, doctor.Denial{Command: call.Command, Answer: printable(answer, false)})
		}
	}
	return out, nil
}
