package jwks

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestSplitSet(t *testing.T) {
	deep := func(n int) string { return `{"keys":[],"x":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}` }
	many := func(n int) string { return `{"keys":[` + strings.TrimSuffix(strings.Repeat("{},", n), ",") + `]}` }
	tests := []struct {
		name string
		doc  string
		want string // in the error; empty: none
	}{
		{name: "an empty set", doc: `{"keys":[]}`},
		{name: "unknown members", doc: `{"keys":[],"next":{"a":[1,null]}}`},
		{name: "white space around it", doc: " \r\n\t{ \"keys\" : [ ] }\n"},
		{name: "1024 keys", doc: many(1024)},
		{name: "more keys than are read", doc: many(5000)},
		{name: "a byte order mark", doc: "\ufeff{\"keys\":[]}"},
		{name: "two byte order marks", doc: "\ufeff\ufeff{\"keys\":[]}", want: "not valid JSON"},
		{name: "a byte order mark alone", doc: "\ufeff", want: "it is empty"},
		{name: "a byte order mark inside", doc: "{\ufeff\"keys\":[]}", want: "not valid JSON"},
		{name: "UTF-16", doc: "\xff\xfe{\x00}\x00", want: "not valid JSON"},
		{name: "nothing", doc: ``, want: "not valid JSON"},
		{name: "HTML", doc: `<html></html>`, want: "not valid JSON"},
		{name: "truncated", doc: `{"keys":[`, want: "not valid JSON"},
		{name: "trailing text", doc: `{"keys":[]}x`, want: "not valid JSON"},
		{name: "two documents", doc: `{"keys":[]}{"keys":[]}`, want: "not valid JSON"},
		{name: "a trailing comma", doc: `{"keys":[],}`, want: "not valid JSON"},
		{name: "a comment", doc: `{"keys":[]/**/}`, want: "not valid JSON"},
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
		{name: "keys null beside a bare JWK", doc: `{"keys":null,"kty":"RSA"}`, want: "wrap it"},
		{name: "keys an object", doc: `{"keys":{}}`, want: "not an array"},
		{name: "keys a string", doc: `{"keys":"[]"}`, want: "not an array"},
		{name: "KEYS", doc: `{"KEYS":[]}`, want: `no "keys" member`},
		{name: "keys with a long s", doc: `{"keyſ":[]}`, want: `no "keys" member`},
		{name: "a bare JWK", doc: `{"kty":"oct","k":"c2VjcmV0"}`, want: `wrap it in {"keys":[ ]}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			keys, err := splitSet([]byte(tt.doc), minElements)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error = %v, want one with %q", err, tt.want)
			}
			if err != nil && keys != nil {
				t.Error("keys along with an error")
			}
			if len(keys) > minElements+1 {
				t.Errorf("%d keys were read", len(keys))
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
		_, err := splitSet([]byte(doc), minElements)
		if err == nil || strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "hunter") {
			t.Errorf("splitSet(%s) error = %v", doc, err)
		}
	}
}

func TestReadMembers(t *testing.T) {
	given := func(s string) text { return text{s, true} }
	tests := []struct {
		name string
		key  string
		want jwk
		ops  string
	}{
		{
			name: "all", ops: "[verify x]",
			key:  `{"kty":"EC","crv":"P-256","kid":"k\u00e9","use":"sig","alg":"ES256","key_ops":["verify","x"],"x5c":17,"x5t":{},"x":1}`,
			want: jwk{kty: given("EC"), crv: given("P-256"), kid: given("ké"), use: given("sig"), alg: given("ES256"), hasKeyOps: true},
		},
		{name: "none", ops: "[]", key: `{"kty":"EC"}`, want: jwk{kty: given("EC")}},
		{
			name: "empty", ops: "[]",
			key:  `{"kty":"EC","kid":"","use":"","alg":"","key_ops":[]}`,
			want: jwk{kty: given("EC"), use: given(""), alg: given("")},
		},
		{
			name: "null", ops: "[]",
			key:  `{"kty":"EC","crv":null,"kid":null,"use":null,"alg":null,"key_ops":null,"d":null,"k":null,"x5c":null}`,
			want: jwk{kty: given("EC")},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := readOne(t, tt.key)
			if ops := fmt.Sprint(k.keyOps); ops != tt.ops {
				t.Errorf("key_ops are %s, want %s", ops, tt.ops)
			}
			k.keyOps, k.member = nil, nil
			if !reflect.DeepEqual(k, tt.want) {
				t.Errorf("read %+v, want %+v", k, tt.want)
			}
		})
	}
}

func TestMembersOfWrongType(t *testing.T) {
	for _, key := range []string{
		`null`, `1`, `"kty"`, `[]`, `[{"kty":"RSA"}]`, `true`,
		`{}`, `{"kty":null}`, `{"kty":1}`, `{"kty":["RSA"]}`, `{"KTY":"RSA"}`, `{"Kty":"RSA"}`,
		`{"kty":"RSA","kid":1}`, `{"kty":"RSA","kid":["a"]}`,
		`{"kty":"RSA","use":1}`, `{"kty":"RSA","use":["sig"]}`,
		`{"kty":"RSA","alg":256}`, `{"kty":"RSA","alg":[]}`, `{"kty":"RSA","use":[]}`, `{"kty":"RSA","kid":[]}`,
		`{"kty":"RSA","key_ops":"verify"}`, `{"kty":"RSA","key_ops":""}`, `{"kty":"RSA","key_ops":{}}`,
		`{"kty":"RSA","key_ops":["verify",null]}`, `{"kty":"RSA","key_ops":["verify",["x"]]}`, `{"kty":"RSA","key_ops":["verify",1]}`,
		`{"kty":"RSA","key_ops":["verify","verify"]}`,
		`{"kty":"EC","crv":256}`, `{"kty":"EC","crv":{}}`,
	} {
		k := readOne(t, key)
		if k.unreadable == nil {
			t.Errorf("%s: no error", key)
		}
		for _, secrets := range []bool{true, false} {
			if keys, err := k.judge("acme", reading{secrets: secrets}); err != k.unreadable || keys != nil {
				t.Errorf("%s: judge = %v, %v, want the reason %v", key, keys, err, k.unreadable)
			}
		}
	}
}

func TestOneBadKeyDoesNotFailTheSet(t *testing.T) {
	keys, err := splitSet([]byte(`{"keys":[null,{"kty":7},{"kty":"AKP","pub":"AAAA"},{"kty":"OKP","crv":"Ed25519","x":"`+edX+`"},[]]}`), minElements)
	if err != nil || len(keys) != 5 {
		t.Fatalf("splitSet = %d keys, %v", len(keys), err)
	}
	for i := range keys {
		k := readJWK(keys[i])
		if _, err := k.judge("acme", reading{}); (err == nil) != (i == 3) {
			t.Errorf("key %d: judge error = %v", i, err)
		}
	}
}

func TestPrivateMembers(t *testing.T) {
	for member, want := range map[string]bool{
		"d": true, "p": true, "q": true, "dp": true, "dq": true, "qi": true, "oth": true,
		"D": false, "Q": false, "k": false, "x5c": false, "pq": false,
	} {
		for value, content := range map[string]bool{
			`"AQAB"`: true, `1`: true, `0`: true, `false`: true, `{}`: true, `[1]`: true, `[""]`: true, `" "`: true, `"="`: true, `"\u0000"`: true,
			`""`: false, `null`: false, `[]`: false, "[ \n\t]": false,
		} {
			k := readOne(t, `{"kty":"RSA","`+member+`" : `+value+` }`)
			if k.private != (want && content) || k.secret != (member == "k" && content) {
				t.Errorf("member %q of %s: private = %v, secret = %v", member, value, k.private, k.secret)
			}
		}
	}
	// Of a member that is there twice, the one with content counts.
	if k := readOne(t, `{"kty":"RSA","d":null,"d":"x","d":""}`); !k.private || k.unreadable == nil {
		t.Errorf("parsed %+v", k)
	}
	// They are found even where the rest makes no sense.
	if k := readOne(t, `{"kty":1,"d":"x"}`); !k.private || k.unreadable == nil {
		t.Errorf("parsed %+v", k)
	}
}

// RFC 7515, section 2: base64url has no padding, no white space and no other characters. It has no
// bits left over, so that a key has one spelling.
func TestBase64url(t *testing.T) {
	good := b64(bytes.Repeat([]byte{0xfb, 0xff}, 16)) // 43 characters: two bits left over
	k := readOne(t, `{"kty":"oct","k":"`+good+`"}`)
	if secret, err := k.octKey(); err != nil || len(secret) != 32 {
		t.Fatalf("octKey = %d bytes, %v", len(secret), err)
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
		k := readOne(t, `{"kty":"oct","k":"`+bad+`"}`)
		if secret, err := k.octKey(); err == nil || secret != nil {
			t.Errorf("%s: octKey = %v, %v, want an error", name, secret, err)
		} else if len(bad) > 8 && strings.Contains(err.Error(), bad[:8]) {
			t.Errorf("%s: the error quotes the secret: %v", name, err)
		}
	}
}

func TestJWKIsNotPrinted(t *testing.T) {
	secret := "correct horse battery staple, 32"
	k := readOne(t, `{"kty":"oct","k":"`+b64([]byte(secret))+`"}`)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q"} {
		out := fmt.Sprintf(verb, k) + fmt.Sprintf(verb, &k) + fmt.Sprintf(verb, []jwk{k})
		for _, needle := range []string{secret[:8], b64([]byte(secret))[:8], fmt.Sprintf("%x", secret[:8])} {
			if strings.Contains(out, needle) {
				t.Errorf("%s prints the secret", verb)
			}
		}
	}
}

func TestQuoteIsBounded(t *testing.T) {
	if got := quote("a\nb"); got != `"a\nb"` {
		t.Errorf("quote = %s", got)
	}
	if got := quote(strings.Repeat("x", 1<<20)); len(got) > 100 {
		t.Errorf("quote of 1 MiB has %d bytes", len(got))
	}
}
