package jwks

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

// This file reads the JSON of a JWK Set and of its elements. Which of them may serve is decided in
// parse.go.

// Bounds on a document. Those on its size and its keys are in reading.go.
const (
	maxMembers = 100 // of the document or of one key: real ones have at most twenty
	maxKeyOps  = 32  // elements of a "key_ops" array
)

// splitSet returns the elements of a JWK Set (RFC 7517, section 5): one JSON object with a "keys"
// array. Members that it does not know are ignored. It reads no more than most elements.
//
// The error is about the document as a whole: it is not one JSON value, it is not a set, it has a
// member twice (RFC 7517, section 4, allows to reject that), or it has text outside of the keys that
// is not UTF-8. Inside a key, the last two are left to [readJWK]. The error never quotes the
// document.
func splitSet(doc []byte, most int) ([]jsontext.Value, error) {
	set, err := splitObject(withoutBOM(doc))
	if err != nil {
		return nil, err
	}
	keys, ok := set["keys"]
	switch {
	case !ok || keys.Kind() == 'n' && set["kty"] != nil:
		return nil, errors.New(describeObject(set))
	case keys.Kind() != '[':
		return nil, errors.New(`not a JWK Set: its "keys" member is not an array`)
	}
	return splitKeys(keys, most)
}

// withoutBOM returns doc without a UTF-8 byte order mark, which a parser may ignore (RFC 8259,
// section 8.1). Editors and the encoders of .NET write one.
func withoutBOM(doc []byte) []byte { return bytes.TrimPrefix(doc, []byte("\ufeff")) }

// lenient lets one odd key pass, to be judged by itself.
var lenient = jsontext.Options(json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)))

