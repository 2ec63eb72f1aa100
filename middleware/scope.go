package middleware

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
)

// RequireScope returns a middleware that calls the handler only if the token has all
// of scopes. It answers 403 otherwise, and 401 if there is no verified token. It goes
// inside a [Require] or [Optional], whose error handler writes the answer.
//
// It panics if there are no scopes, or if one is not a scope-token (RFC 6749, section
// 3.3): printable ASCII without spaces, quotes and backslashes.
func RequireScope(scopes ...string) func(http.Handler) http.Handler {
	checkScopes("RequireScope", scopes)
	scopes = slices.Clone(scopes)
	lacking := &scopeError{strings.Join(scopes, " ")}
	return demand(func(t *verifier.Token) error {
		for _, s := range scopes {
			if !t.HasScope(s) {
				return lacking
			}
		}
		return nil
	})
}

// RequireAnyScope is [RequireScope], but one of scopes is enough. WWW-Authenticate names
// the first of them, since a client would take a list for scopes that it needs all. So put
// first the one that gives the least.
func RequireAnyScope(scopes ...string) func(http.Handler) http.Handler {
	checkScopes("RequireAnyScope", scopes)
	scopes = slices.Clone(scopes)
	lacking := &scopeError{scopes[0]}
	return demand(func(t *verifier.Token) error {
		if slices.ContainsFunc(scopes, t.HasScope) {
			return nil
		}
		return lacking
	})
}

// checkScopes panics unless there are scopes, and all of them are ones.
func checkScopes(caller string, scopes []string) {
	if len(scopes) == 0 {
		panic("middleware: " + caller + ": no scopes")
	}
	for _, s := range scopes {
		if !isScope(s) {
			panic(fmt.Sprintf("middleware: %s: %q is not a scope (RFC 6749, section 3.3)", caller, s))
		}
	}
}

func isScope(s string) bool { return s != "" && !strings.Contains(s, " ") && isPlain(s) }

// RequireClaim returns a middleware that calls the handler only if the token's claim of
// this name is one of values, or an array of strings that holds one. A number (unless it is
// a tolerated sub or jti), a boolean, an object and an array that holds one of those match
// none. The name is that of
// [verifier.Token.HasAny]: a claim of exactly this name comes first. Without it, the dots of
// the name lead into objects, as in "realm_access.roles". It answers 403 otherwise, and 401
// if there is no verified token. It goes inside a [Require] or [Optional], whose error
// handler writes the answer.
//
// It panics if name is empty, or if there are no values, or if one is empty: an identity
// provider may send an empty text for a role that a user does not have.
func RequireClaim(name string, values ...string) func(http.Handler) http.Handler {
	if name == "" {
		panic("middleware: RequireClaim: empty name")
	}
	if len(values) == 0 || slices.Contains(values, "") {
		panic("middleware: RequireClaim: no value, or an empty one")
	}
	values = slices.Clone(values)
	lacking := &forbiddenError{fmt.Errorf("claim %q is none of %q", name, values)}
	return demand(func(t *verifier.Token) error {
		if t.HasAny(name, values...) {
			return nil
		}
		return lacking
	})
}

// RequireFunc returns a middleware that calls the handler only if allow returns nil for
// the verified token. It answers 403 otherwise, and 401 if there is no verified token. The
// error handler of the Require or Optional around it gets the error of allow, wrapped in
// [ErrForbidden]. The default one tells the client nothing of it.
//
// An error that wraps [verifier.ErrUnavailable] means that allow cannot tell now (503).
// One that wraps [ErrScope] gets the answer of that (403). allow must be safe for
// concurrent use.
func RequireFunc(allow func(*verifier.Token) error) func(http.Handler) http.Handler {
	if allow == nil {
		panic("middleware: RequireFunc: nil func")
	}
	return demand(func(t *verifier.Token) error {
		err := allow(t)
		if err == nil {
			return nil
		}
		if k := kindOf(err); k == noScope || k == unavailable && errors.Is(err, verifier.ErrUnavailable) {
			return err
		}
		return &forbiddenError{err}
	})
}

// RequireAudience returns a middleware that calls the handler only if the token is
// for at least one of audiences. It answers 401 otherwise, with
// [verifier.ErrAudience]. It goes inside a [Require] or [Optional], whose error
// handler writes the answer. It panics if there are no audiences, or if one is empty.
func RequireAudience(audiences ...string) func(http.Handler) http.Handler {
	if len(audiences) == 0 || slices.Contains(audiences, "") {
		panic("middleware: RequireAudience: no audience, or an empty one")
	}
	audiences = slices.Clone(audiences)
	return demand(func(t *verifier.Token) error {
		if slices.ContainsFunc(audiences, t.HasAudience) {
			return nil
		}
		return &verifier.Error{
			Reason: verifier.ReasonAudience,
			Tenant: t.Tenant(),
			Key:    keystore.ID{Tenant: t.Tenant(), KID: t.KeyID()},
			Claim:  "aud",
			Err:    verifier.ErrAudience,
		}
	})
}

// demand returns a middleware that applies check to the verified token.
func demand(check func(*verifier.Token) error) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		if next == nil {
			panic("middleware: nil Handler")
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			err := ErrNoToken
			if t, ok := TokenFrom(r.Context()); ok {
				err = check(t)
			}
			if err != nil {
				guardFrom(r.Context()).refuse(w, r, err)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// A scopeError is ErrScope, and names the scopes that the handler needs.
type scopeError struct{ wanted string } // with spaces between them

func (e *scopeError) Error() string { return ErrScope.Error() + ": want " + e.wanted }
func (e *scopeError) Unwrap() error { return ErrScope }

// A forbiddenError is ErrForbidden, with its cause.
type forbiddenError struct{ cause error }

func (e *forbiddenError) Error() string   { return ErrForbidden.Error() + ": " + e.cause.Error() }
func (e *forbiddenError) Unwrap() []error { return []error{ErrForbidden, e.cause} }
