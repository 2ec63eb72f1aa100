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

// A Token is a good token. Only a [Verifier] makes one. It is immutable and safe
// for concurrent use. Its methods return copies, which the caller may change.
//
// [Claims] decodes all claims into a type of the caller's. A Token prints as its
// tenant and key, never as its claims.
type Token struct{ h *handle }

// A handle hides a verified from package fmt. A struct that holds a Token in an
// unexported field prints without the Token's Format method, and a wrong verb such
// as %s makes fmt follow one pointer. It then finds the handle, and prints the
// address in it instead of the claims.
type handle struct{ of *verified }

func (t *Token) v() *verified { return t.h.of }

// A verified holds a good token: the claims that its Tokens return, and the facts
// that a cache hit checks again. It is immutable, except for the note in its marks.
type verified struct {
	// The fields that a cache hit reads come first.
	rules *rules        // of the token's tenant
	key   *keystore.Key // the key that signed the token

	// A hit needs verifiedAt <= now < notAfter, in the form of
	// [keystore.UnixNano]. If the clock steps back, the full check decides.
	verifiedAt, notAfter int64

	marks *Marks // of the verifier's Marker, or nil; they lie before the entry, in one allocation

	handle   handle
	cached   Token // for the callers of hits
	hasKID   bool
	twinName bool // the token's alg is the other name of the key's

	fresh Token // for the caller that had it verified

	payload                                   string
	iss, sub, aud, exp, iat, jti, sid, scopes span // of the payload
}

// A span is the place of a claim's text in the payload. It is empty for a missing
// claim.
type span struct{ at, end uint32 }

func (c claim) span() span { return span{uint32(c.at), uint32(c.at + len(c.text))} }

func (v *verified) text(s span) string { return v.payload[s.at:s.end] }

func (v *verified) str(s span) string {
	text := v.text(s)
	if s, ok := jwt.String(text); ok {
		return s
	}
	if jwt.Integer(text) { // sub or jti, tolerated
		return text
	}
	return ""
}

func (v *verified) date(s span) time.Time {
	t, _ := optionalDate(v.text(s))
	return t
}

// Tenant returns the ID of the token's tenant.
func (t *Token) Tenant() string { return t.v().rules.ID }

// Issuer returns "iss", or "".
func (t *Token) Issuer() string { return t.v().str(t.v().iss) }

// Subject returns "sub", or "". Subjects of different tenants may have the same
// name. For an integer, which [NumericSubject] lets in, it is the decimal text.
func (t *Token) Subject() string { return t.v().str(t.v().sub) }

// ID returns "jti", or "". For an integer, which [NumericSubject] lets in, it is the decimal
// text.
func (t *Token) ID() string { return t.v().str(t.v().jti) }

// SessionID returns "sid", or "" if it is missing or not a string. It names the session of the
// user at the issuer (OpenID Connect Back-Channel Logout 1.0, section 2.1).
func (t *Token) SessionID() string {
	s, _ := jwt.String(t.v().text(t.v().sid))
	return s
}

// KeyID returns the "kid" of the header, or "".
func (t *Token) KeyID() string {
	if !t.v().hasKID {
		return ""
	}
	return t.v().key.ID().KID
}

// Algorithm returns the "alg" of the header, by which the token was verified.
func (t *Token) Algorithm() keystore.Algorithm { return t.v().alg() }

func (v *verified) alg() keystore.Algorithm {
	switch alg := v.key.Algorithm(); {
	case !v.twinName:
		return alg
	case alg == keystore.EdDSA:
		return keystore.Ed25519
	}
	return keystore.EdDSA
}

// Expires returns "exp", or the zero Time if it is missing. The verifier accepts the
// token until then, and for the tenant's leeway after it.
func (t *Token) Expires() time.Time { return t.v().date(t.v().exp) }

// IssuedAt returns "iat", or the zero Time if it is missing.
func (t *Token) IssuedAt() time.Time { return t.v().date(t.v().iat) }

// Cached reports whether this verification was answered from the cache.
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

// Scopes returns the values of "scope", or of "scp" if "scope" is missing. The claim
// is a string of values with spaces between them (RFC 8693, section 4.2), or an
// array of such strings.
func (t *Token) Scopes() []string {
	text := t.v().text(t.v().scopes)
	if text == "" {
		return nil
	}
	list := make([]string, 0, 1+strings.Count(text, " ")+strings.Count(text, ",")) // or less
	for s := range t.EachScope {
		list = append(list, s)
	}
	if len(list) == 0 {
		return nil
	}
	return list
}

// HasScope reports whether scope is one of [Token.Scopes].
func (t *Token) HasScope(scope string) bool {
	for s := range t.EachScope {
		if s == scope {
			return true
		}
	}
	return false
}

// EachScope calls yield with each of [Token.Scopes] until it returns false, and makes no list of them.
// It is an [iter.Seq]: for scope := range token.EachScope.
func (t *Token) EachScope(yield func(scope string) bool) {
	scopes := t.v().text(t.v().scopes)
	if one, isOne := jwt.String(scopes); isOne {
		eachWord(one, yield)
		return
	}
	if !jwt.EachString(scopes, func(string) {}) {
		return // an array with an element of another type has no scopes
	}
	goesOn := true
	jwt.EachString(scopes, func(one string) { goesOn = goesOn && eachWord(one, yield) })
}

// eachWord calls yield with each of the words in text, which have spaces between them, until it
// returns false. It reports whether it never did.
func eachWord(text string, yield func(string) bool) bool {
	for text != "" {
		word, rest, _ := strings.Cut(text, " ")
		if word != "" && !yield(word) {
			return false
		}
		text = rest
	}
	return true
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

// Claims decodes the payload of t into a C, which is most often a struct with json
// tags. Names are compared byte for byte, and claims that C does not name are
// ignored: the rules are those of encoding/json/v2. Each call decodes again, so
// callers do not share memory.
//
// The error names the claim that does not fit, and never its value.
func Claims[C any](t *Token) (C, error) {
	var c C
	if t == nil || t.h == nil {
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

// FromContext returns the token that ctx carries, and whether it carries one.
func FromContext(ctx context.Context) (*Token, bool) {
	t, _ := ctx.Value(contextKey{}).(*Token)
	return t, t != nil
}
