package verifier

import (
	"fmt"
	"strconv"
	"strings"
)

// expected are the errors of a tenant that name the values it wants. That is configuration, and no
// secret, but it is for logs alone: package middleware sends none of it. The token's own values are
// never part of them.
type expected struct {
	issuer, audience, typ, algorithm, tenant error
}

// wants returns the errors, which are made when the first of them is needed: they are half of what a
// tenant takes, and most tenants never refuse a token.
func (r *rules) wants() *expected {
	if e := r.expected.Load(); e != nil {
		return e
	}
	e := newExpected(r)
	r.expected.Store(e)
	return e
}

func newExpected(r *rules) *expected {
	algs := make([]string, len(r.Algorithms))
	for i, a := range r.Algorithms {
		algs[i] = string(a)
	}
	types := r.Types
	if len(types) == 0 {
		types = defaultTypes
	}
	named := make([]string, len(types))
	for i, t := range types {
		if named[i] = "typ " + strconv.Quote(t); t == "" {
			named[i] = "no typ"
		}
	}
	return &expected{
		issuer:    detail(ErrIssuer, "want "+anyOf(quoted(r.issuers))),
		audience:  detail(ErrAudience, "want "+anyOf(quoted(r.Audiences))),
		typ:       detail(ErrType, "want "+anyOf(named)),
		algorithm: detail(ErrAlgorithm, "want "+anyOf(algs)),
		tenant:    detail(ErrTenantMismatch, "want "+strconv.Quote(r.ID)),
	}
}

func quoted(list []string) []string {
	q := make([]string, len(list))
	for i, s := range list {
		q[i] = strconv.Quote(s)
	}
	return q
}

// anyOf joins alternatives, such as `"a", "b" or "c"`. It leaves out all beyond the first eight.
func anyOf(list []string) string {
	const most = 8
	switch n := len(list); {
	case n == 0:
		return "none"
	case n == 1:
		return list[0]
	case n > most:
		return fmt.Sprintf("%s or one of %d more", strings.Join(list[:most], ", "), n-most)
	default:
		return strings.Join(list[:n-1], ", ") + " or " + list[n-1]
	}
}

// slashed returns the error for a value of which none is wanted. If it differs by a slash at its
// end alone, which is the most frequent mistake of all, the error says so. bad is the error
// otherwise.
func slashed(bad error, want []string, got string) error {
	for _, w := range want {
		text := ""
		switch {
		case len(w) == len(got)+1 && w[:len(got)] == got && w[len(got)] == '/':
			text = ", and the token's lacks the slash at its end"
		case len(got) == len(w)+1 && got[:len(w)] == w && got[len(w)] == '/':
			text = ", and the token's has a slash too many at its end"
		default:
			continue
		}
		return &detailed{sentinelOf(bad), "want " + strconv.Quote(w) + text}
	}
	return bad
}

// unknownIssuer returns the error for an iss that names no tenant, among several. shared says that
// it names more than one, or that a tenant takes any.
func (t *tenants) unknownIssuer(iss string, shared bool) error {
	if shared {
		return ErrSharedIssuer
	}
	if iss == "" {
		return ErrUnknownTenant
	}
	bare := strings.TrimSuffix(iss, "/")
	near := bare
	if bare == iss {
		near += "/"
	}
	if _, ok := t.byIssuer.Get(near); ok {
		return slashed(ErrUnknownTenant, []string{near}, iss)
	}
	return ErrUnknownTenant
}
