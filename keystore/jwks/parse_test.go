package jwks_test

import (
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
)

// A parseCase is one JWK, which is parsed beside a good one.
type parseCase struct {
	name    string
	key     string
	want    string // keys, as kid:alg
	skipped string // part of the reason
}

func parseCases() []parseCase {
	const allRSA = "a:RS256 a:RS384 a:RS512 a:PS256 a:PS384 a:PS512"
	kid := `"kid":"a",`
	rsa2048 := rsaMembers(2048, 1)
	p256 := ecMembers(elliptic.P256())
	return []parseCase{
		// The algorithms of a key, by its type and curve if it has no alg.
		{name: "RSA", key: kid + rsa2048, want: allRSA},
		{name: "RSA with alg", key: kid + `"alg":"PS384",` + rsa2048, want: "a:PS384"},
		{name: "P-256", key: kid + p256, want: "a:ES256"},
		{name: "P-256 with alg", key: kid + `"alg":"ES256",` + p256, want: "a:ES256"},
		{name: "P-384", key: kid + ecMembers(elliptic.P384()), want: "a:ES384"},
		{name: "P-521", key: kid + ecMembers(elliptic.P521()), want: "a:ES512"},
		{name: "Ed25519", key: kid + edMembers(1), want: "a:EdDSA a:Ed25519"},
		{name: "Ed25519 with the older alg", key: kid + `"alg":"EdDSA",` + edMembers(1), want: "a:EdDSA"},
		{name: "Ed25519 with the newer alg", key: kid + `"alg":"Ed25519",` + edMembers(1), want: "a:Ed25519"},
		{name: "unknown members", key: kid + `"x5c":[1],"x5t":null,"K":"x","ext":true,` + edMembers(1), want: "a:EdDSA a:Ed25519"},

		// alg.
		{name: "alg of encryption", key: kid + `"alg":"RSA-OAEP",` + rsa2048, skipped: `its alg is "RSA-OAEP"`},
		{name: "alg none", key: kid + `"alg":"none",` + rsa2048, skipped: `its alg is "none"`},
		{name: "alg empty", key: kid + `"alg":"",` + rsa2048, skipped: `its alg is ""`},
		{name: "alg of another case", key: kid + `"alg":"rs256",` + rsa2048, skipped: `its alg is "rs256"`},
		{name: "alg of another type", key: kid + `"alg":"ES256",` + rsa2048, skipped: "does not fit"},
		{name: "alg of another curve", key: kid + `"alg":"ES384",` + p256, skipped: "does not fit"},
		{name: "alg of a secret", key: kid + `"alg":"HS256",` + rsa2048, skipped: "does not fit"},
		{name: "EdDSA of a curve that it does not have", key: kid + `"alg":"EdDSA",` + p256, skipped: "does not fit"},
		{name: "alg null", key: kid + `"alg":null,` + rsa2048, want: allRSA},

		// use and key_ops.
		{name: "use sig", key: kid + `"use":"sig",` + p256, want: "a:ES256"},
		{name: "use enc", key: kid + `"use":"enc",` + p256, skipped: `its use is "enc"`},
		{name: "use SIG", key: kid + `"use":"SIG",` + p256, skipped: `its use is "SIG"`},
		{name: "use empty", key: kid + `"use":"",` + p256, skipped: `its use is ""`},
		{name: "use a number", key: kid + `"use":1,` + p256, skipped: `"use" is not a string`},
		{name: "key_ops verify", key: kid + `"key_ops":["verify"],` + p256, want: "a:ES256"},
		{name: "key_ops sign and verify", key: kid + `"key_ops":["sign","verify"],` + p256, want: "a:ES256"},
		{name: "key_ops sign", key: kid + `"key_ops":["sign"],` + p256, skipped: "key_ops do not include"},
		{name: "key_ops VERIFY", key: kid + `"key_ops":["VERIFY"],` + p256, skipped: "key_ops do not include"},
		{name: "use null", key: kid + `"use":null,` + p256, want: "a:ES256"},
		{name: "key_ops empty", key: kid + `"key_ops":[],` + p256, want: "a:ES256"},
		{name: "key_ops null", key: kid + `"key_ops":null,` + p256, want: "a:ES256"},
		{name: "key_ops of an empty text", key: kid + `"key_ops":[""],` + p256, skipped: "key_ops do not include"},
		{name: "key_ops with null", key: kid + `"key_ops":["verify",null],` + p256, skipped: "not an array of strings"},
		{name: "use enc, key_ops empty", key: kid + `"use":"enc","key_ops":[],` + p256, skipped: "use"},
		{name: "key_ops a string", key: kid + `"key_ops":"verify",` + p256, skipped: "not an array of strings"},
		{name: "key_ops with a value twice", key: kid + `"key_ops":["verify","verify"],` + p256, skipped: "twice"},
		{name: "use and key_ops agree", key: kid + `"use":"sig","key_ops":["verify"],` + p256, want: "a:ES256"},
		{name: "use sig, key_ops encrypt", key: kid + `"use":"sig","key_ops":["encrypt","wrapKey"],` + p256, skipped: "key_ops"},
		{name: "use sig, key_ops verify and encrypt", key: kid + `"use":"sig","key_ops":["verify","encrypt"],` + p256, skipped: "contradict"},
		{name: "use enc, key_ops verify", key: kid + `"use":"enc","key_ops":["verify"],` + p256, skipped: "use"},

		// kid.
		{name: "no kid", key: `"alg":"ES256",` + p256, want: ":ES256"},
		{name: "kid of 256 bytes", key: `"kid":"` + strings.Repeat("k", 256) + `",` + p256, want: strings.Repeat("k", 256) + ":ES256"},
		{name: "kid of 257 bytes", key: `"kid":"` + strings.Repeat("k", 257) + `",` + p256, skipped: "257 bytes"},
		{name: "kid empty", key: `"kid":"",` + p256, want: ":ES256"},
		{name: "kid a number", key: `"kid":1,` + p256, skipped: `"kid" is not a string`},
		{name: "kid null", key: `"kid":null,` + p256, want: ":ES256"},
		{name: "KID is not kid", key: `"KID":"b","alg":"ES256",` + p256, want: ":ES256"},

		// Material.
		{name: "unknown kty", key: kid + `"kty":"AKP","alg":"ML-DSA-44","pub":"AAAA"`, skipped: `unknown kty "AKP"`},
		{name: "kty of another case", key: kid + `"kty":"rsa","n":"AQAB","e":"AQAB"`, skipped: `unknown kty "rsa"`},
		{name: "no kty", key: kid + `"alg":"RS256"`, skipped: `no "kty"`},
		{name: "RSA 2047", key: kid + rsaMembers(2047, 1), skipped: "2047 bits"},
		{name: "RSA 512", key: kid + rsaMembers(512, 1), skipped: "512 bits"},
		{name: "RSA 8192", key: kid + `"alg":"RS256",` + rsaMembers(8192, 1), want: "a:RS256"},
		{name: "RSA 16384", key: kid + rsaMembers(16384, 1), skipped: "16384 bits"},
		{name: "RSA e = 1", key: kid + strings.Replace(rsa2048, "AQAB", "AQ", 1), skipped: "exponent 1"},
		{name: "RSA e = 0", key: kid + strings.Replace(rsa2048, "AQAB", "AA", 1), skipped: "exponent 0"},
		{name: "RSA e = 2^64 + 65537", key: kid + strings.Replace(rsa2048, "AQAB", "AQAAAAAAAQAB", 1), skipped: "exponent"},
		{name: "Ed25519 of small order", key: kid + `"kty":"OKP","crv":"Ed25519","x":"` + b64(make([]byte, 32)) + `"`, skipped: "small order"},
		{name: "Ed25519 of 31 bytes", key: kid + `"kty":"OKP","crv":"Ed25519","x":"` + b64(make([]byte, 31)) + `"`, skipped: "31 bytes"},
		{name: "X25519", key: kid + strings.Replace(edMembers(1), "Ed25519", "X25519", 1), skipped: `"X25519"`},
		{name: "Ed448", key: kid + `"kty":"OKP","crv":"Ed448","x":"` + b64(make([]byte, 57)) + `"`, skipped: `"Ed448"`},
		{name: "P-256 under another crv", key: kid + strings.Replace(p256, "P-256", "P-384", 1), skipped: "P-384 wants 48"},
	}
}

