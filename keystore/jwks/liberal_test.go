package jwks_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
)

// modulus is a number of 2048 bits without a pattern in its bytes. Its base64 has both letters in
// which the alphabets differ.
var modulus = func() *big.Int {
	var b []byte
	for i := range 8 {
		sum := sha256.Sum256([]byte{byte(i)})
		b = append(b, sum[:]...)
	}
	b[0] |= 0x80
	b[255] |= 1
	return new(big.Int).SetBytes(b)
}()

// strippedPoint returns a point on c one of whose coordinates begins with a zero byte.
func strippedPoint(c elliptic.Curve) (x, y []byte) {
	size := (c.Params().BitSize + 7) / 8
	for i := int64(1); ; i++ {
		key, err := ecdsa.ParseRawPrivateKey(c, big.NewInt(i).FillBytes(make([]byte, size)))
		if err != nil {
			panic(err)
		}
		point, err := key.PublicKey.Bytes()
		if err != nil {
			panic(err)
		}
		// P-521 has 521 bits, so that every other coordinate begins with a zero byte.
		if x, y := point[1:1+size], point[1+size:]; x[0] == 0 && y[0] != 0 {
			return x, y
		}
	}
}

// Each spelling of one number gives the same key, and is reported as irregular, not as skipped.
func TestSpellingsOfOneKey(t *testing.T) {
	n, zeros := modulus.Bytes(), make([]byte, 9)
	rsaKey := func(n, e string) string { return `"kty":"RSA","n":"` + n + `","e":"` + e + `"` }
	padded, standard := base64.URLEncoding.EncodeToString, base64.RawStdEncoding.EncodeToString
	spellings := map[string][]struct{ key, what string }{
		rsaKey(b64(n), "AQAB"): {
			{rsaKey(padded(n), "AQAB"), `"n" is padded`},
			{rsaKey(standard(n), "AQAB"), `"n" is in the standard alphabet`},
			{rsaKey(base64.StdEncoding.EncodeToString(n), "AQAB"), `"n" is padded (RFC 7515, section 2); "n" is in the standard alphabet`},
			{rsaKey(b64(append(zeros[:1:1], n...)), "AQAB"), `"n" has leading zero bytes`},
			{rsaKey(padded(append(zeros[:9:9], n...)), "AAEAAQ"), `"e" has leading zero bytes`},
			{rsaKey(b64(n), "AAEAAQ=="), `"e" is padded (RFC 7515, section 2); "e" has leading zero bytes`},
		},
	}
	for _, c := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		x, y := strippedPoint(c)
		ec := func(x, y string) string {
			return `"kty":"EC","crv":"` + c.Params().Name + `","x":"` + x + `","y":"` + y + `"`
		}
		spellings[ec(b64(x), b64(y))] = []struct{ key, what string }{
			{ec(b64(x[1:]), b64(y)), `"x" lacks leading zero bytes`},
			{ec(b64(append(zeros[:1:1], x...)), b64(y)), `"x" has a leading zero byte too many`},
			{ec(b64(x), b64(append(zeros[:1:1], y...))), `"y" has a leading zero byte too many`},
			{ec(base64.StdEncoding.EncodeToString(x[1:]), b64(append(zeros[:1:1], y...))), `"y" has a leading zero byte too many`},
		}
	}
	for plain, others := range spellings {
		want, _, err := jwks.Parse("acme", set(`"kid":"a",`+plain))
		if err != nil || len(want) == 0 {
			t.Fatal(plain, want, err)
		}
		for _, tt := range others {
			doc := set(`"kid":"a",` + tt.key)
			r, err := jwks.Inspect("acme", doc)
			if err != nil || !slices.EqualFunc(r.Keys, want, (*keystore.Key).Equal) || len(r.Skipped) > 0 {
				t.Errorf("%s: %v, skipped %v, %v, want the key of %s", tt.key, r.Keys, r.Skipped, err, plain)
			}
			if len(r.Irregular) != 1 || r.Irregular[0].KID != "a" || !strings.Contains(r.Irregular[0].What, tt.what) {
				t.Errorf("%s: irregular %v, want %s", tt.key, r.Irregular, tt.what)
			}
			if keys, skipped, err := jwks.Parse("acme", doc); names(keys) != names(want) || len(skipped) > 0 || err != nil {
				t.Errorf("%s: Parse = %s, %v, %v", tt.key, names(keys), skipped, err)
			}
			// Beside the usual spelling it is the same key, which counts once.
			if r, err := jwks.Inspect("acme", set(`"kid":"a",`+plain, `"kid":"a",`+tt.key)); names(r.Keys) != names(want) || len(r.Irregular) != 1 || r.Irregular[0].Index != 1 {
				t.Errorf("%s beside the usual: %s, irregular %v, %v", tt.key, names(r.Keys), r.Irregular, err)
			}
		}
	}
}

