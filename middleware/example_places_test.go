package middleware_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

// greet is the handler of the examples.
var greet = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	token, _ := middleware.TokenFrom(r.Context())
	io.WriteString(w, "hello "+token.Subject())
})

// ask sends a request with these headers, and prints the answer.
func ask(h http.Handler, method, path string, headers ...string) {
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	fmt.Println(w.Code, strings.TrimSpace(w.Body.String()))
}

// Behind Cloudflare Access the token is in a header of its own.
func ExampleFromHeader() {
	v, token := exampleVerifier()
	h := middleware.Require(v, middleware.FromHeader("Cf-Access-Jwt-Assertion"))(greet)
	ask(h, "GET", "/", "Cf-Access-Jwt-Assertion", token)
	ask(h, "GET", "/", "Cf-Access-Jwt-Assertion", token, "Authorization", "Bearer "+token) // the same token twice
	ask(h, "GET", "/", "Cf-Access-Jwt-Assertion", token, "Authorization", "Bearer other")
	// Output:
	// 200 hello ann
	// 200 hello ann
	// 400 {"error":"invalid_request","error_description":"different tokens in more than one place"}
}

// A gateway authenticates the client with a token of its own, and passes on the client's
// Authorization header, which is for another service.
func ExampleWithoutAuthorization() {
	v, token := exampleVerifier()
	h := middleware.Require(v, middleware.FromHeader("X-Goog-Iap-Jwt-Assertion"), middleware.WithoutAuthorization())(greet)
	ask(h, "GET", "/", "X-Goog-Iap-Jwt-Assertion", token, "Authorization", "Bearer other")
	ask(h, "GET", "/", "Authorization", "Bearer "+token)
	// Output:
	// 200 hello ann
	// 401 {"error":"unauthorized","error_description":"a bearer token is required"}
}

// A browser cannot set a header for a WebSocket, but it can offer subprotocols:
// new WebSocket(url, ["bearer." + token, "chat"]).
func ExampleFromFunc() {
	v, token := exampleVerifier()
	subprotocol := func(r *http.Request) string {
		for offer := range strings.SplitSeq(r.Header.Get("Sec-WebSocket-Protocol"), ",") {
			if token, ok := strings.CutPrefix(strings.TrimSpace(offer), "bearer."); ok {
				return token
			}
		}
		return ""
	}
	h := middleware.Require(v, middleware.FromFunc(subprotocol))(greet)
	ask(h, "GET", "/chat", "Sec-WebSocket-Protocol", "bearer."+token+", chat")
	ask(h, "GET", "/chat", "Sec-WebSocket-Protocol", "chat")
	// Output:
	// 200 hello ann
	// 401 {"error":"unauthorized","error_description":"a bearer token is required"}
}

// An adapter for a framework whose handlers return errors.
func ExampleAuthenticator() {
	v, token := exampleVerifier()
	authenticate := middleware.Authenticator(v)

	type handler func(w http.ResponseWriter, r *http.Request) error
	protect := func(next handler) handler {
		return func(w http.ResponseWriter, r *http.Request) error {
			token, err := authenticate(r)
			if err != nil {
				middleware.Refuse(w, r, err)
				return err
			}
			return next(w, r.WithContext(verifier.NewContext(r.Context(), token)))
		}
	}
	hello := protect(func(w http.ResponseWriter, r *http.Request) error {
		greet(w, r)
		return nil
	})
	for _, header := range []string{"Bearer " + token, "Bearer"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", header)
		w := httptest.NewRecorder()
		err := hello(w, r)
		fmt.Println(w.Code, errors.Is(err, middleware.ErrRequest))
	}
	// Output:
	// 200 false
	// 400 true
}

// A handler finds out late that the token is not enough. It refuses as the Require around
// it does.
func ExampleRefuse() {
	v, token := exampleVerifier()
	owners := map[string]string{"/orders/1": "ann", "/orders/2": "bob"}
	order := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, _ := middleware.TokenFrom(r.Context())
		if owners[r.URL.Path] != token.Subject() {
			middleware.Refuse(w, r, middleware.ErrForbidden)
			return
		}
		io.WriteString(w, "an order")
	})
	h := middleware.Require(v)(order)
	ask(h, "GET", "/orders/1", "Authorization", "Bearer "+token)
	ask(h, "GET", "/orders/2", "Authorization", "Bearer "+token)
	// Output:
	// 200 an order
	// 403 {"error":"insufficient_scope","error_description":"the token does not allow this request"}
}