func TestParse(t *testing.T) {
	for _, tt := range parseCases() {
		t.Run(tt.name, func(t *testing.T) {
			// If one key is bad, its neighbour serves.
			keys, skipped, err := jwks.Parse("acme", set(tt.key, `"kid":"neighbour","alg":"EdDSA",`+edMembers(99)))
			if err != nil {
				t.Fatal(err)
			}
			if got, want := names(keys), strings.TrimSpace(tt.want+" neighbour:EdDSA"); got != want {
				t.Errorf("keys %s, want %s", got, want)
			}
			for _, k := range keys {
				if k.ID().Tenant != "acme" {
					t.Errorf("%v is not the tenant's", k)
				}
			}
			switch {
			case tt.skipped == "" && len(skipped) > 0:
				t.Errorf("skipped %v, want none", skipped)
			case tt.skipped != "" && (len(skipped) != 1 || skipped[0].Index != 0 || !strings.Contains(skipped[0].Reason, tt.skipped)):
				t.Errorf("skipped %v, want key 0 for a reason with %q", skipped, tt.skipped)
			case tt.skipped != "" && (skipped[0].Exposed || strings.Contains(skipped[0].Reason, "keystore:")):
				t.Errorf("skipped %+v", skipped[0])
			}
		})
	}
}

