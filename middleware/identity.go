package middleware

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/keyturn/keyturn/internal/fold"
	"github.com/keyturn/keyturn/internal/jwt"
	"github.com/keyturn/keyturn/verifier"
)

// ErrTooLarge reports a good token whose identity does not fit into headers (403): one header would
// be larger than 1 KiB, or all of them together than 3 KiB. Values are never cut: a shortened
// subject may be that of another user.
var ErrTooLarge = errors.New("middleware: identity_too_large: the token's identity does not fit into headers")

// The bounds of ErrTooLarge. A header counts with its name and four bytes more. nginx reads the
// headers of an answer into one buffer of 4 KiB by default, and answers 500 if they do not fit
// (kubernetes/ingress-nginx#2427, vouch/vouch-proxy#426).
const (
	maxIdentityHeader = 1 << 10
	maxIdentity       = 3 << 10
)

// An Identity says in which headers a service behind a proxy learns whose request it is. The proxy
// takes all such headers from the client's request ([Identity.Strip]), and sets its own
// ([Identity.Set]). They are, after the prefix:
//
//	Tenant      the token's tenant
//	Subject     sub
//	Scopes      the scopes, with one space between two
//	Expires     exp, in seconds since 1970
//	Token-Id    jti
//	Assertion   with Asserter only: a signed token with the same facts
//
// Claims adds more. Each header is there once, and is empty if the token has no such claim: a proxy
// in front may pass on the client's own header, or its own placeholder, if one is missing
// (Caddy GHSA-7r4p-vjf4-gxv4).
//
// Values are percent-encoded (RFC 3986, section 2.1): every byte outside 0x21 to 0x7E, and %, ", comma
// and backslash. So auth0|1 stays as it is, José becomes Jos%C3%A9, and a service gets the value back
// by decoding it. Each scope is encoded by itself.
//
// The zero Identity is ready to use. An Identity may be used by several goroutines.
type Identity struct {
	// Prefix begins the name of each header. It has ASCII letters, digits and hyphens, and ends with
	// a hyphen. Empty means "X-Auth-". A service must believe no other header that begins like it.
	Prefix string

	// Claims has more headers: the claim by the name after the prefix, as in {"Email": "email"}. The
	// name of a claim is that of [verifier.Token.HasAny]: dots reach into objects. A claim that is
	// not a string, number or boolean leaves its header empty.
	Claims map[string]string

	// Asserter signs the header Assertion with a key of AssertTenant. A service that verifies it with
	// the public keys of that tenant needs no trust in the network between the two. Nil means none.
	Asserter     Asserter
	AssertTenant string

	// AssertTTL is how long an assertion lives. It ends with the token if that is earlier. Zero means
	// one minute; the most is five.
	AssertTTL time.Duration

	// Now is the clock for assertions. Nil means [time.Now].
	Now func() time.Time
}

// An Asserter signs claims with a key of the tenant, and returns the token. A *rotation.Signer is
// one, which also adds iss, aud, iat and jti.
type Asserter interface {
	Sign(ctx context.Context, tenant string, claims any) (string, error)
}

const (
	defaultPrefix    = "X-Auth-"
	defaultAssertTTL = time.Minute
	maxAssertTTL     = 5 * time.Minute
)

// Validate returns why the configuration cannot be used, or nil.
func (id Identity) Validate() error {
	_, err := id.plan()
	return err
}

// Strip removes every header from h that a service could take for one of the identity's: those
// whose names begin with the prefix if upper and lower case are the same, and all characters that
// are neither letters nor digits. WSGI and CGI make one name of X-Auth-Subject and X_Auth_Subject
// (oauth2-proxy GHSA-vjrc-mh2v-45x6, Caddy GHSA-f59h-q822-g45g), and others do so with dots. It
// also removes such names from Connection and Trailer, with which a client could have a proxy drop
// what it has set (golang/go#50580).
//
// A proxy calls it for the headers of every request before it sets its own, and for
// [http.Request.Trailer]. It panics if the configuration cannot be used: see [Identity.Validate].
func (id Identity) Strip(h http.Header) {
	p, err := id.plan()
	if err != nil {
		panic(err.Error())
	}
	p.strip(h)
}

