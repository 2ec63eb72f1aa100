package verifier

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/keyturn/keyturn/internal/jwt"
)

// spelling are the claims that a tenant's rules, or a service, read by name, besides the
// registered ones: scope, scp, TenantClaim, Required and Match. A token that has one of them in
// another case is refused, since a reader that ignores case, as encoding/json does, would
// take one for the other: on 2026-11-28 a token with both tid and TID passed.
type spelling struct {
	names []string
	odd   bool // one of the names is odd
}

var alwaysSpelt = slices.Clip([]string{"scope", "scp"}) // an append makes another one

func newSpelling(t *Tenant) spelling {
	s := spelling{names: alwaysSpelt}
	for _, name := range slices.Concat([]string{t.TenantClaim}, t.Required, matchedNames(t.Match)) {
		if name != "" && jwt.ClaimNamed(name) == jwt.Unregistered && !slices.Contains(s.names, name) {
			s.names = append(s.names, name)
			s.odd = s.odd || isOdd(name)
		}
	}
	return s
}

// validate refuses rules that no token can keep: a claim that is demanded, in a case that
// is refused.
func (s *spelling) validate() error {
	for i, a := range s.names {
		for _, b := range s.names[i+1:] {
			if strings.EqualFold(a, b) {
				return differOnlyByCase(a, b)
			}
		}
		if c := jwt.FoldsToClaim(a); c != jwt.Unregistered {
			return differOnlyByCase(c.String(), a)
		}
	}
	return nil
}

func differOnlyByCase(a, b string) error {
	return fmt.Errorf("%q and %q differ only by case, and such a claim is refused: TenantClaim, Required and Match must spell it as its issuer does, in one way", a, b)
}

// misspelt returns the first name of the token's claims that differs only by case from one
// of s, or "".
func (s *spelling) misspelt(c *claims) string {
	if !c.odd && !s.odd {
		return ""
	}
	for _, m := range c.all {
		for _, name := range s.names {
			if m.Name != name && strings.EqualFold(m.Name, name) {
				return m.Name
			}
		}
	}
	return ""
}

// isOdd reports whether name has a capital, or another letter than those of ASCII. Two
// names that are not odd are equal if they differ only by case.
func isOdd(name string) bool {
	for i := range len(name) {
		if c := name[i]; 'A' <= c && c <= 'Z' || c >= utf8.RuneSelf {
			return true
		}
	}
	return false
}