func TestSecrets(t *testing.T) {
	kid := `"kid":"a",`
	tests := []struct {
		name    string
		key     string
		want    string
		skipped string

		harmless bool // it holds no secret
	}{
		{name: "64 bytes", key: kid + octMembers(64), want: "a:HS256 a:HS384 a:HS512"},
		{name: "63 bytes", key: kid + octMembers(63), want: "a:HS256 a:HS384"},
		{name: "48 bytes", key: kid + octMembers(48), want: "a:HS256 a:HS384"},
		{name: "47 bytes", key: kid + octMembers(47), want: "a:HS256"},
		{name: "32 bytes", key: kid + octMembers(32), want: "a:HS256"},
		{name: "31 bytes", key: kid + octMembers(31), skipped: "31 bytes, want at least 32"},
		{name: "empty", key: kid + octMembers(0), skipped: `"k" is empty`, harmless: true},
		{name: "no k", key: kid + `"kty":"oct"`, skipped: `no "k"`, harmless: true},
		{name: "k null", key: kid + `"kty":"oct","k":null`, skipped: `no "k"`, harmless: true},
		{name: "K is not k", key: kid + `"kty":"oct","K":"` + b64(make([]byte, 64)) + `"`, skipped: `no "k"`, harmless: true},
		{name: "standard alphabet", key: kid + `"kty":"oct","k":"` + strings.Repeat("++//", 11) + `"`, skipped: "not base64url"},
		{name: "all zero", key: kid + `"kty":"oct","k":"` + b64(make([]byte, 64)) + `"`, skipped: "all zero"},
		{name: "padded", key: kid + `"kty":"oct","k":"` + base64.URLEncoding.EncodeToString([]byte(strings.Repeat("s", 32))) + `"`, skipped: "not base64url"},
		{name: "alg", key: kid + `"alg":"HS384",` + octMembers(64), want: "a:HS384"},
		{name: "alg that it is too short for", key: kid + `"alg":"HS512",` + octMembers(32), skipped: "want at least 64"},
		{name: "alg of a public key", key: kid + `"alg":"RS256",` + octMembers(64), skipped: "does not fit"},
		{name: "alg of encryption", key: kid + `"alg":"A256GCM",` + octMembers(32), skipped: `"A256GCM"`},
		{name: "use enc", key: kid + `"use":"enc",` + octMembers(32), skipped: "use"},
		{name: "key_ops sign alone", key: kid + `"key_ops":["sign"],` + octMembers(32), skipped: "key_ops"},
		{name: "members of a private key mean nothing", key: kid + `"d":"x","alg":"HS256",` + octMembers(32), want: "a:HS256"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			keys, skipped, err := jwks.ParseWithSecrets("acme", set(tt.key))
			if err != nil || names(keys) != tt.want {
				t.Errorf("ParseWithSecrets = %s, %v, want %s", names(keys), err, tt.want)
			}
			if tt.skipped == "" && len(skipped) > 0 || tt.skipped != "" && (len(skipped) != 1 || !strings.Contains(skipped[0].Reason, tt.skipped)) {
				t.Errorf("skipped %v, want a reason with %q", skipped, tt.skipped)
			}

			// In a set that others can read, no secret serves, and each raises an alarm.
			keys, skipped, err = jwks.Parse("acme", set(tt.key))
			if err != nil || len(keys) > 0 || len(skipped) != 1 || skipped[0].Exposed == tt.harmless || strings.HasPrefix(skipped[0].Reason, "ALARM: holds a shared secret") == tt.harmless {
				t.Errorf("Parse = %v, %+v, %v, want an alarm: %v", keys, skipped, err, !tt.harmless)
			}
		})
	}
}

