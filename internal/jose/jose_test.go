package jose

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"math/big"
	"strings"
	"testing"
)

var b64 = base64.RawURLEncoding.EncodeToString

// Keys of RFC 7515, appendix A.3, and RFC 8037, appendix A.2.
const (
	p256X = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"
	p256Y = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
	edX   = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
)

// odd2048 is an odd number of 2048 bits.
var odd2048 = new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 2047), big.NewInt(12345))

func TestParseSetRefusesDocuments(t *testing.T) {
	deep := func(n int) string { return `{"keys":[],"x":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}` }
	many := func(n int) string { return `{"keys":[` + strings.TrimSuffix(strings.Repeat("{},", n), ",") + `]}` }
	padded := func(n int) string { return `{"keys":[]}` + strings.Repeat(" ", n-len(`{"keys":[]}`)) }
	tests := []struct {
		name string
		doc  string
		want string // in the error; empty: none
	}{
		{name: "an empty set", doc: `{"keys":[]}`},
		{name: "unknown members", doc: `{"keys":[],"next":{"a":[1,null]}}`},
		{name: "white space around it", doc: " \r\n\t{ \"keys\" : [ ] }\n"},
		{name: "256 keys", doc: many(256)},
		{name: "257 keys", doc: many(257), want: "more than 256 keys"},
		{name: "1 MiB", doc: padded(1 << 20)},
		{name: "1 MiB and a byte", doc: padded(1<<20 + 1), want: "at most 1048576"},
		{name: "nothing", doc: ``, want: "not valid JSON"},
		{name: "HTML", doc: `<html></html>`, want: "not valid JSON"},
		{name: "truncated", doc: `{"keys":[`, want: "not valid JSON"},
		{name: "trailing text", doc: `{"keys":[]}x`, want: "not valid JSON"},
		{name: "two documents", doc: `{"keys":[]}{"keys":[]}`, want: "not valid JSON"},
		{name: "a trailing comma", doc: `{"keys":[],}`, want: "not valid JSON"},
		{name: "a comment", doc: `{"keys":[]/**/}`, want: "not valid JSON"},
		{name: "a byte order mark", doc: "\ufeff{\"keys\":[]}", want: "not valid JSON"},
		{name: "bad UTF-8 in a value", doc: "{\"keys\":[],\"x\":\"\xff\"}", want: "not valid JSON"},
		{name: "bad UTF-8 in a name", doc: "{\"keys\":[],\"\xff\":1}", want: "not valid JSON"},
		{name: "a lone surrogate", doc: `{"keys":[],"x":"\ud800"}`, want: "not valid JSON"},
		{name: "keys twice", doc: `{"keys":[],"keys":[]}`, want: "twice"},
		{name: "keys twice, once escaped", doc: `{"keys":[],"\u006beys":[]}`, want: "twice"},
		{name: "a name twice deep down", doc: `{"keys":[],"x":[{"a":{"b":1,"b":2}}]}`, want: "not valid JSON"},
		{name: "depth 100", doc: deep(100)},
		{name: "depth 100000", doc: deep(100000), want: "not valid JSON"},
		{name: "null", doc: `null`, want: "want a JSON object"},
		{name: "an array", doc: `[]`, want: "want a JSON object"},
		{name: "a string", doc: `"keys"`, want: "want a JSON object"},
		{name: "a number", doc: `1`, want: "want a JSON object"},
		{name: "no keys", doc: `{}`, want: `no "keys" member`},
		{name: "keys null", doc: `{"keys":null}`, want: "not an array"},
		{name: "keys an object", doc: `{"keys":{}}`, want: "not an array"},
		{name: "keys a string", doc: `{"keys":"[]"}`, want: "not an array"},
		{name: "KEYS", doc: `{"KEYS":[]}`, want: `no "keys" member`},
		{name: "keys with a long s", doc: `{"keyſ":[]}`, want: `no "keys" member`},
		{name: "a bare JWK", doc: `{"kty":"oct","k":"c2VjcmV0"}`, want: `wrap it in {"keys":[ ]}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			keys, err := ParseSet([]byte(tt.doc))
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error = %v, want one with %q", err, tt.want)
			}
			if err != nil && keys != nil {
				t.Error("keys along with an error")
			}
		})
	}
}

func TestErrorsDoNotQuoteTheDocument(t *testing.T) {
	const secret = "hunter2hunter2hunter2"
	for _, doc := range []string{
		`{"keys":[{"k":"` + secret + `"}],"keys":[]}`, `{"` + secret + `":1,"` + secret + `":2}`, `{"keys":` + secret + `}`,
		secret, `"` + secret + `"`, `{"keys":"` + secret + `"}`, `{"kty":"oct","k":"` + secret + `"}`, `{"keys":[],"x":"` + secret + "\xff\"}",
	} {
		_, err := ParseSet([]byte(doc))
		if err == nil || strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "hunter") {
			t.Errorf("ParseSet(%s) error = %v", doc, err)
		}
	}
}

// parseOne parses a set of one key.
func parseOne(t *testing.T, key string) JWK {
	t.Helper()
	keys, err := ParseSet([]byte(`{"keys":[` + key + `]}`))
	if err != nil || len(keys) != 1 {
		t.Fatalf("ParseSet = %d keys, %v", len(keys), err)
	}
	return keys[0]
}

func TestMembers(t *testing.T) {
	k := parseOne(t, `{"kty":"EC","crv":"P-256","kid":"k\u00e9","use":"sig","alg":"ES256","key_ops":["verify","x"],"x5c":17,"x5t":{},"x":1}`)
	if k.Err != nil || k.Type != "EC" || k.Curve != "P-256" || k.KID != "ké" || k.Use != "sig" || k.Algorithm != "ES256" || fmt.Sprint(k.KeyOps) != "[verify x]" ||
		!k.HasKID || !k.HasUse || !k.HasAlgorithm || !k.HasKeyOps || k.Private {
		t.Errorf("parsed %+v", k)
	}
	k = parseOne(t, `{"kty":"EC"}`)
	if k.Err != nil || k.HasKID || k.HasUse || k.HasAlgorithm || k.HasKeyOps || k.KeyOps != nil {
		t.Errorf("parsed %+v", k)
	}
	k = parseOne(t, `{"kty":"EC","kid":"","use":"","alg":"","key_ops":[]}`)
	if k.Err != nil || !k.HasKID || !k.HasUse || !k.HasAlgorithm || !k.HasKeyOps {
		t.Errorf("parsed %+v", k)
	}
}

func TestMembersOfTheWrongType(t *testing.T) {
	for _, key := range []string{
		`null`, `1`, `"kty"`, `[]`, `[{"kty":"RSA"}]`, `true`,
		`{}`, `{"kty":null}`, `{"kty":1}`, `{"kty":["RSA"]}`, `{"KTY":"RSA"}`, `{"Kty":"RSA"}`,
		`{"kty":"RSA","kid":1}`, `{"kty":"RSA","kid":null}`, `{"kty":"RSA","kid":["a"]}`,
		`{"kty":"RSA","use":1}`, `{"kty":"RSA","use":null}`, `{"kty":"RSA","use":["sig"]}`,
		`{"kty":"RSA","alg":null}`, `{"kty":"RSA","alg":256}`,
		`{"kty":"RSA","key_ops":"verify"}`, `{"kty":"RSA","key_ops":null}`, `{"kty":"RSA","key_ops":{}}`,
		`{"kty":"RSA","key_ops":["verify",null]}`, `{"kty":"RSA","key_ops":["verify",["x"]]}`, `{"kty":"RSA","key_ops":["verify",1]}`,
		`{"kty":"RSA","key_ops":["verify","verify"]}`,
		`{"kty":"EC","crv":256}`, `{"kty":"EC","crv":null}`,
	} {
		k := parseOne(t, key)
		if k.Err == nil {
			t.Errorf("%s: no error", key)
		}
		if pub, err := k.Public(); err == nil || pub != nil {
			t.Errorf("%s: Public = %v, %v", key, pub, err)
		}
		if secret, err := k.Secret(); err == nil || secret != nil {
			t.Errorf("%s: Secret = %v, %v", key, secret, err)
		}
	}
}

func TestOneBadKeyDoesNotFailTheSet(t *testing.T) {
	keys, err := ParseSet([]byte(`{"keys":[null,{"kty":7},{"kty":"AKP","pub":"AAAA"},{"kty":"OKP","crv":"Ed25519","x":"` + edX + `"},[]]}`))
	if err != nil || len(keys) != 5 {
		t.Fatalf("ParseSet = %d keys, %v", len(keys), err)
	}
	for i := range keys {
		if _, err := keys[i].Public(); (err == nil) != (i == 3) {
			t.Errorf("key %d: Public error = %v", i, err)
		}
	}
}

func TestPrivateMembers(t *testing.T) {
	for member, want := range map[string]bool{
		"d": true, "p": true, "q": true, "dp": true, "dq": true, "qi": true, "oth": true,
		"D": false, "Q": false, "k": false, "x5c": false, "pq": false,
	} {
		for _, value := range []string{`"AQAB"`, `""`, `null`, `1`, `[]`} {
			k := parseOne(t, `{"kty":"RSA","`+member+`":`+value+`}`)
			if k.Private != want {
				t.Errorf("member %q of %s: Private = %v, want %v", member, value, k.Private, want)
			}
		}
	}
	// Heard even where the rest makes no sense.
	if k := parseOne(t, `{"kty":1,"d":"x"}`); !k.Private || k.Err == nil {
		t.Errorf("parsed %+v", k)
	}
}

func TestRSA(t *testing.T) {
	n := b64(odd2048.Bytes())
	e := func(hex string) string {
		v, _ := new(big.Int).SetString(hex, 16)
		b := v.Bytes()
		if len(hex)/2 > len(b) {
			b = append(make([]byte, len(hex)/2-len(b)), b...)
		}
		return b64(b)
	}
	tests := []struct {
		name    string
		members string
		e       int // 0: refused
	}{
		{name: "65537", members: `"n":"` + n + `","e":"AQAB"`, e: 65537},
		{name: "e = 3 is for others to judge", members: `"n":"` + n + `","e":"Aw"`, e: 3},
		{name: "e = 1 is for others to judge", members: `"n":"` + n + `","e":"AQ"`, e: 1},
		{name: "leading zero in n", members: `"n":"` + b64(append([]byte{0}, odd2048.Bytes()...)) + `","e":"AQAB"`, e: 65537},
		{name: "leading zero in e", members: `"n":"` + n + `","e":"` + e("00010001") + `"`, e: 65537},
		{name: "e = 2^31 - 1", members: `"n":"` + n + `","e":"` + e("7fffffff") + `"`, e: 1<<31 - 1},
		{name: "e = 2^31", members: `"n":"` + n + `","e":"` + e("80000000") + `"`},
		{name: "e = 2^32 + 65537", members: `"n":"` + n + `","e":"` + e("0100010001") + `"`},
		{name: "e = 2^64 + 65537 must not wrap", members: `"n":"` + n + `","e":"` + e("010000000000010001") + `"`},
		{name: "e of 1000 bytes", members: `"n":"` + n + `","e":"` + b64(bytes.Repeat([]byte{1}, 1000)) + `"`},
		{name: "no e", members: `"n":"` + n + `"`},
		{name: "E", members: `"n":"` + n + `","E":"AQAB"`},
		{name: "empty e", members: `"n":"` + n + `","e":""`},
		{name: "e a number", members: `"n":"` + n + `","e":65537`},
		{name: "no n", members: `"e":"AQAB"`},
		{name: "N", members: `"N":"` + n + `","e":"AQAB"`},
		{name: "empty n", members: `"n":"","e":"AQAB"`},
		{name: "n null", members: `"n":null,"e":"AQAB"`},
		{name: "padded e", members: `"n":"` + n + `","e":"AQAB="`},
		{name: "escaped, which is the same text", members: `"\u006e":"` + n + `","e":"\u0041QAB"`, e: 65537},
		{name: "N beside n is nobody's", members: `"n":"` + n + `","N":"AQAB","e":"AQAB","E":"Aw"`, e: 65537},
		{name: "a chain that is none", members: `"n":"` + n + `","e":"AQAB","x5c":["!"],"x5t":1,"x5u":null`, e: 65537},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := parseOne(t, `{"kty":"RSA",`+tt.members+`}`)
			pub, err := k.Public()
			if tt.e == 0 {
				if err == nil || pub != nil {
					t.Errorf("Public = %v, %v, want an error", pub, err)
				}
				return
			}
			if want := (&rsa.PublicKey{N: odd2048, E: tt.e}); err != nil || !want.Equal(pub) {
				t.Errorf("Public = %v, %v, want exponent %d", pub, err, tt.e)
			}
		})
	}
}

