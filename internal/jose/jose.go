// Package jose reads JWK Sets (RFC 7517; RFC 7518, section 6; RFC 8037, section
// 2). It decides what a document says, not whether a key is good enough: sizes,
// small orders and the like are package keystore's.
//
// It is the only package that imports github.com/lestrrat-go/jwx. Version 2 of
// that module is deprecated upstream, and it is lenient where a verifier must
// not be: it folds the case of member names, takes the last of two, accepts
// padded and standard base64 and line ends, lets an RSA exponent wrap at 64
// bits, does not look at the length of coordinates, and fails a whole set for
// one odd key. So this package reads the document and each member itself, hands
// jwx a JWK made of nothing but the members that it has checked, and compares
// what comes back with what it read. A move to a later major version of jwx is
// a change to this package alone.
//
// Of jwx it uses ParseKey and Key.Raw, and nothing else
// may be.
package jose

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Limits on what [ParseSet] reads.
const (
	MaxSetBytes = 1 << 20 // of the whole document
	MaxKeys     = 256     // elements of its "keys" array, usable or not
	maxMembers  = 100     // of the document or of one key: none has a fifth of it
	maxKeyOps   = 32      // elements of a "key_ops" array
)

// A JWK is one element of a JWK Set. Its fields are what the sender wrote, and
// may hold anything; what a key is made of is behind [JWK.Public] and
// [JWK.Secret], where no fmt verb, logger or encoder reaches it.
type JWK struct {
	Type      string   // "kty"
	Curve     string   // "crv", of EC and OKP keys
	KID       string   // "kid"
	Use       string   // "use"
	KeyOps    []string // "key_ops"
	Algorithm string   // "alg"

	HasKID       bool // "kid" is there, be it empty
	HasUse       bool // "use" is there
	HasKeyOps    bool // "key_ops" is there
	HasAlgorithm bool // "alg" is there

	// Private reports a member that only a private key has, whatever its value:
	// if the document is public, that key is burnt.
	Private bool

	// HasSecret reports a member "k", which holds a secret, whatever the kty.
	HasSecret bool

	// Err says why this element cannot be read as a JWK. The fields above then
	// hold what could be read.
	Err error

	member func(name string) (value jsontext.Value, ok bool)
}

// privateMembers are the members of private keys (RFC 7518, sections 6.2.2 and
// 6.3.2; RFC 8037, section 2).
var privateMembers = [...]string{"d", "p", "q", "dp", "dq", "qi", "oth"}

// ParseSet reads a JWK Set (RFC 7517, section 5): one JSON object with a "keys"
// array. Its elements are read one by one, and one that makes no sense has its
// Err set; members that it does not know are ignored.
//
// The error says what is wrong with the document as a whole: it is too large,
// not one JSON value, has a member twice (RFC 7517, section 4, allows to reject
// that) or text that is not UTF-8 outside of the keys, or is not a set. Inside a
// key, either is that key's Err. The error never quotes the document.
func ParseSet(doc []byte) ([]JWK, error) {
	if len(doc) > MaxSetBytes {
		return nil, fmt.Errorf("a JWK Set of %d bytes: at most %d are read", len(doc), MaxSetBytes)
	}
	set, err := splitSet(doc)
	if err != nil {
		return nil, err
	}
	keys, ok := set["keys"]
	if !ok {
		if _, bare := set["kty"]; bare {
			return nil, errors.New(`a single JWK, not a JWK Set: wrap it in {"keys":[ ]}`)
		}
		return nil, errors.New(`not a JWK Set: it has no "keys" member`)
	}
	if keys.Kind() != '[' {
		return nil, errors.New(`not a JWK Set: its "keys" member is not an array`)
	}
	return parseKeys(keys)
}

// lenient lets one odd key pass, to be judged by itself.
var lenient = jsontext.Options(json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)))

// splitSet splits a JSON object, of which everything but the value of "keys" is
// read strictly. Its errors are words of our own: those of package json quote
// their input.
func splitSet(doc []byte) (map[string]jsontext.Value, error) {
	dec := jsontext.NewDecoder(bytes.NewReader(doc), lenient)
	malformed := func() error {
		return fmt.Errorf("not a JWK Set: not valid JSON near byte %d", dec.InputOffset())
	}
	if kind := dec.PeekKind(); kind != '{' && kind != 0 {
		return nil, errors.New("not a JWK Set: want a JSON object")
	}
	if _, err := dec.ReadToken(); err != nil { // the opening brace
		return nil, malformed()
	}
	set := make(map[string]jsontext.Value)
	for dec.PeekKind() == '"' {
		if len(set) == maxMembers {
			return nil, fmt.Errorf("not a JWK Set: an object of more than %d members", maxMembers)
		}
		quoted, err := dec.ReadValue()
		if err != nil || !quoted.IsValid() {
			return nil, malformed()
		}
		name, _ := jsontext.AppendUnquote(nil, quoted)
		value, err := dec.ReadValue()
		if err != nil || string(name) != "keys" && !value.IsValid() {
			return nil, malformed()
		}
		if _, twice := set[string(name)]; twice {
			return nil, fmt.Errorf("not a JWK Set: a member name is there twice, near byte %d", dec.InputOffset())
		}
		set[string(name)] = value.Clone()
	}
	if _, err := dec.ReadToken(); err != nil { // the closing brace
		return nil, malformed()
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, malformed()
	}
	return set, nil
}

