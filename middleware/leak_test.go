package middleware_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/middleware"
)

// No output holds any part of a token. Errors alone hold the kid, quoted.
func TestNothingLeaks(t *testing.T) {
	v := newVerifier(t, "acme", "globex")
	const kid = "evil-kid\r\n\"X: y"
	var requests []func() *http.Request
	var parts []string // of tokens
	for _, token := range []string{
		good("acme"), badSignature(good("acme")), good("acme", "exp", 1), good("acme", "aud", "admin"), good("globex"), good("initech"),
		sign(secretOf("acme"), kid, claimsOf("acme")), sign(secretOf("acme"), kid, "x"), good("acme")[:40], strings.Repeat("eyJ", 4000),
	} {
		for part := range strings.SplitSeq(token, ".") {
			if len(part) > 4 {
				parts = append(parts, part)
			}
		}
		for _, header := range [][]string{
			bearer(token), {"Authorization", token}, {"Authorization", "Bearer" + token}, {"Authorization", "Bearer " + token + " " + token},
			{"Authorization", "Bearer " + token + "\r\nX: y"}, append(bearer(token), bearer(token)...), {"Cookie", "session=" + token},
			{"X-Jwt", token}, {"X-Jwt", "Bearer " + token}, append(bearer(token), "X-Jwt", token), {"Authorization", "Bearer   " + token},
			{"Cookie", "session=" + token + "; session=" + token}, append(bearer(token), "Cookie", "session="+token),
		} {
			requests = append(requests, func() *http.Request { return request("GET", "/?t="+token[:5], header...) })
		}
	}
	find := func(what, text string, parts ...string) {
		for _, part := range parts {
			if strings.Contains(text, part) {
				t.Errorf("%s holds %q: %.200s", what, part, text)
			}
		}
	}
	demands := middleware.RequireAudience("admin")(middleware.RequireClaim("role", "wanted-role")(middleware.RequireScope("x")(whoami)))
	cookie := middleware.FromCookie("session")
	for _, opts := range [][]middleware.Option{{cookie}, {cookie, middleware.WithDetail()}, {cookie, middleware.WithErrorHandler(middleware.MastraErrors)},
		{cookie, middleware.TenantFromPath("tenant")}, {cookie, middleware.FromQuery("t"), middleware.WithDetail()},
		{cookie, middleware.FromHeader("X-Jwt"), middleware.WithDetail()}, {cookie, middleware.FromFunc(func(r *http.Request) string { return r.Header.Get("X-Jwt") })}} {
		for _, r := range requests {
			w := serve(middleware.Require(v, opts...)(demands), r())
			out := fmt.Sprintf("%d %q %s", w.Code, w.Header(), w.Body)
			if w.Code < 400 {
				t.Errorf("passed: %s", out)
			}
			find("the answer", out, parts...)
			find("the answer", out, "evil", "kid-acme", "https://", "ann", "\\r", "\\n\"", "wanted-role")
		}
	}
	for _, r := range requests {
		var c capture
		serve(middleware.Require(v, cookie, middleware.WithErrorHandler(c.handle))(demands), r())
		text := fmt.Sprintf("%v %+v %s", c.err, c.err, c.err)
		find("the error", text, parts...)
		find("the error", strings.ReplaceAll(text, strconv.Quote(kid), ""), "evil", "\r", "\n", "https://", "ann")
	}
}
