package revocations

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/keyturn/keyturn/verifier"
)

// LogoutConfig configures a [LogoutHandler].
type LogoutConfig struct {
	// Tenants are those whose providers send logout tokens. At least one is required.
	Tenants []LogoutTenant

	// Now reports the wall clock's time. The default is [time.Now].
	Now func() time.Time

	// Logger receives each logout, and why a logout token was refused. It never receives a token,
	// a subject or a session. Nil means that nothing is logged.
	Logger *slog.Logger
}

// A LogoutTenant says which logout tokens of a tenant are good.
type LogoutTenant struct {
	// Rules are those for the tenant's other tokens. The handler uses ID, Keys, Algorithms,
	// MixedFamilies, Issuer, OtherIssuers, Leeway and Tolerate, and no other.
	Rules verifier.Tenant

	// ClientID is the client that the provider knows this service by. It is in the aud of a
	// logout token. It alone tells tenants apart that share an issuer by TenantClaim, since a logout token need not
	// have that claim: then each needs a client of its own, and a handler.
	ClientID string

	// Types are the typ of its logout tokens. Empty means "logout+jwt", or none. Providers that
	// are older than the final standard may need "JWT".
	Types []string

	// TokensHaveSID says that all tokens of the tenant have the claim sid. Then the logout of one
	// session revokes the tokens of that session, and leaves the user's other sessions alone.
	// Otherwise it revokes all tokens of the user, since those without sid could not be told apart.
	TokensHaveSID bool
}

// maxLogoutAge is how long a logout token may live, from iat to exp, and so how old a good one can
// be. OpenID Connect Back-Channel Logout 1.0, section 2.4, recommends two minutes.
const maxLogoutAge = 5 * time.Minute

// logoutEvent is the event of a logout token (section 2.4).
const logoutEvent = "http://schemas.openid.net/event/backchannel-logout"

// LogoutHandler returns a handler for OpenID Connect Back-Channel Logout 1.0. An OpenID provider
// posts a logout token to it, and the user's tokens end in every instance. It needs no client
// secret: the provider has signed the logout token.
//
// A logout token is good if it has a signature of the tenant's keys, the tenant's issuer, the
// client's ID in aud, the event of a back-channel logout, jti, iat and exp, sub or sid, and no nonce.
// It lives for five minutes at most. It is used once.
//
// Its sub revokes the tokens that were issued to this subject up to the logout: those with an iat up
// to that of the logout token, in whole seconds. Its sid revokes all tokens of this session, also
// those that come later. The session's entry stays until the last token has ended that could be
// issued before the logout: iat and the list's MaxTokenTTL. If both are written, the session may take the first half of
// the list's room alone.
//
// The answer is 200 once the list holds the revocation, 400 for a logout token that is not good, and
// 503 with Retry-After if the handler cannot tell or the list could not be written. Then the same
// logout token may come again.
//
// The error says what of cfg cannot be used. Two tenants cannot share an issuer.
func LogoutHandler(list *List, cfg LogoutConfig) (http.Handler, error) {
	if list == nil {
		return nil, errors.New("revocations: LogoutHandler: the list is nil")
	}
	return newLogout(list, list.cfg.MaxTokenTTL, cfg)
}

// Validate returns what of c [LogoutHandler] would refuse, or nil.
func (c LogoutConfig) Validate() error {
	_, err := newLogout(nil, 0, c)
	return err
}

// A logoutHandler answers to logout tokens.
type logoutHandler struct {
	list     revoker
	ttl      time.Duration // the longest that a token lives
	verifier *verifier.Verifier
	hasSID   map[string]bool // by tenant: LogoutTenant.TokensHaveSID
	used     once
	now      func() time.Time
	log      *slog.Logger
}