// Set strips h as [Identity.Strip] does, and sets all headers of t, each once. If it returns an
// error, it has set none, and the request must be refused: [Refuse] and [Status] take the error. It
// is [ErrTooLarge] (403), or wraps [verifier.ErrUnavailable] (503) if the Asserter fails, t is nil or
// the configuration cannot be used.
func (id Identity) Set(ctx context.Context, h http.Header, t *verifier.Token) error {
	p, err := id.plan()
	if err != nil {
		return fmt.Errorf("%w: %w", verifier.ErrUnavailable, err)
	}
	p.strip(h)
	return p.set(ctx, h, t)
}

// An identityPlan is an Identity that was checked, with the names of its headers.
type identityPlan struct {
	Identity
	folded string // the prefix
	names  []string
	claims []string // of the names after those that are always there
}

// The places of the headers in the plan's names. Those of Claims follow, and then the assertion.
const (
	tenantHeader = iota
	subjectHeader
	scopesHeader
	expiresHeader
	tokenIDHeader
	claimHeaders
)

var identityHeaders = [claimHeaders]string{"Tenant", "Subject", "Scopes", "Expires", "Token-Id"}

const assertionHeader = "Assertion"

// defaultPlan is that of the zero Identity, which most proxies use for every request.
var defaultPlan = &identityPlan{
	Identity: Identity{Prefix: defaultPrefix}, folded: "x-auth-",
	names: []string{"X-Auth-Tenant", "X-Auth-Subject", "X-Auth-Scopes", "X-Auth-Expires", "X-Auth-Token-Id"},
}

// plan checks id.
func (id Identity) plan() (*identityPlan, error) {
	if id.Prefix == "" && len(id.Claims) == 0 && id.Asserter == nil && id.AssertTenant == "" && id.AssertTTL == 0 {
		return defaultPlan, nil
	}
	if id.Prefix == "" {
		id.Prefix = defaultPrefix
	}
	if id.AssertTTL == 0 {
		id.AssertTTL = defaultAssertTTL
	}
	if id.Now == nil {
		id.Now = time.Now
	}
	if err := id.check(); err != nil {
		return nil, err
	}
	p := &identityPlan{Identity: id, folded: fold.Name(id.Prefix), names: make([]string, 0, claimHeaders+len(id.Claims)+1)}
	for _, name := range identityHeaders {
		p.names = append(p.names, http.CanonicalHeaderKey(id.Prefix+name))
	}
	for _, name := range slices.Sorted(maps.Keys(id.Claims)) {
		p.names = append(p.names, http.CanonicalHeaderKey(id.Prefix+name))
		p.claims = append(p.claims, id.Claims[name])
	}
	if id.Asserter != nil {
		p.names = append(p.names, http.CanonicalHeaderKey(id.Prefix+assertionHeader))
	}
	return p, nil
}

// foreignHeaders are headers of HTTP and of proxies that a prefix must not cover: Strip would remove them.
var foreignHeaders = []string{
	"accept-", "access-control-", "cache-", "cf-", "content-", "if-", "last-", "max-", "proxy-", "sec-", "set-", "transfer-", "user-",
	"www-", "x-envoy-", "x-forwarded-", "x-original-", "x-real-", "x-request-",
}

func (id Identity) check() error {
	prefix := strings.ToLower(id.Prefix)
	switch {
	case !isHeaderWord(prefix), !strings.HasSuffix(prefix, "-"), len(prefix) > 64, prefix[0] == '-':
		return fmt.Errorf("middleware: Identity.Prefix is %q: want letters, digits and hyphens, and a hyphen at the end, such as X-Auth-", id.Prefix)
	case slices.ContainsFunc(foreignHeaders, func(h string) bool { return strings.HasPrefix(h, prefix) || strings.HasPrefix(prefix, h) }):
		return fmt.Errorf("middleware: Identity.Prefix is %q, as other headers of HTTP and of proxies begin: want one of your own, such as X-Auth-", id.Prefix)
	case (id.Asserter == nil) != (id.AssertTenant == ""):
		return errors.New("middleware: Identity.Asserter and AssertTenant: give both or neither")
	case id.AssertTTL < time.Second, id.AssertTTL > maxAssertTTL:
		return fmt.Errorf("middleware: Identity.AssertTTL is %v: want 1s to %v", id.AssertTTL, maxAssertTTL)
	}
	return id.checkClaims()
}

