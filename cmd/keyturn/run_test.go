package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// testSecret is the one that the guide in the seed uses.
const testSecret = "supersecretdevkeythatishs256safe!"

// A result is what a run of the command left behind.
type result struct {
	code           int
	stdout, stderr string
}

// A call is a run of the command in this process, with nothing in its
// environment but what the test puts there.
type call struct {
	env   map[string]string
	stdin io.Reader
}

func (c call) run(t testing.TB, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	stdin := c.stdin
	if stdin == nil {
		stdin = strings.NewReader("")
	}
	env := func(name string) (string, bool) { v, ok := c.env[name]; return v, ok }
	code := run(t.Context(), args, env, stdin, &stdout, &stderr)
	return result{code, stdout.String(), stderr.String()}
}

func keyturn(t testing.TB, args ...string) result { t.Helper(); return call{}.run(t, args...) }

// binary builds the command once for all tests, into a folder that TestMain
// removes.
var binary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(binaryDir(), "keyturn")
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

var binaryDir = sync.OnceValue(func() string {
	dir, err := os.MkdirTemp("", "keyturn-test-")
	if err != nil {
		panic(err)
	}
	return dir
})

func TestMain(m *testing.M) {
	code := m.Run()
	os.RemoveAll(binaryDir())
	os.Exit(code)
}

func builtBinary(t testing.TB) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// cleanEnv is the test's environment without secrets.
func cleanEnv(more ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(s string) bool {
		return strings.HasPrefix(s, envSecret+"=") || strings.HasPrefix(s, envMastraSecret+"=")
	})
	return append(env, more...)
}

// process runs the built command.
func process(t testing.TB, stdin string, args ...string) result {
	t.Helper()
	cmd := exec.Command(builtBinary(t), args...)
	cmd.Env = cleanEnv()
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if e := (*exec.ExitError)(nil); err != nil && !errors.As(err, &e) {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// file writes a file for a flag to name.
func file(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// hs256 makes a token without the packages under test, so that the two cannot
// agree on the same mistake.
func hs256(secret, header, payload string) string {
	b64 := base64.RawURLEncoding.EncodeToString
	signed := b64([]byte(header)) + "." + b64([]byte(payload))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(signed))
	return signed + "." + b64(mac.Sum(nil))
}

const plainHeader = `{"alg":"HS256","typ":"JWT"}`

// wantUsage checks that a run ended with exit code 2, one line on stderr that
// holds the phrases, and nothing on stdout.
func (r result) wantUsage(t *testing.T, phrases ...string) {
	t.Helper()
	if r.code != exitUsage {
		t.Errorf("exit code = %d, want %d; stderr: %s", r.code, exitUsage, r.stderr)
	}
	if r.stdout != "" {
		t.Errorf("stdout = %q, want nothing", r.stdout)
	}
	if strings.Count(r.stderr, "\n") != 1 || !strings.HasPrefix(r.stderr, "keyturn: ") {
		t.Errorf("stderr = %q, want one line", r.stderr)
	}
	for _, p := range phrases {
		if !strings.Contains(r.stderr, p) {
			t.Errorf("stderr = %q, want it to say %q", r.stderr, p)
		}
	}
}

func (r result) want(t *testing.T, code int, stdout string) {
	t.Helper()
	if r.code != code || r.stdout != stdout {
		t.Errorf("exit code = %d, stdout = %q; want %d, %q; stderr: %s", r.code, r.stdout, code, stdout, r.stderr)
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{
		{}, {"sign"}, {"verify"}, {"inspect"}, {"serve"},
		{"keys"}, {"keys", "create"}, {"keys", "list"}, {"keys", "rotate"}, {"keys", "promote"}, {"keys", "revoke"},
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
	keyturn(t).wantUsage(t, "sign, verify, inspect or serve")
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

func TestSuggestions(t *testing.T) {
	for _, tt := range []struct {
		args   []string
		phrase string
	}{
		{[]string{"serve", "--adr", ":4112"}, "unknown flag --adr: did you mean --addr?"},
		{[]string{"serve", "-adr", ":4112"}, "unknown flag: did you mean --addr?"},
		{[]string{"serve", "--allow"}, "did you mean --allow-no-exp?"},
		{[]string{"verify", "--issuer", "i"}, "did you mean --iss?"},
		{[]string{"verify", "--secret-fil", "x"}, "did you mean --secret-file?"},
		{[]string{"verify", "--ALG", "x"}, "unknown flag: did you mean --alg?"},
		{[]string{"verify", "--lewway=5s"}, "did you mean --leeway?"},
		{[]string{"verify", "--secret", testSecret}, "a secret is never given as a flag: --secret-file"},
		{[]string{"sign", "--secret=" + testSecret}, "a secret is never given as a flag: --secret-file"},
		{[]string{"serve", "--secret", testSecret}, "KEYTURN_SECRET or MASTRA_JWT_SECRET"},
		{[]string{"serve", "4112"}, "--addr :4112"},
		{[]string{"serve", ":4112"}, "--addr :4112"},
		{[]string{"sign", "sub=ann"}, "--claim sub=ann"},
		{[]string{"sign", "sub=hush"}, "--claim sub=ann"},
	} {
		r := keyturn(t, tt.args...)
		r.wantUsage(t, tt.phrase)
		if strings.Contains(r.stderr, "hush") || strings.Contains(r.stderr, testSecret) {
			t.Errorf("%q: stderr = %q", tt.args, r.stderr)
		}
	}
	for _, args := range [][]string{
		{"verify", "--redis", "x"}, {"verify", "--issuer-url", "x"}, {"inspect", "--secret", "x"}, {"verify", "-x", "t"},
		{"serve", "70000"}, {"serve", "localhost"}, {"sign", "ann"},
	} {
		r := keyturn(t, args...)
		r.wantUsage(t)
		if strings.Contains(r.stderr, "did you mean") || strings.Contains(r.stderr, "such as --addr") || strings.Contains(r.stderr, "such as --claim") {
			t.Errorf("%q: stderr = %q, want no suggestion", args, r.stderr)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "ab", 2}, {"ab", "", 2}, {"adr", "addr", 1}, {"addr", "adr", 1}, {"kid", "kit", 1},
		{"aud", "iss", 3}, {"kitten", "sitting", 3},
	} {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}

// What the help must say.
func TestHelpTexts(t *testing.T) {
	const secret = "base64 is not decoded; one line end at the end of a\nfile is dropped"
	for command, phrases := range map[string][]string{
		"sign":   {secret, "not put in the token"},
		"verify": {secret, "not put in the token", "with --json too, standard output is empty", "--issuer-url asks", "10 seconds at most"},
		"serve":  {secret, "There is no CORS", ":4111", "/.well-known/jwks.json", "(umask 077; openssl rand -base64 32 > kek)", "kind: jwks, issuer_url", "openid-configuration"},
		"keys":   {"KEYTURN_KEK", "Exit codes: 0 done, 1 refused"},
	} {
		r := keyturn(t, command, "--help")
		for _, p := range phrases {
			if !strings.Contains(r.stdout, p) {
				t.Errorf("%s --help does not say %q:\n%s", command, p, r.stdout)
			}
		}
	}
}

// A token or a secret in the wrong place is a common mistake, and no reason to
// print it.
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
