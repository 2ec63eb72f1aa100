package rotation

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/internal/held"
	"github.com/keyturn/keyturn/rotation/internal/token"
	"github.com/keyturn/keyturn/rotation/ring"
)

// SignerConfig says what a [Signer] puts into tokens. The zero value makes tokens of 15 minutes
// without iss and aud; a verifier usually wants both.
type SignerConfig struct {
	// TTL is how long a token lives whose claims have no exp, at least 1s. The default (0) is 15m,
	// or the ring's MaxTokenTTL if that is less.
	TTL time.Duration

	// Issuer returns a tenant's "iss", or "" for none. It is called for each token whose claims
	// have none, and must be fast and safe for concurrent use. The default gives none.
	Issuer func(tenant string) string

	// Audience returns a tenant's "aud", or nothing for none. It is called as Issuer is. The
	// default gives none.
	Audience func(tenant string) []string

	// Type is the "typ" header. The default is "JWT". Access tokens in the form of RFC 9068 have
	// "at+jwt".
	Type string

	// Now reports the wall clock's time. It must be safe for concurrent use. The default is the
	// keyring's Now for [NewSigner], and [time.Now] for [NewStaticSigner].
	Now func() time.Time

	// Observe, if it is not nil, receives a [SignEvent] for every call of Sign whose context had not
	// ended before, on the goroutine of the call. It must be fast and safe for concurrent use.
	Observe func(context.Context, SignEvent)
}

// A SignEvent describes one call of [Signer.Sign].
type SignEvent struct {
	Tenant  string // as the caller named it: there may be no such tenant
	Outcome SignOutcome
}

// A SignOutcome says how a call of [Signer.Sign] ended, in a form for metrics.
type SignOutcome string

// The outcomes of a call of [Signer.Sign].
const (
	Signed       SignOutcome = "signed"
	SignFenced   SignOutcome = "fenced"    // ErrFenced: this instance must not sign, others may
	SignNoSigner SignOutcome = "no_signer" // ErrNoSigner: no instance signs
	SignFailed   SignOutcome = "failed"    // any other error, such as claims that are refused
)

// outcomeOf returns the outcome of a call of Sign that returned err.
func outcomeOf(err error) SignOutcome {
	switch {
	case err == nil:
		return Signed
	case errors.Is(err, ErrFenced):
		return SignFenced
	case errors.Is(err, ErrNoSigner):
		return SignNoSigner
	}
	return SignFailed
}

// defaultTTL is the TTL where neither claims, Config nor ring say less.
const defaultTTL = 15 * time.Minute

// A Signer makes tokens, each a JWS in compact form (RFC 7515, section 3.1) with the claims of a
// JWT. It is safe for concurrent use, and never waits for the network. [NewSigner] and
// [NewStaticSigner] make one.
type Signer struct {
	cfg  SignerConfig
	key  *token.Key // of a static signer; otherwise nil
	ring *Keyring   // of the others; nil for a static signer

	opened *sync.Map // tenant -> *openedKey: the key that signed last
}

// An openedKey is a ring's private key with the header of its tokens.
type openedKey struct {
	record *held.Record
	key    *token.Key
}

// NewSigner returns a Signer for the tenants whose rings k holds. It signs with the key that the
// ring says, so it follows every rotation. Besides the errors of [Signer.Sign] about claims, its
// Sign reports
//
//   - [ErrFenced] if this instance has been out of sync for longer than SignFor, and must not sign,
//   - [ErrNoSigner] if no key of the ring signs now,
//   - a [*RefusedError] if the token would live longer than the ring's MaxTokenTTL,
//   - [keystore.ErrNotFound] if k does not hold the tenant's ring.
//
// The first two are not the client's fault: answer 503.
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
	k.rings.Signs.Store(true)
	return &Signer{ring: k, cfg: cfg, opened: new(sync.Map)}, nil
}

// withDefaults returns cfg with its defaults, with ttl for a TTL of 0.
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

// NewStaticSigner returns a Signer for id.Tenant that signs with one key and knows no rotation. key
// is a []byte for HS*, otherwise a [crypto.Signer] such as *rsa.PrivateKey, *ecdsa.PrivateKey or
// ed25519.PrivateKey. It refuses keys that [keystore.NewSecret] and [keystore.NewPublic] refuse, so
// that every token can be verified. A token carries id.KID as its kid, or none if that is empty.
// Errors never hold key material.
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

// Sign returns a token of tenant with claims: a struct, a map, a jsontext.Value or any other
// value that encodes to a JSON object under the rules of encoding/json/v2; nil for none. It adds
// the claims that are missing: iat is now, exp is now plus the TTL, jti is 128 random bits, and iss
// and aud are the tenant's. Times are whole seconds (RFC 7519, section 2: NumericDate).
//
// The error wraps [keystore.ErrNotFound] if there is no key for tenant. It is a [*ClaimsError] if
// claims do not encode, or a registered claim is not of its type (RFC 7519, section 4.1), because
// no verifier would accept the token. See [NewSigner] for the errors of rings. Errors hold no
// claim's value. If ctx has ended, Sign returns its error; otherwise ctx is not used.
func (s *Signer) Sign(ctx context.Context, tenant string, claims any) (string, error) {
	signed, _, err := s.sign(ctx, tenant, claims)
	return signed, err
}

