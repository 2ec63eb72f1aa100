package middleware

import (
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
	if len(scopes) == 0 {
		panic("middleware: RequireScope: no scopes")
	}
	for _, s := range scopes {
		if s == "" || strings.Contains(s, " ") || !isPlain(s) {
			panic(fmt.Sprintf("middleware: RequireScope: %q is not a scope (RFC 6749, section 3.3)", s))
		}
	}
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
