package jwks

import (
	"bytes"
	"errors"
	"io"

	"github.com/go-json-experiment/json/jsontext"
)

// metadata is the part of an issuer's metadata that is read (OpenID Connect Discovery 1.0, section
// 3; RFC 8414, section 2).
type metadata struct {
	issuer, jwksURI string
}

// readMetadata reads metadata. Only the two members that matter are read strictly: a string, once,
// under a name that is compared byte for byte. Others may be there twice, or hold text that is not
// UTF-8: issuers with hand-written metadata have published such, and nothing depends on them. The
// error quotes nothing.
func readMetadata(doc []byte) (metadata, *Error) {
	var m metadata
	malformed := failf(StepDiscovery, "the metadata is not a JSON object of strings%s", describeText(doc))
	dec := jsontext.NewDecoder(bytes.NewReader(withoutBOM(doc)), lenient)
	if token, err := dec.ReadToken(); err != nil || token.Kind() != '{' {
		return m, malformed
	}
	seen := make(map[string]bool)
	for dec.PeekKind() == '"' {
		token, err := dec.ReadToken()
		if err != nil {
			return m, malformed
		}
		name := token.String()
		value, err := dec.ReadValue()
		if err != nil {
			return m, malformed
		}
		var into *string
		switch name {
		case "issuer":
			into = &m.issuer
		case "jwks_uri":
			into = &m.jwksURI
		default:
			continue
		}
		if seen[name] {
			return m, failf(StepDiscovery, "the metadata has %q twice", name)
		}
		seen[name] = true
		if value.Kind() == 'n' { // no member
			continue
		}
		text, err := jsontext.AppendUnquote(nil, value)
		if value.Kind() != '"' || err != nil {
			return m, failf(StepDiscovery, "the metadata has a %q that is not a string", name)
		}
		*into = string(text)
	}
	if _, err := dec.ReadToken(); err != nil { // the closing brace
		return m, malformed
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return m, malformed
	}
	return m, nil
}
