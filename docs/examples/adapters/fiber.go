package adapters

import (
	"net/http"

	"github.com/gofiber/fiber/v3"

	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

// Fiber lets a request through only if it carries a token that v accepts. The token is in the context
// of the request: middleware.TokenFrom(c.Context()).
func Fiber(v *verifier.Verifier, opts ...middleware.Option) fiber.Handler {
	authenticate := middleware.Authenticator(v, opts...)
	return func(c fiber.Ctx) error {
		r := copyRequest(c.Context(), c.RequestCtx())
		token, err := authenticate(r)
		if err != nil {
			middleware.Refuse(&answer{header: http.Header{}, to: c.Response()}, r, err, opts...)
			return nil // answered; an error would go to fiber's ErrorHandler
		}
		c.SetContext(verifier.NewContext(c.Context(), token))
		return c.Next()
	}
}

func withFiber(v *verifier.Verifier) *fiber.App {
	app := fiber.New()
	app.Use(Fiber(v))
	app.Get("/", func(c fiber.Ctx) error {
		token, _ := middleware.TokenFrom(c.Context())
		return c.SendString("hello " + token.Subject() + " of " + token.Tenant() + "\n")
	})
	return app
}
