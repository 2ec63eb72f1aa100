package adapters

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

// Huma lets a request through only if it carries a token that v accepts. It is for the adapter humago;
// the other adapters have an Unwrap of their own.
func Huma(v *verifier.Verifier, opts ...middleware.Option) func(huma.Context, func(huma.Context)) {
	authenticate := middleware.Authenticator(v, opts...)
	return func(c huma.Context, next func(huma.Context)) {
		r, w := humago.Unwrap(c)
		token, err := authenticate(r)
		if err != nil {
			middleware.Refuse(w, r, err, opts...)
			return
		}
		next(huma.WithContext(c, verifier.NewContext(c.Context(), token)))
	}
}

type greeting struct{ Body []byte }

func withHuma(v *verifier.Verifier) http.Handler {
	mux := http.NewServeMux()
	api := humago.New(mux, huma.DefaultConfig("greetings", "1"))
	api.UseMiddleware(Huma(v)) // before the first operation
	huma.Get(api, "/{$}", func(ctx context.Context, _ *struct{}) (*greeting, error) {
		token, _ := middleware.TokenFrom(ctx)
		return &greeting{[]byte("hello " + token.Subject() + " of " + token.Tenant() + "\n")}, nil
	})
	return mux
}
