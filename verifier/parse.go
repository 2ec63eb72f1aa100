package verifier

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/keyturn/keyturn/internal/jwt"
	"github.com/keyturn/keyturn/keystore"
)

// base64url is the encoding of RFC 7515, section 2. It refuses padding, and
// trailing bits that are not zero, so that a token has one spelling.
var base64url = base64.RawURLEncoding.Strict()

// A parsed token is well formed. No other rule has been applied to it.
type parsed struct {
	header
	claims claims

	signed []byte // the bytes that the signature is over, as received
	sig    []byte
	bare   bool // a part lacks the padding that its length asks for
}

// A header holds the parameters that have a rule.
type header struct {
	alg    keystore.Algorithm
	kid    string // "" if it is missing: an empty one is malformed
	typ    string
	hasTyp bool
	needs  needs // the tolerances without which every tenant refuses it
}

// claims are the claims that have a rule. The text of a missing one is empty.
type claims struct {
	payload                           string
	iss, sub, aud, exp, nbf, iat, jti claim
	sid, scope, scp                   claim
	misspelt                          string // the first name that differs from a registered one only by case
	odd                               bool   // a name that is not registered is odd
	all                               []jwt.Member
}

// A claim is the text of a value, and its place in the payload.
type claim struct {
	text string
	at   int
}

