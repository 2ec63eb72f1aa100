package adapters

import (
	"net/http"

	echov4 "github.com/labstack/echo/v4"
	"github.com/labstack/echo/v5"

	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

func withEcho(v *verifier.Verifier) http.Handler {
	e := echo.New()
	e.Use(echo.WrapMiddleware(middleware.Require(v)))
	e.GET("/", func(c *echo.Context) error {
		token, _ := middleware.TokenFrom(c.Request().Context()) // the request is another one than outside
		return c.String(http.StatusOK, "hello "+token.Subject()+" of "+token.Tenant()+"\n")
	})
	return e
}

// withEchoV4 differs in c, which is an interface.
func withEchoV4(v *verifier.Verifier) http.Handler {
	e := echov4.New()
	e.Use(echov4.WrapMiddleware(middleware.Require(v)))
	e.GET("/", func(c echov4.Context) error {
		token, _ := middleware.TokenFrom(c.Request().Context())
		return c.String(http.StatusOK, "hello "+token.Subject()+" of "+token.Tenant()+"\n")
	})
	return e
}