func TestSecretVerifies(t *testing.T) {
	keys, _, err := jwks.ParseWithSecrets("acme", set(`"kid":"a",`+octMembers(32)))
	if err != nil || len(keys) != 1 {
		t.Fatal(keys, err)
	}
	mac := hmac.New(sha256.New, []byte(strings.Repeat("s", 32)))
	mac.Write([]byte("m"))
	if !keys[0].Verify([]byte("m"), mac.Sum(nil)) {
		t.Error("the secret does not verify what it signed")
	}
}

// A private key in a file or on the net is burnt. Not even its public part is used, and the reason
// is an alarm even if another rule refuses the key too.
func TestPrivateKeysRaiseAlarm(t *testing.T) {
	for _, parse := range []func(string, []byte) ([]*keystore.Key, []jwks.Skipped, error){jwks.Parse, jwks.ParseWithSecrets} {
		for _, key := range []string{
			`"kid":"a","d":"AQAB",` + rsaMembers(2048, 1),
			`"kid":"a","p":"AQAB",` + rsaMembers(2048, 1),
			`"kid":"a","oth":[{}],` + rsaMembers(2048, 1),
			`"kid":"a","d":0,` + ecMembers(elliptic.P256()),
			`"kid":"a","d":null,"p":"","q":"AQ",` + rsaMembers(2048, 1),
			`"kid":"a","d":"AQAB",` + edMembers(1),
			`"kid":"a","d":"AQAB","use":"enc",` + edMembers(1),
			`"kid":"a","d":"AQAB","alg":null,` + edMembers(1),
			`"kid":"a","d":"AQAB","kty":"XYZ"`,
		} {
			keys, skipped, err := parse("acme", set(key, edMembers(2)))
			if err != nil || names(keys) != ":EdDSA :Ed25519" {
				t.Errorf("%s: %s, %v, want the other key alone", key, names(keys), err)
			}
			if len(skipped) != 1 || !skipped[0].Exposed || !strings.HasPrefix(skipped[0].Reason, "ALARM: holds a private key") || skipped[0].KID != "a" {
				t.Errorf("%s: skipped %+v, want an alarm", key, skipped)
			}
		}
	}
}

