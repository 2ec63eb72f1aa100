package verifier

import (
	"encoding/base64"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/keyturn/keyturn/keystore"
)

// base64url is the alphabet of RFC 7515, section 2: no padding, and no bits set
// that belong to no byte, so that a token has one spelling.
var base64url = base64.RawURLEncoding.Strict()

// A parsed token is well formed (rules 1 to 5): nothing else is known of it.
type parsed struct {
	header
	claims claims

	signed []byte // the bytes that the signature is over, as received
	sig    []byte
}

// A header is what the rules need of a header.
type header struct {
	alg    keystore.Algorithm
	kid    string // "" if there is none: an empty one is malformed
	typ    string
	hasTyp bool
}

// claims are the values that have a rule, each with an empty text where there is
// none.
type claims struct {
	payload                           string
	iss, sub, aud, exp, nbf, iat, jti claim
	scope, scp                        claim
	folds                             string // a name that folds to a registered one
	all                               []member
}

// A claim is the text of a value, and where it lies in the payload.
type claim struct {
	text string
	at   int
}

// A scratch is the room that reading a token takes, reused for the next.
type scratch struct {
	buf            []byte // a copy of the token, then its parts decoded
	header, claims scanner
	parsed         parsed
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// maxKeptBytes is the largest buffer that waits for another token.
const maxKeptBytes = 64 << 10

// release makes the scratch forget the token and gives its room back.
func (s *scratch) release() {
	clear(s.buf)
	s.header.forget()
	s.claims.forget()
	s.parsed = parsed{}
	if cap(s.buf) <= maxKeptBytes && s.header.small() && s.claims.small() {
		scratches.Put(s)
	}
}

// What is wrong with the form of a token.
var (
	errParts        = detail(ErrMalformed, "want three parts with two dots between them")
	errBase64       = detail(ErrMalformed, "a part is not base64url without padding")
	errHeaderJSON   = detail(ErrMalformed, "the header is not one strict JSON object")
	errPayloadJSON  = detail(ErrMalformed, "the payload is not one strict JSON object")
	errHeaderAlg    = detail(ErrMalformed, `the header has no string "alg"`)
	errHeaderKID    = detail(ErrMalformed, fmt.Sprintf(`the header's "kid" is not a string of 1 to %d bytes`, keystore.MaxKIDBytes))
	errHeaderTyp    = detail(ErrMalformed, `the header's "typ" is not a string`)
	errHeaderFold   = detail(ErrMalformed, "the header has a parameter that differs from a standard one only by case")
	errHeaderNested = detail(ErrType, `the header has "cty": nested tokens are not accepted`)
)

// parts finds where a token falls into its three parts: at its two dots.
func parts(token string) (first, second int, bad *Error) {
	first = strings.IndexByte(token, '.')
	second = first + 1 + strings.IndexByte(token[first+1:], '.')
	if first < 0 || second == first || strings.IndexByte(token[second+1:], '.') >= 0 {
		return 0, 0, refuse(errParts)
	}
	return first, second, nil
}

// parse reads a token whose dots are at first and second (rules 2 to 5 of the
// package comment). known is what its header says, if that is known. What it
// returns is valid until s is released, but for strings, which are the caller's.
func (s *scratch) parse(token string, first, second int, known *header) (*parsed, *Error) {
	s.buf = append(slices.Grow(s.buf[:0], 2*len(token)), token...)
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
	p := &s.parsed
	p.signed, p.sig = s.buf[:second], sig

	if known != nil {
		p.header = *known
	} else if bad := s.parseHeader(string(head)); bad != nil {
		return nil, bad
	}
	text := string(payload)
	if !s.claims.scan(text) {
		return nil, refuse(errPayloadJSON)
	}
	p.claims.read(text, s.claims.members)
	return p, nil
}

func (s *scratch) parseHeader(text string) *Error {
	if !s.header.scan(text) {
		return refuse(errHeaderJSON)
	}
	if err := s.parsed.readHeader(s.header.members); err != nil {
		return refuse(err)
	}
	return nil
}

// decode appends to the buffer, which has room, what part stands for.
func (s *scratch) decode(part []byte) (decoded []byte, ok bool) {
	start := len(s.buf)
	s.buf = s.buf[:start+base64url.DecodedLen(len(part))]
	decoded = s.buf[start:]
	n, err := base64url.Decode(decoded, part)
	// The decoder skips line ends, strict or not: then it decodes fewer bytes.
	return decoded, err == nil && n == len(decoded) && len(part)%4 != 1
}

// readHeader takes what it knows from the header (RFC 7515, section 4.1; rule 3).
// Parameters that bring a key along (jwk, jku, x5u, x5c, x5t) are never read.
func (h *header) readHeader(members []member) error {
	var alg, kid, crit, cty, folds bool
	for _, m := range members {
		switch m.name {
		case "alg":
			var text string
			text, alg = stringOf(m.value)
			h.alg = keystore.Algorithm(text)
		case "kid":
			kid = true
			h.kid, _ = stringOf(m.value)
		case "typ":
			h.hasTyp = true
			var ok bool
			if h.typ, ok = stringOf(m.value); !ok {
				return errHeaderTyp
			}
		case "crit", "b64", "zip":
			crit = true // RFC 7515, section 4.1.11; RFC 7797; RFC 7516, section 4.1.3
		case "cty":
			cty = true
		case "jwk", "jku", "x5u", "x5c", "x5t", "x5t#S256":
		default:
			folds = folds || foldsTo(m.name, headerNames)
		}
	}
	switch {
	case !alg:
		return errHeaderAlg
	case kid && (h.kid == "" || len(h.kid) > keystore.MaxKIDBytes):
		return errHeaderKID
	case folds:
		return errHeaderFold
	case crit:
		return ErrCritical
	case cty:
		return errHeaderNested
	}
	return nil
}

// read takes the members that have a rule.
func (c *claims) read(payload string, members []member) {
	c.payload, c.all = payload, members
	for _, m := range members {
		switch m.name {
		case "iss":
			c.iss = claim{m.value, m.at}
		case "sub":
			c.sub = claim{m.value, m.at}
		case "aud":
			c.aud = claim{m.value, m.at}
		case "exp":
			c.exp = claim{m.value, m.at}
		case "nbf":
			c.nbf = claim{m.value, m.at}
		case "iat":
			c.iat = claim{m.value, m.at}
		case "jti":
			c.jti = claim{m.value, m.at}
		case "scope":
			c.scope = claim{m.value, m.at}
		case "scp":
			c.scp = claim{m.value, m.at}
		default:
			if c.folds == "" && foldsTo(m.name, claimNames) {
				c.folds = m.name
			}
		}
	}
}

// find returns the text of the named member's value, or "".
func (c *claims) find(name string) string {
	for _, m := range c.all {
		if m.name == name {
			return m.value
		}
	}
	return ""
}

// Names that must not come in another spelling: a reader that folds case, as
// encoding/json does, would take EXP for exp.
var (
	headerNames = []string{"alg", "jku", "jwk", "kid", "x5u", "x5c", "x5t", "x5t#S256", "typ", "cty", "crit", "b64", "zip"}
	claimNames  = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti"} // RFC 7519, section 4.1
)

// foldsTo reports whether name, which is none of names, equals one of them under
// Unicode's simple case folding: ſ is an s, and the Kelvin sign a k.
func foldsTo(name string, names []string) bool {
	if len(name) < 3 || len(name) > 10 || !strings.ContainsFunc(name, mayFold) {
		return false
	}
	for _, n := range names {
		if strings.EqualFold(name, n) {
			return true
		}
	}
	return false
}

// mayFold reports whether a name with r may fold to a name that it is not: those
// of claims have nothing but lower case letters, and one parameter has a #.
func mayFold(r rune) bool { return 'A' <= r && r <= 'Z' || r >= utf8.RuneSelf || r == '#' }

// maxDate is 2^53: from there on, float64 has no odd numbers.
const maxDate = 1 << 53

// date reads a NumericDate (RFC 7519, section 2): a JSON number of seconds since
// 1970, with or without a fraction, at least 0 and below 2^53.
func date(value string) (t time.Time, ok bool) {
	if len(value) <= 15 {
		var s int64
		plain := true
		for i := range len(value) {
			d := value[i] - '0'
			if d > 9 {
				plain = false
				break
			}
			s = 10*s + int64(d)
		}
		if plain {
			return time.Unix(s, 0), value != ""
		}
	}
	if c := value[0]; c != '-' && (c < '0' || c > '9') {
		return time.Time{}, false
	}
	f, err := strconv.ParseFloat(value, 64)
	if err != nil || f < 0 || f >= maxDate {
		return time.Time{}, false
	}
	whole, frac := math.Modf(f)
	return time.Unix(int64(whole), int64(frac*1e9)), true
}
