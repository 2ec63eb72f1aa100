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

	"github.com/keyturn/keyturn/internal/jwt"
	"github.com/keyturn/keyturn/keystore"
)

// A Token is a token that was found good; only a [Verifier] makes one. It is
// immutable, and safe for concurrent use. What its methods return is the
// caller's to change.
//
// A Token prints as its tenant and key, never as its claims.
type Token struct{ h *handle }

// A handle leads to what is kept. Package fmt follows one pointer of an
// unexported field, where it can call no method, if the verb is a wrong one, as
// %s is: it then finds another pointer here, and prints its address.
type handle struct{ of *verified }

func (t *Token) v() *verified { return t.h.of }

// A verified is what is kept of a good token: all that its Tokens tell, and what
// has to be looked at again when it is presented again. It never changes.
type verified struct {
	// What a hit looks at comes first.
	rules *rules        // of the tenant whose it is
	key   *keystore.Key // that signed it

	// In Unix nanoseconds, clamped. It is good from verifiedAt until before
	// notAfter; an earlier moment is for the full check to judge.
	verifiedAt, notAfter int64

	handle        handle
	fresh, cached Token // for who had it verified, and for those after

	payload                              string
	iss, sub, aud, exp, iat, jti, scopes span // of the payload
	hasKID                               bool
}

// A span is where a claim's text lies in the payload: nowhere if it is empty.
type span struct{ at, end uint32 }

func (c claim) span() span { return span{uint32(c.at), uint32(c.at + len(c.text))} }

func (v *verified) text(s span) string { return v.payload[s.at:s.end] }

func (v *verified) str(s span) string {
	text, _ := jwt.String(v.text(s))
	return text
}

func (v *verified) date(s span) time.Time {
	t, _ := optionalDate(v.text(s))
	return t
}

// Tenant returns the ID of the tenant whose token it is.
func (t *Token) Tenant() string { return t.v().rules.ID }

// Issuer returns "iss", or "".
func (t *Token) Issuer() string { return t.v().str(t.v().iss) }

// Subject returns "sub", or "". It names somebody only within the tenant.
func (t *Token) Subject() string { return t.v().str(t.v().sub) }

// ID returns "jti", or "".
func (t *Token) ID() string { return t.v().str(t.v().jti) }

// KeyID returns the "kid" of the header, or "".
func (t *Token) KeyID() string {
	if !t.v().hasKID {
		return ""
	}
	return t.v().key.ID().KID
}

// Algorithm returns the algorithm that the token is signed with.
func (t *Token) Algorithm() keystore.Algorithm { return t.v().key.Algorithm() }

// Expires returns "exp", or the zero Time for a token without. The token is
// accepted until then, and for the tenant's leeway beyond.
func (t *Token) Expires() time.Time { return t.v().date(t.v().exp) }

// IssuedAt returns "iat", or the zero Time.
func (t *Token) IssuedAt() time.Time { return t.v().date(t.v().iat) }

// Cached reports whether this verification was answered from memory.
func (t *Token) Cached() bool { return t == &t.v().cached }

// Audience returns the values of "aud".
func (t *Token) Audience() []string {
	var list []string
	jwt.EachString(t.v().text(t.v().aud), func(s string) { list = append(list, s) })
	return list
}

// HasAudience reports whether aud is one of the values of "aud".
func (t *Token) HasAudience(aud string) bool {
	found := false
	jwt.EachString(t.v().text(t.v().aud), func(s string) { found = found || s == aud })
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
	scopes := t.v().text(t.v().scopes)
	if !jwt.EachString(scopes, func(string) {}) {
		return // one element of another kind spoils the list
	}
	jwt.EachString(scopes, func(list string) {
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
	if t == nil || t.h == nil {
		return "token <nil>"
	}
	return "token of " + strconv.Quote(t.Tenant()) + ", key " + strconv.Quote(t.KeyID()) + " (" + string(t.Algorithm()) + ")"
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
	err := json.Unmarshal([]byte(t.v().payload), &c)
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