func TestSameKID(t *testing.T) {
	one, two := rsaMembers(2048, 1), rsaMembers(2048, 2)
	rs := func(kid, alg, members string) string {
		return `"kid":"` + kid + `","alg":"` + alg + `",` + members
	}
	oct := func(fill string) string {
		return `"kid":"a","kty":"oct","alg":"HS256","k":"` + b64([]byte(strings.Repeat(fill, 32))) + `"`
	}
	const other = "same kid and alg as another secret: HS256"
	const costly = "3 keys share its kid and alg, which is too costly for one token (at most 8 checks): ES384"
	es384 := func() string { return `"kid":"a",` + ecMembers(elliptic.P384()) }
	tests := []struct {
		name    string
		keys    []string
		want    string
		skipped []string // key N: reason
	}{
		{name: "same alg, other material: both", keys: []string{rs("a", "RS256", one), rs("a", "RS256", two)}, want: "a:RS256 a:RS256"},
		{name: "two slow ones", keys: []string{es384(), es384()}, want: "a:ES384 a:ES384"},
		{name: "three slow ones: none, and the rest serves", keys: []string{es384(), es384(), es384(), rs("a", "RS256", one)}, want: "a:RS256",
			skipped: []string{"0 " + costly, "1 " + costly, "2 " + costly}},
		{name: "two secrets: neither", keys: []string{oct("x"), oct("y")}, skipped: []string{"0 " + other, "1 " + other}},
		{name: "one secret twice", keys: []string{oct("x"), oct("x")}, want: "a:HS256"},
		{name: "identical: once", keys: []string{rs("a", "RS256", one), rs("a", "RS256", one)}, want: "a:RS256"},
		{name: "identical twice, and another", keys: []string{rs("a", "RS256", one), rs("a", "RS256", one), rs("a", "RS256", two)}, want: "a:RS256 a:RS256"},
		{name: "the same key spelled otherwise", keys: []string{`"kid":"a","alg":"EdDSA",` + edMembers(1), `"alg":"EdDSA","kid":"\u0061","use":"sig",` + edMembers(1)}, want: "a:EdDSA"},
		{name: "other alg, same material", keys: []string{rs("a", "RS256", one), rs("a", "PS256", one)}, want: "a:RS256 a:PS256"},
		{name: "other alg, other material", keys: []string{rs("a", "RS256", one), rs("a", "PS256", two)}, want: "a:RS256 a:PS256"},
		{name: "other kty", keys: []string{rs("a", "RS256", one), `"kid":"a","alg":"EdDSA",` + edMembers(1)}, want: "a:RS256 a:EdDSA"},
		{name: "other case of kid", keys: []string{rs("a", "RS256", one), rs("A", "RS256", two)}, want: "a:RS256 A:RS256"},
		{name: "a key that cannot serve does not conflict", keys: []string{rs("a", "RS256", one), `"use":"enc",` + rs("a", "RS256", two)}, want: "a:RS256",
			skipped: []string{`1 its use is "enc", not "sig"`}},
		{name: "without alg, they meet where they overlap", keys: []string{`"kid":"a",` + one, rs("a", "RS384", two)},
			want: "a:RS256 a:RS384 a:RS512 a:PS256 a:PS384 a:PS512 a:RS384"},
		{name: "without alg, and the same with", keys: []string{`"kid":"a",` + edMembers(1), `"kid":"a","alg":"EdDSA",` + edMembers(1)}, want: "a:EdDSA a:Ed25519"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			keys, skipped, err := jwks.ParseWithSecrets("acme", set(tt.keys...))
			if err != nil || names(keys) != tt.want {
				t.Errorf("Parse = %s, %v, want %s", names(keys), err, tt.want)
			}
			var reasons []string
			for _, s := range skipped {
				reasons = append(reasons, fmt.Sprintf("%d %s", s.Index, s.Reason))
			}
			if !slices.Equal(reasons, tt.skipped) {
				t.Errorf("skipped %q, want %q", reasons, tt.skipped)
			}
			if _, err := keystore.NewStatic(keys...); err != nil {
				t.Errorf("NewStatic: %v", err)
			}
		})
	}
}

func TestKeysWithoutKID(t *testing.T) {
	var keys []string
	for i := range 8 {
		keys = append(keys, `"alg":"EdDSA",`+edMembers(byte(i)))
	}
	got, skipped, err := jwks.Parse("acme", set(slices.Clone(keys)...))
	if err != nil || len(got) != 8 || len(skipped) != 0 {
		t.Errorf("eight keys: %s, %v, %v", names(got), skipped, err)
	}
	store, err := keystore.NewStatic(got...)
	if err != nil {
		t.Fatal(err)
	}
	if found, err := store.Lookup(keystore.ID{Tenant: "acme"}, keystore.EdDSA); err != nil || len(found) != 8 {
		t.Errorf("a token without kid finds %v, %v, want all eight", found, err)
	}

	// With the ninth, no key of that alg serves, under neither of its names, and each is reported.
	// Others serve.
	keys = append(keys, edMembers(9), `"kid":"a","alg":"EdDSA",`+edMembers(10))
	got, skipped, err = jwks.Parse("acme", set(slices.Clone(keys)...))
	if err != nil || names(got) != "a:EdDSA" || len(skipped) != 9 {
		t.Errorf("nine keys: %s, %v, %v", names(got), skipped, err)
	}
	for i, s := range skipped {
		want := "10 keys without kid share its alg, which is too costly for one token (at most 8 checks): EdDSA"
		if i == 8 {
			want += ", Ed25519" // it has no alg
		}
		if s.Index != i || s.Reason != want {
			t.Errorf("skipped %v", s)
		}
	}
	if _, err := keystore.NewStatic(got...); err != nil {
		t.Errorf("NewStatic: %v", err)
	}

	// Copies of one key are one key.
	same := slices.Repeat([]string{`"alg":"EdDSA",` + edMembers(1)}, 9)
	if got, skipped, err = jwks.Parse("acme", set(same...)); err != nil || names(got) != ":EdDSA" || len(skipped) != 0 {
		t.Errorf("nine copies: %s, %v, %v", names(got), skipped, err)
	}
}

