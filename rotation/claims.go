package rotation

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// found is which registered claims there are (RFC 7519, section 4.1), and what
// the one is that we need.
type found struct {
	set uint8
	exp int64 // in whole seconds, rounded down
}

var registered = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti"}

func (f found) contains(name string) bool {
	return f.set&(1<<slices.Index(registered, name)) != 0
}

// readClaims returns the registered claims of object, each of which must be of
// its type. object is a JSON text as an encoder makes it: valid, without white
// space, and with no name twice.
func readClaims(object []byte) (found, error) {
	if len(object) == 0 || object[0] != '{' {
		return found{}, errNotObject
	}
	var has found
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
			return found{}, fmt.Errorf("claim %s differs from %q only by case, and no keyturn verifier accepts that", quoted, registered[i])
		case !fits(registered[i], value):
			return found{}, fmt.Errorf("claim %q must be %s (RFC 7519, section 4.1)", registered[i], wantOf(registered[i]))
		}
		has.set |= 1 << i
		if registered[i] == "exp" {
			exp, _ := strconv.ParseFloat(string(value), 64)
			has.exp = int64(exp)
		}
	}
	return has, nil
}

// registeredName returns the index of the registered claim that a name folds to,
// or -1, and whether it is that claim.
func registeredName(quoted []byte) (i int, exact bool) {
	name := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(name, '\\') >= 0 {
		name, _ = jsontext.AppendUnquote(nil, quoted)
	}
	for i, r := range registered {
		if string(name) == r {
			return i, true
		}
		if len(name) <= 5 && strings.EqualFold(string(name), r) {
			return i, false
		}
	}
	return -1, false
}

// valueLen returns the length of the value that text begins with.
func valueLen(text []byte) int {
	depth := 0
	for i := 0; ; i++ {
		switch text[i] {
		case '"':
			for i++; text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
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
		f, err := strconv.ParseFloat(string(value), 64)
		return err == nil && 0 <= f && f < 1<<53
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
