package rotation

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/internal/token"
	"github.com/keyturn/keyturn/rotation/ring"
)

// SignerConfig says what a [Signer] puts into tokens. The zero value is useful.
type SignerConfig struct {
	// TTL is how long a token lives whose claims do not say: 0 means 15m, or the
	// ring's MaxTokenTTL if that is less. At least 1s.
	TTL time.Duration

	// Issuer returns a tenant's "iss", or "" for none. The default gives none.
	// It must be safe for concurrent use, as must Audience.
	Issuer func(tenant string) string

	// Audience returns a tenant's "aud", or nothing for none. The default gives
	// none.
	Audience func(tenant string) []string

	// Type is the "typ" header: the default is "JWT". Access tokens in the form
	// of RFC 9068 have "at+jwt".
	Type string

	// Now reports the wall clock's time. The default is [time.Now], or for
	// [NewSigner] the keyring's.
	Now func() time.Time
}

const defaultTTL = 15 * time.Minute

// A Signer makes tokens. It is safe for concurrent use.
type Signer struct {
	cfg  SignerConfig
	key  *token.Key // of one tenant, or nil:
	ring *Keyring

	headed *sync.Map // tenant -> headed: the key that signed last
}

// headed is a ring's key with the header of its tokens.
type headed struct {
	record *sealedRecord
	key    *token.Key
}

// NewSigner returns a Signer for the tenants whose rings k holds. It signs with the key
// that the ring says. Besides the errors about claims, its Sign reports an error that wraps
// [ErrFenced] when the last good sync of k is older than SignFor, and [ErrNoSigner] when no
// key of the ring signs now: other instances might reject the token. Neither is the
// caller's fault: answer 503.
func NewSigner(k *Keyring, cfg SignerConfig) (*Signer, error) {
	if k == nil {
		return nil, &ring.Error{Text: "NewSigner needs a Keyring"}
	}
	if cfg.Now == nil {
		cfg.Now = k.cfg.Now
	}
	cfg, err := cfg.withDefaults(0)
	if err != nil {
		return nil, err
	}
	return &Signer{ring: k, cfg: cfg, headed: new(sync.Map)}, nil
}

func (cfg SignerConfig) withDefaults(ttl time.Duration) (SignerConfig, error) {
	switch {
	case cfg.TTL == 0:
		cfg.TTL = ttl
	case cfg.TTL < time.Second:
		return cfg, &ring.Error{Text: fmt.Sprintf("SignerConfig.TTL is %v, want at least 1s: dates in tokens are whole seconds", cfg.TTL)}
	}
	if cfg.Type == "" {
		cfg.Type = "JWT"
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return cfg, nil
}

// NewStaticSigner returns a Signer for id.Tenant that signs with one key: a
// []byte for HS*, else a [crypto.Signer] such as *rsa.PrivateKey,
// *ecdsa.PrivateKey or ed25519.PrivateKey. It refuses keys that
// [keystore.NewSecret] and [keystore.NewPublic] refuse, so that what it signs
// can be verified. A token carries id.KID as its kid, or none if that is empty.
func NewStaticSigner(id keystore.ID, alg keystore.Algorithm, key any, cfg SignerConfig) (*Signer, error) {
	cfg, err := cfg.withDefaults(defaultTTL)
	if err != nil {
		return nil, err
	}
	k, err := token.NewKey(id, alg, key, cfg.Type)
	if bad := new(token.UnfitError); errors.As(err, &bad) {
		return nil, &ring.Error{Text: bad.Text}
	}
	if err != nil {
		return nil, err
	}
	return &Signer{key: k, cfg: cfg}, nil
}

// Sign returns a token of tenant with claims: a struct, a map, a
// [jsontext.Value] or any other value that encodes to a JSON object under the rules of
// encoding/json/v2; nil for none. Where the claims do not say, it sets iat to
// now, exp to now and the TTL, jti to 128 random bits, and iss and aud to the
// tenant's.
//
// It reports an error that wraps [keystore.ErrNotFound] if there is no key for
// tenant, and one that names the claim if a registered claim is not of its type
// (RFC 7519, section 4.1), since no verifier would accept the token. Errors hold no
// claim's value.
func (s *Signer) Sign(ctx context.Context, tenant string, claims any) (string, error) {
	signed, _, err := s.sign(ctx, tenant, claims)
	return signed, err
}

// sign is Sign, and returns the token's exp.
func (s *Signer) sign(ctx context.Context, tenant string, claims any) (signed string, exp time.Time, err error) {
	if err := ctx.Err(); err != nil {
		return "", exp, err
	}
	// One reading of the clock decides everything, so no pause can come between the
	// choice of the key and the times in the token.
	now := s.cfg.Now()
	key, ttl, most, err := s.at(tenant, now)
	if err != nil {
		return "", exp, err
	}
	b := token.NewBuffer()
	defer b.Release()
	if err := setClaims(b, claims); err != nil {
		return "", exp, err
	}
	d := token.Defaults{Now: now, TTL: ttl}
	if s.cfg.Issuer != nil && !b.HasIssuer() {
		d.Issuer = s.cfg.Issuer(tenant)
	}
	if s.cfg.Audience != nil && !b.HasAudience() {
		d.Audience = s.cfg.Audience(tenant)
	}
	b.AddDefaults(d)
	if err := checkExp(tenant, b.LastSecond(), now, most); err != nil {
		return "", exp, err
	}
	if signed, err = b.Sign(key); err != nil {
		return "", exp, &ring.Error{Text: fmt.Sprintf("the key of %v cannot sign", key.ID), Err: err}
	}
	return signed, b.Exp(), nil
}

// setClaims puts claims into b.
func setClaims(b *token.Buffer, claims any) error {
	claim, err := b.SetClaims(claims)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, token.ErrNotJSON):
		return &ClaimsError{Type: fmt.Sprintf("%T", claims)}
	}
	return &ClaimsError{Type: fmt.Sprintf("%T", claims), Claim: claim, Err: err}
}

