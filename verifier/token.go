package verifier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/keyturn/keyturn/keystore"
)

// A Token is a token that was found good; only a [Verifier] makes one. It is
// immutable, and safe for concurrent use. What its methods return is the
// caller's to change.
//
// A Token prints as its tenant and key, never as its claims.
type Token struct {
	tenant  string
	kid     string
	alg     keystore.Algorithm
	payload string

	iss, sub, jti string
	exp, iat      time.Time // zero where the claim is absent
	aud, scopes   string    // JSON texts, "" where absent

	cached bool
}

// newToken returns the Token of what has been found good for r.
func newToken(r *rules, p *parsed) *Token {
	c := &p.claims
	t := &Token{tenant: r.ID, kid: p.kid, alg: p.alg, payload: c.payload, aud: c.aud, scopes: c.scp}
	t.iss, _ = stringOf(c.iss)
	t.sub, _ = stringOf(c.sub)
	t.jti, _ = stringOf(c.jti)
	if c.exp != "" {
		t.exp, _ = date(c.exp)
	}
	if c.iat != "" {
		t.iat, _ = date(c.iat)
	}
	if c.scope != "" {
		t.scopes = c.scope
	}
	return t
}

// Tenant returns the ID of the tenant whose token it is.
func (t *Token) Tenant() string { return t.tenant }

// Issuer returns "iss", or "".
func (t *Token) Issuer() string { return t.iss }

// Subject returns "sub", or "". It names somebody only within the tenant.
func (t *Token) Subject() string { return t.sub }

// ID returns "jti", or "".
func (t *Token) ID() string { return t.jti }

// KeyID returns the "kid" of the header, or "".
func (t *Token) KeyID() string { return t.kid }

// Algorithm returns the algorithm that the token is signed with.
func (t *Token) Algorithm() keystore.Algorithm { return t.alg }

// Expires returns "exp", or the zero Time for a token without. The token is
// accepted until then, and for the tenant's leeway beyond.
func (t *Token) Expires() time.Time { return t.exp }

// IssuedAt returns "iat", or the zero Time.
func (t *Token) IssuedAt() time.Time { return t.iat }

// Cached reports whether this verification was answered from memory.
func (t *Token) Cached() bool { return t.cached }

// Audience returns the values of "aud".
func (t *Token) Audience() []string {
	var list []string
	eachString(t.aud, func(s string) { list = append(list, s) })
	return list
}

// HasAudience reports whether aud is one of the values of "aud".
func (t *Token) HasAudience(aud string) bool {
	found := false
	eachString(t.aud, func(s string) { found = found || s == aud })
	return found
}

// Scopes returns the values of "scope", a string with spaces between them (RFC
// 8693, section 4.2), or of "scp" if there is no "scope": the like, or an array.
func (t *Token) Scopes() []string {
	var list []string
	t.eachScope(func(s string) { list = append(list, s) })
	return list
}

// HasScope reports whether scope is one of [Token.Scopes].
func (t *Token) HasScope(scope string) bool {
	found := false
	t.eachScope(func(s string) { found = found || s == scope })
	return found
}

func (t *Token) eachScope(yield func(string)) {
	if !eachString(t.scopes, func(string) {}) {
		return // one element of another kind spoils the list
	}
	eachString(t.scopes, func(list string) {
		for s := range strings.SplitSeq(list, " ") {
			if s != "" {
				yield(s)
			}
		}
	})
}

// String names the token's tenant and key, such as
// `token of "acme", key "2026-11" (ES256)`.
func (t *Token) String() string {
	if t == nil {
		return "token <nil>"
	}
	return "token of " + strconv.Quote(t.tenant) + ", key " + strconv.Quote(t.kid) + " (" + string(t.alg) + ")"
}

// Format implements [fmt.Formatter]: every verb prints what [Token.String] does.
func (t *Token) Format(f fmt.State, _ rune) { io.WriteString(f, t.String()) }

// Claims decodes the payload of t into a C, afresh at each call, so that what
// one caller does to it no other sees. C is most often a struct with json tags;
// names are compared byte for byte, and claims that C does not name are
// ignored. The rules are those of encoding/json/v2.
//
// The error names the claim that does not fit, and never its value.
func Claims[C any](t *Token) (C, error) {
	var c C
	if t == nil {
		return c, errors.New("verifier: no token to take claims from")
	}
	err := json.Unmarshal([]byte(t.payload), &c)
	if err == nil {
		return c, nil
	}
	var zero C
	where := ""
	// The decoder's own text quotes the input.
	if e := (*json.SemanticError)(nil); errors.As(err, &e) {
		for name := range e.JSONPointer.Tokens() {
			where = ": claim " + strconv.Quote(name)
			break
		}
	}
	return zero, fmt.Errorf("verifier: the claims do not fit %T%s", zero, where)
}

type contextKey struct{}

// NewContext returns a context that carries t.
func NewContext(ctx context.Context, t *Token) context.Context {
	return context.WithValue(ctx, contextKey{}, t)
}

// FromContext returns the token that ctx carries, and whether there is one.
func FromContext(ctx context.Context) (*Token, bool) {
	t, _ := ctx.Value(contextKey{}).(*Token)
	return t, t != nil
}
