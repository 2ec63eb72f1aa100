package rediskeys_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/redistest"
)

// notUnderFIPS are the tests of this package that cannot run under GODEBUG=fips140=only, and why.
var notUnderFIPS = map[string]string{
	"Example": "it shows a program with miniredis, which names scripts by SHA-1",
}

// Under GODEBUG=fips140=only any use of SHA-1 panics, but for those that say that they may. This runs
// the tests that use all methods; make soak runs the whole package like that.
func TestFIPS140Only(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	if out, err := underFIPS(t, "Test(StoreOnRedis|StoreOnMiniredis|Format|DigestVector|FlushedScriptsAreSentAgain)"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	for name, why := range notUnderFIPS {
		if out, err := underFIPS(t, name); err == nil || !strings.Contains(out, "FIPS 140-only mode") {
			t.Errorf("%s is said not to run, as %s: error %v, output %.300s", name, why, err, out)
		}
	}
}

// underFIPS runs tests of this package in a process of their own.
func underFIPS(t *testing.T, tests string) (string, error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run", "^"+tests+"$", "-test.v")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
	out, err := cmd.CombinedOutput()
	if err == nil && !strings.Contains(string(out), "--- PASS: ") {
		t.Errorf("no test has the name %s", tests)
	}
	return string(out), err
}
