package verifier

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/jwt"
)

// HasAny reports whether the claim is one of values, or is an array of strings that holds one of
// them. A claim of exactly this name comes first. Only if it is missing does a name with dots reach
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
	return isAny(text, values)
}

// isAny reports whether text is one of values, or an array of strings that holds one.
func isAny(text string, values []string) bool {
	found := false
	ok := jwt.EachString(text, func(s string) { found = found || slices.Contains(values, s) })
	return ok && found
}

// matched is one claim of a tenant's Match, or one parameter of its MatchHeader.
type matched struct {
	name   string
	values []string
	bad    error
}

// newMatch returns the claims of a Match, or the parameters of a MatchHeader, in the order of their
// names, so that a token always gets the same error. what they are is for that error.
func newMatch(what string, of map[string][]string) (list []matched) {
	if len(of) == 0 {
		return nil // of most tenants, without the cost of sorting
	}
	for _, name := range slices.Sorted(maps.Keys(of)) {
		values := slices.Clone(of[name])
		list = append(list, matched{name, values, detail(ErrClaim, fmt.Sprintf("%s %q: want %s", what, name, anyOf(quoted(values))))})
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

// misspeltInside is [spelling.misspelt] for the members of objects that Match reads.
func (r *rules) misspeltInside(c *claims) string {
	for i := range r.match {
		if name := r.match[i].name; strings.IndexByte(name, '.') >= 0 {
			if other := jwt.Misspelt(c.payload, name); other != "" {
				return other
			}
		}
	}
	return ""
}

// checkHeader applies the tenant's MatchHeader. It reads the header again, which the verifier may
// know from an earlier token: few tenants need that, and a cached token does not.
func (r *rules) checkHeader(p *parsed) *Error {
	if len(r.matchHeader) == 0 {
		return nil
	}
	part, _, _ := bytes.Cut(p.signed, []byte("."))
	text, err := base64url.DecodeString(string(bytes.TrimRight(part, "=")))
	var header jwt.Scanner
	if err != nil || !header.Scan(string(text)) {
		return refuse(errHeaderJSON) // it was well formed before
	}
	for i := range r.matchHeader {
		m, value := &r.matchHeader[i], ""
		for _, parameter := range header.Members {
			switch {
			case parameter.Name == m.name:
				value = parameter.Value
			case strings.EqualFold(parameter.Name, m.name):
				return refuse(errHeaderCase)
			}
		}
		if !isAny(value, m.values) {
			return refuse(m.bad)
		}
	}
	return nil
}

var errHeaderCase = detail(ErrClaim, "the header has a parameter that differs only by case from one of MatchHeader")

// validateMatch refuses a Match or MatchHeader that no token can keep.
func (t *Tenant) validateMatch() error {
	for _, f := range []struct {
		field string
		of    map[string][]string
	}{{"Match", t.Match}, {"MatchHeader", t.MatchHeader}} {
		for _, m := range newMatch("", f.of) {
			switch {
			case m.name == "":
				return errors.New(f.field + " holds an empty name")
			case len(m.values) == 0:
				return fmt.Errorf("%s of %q has no values, so no token could pass: list them", f.field, m.name)
			case slices.Contains(m.values, ""):
				return fmt.Errorf("%s of %q holds an empty string", f.field, m.name)
			}
		}
	}
	for name := range t.Match {
		switch jwt.ClaimNamed(name) {
		case jwt.Exp, jwt.Nbf, jwt.Iat:
			return fmt.Errorf("Match of %q: a date is no string, so no token could pass", name)
		}
	}
	names := slices.Sorted(maps.Keys(t.MatchHeader))
	for i, name := range names {
		switch {
		case jwt.IsHeader(name):
			return fmt.Errorf("MatchHeader of %q: %q is read by a rule of its own, or never: see Algorithms, Types and Tolerate", name, name)
		case jwt.FoldsToHeader(name):
			return fmt.Errorf("MatchHeader: %q differs only by case from a standard parameter, and such a header is refused", name)
		case slices.ContainsFunc(names[:i], func(o string) bool { return strings.EqualFold(o, name) }):
			return fmt.Errorf("MatchHeader: two names differ only by case, one of them %q", name)
		}
	}
	return nil
}

// matchedNames returns the names of claims that a Match may read: those of the Match, and what stands
// before each of their dots.
func matchedNames(of map[string][]string) (names []string) {
	if len(of) == 0 {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(of)) {
		for end := len(name); end >= 0; end = strings.LastIndexByte(name[:end], '.') {
			names = append(names, name[:end])
		}
	}
	return names
}