func TestRSAZeroExponent(t *testing.T) {
	k := parseOne(t, `{"kty":"RSA","n":"`+b64(odd2048.Bytes())+`","e":"AA"}`)
	pub, err := k.Public()
	if err != nil || pub.(*rsa.PublicKey).E != 0 {
		t.Errorf("Public = %v, %v: want exponent 0, for keystore to refuse", pub, err)
	}
}

// RFC 7515, section 2: base64url without padding, white space or other
// characters; and no bits left over, so that a key has one spelling.
func TestBase64url(t *testing.T) {
	good := b64(bytes.Repeat([]byte{0xfb, 0xff}, 16)) // 43 characters: two bits left over
	k := parseOne(t, `{"kty":"oct","k":"`+good+`"}`)
	if secret, err := k.Secret(); err != nil || len(secret) != 32 {
		t.Fatalf("Secret = %d bytes, %v", len(secret), err)
	}
	for name, bad := range map[string]string{
		"padding":              good + "=",
		"a space":              good + " ",
		"a line feed":          good[:4] + `\n` + good[4:],
		"a final line feed":    good + `\n`,
		"a carriage return":    good[:4] + `\r` + good[4:],
		"standard alphabet":    strings.NewReplacer("-", "+", "_", "/").Replace(good),
		"stray bits":           good[:42] + string(good[42]+1),
		"one character":        "A",
		"a length of 4n+1":     good + "AA",
		"a NUL":                good + `\u0000`,
		"nothing":              "",
		"only line ends":       `\r\n`,
		"a fullwidth letter":   good[:42] + "Ａ",
		"percent-encoded text": "%41" + good,
	} {
		k := parseOne(t, `{"kty":"oct","k":"`+bad+`"}`)
		if secret, err := k.Secret(); err == nil || secret != nil {
			t.Errorf("%s: Secret = %v, %v, want an error", name, secret, err)
		} else if len(bad) > 8 && strings.Contains(err.Error(), bad[:8]) {
			t.Errorf("%s: the error quotes the secret: %v", name, err)
		}
	}
}

