package adapters

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

const procedure = "/greetings.v1.Greetings/Hello"

// withConnect is a service with one method, as generated code makes it.
func withConnect(v *verifier.Verifier) http.Handler {
	handler := connect.NewUnaryHandler(procedure, func(ctx context.Context, _ *connect.Request[emptypb.Empty]) (*connect.Response[wrapperspb.StringValue], error) {
		token, _ := middleware.TokenFrom(ctx)
		return connect.NewResponse(wrapperspb.String("hello " + token.Subject() + " of " + token.Tenant())), nil
	})
	mux := http.NewServeMux()
	mux.Handle(procedure, middleware.Require(v, middleware.WithErrorHandler(ConnectErrors()))(handler))
	return mux
}

// The clients of the three protocols get an error that they understand, with a code of their own.
func TestConnectClients(t *testing.T) {
	f := readVectors(t)
	start := func(v *verifier.Verifier) *httptest.Server {
		server := httptest.NewUnstartedServer(withConnect(v))
		server.EnableHTTP2 = true
		server.StartTLS()
		t.Cleanup(server.Close)
		return server
	}
	up, down := start(f.verifier(t, f.keys(t))), start(f.verifier(t, downStore{}))
	for name, protocol := range map[string][]connect.ClientOption{
		"connect": nil, "connect with GET": {connect.WithHTTPGet()}, "grpc": {connect.WithGRPC()}, "grpc-web": {connect.WithGRPCWeb()},
	} {
		for _, c := range []struct {
			server        *httptest.Server
			authorization []string
			want          connect.Code // 0: it is greeted
		}{
			{up, []string{"Bearer " + f.Tokens["VALID"]}, 0},
			{up, nil, connect.CodeUnauthenticated},
			{up, []string{"Bearer " + f.Tokens["EXPIRED"]}, connect.CodeUnauthenticated},
			{up, []string{"Bearer " + f.Tokens["VALID"], "Bearer " + f.Tokens["BADSIG"]}, connect.CodeUnauthenticated},
			{down, []string{"Bearer " + f.Tokens["VALID"]}, connect.CodeUnavailable},
		} {
			client := connect.NewClient[emptypb.Empty, wrapperspb.StringValue](c.server.Client(), c.server.URL+procedure, protocol...)
			request := connect.NewRequest(&emptypb.Empty{})
			request.Header()["Authorization"] = c.authorization
			answer, err := client.CallUnary(t.Context(), request)
			switch {
			case c.want == 0 && (err != nil || answer.Msg.Value != "hello user-1 of a"):
				t.Errorf("%s: %v, %v", name, answer, err)
			case c.want != 0 && connect.CodeOf(err) != c.want:
				t.Errorf("%s, %.20q: %v, want %v", name, c.authorization, err, c.want)
			}
		}
	}
}

// A good token that a RequireScope further in refuses has a code of its own.
func TestConnectErrorsForScope(t *testing.T) {
	w := httptest.NewRecorder()
	r := httptest.NewRequest("POST", procedure, nil)
	r.Header.Set("Content-Type", "application/json")
	ConnectErrors()(w, r, middleware.ErrScope)
	if want := `{"code":"permission_denied","message":"the token does not allow this"}`; w.Code != http.StatusForbidden || w.Body.String() != want {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