// sign is [Signer.Sign], and returns the token's exp too.
func (s *Signer) sign(ctx context.Context, tenant string, claims any) (signed string, exp time.Time, err error) {
	if err := ctx.Err(); err != nil {
		return "", exp, err
	}
	signed, exp, err = s.signNow(tenant, claims)
	if s.cfg.Observe != nil {
		s.cfg.Observe(ctx, SignEvent{Tenant: tenant, Outcome: outcomeOf(err)})
	}
	return signed, exp, err
}

// signNow is sign for a context that has not ended, and tells Observe nothing.
func (s *Signer) signNow(tenant string, claims any) (signed string, exp time.Time, err error) {
	// One reading of the clock decides about the fence, the key, iat and exp. So a pause of any
	// length between two of these steps cannot make a token that other instances reject.
	now := s.cfg.Now()
	key, ttl, most, err := s.keyAt(tenant, now)
	if err != nil {
		return "", exp, err
	}
	b := token.NewBuffer()
	defer b.Release()
	if err := setClaims(b, claims); err != nil {
		return "", exp, err
	}
	b.AddDefaults(s.defaults(b, tenant, now, ttl))
	if err := checkExp(tenant, b.LastSecond(), now, most); err != nil {
		return "", exp, err
	}
	if signed, err = b.Sign(key); err != nil {
		return "", exp, &ring.Error{Text: fmt.Sprintf("the key of %v cannot sign", key.ID), Err: err}
	}
	return signed, b.Exp(), nil
}

// setClaims puts claims into b. Its error is a [*ClaimsError].
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

// defaults returns what b's claims do not say. It calls Issuer and Audience only if they are needed.
func (s *Signer) defaults(b *token.Buffer, tenant string, now time.Time, ttl time.Duration) token.Defaults {
	d := token.Defaults{Now: now, TTL: ttl}
	if s.cfg.Issuer != nil && !b.HasIssuer() {
		d.Issuer = s.cfg.Issuer(tenant)
	}
	if s.cfg.Audience != nil && !b.HasAudience() {
		d.Audience = s.cfg.Audience(tenant)
	}
	return d
}

// keyAt returns the key that signs for tenant at now, how long a token lives whose claims do not
// say, and how long a token may live: 0 means that there is no limit.
func (s *Signer) keyAt(tenant string, now time.Time) (key *token.Key, ttl, most time.Duration, err error) {
	if s.ring == nil {
		if tenant != s.key.ID.Tenant {
			return nil, 0, 0, &ring.Error{Text: fmt.Sprintf("no key to sign with for tenant %q", tenant), Err: keystore.ErrNotFound}
		}
		return s.key, s.cfg.TTL, 0, nil
	}
	c, r, err := s.ring.signingKey(tenant, now)
	if err != nil {
		if !errors.Is(err, ErrFenced) {
			s.opened.Delete(tenant) // its ring was removed or destroyed, or no key signs any more
		}
		return nil, 0, 0, err
	}
	if key, err = s.openKey(tenant, c, r); err != nil {
		return nil, 0, 0, &ring.Error{Text: fmt.Sprintf("tenant %q: the key that signs now cannot be opened", tenant), Err: err}
	}
	most = r.TokenTTL()
	ttl = s.cfg.TTL
	if ttl == 0 {
		ttl = min(defaultTTL, most)
	}
	return key, ttl, most, nil
}

// openKey returns r's private key with the header of its tokens. It opens a key with its first
// token, and keeps it until the tenant's next key signs. Two goroutines may open the same key at
// once, which does no harm.
func (s *Signer) openKey(tenant string, c *held.Ring, r *held.Record) (*token.Key, error) {
	if last, ok := s.opened.Load(tenant); ok && last.(*openedKey).record == r {
		return last.(*openedKey).key, nil
	}
	opened, err := c.OpenRecord(s.ring.keks.Load(), r)
	if err != nil {
		return nil, err
	}
	key, err := token.NewKey(r.TokenID(), r.Algorithm, opened.Private(), s.cfg.Type)
	if err != nil {
		return nil, err
	}
	s.opened.Store(tenant, &openedKey{r, key})
	return key, nil
}

// checkExp refuses a token that would outlive its key. RFC 7519 has no such rule, but a key is kept
// for only its MaxTokenTTL after it has retired. exp is the second in which the token ends.
func checkExp(tenant string, exp, now time.Time, most time.Duration) error {
	if most == 0 || !exp.After(now.Add(most)) {
		return nil
	}
	return &ring.RefusedError{Tenant: tenant, MaxTokenTTL: most,
		Reason: fmt.Sprintf("the token would live for longer than the ring's MaxTokenTTL, %v: shorten its exp, or SignerConfig.TTL", most)}
}

// A Source makes tokens of one tenant with the same claims, for a client that always needs a live
// one: it is a middleware.TokenSource. It is safe for concurrent use. [Signer.Source] makes one.
type Source struct {
	signer *Signer
	tenant string
	claims any
}

// Source returns a Source of tokens as [Signer.Sign] makes them. claims must not be changed
// afterwards.
func (s *Signer) Source(tenant string, claims any) *Source {
	return &Source{signer: s, tenant: tenant, claims: claims}
}

// Token returns a new token and its exp. Its errors are those of [Signer.Sign].
func (s *Source) Token(ctx context.Context) (text string, expires time.Time, err error) {
	return s.signer.sign(ctx, s.tenant, s.claims)
}