// at returns the key that signs for tenant at now, how long a token lives, and how long it may live
// at most: 0 for no bound.
func (s *Signer) at(tenant string, now time.Time) (key *token.Key, ttl, most time.Duration, err error) {
	if s.ring == nil {
		if tenant != s.key.ID.Tenant {
			return nil, 0, 0, &ring.Error{Text: fmt.Sprintf("no key to sign with for tenant %q", tenant), Err: keystore.ErrNotFound}
		}
		return s.key, s.cfg.TTL, 0, nil
	}
	h, r, err := s.ring.signingKey(tenant, now)
	if err != nil {
		return nil, 0, 0, err
	}
	if key, err = s.withHeader(tenant, h, r); err != nil {
		return nil, 0, 0, &ring.Error{Text: fmt.Sprintf("tenant %q: the key that signs now cannot be opened", tenant), Err: err}
	}
	most = r.Timing.MaxTokenTTL
	ttl = s.cfg.TTL
	if ttl == 0 {
		ttl = min(defaultTTL, most)
	}
	return key, ttl, most, nil
}

// withHeader returns r's key with the header of its tokens, opened once for as long
// as it signs.
func (s *Signer) withHeader(tenant string, h *ringCopy, r *sealedRecord) (*token.Key, error) {
	if last, ok := s.headed.Load(tenant); ok && last.(*headed).record == r {
		return last.(*headed).key, nil
	}
	opened, err := h.open(s.ring.cfg.KEKs.sealing(), r)
	if err != nil {
		return nil, err
	}
	key, err := token.NewKey(r.TokenID(), r.Algorithm, opened.Private(), s.cfg.Type)
	if err != nil {
		return nil, err
	}
	s.headed.Store(tenant, &headed{r, key})
	return key, nil
}

// checkExp refuses a token that would outlive its key. RFC 7519 has no such rule: a key is kept for
// its MaxTokenTTL after it has retired, and no longer. exp is the second in which the token ends.
func checkExp(tenant string, exp, now time.Time, most time.Duration) error {
	if most == 0 || !exp.After(now.Add(most)) {
		return nil
	}
	return &ring.RefusedError{Tenant: tenant, MaxTokenTTL: most,
		Reason: fmt.Sprintf("the token would live for longer than the ring's MaxTokenTTL, %v: shorten its exp, or SignerConfig.TTL", most)}
}

// A Source makes tokens of one tenant with the same claims, for a client that
// needs a live one at all times: it is a middleware.TokenSource. It is safe for
// concurrent use.
type Source struct {
	signer *Signer
	tenant string
	claims any
}

// Source returns a Source of tokens as [Signer.Sign] makes them. claims must not
// be changed afterwards.
func (s *Signer) Source(tenant string, claims any) *Source {
	return &Source{signer: s, tenant: tenant, claims: claims}
}

// Token returns a new token, and its exp.
func (s *Source) Token(ctx context.Context) (text string, expires time.Time, err error) {
	return s.signer.sign(ctx, s.tenant, s.claims)
}
