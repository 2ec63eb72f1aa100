package jwt

import "strings"

// The functions of this file read the text of a value that a [Scanner] accepted,
// or "" where a member is missing. They do not check the text again.

// String returns the string that value stands for, without quotes and escapes. It
// returns false if value is missing or not a string. It allocates only if the
// string has an escape.
func String(value string) (string, bool) {
	if len(value) < 2 || value[0] != '"' {
		return "", false
	}
	inside := value[1 : len(value)-1]
	if strings.IndexByte(inside, '\\') >= 0 {
		inside = unescape(inside)
	}
	return inside, true
}

// EachString calls yield with each string of value, which must be a string or an
// array of strings, as "aud" is (RFC 7519, section 4.1.3). It returns false if
// value is missing or something else. It may have called yield before it found
// that out.
func EachString(value string, yield func(string)) bool {
	if value == "" || value[0] != '[' {
		one, ok := String(value)
		if ok {
			yield(one)
		}
		return ok
	}
	for i := 1; ; i++ { // i stands before an element, or at the end
		i = skipSpace(value, i)
		switch value[i] {
		case ']':
			return true
		case '"':
		default:
			return false
		}
		start := i
		for i++; value[i] != '"'; i++ {
			if value[i] == '\\' {
				i++
			}
		}
		one, _ := String(value[start : i+1])
		yield(one)
		if i = skipSpace(value, i+1); value[i] == ']' {
			return true
		}
	}
}

func skipSpace(text string, i int) int {
	for text[i] == ' ' || text[i] == '\t' || text[i] == '\n' || text[i] == '\r' {
		i++
	}
	return i
}