// listClaims are claims that are never one text (RFC 7519, section 4.1.3; RFC 7800; RFC 8693; OpenID
// Connect Core; Keycloak): their headers would be empty for every token.
var listClaims = []string{"act", "address", "amr", "aud", "authorization_details", "cnf", "entitlements", "events", "groups", "may_act",
	"permissions", "realm_access", "resource_access", "roles", "scp"}

func (id Identity) checkClaims() error {
	const most = 16
	if len(id.Claims) > most {
		return fmt.Errorf("middleware: Identity.Claims has %d headers: want at most %d", len(id.Claims), most)
	}
	seen := make(map[string]string)
	for _, name := range append(identityHeaders[:], assertionHeader) {
		seen[fold.Name(name)] = "the header of every identity"
	}
	for _, name := range slices.Sorted(maps.Keys(id.Claims)) {
		claim := id.Claims[name]
		switch other := seen[fold.Name(name)]; {
		case !isHeaderWord(name), name[0] == '-', name[len(name)-1] == '-', len(name) > 64:
			return fmt.Errorf("middleware: Identity.Claims: %q is not the end of a header's name: want letters, digits and hyphens", name)
		case other != "":
			return fmt.Errorf("middleware: Identity.Claims: %q has the name of %s", name, other)
		case claim == "", len(claim) > 256:
			return fmt.Errorf("middleware: Identity.Claims: %q has no claim: want its name", name)
		case slices.Contains(listClaims, claim):
			return fmt.Errorf("middleware: Identity.Claims: %q: the claim %q is a list or an object, and a header holds one text", name, claim)
		}
		seen[fold.Name(name)] = strconv.Quote(name)
	}
	return nil
}

// isHeaderWord reports whether name has only letters, digits and hyphens. nginx drops headers with
// other characters, and Envoy may.
func isHeaderWord(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool { return r > '~' || r != '-' && !isAlphaNum(byte(r)) })
}

// owns reports whether name may be taken for that of a header of the identity.
func (p *identityPlan) owns(name string) bool { return fold.HasPrefix(name, p.folded) }

func (p *identityPlan) strip(h http.Header) {
	for name, values := range h {
		switch {
		case p.owns(name):
			delete(h, name)
		case strings.EqualFold(name, "Connection"), strings.EqualFold(name, "Trailer"):
			p.stripList(h, name, values)
		}
	}
}

// stripList removes the identity's names from the values of a header that lists names.
func (p *identityPlan) stripList(h http.Header, header string, values []string) {
	isOwn := func(name string) bool { return p.owns(strings.Trim(name, " \t")) }
	var kept []string
	for _, v := range values {
		if list := strings.Split(v, ","); slices.ContainsFunc(list, isOwn) {
			v = strings.Trim(strings.Join(slices.DeleteFunc(list, isOwn), ","), " \t")
		}
		if v != "" {
			kept = append(kept, v)
		}
	}
	if len(kept) == 0 {
		delete(h, header)
		return
	}
	h[header] = kept
}

// set sets the headers of t in h.
func (p *identityPlan) set(ctx context.Context, h http.Header, t *verifier.Token) error {
	values, err := p.values(ctx, t)
	if err != nil {
		return err
	}
	for i, name := range p.names {
		h[name] = values[i : i+1 : i+1]
	}
	return nil
}

