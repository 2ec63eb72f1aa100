package revocations

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/keyturn/keyturn/verifier"
)

// writeWithin is how long a handler waits for the store. A program that waits for an answer without end would hear
// neither 200 nor 503, and would not come back.
const writeWithin = 5 * time.Second

// A revoker is what the handlers need of a [List].
type revoker interface {
	RevokeToken(ctx context.Context, tenant, jti string, exp time.Time) (Receipt, error)
	RevokeSubject(ctx context.Context, tenant, sub string, before time.Time) (Receipt, error)
	RevokeSession(ctx context.Context, tenant, sid string, exp time.Time) (Receipt, error)

	// revokeSpare is RevokeSession for a session whose tokens end in another way, too. It leaves half of the room to
	// others.
	revokeSpare(ctx context.Context, tenant, sid string, exp time.Time) (Receipt, error)

	// holdsToken reports whether a token is revoked by its jti, and not by its subject, session or tenant alone.
	holdsToken(tenant, jti string) bool
}

// RevocationHandler returns a handler for OAuth 2.0 Token Revocation (RFC 7009): a service posts a
// token that must not be used any more, and authenticates with HTTP Basic. The token is revoked by its
// jti, in every instance.
//
// The answer is 200 once the list holds the revocation, and for a token that is not good anyway. It
// is 503 with Retry-After if the list could not be written, or if the token is not good now and may
// be later: its nbf has not come, or its tenant is suspended. It is 503, too, if several tenants have the token's
// issuer and the client has no Tenants, which tell them apart. A token without jti, and one without
// exp, is 400 unsupported_token_type: revoke its subject instead.
//
// The error says what of cfg cannot be used.
func RevocationHandler(list *List, cfg EndpointConfig) (http.Handler, error) {
	if list == nil {
		return nil, errors.New("revocations: RevocationHandler: the list is nil")
	}
	return newRevocationHandler(list, cfg)
}

func newRevocationHandler(list revoker, cfg EndpointConfig) (http.Handler, error) {
	e, err := newEndpoint(cfg)
	if err != nil {
		return nil, err
	}
	return revocationHandler{e, list}, nil
}

type revocationHandler struct {
	*endpoint
	list revoker
}

// ServeHTTP implements [http.Handler].
func (h revocationHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, token, ok := h.open(w, r)
	if !ok {
		return
	}
	t, err := h.verify(r.Context(), c, token)
	switch {
	case err == nil:
		h.revoke(w, r, c, t)
	case reasonOf(err) == verifier.ReasonRevoked:
		h.again(w, r, c, err, token)
	case !dead(err):
		h.log.Warn("a token cannot be revoked now", "client", c.id, "reason", reasonOf(err), "err", err)
		unavailable(w, r, "the token cannot be checked now, so it is not revoked")
	default:
		w.WriteHeader(http.StatusOK) // RFC 7009, section 2.2: what it was asked for is so already
	}
}

// again answers for a token that is revoked already. It may be so because of an earlier request alone, whose write
// was perhaps lost: that had 503 for an answer, and asked to come again. So a token that is revoked by its jti is
// revoked again. It takes no other place in the list.
func (h revocationHandler) again(w http.ResponseWriter, r *http.Request, c *client, err error, token string) {
	e := new(verifier.Error)
	jti, exp := idOf(token)
	if !errors.As(err, &e) || !c.may(e.Tenant) || jti == "" || exp.IsZero() || !h.list.holdsToken(e.Tenant, jti) {
		w.WriteHeader(http.StatusOK)
		return
	}
	h.write(w, r, c, e.Tenant, jti, exp)
}

// idOf returns jti and exp of a token that was verified, or "" and the zero time. A tenant may tolerate padding, and
// numbers as jti.
func idOf(token string) (jti string, exp time.Time) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", time.Time{}
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	var c struct {
		ID  json.RawMessage `json:"jti"`
		Exp float64         `json:"exp"`
	}
	if err != nil || json.Unmarshal(payload, &c) != nil || c.Exp < 1 || c.Exp > 1<<53 {
		return "", time.Time{}
	}
	if json.Unmarshal(c.ID, &jti) != nil {
		jti = string(c.ID)
	}
	return jti, time.Unix(int64(math.Ceil(c.Exp)), 0)
}

func (h revocationHandler) revoke(w http.ResponseWriter, r *http.Request, c *client, t *verifier.Token) {
	switch {
	case !c.may(t.Tenant()):
		refuse(w, r, http.StatusBadRequest, "unauthorized_client", "the client may not revoke tokens of this tenant")
		return
	case t.ID() == "":
		refuse(w, r, http.StatusBadRequest, "unsupported_token_type", "the token has no jti, so it cannot be revoked alone")
		return
	case t.Expires().IsZero():
		refuse(w, r, http.StatusBadRequest, "unsupported_token_type", "the token has no exp, so its revocation would never end")
		return
	}
	h.write(w, r, c, t.Tenant(), t.ID(), t.Expires())
}

// write revokes a token by its jti, and answers.
func (h revocationHandler) write(w http.ResponseWriter, r *http.Request, c *client, tenant, jti string, exp time.Time) {
	ctx, cancel := context.WithTimeout(r.Context(), writeWithin)
	defer cancel()
	if _, err := h.list.RevokeToken(ctx, tenant, jti, exp); err != nil {
		h.log.Error("a token is not revoked", "client", c.id, "tenant", tenant, "err", err)
		unavailable(w, r, "the revocation could not be written")
		return
	}
	h.log.Info("a token is revoked", "client", c.id, "tenant", tenant)
	w.WriteHeader(http.StatusOK)
}
