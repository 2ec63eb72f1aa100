package middleware

import (
	"net/http"
	"net/url"
	"strings"
)

// A requestError is ErrRequest, with a text for the client. The text is fixed, and
// needs no escape in a quoted-string.
type requestError struct{ text string }

func (e *requestError) Error() string { return ErrRequest.Error() + ": " + e.text }
func (e *requestError) Unwrap() error { return ErrRequest }

var (
	errHeaders   = &requestError{"more than one Authorization header"}
	errHeader    = &requestError{"the Authorization header is not the word Bearer, one space and a token"}
	errCookies   = &requestError{"more than one cookie with a token"}
	errCookie    = &requestError{"the cookie does not hold a token"}
	errQueries   = &requestError{"more than one query parameter with a token"}
	errQuery     = &requestError{"the query parameter does not hold a token"}
	errTwoPlaces = &requestError{"a token in more than one place"}
)

// A credential is the only token of a request. It is not verified yet.
type credential struct {
	token    string
	inHeader bool
	inQuery  bool
}

// find returns the token that r carries. The error is ErrNoToken itself if r carries
// no token, and ErrRequest if the token is malformed or there are two. A client must
// not use more than one method (RFC 6750, section 2). If we picked one of two tokens,
// a proxy before us might have picked the other.
func (g *guard) find(r *http.Request) (credential, error) {
	c, err := fromHeader(r.Header["Authorization"])
	if err != nil && err != ErrNoToken {
		return credential{}, err
	}
	if g.cookie != "" {
		token, err := fromCookies(r.Header["Cookie"], g.cookie)
		if err := c.add(credential{token: token}, err); err != nil {
			return credential{}, err
		}
	}
	if g.query != "" {
		token, err := fromQuery(r.URL, g.query)
		if err := c.add(credential{token: token, inQuery: true}, err); err != nil {
			return credential{}, err
		}
	}
	if c.token == "" {
		return credential{}, ErrNoToken
	}
	return c, nil
}

// add adds the result of another place in the request.
func (c *credential) add(other credential, err error) error {
	switch {
	case err == ErrNoToken:
		return nil
	case err != nil:
		return err
	case c.token != "":
		return errTwoPlaces
	}
	*c = other
	return nil
}

func fromHeader(values []string) (credential, error) {
	switch len(values) {
	case 0:
		return credential{}, ErrNoToken
	case 1:
		token, err := bearer(values[0])
		return credential{token: token, inHeader: true}, err
	}
	return credential{}, errHeaders // Header.Get would hide the second
}

// bearer returns the token in the value of an Authorization header (RFC 6750, section
// 2.1). It compares the scheme without regard to case (RFC 9110, section 11.1).
// Another scheme counts as no token. Bearer must be followed by one space and one
// token.
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
	token, ok := strings.CutPrefix(value[n:], " ")
	if !ok || token == "" {
		return "", errHeader
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
	case !isB64Token(value):
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
	if err != nil || !isB64Token(token) {
		return "", errQuery
	}
	return token, nil
}

// refused returns the error for a token that the verifier refused with err. If the
// header does not hold a token at all, the header is malformed.
func (c credential) refused(err error) error {
	if c.inHeader && !isB64Token(c.token) {
		return errHeader
	}
	return err
}

// isB64Token reports whether s is a b64token (RFC 6750, section 2.1), the
// token68 of RFC 9110, section 11.2.
func isB64Token(s string) bool {
	s = strings.TrimRight(s, "=")
	for i := range len(s) {
		switch c := s[i]; {
		case isAlphaNum(c), c == '-', c == '.', c == '_', c == '~', c == '+', c == '/':
		default:
			return false
		}
	}
	return s != ""
}

// isTokenChar reports whether c is a tchar (RFC 9110, section 5.6.2). The name of a
// scheme consists of them.
func isTokenChar(c byte) bool {
	return isAlphaNum(c) || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

func isAlphaNum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}
