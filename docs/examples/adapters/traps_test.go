package adapters

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	"github.com/labstack/echo/v5"
	"github.com/ogen-go/ogen/ogenerrors"

	"github.com/keyturn/keyturn/docs/examples/adapters/testdata/greetings"
	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier/verifiertest"
)

// get asks a handler in process.
func get(h http.Handler, path string, authorization ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", path, nil)
	r.Header["Authorization"] = authorization
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func wantStatus(t *testing.T, w *httptest.ResponseRecorder, status int) {
	t.Helper()
	if w.Code != status {
		t.Errorf("status %d, want %d: %s", w.Code, status, w.Body)
	}
}

func TestChi_RouteBeforeUsePanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("chi took a route that no middleware guards")
		}
	}()
	r := chi.NewRouter()
	r.Get("/", hello)
	r.Use(middleware.Require(verifiertest.New(t).Verifier()))
}

// What no route matches is outside the middleware of gorilla, and inside that of chi and echo.
func TestNotFoundIsOutside(t *testing.T) {
	v := verifiertest.New(t).Verifier()
	wantStatus(t, get(withGorilla(v), "/other"), http.StatusNotFound)
	wantStatus(t, get(withNetHTTP(v), "/other"), http.StatusNotFound)
	wantStatus(t, get(withHTTPRouter(v), "/other"), http.StatusNotFound)
	wantStatus(t, get(withChi(v), "/other"), http.StatusUnauthorized)
	wantStatus(t, get(withEcho(v), "/other"), http.StatusUnauthorized)
	wantStatus(t, get(withEchoV4(v), "/other"), http.StatusUnauthorized)
}

// labstack/echo#685: the token is in the request that the middleware passed on, so one that was kept
// from before has none.
func TestEcho_685_RequestIsReplaced(t *testing.T) {
	issuer := verifiertest.New(t)
	e := echo.New()
	var before *http.Request
	e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c *echo.Context) error { before = c.Request(); return next(c) }
	}, echo.WrapMiddleware(middleware.Require(issuer.Verifier())))
	e.GET("/", func(c *echo.Context) error {
		_, old := middleware.TokenFrom(before.Context())
		if _, ok := middleware.TokenFrom(c.Request().Context()); old || !ok {
			t.Errorf("the token is in the old request: %t, in the new one: %t", old, ok)
		}
		return nil
	})
	wantStatus(t, get(e, "/", "Bearer "+issuer.Token(nil)), http.StatusOK)
}

// gin-gonic/gin#287 and #426: a middleware that answers and returns does not end the chain.
func TestGin_287_426_RefusedRequestReachesNoHandler(t *testing.T) {
	issuer := verifiertest.New(t)
	ran := ""
	e := gin.New()
	group := e.Group("/", Gin(issuer.Verifier()), func(*gin.Context) { ran += "middleware " })
	group.GET("/", func(*gin.Context) { ran += "handler" })
	w := get(e, "/", "Bearer "+issuer.Token(nil)+"x")
	if wantStatus(t, w, http.StatusUnauthorized); ran != "" {
		t.Errorf("after the refusal ran: %s", ran)
	}
	if wantStatus(t, get(e, "/", "Bearer "+issuer.Token(nil)), http.StatusOK); ran != "middleware handler" {
		t.Errorf("ran: %q", ran)
	}
}

// oapi-codegen/oapi-codegen#485: generated wrappers call the middlewares in a loop of their own, which
// did not look at IsAborted. Those of today do, so Gin must have set it.
func TestGin_oapi_codegen_485_WrappersSeeTheAbort(t *testing.T) {
	issuer := verifiertest.New(t)
	for token, aborted := range map[string]bool{"": true, "Bearer x": true, "Bearer " + issuer.Token(nil): false} {
		c, _ := gin.CreateTestContext(httptest.NewRecorder())
		c.Request = httptest.NewRequest("GET", "/", nil)
		c.Request.Header.Set("Authorization", token)
		if Gin(issuer.Verifier())(c); c.IsAborted() != aborted {
			t.Errorf("%.10q: aborted: %t", token, c.IsAborted())
		}
	}
}

