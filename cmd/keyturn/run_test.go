package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestHelp(t *testing.T) {
	for _, args := range [][]string{
		{}, {"sign"}, {"verify"}, {"inspect"}, {"serve"}, {"doctor"},
		{"keys"}, {"keys", "create"}, {"keys", "import"}, {"keys", "policy"}, {"keys", "list"}, {"keys", "rotate"}, {"keys", "promote"}, {"keys", "revoke"},
	} {
		r := keyturn(t, append(args, "--help")...)
		if r.code != exitYes || r.stderr != "" {
			t.Errorf("%v --help: exit code = %d, stderr = %q", args, r.code, r.stderr)
		}
		for _, want := range []string{"Usage:", "Examples:\n  ", "Flags:"} {
			if !strings.Contains(r.stdout, want) {
				t.Errorf("%v --help has no %q:\n%s", args, want, r.stdout)
			}
		}
		for line := range strings.Lines(r.stdout) {
			if len(line) > 120 {
				t.Errorf("%v --help has a line of %d bytes: %s", args, len(line), line)
			}
		}
		if h := keyturn(t, append([]string{"help"}, args...)...); h != r {
			t.Errorf("help %v differs from %v --help", args, args)
		}
	}
	if r := keyturn(t, "--version"); r.code != exitYes || !strings.HasPrefix(r.stdout, "keyturn version ") {
		t.Errorf("--version = %+v", r)
	}
}

func TestCommandLine(t *testing.T) {
	keyturn(t).wantUsage(t, "sign, verify, inspect, serve, doctor or drill")
	keyturn(t, "").wantUsage(t, "unknown command")
	keyturn(t, "verfy").wantUsage(t, `unknown command "verfy"`, `did you mean "verify"?`)
	keyturn(t, "help", "verfy").wantUsage(t, `did you mean "verify"?`)
	keyturn(t, "help", "keys", "lst").wantUsage(t, `did you mean "list"?`)
	keyturn(t, "completion", "bash").wantUsage(t, "unknown command")
	keyturn(t, "--json").wantUsage(t, "unknown flag --json")
	keyturn(t, "sign", "ann").wantUsage(t, "no flag", "keyturn sign --help")
	keyturn(t, "serve", "now").wantUsage(t, "no flag", "keyturn serve --help")
	keyturn(t, "verify", "--database", "x").wantUsage(t, "unknown flag --database")
	keyturn(t, "verify", "--jwks").wantUsage(t, "--jwks needs a value")
	keyturn(t, "verify", "--json=maybe", "t").wantUsage(t, "--json takes no value")
	keyturn(t, "verify", "--=x", "t").wantUsage(t, "unknown flag")
	keyturn(t, "verify", "-x", "t").wantUsage(t, "flags are long")
	keyturn(t, "verify").wantUsage(t, "give a TOKEN, or -")
	keyturn(t, "verify", "a", "b").wantUsage(t, "2 arguments")
	keyturn(t, "inspect").wantUsage(t, "give a TOKEN, or -")
	keyturn(t).wantUsage(t, `see "keyturn --help" (from a clone: go run ./cmd/keyturn --help)`)
	keyturn(t, "verify").wantUsage(t, `see "keyturn verify --help" (from a clone: go run ./cmd/keyturn verify --help)`)
}

// The help says what the documentation relies on.
func TestHelpTexts(t *testing.T) {
	const secret = "base64 is not decoded; one line end at the end of a\nfile is dropped"
	for command, phrases := range map[string][]string{
		"sign":   {secret, "not put in the token"},
		"verify": {secret, "not put in the token", "with --json too, standard output is empty", "--issuer-url asks", "10 seconds at most"},
		"serve":  {secret, "There is no CORS", ":4111", "/.well-known/jwks.json", "(umask 077; openssl rand -base64 32 > kek)", "kind: jwks, issuer_url", "openid-configuration"},
		"keys":   {"KEYTURN_KEK", "Exit codes: 0 done, and applied by every live instance, 1 refused"},
	} {
		r := keyturn(t, command, "--help")
		for _, p := range phrases {
			if !strings.Contains(r.stdout, p) {
				t.Errorf("%s --help does not say %q:\n%s", command, p, r.stdout)
			}
		}
	}
}

