package middleware

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/keyturn/keyturn/verifier"
)

// A requestError is ErrRequest, with a text for the client. The text is fixed, and
// needs no escape in a quoted-string.
type requestError struct{ text string }

func (e *requestError) Error() string { return ErrRequest.Error() + ": " + e.text }
func (e *requestError) Unwrap() error { return ErrRequest }

var (
	errHeaders   = &requestError{"more than one Authorization header"}
	errHeader    = &requestError{"the Authorization header is not the word Bearer, a space and a token"}
	errNamed     = &requestError{"the header for the token does not hold a token"}
	errNamedMore = &requestError{"more than one header with a token"}
	errFunc      = &requestError{"the request holds a malformed token"}
	errCookies   = &requestError{"more than one cookie with a token"}
	errCookie    = &requestError{"the cookie does not hold a token"}
	errQueries   = &requestError{"more than one query parameter with a token"}
	errQuery     = &requestError{"the query parameter does not hold a token"}
	errTwoPlaces = &requestError{"different tokens in more than one place"}
)

// A credential is the only token of a request. It is not verified yet.
type credential struct {
	token           string
	inAuthorization bool
	inQuery         bool
}

// A tokenPlace is a part of a request, beside the Authorization header, that may hold a
// token.
type tokenPlace struct {
	option string // that names the place
	find   func(*http.Request) (token string, err error)
}

// find returns the token that r carries. The error is ErrNoToken itself if r carries
// no token, and ErrRequest if the token is malformed or there are two. A client must
// not use more than one method (RFC 6750, section 2). If we picked one of two tokens,
// a proxy before us might have picked the other. The same token in two places leaves no
// choice, and some gateways copy it: it counts as one.
func (g *guard) find(r *http.Request) (c credential, err error) {
	if !g.noAuthorization {
		c, err = fromAuthorization(r.Header["Authorization"])
		if err != nil && err != ErrNoToken {
			return credential{}, err
		}
	}
	for i := range g.places {
		token, err := g.places[i].find(r)
		if err := c.add(token, err); err != nil {
			return credential{}, err
		}
	}
	if g.query != "" {
		token, err := fromQuery(r.URL, g.query)
		if err := c.add(token, err); err != nil {
			return credential{}, err
		}
		c.inQuery = token != ""
	}
	if c.token == "" {
		return credential{}, ErrNoToken
	}
	return c, nil
}

// add adds the result of another place in the request.
func (c *credential) add(token string, err error) error {
	switch {
	case err == ErrNoToken:
		return nil
	case err != nil:
		return err
	case c.token != "" && c.token != token:
		return errTwoPlaces
	}
	c.token = token
	return nil
}

func fromAuthorization(values []string) (credential, error) {
	switch len(values) {
	case 0:
		return credential{}, ErrNoToken
	case 1:
		token, err := bearer(values[0])
		return credential{token: token, inAuthorization: err == nil}, err // else another place may hold it
	}
	return credential{}, errHeaders // Header.Get would hide the second
}

// bearer returns the token in the value of an Authorization header (RFC 6750, section
// 2.1). It compares the scheme without regard to case (RFC 9110, section 11.1).
// Another scheme counts as no token. Bearer must be followed by spaces, of which the
// grammar allows any number but no tab, and one token.
//
// It does not check the characters of the token. A good token has only those of a
// b64token, and checking them would cost more than the look-up in the cache. So
// credential.refused checks them, after the verifier has refused the token.
func bearer(value string) (string, error) {
	const scheme = "bearer"
	n := 0
	for n < len(value) && n <= len(scheme) && isTokenChar(value[n]) {
		n++
	}
	// EqualFold also equates some letters outside ASCII, but value[:n] has none.
	if n != len(scheme) || !strings.EqualFold(value[:n], scheme) {
		return "", ErrNoToken
	}
	token := strings.TrimLeft(value[n:], " ")
	if token == "" || value[n] != ' ' {
		return "", errHeader
	}
	return token, nil
}

// fromNamed returns the token in the values of a header that holds nothing else.
func fromNamed(values []string) (string, error) {
	switch {
	case len(values) > 1:
		return "", errNamedMore // a gateway may have set one, and its client the other
	case len(values) == 0 || values[0] == "":
		return "", ErrNoToken
	case !isRaw(values[0]):
		return "", errNamed
	}
	return values[0], nil
}

// fromFunc returns the token that the function of FromFunc has found.
func fromFunc(token string) (string, error) {
	switch {
	case token == "":
		return "", ErrNoToken
	case !isRaw(token):
		return "", errFunc
	}
	return token, nil
}

// fromCookies parses the Cookie headers itself. The parser of net/http skips
// malformed pairs, and would hide a second cookie of the same name.
func fromCookies(lines []string, name string) (string, error) {
	value, n := "", 0
	for _, line := range lines {
		for pair := range strings.SplitSeq(line, ";") {
			if key, v, _ := strings.Cut(strings.Trim(pair, " \t"), "="); strings.TrimRight(key, " \t") == name {
				value = v
				n++
			}
		}
	}
	switch {
	case n > 1:
		return "", errCookies
	case value == "":
		return "", ErrNoToken // a sign-out may leave an empty cookie
	case !isRaw(value):
		return "", errCookie
	}
	return value, nil
}

// fromQuery parses the query itself. The parser of net/url skips malformed pairs, and
// would hide a second parameter of the same name. A proxy before us may split at
// semicolons, as HTML 4 advised, so fromQuery does too.
func fromQuery(u *url.URL, name string) (string, error) {
	value, n := "", 0
	for pair := range strings.FieldsFuncSeq(u.RawQuery, func(r rune) bool { return r == '&' || r == ';' }) {
		key, v, _ := strings.Cut(pair, "=")
		if unescaped, err := url.QueryUnescape(key); err == nil {
			key = unescaped
		}
		if key == name {
			value = v
			n++
		}
	}
	if n == 0 {
		return "", ErrNoToken
	}
	if n > 1 {
		return "", errQueries
	}
	token, err := url.QueryUnescape(value)
	if err != nil || !isRaw(token) {
		return "", errQuery
	}
	return token, nil
}

// refused returns the error for a token that the verifier refused with err. If the
// Authorization header does not hold a token at all, the header is malformed. A token
// with padding within is one where the verifier could read it: see
// [verifier.ErrMalformed].
func (c credential) refused(err error) error {
	if !c.inAuthorization || isB64Token(c.token) || isRaw(c.token) && !errors.Is(err, verifier.ErrMalformed) {
		return err
	}
	return errHeader
}

// isRaw reports whether s may be a token that comes without a scheme. Each of its parts
// may have padding: AWS load balancers send such tokens in x-amzn-oidc-data.
func isRaw(s string) bool {
	return strings.Trim(s, "=") != "" && !strings.ContainsFunc(s, func(r rune) bool { return r != '=' && !isB64Char(r) })
}

// isB64Token reports whether s is a b64token (RFC 6750, section 2.1), the
// token68 of RFC 9110, section 11.2.
func isB64Token(s string) bool {
	s = strings.TrimRight(s, "=")
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !isB64Char(r) })
}

func isB64Char(r rune) bool {
	return r < utf8.RuneSelf && (isAlphaNum(byte(r)) || strings.IndexByte("-._~+/", byte(r)) >= 0)
}

// isTokenChar reports whether c is a tchar (RFC 9110, section 5.6.2). The name of a
// scheme consists of them.
func isTokenChar(c byte) bool {
	return isAlphaNum(c) || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

func isAlphaNum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}