// A text that stands for no number, or for more than one, makes no key.
func TestSpellingsThatAreRefused(t *testing.T) {
	n := modulus.Bytes()
	good, der := b64(n), x509.MarshalPKCS1PublicKey(&rsa.PublicKey{N: modulus, E: 65537})
	spki, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: modulus, E: 65537})
	if err != nil {
		t.Fatal(err)
	}
	text := func(s string) string { return b64([]byte(s)) }
	ssh := append([]byte("\x00\x00\x00\x07ssh-rsa\x00\x00\x00\x03\x01\x00\x01\x00\x00\x01\x01\x00"), n...)
	for name, bad := range map[string]string{
		"too much padding":            base64.URLEncoding.EncodeToString(n) + "==",
		"too little padding":          strings.TrimSuffix(base64.URLEncoding.EncodeToString(n), "="),
		"padding of a whole number":   b64(n[:255]) + "====",
		"padding inside":              good[:8] + "==" + good[8:],
		"both alphabets":              strings.Replace(good, "-", "+", 1),
		"a line feed":                 good[:64] + `\n` + good[64:],
		"line ends after each 64":     good[:64] + `\r\n` + good[64:128] + `\r\n` + good[128:],
		"a final line feed":           good + `\n`,
		"a line feed before padding":  good + `\n==`,
		"a space":                     good + " ",
		"bits left over":              good[:len(good)-1] + string(good[len(good)-1]+1),
		"percent-encoded padding":     good + "%3D%3D",
		"hexadecimal":                 hex.EncodeToString(n),
		"decimal":                     modulus.String(),
		"hexadecimal in base64":       text(hex.EncodeToString(n)),
		"hexadecimal with colons":     text(strings.TrimSuffix(strings.Repeat("a9:", 300), ":")),
		"decimal in base64":           text(modulus.String()),
		"decimal with a line feed":    text(modulus.String() + "\n"),
		"base64 in base64":            text(good),
		"PEM in base64":               b64(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})),
		"PKCS #1":                     b64(der),
		"a SubjectPublicKeyInfo":      b64(spki),
		"an SSH key":                  b64(ssh),
		"an SSH key in base64":        text("ssh-rsa " + base64.StdEncoding.EncodeToString(ssh)),
		"a text of other letters":     text(strings.Repeat("Schlüssel für ", 30)),
		"zero":                        "AA",
		"many zeros":                  b64(make([]byte, 256)),
		"an even number":              b64(append(slices.Clone(n[:255]), 2)),
		"1024 bits":                   b64(n[:128]),
		"1024 bits and leading zeros": b64(append(make([]byte, 128), n[128:]...)),
	} {
		keys, skipped, err := jwks.Parse("acme", set(`"kid":"a","kty":"RSA","n":"`+bad+`","e":"AQAB"`, `"kid":"good",`+edMembers(1)))
		if err != nil || names(keys) != "good:EdDSA good:Ed25519" || len(skipped) != 1 || skipped[0].Exposed {
			t.Errorf("%s: keys %s, skipped %v, %v", name, names(keys), skipped, err)
		}
	}
	for _, e := range []string{"65537", "010001", "0x10001", "NjU1Mzc", "NjU1MzcK", "AQ", "Aw", "AAAA", "AQAAAAAAAQAB", "AQAB=", "AQAB====", "A===", "="} {
		if keys, _, _ := jwks.Parse("acme", set(`"kid":"a","kty":"RSA","n":"`+good+`","e":"`+e+`"`)); len(keys) > 0 {
			t.Errorf("e = %q: %s", e, names(keys))
		}
	}
}

