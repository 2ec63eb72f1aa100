package revocations

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/keyturn/keyturn/verifier"
)

// A revoker is what the handlers need of a [List].
type revoker interface {
	RevokeToken(ctx context.Context, tenant, jti string, exp time.Time) (Receipt, error)
	RevokeSubject(ctx context.Context, tenant, sub string, before time.Time) (Receipt, error)
	RevokeSession(ctx context.Context, tenant, sid string, exp time.Time) (Receipt, error)
}

// RevocationHandler returns a handler for OAuth 2.0 Token Revocation (RFC 7009): a service posts a
// token that must not be used any more, and authenticates with HTTP Basic. The token is revoked by its
// jti, in every instance.
//
// The answer is 200 once the list holds the revocation, and for a token that is not good anyway. It
// is 503 with Retry-After if the list could not be written, or if the token is not good now and may
// be later: its nbf has not come, or its tenant is suspended. A token without jti, and one without
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
	t, err := h.verifier.Verify(r.Context(), token)
	switch reason := reasonOf(err); {
	case err == nil:
		h.revoke(w, r, c, t)
	case !errors.Is(err, verifier.ErrInvalid), reason == verifier.ReasonNotYetValid, reason == verifier.ReasonSuspended:
		h.log.Warn("a token cannot be revoked now", "client", c.id, "reason", reason, "err", err)
		unavailable(w, r, "the token cannot be checked now, so it is not revoked")
	default:
		w.WriteHeader(http.StatusOK) // RFC 7009, section 2.2: what it was asked for is so already
	}
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
	if _, err := h.list.RevokeToken(r.Context(), t.Tenant(), t.ID(), t.Expires()); err != nil {
		h.log.Error("a token is not revoked", "client", c.id, "tenant", t.Tenant(), "err", err)
		unavailable(w, r, "the revocation could not be written")
		return
	}
	h.log.Info("a token is revoked", "client", c.id, "tenant", t.Tenant())
	w.WriteHeader(http.StatusOK)
}
