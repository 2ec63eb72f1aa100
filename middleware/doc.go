// Package middleware puts a [verifier.Verifier] in front of an [http.Handler], and a
// live token on the requests of an [http.Client].
//
// [Require] lets a request through only if it carries a good token. The handler gets
// the token from [TokenFrom], or its claims from [ClaimsFrom]. [RequireScope],
// [RequireAnyScope], [RequireClaim], [RequireFunc] and [RequireAudience] demand more of
// the token. [Optional] also lets requests without a token through. [Authenticator] and
// [Refuse] are the two halves of Require, for code that is no http.Handler. [Identity] tells
// a service behind a proxy whose request it is, in headers that no client can set.
//
// [Transport] is the client's side: it puts a token that has not expired on each
// request. [JWKS] and [Discovery] publish the public keys of a tenant, for services
// that verify its tokens. [ResourceMetadata] tells clients where to get a token, and
// [Ready] tells a load balancer whether tokens can be verified.
//
// # What these protect
//
// A wrapped handler is protected for every path, method and spelling: there is no
// list of paths to get wrong. A token comes in one Authorization header: the scheme
// Bearer in any case, one or more spaces, and the token (RFC 6750, section 2.1).
// Another place counts only with [FromHeader], [FromCookie], [FromQuery] or [FromFunc].
// Two different tokens are refused, wherever they are. The identity of the caller comes
// from the verified token alone. No other part of the request can set it.
//
// # Answers
//
//	400 invalid_request     different tokens, two headers, or a malformed one
//	401                     no token
//	401 invalid_token       a bad token
//	403 insufficient_scope  a good token without a scope, or something else, that is needed
//	403 identity_too_large  a good token that does not fit into the headers of an [Identity]
//	503 and Retry-After     the verifier cannot tell now whether the token is good
//
// 400, 401 and 403 come with WWW-Authenticate (RFC 6750, section 3). All bad tokens
// get the same answer, byte for byte, unless [WithDetail] is set. The operator learns
// the reason from the verifier's Observe or with [WithErrorHandler]. No answer holds
// any part of the token.
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
// If the tenant comes from the path, wrap the handler and not the mux: before
// routing there is no path value, and every request is refused.
//
//	mux.Handle("GET /{tenant}/hello", middleware.Require(v, middleware.TenantFromPath("tenant"))(hello))
//
// CORS goes outside [Require]: a preflight request carries no token, and would get
// 401.
package middleware