// Whatever else is odd about a JWK, one that must not verify does not.
func TestIrregularKeysObeyTheOtherRules(t *testing.T) {
	n := base64.StdEncoding.EncodeToString(modulus.Bytes())
	key := `"kid":"a","kty":"RSA","n":"` + n + `","e":"AAEAAQ=="`
	if keys, _, _ := jwks.Parse("acme", set(key)); len(keys) != 6 {
		t.Fatalf("the key by itself: %s", names(keys))
	}
	for member, exposed := range map[string]bool{
		`"use":"enc"`: false, `"use":"SIG"`: false, `"use":""`: false, `"key_ops":["sign"]`: false, `"key_ops":[""]`: false, `"key_ops":[null]`: false,
		`"use":"sig","key_ops":["verify","encrypt"]`: false, `"alg":"ES256"`: false, `"alg":"HS256"`: false, `"alg":"RSA-OAEP"`: false, `"alg":""`: false,
		`"n":"AQAB"`: false, `"n":null`: false, `"e":null`: false, `"\u006e":"` + n + `"`: false, `"kid":null`: false, `"kty":null`: false,
		`"d":"AQ"`: true, `"p":0`: true, `"oth":[{}]`: true, `"d":{}`: true, `"k":"c2VjcmV0"`: true, `"d":null,"d":"AQ"`: true,
	} {
		r, err := jwks.Inspect("acme", set(key+","+member))
		if err != nil || len(r.Keys) > 0 || len(r.Skipped) != 1 || r.Skipped[0].Exposed != exposed || len(r.Irregular) > 0 {
			t.Errorf("%s: %s, skipped %+v, irregular %v, %v", member, names(r.Keys), r.Skipped, r.Irregular, err)
		}
	}
}

// A private member with content is a leak in a set that others can read, also under the type of a
// secret.
func TestPrivateMemberOfSecret(t *testing.T) {
	for member, exposed := range map[string]bool{`"d":"AQ"`: true, `"k":null,"p":"AQ"`: true, `"d":""`: false, `"k":"","oth":[]`: false} {
		_, skipped, err := jwks.Parse("acme", set(`"kid":"a","kty":"oct",`+member))
		if err != nil || len(skipped) != 1 || skipped[0].Exposed != exposed {
			t.Errorf("%s: skipped %+v, %v, want an alarm: %v", member, skipped, err, exposed)
		}
	}
}

// A "k" with content makes no public key serve, neither in a set that others can read nor in a file.
func TestSecretMemberOfPublicKey(t *testing.T) {
	for _, key := range []string{edMembers(1), rsaMembers(2048, 1), ecMembers(elliptic.P256())} {
		for k, want := range map[string]int{`"k":"c2VjcmV0"`: 0, `"k":{}`: 0, `"k":""`: 1, `"k":null`: 1} {
			doc := set(`"kid":"a",` + k + `,` + key)
			public, _, err1 := jwks.Parse("acme", doc)
			file, skipped, err2 := jwks.ParseWithSecrets("acme", doc)
			if err1 != nil || err2 != nil || min(len(public), 1) != want || names(public) != names(file) || len(skipped) != 1-want {
				t.Errorf("%s: %s, and in a file %s, skipped %v", k, names(public), names(file), skipped)
			}
		}
	}
}

// What a serializer writes for members that a key does not have changes nothing.
func TestMembersThatHoldNothing(t *testing.T) {
	for _, key := range []string{rsaMembers(2048, 1), ecMembers(elliptic.P256()), edMembers(1)} {
		want, _, err := jwks.Parse("acme", set(`"alg":null,`+key))
		if err != nil || len(want) == 0 {
			t.Fatal(want, err)
		}
		for _, nothing := range []string{
			`"d":null,"p":null,"q":null,"dp":null,"dq":null,"qi":null,"oth":null,"k":null,"use":null,"key_ops":null,"kid":null`,
			`"d":"","p":"","q":"","dp":"","dq":"","qi":"","oth":[],"k":"","x5c":[],"key_ops":[],"kid":""`,
			`"d":[],"oth":[ ],"k":[],"x5t":null,"x5u":null,"x5c":null,"x5t#S256":null`,
			`"keyOps":[],"additionalData":{},"keySize":2048,"hasPrivateKey":false`,
		} {
			r, err := jwks.Inspect("acme", set(nothing+","+key))
			if err != nil || !slices.EqualFunc(r.Keys, want, (*keystore.Key).Equal) || len(r.Skipped)+len(r.Irregular) > 0 {
				t.Errorf("%s: %s, skipped %v, irregular %v, %v", nothing, names(r.Keys), r.Skipped, r.Irregular, err)
			}
		}
	}
}

func TestByteOrderMark(t *testing.T) {
	doc := append([]byte("\ufeff"), set(`"kid":"a","alg":"EdDSA",`+edMembers(1))...)
	for name, parse := range map[string]func(string, []byte) ([]*keystore.Key, []jwks.Skipped, error){"Parse": jwks.Parse, "ParseWithSecrets": jwks.ParseWithSecrets} {
		if keys, _, err := parse("acme", doc); err != nil || names(keys) != "a:EdDSA" {
			t.Errorf("%s = %s, %v", name, names(keys), err)
		}
	}
}

