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

// found is the set of registered claims that a payload has (RFC 7519, section 4.1), and its exp.
type found struct {
	set      uint8     // 1 << c for each claim c
	exp      time.Time // in whole seconds, rounded down
	fraction bool      // exp may have been more
}

func (f found) contains(c jwt.Claim) bool { return f.set&(1<<c) != 0 }

// add notes a claim. The value is one that the claim accepts.
func (f *found) add(c jwt.Claim, value []byte) {
	f.set |= 1 << c
	if c == jwt.Exp {
		f.exp, _ = jwt.NumericDate(string(value))
		f.exp = f.exp.Truncate(time.Second)
		f.fraction = bytes.ContainsAny(value, ".eE")
	}
}

var errNotObject = errors.New("want a JSON object")

// readClaims returns the registered claims of object, each of which must be of its type. claim is the
// one that is not. object is a JSON text as an encoder writes it: see [jwt.Members].
func readClaims(object []byte) (has found, claim string, err error) {
	if len(object) == 0 || object[0] != '{' {
		return found{}, "", errNotObject
	}
	for name, value := range jwt.Members(object) {
		if c := jwt.FoldsToClaim(string(name)); c != jwt.Unregistered {
			return found{}, "", fmt.Errorf("claim %s differs from %q only by case, and no keyturn verifier accepts that", quote(nil, string(name)), c)
		}
		c := jwt.ClaimNamed(string(name))
		if !c.Accepts(value) {
			return found{}, c.String(), fmt.Errorf("claim %q must be %s (RFC 7519, section 4.1)", c, wantOf(c))
		}
		if c != jwt.Unregistered {
			has.add(c, value)
		}
	}
	return has, "", nil
}

// setPlain encodes claims whose values are of the types that most have, without the library that
// knows all types: that takes twice as long. It returns false, and has done nothing that counts, if
// it meets another type, or a mistake that readClaims explains.
func (b *Buffer) setPlain(claims map[string]any) bool {
	b.has = found{}
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
		if !c.Accepts(p[start:]) || jwt.FoldsToClaim(name) != jwt.Unregistered {
			return false
		}
		if c != jwt.Unregistered {
			b.has.add(c, p[start:])
		}
	}
	b.payload = append(p, '}')
	return true
}

var errNotPlain = errors.New("not plain")

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

// wantOf says which values claim c accepts.
func wantOf(c jwt.Claim) string {
	switch c {
	case jwt.Exp, jwt.Nbf, jwt.Iat:
		return "a number of seconds from 0 to 2^53, as time.Time.Unix returns it"
	case jwt.Aud:
		return "a string or an array of strings"
	}
	return "a string"
}