func TestLimits(t *testing.T) {
	keys := func(n int, format string) []string {
		var all []string
		for i := range n {
			key := ed25519.NewKeyFromSeed(fmt.Appendf(make([]byte, 28), "%04d", i)).Public().(ed25519.PublicKey)
			all = append(all, fmt.Sprintf(format, i)+`"kty":"OKP","crv":"Ed25519","x":"`+b64(key)+`"`)
		}
		return all
	}
	const usable, unusable = `"kid":"%d","alg":"EdDSA",`, `"use":"enc","kid":"%d",`
	tests := []struct {
		name string
		set  []byte
		keys int
		want string // in the error
	}{
		{name: "512 usable", set: set(keys(512, usable)...), keys: 512},
		{name: "513 usable", set: set(keys(513, usable)...), want: "513 usable keys"},
		{name: "512 without alg make more keys", set: set(keys(512, `"kid":"%d",`)...), keys: 1024},
		{name: "512 usable of 1024", set: set(append(keys(512, unusable), keys(512, usable)...)...), keys: 512},
		{name: "1025 of which none is usable", set: set(keys(1025, unusable)...), want: "more than 1024"},
		{name: "1 MiB", set: append(set(), strings.Repeat(" ", 1<<20-len(set()))...)},
		{name: "more than 1 MiB", set: append(set(), strings.Repeat(" ", 1<<20)...), want: "at most 1048576"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, skipped, err := jwks.Parse("acme", tt.set)
			if tt.want == "" && (err != nil || len(got) != tt.keys) {
				t.Errorf("Parse = %d keys, %v, want %d", len(got), err, tt.keys)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || got != nil || skipped != nil) {
				t.Errorf("Parse = %d keys, %d skipped, %v, want an error with %q alone", len(got), len(skipped), err, tt.want)
			}
		})
	}
}

func TestDocumentsThatAreNotSets(t *testing.T) {
	for doc, want := range map[string]string{
		`{"keys":[]}`:              "",
		`{"keys":[null,1,{},"x"]}`: "",
		``:                         "not valid JSON",
		`{}`:                       `no "keys"`,
		`null`:                     "want a JSON object",
		`[]`:                       "want a JSON object",
		`{"keys":null}`:            "not an array",
		`{"keys":[]} x`:            "not valid JSON",
		`{"keys":[],"keys":[]}`:    "twice",
		`{"kty":"RSA","n":"AQAB"}`: "wrap it",
	} {
		keys, _, err := jwks.Parse("acme", []byte(doc))
		if len(keys) > 0 || want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), "jwks: ") || !strings.Contains(err.Error(), want)) {
			t.Errorf("Parse(%s) = %v, %v, want an error with %q", doc, keys, err, want)
		}
	}
}

func TestSkippedString(t *testing.T) {
	tests := []struct {
		s    jwks.Skipped
		want string
	}{
		{jwks.Skipped{Index: 2, KID: "2026-11", Reason: `its use is "enc", not "sig"`}, `key 2 ("2026-11"): its use is "enc", not "sig"`},
		{jwks.Skipped{Index: 0, Reason: "not a JSON object"}, `key 0: not a JSON object`},
		{jwks.Skipped{Index: 1, KID: "a\n\x1b[31m", Reason: "r"}, `key 1 ("a\n\x1b[31m"): r`},
	}
	for _, tt := range tests {
		if got := tt.s.String(); got != tt.want {
			t.Errorf("String() = %s, want %s", got, tt.want)
		}
	}
	if got := (jwks.Skipped{KID: strings.Repeat("k", 1<<20), Reason: "r"}).String(); len(got) > 200 {
		t.Errorf("with a kid of 1 MiB, String() has %d bytes", len(got))
	}
	_, skipped, err := jwks.Parse("acme", set(`"kid":"`+strings.Repeat("k", 1000)+`",`+edMembers(1)))
	if err != nil || len(skipped) != 1 || len(skipped[0].KID) != 1000 {
		t.Errorf("the kid is not as it was sent: %v, %v", skipped, err)
	}
}

