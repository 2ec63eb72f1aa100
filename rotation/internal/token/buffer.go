package token

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/keyturn/keyturn/internal/jwt"
)

// A Buffer is the memory in which one token is made. It is not safe for concurrent use.
type Buffer struct {
	payload []byte       // a JSON object
	encoded bytes.Buffer // what the library made of the claims
	token   []byte
	has     found
}

var buffers = sync.Pool{New: func() any { return new(Buffer) }}

const maxKept = 64 << 10 // bytes of a buffer that waits for another token

// NewBuffer returns an empty Buffer. Release it.
func NewBuffer() *Buffer { return buffers.Get().(*Buffer) }

// Release clears b, which must not be used again.
func (b *Buffer) Release() {
	clear(b.payload)
	clear(b.encoded.Bytes())
	clear(b.token)
	if cap(b.payload)+b.encoded.Cap()+cap(b.token) <= maxKept {
		buffers.Put(b)
	}
}

// ErrNotJSON reports that the claims cannot be encoded.
var ErrNotJSON = errors.New("cannot be encoded as JSON")

// SetClaims encodes claims as the payload, and notes which registered claims it has. The error is
// ErrNotJSON, or says what is wrong with the claims; then claim is the registered claim whose value is
// not of its type, or "". It holds no claim's value.
func (b *Buffer) SetClaims(claims any) (claim string, err error) {
	b.has = found{}
	if claims == nil {
		b.payload = append(b.payload[:0], "{}"...)
		return "", nil
	}
	if m, ok := claims.(map[string]any); ok && b.setPlain(m) {
		return "", nil
	}
	// The encoder's own text may quote values.
	b.encoded.Reset()
	err = json.MarshalWrite(&b.encoded, claims)
	b.payload = append(b.payload[:0], b.encoded.Bytes()...)
	if err != nil {
		return "", ErrNotJSON
	}
	b.has, claim, err = readClaims(b.payload)
	return claim, err
}

// HasIssuer reports whether the claims have an iss.
func (b *Buffer) HasIssuer() bool { return b.has.contains(jwt.Iss) }

// HasAudience reports whether the claims have an aud.
func (b *Buffer) HasAudience() bool { return b.has.contains(jwt.Aud) }

// Exp returns the exp of the token.
func (b *Buffer) Exp() time.Time { return b.has.exp }

// LastSecond returns the second in which the token ends: its exp, rounded up.
func (b *Buffer) LastSecond() time.Time {
	if b.has.fraction {
		return b.has.exp.Add(time.Second)
	}
	return b.has.exp
}

// Defaults are what a token gets where its claims do not say.
type Defaults struct {
	Now      time.Time
	TTL      time.Duration
	Issuer   string   // "" for none
	Audience []string // empty for none
}

// AddDefaults adds to the payload what the claims do not have.
func (b *Buffer) AddDefaults(d Defaults) {
	p := b.payload[:len(b.payload)-1] // without the closing brace
	name := func(n string) {
		if p[len(p)-1] != '{' {
			p = append(p, ',')
		}
		p = append(append(append(p, '"'), n...), `":`...)
	}
	if !b.has.contains(jwt.Iat) {
		name("iat")
		p = strconv.AppendInt(p, d.Now.Unix(), 10)
	}
	if !b.has.contains(jwt.Exp) {
		name("exp")
		b.has.exp = time.Unix(d.Now.Unix()+int64(d.TTL/time.Second), 0)
		p = strconv.AppendInt(p, b.has.exp.Unix(), 10)
	}
	if !b.has.contains(jwt.Jti) {
		name("jti")
		var id [16]byte
		rand.Read(id[:]) // never fails
		p = append(p, '"')
		p = base64.RawURLEncoding.AppendEncode(p, id[:])
		p = append(p, '"')
	}
	if !b.has.contains(jwt.Iss) && d.Issuer != "" {
		name("iss")
		p = quote(p, d.Issuer)
	}
	if !b.has.contains(jwt.Aud) && len(d.Audience) > 0 {
		name("aud")
		p = appendAudience(p, d.Audience)
	}
	b.payload = append(p, '}')
}

// appendAudience appends an "aud": one string, or an array of several.
func appendAudience(p []byte, audience []string) []byte {
	if len(audience) == 1 {
		return quote(p, audience[0])
	}
	p = append(p, '[')
	for i, a := range audience {
		if i > 0 {
			p = append(p, ',')
		}
		p = quote(p, a)
	}
	return append(p, ']')
}

// Sign returns the token: header, payload and signature (RFC 7515, section 7.1).
func (b *Buffer) Sign(key *Key) (string, error) {
	b.token = append(b.token[:0], key.header...)
	b.token = append(b.token, '.')
	b.token = base64.RawURLEncoding.AppendEncode(b.token, b.payload)
	sig, err := key.Sign(b.token)
	if err != nil {
		return "", err
	}
	b.token = append(b.token, '.')
	b.token = base64.RawURLEncoding.AppendEncode(b.token, sig)
	return string(b.token), nil
}

// quote appends s as a JSON string. What is not valid UTF-8 becomes U+FFFD.
func quote(dst []byte, s string) []byte {
	dst, _ = jsontext.AppendQuote(dst, s)
	return dst
}
