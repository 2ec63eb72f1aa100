package verifier

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/jwt"
)

// HasAny reports whether the claim is one of values, or is an array of strings that holds one of
// them. A claim of exactly this name comes first. Only if there is none does a name with dots reach
// into objects: HasAny("realm_access.roles", "admin") finds a role of Keycloak. Claims have dots in
// their names too, as kubernetes.io has, so at each step the longest name that is there is taken,
// and no other is tried: "kubernetes.io.namespace" is the member namespace of kubernetes.io.
//
// A sub or jti that is an integer, which [NumericSubject] lets in, counts by its decimal text.
func (t *Token) HasAny(claim string, values ...string) bool {
	return hasAny(t.v().payload, claim, values)
}

func hasAny(payload, claim string, values []string) bool {
	text := jwt.Reach(payload, claim)
	if (claim == "sub" || claim == "jti") && jwt.Integer(text) {
		return slices.Contains(values, text)
	}
	found := false
	ok := jwt.EachString(text, func(s string) { found = found || slices.Contains(values, s) })
	return ok && found
}

// matched is one claim of a tenant's Match.
type matched struct {
	name   string
	values []string
	bad    error
}

// newMatch returns the claims of a Match in the order of their names, so that a token always gets
// the same error.
func newMatch(of map[string][]string) (list []matched) {
	for _, name := range slices.Sorted(maps.Keys(of)) {
		values := slices.Clone(of[name])
		list = append(list, matched{name, values, detail(ErrClaim, fmt.Sprintf("claim %q: want %s", name, anyOf(quoted(values))))})
	}
	return list
}

// checkMatch applies the tenant's Match.
func (r *rules) checkMatch(c *claims) *Error {
	for i := range r.match {
		if m := &r.match[i]; !hasAny(c.payload, m.name, m.values) {
			return refuseClaim(m.bad, m.name)
		}
	}
	return nil
}

// validateMatch refuses a Match that no token can keep.
func validateMatch(of map[string][]string) error {
	for _, m := range newMatch(of) {
		switch {
		case m.name == "":
			return errors.New("Match holds a claim without a name")
		case len(m.values) == 0:
			return fmt.Errorf("Match of %q has no values, so no token could pass: list them, or name the claim in Required", m.name)
		case slices.Contains(m.values, ""):
			return fmt.Errorf("Match of %q holds an empty string", m.name)
		}
		switch jwt.ClaimNamed(m.name) {
		case jwt.Exp, jwt.Nbf, jwt.Iat:
			return fmt.Errorf("Match of %q: a date is no string, so no token could pass", m.name)
		}
	}
	return nil
}

// matchedNames returns the names of claims that a Match may read: those of the Match, and what stands
// before each of their dots.
func matchedNames(of map[string][]string) (names []string) {
	for _, name := range slices.Sorted(maps.Keys(of)) {
		for end := len(name); end >= 0; end = strings.LastIndexByte(name[:end], '.') {
			names = append(names, name[:end])
		}
	}
	return names
}
