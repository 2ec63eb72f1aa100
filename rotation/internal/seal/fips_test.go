package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/fips140"
	"os"
	"os/exec"
	"testing"

	"github.com/keyturn/keyturn/keystore"
)

// Under GODEBUG=fips140=only a program may use approved algorithms alone. These are the exceptions:
// what does not run there, each with its reason. An entry that runs there after all fails the test.
var (
	// notApproved are algorithms of keys. There is none: Ed25519 is approved too (FIPS 186-5), and all
	// RSA keys have at least 2048 bits.
	notApproved = map[keystore.Algorithm]string{}

	// exceptions are what the tests of this package do under fips140.WithoutEnforcement.
	exceptions = map[string]func() error{
		"AES-GCM with a nonce of the caller's, for vectors: GCM must choose it itself (NIST SP 800-38D, section 8.2)": func() error {
			block, err := aes.NewCipher(testKEK(1))
			if err != nil {
				return err
			}
			_, err = cipher.NewGCM(block)
			return err
		},
	}
)

// TestFIPS runs the tests again where only approved algorithms may run.
func TestFIPS(t *testing.T) {
	if !fips140.Enforced() {
		// The skipped ones try each bit in turn, and use no other algorithm.
		cmd := exec.Command(os.Args[0], "-test.run=^(Test|Fuzz|Example)", "-test.skip=^(TestEveryB|TestReplaceable$|TestCutOrExtended)", "-test.count=1", "-test.v")
		cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
		out, err := cmd.CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("--- PASS: TestFIPS ")) {
			t.Errorf("with GODEBUG=fips140=only: %v\n%s", err, out)
		}
		return
	}
	for _, alg := range keystore.Algorithms() {
		m, err := newTestMaterial(alg)
		if reason, listed := notApproved[alg]; (err != nil) != listed {
			t.Errorf("%s: %v, listed as not approved: %q", alg, err, reason)
		} else if !listed {
			roundTrip(t, mustKEKs(t, 1), m)
		}
	}
	for what, try := range exceptions {
		if try() == nil {
			t.Errorf("no longer an exception: %s", what)
		}
	}
}