// parseKeys splits an array, known to be JSON, and stops at one element too many.
func parseKeys(array jsontext.Value) ([]JWK, error) {
	dec := jsontext.NewDecoder(bytes.NewReader(array), lenient)
	if _, err := dec.ReadToken(); err != nil { // the opening bracket
		return nil, errors.New(`not a JWK Set: its "keys" member cannot be read`)
	}
	var keys []JWK
	for dec.PeekKind() != ']' {
		if len(keys) == MaxKeys {
			return nil, fmt.Errorf("a JWK Set of more than %d keys", MaxKeys)
		}
		raw, err := dec.ReadValue()
		if err != nil {
			return nil, errors.New(`not a JWK Set: its "keys" member cannot be read`)
		}
		keys = append(keys, parseKey(raw.Clone()))
	}
	return keys, nil
}

// parseKey reads the members that every kind of key may have. Names are
// compared byte for byte: "K" is not "k", but a member that nobody knows.
func parseKey(raw jsontext.Value) (k JWK) {
	k.member = func(string) (jsontext.Value, bool) { return nil, false }
	if raw.Kind() != '{' {
		k.Err = errors.New("not a JSON object")
		return k
	}
	// What leaks a key must be heard even where it cannot be read.
	if !k.lookOver(raw) {
		k.Err = fmt.Errorf("an object of more than %d members", maxMembers)
		return k
	}
	var members map[string]jsontext.Value
	if json.Unmarshal(raw, &members) != nil {
		k.Err = errors.New("it has a member name twice, or text that is not UTF-8")
		return k
	}
	k.member = func(name string) (jsontext.Value, bool) {
		v, ok := members[name]
		return v, ok
	}

	var errs [6]error
	var hasType bool
	k.KID, k.HasKID, errs[0] = k.text("kid")
	k.Type, hasType, errs[1] = k.text("kty")
	k.Curve, _, errs[2] = k.text("crv")
	k.Use, k.HasUse, errs[3] = k.text("use")
	k.Algorithm, k.HasAlgorithm, errs[4] = k.text("alg")
	k.KeyOps, k.HasKeyOps, errs[5] = k.texts("key_ops")
	for _, err := range errs {
		if k.Err == nil {
			k.Err = err
		}
	}
	if k.Err == nil && !hasType {
		k.Err = errors.New(`it has no "kty"`)
	}
	return k
}

// lookOver looks at the names of a JSON object for what others must not read, and
// returns false if there are too many to go on.
func (k *JWK) lookOver(object jsontext.Value) bool {
	dec := jsontext.NewDecoder(bytes.NewReader(object), lenient)
	if _, err := dec.ReadToken(); err != nil { // the opening brace
		return false
	}
	for n := 0; dec.PeekKind() == '"'; n++ {
		name, err := dec.ReadToken()
		if err != nil || n == maxMembers {
			return false
		}
		k.Private = k.Private || slices.Contains(privateMembers[:], name.String())
		k.HasSecret = k.HasSecret || name.String() == "k"
		if dec.SkipValue() != nil {
			return false
		}
	}
	return true
}

// text returns a member that must be a string if it is there.
func (k *JWK) text(name string) (s string, ok bool, err error) {
	v, ok := k.member(name)
	if !ok {
		return "", false, nil
	}
	if v.Kind() != '"' || json.Unmarshal(v, &s) != nil {
		return "", true, fmt.Errorf("%q is not a string", name)
	}
	return s, true, nil
}

// texts returns a member that must be an array of strings, none of them twice
// (RFC 7517, section 4.3), if it is there.
func (k *JWK) texts(name string) (list []string, ok bool, err error) {
	v, ok := k.member(name)
	if !ok {
		return nil, false, nil
	}
	wrongType := fmt.Errorf("%q is not an array of strings", name)
	dec := jsontext.NewDecoder(bytes.NewReader(v))
	if tok, err := dec.ReadToken(); err != nil || tok.Kind() != '[' {
		return nil, true, wrongType
	}
	seen := make(map[string]bool)
	for dec.PeekKind() != ']' {
		tok, err := dec.ReadToken()
		if err != nil || tok.Kind() != '"' {
			return nil, true, wrongType
		}
		s := tok.String()
		if len(list) == maxKeyOps {
			return nil, true, fmt.Errorf("%q has more than %d values", name, maxKeyOps)
		}
		if seen[s] {
			return nil, true, fmt.Errorf("%q has a value twice", name)
		}
		seen[s] = true
		list = append(list, s)
	}
	return list, true, nil
}

// octets returns a member that must be there and base64url as RFC 7515, section
// 2, has it: no padding, no line ends, no other character, and no stray bits at
// the end. The error never quotes it.
func (k *JWK) octets(name string) (value []byte, encoded string, err error) {
	s, ok, err := k.text(name)
	if err != nil {
		return nil, "", err
	}
	if !ok {
		return nil, "", fmt.Errorf("it has no %q", name)
	}
	// The decoder skips line ends, strict or not.
	if strings.ContainsAny(s, "\r\n") {
		return nil, "", fmt.Errorf("%q is not base64url", name)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, "", fmt.Errorf("%q is not base64url", name)
	}
	if len(b) == 0 {
		return nil, "", fmt.Errorf("%q is empty", name)
	}
	return b, s, nil
}

// Quote quotes text of the sender's for a message, cut to a length that fits
// into a log line.
func Quote(s string) string {
	const most = 64
	if len(s) <= most {
		return strconv.Quote(s)
	}
	return strconv.Quote(s[:most]) + "..."
}
