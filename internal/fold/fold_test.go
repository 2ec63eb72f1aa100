package fold_test

import (
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/fold"
)

func TestName(t *testing.T) {
	for _, name := range []string{"X-Auth-Subject", "x_auth_subject", "X.AUTH.Subject", "x auth\tsubject", "X-Auth_Subject"} {
		if got := fold.Name(name); got != "x-auth-subject" {
			t.Errorf("%q becomes %q", name, got)
		}
		if !fold.HasPrefix(name, "x-auth-") {
			t.Errorf("%q does not begin with the prefix", name)
		}
	}
	for _, name := range []string{"", "X-Auth", "X-Auto-Subject", "XX-Auth-Subject"} {
		if fold.HasPrefix(name, "x-auth-") {
			t.Errorf("%q begins with the prefix", name)
		}
	}
}

func FuzzName(f *testing.F) {
	f.Add("X-Auth-É\x00")
	f.Fuzz(func(t *testing.T, name string) {
		folded := fold.Name(name)
		if len(folded) != len(name) || fold.Name(folded) != folded || !fold.HasPrefix(name, folded) || !fold.HasPrefix(name, folded[:len(folded)/2]) {
			t.Errorf("%q becomes %q", name, folded)
		}
		if strings.Trim(folded, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			t.Errorf("%q becomes %q", name, folded)
		}
	})
}
