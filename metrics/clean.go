package metrics

import (
	"encoding"
	"encoding/base64"
	"fmt"
	"log/slog"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
)

// What stands in a log for what must not be there.
const (
	tokenMark  = "(token)"
	secretMark = "(secret)"
)

// cleanText returns s without tokens and secrets, and quoted if it has characters that cannot be printed.
// It allocates nothing if there is nothing to remove.
func cleanText(s string) string {
	s = withoutTokens(withoutSecrets(s))
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 {
		s = strconv.Quote(s)
	}
	return s
}

// cleanAttr returns an attribute whose text is clean.
func cleanAttr(a slog.Attr) slog.Attr {
	a.Key = cleanText(a.Key)
	v := a.Value.Resolve()
	switch v.Kind() {
	case slog.KindString:
		if clean := cleanText(v.String()); clean != v.String() {
			v = slog.StringValue(clean)
		}
	case slog.KindGroup:
		group := slices.Clone(v.Group())
		for i := range group {
			group[i] = cleanAttr(group[i])
		}
		v = slog.GroupValue(group...)
	case slog.KindAny:
		v = cleanAny(v)
	}
	return slog.Attr{Key: a.Key, Value: v}
}

// cleanAny returns v as it is if neither [slog.TextHandler] nor [slog.JSONHandler] can make a text of it
// that is not clean, and its clean text otherwise.
func cleanAny(v slog.Value) slog.Value {
	texts, all := textsOf(v.Any())
	for _, text := range slices.Backward(texts) { // the last says the most, behind pointers too
		if clean := cleanText(text); clean != text {
			return slog.StringValue(clean)
		}
	}
	if !all {
		return slog.StringValue(texts[0])
	}
	return v
}

// textsOf returns the texts that the handlers of slog may make of a value, with %+v first. They write errors
// by their text, and others by MarshalText, as JSON, with %+v, or as the bytes that they are. A value may be
// several of these, and each handler has an order of its own. all is false if there may be another text:
// [slog.JSONHandler] writes JSON of version 1, which knows values that version 2 refuses.
func textsOf(value any) (texts []string, all bool) {
	texts = []string{fmt.Sprintf("%+v", value)}
	defer func() {
		if recover() != nil { // a method of a nil pointer, which slog would have caught
			all = false
		}
	}()
	err, isError := value.(error)
	if isError {
		texts = append(texts, err.Error())
	}
	marshaler, isText := value.(encoding.TextMarshaler)
	if isText {
		text, err := marshaler.MarshalText()
		if err != nil {
			return texts, false
		}
		texts = append(texts, string(text))
	}
	if r := reflect.ValueOf(value); r.Kind() == reflect.Slice && r.Type().Elem().Kind() == reflect.Uint8 {
		texts = append(texts, string(r.Bytes()))
	}
	if _, isJSON := value.(json.Marshaler); isJSON || !isError && !isText {
		text, err := json.Marshal(value)
		if err != nil {
			return texts, false
		}
		texts = append(texts, string(text))
	}
	return texts, true
}

// The texts that [withoutSecrets] removes, beside credentials. It keeps their first group.
var (
	pemKey    = regexp.MustCompile(`(?s)()-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*-----|$)`)
	jwkMember = regexp.MustCompile(`(\\?"(?:d|p|q|dp|dq|qi|k)\\?"\s*:\s*\\?")[A-Za-z0-9_-]*`)
	userInfo  = regexp.MustCompile(`(://[^\s/@:]*:)(?:[^\s/]*@|[^\s/@]+)`) // up to the last @, as package net/url reads it
	parameter = regexp.MustCompile(`(?i)(\b(?:[a-z]+_token|[a-z]+_token_hint|client_secret|client_assertion|password)=)[^\s&"']+`)

	credentials = regexp.MustCompile(`(?i)\b(bearer|dpop|basic) +([A-Za-z0-9._~+/=-]{8,})`)
)

// withoutSecrets returns s without private keys, passwords in URLs, parameters that hold a secret, and
// credentials of the schemes Bearer, DPoP and Basic (RFC 6750, RFC 9449, RFC 7617).
func withoutSecrets(s string) string {
	if strings.Contains(s, "-----BEGIN ") {
		s = pemKey.ReplaceAllString(s, "${1}"+secretMark)
	}
	if strings.Contains(s, `"kty`) || strings.Contains(s, `"kty\"`) {
		s = jwkMember.ReplaceAllString(s, "${1}"+secretMark)
	}
	if strings.Contains(s, "://") && strings.Contains(s, "@") {
		s = userInfo.ReplaceAllStringFunc(s, func(found string) string {
			found, isWhole := strings.CutSuffix(found, "@")
			found = found[:len("://")+strings.IndexByte(found[len("://"):], ':')+1] + secretMark
			if isWhole {
				found += "@"
			}
			return found
		})
	}
	if hasBefore(s, '=', "_token", "_hint", "_secret", "_assertion", "password") {
		s = parameter.ReplaceAllString(s, "${1}"+secretMark)
	}
	if hasBefore(s, ' ', "bearer", "dpop", "basic") {
		s = credentials.ReplaceAllStringFunc(s, withoutCredentials)
	}
	return s
}