// gin-gonic/gin#3368: gin's own context does not have the values of the request's.
func TestGin_3368_TokenIsInTheContextOfTheRequest(t *testing.T) {
	issuer := verifiertest.New(t)
	e := gin.New()
	e.GET("/", Gin(issuer.Verifier()), func(c *gin.Context) {
		_, inGin := middleware.TokenFrom(c)
		if _, ok := middleware.TokenFrom(c.Request.Context()); inGin || !ok {
			t.Errorf("in c: %t, in c.Request: %t", inGin, ok)
		}
	})
	wantStatus(t, get(e, "/", "Bearer "+issuer.Token(nil)), http.StatusOK)
}

// danielgtaylor/huma#132: Security of an operation is documentation, and enforces nothing.
func TestHuma_132_SecurityAloneLetsAllIn(t *testing.T) {
	issuer := verifiertest.New(t)
	for _, guarded := range []bool{false, true} {
		mux := http.NewServeMux()
		api := humago.New(mux, huma.DefaultConfig("greetings", "1"))
		if guarded {
			api.UseMiddleware(Huma(issuer.Verifier()))
		}
		op := huma.Operation{Method: "GET", Path: "/orders", Security: []map[string][]string{{"bearer": {}}}}
		huma.Register(api, op, func(context.Context, *struct{}) (*greeting, error) { return &greeting{}, nil })
		want := map[bool]int{false: http.StatusOK, true: http.StatusUnauthorized}[guarded]
		wantStatus(t, get(mux, "/orders"), want)
	}
}

// danielgtaylor/huma#197: handlers did not see the context of a middleware. Those of humago see it
// from Huma, and from Require around the mux.
func TestHuma_197_HandlersSeeTheToken(t *testing.T) {
	issuer := verifiertest.New(t)
	token := issuer.Token(map[string]any{"sub": "ann"})
	inside := withHuma(issuer.Verifier())

	mux := http.NewServeMux()
	huma.Get(humago.New(mux, huma.DefaultConfig("greetings", "1")), "/{$}", func(ctx context.Context, _ *struct{}) (*greeting, error) {
		token, _ := middleware.TokenFrom(ctx)
		return &greeting{[]byte("hello " + token.Subject())}, nil
	})
	for _, h := range []http.Handler{inside, middleware.Require(issuer.Verifier())(mux)} {
		w := get(h, "/", "Bearer "+token)
		if wantStatus(t, w, http.StatusOK); !strings.HasPrefix(w.Body.String(), "hello ann") {
			t.Errorf("body %q", w.Body)
		}
	}
}

// ogen takes the first token of the scheme and does not say that there are others. Require does.
func TestOgen_TwoHeaders(t *testing.T) {
	issuer := verifiertest.New(t)
	server, err := withOgen(issuer.Verifier(), greeter{})
	if err != nil {
		t.Fatal(err)
	}
	token := "Bearer " + issuer.Token(nil)
	wantStatus(t, get(server, "/", token), http.StatusOK)
	for _, two := range [][]string{{token, token + "x"}, {token + "x", token}, {"Basic YTpi", token}} {
		wantStatus(t, get(server, "/", two...), http.StatusBadRequest)
	}
}

// Without Require around it, and without a role, the handler of security refuses. It does not skip:
// an operation with another scheme beside this one would be open.
func TestOgen_ErrSkipServerSecurity(t *testing.T) {
	issuer := verifiertest.New(t)
	alone, err := greetings.NewServer(greeter{}, security{}, greetings.WithErrorHandler(refuse))
	if err != nil {
		t.Fatal(err)
	}
	wantStatus(t, get(alone, "/", "Bearer "+issuer.Token(nil)), http.StatusUnauthorized)

	wants := greetings.BearerAuth{Roles: []string{"orders:read", "orders:write"}}
	for scope, want := range map[string]error{"orders:read": middleware.ErrScope, "orders:write orders:read": nil} {
		get(middleware.Require(issuer.Verifier())(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, err := security{}.HandleBearerAuth(r.Context(), greetings.HelloOperation, wants)
			if !errors.Is(err, want) || errors.Is(err, ogenerrors.ErrSkipServerSecurity) {
				t.Errorf("scope %q: %v", scope, err)
			}
		})), "/", "Bearer "+issuer.Token(map[string]any{"scope": scope}))
	}
}
