package verifier

import (
	"slices"

	"github.com/keyturn/keyturn/internal/jwt"
)

// HasAny reports whether the claim is one of values, or is an array of strings that holds one of
// them. A claim of exactly this name comes first. Only if there is none is the name cut at its
// dots, and reaches into objects: HasAny("realm_access.roles", "admin") finds a role of Keycloak.
func (t *Token) HasAny(claim string, values ...string) bool {
	return holdsAny(jwt.Reach(t.v().payload, claim), values)
}

// holdsAny reports whether the text of a value is one of values, or an array of strings that holds
// one of them.
func holdsAny(text string, values []string) bool {
	found := false
	ok := jwt.EachString(text, func(s string) { found = found || slices.Contains(values, s) })
	return ok && found
}
