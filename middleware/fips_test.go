package middleware_test

import (
	"crypto/fips140"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// forbidden are the tests that cannot run under GODEBUG=fips140=only, and why.
var forbidden = map[string]string{
	"TestJWKSReaders": "Redis and miniredis name scripts by their SHA-1",
}

// skipUnderFIPS skips a test of the list where only approved algorithms may run. `make soak` runs
// the rest there.
func skipUnderFIPS(t *testing.T) {
	t.Helper()
	if !fips140.Enforced() || os.Getenv("KEYTURN_FIPS_ALL") != "" {
		return
	}
	why, ok := forbidden[t.Name()]
	switch {
	case !ok:
		t.Fatal("the test is not on the list of those that are forbidden")
	case os.Getenv("CI") == "true":
		t.Fatalf("forbidden (%s): CI runs it without GODEBUG=fips140=only", why)
	}
	t.Skipf("forbidden: %s", why)
}

// TestForbiddenUnderFIPS: each test of the list does fail where only approved algorithms may run.
func TestForbiddenUnderFIPS(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name := range forbidden {
		cmd := exec.CommandContext(t.Context(), program, "-test.run", "^"+name+"$", "-test.v")
		cmd.Env = append(os.Environ(), "GODEBUG=fips140=only", "KEYTURN_FIPS_ALL=1")
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "FIPS 140") {
			t.Errorf("%s is on the list, and runs where only approved algorithms may, or does not exist: %v\n%s", name, err, out)
		}
	}
}