func TestEC(t *testing.T) {
	x, _ := base64.RawURLEncoding.DecodeString(p256X)
	y, _ := base64.RawURLEncoding.DecodeString(p256Y)
	flipped := append(bytes.Clone(y[:31]), y[31]^1)
	zero := make([]byte, 32)
	jwk := func(crv string, x, y []byte) string {
		return `{"kty":"EC","crv":"` + crv + `","x":"` + b64(x) + `","y":"` + b64(y) + `"}`
	}
	tests := []struct {
		name string
		key  string
		ok   bool
	}{
		{name: "RFC 7515, A.3", key: jwk("P-256", x, y), ok: true},
		{name: "off the curve", key: jwk("P-256", x, flipped)},
		{name: "swapped", key: jwk("P-256", y, x)},
		{name: "infinity", key: jwk("P-256", zero, zero)},
		{name: "P-256 coordinates under P-384", key: jwk("P-384", x, y)},
		{name: "the same, filled up", key: jwk("P-384", append(make([]byte, 16), x...), append(make([]byte, 16), y...))},
		{name: "x with a leading zero too many", key: jwk("P-256", append([]byte{0}, x...), y)},
		{name: "y with a leading zero too many", key: jwk("P-256", x, append([]byte{0}, y...))},
		{name: "x a byte short", key: jwk("P-256", x[1:], y)},
		{name: "empty y", key: jwk("P-256", x, nil)},
		{name: "secp256k1", key: jwk("secp256k1", x, y)},
		{name: "P-224", key: jwk("P-224", x[:28], y[:28])},
		{name: "p-256", key: jwk("p-256", x, y)},
		{name: "no curve", key: jwk("", x, y)},
		{name: "Ed25519 under EC", key: jwk("Ed25519", x, y)},
		{name: "no crv", key: `{"kty":"EC","x":"` + p256X + `","y":"` + p256Y + `"}`},
		{name: "CRV", key: `{"kty":"EC","CRV":"P-256","x":"` + p256X + `","y":"` + p256Y + `"}`},
		{name: "Y", key: `{"kty":"EC","crv":"P-256","x":"` + p256X + `","Y":"` + p256Y + `"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := parseOne(t, tt.key)
			pub, err := k.Public()
			if (err == nil) != tt.ok || (pub != nil) != tt.ok {
				t.Errorf("Public = %v, %v, want ok %v", pub, err, tt.ok)
			}
		})
	}
}

// A coordinate with a leading zero keeps it (RFC 7518, section 6.2.1.2).
func TestECLeadingZero(t *testing.T) {
	for {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		point, err := key.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if point[1] != 0 {
			continue
		}
		x, y := point[1:33], point[33:]
		k := parseOne(t, `{"kty":"EC","crv":"P-256","x":"`+b64(x)+`","y":"`+b64(y)+`"}`)
		if pub, err := k.Public(); err != nil || !key.PublicKey.Equal(pub) {
			t.Errorf("Public = %v, %v", pub, err)
		}
		k = parseOne(t, `{"kty":"EC","crv":"P-256","x":"`+b64(x[1:])+`","y":"`+b64(y)+`"}`)
		if pub, err := k.Public(); err == nil {
			t.Errorf("without the zero: Public = %v, want an error", pub)
		}
		return
	}
}

func TestOKP(t *testing.T) {
	x, _ := base64.RawURLEncoding.DecodeString(edX)
	tests := []struct {
		name string
		crv  string
		x    []byte
		ok   bool
	}{
		{name: "RFC 8037, A.2", crv: "Ed25519", x: x, ok: true},
		{name: "31 bytes", crv: "Ed25519", x: x[:31]},
		{name: "33 bytes", crv: "Ed25519", x: append(bytes.Clone(x), 0)},
		{name: "X25519", crv: "X25519", x: x},
		{name: "Ed448", crv: "Ed448", x: make([]byte, 57)},
		{name: "ed25519", crv: "ed25519", x: x},
		{name: "P-256", crv: "P-256", x: x},
		{name: "none", crv: "", x: x},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := parseOne(t, `{"kty":"OKP","crv":"`+tt.crv+`","x":"`+b64(tt.x)+`"}`)
			pub, err := k.Public()
			if (err == nil) != tt.ok || (pub != nil) != tt.ok {
				t.Errorf("Public = %v, %v, want ok %v", pub, err, tt.ok)
			}
		})
	}
}

func TestSecretsAndPublicKeysDoNotMix(t *testing.T) {
	k := parseOne(t, `{"kty":"oct","k":"AAAA","n":"AQAB","e":"AQAB"}`)
	if pub, err := k.Public(); err == nil {
		t.Errorf("Public of an oct key = %v", pub)
	}
	k = parseOne(t, `{"kty":"OKP","crv":"Ed25519","x":"`+edX+`","k":"AAAA"}`)
	if secret, err := k.Secret(); err == nil {
		t.Errorf("Secret of an OKP key = %v", secret)
	}
	k = parseOne(t, `{"kty":"oct","K":"AAAA"}`)
	if secret, err := k.Secret(); err == nil {
		t.Errorf("K was taken for k: %v", secret)
	}
}

func TestJWKIsNotPrinted(t *testing.T) {
	secret := "correct horse battery staple, 32"
	k := parseOne(t, `{"kty":"oct","k":"`+b64([]byte(secret))+`"}`)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q"} {
		out := fmt.Sprintf(verb, k) + fmt.Sprintf(verb, &k) + fmt.Sprintf(verb, []JWK{k})
		for _, needle := range []string{secret[:8], b64([]byte(secret))[:8], fmt.Sprintf("%x", secret[:8])} {
			if strings.Contains(out, needle) {
				t.Errorf("%s prints the secret", verb)
			}
		}
	}
}

func TestQuoteIsBounded(t *testing.T) {
	if got := Quote("a\nb"); got != `"a\nb"` {
		t.Errorf("Quote = %s", got)
	}
	if got := Quote(strings.Repeat("x", 1<<20)); len(got) > 100 {
		t.Errorf("Quote of 1 MiB has %d bytes", len(got))
	}
}
