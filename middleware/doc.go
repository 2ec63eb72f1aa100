// Package middleware puts a [verifier.Verifier] before an [http.Handler], and a
// live token on the requests of an [http.Client].
//
// [Require] lets a request through only if it carries a good token, which the
// handler finds with [TokenFrom] or [ClaimsFrom]; [RequireScope] and
// [RequireAudience] ask for more. [Optional] also serves those who carry none.
// [Transport] is the other side: it gives each request of a client a token that
// has not ended. [JWKS] publishes the keys that verify tokens, for services that
// are not to have any other.
//
// # What is protected
//
// What is wrapped, whatever its path, its method or the spelling of either:
// there is no list of paths to get wrong. A token comes in one Authorization
// header, after the scheme Bearer in any case and one space (RFC 6750, section
// 2.1); from a cookie or the query only with [FromCookie] and [FromQuery]. Who
// the caller is comes from the verified token and from nothing else: no header,
// query or body can set it.
//
// # Answers
//
//	400 invalid_request     two tokens, two headers, or a malformed one
//	401                     no token
//	401 invalid_token       a token that is not good
//	403 insufficient_scope  a good token that may not do this
//	503 and Retry-After     it cannot be told now whether the token is good
//
// 400, 401 and 403 come with WWW-Authenticate (RFC 6750, section 3). All tokens
// that are not good get the same answer, byte for byte, unless [WithDetail] is
// set: why is for the operator, who learns it from the verifier's Observe or
// with [WithErrorHandler]. No answer holds anything of the token.
//
// # Routers
//
// [Require] returns a func(http.Handler) http.Handler, so it works as it is with
// the standard mux, chi and gorilla/mux:
//
//	mux.Handle("GET /hello", middleware.Require(v)(hello))                      // net/http
//	router.Use(middleware.Require(v))                                           // chi, gorilla
//	router.With(middleware.RequireScope("orders:write")).Post("/orders", order) // chi
//
// Where the tenant comes from the path, wrap the handler and not the mux: before
// routing, there is no path value, and the request is refused.
//
//	mux.Handle("GET /{tenant}/hello", middleware.Require(v, middleware.TenantFromPath("tenant"))(hello))
//
// CORS goes outside [Require]: a preflight carries no token, and would be
// answered with 401.
package middleware