// A scratch is the working memory for reading one token. A pool reuses it.
type scratch struct {
	buf            []byte // a copy of the token, followed by its decoded parts
	header, claims jwt.Scanner
	parsed         parsed
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// maxKeptBytes is the largest buffer that goes back to the pool.
const maxKeptBytes = 64 << 10

// release erases the token from the scratch, and gives the scratch back to the
// pool.
func (s *scratch) release() {
	clear(s.buf)
	s.header.Forget()
	s.claims.Forget()
	s.parsed = parsed{}
	if cap(s.buf) <= maxKeptBytes && s.header.Small() && s.claims.Small() {
		scratches.Put(s)
	}
}

// The ways in which a token is not well formed.
var (
	errParts       = detail(ErrMalformed, "want three parts with two dots between them")
	errBase64      = detail(ErrMalformed, "a part is not base64url without padding")
	errHeaderJSON  = detail(ErrMalformed, "the header is not one strict JSON object")
	errPayloadJSON = detail(ErrMalformed, "the payload is not one strict JSON object")
	errHeaderAlg   = detail(ErrMalformed, `the header has no string "alg"`)
	errHeaderKID   = detail(ErrMalformed, fmt.Sprintf(`the header's "kid" is not a string of 1 to %d bytes`, keystore.MaxKIDBytes))
	errHeaderTyp   = detail(ErrMalformed, `the header's "typ" is not a string`)
	errHeaderFold  = detail(ErrMalformed, "the header has a parameter that differs from a standard one only by case")
	errHeaderEnc   = detail(ErrMalformed, `the header has "enc", which announces an encrypted token of five parts (RFC 7516)`)
)

// findDots returns the places of the two dots between the three parts of a token.
func findDots(token string) (first, second int, bad *Error) {
	first = strings.IndexByte(token, '.')
	second = first + 1 + strings.IndexByte(token[first+1:], '.')
	if first < 0 || second == first || strings.IndexByte(token[second+1:], '.') >= 0 {
		return 0, 0, refuse(errParts)
	}
	return first, second, nil
}

// parse reads a token whose dots are at first and second. known is its parsed
// header if an earlier token had the same, or nil. The result is valid until s is
// released. Its strings stay valid.
func (s *scratch) parse(token string, first, second int, known *header) (*parsed, *Error) {
	s.buf = append(slices.Grow(s.buf[:0], 2*len(token)), token...)
	p := &s.parsed
	padded := p.noteSpelling(s.buf[:first], s.buf[first+1:second], s.buf[second+1:])
	if padded && p.bare { // two spellings in one token
		return nil, refuse(errBase64)
	}
	if padded {
		p.needs = needPadding
	}
	var head []byte
	if known == nil {
		var ok bool
		if head, ok = s.decode(s.buf[:first]); !ok {
			return nil, refuse(errBase64)
		}
	}
	payload, ok := s.decode(s.buf[first+1 : second])
	if !ok {
		return nil, refuse(errBase64)
	}
	sig, ok := s.decode(s.buf[second+1 : len(token)])
	if !ok {
		return nil, refuse(errBase64)
	}
	p.signed, p.sig = s.buf[:second], sig

	if known != nil {
		p.header = *known
		p.needs &^= needPadding // of the parts of this token
		if padded {
			p.needs |= needPadding
		}
	} else if bad := s.parseHeader(string(head)); bad != nil {
		return nil, bad
	}
	text := string(payload)
	if !s.claims.Scan(text) {
		return nil, refuse(errPayloadJSON)
	}
	p.claims.read(text, s.claims.Members)
	return p, nil
}

func (s *scratch) parseHeader(text string) *Error {
	if !s.header.Scan(text) {
		return refuse(errHeaderJSON)
	}
	h := &s.parsed.header
	if err := h.readHeader(s.header.Members); err != nil {
		h.needs &= needPadding | needNull // zip and cty come later in the order of the rules
		return refuse(err)
	}
	// Errors and stores keep the kid, which would keep the whole header in memory.
	h.kid = strings.Clone(h.kid)
	return nil
}

// noteSpelling sets p.bare if one of the parts lacks the padding that its length asks for, and
// reports whether one has it.
func (p *parsed) noteSpelling(parts ...[]byte) (padded bool) {
	for _, part := range parts {
		padded = padded || len(part) > 0 && part[len(part)-1] == '='
		p.bare = p.bare || len(part)%4 != 0
	}
	return padded
}

// decode appends the decoded part to the buffer, which has room for it. It accepts a part with the
// padding of RFC 4648, section 3.2, which [parsed.noteSpelling] has noted.
func (s *scratch) decode(part []byte) (decoded []byte, ok bool) {
	if n := len(part); n > 0 && n%4 == 0 && part[n-1] == '=' {
		if part = part[:n-1]; part[n-2] == '=' {
			part = part[:n-2]
		}
	}
	start := len(s.buf)
	s.buf = s.buf[:start+base64url.DecodedLen(len(part))]
	decoded = s.buf[start:]
	n, err := base64url.Decode(decoded, part)
	// Even the strict decoder skips line ends. Then it decodes fewer bytes.
	return decoded, err == nil && n == len(decoded) && len(part)%4 != 1
}

// readHeader reads the parameters that have a rule (RFC 7515, section 4.1). It never
// reads the values of those that bring a key along: jwk, jku, x5u, x5c and x5t. What some tenant
// may tolerate it notes in h.needs.
func (h *header) readHeader(members []jwt.Member) error {
	r := headerReader{header: h}
	for _, m := range members {
		r.read(m.Name, m.Value)
	}
	switch {
	case !r.alg:
		return errHeaderAlg
	case r.badTyp:
		return errHeaderTyp
	case r.kid && (h.kid == "" || len(h.kid) > keystore.MaxKIDBytes):
		return errHeaderKID
	case r.enc:
		return errHeaderEnc
	case r.misspelt:
		return errHeaderFold
	case r.crit:
		return ErrCritical
	}
	return nil
}

// A headerReader notes what readHeader judges at the end, since the rules have another order than
// the members.
type headerReader struct {
	*header
	alg, kid, enc, crit, badTyp, misspelt bool
}

func (r *headerReader) read(name, value string) {
	switch name {
	case "alg":
		var text string
		text, r.alg = jwt.String(value)
		r.header.alg = keystore.Algorithm(text)
	case "kid":
		if r.kid = !r.isNull(value, needNull); r.kid {
			r.header.kid, _ = jwt.String(value)
		}
	case "typ":
		if r.hasTyp = !r.isNull(value, needNull); r.hasTyp {
			var ok bool
			r.typ, ok = jwt.String(value)
			r.badTyp = !ok
		}
	case "enc": // RFC 7516, section 4.1.2
		r.enc = !r.isNull(value, needNull)
	case "crit", "b64":
		r.crit = true // RFC 7515, section 4.1.11; RFC 7797. No tolerance: null counts as well
	case "zip": // RFC 7516, section 4.1.3
		if !r.isNull(value, needNullOrZip) {
			r.needs |= needZip
		}
	case "cty":
		if !r.isNull(value, needNullOrCty) {
			r.needs |= needCty
		}
	case "jwk", "jku", "x5u", "x5c", "x5t", "x5t#S256":
	default:
		r.misspelt = r.misspelt || jwt.FoldsToHeader(name)
	}
}

// isNull reports whether value is null, and notes what that needs.
func (r *headerReader) isNull(value string, need needs) bool {
	if value != null {
		return false
	}
	r.needs |= need
	return true
}

// read picks the members that have a rule.
func (c *claims) read(payload string, members []jwt.Member) {
	c.payload, c.all = payload, members
	for _, m := range members {
		switch m.Name {
		case "iss":
			c.iss = claim{m.Value, m.At}
		case "sub":
			c.sub = claim{m.Value, m.At}
		case "aud":
			c.aud = claim{m.Value, m.At}
		case "exp":
			c.exp = claim{m.Value, m.At}
		case "nbf":
			c.nbf = claim{m.Value, m.At}
		case "iat":
			c.iat = claim{m.Value, m.At}
		case "jti":
			c.jti = claim{m.Value, m.At}
		case "sid":
			c.sid = claim{m.Value, m.At}
		case "scope":
			c.scope = claim{m.Value, m.At}
		case "scp":
			c.scp = claim{m.Value, m.At}
		default:
			c.odd = c.odd || isOdd(m.Name)
			if c.misspelt == "" && jwt.FoldsToClaim(m.Name) != jwt.Unregistered {
				c.misspelt = m.Name
			}
		}
	}
}

// find returns the text of the value of the member with this name, or "".
func (c *claims) find(name string) string {
	for _, m := range c.all {
		if m.Name == name {
			return m.Value
		}
	}
	return ""
}