func newLogout(list revoker, ttl time.Duration, cfg LogoutConfig) (*logoutHandler, error) {
	h := &logoutHandler{list: list, ttl: ttl, now: cfg.Now, log: cfg.Logger, hasSID: make(map[string]bool)}
	if h.now == nil {
		h.now = time.Now
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if len(cfg.Tenants) == 0 {
		return nil, errors.New("revocations: LogoutConfig.Tenants is empty: name the tenants whose providers send logout tokens")
	}
	owners := make(map[string]string)
	var rules []verifier.Tenant
	for i := range cfg.Tenants {
		t := &cfg.Tenants[i]
		if err := t.check(owners); err != nil {
			return nil, err
		}
		rules = append(rules, t.rules())
		h.hasSID[t.Rules.ID] = t.TokensHaveSID
	}
	var err error
	h.verifier, err = verifier.New(verifier.Config{Tenants: rules, CacheTTL: -1, Now: h.now})
	if err != nil {
		return nil, fmt.Errorf("revocations: LogoutHandler: %w", err)
	}
	return h, nil
}

// check refuses a tenant whose logout tokens could not be told from others. owners has the tenants
// by issuer.
func (t *LogoutTenant) check(owners map[string]string) error {
	switch {
	case t.ClientID == "":
		return fmt.Errorf("revocations: LogoutTenant %q has no ClientID: without it a logout for any client of its provider would count", t.Rules.ID)
	case t.Rules.Issuer == "":
		return fmt.Errorf("revocations: LogoutTenant %q has no Issuer: the iss says whose logout token it is", t.Rules.ID)
	}
	for _, issuer := range append([]string{t.Rules.Issuer}, t.Rules.OtherIssuers...) {
		if other, ok := owners[issuer]; ok {
			return fmt.Errorf("revocations: LogoutTenants %q and %q share the issuer %q: a logout token does not say which one is meant; give each a handler and a ClientID of its own", other, t.Rules.ID, issuer)
		}
		owners[issuer] = t.Rules.ID
	}
	return nil
}

// rules returns the rules for the logout tokens of t (section 2.6).
func (t *LogoutTenant) rules() verifier.Tenant {
	types := t.Types
	if len(types) == 0 {
		types = []string{"logout+jwt", ""}
	}
	return verifier.Tenant{
		ID: t.Rules.ID, Keys: t.Rules.Keys, Algorithms: t.Rules.Algorithms, MixedFamilies: t.Rules.MixedFamilies,
		Issuer: t.Rules.Issuer, OtherIssuers: t.Rules.OtherIssuers, Leeway: t.Rules.Leeway, Tolerate: t.Rules.Tolerate,
		Audiences: []string{t.ClientID}, Types: slices.Clone(types),
		Required: []string{"iat", "exp", "jti", "events"}, Check: checkLogout,
	}
}

// logoutClaims are the claims of a logout token that a verifier does not check.
type logoutClaims struct {
	Events map[string]json.RawMessage `json:"events"`
	Nonce  json.RawMessage            `json:"nonce"`
	SID    string                     `json:"sid"`
}

// A logoutError names the fault of a logout token. It holds no text of the token.
type logoutError string

// Error implements the error interface.
func (e logoutError) Error() string { return string(e) }

// checkLogout checks the claims that make a token a logout token (section 2.6). An ID token of the same
// provider has the same issuer, audience and keys, and none of the events.
func checkLogout(t *verifier.Token) error {
	c, err := verifier.Claims[logoutClaims](t)
	if err != nil {
		return logoutError("events or sid is of the wrong type")
	}
	var members map[string]json.RawMessage
	event, ok := c.Events[logoutEvent]
	switch {
	case !ok:
		return logoutError("events lacks the event of a logout")
	case json.Unmarshal(event, &members) != nil || members == nil:
		return logoutError("the event of the logout is not a JSON object")
	case c.Nonce != nil:
		return logoutError("it has a nonce, as ID tokens do")
	case t.Subject() == "" && c.SID == "":
		return logoutError("it has neither sub nor sid")
	case t.ID() == "":
		return logoutError("its jti is empty")
	case t.Expires().Sub(t.IssuedAt()) > maxLogoutAge:
		return logoutError("it lives longer than five minutes")
	}
	return nil
}

// ServeHTTP implements [http.Handler].
func (h *logoutHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	setHeaders(w.Header())
	if !onlyPost(w, r) {
		return
	}
	form, bad := formReader{defaultMaxBody}.read(w, r)
	if bad == nil && form.Get("logout_token") == "" {
		bad = badRequest("the parameter logout_token is missing")
	}
	if bad != nil {
		refuse(w, r, bad.status, "invalid_request", bad.text)
		return
	}
	t, err := h.verifier.Verify(r.Context(), form.Get("logout_token"))
	switch {
	case errors.Is(err, verifier.ErrInvalid):
		h.logRefused(err)
		refuse(w, r, http.StatusBadRequest, "invalid_request", "the logout token is not accepted")
	case err != nil:
		h.log.Warn("a logout token cannot be checked now", "reason", reasonOf(err), "err", err)
		unavailable(w, r, "the logout token cannot be checked now")
	default:
		h.use(w, r, t)
	}
}

func (h *logoutHandler) logRefused(err error) {
	attrs := []any{"reason", reasonOf(err), "err", err}
	if why := logoutError(""); errors.As(err, &why) {
		attrs = append(attrs, "why", why.Error())
	}
	h.log.Warn("a logout token is refused", attrs...)
}

// use revokes what a good logout token names, once.
func (h *logoutHandler) use(w http.ResponseWriter, r *http.Request, t *verifier.Token) {
	key := tokenKey(t.Tenant(), t.ID())
	switch h.used.begin(h.now(), key) {
	case wasUsed:
		h.log.Warn("a logout token is refused", "reason", "replay", "tenant", t.Tenant())
		refuse(w, r, http.StatusBadRequest, "invalid_request", "the logout token was used before")
		return
	case inUse:
		unavailable(w, r, "the logout token is being used by another request")
		return
	}
	err := errors.New("the handler has panicked")
	defer func() { h.used.end(key, err == nil) }()
	ctx, cancel := context.WithTimeout(r.Context(), writeWithin)
	defer cancel()
	if err = h.revoke(ctx, t); err != nil {
		h.log.Error("a logout is not written", "tenant", t.Tenant(), "err", err)
		unavailable(w, r, "the logout could not be written")
		return
	}
	h.log.Info("a user is logged out", "tenant", t.Tenant())
	w.WriteHeader(http.StatusOK)
}

// revoke revokes the session or the subject of a logout token, or both. Both may be repeated.
func (h *logoutHandler) revoke(ctx context.Context, t *verifier.Token) error {
	c, err := verifier.Claims[logoutClaims](t)
	if err != nil {
		return err
	}
	before := logoutTime(t)
	ends := before.Add(h.ttl)
	switch {
	case t.Subject() == "" && !h.hasSID[t.Tenant()]:
		h.log.Warn("a logout names a session alone: tokens without sid go on; if all have it, say TokensHaveSID, else have the provider send sub", "tenant", t.Tenant())
		fallthrough
	case t.Subject() == "", c.SID != "" && h.hasSID[t.Tenant()]:
		_, err := h.list.RevokeSession(ctx, t.Tenant(), c.SID, ends)
		return err
	}
	if err := h.revokeSubject(ctx, t, before); err != nil || c.SID == "" {
		return err
	}
	_, err = h.list.revokeSpare(ctx, t.Tenant(), c.SID, ends)
	if errors.Is(err, ErrFull) { // the tokens up to the logout have ended, and the provider issues no others
		h.log.Warn("a session is not revoked besides its user", "tenant", t.Tenant(), "err", err)
		return nil
	}
	return err
}

func (h *logoutHandler) revokeSubject(ctx context.Context, t *verifier.Token, before time.Time) error {
	_, err := h.list.RevokeSubject(ctx, t.Tenant(), t.Subject(), before)
	future := new(futureError)
	if !errors.As(err, &future) {
		return err
	}
	// The provider's clock is ahead of the store's. What can be revoked now is, and the provider hears that the logout
	// is not complete.
	if _, err := h.list.RevokeSubject(ctx, t.Tenant(), t.Subject(), future.now); err != nil {
		return err
	}
	return fmt.Errorf("the provider's clock is ahead of the store's: tokens issued up to now are revoked: %w", err)
}

// logoutTime returns the end of the second of a logout token's iat. Providers round iat down, so a
// token that was issued earlier in that second has the same iat, and is to end too.
func logoutTime(t *verifier.Token) time.Time {
	return time.Unix(t.IssuedAt().Unix()+1, 0)
}
