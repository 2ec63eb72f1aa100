package adapters

import (
	"errors"
	"net/http"

	"connectrpc.com/connect"

	"github.com/keyturn/keyturn/middleware"
)

// ConnectErrors is for middleware.WithErrorHandler: it answers clients of Connect, gRPC and gRPC-Web
// with an error of their protocol, and others as Require does.
func ConnectErrors(opts ...connect.HandlerOption) func(http.ResponseWriter, *http.Request, error) {
	errorWriter := connect.NewErrorWriter(opts...)
	return func(w http.ResponseWriter, r *http.Request, err error) {
		if !errorWriter.IsSupported(r) {
			middleware.Refuse(w, r, err)
			return
		}
		code, text := connect.CodeUnauthenticated, "the token is not accepted" // the same for all bad tokens
		switch middleware.Status(err) {
		case http.StatusForbidden:
			code, text = connect.CodePermissionDenied, "the token does not allow this"
		case http.StatusServiceUnavailable:
			code, text = connect.CodeUnavailable, "the token cannot be checked now"
		}
		errorWriter.Write(w, r, connect.NewError(code, errors.New(text)))
	}
}
