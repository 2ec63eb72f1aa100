package rotation

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// found is which registered claims there are (RFC 7519, section 4.1), and what
// the one is that we need.
type found struct {
	set      uint8
	exp      int64 // in whole seconds, rounded down
	fraction bool  // exp may have been more
}

var registered = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti"}

// indexOf returns the index of name in registered, or -1.
func indexOf(name string) int {
	switch name {
	case "iss":
		return 0
	case "sub":
		return 1
	case "aud":
		return 2
	case "exp":
		return 3
	case "nbf":
		return 4
	case "iat":
		return 5
	case "jti":
		return 6
	}
	return -1
}

func (f found) contains(name string) bool { return f.set&(1<<indexOf(name)) != 0 }

// add notes the i-th of the registered claims.
func (f *found) add(i int, value []byte) {
	f.set |= 1 << i
	if registered[i] == "exp" {
		f.exp, _ = seconds(value)
		f.fraction = bytes.ContainsAny(value, ".eE")
	}
}

// seconds reads a date that is a number, rounding down, and reports whether it is
// one that a verifier takes.
func seconds(number []byte) (s int64, ok bool) {
	if len(number) <= 15 { // below 2^53
		for i, c := range number {
			if c < '0' || c > '9' {
				break
			}
			if s = 10*s + int64(c-'0'); i == len(number)-1 {
				return s, true
			}
		}
	}
	f, err := strconv.ParseFloat(string(number), 64)
	return int64(f), err == nil && 0 <= f && f < 1<<53
}

// readClaims returns the registered claims of object, each of which must be of
// its type, and the one that is not. object is a JSON text as an encoder makes it: valid, without white
// space, and with no name twice.
func readClaims(object []byte) (has found, claim string, err error) {
	if len(object) == 0 || object[0] != '{' {
		return found{}, "", errNotObject
	}
	for rest := object[1:]; rest[0] == '"'; {
		quoted := rest[:valueLen(rest)]
		rest = rest[len(quoted)+1:] // behind the colon
		value := jsontext.Value(rest[:valueLen(rest)])
		if rest = rest[len(value):]; rest[0] == ',' {
			rest = rest[1:]
		}
		i, exact := registeredName(quoted)
		switch {
		case i < 0:
			continue
		case !exact:
			return found{}, "", fmt.Errorf("claim %s differs from %q only by case, and no keyturn verifier accepts that", quoted, registered[i])
		case !fits(registered[i], value):
			return found{}, registered[i], fmt.Errorf("claim %q must be %s (RFC 7519, section 4.1)", registered[i], wantOf(registered[i]))
		}
		has.add(i, value)
	}
	return has, "", nil
}

// setPlain encodes claims whose values are of the types that most have, without
// the library that knows all types: that takes twice as long. It returns false,
// and has done nothing that counts, if it meets another type, or anything odd
// that the library had better name.
func (b *buffer) setPlain(claims map[string]any) bool {
	b.has = found{}
	p := append(b.payload[:0], '{')
	for name, value := range claims {
		if len(p) > 1 {
			p = append(p, ',')
		}
		start := len(p)
		var err error
		if p, err = jsontext.AppendQuote(p, name); err != nil {
			return false
		}
		i, exact := registeredName(p[start:])
		p = append(p, ':')
		start = len(p)
		if p, err = appendPlain(p, value); err != nil {
			return false
		}
		if i >= 0 {
			if !exact || !fits(registered[i], jsontext.Value(p[start:])) {
				return false
			}
			b.has.add(i, p[start:])
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

// registeredName returns the index of the registered claim that a name folds to,
// or -1, and whether it is that claim.
func registeredName(quoted []byte) (i int, exact bool) {
	name := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(name, '\\') >= 0 {
		name, _ = jsontext.AppendUnquote(nil, quoted)
	}
	if i := indexOf(string(name)); i >= 0 {
		return i, true
	}
	if len(name) < 3 || len(name) > 5 || !bytes.ContainsFunc(name, notLower) {
		return -1, false
	}
	return slices.IndexFunc(registered, func(r string) bool { return strings.EqualFold(r, string(name)) }), false
}

// notLower reports whether r might fold to a lower case letter without being one.
func notLower(r rune) bool { return 'A' <= r && r <= 'Z' || r >= utf8.RuneSelf }

// stringLen returns the length of the string that text begins with.
func stringLen(text []byte) int {
	for i := 1; ; i++ {
		i += bytes.IndexByte(text[i:], '"')
		escapes := 0
		for text[i-1-escapes] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return i + 1
		}
	}
}

// valueLen returns the length of the value that text begins with.
func valueLen(text []byte) int {
	depth := 0
	for i := 0; ; i++ {
		switch text[i] {
		case '"':
			i += stringLen(text[i:]) - 1
		case '{', '[':
			depth++
			continue
		case '}', ']':
			if depth == 0 {
				return i // behind a number or literal
			}
			depth--
		case ',', ':':
			if depth == 0 {
				return i
			}
			continue
		default:
			continue
		}
		if depth == 0 {
			return i + 1
		}
	}
}

func wantOf(name string) string {
	switch name {
	case "exp", "nbf", "iat":
		return "a number of seconds from 0 to 2^53, as time.Time.Unix returns it"
	case "aud":
		return "a string or an array of strings"
	}
	return "a string"
}

// fits reports whether value is of the type that the claim must have.
func fits(name string, value jsontext.Value) bool {
	switch name {
	case "exp", "nbf", "iat":
		if value.Kind() != '0' {
			return false
		}
		_, ok := seconds(value)
		return ok
	case "aud":
		return value.Kind() == '"' || value.Kind() == '[' && onlyStrings(value)
	}
	return value.Kind() == '"'
}

func onlyStrings(array jsontext.Value) bool {
	d := jsontext.NewDecoder(bytes.NewReader(array))
	d.ReadToken()
	for d.PeekKind() == '"' {
		d.ReadToken()
	}
	return d.PeekKind() == ']'
}
