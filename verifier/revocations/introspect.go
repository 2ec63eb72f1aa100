package revocations

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/keyturn/keyturn/verifier"
)

// IntrospectionHandler returns a handler for OAuth 2.0 Token Introspection (RFC 7662): services in
// any language ask it about a token with a POST, and authenticate with HTTP Basic.
//
// A good token gets {"active":true} with its claims exp, iat, sub, aud, iss, jti, client_id and
// scope, token_type, and its tenant. Every other token gets {"active":false}, whatever is wrong
// with it, and so does one of a tenant that the client may not ask about. When the verifier cannot
// tell, the answer is 503 with Retry-After, and never {"active":false}.
//
// The error says what of cfg cannot be used.
func IntrospectionHandler(cfg EndpointConfig) (http.Handler, error) {
	e, err := newEndpoint(cfg)
	if err != nil {
		return nil, err
	}
	return introspectionHandler{e}, nil
}

type introspectionHandler struct{ *endpoint }

// An activeToken is the answer about a good token (RFC 7662, section 2.2).
type activeToken struct {
	Active    bool   `json:"active"`
	Scope     string `json:"scope,omitempty"`
	ClientID  string `json:"client_id,omitempty"`
	TokenType string `json:"token_type"`
	Exp       int64  `json:"exp,omitempty"`
	Iat       int64  `json:"iat,omitempty"`
	Sub       string `json:"sub,omitempty"`
	Aud       any    `json:"aud,omitempty"` // a string, or several
	Iss       string `json:"iss,omitempty"`
	JTI       string `json:"jti,omitempty"`
	Tenant    string `json:"tenant"` // an extension, as section 2.2 allows
}

// inactive is the only answer about a token that is not good: section 2.2 has the server say no
// more about it.
const inactive = `{"active":false}`

// ServeHTTP implements [http.Handler].
func (h introspectionHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, token, ok := h.open(w, r)
	if !ok {
		return
	}
	t, err := h.verifier.Verify(r.Context(), token)
	switch {
	case errors.Is(err, verifier.ErrInvalid):
		writeJSON(w, http.StatusOK, []byte(inactive))
	case err != nil:
		h.log.Warn("introspection: the token cannot be checked now", "client", c.id, "reason", reasonOf(err), "err", err)
		unavailable(w, r, "the token cannot be checked now")
	case !c.may(t.Tenant()):
		writeJSON(w, http.StatusOK, []byte(inactive)) // section 2.2, also for a resource that may not ask
	default:
		body, err := json.Marshal(describe(t))
		if err != nil {
			unavailable(w, r, "the answer cannot be written") // such as a claim that is not UTF-8
			return
		}
		writeJSON(w, http.StatusOK, body)
	}
}

func describe(t *verifier.Token) activeToken {
	own, _ := verifier.Claims[struct {
		ClientID string `json:"client_id"`
	}](t) // without one where it is no string
	a := activeToken{
		Active: true, TokenType: "Bearer", Scope: strings.Join(t.Scopes(), " "), ClientID: own.ClientID,
		Exp: seconds(t.Expires()), Iat: seconds(t.IssuedAt()),
		Sub: t.Subject(), Iss: t.Issuer(), JTI: t.ID(), Tenant: t.Tenant(),
	}
	switch aud := t.Audience(); len(aud) {
	case 0:
	case 1:
		a.Aud = aud[0]
	default:
		a.Aud = aud
	}
	return a
}

// seconds returns t in whole seconds since 1970, rounded down, so that no token seems to live
// longer than it does. It is 0 for the zero time.
func seconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}
