package adapters

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"unsafe"

	"github.com/gofiber/fiber/v3"
	"github.com/valyala/fasthttp"

	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
	"github.com/keyturn/keyturn/verifier/verifiertest"
)

// gofiber/fiber#426 and #2045: the strings of a request change when the next request comes on the same
// connection, which once corrupted a store of CSRF tokens. Here the cache of the verifier keeps
// nothing of them: a token that is presented after others, on the same connection and in the same
// memory, is the one that it was. So is one that a handler kept.
func TestFiber_426_2045_RequestsInTheSameMemory(t *testing.T) {
	issuer := verifiertest.New(t)
	var kept []*verifier.Token // one handler at a time: one connection
	app := fiber.New()
	app.Use(Fiber(issuer.Verifier()))
	app.Get("/", func(c fiber.Ctx) error {
		token, _ := middleware.TokenFrom(c.Context())
		kept = append(kept, token)
		return c.SendString(token.Subject())
	})
	ln := listen(t)
	serve(t, func() error { return app.Listener(ln, fiber.ListenConfig{DisableStartupMessage: true}) }, app.Shutdown)
	samePlace(t, ln.Addr().String(), issuer)
	for i, token := range kept {
		if want := fmt.Sprintf("user-%d", i%3); token.Subject() != want {
			t.Errorf("kept token %d is of %s, want %s", i, token.Subject(), want)
		}
	}
}

// As above, in fasthttp itself. The verifier is given memory that is used again on purpose: a string
// without a copy.
func TestFastHTTP_TheCacheKeepsNoStringOfARequest(t *testing.T) {
	issuer := verifiertest.New(t)
	v := issuer.Verifier()
	ln := listen(t)
	server := &fasthttp.Server{Logger: silent{}, Handler: func(ctx *fasthttp.RequestCtx) {
		raw := ctx.Request.Header.Peek("Authorization")
		token, err := v.Verify(ctx, unsafe.String(&raw[len("Bearer ")], len(raw)-len("Bearer ")))
		if err != nil {
			ctx.SetStatusCode(http.StatusUnauthorized)
			return
		}
		ctx.WriteString(token.Subject())
	}}
	serve(t, func() error { return server.Serve(ln) }, server.Shutdown)
	samePlace(t, ln.Addr().String(), issuer)
}

// serve runs a server until the test ends.
func serve(t *testing.T, run, shutdown func() error) {
	ended := make(chan error, 1)
	go func() { ended <- run() }()
	t.Cleanup(func() {
		if err := shutdown(); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// samePlace sends tokens of the same length on one connection, each in turn and several times, with
// forged ones between them, and checks that each is answered with its own subject.
func samePlace(t *testing.T, addr string, issuer *verifiertest.Issuer) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	ask := func(token string) (int, string) {
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", token)
		answer, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(body)
	}
	var tokens []string
	for i := range 3 {
		tokens = append(tokens, issuer.Token(map[string]any{"sub": fmt.Sprintf("user-%d", i)}))
	}
	for range 5 {
		for i, token := range tokens {
			if status, body := ask(token); status != http.StatusOK || body != fmt.Sprintf("user-%d", i) {
				t.Errorf("token %d: %d %q", i, status, body)
			}
			// The payload of this token under the signature of the next.
			head, _ := cutLast(token)
			_, signature := cutLast(tokens[(i+1)%3])
			if status, body := ask(head + "." + signature); status != http.StatusUnauthorized {
				t.Errorf("forged token %d: %d %q", i, status, body)
			}
		}
	}
}

func cutLast(token string) (head, signature string) {
	dot := strings.LastIndexByte(token, '.')
	return token[:dot], token[dot+1:]
}
