package main

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// printable escapes the characters of text that a terminal might obey rather than show, as a JSON
// string does: control characters, characters that change the direction of writing, and invisible
// ones. Spaces stay, and so do line feeds if lines is true. A byte that is not UTF-8 becomes \x80 and
// the like.
//
// A JSON text has such characters only within its strings. So an escaped JSON text has the same value
// in another spelling.
func printable(text string, lines bool) string {
	if !strings.ContainsFunc(text, func(r rune) bool { return r == utf8.RuneError || !shown(r, lines) }) {
		return text
	}
	var b strings.Builder
	for i, r := range text {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(text[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case shown(r, lines):
			b.WriteRune(r)
		case r > 0xFFFF:
			r1, r2 := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, r1, r2)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

func shown(r rune, lines bool) bool {
	return unicode.IsPrint(r) || lines && r == '\n'
}

// quoteJSON returns s as a JSON string that is safe to print.
func quoteJSON(s string) string {
	q, _ := jsontext.AppendQuote(nil, s) // bytes that are not UTF-8 become U+FFFD
	return printable(string(q), false)
}

// compactJSON returns a valid JSON value on one line, safe to print. Numbers and strings keep their
// spelling, except for characters that printable escapes.
func compactJSON(v jsontext.Value) string {
	c := v.Clone()
	if c.Compact() != nil {
		return "null"
	}
	return printable(string(c), false)
}

// quoteShort quotes a text, and cuts it at the length of a long name.
func quoteShort(s string) string { return quoteCut(s, 40) }

// quoteKID quotes a kid of an issuer. A thumbprint (RFC 7638) has 43 characters.
func quoteKID(s string) string { return quoteCut(s, 64) }

func quoteCut(s string, most int) string {
	s = hideLogin(s) // before a cut, which may take the @ away
	if len(s) > most {
		return strconv.QuoteToASCII(s[:most]) + "..."
	}
	return strconv.QuoteToASCII(s)
}

// hideLogin leaves out what may be the user and the password of a URL: all between the first :// and
// the last @, since a password may hold any character. A URL lands in the wrong place easily: in an
// argument, or in a field of a file.
func hideLogin(text string) string {
	scheme, rest, ok := strings.Cut(text, "://")
	if at := strings.LastIndexByte(rest, '@'); ok && at >= 0 {
		return scheme + "://..." + rest[at:]
	}
	return text
}

// toJSON returns v, which holds texts and numbers, as one line.
func toJSON(v any) string {
	doc, err := json.Marshal(v)
	if err != nil {
		return "null\n"
	}
	return printable(string(doc), false) + "\n"
}
