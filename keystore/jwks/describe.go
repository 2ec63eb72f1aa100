package jwks

import (
	"bytes"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// This file says what a document is that is not a JWK Set. A program that reads the wrong URL or the
// wrong file learns more from that than from a byte offset. Nothing of the document is quoted.

// describeObject says what a JSON object without "keys" is.
func describeObject(set map[string]jsontext.Value) string {
	switch {
	case set["kty"] != nil:
		return `a single JWK, not a JWK Set: wrap it in {"keys":[ ]}`
	case isPEMMap(set):
		return `not a JWK Set: it has no "keys" member, but is a map of kid to PEM: ` +
			`read the JWK Set of the same issuer, which the jwks_uri of its metadata names`
	case set["jwks_uri"] != nil:
		return `not a JWK Set: it has no "keys" member, but is the metadata of an issuer: ` +
			`read the set that its jwks_uri names, or let discovery do so`
	}
	return `not a JWK Set: it has no "keys" member`
}

// isPEMMap reports whether every member is a certificate or key in PEM. Google and Firebase publish
// their keys so, beside their JWK Sets.
func isPEMMap(set map[string]jsontext.Value) bool {
	for _, v := range set {
		if !bytes.HasPrefix(v, []byte(`"-----BEGIN `)) {
			return false
		}
	}
	return len(set) > 0
}

// describeValue says what a JSON value is that is not an object.
func describeValue(kind jsontext.Kind, doc []byte) string {
	switch kind {
	case 'n':
		return "null"
	case 't', 'f':
		return "a boolean"
	case '"':
		return "a string"
	case '0':
		if bytes.HasPrefix(bytes.TrimSpace(doc), []byte("-")) {
			return "a number" + describeText(doc) // it may be PEM
		}
		return "a number"
	}
	rest := bytes.TrimLeft(doc, " \t\r\n[")
	if bytes.HasPrefix(rest, []byte("{")) {
		return `an array: if it is one of JWKs, wrap it in {"keys": }`
	}
	return "an array"
}

// describeText says what a document that is not JSON looks like. It begins with a colon, or is
// empty.
func describeText(doc []byte) string {
	text := strings.TrimSpace(string(doc[:min(len(doc), 512)]))
	switch {
	case text == "":
		return ": it is empty"
	case strings.HasPrefix(text, "<"):
		return ": it looks like HTML or XML"
	case strings.HasPrefix(text, "-----BEGIN "):
		return ": it looks like PEM, which is to be made a JWK first"
	case strings.HasPrefix(text, "eyJ"):
		return ": it looks like a token, or a signed set, which is not read"
	case strings.HasPrefix(text, "\x1f\x8b"):
		return ": it looks like gzip"
	case strings.HasPrefix(text, "{"), strings.HasPrefix(text, "["), strings.HasPrefix(text, "-"):
		return ""
	}
	return ": it does not begin like JSON"
}