// An error says what a document is that is no JWK Set, and quotes nothing of it.
func TestOtherDocuments(t *testing.T) {
	const certificate = `"-----BEGIN CERTIFICATE-----\nMIIDHDCC\n-----END CERTIFICATE-----\n"`
	for doc, want := range map[string]string{
		`{"49900291d36c":` + certificate + `,"f10f87405a97":` + certificate + `}`: "a map of kid to PEM",
		`{"49900291d36c":` + certificate + `,"x":1}`:                              `no "keys"`,
		`{"issuer":"https://hunter2","jwks_uri":"https://hunter2/jwks"}`:          "the metadata of an issuer",
		`{"kty":"RSA","kid":"hunter2"}`:                                           "a single JWK",
		`[{"kty":"RSA","kid":"hunter2"}]`:                                         "an array: if it is one of JWKs",
		`["hunter2"]`:                                                             "not an array",
		`"hunter2"`:                                                               "not a string",
		`17`:                                                                      "not a number",
		`true`:                                                                    "not a boolean",
		`null`:                                                                    "not null",
		`{"error":"hunter2"}`:                                                     `no "keys"`,
		"<!DOCTYPE html><html>hunter2":                                            "HTML",
		"\n -----BEGIN PUBLIC KEY-----\nhu":                                       "PEM",
		"eyJhbGciOiJSUzI1NiJ9.e30.hunter2":                                        "a token",
		"\x1f\x8b\x08":                                                            "gzip",
		" \n":                                                                     "empty",
		"---\nkeys: hunter2":                                                      "JSON",
		`{"keys":[{"kid":"hunter2"}`:                                              "not valid JSON near byte",
		`{"keys":[{"kid":"hunter2"]}`:                                             "not valid JSON near byte",
	} {
		r, err := jwks.Inspect("acme", []byte(doc))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter") || len(r.Keys)+len(r.Skipped) > 0 {
			t.Errorf("%s: %v, want an error with %q", doc, err, want)
		}
	}
}

// A document as large as is read costs bounded time, however it is made.
func TestLargeDocuments(t *testing.T) {
	ed := ed25519.NewKeyFromSeed(make([]byte, 32)).Public().(ed25519.PublicKey)
	fill := func(element string) []byte {
		return []byte(`{"keys":[` + strings.TrimSuffix(strings.Repeat(element+",", (1<<20-20)/(len(element)+1)), ",") + `]}`)
	}
	for name, doc := range map[string][]byte{
		"objects":        fill(`{}`),
		"numbers":        fill(`1`),
		"nested":         []byte(`{"keys":[{"x":` + strings.Repeat("[", 1<<19-20) + strings.Repeat("]", 1<<19-20) + `}]}`),
		"zeros in n":     set(`"kty":"RSA","n":"` + strings.Repeat("A", 1<<20-1000) + b64(modulus.Bytes()) + `","e":"AQAB"`),
		"zeros in x":     set(`"kty":"EC","crv":"P-256","x":"` + strings.Repeat("A", 1<<20-1000) + `","y":"AA"`),
		"padding":        set(`"kty":"RSA","n":"` + strings.Repeat("=", 1<<20-1000) + `","e":"AQAB"`),
		"large RSA keys": fill(`{` + rsaMembers(8192, 1) + `}`),
		"equal keys":     fill(`{"kty":"OKP","crv":"Ed25519","x":"` + b64(ed) + `"}`),
		"key_ops":        set(`"key_ops":["` + strings.Repeat(`a","`, 200_000) + `"],` + edMembers(1)),
		"members":        []byte(`{"keys":[{"` + strings.Repeat(`":0,"`, 200_000) + `":0}]}`),
	} {
		if len(doc) > 1<<20 {
			t.Fatalf("%s: %d bytes", name, len(doc))
		}
		allocated := testing.AllocsPerRun(1, func() {
			if r, err := jwks.Inspect("acme", doc); err == nil && len(r.Keys) > 1024 {
				t.Errorf("%s: %d keys", name, len(r.Keys))
			}
		})
		if allocated > 1_000_000 {
			t.Errorf("%s: %v allocations", name, allocated)
		}
	}
}

func ExampleInspect() {
	set := []byte(`{"keys":[{"kty":"EC","crv":"P-256","kid":"2026-11",
		"x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU=","y":"x/FEzRu9m36HLN/tue659LNpXW6pCyStikYjKIWI5a0="}]}`)
	report, err := jwks.Inspect("acme", set)
	if err != nil {
		panic(err)
	}
	fmt.Println(report.Keys)
	fmt.Println(report.Irregular)
	// Output:
	// [key "acme"/"2026-11" (ES256)]
	// [key 0 ("2026-11"): "x" is padded (RFC 7515, section 2); "y" is padded (RFC 7515, section 2); "y" is in the standard alphabet of base64 (RFC 7515, section 2)]
}
