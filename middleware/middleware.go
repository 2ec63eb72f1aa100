package middleware

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/keyturn/keyturn/verifier"
)

// The errors of this package. An error handler tells them apart with [errors.Is], as
// it does [verifier.ErrInvalid], the errors for single reasons, and
// [verifier.ErrUnavailable].
var (
	// ErrNoToken reports a request without a bearer token (401).
	ErrNoToken = errors.New("middleware: no bearer token")

	// ErrRequest reports a request whose token is malformed, comes twice, or comes in
	// two places (400).
	ErrRequest = errors.New("middleware: malformed request")

	// ErrScope reports a good token that lacks a scope (403).
	ErrScope = errors.New("middleware: insufficient scope")
)

// Require returns a middleware that calls the handler only for requests with a token
// that v accepts. The handler gets the token from [TokenFrom].
//
// It panics if v or an option is nil, if an option is given twice, or if two options
// name the tenant.
func Require(v *verifier.Verifier, opts ...Option) func(http.Handler) http.Handler {
	return newGuard(v, opts).wrap
}

// Optional is [Require], but also calls the handler for a request without a bearer
// token. For such a request [TokenFrom] finds no token, not even that of a Require
// further out. A bad token is still refused, and so is one that is malformed or comes
// twice.
func Optional(v *verifier.Verifier, opts ...Option) func(http.Handler) http.Handler {
	g := newGuard(v, opts)
	g.optional = true
	return g.wrap
}

// TokenFrom returns the verified token of a request. ctx is the context of the
// request, or one derived from it. The token is that of the innermost [Require] or
// [Optional].
func TokenFrom(ctx context.Context) (*verifier.Token, bool) { return verifier.FromContext(ctx) }

// ClaimsFrom decodes the claims of the token that [TokenFrom] returns, as
// [verifier.Claims] does. Without a token it returns [ErrNoToken].
func ClaimsFrom[C any](ctx context.Context) (C, error) {
	t, ok := TokenFrom(ctx)
	if !ok {
		var none C
		return none, ErrNoToken
	}
	return verifier.Claims[C](t)
}

// A guard is the configuration of a Require or Optional. It is immutable once built.
type guard struct {
	verifier *verifier.Verifier
	tenant   func(*http.Request) (string, error) // nil: the token's own iss selects the tenant
	cookie   string                              // the cookie that may hold a token; "" for none
	query    string                              // the query parameter that may hold one; "" for none
	handler  func(http.ResponseWriter, *http.Request, error)
	realm    string
	detail   bool
	optional bool
}

const defaultRealm = "api"

func newGuard(v *verifier.Verifier, opts []Option) *guard {
	if v == nil {
		panic("middleware: nil Verifier")
	}
	g := &guard{verifier: v}
	for _, o := range opts {
		if o == nil {
			panic("middleware: nil Option")
		}
		o(g)
	}
	if g.realm == "" {
		g.realm = defaultRealm
	}
	return g
}

func (g *guard) wrap(next http.Handler) http.Handler {
	if next == nil {
		panic("middleware: nil Handler")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cred, err := g.find(r)
		if err != nil {
			if g.optional && err == ErrNoToken {
				next.ServeHTTP(w, r.WithContext(g.context(r.Context(), nil)))
				return
			}
			g.refuse(w, r, err)
			return
		}
		t, err := g.verify(r, cred.token)
		if err != nil {
			g.refuse(w, r, cred.refused(err))
			return
		}
		if cred.inQuery {
			// The token is part of the URL that a cache would keep (RFC 6750, section 2.3).
			w.Header().Set("Cache-Control", "private, no-store")
		}
		next.ServeHTTP(w, r.WithContext(g.context(r.Context(), t)))
	})
}

func (g *guard) verify(r *http.Request, token string) (*verifier.Token, error) {
	if g.tenant == nil {
		return g.verifier.Verify(r.Context(), token)
	}
	tenant, err := g.tenant(r)
	if err != nil {
		return nil, tenantError(err)
	}
	return g.verifier.VerifyTenant(r.Context(), tenant, token)
}

// tenantError makes an error that is not a verdict ErrUnavailable, as the verifier
// does with errors of a key store.
func tenantError(err error) error {
	if kindOf(err) == unavailable && !errors.Is(err, verifier.ErrUnavailable) {
		return fmt.Errorf("middleware: the request's tenant: %w: %w", verifier.ErrUnavailable, err)
	}
	return err
}

type guardKey struct{}

// context returns a context that carries t, or no token if t is nil, and g for the
// middleware further in.
func (g *guard) context(ctx context.Context, t *verifier.Token) context.Context {
	return context.WithValue(verifier.NewContext(ctx, t), guardKey{}, g)
}

var defaultGuard = &guard{realm: defaultRealm}

// guardFrom returns the guard around a handler, or one with the defaults if there is
// no Require around it.
func guardFrom(ctx context.Context) *guard {
	if g, ok := ctx.Value(guardKey{}).(*guard); ok {
		return g
	}
	return defaultGuard
}
