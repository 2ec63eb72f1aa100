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

	// ErrRequest reports a request whose token is malformed or comes twice, or that has
	// different tokens in two places (400).
	ErrRequest = errors.New("middleware: malformed request")

	// ErrScope reports a good token that lacks a scope (403).
	ErrScope = errors.New("middleware: insufficient scope")

	// ErrForbidden reports a good token that [RequireFunc] or [RequireClaim] refuses (403).
	ErrForbidden = errors.New("middleware: forbidden")
)

// Require returns a middleware that calls the handler only for requests with a token
// that v accepts. The handler gets the token from [TokenFrom]. It is made of
// [Authenticator] and [Refuse].
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

// Authenticator returns a function that returns the verified token of a request, for
// code that is no [http.Handler]: another framework, a WebSocket handshake, an adapter.
// It looks in the same places and by the same rules as [Require], and may be used by
// several goroutines. [verifier.NewContext] puts the token where [TokenFrom] finds it.
//
// The error is [ErrNoToken] or [ErrRequest], or it is the verifier's. [Refuse] answers it.
// A caller that also serves requests without a token must compare with ErrNoToken itself,
// and refuse every other error. The function writes no header: with [FromQuery] the caller
// sets Cache-Control to "private, no-store".
//
// Options for the answer have no effect here, so that both functions can have the same
// options. It panics as Require does.
func Authenticator(v *verifier.Verifier, opts ...Option) func(*http.Request) (*verifier.Token, error) {
	g := newGuard(v, opts)
	return func(r *http.Request) (*verifier.Token, error) {
		t, _, err := g.authenticate(r)
		return t, err
	}
}

// Refuse answers a request with err, as [Require] does with the same options: status,
// WWW-Authenticate or Retry-After, and a body that does not say more about err than its
// kind. err is usually the error of an [Authenticator], or one of this package such as
// [ErrScope]. [Status] says which status it means. A nil err is refused too, with 503.
//
// Without options it answers as the Require or [Optional] around the handler does. Options
// that say where the token or the tenant is have no effect. It panics if an option is nil,
// or is given twice.
func Refuse(w http.ResponseWriter, r *http.Request, err error, opts ...Option) {
	g := guardFrom(r.Context())
	if len(opts) > 0 {
		g = newAnswers(opts)
	}
	if err == nil {
		err = errNil
	}
	g.refuse(w, r, err)
}

// errNil stands for the error that a caller of Refuse forgot. A request that is to be
// refused must not pass because of that.
var errNil = fmt.Errorf("middleware: Refuse is called with a nil error: %w", verifier.ErrUnavailable)

// A guard is the configuration of a Require or Optional. It is immutable once built.
type guard struct {
	verifier        *verifier.Verifier
	tenant          func(*http.Request) (string, error) // nil: the token's own iss selects the tenant
	noAuthorization bool                                // the Authorization header is ignored
	places          []tokenPlace                        // more places that may hold a token
	query           string                              // the query parameter that may hold one; "" for none
	handler         func(http.ResponseWriter, *http.Request, error)
	realm           string
	resource        string // the URL of the resource's metadata; "" for none
	detail          bool
	optional        bool
}

const defaultRealm = "api"

func newGuard(v *verifier.Verifier, opts []Option) *guard {
	if v == nil {
		panic("middleware: nil Verifier")
	}
	g := newAnswers(opts)
	if g.noAuthorization && len(g.places) == 0 && g.query == "" {
		panic("middleware: WithoutAuthorization: no other option says where the token is")
	}
	g.verifier = v
	return g
}

// newAnswers returns a guard that can only refuse requests.
func newAnswers(opts []Option) *guard {
	g := new(guard)
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
		t, cred, err := g.authenticate(r)
		if err != nil && !(g.optional && err == ErrNoToken && cred.token == "") {
			g.refuse(w, r, err)
			return
		}
		if cred.inQuery {
			// The token is part of the URL that a cache would keep (RFC 6750, section 2.3).
			w.Header().Set("Cache-Control", "private, no-store")
		}
		next.ServeHTTP(w, r.WithContext(g.context(r.Context(), t)))
	})
}

// authenticate returns the verified token of r, or nil and an error. cred holds what r
// carries, and no token if r carries none or a malformed one: the error ErrNoToken alone
// may be that of the function for the tenant.
func (g *guard) authenticate(r *http.Request) (t *verifier.Token, cred credential, err error) {
	if cred, err = g.find(r); err != nil {
		return nil, cred, err
	}
	if t, err = g.verify(r, cred.token); err != nil {
		return nil, cred, cred.refused(err)
	}
	return t, cred, nil
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
