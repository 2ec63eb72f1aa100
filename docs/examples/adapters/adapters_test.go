package adapters

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/gofiber/fiber/v3"
	"github.com/valyala/fasthttp"

	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode) // in its own mode gin prints each route
	os.Exit(m.Run())
}

// An adapter is a service with one greeting at /, in one framework.
type adapter struct {
	name  string
	serve func(*testing.T, *verifier.Verifier) (addr string)
	own   []string // cases that the server or the router answers by itself, before any middleware
}

var adapters = []adapter{
	{"net/http", overHTTP(withNetHTTP), []string{"http-options", "http-connect-trace"}},
	{"chi", overHTTP(withChi), nil},
	{"gorilla", overHTTP(withGorilla), []string{"http-options", "http-connect-trace"}},
	{"httprouter", overHTTP(withHTTPRouter), []string{"http-options", "http-connect-trace"}},
	{"echo v5", overHTTP(withEcho), nil},
	{"echo v4", overHTTP(withEchoV4), nil},
	{"gin", overHTTP(withGin), nil},
	{"connect", overHTTP(withConnectErrors), nil},
	{"ogen", overOgen, nil},
	{"huma", overHTTP(withHuma), []string{"http-options", "http-connect-trace"}},
	{"fiber", overFiber, []string{"http-64k", "http-1m"}},
	{"fasthttp", overFastHTTP, []string{"http-64k", "http-1m"}},
}

func overHTTP(service func(*verifier.Verifier) http.Handler) func(*testing.T, *verifier.Verifier) string {
	return func(t *testing.T, v *verifier.Verifier) string {
		server := httptest.NewServer(service(v))
		t.Cleanup(server.Close)
		return server.Listener.Addr().String()
	}
}

// withConnectErrors has a handler that is not of connect's: ConnectErrors answers its clients too.
func withConnectErrors(v *verifier.Verifier) http.Handler {
	return middleware.Require(v, middleware.WithErrorHandler(ConnectErrors()))(http.HandlerFunc(hello))
}

func overOgen(t *testing.T, v *verifier.Verifier) string {
	server, err := withOgen(v, greeter{})
	if err != nil {
		t.Fatal(err)
	}
	return overHTTP(func(*verifier.Verifier) http.Handler { return server })(t, v)
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

func overFiber(t *testing.T, v *verifier.Verifier) string {
	app, ln := withFiber(v), listen(t)
	serve(t, func() error { return app.Listener(ln, fiber.ListenConfig{DisableStartupMessage: true}) }, app.Shutdown)
	return ln.Addr().String()
}

func overFastHTTP(t *testing.T, v *verifier.Verifier) string {
	server, ln := &fasthttp.Server{Handler: withFastHTTP(v), Logger: silent{}}, listen(t)
	serve(t, func() error { return server.Serve(ln) }, server.Shutdown)
	return ln.Addr().String()
}

type silent struct{}

func (silent) Printf(string, ...any) {}

func TestVectors(t *testing.T) {
	f := readVectors(t)
	for _, a := range adapters {
		t.Run(a.name, func(t *testing.T) {
			up, down := a.serve(t, f.verifier(t, f.keys(t))), a.serve(t, f.verifier(t, downStore{}))
			for _, c := range f.Cases {
				if !c.overTheWire(f, t) {
					continue
				}
				t.Run(c.ID, func(t *testing.T) {
					addr := up
					if c.ID == "http-keystore-down" {
						addr = down
					}
					own := append([]string{"http-nul-raw", "http-1m"}, a.own...)
					c.check(t, c.ask(f, t, addr), slices.Contains(own, c.ID), a.name == "connect")
				})
			}
		})
	}
}