// values returns the values of the headers, in the order of the names.
func (p *identityPlan) values(ctx context.Context, t *verifier.Token) ([]string, error) {
	if t == nil {
		return nil, fmt.Errorf("middleware: Identity: no token: %w", verifier.ErrUnavailable)
	}
	values := make([]string, len(p.names), len(p.names)+2) // ForwardAuth adds two
	values[tenantHeader] = encodeValue(t.Tenant())
	values[subjectHeader] = encodeValue(t.Subject())
	var space [256]byte // for the two values that are made for each request
	text := appendScopes(space[:0], t)
	scopes := len(text)
	if exp := t.Expires(); !exp.IsZero() {
		text = strconv.AppendInt(text, exp.Unix(), 10)
	}
	made := string(text)
	values[scopesHeader], values[expiresHeader] = made[:scopes], made[scopes:]
	values[tokenIDHeader] = encodeValue(t.ID())
	if len(p.claims) > 0 {
		payload, err := verifier.Claims[jsontext.Value](t)
		if err != nil {
			return nil, fmt.Errorf("middleware: Identity: %w: %w", verifier.ErrUnavailable, err)
		}
		for i, claim := range p.claims {
			values[claimHeaders+i] = encodeValue(claimText(jwt.Reach(string(payload), claim)))
		}
	}
	if p.Asserter == nil {
		return values, p.fits(values)
	}
	if err := p.fits(values); err != nil {
		return nil, err // before a signature is made for it
	}
	var err error
	if values[len(values)-1], err = p.assert(ctx, t); err != nil {
		return nil, err
	}
	return values, p.fits(values)
}

// fits returns ErrTooLarge if the headers are too large.
func (p *identityPlan) fits(values []string) error {
	total := 0
	for i, v := range values {
		n := len(p.names[i]) + len(": \r\n") + len(v)
		total += n
		if n > maxIdentityHeader {
			return ErrTooLarge
		}
	}
	if total > maxIdentity {
		return ErrTooLarge
	}
	return nil
}

// An assertion has the claims of the identity's own token. The signer adds the others.
type assertion struct {
	Tenant  string `json:"tenant"`
	Subject string `json:"sub,omitempty"`
	Expires int64  `json:"exp"`
}

// assert returns the signed token of the identity of t.
func (p *identityPlan) assert(ctx context.Context, t *verifier.Token) (string, error) {
	end := p.Now().Add(p.AssertTTL)
	if exp := t.Expires(); !exp.IsZero() && exp.Before(end) {
		end = exp
	}
	signed, err := p.Asserter.Sign(ctx, p.AssertTenant, assertion{t.Tenant(), t.Subject(), end.Unix()})
	if err == nil && !isRaw(signed) {
		err = errors.New("the Asserter returned no token")
	}
	if err != nil {
		// Only the text of err: a verdict in it would be one about another token than the client's.
		return "", fmt.Errorf("middleware: Identity: the assertion is not signed: %w: %v", verifier.ErrUnavailable, err)
	}
	return signed, nil
}

// claimText returns the text of a claim that is a string, a number or a boolean, or "". value is the
// claim's JSON.
func claimText(value string) string {
	if s, ok := jwt.String(value); ok {
		return s
	}
	if value == "" || value == "null" || value[0] == '{' || value[0] == '[' {
		return ""
	}
	return value
}

// appendScopes appends the scopes of t to b, each encoded by itself, with one space between two.
func appendScopes(b []byte, t *verifier.Token) []byte {
	begin := len(b)
	for s := range t.EachScope {
		if len(b) > begin {
			b = append(b, ' ')
		}
		b = appendValue(b, s)
	}
	return b
}

// encodeValue percent-encodes the bytes that some program on the way may not pass on as they are: it
// may cut at them, join two values with them, or read them as Latin-1.
func encodeValue(s string) string {
	if plainBytes(s) == len(s) {
		return s
	}
	return string(appendValue(make([]byte, 0, len(s)+16), s))
}

// appendValue appends s to b, encoded.
func appendValue(b []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	for s != "" {
		plain := plainBytes(s)
		if b = append(b, s[:plain]...); plain == len(s) {
			break
		}
		c := s[plain]
		b, s = append(b, '%', hex[c>>4], hex[c&15]), s[plain+1:]
	}
	return b
}

// plainBytes returns how many bytes at the start of s stay as they are.
func plainBytes(s string) int {
	for i := range len(s) {
		if !isPlainByte(s[i]) {
			return i
		}
	}
	return len(s)
}

func isPlainByte(c byte) bool {
	return 0x21 <= c && c <= 0x7E && c != '%' && c != '"' && c != ',' && c != '\\'
}