func TestParseRealKey(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	keys, _, err := jwks.Parse("acme", set(`"kid":"a","alg":"RS256","kty":"RSA","e":"AQAB","n":"`+b64(append([]byte{0}, key.N.Bytes()...))+`"`))
	if err != nil || len(keys) != 1 {
		t.Fatal(keys, err)
	}
	if pub, ok := keys[0].Public(); !ok || !key.PublicKey.Equal(pub) {
		t.Errorf("Public = %v", pub)
	}
}

func TestVectorSets(t *testing.T) {
	refused := map[string]bool{ // sets without a key that serves
		"jwks-empty": true, "conf-keyalg-enc": true, "alg-EdDSA-ed448": true,
		"key-ec-crv-mismatch": true, "key-rsa-e-0": true, "key-use-enc": true, "key-keyops-encrypt": true,
		"key-keyops-sign-only": true, "key-use-sig-keyops-enc": true, "key-use-number": true,
		"key-rsa1024": true, "key-rsa1024-ps": true, "rsa-e1": true, "ed-key-31": true, "ed-key-x25519": true,
		"key-HS256-short": true, "key-HS384-empty": true, "key-HS512-empty": true, "key-HS512-1": true,
	}
	for id, doc := range vectorSets(t) {
		keys, skipped, err := jwks.ParseWithSecrets("acme", doc)
		if err != nil {
			t.Errorf("%s: %v", id, err)
		}
		if (len(keys) == 0) != refused[id] {
			t.Errorf("%s: keys %s, skipped %v, want none: %v", id, names(keys), skipped, refused[id])
		}
	}
}

// A key that cannot be read does not affect its neighbours.
func TestOneOddKeyIsSkippedAlone(t *testing.T) {
	const good = `{"kty":"OKP","crv":"Ed25519","kid":"good","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`
	for _, odd := range []string{
		`{"kty":"RSA","kty":"oct"}`, `{"kty":"EC","x":{"a":1,"a":2}}`, "{\"kty\":\"EC\",\"kid\":\"\xff\"}", `{"kid":"\ud800"}`,
		`null`, `7`, `[]`, `"x"`, `{}`, `{"kty":1}`,
	} {
		keys, skipped, err := jwks.Parse("acme", []byte(`{"keys":[`+odd+`,`+good+`]}`))
		if err != nil || len(keys) != 2 || len(skipped) != 1 || skipped[0].Index != 0 {
			t.Errorf("%s: keys %v, skipped %v, error %v", odd, keys, skipped, err)
		}
	}
}

// A leaked key raises the alarm even if it cannot be read.
func TestAlarmIsAlwaysRaised(t *testing.T) {
	for _, leak := range []string{
		`{"kty":"RSA","d":"AQAB","n":"AQAB","e":"AQAB","n":"AQAB"}`, `{"kty":"oct","kty":"oct","k":"c2VjcmV0"}`,
		"{\"kty\":\"EC\",\"d\":\"AQAB\",\"note\":\"\xff\"}", `{"k":"c2VjcmV0"}`, `{"kty":"OCT","k":"c2VjcmV0"}`, `{"\u0064":1}`, `{"kty":7,"oth":[0]}`,
	} {
		_, skipped, err := jwks.Parse("acme", []byte(`{"keys":[`+leak+`]}`))
		if err != nil || len(skipped) != 1 || !skipped[0].Exposed {
			t.Errorf("%s: %v, %v", leak, skipped, err)
		}
	}
}

// An object of too many members is not read to its end.
func TestManyMembers(t *testing.T) {
	many := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,"m%d":0`, i)
		}
		return b.String()
	}
	const ed = `"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"`
	for _, tt := range []struct {
		set  string
		keys int
	}{
		{`{"keys":[{` + ed + many(96) + `}]}`, 2}, {`{"keys":[{` + ed + many(97) + `}]}`, 0}, {`{"keys":[{` + ed + many(60_000) + `}]}`, 0},
		{`{"keys":[{` + ed + `}]` + many(99) + `}`, 2}, {`{"keys":[{` + ed + `}]` + many(100) + `}`, 0},
		{`{"keys":[{` + ed + `,"key_ops":["verify"` + strings.Repeat(`,"x"`, 200_000) + `]}]}`, 0},
	} {
		if keys, _, _ := jwks.Parse("acme", []byte(tt.set)); len(keys) != tt.keys {
			t.Errorf("%.80s...: %d keys, want %d", tt.set, len(keys), tt.keys)
		}
	}
}