// hasBefore reports whether s has one of some words before a character, whatever their case.
func hasBefore(s string, c byte, words ...string) bool {
	for from := 0; ; {
		next := strings.IndexByte(s[from:], c)
		if next < 0 {
			return false
		}
		end := from + next
		for _, word := range words {
			if end >= len(word) && strings.EqualFold(s[end-len(word):end], word) {
				return true
			}
		}
		from = end + 1
	}
}

// withoutCredentials returns a mark for credentials. Those of Basic are told from words of a sentence by
// the colon in them.
func withoutCredentials(found string) string {
	scheme, text, _ := strings.Cut(found, " ")
	if strings.EqualFold(scheme, "basic") {
		text = strings.TrimRight(strings.TrimSpace(text), "=")
		if plain, err := base64.RawStdEncoding.DecodeString(text); err != nil || !strings.Contains(string(plain), ":") {
			return found
		}
	}
	return tokenMark
}

// The classes of characters in a token.
const (
	inPart  = 1 << iota // of base64url
	inToken             // of a token, or of one that is encoded otherwise: base64, padded or percent-encoded
)

// classOf returns the classes of a character.
func classOf(c byte) int {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		return inPart | inToken
	case c == '.', c == '=', c == '+', c == '/', c == '%':
		return inToken
	}
	return 0
}

// withoutTokens returns s with a mark in place of each token: a JWS or a JWE in compact form (RFC 7515,
// section 7.1; RFC 7516), or a part of one that is a JSON object. Such a part need not begin with eyJ: the
// JSON of a header may have white space before and after its brace.
func withoutTokens(s string) string {
	var b strings.Builder
	kept := 0
	for i := 0; i+1 < len(s); i++ {
		if !mayBeginObject(s[i], s[i+1]) {
			continue
		}
		begin, end := i, i
		for begin > kept && (classOf(s[begin-1])&inPart != 0 || s[begin-1] == '.') {
			begin--
		}
		for end < len(s) && (classOf(s[end])&inPart != 0 || s[end] == '.') {
			end++
		}
		at := tokenIn(s[begin:end])
		if at >= 0 {
			for end < len(s) && classOf(s[end])&inToken != 0 {
				end++
			}
			b.WriteString(s[kept : begin+at])
			b.WriteString(tokenMark)
			kept = end
		}
		i = end - 1
	}
	if kept == 0 {
		return s
	}
	b.WriteString(s[kept:])
	return b.String()
}

// tokenIn returns where a token begins in a text of base64url and dots, or -1.
func tokenIn(text string) int {
	before := 0 // where the part before begins
	for begin := 0; begin < len(text); {
		length := strings.IndexByte(text[begin:], '.')
		dotted := length >= 0 || begin > 0
		if length < 0 {
			length = len(text) - begin
		}
		part := text[begin : begin+length]
		for at := range part {
			if !beginsObject(part[at:]) {
				continue
			}
			switch {
			case at == 0 && dotted:
				return before // a header that is no JSON belongs to the token
			case dotted, isText(part[at:]):
				return begin + at
			}
		}
		before, begin = begin, begin+length+1
	}
	return -1
}

// mayBeginObject reports whether base64url text that begins with these two characters may be a JSON object.
// They hold the first byte, and four bits of the second one.
func mayBeginObject(first, second byte) bool {
	switch first {
	case 'e': // a brace, before a quote or a space, or before other white space
		return second == 'y' || second == 'w'
	case 'I': // a space, before a brace, a space, or other white space
		return second == 'H' || second == 'C' || second == 'A'
	case 'C': // LF or a tab, before the same
		return strings.IndexByte("nigXSQ", second) >= 0
	case 'D': // CR
		return strings.IndexByte("XSQ", second) >= 0
	}
	return false
}

// beginsObject reports whether base64url text begins with a JSON object: a brace and then a quote, or
// white space so long that one may follow it.
func beginsObject(text string) bool {
	const sample = 16 // characters; 12 bytes
	if len(text) < 8 || !mayBeginObject(text[0], text[1]) {
		return false
	}
	var plain [sample / 4 * 3]byte
	n, err := base64.RawURLEncoding.Decode(plain[:], []byte(text[:min(len(text)/4*4, sample)]))
	if err != nil {
		return false
	}
	rest := strings.TrimLeft(string(plain[:n]), space)
	rest, object := strings.CutPrefix(rest, "{")
	rest = strings.TrimLeft(rest, space)
	return rest == "" || object && rest[0] == '"'
}

const space = " \t\r\n" // of JSON

// isText reports whether a part that stands alone is text, as JSON is. So a random name, such as a
// thumbprint that begins as one does, is not taken for a token. It looks at the beginning, which is longer than
// such names: a client could write a text else that looks like the beginning of a token at each place.
func isText(part string) bool {
	const sample = 256 // characters
	part = part[:min(len(part), sample)]
	plain, err := base64.RawURLEncoding.DecodeString(part[:len(part)/4*4])
	if err != nil || len(plain) < 12 {
		return false
	}
	for i, r := range string(plain) {
		cut := r == utf8.RuneError && i > len(plain)-utf8.UTFMax // the rest of it was not decoded
		if !cut && (r == utf8.RuneError || unicode.IsControl(r) && !strings.ContainsRune(space, r)) {
			return false
		}
	}
	return true
}