func ExampleRequireAnyScope() {
	v, token := exampleVerifier() // with the scope orders:read
	ask(middleware.Require(v)(middleware.RequireAnyScope("orders:read", "orders:write")(greet)), "GET", "/", "Authorization", "Bearer "+token)
	ask(middleware.Require(v)(middleware.RequireAnyScope("orders:write", "admin")(greet)), "GET", "/", "Authorization", "Bearer "+token)
	// Output:
	// 200 hello ann
	// 403 {"error":"insufficient_scope","error_description":"the token lacks a scope that is needed here"}
}

// Roles as Keycloak puts them into tokens.
func ExampleRequireClaim() {
	v, _ := exampleVerifier()
	admins := middleware.Require(v)(middleware.RequireClaim("realm_access.roles", "admin", "operator")(greet))
	for _, role := range []string{"admin", "user"} {
		ask(admins, "GET", "/", "Authorization", "Bearer "+exampleToken("realm_access", map[string]any{"roles": []string{role}}))
	}
	// Output:
	// 200 hello ann
	// 403 {"error":"insufficient_scope","error_description":"the token does not allow this request"}
}

func ExampleRequireFunc() {
	v, token := exampleVerifier()
	fresh := middleware.RequireFunc(func(t *verifier.Token) error {
		if !t.HasAudience("payments") {
			return errors.New("payments want a token of their own") // for the error handler alone
		}
		return nil
	})
	ask(middleware.Require(v)(fresh(greet)), "GET", "/", "Authorization", "Bearer "+token)
	// Output: 403 {"error":"insufficient_scope","error_description":"the token does not allow this request"}
}

// An MCP server, or any API whose clients find their authorization server by themselves.
func ExampleResourceMetadata() {
	v, _ := exampleVerifier()
	api := middleware.Resource{URL: "https://api.example/mcp", AuthorizationServers: []string{"https://acme.example"}}
	mux := http.NewServeMux()
	mux.Handle("/.well-known/oauth-protected-resource/mcp", middleware.ResourceMetadata(api))
	mux.Handle("/mcp", middleware.Require(v, middleware.WithResourceMetadata(api.MetadataURL()))(greet))

	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("POST", "/mcp", nil))
	fmt.Println(w.Code, w.Header().Get("WWW-Authenticate"))
	ask(mux, "GET", "/.well-known/oauth-protected-resource/mcp")
	// Output:
	// 401 Bearer realm="api", resource_metadata="https://api.example/.well-known/oauth-protected-resource/mcp"
	// 200 {"resource":"https://api.example/mcp","authorization_servers":["https://acme.example"],"bearer_methods_supported":["header"]}
}

// emptyKeys is a store whose issuer has not answered yet, and which says so.
type emptyKeys struct{}

func (emptyKeys) Lookup(keystore.ID, keystore.Algorithm) ([]*keystore.Key, error) {
	return nil, keystore.ErrUnavailable
}

func (emptyKeys) Ready(string) error { return fmt.Errorf("no answer yet: %w", keystore.ErrUnavailable) }

func ExampleReady() {
	key := must(keystore.NewSecret(keystore.ID{Tenant: "acme", KID: "1"}, keystore.HS256, secretOf("acme")))
	list := []verifier.Tenant{{ID: "acme", Keys: must(keystore.NewStatic(key))}, {ID: "globex", Keys: emptyKeys{}}} // those of the verifier
	tenants := func() []verifier.Tenant { return list }
	ask(middleware.Ready(middleware.Readiness{Tenants: tenants}), "GET", "/readyz")
	ask(middleware.Ready(middleware.Readiness{Tenants: tenants, Named: true}), "GET", "/readyz") // for operators
	// Output:
	// 200 {"status":"degraded","ready":1,"degraded":0,"not_ready":1}
	// 200 {"status":"degraded","ready":1,"degraded":0,"not_ready":1,"tenants":{"acme":{"status":"ready"},"globex":{"status":"not ready","reason":"no answer yet: keystore: unavailable"}}}
}