// splitObject splits the JSON object of a set. Everything but the value of "keys" is read strictly.
// The errors are our own words, since those of package json quote their input.
func splitObject(doc []byte) (map[string]jsontext.Value, error) {
	dec := jsontext.NewDecoder(bytes.NewReader(doc), lenient)
	malformed := func() error {
		return fmt.Errorf("not a JWK Set: not valid JSON near byte %d%s", dec.InputOffset(), describeText(doc))
	}
	if kind := dec.PeekKind(); kind != '{' && kind != 0 {
		return nil, fmt.Errorf("not a JWK Set: want a JSON object, and not %s", describeValue(kind, doc))
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

// splitKeys splits an array that is known to be JSON. It stops after most elements.
func splitKeys(array jsontext.Value, most int) ([]jsontext.Value, error) {
	dec := jsontext.NewDecoder(bytes.NewReader(array), lenient)
	if _, err := dec.ReadToken(); err != nil { // the opening bracket
		return nil, errors.New(`not a JWK Set: its "keys" member cannot be read`)
	}
	var keys []jsontext.Value
	for len(keys) < most && dec.PeekKind() != ']' {
		raw, err := dec.ReadValue()
		if err != nil {
			return nil, errors.New(`not a JWK Set: its "keys" member cannot be read`)
		}
		keys = append(keys, raw.Clone())
	}
	return keys, nil
}

// A jwk is one element of a JWK Set. Its fields are as the sender wrote them, and may hold
// anything.
type jwk struct {
	kty, crv, kid, use, alg text
	keyOps                  []string
	hasKeyOps               bool

	private bool // a member that only a private key has is there, with content
	secret  bool // a member "k", which holds a secret, is there with content, whatever the kty

	// irregular says how the members of the key were spelled, if not as the RFCs want. publicKey
	// adds to it.
	irregular []string

	// unreadable says why this element is not a JWK, or is nil. The other fields then hold what
	// could be read.
	unreadable error

	// member returns the JSON of a member. It is a closure, so that no fmt verb, logger or encoder
	// reaches a secret.
	member func(name string) (value jsontext.Value, ok bool)
}

// A text is a member that is a string.
type text struct {
	value string
	given bool // the member is there; value may be empty all the same
}

// privateMembers are the members of private keys (RFC 7518, sections 6.2.2 and 6.3.2; RFC 8037,
// section 2).
var privateMembers = [...]string{"d", "p", "q", "dp", "dq", "qi", "oth"}

// readJWK reads the members that every kind of key may have. Names are compared byte for byte: "K"
// is not "k", but an unknown member.
func readJWK(raw jsontext.Value) (k jwk) {
	k.member = func(string) (jsontext.Value, bool) { return nil, false }
	if raw.Kind() != '{' {
		k.unreadable = errors.New("not a JSON object")
		return k
	}
	// A key that is leaked must be reported even where the JWK cannot be read.
	if !k.findSecrets(raw) {
		k.unreadable = fmt.Errorf("an object of more than %d members", maxMembers)
		return k
	}
	var members map[string]jsontext.Value
	if json.Unmarshal(raw, &members) != nil {
		k.unreadable = errors.New("it has a member name twice, or text that is not UTF-8")
		return k
	}
	k.member = func(name string) (jsontext.Value, bool) {
		// Serializers write null for a member without a value: those of .NET do so for every member
		// that they know. It is no member.
		v, ok := members[name]
		return v, ok && v.Kind() != 'n'
	}
	k.readMembers()
	return k
}

// findSecrets looks through the member names of a JSON object for those that only a secret or a
// private key has. One that holds nothing is not a leak. It returns false if there are too many
// members.
func (k *jwk) findSecrets(object jsontext.Value) bool {
	dec := jsontext.NewDecoder(bytes.NewReader(object), lenient)
	if _, err := dec.ReadToken(); err != nil { // the opening brace
		return false
	}
	for n := 0; dec.PeekKind() == '"'; n++ {
		token, err := dec.ReadToken()
		if err != nil || n == maxMembers {
			return false
		}
		name := token.String()
		value, err := dec.ReadValue()
		if err != nil {
			return false
		}
		if holdsNothing(value) {
			continue
		}
		k.private = k.private || slices.Contains(privateMembers[:], name)
		k.secret = k.secret || name == "k"
	}
	return true
}

// holdsNothing reports whether a value is null, an empty string or an empty array. Serializers of
// public keys write those for the private members that they do not have.
func holdsNothing(v jsontext.Value) bool {
	switch v.Kind() {
	case 'n':
		return true
	case '"':
		return len(v) == len(`""`)
	case '[':
		return len(bytes.TrimSpace(v[1:len(v)-1])) == 0
	}
	return false
}

// readMembers reads all it can. The first error is the one that counts.
func (k *jwk) readMembers() {
	var errs [6]error
	k.kid, errs[0] = k.text("kid")
	k.kty, errs[1] = k.text("kty")
	k.crv, errs[2] = k.text("crv")
	k.use, errs[3] = k.text("use")
	k.alg, errs[4] = k.text("alg")
	k.keyOps, k.hasKeyOps, errs[5] = k.texts("key_ops")
	for _, err := range errs {
		if err != nil {
			k.unreadable = err
			return
		}
	}
	if !k.kty.given {
		k.unreadable = errors.New(`it has no "kty"`)
	}
	k.kid.given = k.kid.value != "" // a token cannot name an empty kid
}

// text returns a member that must be a string if it is there.
func (k *jwk) text(name string) (text, error) {
	v, ok := k.member(name)
	if !ok {
		return text{}, nil
	}
	var s string
	if v.Kind() != '"' || json.Unmarshal(v, &s) != nil {
		return text{given: true}, fmt.Errorf("%q is not a string", name)
	}
	return text{s, true}, nil
}

// texts returns a member that must be an array of strings if it is there. An empty one is no member:
// .NET writes it. No string may be there twice (RFC 7517, section 4.3).
func (k *jwk) texts(name string) (list []string, given bool, err error) {
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
	return list, len(list) > 0, nil
}

// octets returns a member that must be there, and must be base64url as RFC 7515, section 2, has it:
// no padding, no line ends, no other character, and no bits left over at the end. The error never
// quotes it.
func (k *jwk) octets(name string) ([]byte, error) {
	s, err := k.required(name)
	if err != nil {
		return nil, err
	}
	return decode(name, s, base64.RawURLEncoding)
}

// looseOctets is octets for the public members of public keys. It reads padding and the standard
// alphabet too, and reports them as irregular: Java's and Python's encoders write them, and there is
// one way to read them. A text of both alphabets, line ends and a wrong padding are refused.
func (k *jwk) looseOctets(name string) ([]byte, error) {
	s, err := k.required(name)
	if err != nil {
		return nil, err
	}
	body := strings.TrimRight(s, "=")
	padding := len(s) - len(body)
	standard := strings.ContainsAny(body, "+/")
	switch {
	case padding > 2 || padding > 0 && len(s)%4 != 0: // RFC 4648, section 4
		return nil, fmt.Errorf("%q is not base64url: its padding is wrong", name)
	case standard && strings.ContainsAny(body, "-_"):
		return nil, fmt.Errorf("%q is not base64url: it mixes two alphabets", name)
	}
	encoding := base64.RawURLEncoding
	if standard {
		encoding = base64.RawStdEncoding
	}
	b, err := decode(name, body, encoding)
	if err != nil {
		return nil, err
	}
	if padding > 0 {
		k.note("%q is padded (RFC 7515, section 2)", name)
	}
	if standard {
		k.note("%q is in the standard alphabet of base64 (RFC 7515, section 2)", name)
	}
	return b, nil
}

// required returns a member that must be a string and must be there.
func (k *jwk) required(name string) (string, error) {
	s, err := k.text(name)
	switch {
	case err != nil:
		return "", err
	case !s.given:
		return "", fmt.Errorf("it has no %q", name)
	case s.value == "":
		return "", fmt.Errorf("%q is empty", name)
	}
	return s.value, nil
}

// decode decodes base64. The error does not quote it.
func decode(name, s string, encoding *base64.Encoding) ([]byte, error) {
	// The decoder skips line ends, strict or not.
	if strings.ContainsAny(s, "\r\n") {
		return nil, fmt.Errorf("%q is not base64url", name)
	}
	b, err := encoding.Strict().DecodeString(s)
	if err != nil || len(b) == 0 {
		return nil, fmt.Errorf("%q is not base64url", name)
	}
	return b, nil
}

// note adds to what is irregular.
func (k *jwk) note(format string, args ...any) {
	k.irregular = append(k.irregular, fmt.Sprintf(format, args...))
}

// quote quotes text of the sender for a message, cut to a length that fits into a log line.
func quote(s string) string {
	const most = 64
	if len(s) <= most {
		return strconv.Quote(s)
	}
	return strconv.Quote(s[:most]) + "..."
}
