package jwt

import (
	"iter"
	"strings"
)

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

// Reach returns the text of the value that name names in object, or "" without one. A member of
// exactly this name comes first. Without it, the longest beginning of the name that stands before one
// of its dots and is a member leads into that member, where Reach looks for the rest in the same way.
// So "realm_access.roles" finds the member roles of the claim realm_access, and
// "kubernetes.io.namespace" the member namespace of the claim kubernetes.io. A member that was chosen
// is final, even if the rest is not in it: a name names one place.
func Reach(object, name string) string {
	value := ""
	walk(object, name, func(_, _, found string) { value = found })
	return value
}

// Misspelt returns the name of a member that differs only by case from one on the way by which
// [Reach] comes to name, beside it in the same object, or "" without one. A reader that ignores case,
// as encoding/json does, may take another way.
func Misspelt(object, name string) (other string) {
	walk(object, name, func(object, taken, _ string) {
		for member := range members(object) {
			if other == "" && member != taken && strings.EqualFold(member, taken) {
				other = member
			}
		}
	})
	return other
}

// walk calls step for each member on the way to name, with the object that has it, its name and its
// value. If the way ends before name does, the last call has no value.
func walk(object, name string, step func(object, taken, value string)) {
	object = strings.TrimLeft(object, " \t\r\n") // a Scanner takes it too
	for {
		value, end := find(object, name), len(name)
		for value == "" && end >= 0 {
			if end = strings.LastIndexByte(name[:end], '.'); end >= 0 {
				value = find(object, name[:end])
			}
		}
		if end < 0 {
			step(object, "", "")
			return
		}
		step(object, name[:end], value)
		if end == len(name) {
			return
		}
		object, name = value, name[end+1:]
	}
}

// find returns the text of the value of object's member with this name, or "" if object lacks that
// member or is not an object.
func find(object, name string) string {
	for member, value := range members(object) {
		if member == name {
			return value
		}
	}
	return ""
}

// members iterates over the names and values of object, which has none if it is not an object.
func members(object string) iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		if object == "" || object[0] != '{' {
			return
		}
		for i := skipSpace(object, 1); object[i] == '"'; { // i stands before a name, or at the end
			end := valueEnd(object, i)
			start := skipSpace(object, skipSpace(object, end)+1) // after the colon
			stop := valueEnd(object, start)
			if name, _ := String(object[i:end]); !yield(name, object[start:stop]) {
				return
			}
			if i = skipSpace(object, stop); object[i] == ',' {
				i = skipSpace(object, i+1)
			}
		}
	}
}

// valueEnd returns where the value ends that begins at i.
func valueEnd(text string, i int) int {
	depth := 0
	for ; i < len(text); i++ {
		switch text[i] {
		case '"':
			for i++; text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
			if depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i // after a number or literal
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return i // after a number or literal
			}
		}
	}
	return i
}

// Integer reports whether value is a number that is written as an integer: digits, perhaps after a
// minus sign, without fraction and exponent. So an integer has one text; -0, which is 0 too, is
// none.
func Integer(value string) bool {
	digits := strings.TrimPrefix(value, "-")
	if digits == "" || value == "-0" {
		return false
	}
	for i := range len(digits) {
		if c := digits[i]; c < '0' || c > '9' {
			return false
		}
	}
	return true
}
