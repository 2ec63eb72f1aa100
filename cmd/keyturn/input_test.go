package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func TestVerifySecretForms(t *testing.T) {
	good := hs256(testSecret, plainHeader, goodPayload)
	for text, code := range map[string]int{
		testSecret:            exitYes,
		testSecret + "\n":     exitYes,
		testSecret + "\r\n":   exitYes,
		testSecret + "\n\n":   exitNo, // only one line end is dropped
		testSecret + "\r":     exitNo,
		testSecret + " ":      exitNo,
		"\ufeff" + testSecret: exitNo,
	} {
		r := keyturn(t, "verify", "--secret-file", file(t, text), "--alg", "HS256", "--now", now, good)
		if r.code != code {
			t.Errorf("secret file ending in %q: exit code = %d, want %d", text[len(text)-2:], r.code, code)
		}
	}
}

// A user who can read the file can sign. The note about it does not go to standard output, which
// programs read.
func TestSecretFileModes(t *testing.T) {
	token := hs256(testSecret, plainHeader, in(time.Hour, ""))
	secret, kek := file(t, testSecret), file(t, newKEK())
	c := newRingCLI(t, redisAddr(t))
	for mode, noted := range map[os.FileMode]bool{0o600: false, 0o400: false, 0o640: true, 0o604: true, 0o644: true} {
		for _, path := range []string{secret, kek} {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
		}
		for flag, r := range map[string]result{
			"--secret-file": keyturn(t, "verify", "--json", "--alg", "HS256", "--secret-file", secret, token),
			"--kek-file":    keyturn(t, "keys", "list", "--tenant", "default", "--json", "--redis", c.url, "--kek-file", kek),
		} {
			note := fmt.Sprintf("the file of %s is readable by group or others (mode %04o): chmod 600", flag, mode)
			if strings.Contains(r.stderr, note) != noted || strings.Contains(r.stdout, "readable") || !strings.HasPrefix(r.stdout, `{"ok":`) {
				t.Errorf("mode %04o: stdout: %s; stderr: %s", mode, r.stdout, r.stderr)
			}
		}
	}
}

func TestSecretFileEndsInWhiteSpace(t *testing.T) {
	for text, noted := range map[string]bool{
		testSecret: false, testSecret + "\n": false, testSecret + "\r\n": false, " " + testSecret: false,
		testSecret + "\n\n": true, testSecret + "\r": true, testSecret + " \n": true, testSecret + "\t": true,
	} {
		r := keyturn(t, "sign", "--secret-file", file(t, text))
		if r.code != exitYes || strings.Contains(r.stderr, "ends in white space, which counts as part of it") != noted {
			t.Errorf("a secret file ending in %q: code = %d, stderr = %q", text[len(text)-2:], r.code, r.stderr)
		}
	}
}

func TestSecretFromEnvironment(t *testing.T) {
	good := hs256(testSecret, plainHeader, goodPayload)
	args := []string{"verify", "--alg", "HS256", "--now", now, good}
	other := strings.Repeat("o", 32)
	for _, tt := range []struct {
		name string
		env  map[string]string
		code int
	}{
		{"KEYTURN_SECRET", map[string]string{envSecret: testSecret}, exitYes},
		{"MASTRA_JWT_SECRET", map[string]string{envMastraSecret: testSecret}, exitYes},
		{"both, equal", map[string]string{envSecret: testSecret, envMastraSecret: testSecret}, exitYes},
		{"as it is", map[string]string{envSecret: testSecret + "\n"}, exitNo},
		{"another", map[string]string{envSecret: other}, exitNo},
	} {
		if r := (call{env: tt.env}).run(t, args...); r.code != tt.code {
			t.Errorf("%s: exit code = %d, want %d; stderr: %s", tt.name, r.code, tt.code, r.stderr)
		}
	}
	call{env: map[string]string{envSecret: testSecret, envMastraSecret: other}}.run(t, args...).wantUsage(t, "both set, and differ")
	call{env: map[string]string{envSecret: "", envMastraSecret: other}}.run(t, args...).wantUsage(t, "KEYTURN_SECRET is set, but empty")
	call{env: map[string]string{envMastraSecret: ""}}.run(t, args...).wantUsage(t, "MASTRA_JWT_SECRET is set, but empty")
	call{env: map[string]string{envSecret: "short"}}.run(t, args...).wantUsage(t, "KEYTURN_SECRET: the secret for HS256 is 5 bytes")

	// A file goes before the environment.
	r := call{env: map[string]string{envSecret: other}}.run(t, verifyArgs(t, good)...)
	if r.code != exitYes {
		t.Errorf("file and environment: %+v", r)
	}
}

func TestVerifyStandardInput(t *testing.T) {
	good := hs256(testSecret, plainHeader, goodPayload)
	for _, tt := range []struct {
		name, stdin, reason string
	}{
		{"no line end", good, ""},
		{"line feed", good + "\n", ""},
		{"carriage return and line feed", good + "\r\n", ""},
		{"two line ends", good + "\n\n", "malformed"},
		{"carriage return", good + "\r", "malformed"},
		{"space before", " " + good, "malformed"},
		{"space after", good + " \n", "malformed"},
		{"two tokens", good + "\n" + good + "\n", "malformed"},
		{"empty", "", "malformed"},
		{"a line end", "\n", "malformed"},
		{"a dash", "-\n", "malformed"},
		{"at the limit", strings.Repeat("a", 16<<10) + "\r\n", "malformed"},
		{"above the limit", strings.Repeat("a", 16<<10+1) + "\n", "too_large"},
		{"above the limit by line ends", strings.Repeat("a", 16<<10) + "\n\r\n", "too_large"},
		{"1 MiB", strings.Repeat("a", 1<<20), "too_large"},
		{"1 MiB of line ends", strings.Repeat("\n", 1<<20), "too_large"},
		{"NUL", good[:20] + "\x00" + good[20:], "malformed"},
	} {
		for _, dash := range [][]string{{"-"}, {"--", "-"}} {
			r := call{stdin: strings.NewReader(tt.stdin)}.run(t, verifyArgs(t, append([]string{"--json"}, dash...)...)...)
			if tt.reason == "" && r.code != exitYes || tt.reason != "" && !strings.Contains(r.stdout, `"reason":"`+tt.reason+`"`) {
				t.Errorf("%s: exit code = %d, stdout = %s", tt.name, r.code, r.stdout)
			}
		}
	}
}

// endless is a standard input that never ends. It counts the bytes that were read.
type endless struct{ n int }

func (e *endless) Read(b []byte) (int, error) {
	e.n += len(b)
	return copy(b, bytes.Repeat([]byte("a"), len(b))), nil
}

func TestStandardInputIsBounded(t *testing.T) {
	for _, args := range [][]string{verifyArgs(t, "-"), {"inspect", "-"}} {
		in := new(endless)
		r := call{stdin: in}.run(t, args...)
		if r.code != exitNo || in.n > 2<<20 {
			t.Errorf("%s: exit code = %d after %d bytes", args[0], r.code, in.n)
		}
	}
}