// Each command's help is its text, and no piece of the program that makes it.
func TestHelpIsText(t *testing.T) {
	for _, command := range strings.Fields("accept acl backup create import list log policy promote rekey replace restore revoke rotate shred") {
		r := keyturn(t, "keys", command, "--help").wantCode(t, exitYes, "Usage:")
		if i := strings.IndexByte(r.stdout, '`'); i >= 0 {
			t.Errorf("keys %s --help has a quote of Go: %q", command, r.stdout[i:min(i+20, len(r.stdout))])
		}
	}
	keyturn(t, "keys", "create", "--help").wantCode(t, exitYes, "The command stays until every live instance has applied the change")
}

// A token or a secret in the wrong place is a common mistake, and must not be printed.
func TestMisplacedValuesAreNotPrinted(t *testing.T) {
	token := hs256(testSecret, plainHeader, `{"sub":"hush","exp":1}`)
	secretPath := file(t, testSecret)
	dashed := "-" + token
	for _, args := range [][]string{
		{token}, {dashed}, {"--" + token}, {"help", token}, {"completion", token}, {testSecret},
		{"verify", dashed}, {"verify", "--" + token}, {"verify", token, token}, {"verify", token},
		{"verify", "--alg", token, "x"}, {"verify", "--alg=" + token, "x"}, {"verify", "--now", token, "x"},
		{"verify", "--leeway", token, "x"}, {"verify", "--json=" + token, "x"},
		{"verify", "--alg", "HS256", "--jwks", token, token},
		{"verify", "--alg", "HS256", "--jwks", secretPath, token},
		{"verify", "--alg", "HS256", "--secret-file", testSecret, token},
		{"verify", "--alg", "HS256", "--secret-file", secretPath, "--kid", strings.Repeat(testSecret, 9), token},
		{"verify", "--alg", "HS256", "--secret-file", secretPath, token},
		{"verify", "--alg", "HS256", "--secret-file", secretPath, "--json", token},
		{"verify", "--alg", "HS256", "--secret-file", secretPath, "--iss", testSecret, token},
		{"verify", "--alg", "HS256", "--secret-file", file(t, testSecret[:31]), token},
		{"sign", "--secret", testSecret}, {"sign", "--secret-file", testSecret}, {"sign", testSecret},
		{"sign", "--secret-file", secretPath, "--claim", testSecret},
		{"sign", "--secret-file", secretPath, "--claim-json", "a=" + testSecret},
		{"sign", "--secret-file", secretPath, "--claim", "exp=" + testSecret},
		{"sign", "--secret-file", secretPath, "--alg", testSecret},
		{"sign", "--secret-file", secretPath, "--ttl", testSecret},
		{"serve", token}, {"serve", "--secret-file", testSecret}, {"serve", "--addr", testSecret},
		{"serve", "--secret-file", file(t, testSecret[:31])},
		{"keys", token}, {"keys", "revoke", token}, {"keys", "list", testSecret}, {"keys", "create", "--every", testSecret},
		{"keys", "list", "--redis", "redis://" + testSecret + "@x:y", "--kek-file", secretPath}, {"keys", "list", "--redis", testSecret},
		{"keys", "list", "--redis", "redis://x", "--kek-file", testSecret}, {"keys", "list", "--redis", "redis://x", "--kek-file", secretPath},
		{"sign", "--redis", "redis://" + testSecret + ":y", "--kek-file", file(t, newKEK())}, {"serve", "--redis", "://" + testSecret},
		{"serve", "--redis", "http://" + testSecret + "@x", "--kek-file", file(t, newKEK())},
	} {
		r := keyturn(t, args...)
		if r.code == exitYes {
			t.Errorf("%.40q: exit code 0", args)
		}
		for _, hush := range []string{token, token[:30], testSecret[:31], "hush"} {
			if strings.Contains(r.stdout+r.stderr, hush) {
				t.Errorf("%.40q prints a token or secret: %s%s", args, r.stdout, r.stderr)
			}
		}
	}
}

func TestUnwritableOutput(t *testing.T) {
	secret := file(t, testSecret)
	env := func(string) (string, bool) { return "", false }
	for _, args := range [][]string{
		{"sign", "--secret-file", secret},
		{"verify", "--secret-file", secret, "--alg", "HS256", "--json", "x"},
		{"inspect", hs256(testSecret, plainHeader, `{}`)},
	} {
		if code := run(context.Background(), args, env, strings.NewReader(""), brokenWriter{}, io.Discard); code != exitCannotTell {
			t.Errorf("%s: exit code = %d, want %d", args[0], code, exitCannotTell)
		}
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("disk full") }
