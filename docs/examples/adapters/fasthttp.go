package adapters

import (
	"context"
	"net/http"
	"net/url"

	"github.com/valyala/fasthttp"

	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

// FastHTTP calls next only for a request with a token that v accepts, and gives it the token.
func FastHTTP(v *verifier.Verifier, next func(*fasthttp.RequestCtx, *verifier.Token), opts ...middleware.Option) fasthttp.RequestHandler {
	authenticate := middleware.Authenticator(v, opts...)
	return func(ctx *fasthttp.RequestCtx) {
		r := copyRequest(ctx, ctx)
		token, err := authenticate(r)
		if err != nil {
			middleware.Refuse(&answer{header: http.Header{}, to: &ctx.Response}, r, err, opts...)
			return
		}
		next(ctx, token)
	}
}

// copyRequest returns what an Authenticator reads of a request. All of it is copied, as fasthttp uses
// the memory of a request again for the next one.
func copyRequest(ctx context.Context, from *fasthttp.RequestCtx) *http.Request {
	r := &http.Request{
		Method: string(from.Method()),
		URL:    &url.URL{Path: string(from.Path()), RawQuery: string(from.URI().QueryString())},
		Host:   string(from.Host()),
		Header: http.Header{},
	}
	for name, value := range from.Request.Header.All() {
		r.Header.Add(string(name), string(value)) // each of several, in order
	}
	return r.WithContext(ctx)
}

// An answer is the http.ResponseWriter that middleware.Refuse writes to.
type answer struct {
	header http.Header
	to     *fasthttp.Response
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	a.to.SetStatusCode(status)
	for name, values := range a.header {
		for _, value := range values {
			a.to.Header.Add(name, value)
		}
	}
}

func (a *answer) Write(body []byte) (int, error) {
	a.to.AppendBody(body)
	return len(body), nil
}

func withFastHTTP(v *verifier.Verifier) fasthttp.RequestHandler {
	return FastHTTP(v, func(ctx *fasthttp.RequestCtx, token *verifier.Token) {
		ctx.WriteString("hello " + token.Subject() + " of " + token.Tenant() + "\n")
	})
}
