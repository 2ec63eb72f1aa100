package revocations

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/keyturn/keyturn/verifier"
)

// IntrospectionHandler returns a handler for OAuth 2.0 Token Introspection (RFC 7662): services in
// any language ask it about a token with a POST, and authenticate with HTTP Basic.
//
// A good token gets {"active":true} with its claims exp, iat, sub, aud, iss, jti, client_id and
// scope, token_type, cnf, and its tenant. A token with cnf is good only together with a proof of the key that it names,
// which the service has to check: token_type is DPoP where cnf has jkt (RFC 9449, section 6.2), and is left out
// with another cnf (RFC 8705, section 3.2). Every other token gets {"active":false}, whatever is wrong
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
	Active    bool            `json:"active"`
	Scope     string          `json:"scope,omitempty"`
	ClientID  string          `json:"client_id,omitempty"`
	TokenType string          `json:"token_type,omitempty"`
	Exp       int64           `json:"exp,omitempty"`
	Iat       int64           `json:"iat,omitempty"`
	Sub       string          `json:"sub,omitempty"`
	Aud       any             `json:"aud,omitempty"` // a string, or several
	Iss       string          `json:"iss,omitempty"`
	JTI       string          `json:"jti,omitempty"`
	Cnf       json.RawMessage `json:"cnf,omitempty"`
	Tenant    string          `json:"tenant"` // an extension, as section 2.2 allows
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
	t, err := h.verify(r.Context(), c, token)
	switch {
	case known(err):
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
	bound, _ := verifier.Claims[struct {
		Cnf json.RawMessage `json:"cnf"`
	}](t)
	a := activeToken{
		Active: true, TokenType: typeOf(bound.Cnf), Cnf: bound.Cnf, Scope: strings.Join(t.Scopes(), " "), ClientID: own.ClientID,
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

// typeOf returns the token_type of a token with that cnf.
func typeOf(cnf json.RawMessage) string {
	if cnf == nil {
		return "Bearer"
	}
	var key struct {
		Thumbprint *string `json:"jkt"`
	}
	if json.Unmarshal(cnf, &key) == nil && key.Thumbprint != nil {
		return "DPoP"
	}
	return ""
}

// seconds returns t in whole seconds since 1970, rounded down, so that no token seems to live
// longer than it does. It is 0 for the zero time.
func seconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}
