package token

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/keyturn/keyturn/internal/jwt"
)

// A claimSet says which registered claims a payload has (RFC 7519, section 4.1), and its exp.
type claimSet struct {
	set      uint8     // 1 << c for each claim c
	exp      time.Time // in whole seconds, rounded down
	fraction bool      // exp may be later by a fraction of a second
}

// contains reports whether the payload has claim c.
func (s claimSet) contains(c jwt.Claim) bool { return s.set&(1<<c) != 0 }

// add adds the registered claim c, and reports whether value is of its type.
func (s *claimSet) add(c jwt.Claim, value []byte) bool {
	s.set |= 1 << c
	if c != jwt.Exp {
		return c.Accepts(value)
	}
	exp, ok := jwt.NumericDate(string(value))
	s.exp = exp.Truncate(time.Second)
	s.fraction = bytes.ContainsAny(value, ".eE")
	return ok
}

var errNotObject = errors.New("want a JSON object")

// readClaims returns the registered claims of object, each of which must be of its type. If one is
// not, claim names it. object is a JSON text as an encoder writes it: see [jwt.Members].
//
// A name that differs from a registered one only by case is refused. Some verifiers would take it
// for the registered claim, and keyturn's refuse the token.
func readClaims(object []byte) (has claimSet, claim string, err error) {
	if len(object) == 0 || object[0] != '{' {
		return claimSet{}, "", errNotObject
	}
	for name, value := range jwt.Members(object) {
		c := jwt.ClaimNamed(string(name))
		if c == jwt.Unregistered {
			if c := jwt.FoldsToClaim(string(name)); c != jwt.Unregistered {
				return claimSet{}, "", fmt.Errorf("claim %s differs from %q only by case, and no keyturn verifier accepts that", quote(nil, string(name)), c)
			}
			continue
		}
		if !has.add(c, value) {
			return claimSet{}, c.String(), fmt.Errorf("claim %q must be %s (RFC 7519, section 4.1)", c, wanted(c))
		}
	}
	return has, "", nil
}

// setPlain is SetClaims for claims with values of the usual types. It takes half the time of the
// general encoder. It returns false if a value is of another type, or is wrong: then the caller
// starts again with the general encoder and readClaims, which names the mistake.
func (b *Buffer) setPlain(claims map[string]any) bool {
	b.has = claimSet{}
	p := append(b.payload[:0], '{')
	for name, value := range claims {
		if len(p) > 1 {
			p = append(p, ',')
		}
		var err error
		if p, err = jsontext.AppendQuote(p, name); err != nil {
			return false
		}
		p = append(p, ':')
		start := len(p)
		if p, err = appendPlain(p, value); err != nil {
			return false
		}
		c := jwt.ClaimNamed(name)
		if c == jwt.Unregistered && jwt.FoldsToClaim(name) != jwt.Unregistered {
			return false
		}
		if c != jwt.Unregistered && !b.has.add(c, p[start:]) {
			return false
		}
	}
	b.payload = append(p, '}')
	return true
}

var errNotPlain = errors.New("not plain")

// appendPlain appends value as JSON, or returns an error if it is not of a usual type. A float64
// that is a whole number is written without an exponent, as the general encoder does up to 2^53.
func appendPlain(dst []byte, value any) ([]byte, error) {
	switch v := value.(type) {
	case string:
		return jsontext.AppendQuote(dst, v)
	case bool:
		return strconv.AppendBool(dst, v), nil
	case int:
		return strconv.AppendInt(dst, int64(v), 10), nil
	case int64:
		return strconv.AppendInt(dst, v, 10), nil
	case float64:
		if whole := int64(v); float64(whole) == v && -1<<53 < whole && whole < 1<<53 {
			return strconv.AppendInt(dst, whole, 10), nil
		}
	case []string:
		dst = append(dst, '[')
		for i, s := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			var err error
			if dst, err = jsontext.AppendQuote(dst, s); err != nil {
				return dst, err
			}
		}
		return append(dst, ']'), nil
	}
	return dst, errNotPlain
}

// wanted says in words which values claim c accepts.
func wanted(c jwt.Claim) string {
	switch c {
	case jwt.Exp, jwt.Nbf, jwt.Iat:
		return "a number of seconds from 0 to 2^53, as time.Time.Unix returns it"
	case jwt.Aud:
		return "a string or an array of strings"
	}
	return "a string"
}
