package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// run is the whole command, and returns its exit code. It never exits and reads no global, so that a
// test can call it.
func run(ctx context.Context, args []string, env func(string) (string, bool), stdin io.Reader, stdout, stderr io.Writer) int {
	return (&app{env: env, stdin: stdin, stdout: stdout, stderr: stderr, now: time.Now}).run(ctx, args)
}

func (a *app) run(ctx context.Context, args []string) int {
	root := newRoot(a)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitYes
	}
	f := new(exitError)
	if !errors.As(err, &f) {
		f = &exitError{exitUsage, err.Error()}
	}
	if f.text != "" {
		fmt.Fprintln(a.stderr, "keyturn: "+hideLogin(f.text))
	}
	return f.code
}

const rootLong = `keyturn makes and checks JSON Web Tokens (JWTs): short signed texts by which one
program proves to another who is asking.

  keys     makes and rotates the keys of a ring on Redis
  sign     makes a token, from a secret or with a ring
  verify   says whether a token is good, and by its exit code too
  inspect  shows what is inside a token, without checking it
  serve    starts a small API on port 4111 that only a good token opens
  revoke   ends tokens of a user, a session or a tenant before their exp
  revocations  shows what was revoked
  doctor   says what in Redis, the rings and the clock would hurt
  drill    rehearses a rotation, a revocation, an outage or a restore on a canary

Exit codes: 0 yes, 1 no (a bad token, or a change that is refused), 2 the command
line or a file is not right, 3 it cannot be told now, as Redis or an issuer
cannot be reached, 4 a change is made, and not applied everywhere yet.
Secrets come from a file or the environment (KEYTURN_SECRET or MASTRA_JWT_SECRET,
KEYTURN_KEK or KEYTURN_KEK_FILE, KEYTURN_REDIS_PASSWORD), never from a flag, where
other users of the machine could read them. KEYTURN_REDIS stands for --redis.

In a clone of the project, "go run ./cmd/keyturn" stands for "keyturn".`

const rootExample = `  keyturn serve
  (umask 077; openssl rand -base64 32 > secret)
  keyturn sign --secret-file secret --claim sub=ann
  keyturn verify --secret-file secret --alg HS256 TOKEN
  keyturn keys list --redis redis://localhost:6379 --tenant acme --kek-file kek`

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:           "keyturn",
		Short:         "Make, check and look into JSON Web Tokens",
		Long:          rootLong,
		Example:       rootExample,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs, // so that RunE receives an unknown command
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return usagef("say what to do: %s; %s", commandNames(cmd), seeHelp(cmd))
		},
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(flagError)
	root.SetHelpCommand(newHelp(root))
	root.SuggestionsMinimumDistance = 2
	root.CompletionOptions.DisableDefaultCmd = true
	root.Flags().Bool("version", false, "print the version")
	root.AddCommand(newKeys(a), newSign(a), newVerify(a), newInspect(a), newServe(a), newRevoke(a), newRevocations(a), newDoctor(a), newDrill(a))
	addHelp(root)
	return root
}

// addHelp adds --help to a command and to all commands below it.
func addHelp(cmd *cobra.Command) {
	cmd.Flags().SortFlags = false
	cmd.Flags().BoolP("help", "h", false, "show this help")
	for _, sub := range cmd.Commands() {
		addHelp(sub)
	}
}

// commandNames lists the commands below cmd in words, in the order in which they are used.
func commandNames(cmd *cobra.Command) string {
	switch cmd.Name() {
	case "drill":
		return "rotate, revoke, outage or restore"
	case "revocations":
		return "list or count"
	}
	if cmd.HasParent() {
		return "create, list, log, rotate, promote, revoke or rekey"
	}
	return "keys, revoke, revocations, sign, verify, inspect, serve, doctor or drill"
}

// newHelp replaces cobra's help command. That one prints an argument that is not a command, which may
// be a token.
func newHelp(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:    "help [COMMAND]",
		Short:  "Show the help of a command",
		Hidden: true,
		Args:   cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			cmd := root
			for _, name := range args {
				i := slices.IndexFunc(cmd.Commands(), func(sub *cobra.Command) bool { return sub.Name() == name })
				if i < 0 {
					return unknownCommand(cmd, name)
				}
				cmd = cmd.Commands()[i]
			}
			return cmd.Help()
		},
	}
}

func unknownCommand(parent *cobra.Command, arg string) error {
	what := "unknown command"
	if isWord(arg) {
		what += fmt.Sprintf(" %q", arg)
	}
	if s := parent.SuggestionsFor(arg); len(s) > 0 {
		return usagef("%s: did you mean %q?", what, s[0])
	}
	return usagef("%s: want %s; %s", what, commandNames(parent), seeHelp(parent))
}

// isWord reports whether s looks like the name of a flag or command. Such a word may be printed; a
// token or a secret in the wrong place does not look like one.
func isWord(s string) bool {
	return len(s) <= 20 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz-") == ""
}

// version returns the version that the go command recorded in the binary.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
