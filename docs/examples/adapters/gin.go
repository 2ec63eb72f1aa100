package adapters

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

// Gin lets a request through only if it carries a token that v accepts. The token is in the context of
// c.Request, and not in c.
func Gin(v *verifier.Verifier, opts ...middleware.Option) gin.HandlerFunc {
	require := middleware.Require(v, opts...)
	return func(c *gin.Context) {
		passed := false
		require(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			c.Request, passed = r, true
		})).ServeHTTP(c.Writer, c.Request)
		if !passed {
			c.Abort() // a return alone would run the next handler
		}
	}
}

func withGin(v *verifier.Verifier) http.Handler {
	e := gin.New()
	e.Use(Gin(v))
	e.GET("/", func(c *gin.Context) {
		token, _ := middleware.TokenFrom(c.Request.Context())
		c.String(http.StatusOK, "hello %s of %s\n", token.Subject(), token.Tenant())
	})
	return e
}
