package middleware

import (
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/keyturn/keyturn/verifier"
)

// A kind says what an error means to the client.
type kind int

const (
	unavailable kind = iota // and every error that is not a verdict
	noToken
	badRequest
	invalid
	noScope
	forbidden
	tooLarge
)

// kindOf looks for a verdict first: that may wrap the error of a tenant's Check or of a
// RequireFunc, which may be any error.
func kindOf(err error) kind {
	switch e := verdictIn(err).(type) {
	case *verifier.Error:
		if e.Reason == verifier.ReasonUnavailable {
			return unavailable
		}
		return invalid
	case *forbiddenError:
		return forbidden
	}
	switch {
	case errors.Is(err, verifier.ErrUnavailable):
		return unavailable
	case errors.Is(err, verifier.ErrInvalid):
		return invalid
	case errors.Is(err, ErrNoToken):
		return noToken
	case errors.Is(err, ErrRequest):
		return badRequest
	case errors.Is(err, ErrScope):
		return noScope
	case errors.Is(err, ErrForbidden):
		return forbidden
	case errors.Is(err, ErrTooLarge):
		return tooLarge
	}
	return unavailable
}

// verdictIn returns the outermost verdict in the tree of err, or nil. [errors.As] would
// find one type of verdict inside of the other.
func verdictIn(err error) error {
	switch e := err.(type) {
	case *verifier.Error, *forbiddenError:
		return err
	case interface{ Unwrap() error }:
		return verdictIn(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			if v := verdictIn(err); v != nil {
				return v
			}
		}
	}
	return nil
}

func (k kind) status() int {
	switch k {
	case noToken, invalid:
		return http.StatusUnauthorized
	case badRequest:
		return http.StatusBadRequest
	case noScope, forbidden, tooLarge:
		return http.StatusForbidden
	}
	return http.StatusServiceUnavailable
}

// Status returns the HTTP status for err, for use in error handlers: 400 for
// [ErrRequest], 401 for [ErrNoToken] and [verifier.ErrInvalid], 403 for [ErrScope],
// [ErrForbidden] and [ErrTooLarge], and 503 for [verifier.ErrUnavailable]. Any other error is also 503, since only a
// verdict may make a client discard its token.
func Status(err error) int { return kindOf(err).status() }

// retryAfter is in seconds. It is short, because most outages of a key source are
// short, and a repeated request costs the verifier little.
const retryAfter = "1"

// refuse answers a request that is refused.
func (g *guard) refuse(w http.ResponseWriter, r *http.Request, err error) {
	k := kindOf(err)
	code, description := g.describe(k, err)
	h := w.Header()
	h.Del("Content-Length")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if k == unavailable {
		h.Set("Retry-After", retryAfter)
	} else {
		h.Set("WWW-Authenticate", g.challenge(k, err, code, description))
	}
	if g.handler != nil {
		g.handler(w, r, err)
		return
	}
	// Neither text needs escaping: see isPlain.
	writeJSON(w, k.status(), `{"error":"`+code+`","error_description":"`+description+`"}`+"\n")
}

// describe returns the error and error_description of RFC 6750, section 3.
func (g *guard) describe(k kind, err error) (code, description string) {
	switch k {
	case noToken:
		return "unauthorized", "a bearer token is required"
	case badRequest:
		if e := (*requestError)(nil); errors.As(err, &e) {
			return "invalid_request", e.text
		}
		return "invalid_request", "the request is malformed"
	case noScope:
		return "insufficient_scope", "the token lacks a scope that is needed here"
	case forbidden:
		// RFC 6750 has no other code for a token that is good, but not for this.
		return "insufficient_scope", "the token does not allow this request"
	case tooLarge:
		return "identity_too_large", "the token's identity does not fit into headers"
	case invalid:
		const text = "the token is not accepted"
		if e := (*verifier.Error)(nil); g.detail && errors.As(err, &e) && isPlain(string(e.Reason)) {
			return "invalid_token", text + ": " + string(e.Reason)
		}
		return "invalid_token", text
	}
	return "temporarily_unavailable", "the token cannot be checked now"
}

// challenge returns the value of WWW-Authenticate (RFC 6750, section 3). For a
// request without a token it names no error (section 3.1).
func (g *guard) challenge(k kind, err error, code, description string) string {
	c := "Bearer realm=" + quote(g.realm)
	if k != noToken {
		c += `, error="` + code + `", error_description="` + description + `"`
	}
	if e := (*scopeError)(nil); k == noScope && errors.As(err, &e) {
		c += `, scope="` + e.wanted + `"`
	}
	if g.resource != "" {
		c += `, resource_metadata="` + g.resource + `"` // RFC 9728, section 5.1
	}
	return c
}

// isPlain reports whether text has only characters that an error_description may have
// (RFC 6750, section 3). A quoted-string and JSON hold them without escapes.
func isPlain(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' })
}

// quote returns text, which is printable ASCII, as a quoted-string (RFC 9110,
// section 5.6.4).
func quote(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
}

func writeJSON(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	io.WriteString(w, body) // net/http omits it in the answer to HEAD
}

// MastraErrors is an error handler for [WithErrorHandler], with the bodies of the
// guide to MastraJwtAuth: "Invalid or expired token" for 400 and 401, "Access denied"
// for 403, and "Authorization error" if the verifier cannot tell now. The last is 503
// here and 500 in the guide. Status and headers are those of the default handler.
func MastraErrors(w http.ResponseWriter, r *http.Request, err error) {
	text := "Authorization error"
	switch Status(err) {
	case http.StatusBadRequest, http.StatusUnauthorized:
		text = "Invalid or expired token"
	case http.StatusForbidden:
		text = "Access denied"
	}
	writeJSON(w, Status(err), `{"error":"`+text+`"}`)
}
