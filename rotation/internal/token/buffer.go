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
	payload []byte       // the claims, a JSON object
	encoded bytes.Buffer // the claims from the general encoder
	token   []byte       // header.payload.signature
	has     claimSet
}

// buffers are the Buffers that wait for the next token.
var buffers = sync.Pool{New: func() any { return new(Buffer) }}

// maxPooled is how many bytes a Buffer may have that waits for the next token, so that one large
// token does not keep its memory.
const maxPooled = 64 << 10

// NewBuffer returns an empty Buffer. The caller must Release it.
func NewBuffer() *Buffer { return buffers.Get().(*Buffer) }

// Release clears b and keeps it for the next token. The caller must not use b again.
func (b *Buffer) Release() {
	clear(b.payload)
	clear(b.encoded.Bytes())
	clear(b.token)
	if cap(b.payload)+b.encoded.Cap()+cap(b.token) <= maxPooled {
		buffers.Put(b)
	}
}

// ErrNotJSON reports that the claims cannot be encoded.
var ErrNotJSON = errors.New("cannot be encoded as JSON")

// SetClaims encodes claims as the payload. nil is an empty object. The error is ErrNotJSON, or says
// which claim is wrong: claim is then the registered claim whose value is not of its type, or "".
// The error quotes no value of a claim.
func (b *Buffer) SetClaims(claims any) (claim string, err error) {
	b.has = claimSet{}
	if claims == nil {
		b.payload = append(b.payload[:0], "{}"...)
		return "", nil
	}
	if m, ok := claims.(map[string]any); ok && b.setPlain(m) {
		return "", nil
	}
	b.encoded.Reset()
	err = json.MarshalWrite(&b.encoded, claims)
	b.payload = append(b.payload[:0], b.encoded.Bytes()...)
	if err != nil {
		return "", ErrNotJSON // err may quote values
	}
	b.has, claim, err = readClaims(b.payload)
	return claim, err
}

// HasIssuer reports whether the claims have an iss.
func (b *Buffer) HasIssuer() bool { return b.has.contains(jwt.Iss) }

// HasAudience reports whether the claims have an aud.
func (b *Buffer) HasAudience() bool { return b.has.contains(jwt.Aud) }

// Exp returns the exp of the token, rounded down to a second. It is zero before it is known.
func (b *Buffer) Exp() time.Time { return b.has.exp }

// LastSecond returns the exp of the token, rounded up to a second.
func (b *Buffer) LastSecond() time.Time {
	if b.has.fraction {
		return b.has.exp.Add(time.Second)
	}
	return b.has.exp
}

// Defaults are the registered claims that a token gets if its own claims do not have them.
type Defaults struct {
	Now      time.Time     // iat, rounded down to a second
	TTL      time.Duration // exp is Now + TTL, rounded down to a second
	Issuer   string        // iss; "" for none
	Audience []string      // aud; empty for none
}

// AddDefaults adds to the payload those of iat, exp, jti, iss and aud that it does not have. A jti
// is 128 random bits in base64url.
func (b *Buffer) AddDefaults(d Defaults) {
	p := b.payload[:len(b.payload)-1] // without the closing brace
	name := func(n string) {          // none needs escaping
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

// appendAudience appends the value of aud: a string, or an array of several (RFC 7519, section
// 4.1.3).
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

// Sign returns the token: header, payload and signature (RFC 7515, section 7.1). The error is that
// of [Key.Sign].
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

// quote appends s as a JSON string. Bytes that are not UTF-8 become U+FFFD.
func quote(dst []byte, s string) []byte {
	dst, _ = jsontext.AppendQuote(dst, s)
	return dst
}
