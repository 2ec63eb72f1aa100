package adapters

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/ogen-go/ogen/ogenerrors"

	"github.com/keyturn/keyturn/docs/examples/adapters/testdata/greetings" // made by ogen
	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

// security asks for the roles that the OpenAPI document wants. Require, around the server, has
// verified the token: ogen cuts the first of several tokens out of the headers, and hides the others.
type security struct{}

func (security) HandleBearerAuth(ctx context.Context, _ greetings.OperationName, wants greetings.BearerAuth) (context.Context, error) {
	token, ok := middleware.TokenFrom(ctx)
	if !ok {
		return nil, middleware.ErrNoToken // Require is missing
	}
	for _, scope := range wants.Roles {
		if !token.HasScope(scope) {
			return nil, middleware.ErrScope // never ogenerrors.ErrSkipServerSecurity: that tries the next scheme
		}
	}
	return ctx, nil
}

func refuse(ctx context.Context, w http.ResponseWriter, r *http.Request, err error) {
	if refused := new(ogenerrors.SecurityError); errors.As(err, &refused) {
		middleware.Refuse(w, r, refused.Err)
		return
	}
	ogenerrors.DefaultErrorHandler(ctx, w, r, err)
}

func withOgen(v *verifier.Verifier, service greetings.Handler) (http.Handler, error) {
	server, err := greetings.NewServer(service, security{}, greetings.WithErrorHandler(refuse))
	if err != nil {
		return nil, err
	}
	return middleware.Require(v)(server), nil
}

// A greeter is the service, as ogen wants it.
type greeter struct{}

func (greeter) Hello(ctx context.Context) (greetings.HelloOK, error) {
	token, _ := middleware.TokenFrom(ctx)
	return greetings.HelloOK{Data: strings.NewReader("hello " + token.Subject() + " of " + token.Tenant() + "\n")}, nil
}
