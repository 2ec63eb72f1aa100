package jwt

import (
	"bytes"
	"iter"
)

// The functions of this file read a JSON text as an encoder writes it: valid,
// without white space outside strings, and with no name twice in an object. On
// any other text they may panic.

// Members iterates over the members of object: the name, without quotes and
// escapes, and the text of the value. Unlike a [Scanner] it sets no bound to
// depth or numbers, since the encoder's caller chose the values. The slices share
// memory with object. An object that is empty or not an object has no members.
func Members(object []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		if len(object) == 0 || object[0] != '{' {
			return
		}
		for rest := object[1:]; rest[0] == '"'; {
			quoted := rest[:stringLen(rest)]
			rest = rest[len(quoted)+1:] // after the colon
			value := rest[:valueLen(rest)]
			if rest = rest[len(value):]; rest[0] == ',' {
				rest = rest[1:]
			}
			if !yield(unquote(quoted), value) {
				return
			}
		}
	}
}

// Accepts reports whether value has the type that claim c must have (RFC 7519,
// section 4.1): a date for exp, nbf and iat, a string or an array of strings for
// aud, and a string for the others. Any value suits Unregistered. These are the
// types that package verifier demands.
func (c Claim) Accepts(value []byte) bool {
	switch c {
	case Unregistered:
		return true
	case Exp, Nbf, Iat:
		_, ok := NumericDate(string(value))
		return ok
	case Aud:
		return value[0] == '"' || isStringArray(value)
	}
	return value[0] == '"'
}

func isStringArray(value []byte) bool {
	if value[0] != '[' {
		return false
	}
	rest := value[1:]
	for rest[0] == '"' {
		rest = rest[stringLen(rest):]
		if rest[0] == ',' {
			rest = rest[1:]
		}
	}
	return rest[0] == ']'
}

// unquote returns the inside of a quoted string, without escapes.
func unquote(quoted []byte) []byte {
	inside := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(inside, '\\') >= 0 {
		inside = []byte(unescape(string(inside)))
	}
	return inside
}

// stringLen returns the length of the string that text begins with, quotes
// included.
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
				return i // after a number or literal
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
