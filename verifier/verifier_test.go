package verifier_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
)

// The tests make tokens by hand, so that the library and its test cannot share
// a mistake.

const nowUnix = 1800000000

var (
	secret = []byte(strings.Repeat("s", 32))
	b64    = base64.RawURLEncoding.EncodeToString
)

const (
	goodHeader  = `{"alg":"HS256","kid":"1","typ":"JWT"}`
	goodPayload = `{"iss":"https://acme.example","sub":"ann","aud":"api","exp":1800003600,"iat":1799999940}`
)

func signWith(secret []byte, header, payload string) string {
	return signText(secret, b64([]byte(header))+"."+b64([]byte(payload)))
}

func signText(secret []byte, signed string) string {
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(signed))
	return signed + "." + b64(m.Sum(nil))
}

func sign(header, payload string) string { return signWith(secret, header, payload) }

// with returns goodPayload with a member put in, or replaced.
func with(member string) string {
	name := member[:strings.Index(member, ":")+1]
	var kept []string
	for _, m := range []string{`"iss":"https://acme.example"`, `"sub":"ann"`, `"aud":"api"`, `"exp":1800003600`, `"iat":1799999940`} {
		if !strings.HasPrefix(m, name) {
			kept = append(kept, m)
		}
	}
	return "{" + strings.Join(append(kept, member), ",") + "}"
}

// without returns goodPayload without a member.
func without(name string) string {
	text := strings.Replace(with(`"`+name+`":0`), `,"`+name+`":0`, "", 1)
	return text
}

func key(tb testing.TB, tenant, kid string, secret []byte) *keystore.Key {
	tb.Helper()
	k, err := keystore.NewSecret(keystore.ID{Tenant: tenant, KID: kid}, keystore.HS256, secret)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func static(tb testing.TB, keys ...*keystore.Key) *keystore.Static {
	tb.Helper()
	s, err := keystore.NewStatic(keys...)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// acme returns a tenant with one secret, whose kid is "1".
func acme(tb testing.TB) verifier.Tenant {
	return verifier.Tenant{
		ID: "acme", Keys: static(tb, key(tb, "acme", "1", secret)),
		Algorithms: []keystore.Algorithm{keystore.HS256},
		Issuer:     "https://acme.example", Audiences: []string{"api", "other"},
		Leeway: -1,
	}
}

func at(unix float64) func() time.Time {
	return func() time.Time { return time.Unix(0, int64(unix*1e9)) }
}

func newVerifier(tb testing.TB, tenants ...verifier.Tenant) *verifier.Verifier {
	tb.Helper()
	v, err := verifier.New(verifier.Config{Tenants: tenants, Now: at(nowUnix)})
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

// check fails the test unless err is want, nil for a good token. It holds every
// refusal to the promises of Error.
func check(tb testing.TB, what string, tok *verifier.Token, err, want error) {
	tb.Helper()
	if !errors.Is(err, want) || (want == nil) != (err == nil) {
		tb.Errorf("%s: error %v, want %v", what, err, want)
		return
	}
	if (tok == nil) != (err != nil) {
		tb.Errorf("%s: token %v along with error %v", what, tok, err)
	}
	if err == nil {
		return
	}
	e := new(verifier.Error)
	if !errors.As(err, &e) || e.Reason == "" {
		tb.Errorf("%s: %v (%T) has no reason", what, err, err)
	}
	if unavailable := errors.Is(err, verifier.ErrUnavailable); errors.Is(err, verifier.ErrInvalid) == unavailable {
		tb.Errorf("%s: %v is both, or neither, of ErrInvalid and ErrUnavailable", what, err)
	}
}

// TestRules pins each rule of the contract on both sides of its edge.
func TestRules(t *testing.T) {
	type tenant = verifier.Tenant
	kid := func(s string) string { return `{"alg":"HS256","kid":` + s + `}` }
	nest := func(n int) string { return with(`"x":` + strings.Repeat("[", n-1) + strings.Repeat("]", n-1)) }
	tests := []struct {
		name   string
		header string // goodHeader if empty
		claims string // goodPayload if empty
		token  string // instead of both
		rules  func(*tenant)
		now    float64
		want   error
	}{
		{name: "good"},

		// 1. size
		{name: "8 KiB", token: padTo(8 << 10)},
		{name: "8 KiB and a byte", token: padTo(8<<10) + "A", want: verifier.ErrTooLarge},
		{name: "too large, whatever it is", token: strings.Repeat(".", 9<<10), want: verifier.ErrTooLarge},
		// 2. parts
		{name: "no dot", token: "abc", want: verifier.ErrMalformed},
		{name: "empty", header: "-", want: verifier.ErrMalformed},
		{name: "one dot", token: b64([]byte(goodHeader)) + "." + b64([]byte(goodPayload)), want: verifier.ErrMalformed},
		{name: "three dots", token: sign(goodHeader, goodPayload) + ".", want: verifier.ErrMalformed},
		{name: "padding", token: signText(secret, b64([]byte(goodHeader))+"="+"."+b64([]byte(goodPayload))), want: verifier.ErrMalformed},
		{name: "line end inside", token: signText(secret, b64([]byte(goodHeader))+"."+b64([]byte(goodPayload))+"\n"), want: verifier.ErrMalformed},
		{name: "two line ends inside", token: signText(secret, b64([]byte(goodHeader))+"."+"\r\n"+b64([]byte(goodPayload))), want: verifier.ErrMalformed},
		{name: "empty signature", token: b64([]byte(goodHeader)) + "." + b64([]byte(goodPayload)) + ".", want: verifier.ErrSignature},
		{name: "space around", token: " " + sign(goodHeader, goodPayload), want: verifier.ErrMalformed},
		// 3. header
		{name: "header not an object", header: `["HS256"]`, want: verifier.ErrMalformed},
		{name: "header with text behind", header: goodHeader + "x", want: verifier.ErrMalformed},
		{name: "white space in the header", header: " {\r\n\"alg\" :\t\"HS256\", \"kid\":\"1\"} "},
		{name: "no alg", header: `{"kid":"1"}`, want: verifier.ErrMalformed},
		{name: "alg not a string", header: `{"alg":["HS256"],"kid":"1"}`, want: verifier.ErrMalformed},
		{name: "alg with an escape", header: `{"alg":"HS\u003256","kid":"1"}`},
		{name: "kid empty", header: kid(`""`), want: verifier.ErrMalformed},
		{name: "kid null", header: kid(`null`), want: verifier.ErrMalformed},
		{name: "kid a number", header: kid(`1`), want: verifier.ErrMalformed},
		{name: "kid of 256 bytes", header: kid(`"` + strings.Repeat("k", 256) + `"`), want: verifier.ErrUnknownKey},
		{name: "kid of 257 bytes", header: kid(`"` + strings.Repeat("k", 257) + `"`), want: verifier.ErrMalformed},
		{name: "kid of 256 bytes, longer as written", header: kid(`"` + strings.Repeat(`\u006b`, 256) + `"`), want: verifier.ErrUnknownKey},
		{name: "kid twice", header: `{"alg":"HS256","kid":"1","kid":"1"}`, want: verifier.ErrMalformed},
		{name: "kid twice, once escaped", header: `{"alg":"HS256","kid":"1","\u006bid":"1"}`, want: verifier.ErrMalformed},
		{name: "typ a number", header: `{"alg":"HS256","kid":"1","typ":1}`, want: verifier.ErrMalformed},
		{name: "a folded parameter", header: `{"alg":"HS256","kid":"1","Crit":["x"]}`, want: verifier.ErrMalformed},
		{name: "a parameter folded with the Kelvin sign", header: `{"alg":"HS256","kid":"1","` + "\u212a" + `id":"2"}`, want: verifier.ErrMalformed},
		{name: "a folded parameter in lower case", header: `{"alg":"HS256","kid":"1","x5t#s256":"x"}`, want: verifier.ErrMalformed},
		{name: "a parameter as it is", header: `{"alg":"HS256","kid":"1","x5t#S256":"x"}`},
		{name: "a folded name before crit", header: `{"alg":"HS256","kid":"1","crit":["x"],"ALG":"x"}`, want: verifier.ErrMalformed},
		{name: "an unknown parameter", header: `{"alg":"HS256","kid":"1","foo":{"a":[1]}}`},
		{name: "duplicate names deep in the header", header: `{"alg":"HS256","kid":"1","foo":{"a":1,"a":1}}`, want: verifier.ErrMalformed},
		{name: "crit", header: `{"alg":"HS256","kid":"1","crit":["exp"],"exp":1}`, want: verifier.ErrCritical},
		{name: "crit null", header: `{"alg":"HS256","kid":"1","crit":null}`, want: verifier.ErrCritical},
		{name: "b64 true", header: `{"alg":"HS256","kid":"1","b64":true}`, want: verifier.ErrCritical},
		{name: "zip", header: `{"alg":"HS256","kid":"1","zip":"DEF"}`, want: verifier.ErrCritical},
		{name: "cty", header: `{"alg":"HS256","kid":"1","cty":"JWT"}`, want: verifier.ErrType},
		{name: "crit before cty", header: `{"alg":"HS256","kid":"1","cty":"JWT","crit":["x"]}`, want: verifier.ErrCritical},
		{name: "crit before a bad payload", header: `{"alg":"HS256","kid":"1","crit":["x"]}`, claims: "[", want: verifier.ErrCritical},
		{name: "keys in the header are not read", header: `{"alg":"HS256","kid":"1","jwk":{"kty":"oct","k":"AA"},"jku":"https://evil.example","x5c":1,"x5u":2,"x5t":3}`},
		// 4. payload
		{name: "payload an array", claims: `[` + goodPayload + `]`, want: verifier.ErrMalformed},
		{name: "payload null", claims: `null`, want: verifier.ErrMalformed},
		{name: "depth 32", claims: nest(32)},
		{name: "depth 33", claims: nest(33), want: verifier.ErrMalformed},
		{name: "a name twice, deep", claims: with(`"x":[{"a":1,"a":2}]`), want: verifier.ErrMalformed},
		{name: "a number beyond float64", claims: with(`"x":1e309`), want: verifier.ErrMalformed},
		{name: "a number within float64", claims: with(`"x":1e308`)},
		{name: "a lone surrogate", claims: with(`"x":"\ud800"`), want: verifier.ErrMalformed},
		{name: "bad UTF-8", claims: with("\"x\":\"\xff\""), want: verifier.ErrMalformed},

		// 8. algorithm
		{name: "none", header: `{"alg":"none","kid":"1"}`, want: verifier.ErrAlgorithm},
		{name: "alg in lower case", header: `{"alg":"hs256","kid":"1"}`, want: verifier.ErrAlgorithm},
		{name: "alg not listed", header: `{"alg":"HS512","kid":"1"}`, want: verifier.ErrAlgorithm},
		// 10. key
		{name: "unknown kid", header: kid(`"2"`), want: verifier.ErrUnknownKey},
		{name: "no kid, one key", header: `{"alg":"HS256"}`},
		// 11. signature
		{name: "signed by another", token: signWith([]byte(strings.Repeat("x", 32)), goodHeader, goodPayload), want: verifier.ErrSignature},
		{name: "bad signature before expired", token: signWith([]byte(strings.Repeat("x", 32)), goodHeader, with(`"exp":1`)), want: verifier.ErrSignature},

		// 12. times
		{name: "no exp", claims: without("exp"), want: verifier.ErrMissingClaim},
		{name: "no exp, waived", claims: without("exp"), rules: func(r *tenant) { r.AllowNoExpiry = true }},
		{name: "exp null, waived", claims: with(`"exp":null`), rules: func(r *tenant) { r.AllowNoExpiry = true }, want: verifier.ErrClaim},
		{name: "exp a string", claims: with(`"exp":"1800003600"`), want: verifier.ErrClaim},
		{name: "exp 0", claims: with(`"exp":0`), want: verifier.ErrExpired},
		{name: "exp negative", claims: with(`"exp":-1`), want: verifier.ErrClaim},
		{name: "exp minus zero", claims: with(`"exp":-0`), want: verifier.ErrExpired},
		{name: "exp 2^53", claims: with(`"exp":9007199254740992`), want: verifier.ErrClaim},
		{name: "exp 2^53 - 1", claims: with(`"exp":9007199254740991`)},
		{name: "exp 1e300", claims: with(`"exp":1e300`), want: verifier.ErrClaim},
		{name: "exp is exclusive", claims: with(`"exp":1800000000`), want: verifier.ErrExpired},
		{name: "exp a nanosecond ahead", claims: with(`"exp":1800000000`), now: nowUnix - 1e-6},
		{name: "exp with a fraction", claims: with(`"exp":1800000000.5`)},
		{name: "exp with a fraction, passed", claims: with(`"exp":1800000000.5`), now: nowUnix + .5, want: verifier.ErrExpired},
		{name: "exp with an exponent", claims: with(`"exp":18000036E2`)},
		{name: "leeway covers exp", claims: with(`"exp":1799999971`), rules: func(r *tenant) { r.Leeway = 30 * time.Second }},
		{name: "leeway ends at exp", claims: with(`"exp":1799999970`), rules: func(r *tenant) { r.Leeway = 30 * time.Second }, want: verifier.ErrExpired},
		{name: "leeway 0 is 30s", claims: with(`"exp":1799999971`), rules: func(r *tenant) { r.Leeway = 0 }},
		{name: "leeway 0 is not 31s", claims: with(`"exp":1799999970`), rules: func(r *tenant) { r.Leeway = 0 }, want: verifier.ErrExpired},
		{name: "nbf is inclusive", claims: with(`"nbf":1800000000`)},
		{name: "nbf ahead", claims: with(`"nbf":1800000001`), want: verifier.ErrNotYetValid},
		{name: "leeway covers nbf", claims: with(`"nbf":1800000030`), rules: func(r *tenant) { r.Leeway = 0 }},
		{name: "leeway ends at nbf", claims: with(`"nbf":1800000031`), rules: func(r *tenant) { r.Leeway = 0 }, want: verifier.ErrNotYetValid},
		{name: "nbf a string", claims: with(`"nbf":"1"`), want: verifier.ErrClaim},
		{name: "iat now", claims: with(`"iat":1800000000`)},
		{name: "iat ahead", claims: with(`"iat":1800000001`), want: verifier.ErrNotYetValid},
		{name: "leeway covers iat", claims: with(`"iat":1800000030`), rules: func(r *tenant) { r.Leeway = 0 }},
		{name: "iat of the wrong type", claims: with(`"iat":{}`), want: verifier.ErrClaim},
		{name: "no iat", claims: without("iat")},
		{name: "no iat under MaxAge", claims: without("iat"), rules: func(r *tenant) { r.MaxAge = time.Hour }, want: verifier.ErrMissingClaim},
		{name: "as old as MaxAge", claims: with(`"iat":1799996400`), rules: func(r *tenant) { r.MaxAge = time.Hour }},
		{name: "older than MaxAge", claims: with(`"iat":1799996399`), rules: func(r *tenant) { r.MaxAge = time.Hour }, want: verifier.ErrTooOld},
		{name: "MaxAge has leeway", claims: with(`"iat":1799996370`), rules: func(r *tenant) { r.MaxAge = time.Hour; r.Leeway = 0 }},
		{name: "wrong type before expired", claims: `{"iss":"https://acme.example","aud":"api","exp":1,"nbf":true}`, want: verifier.ErrClaim},

		// 13. iss, aud, sub, jti
		{name: "no iss", claims: without("iss"), want: verifier.ErrIssuer},
		{name: "iss an array", claims: with(`"iss":["https://acme.example"]`), want: verifier.ErrIssuer},
		{name: "iss with a slash more", claims: with(`"iss":"https://acme.example/"`), want: verifier.ErrIssuer},
		{name: "iss in another case", claims: with(`"iss":"https://ACME.example"`), want: verifier.ErrIssuer},
		{name: "iss with escapes", claims: with(`"iss":"https:\/\/acme.ex\u0061mple"`)},
		{name: "any iss", claims: with(`"iss":"x"`), rules: func(r *tenant) { r.Issuer, r.AnyIssuer = "", true }},
		{name: "any iss, none", claims: without("iss"), rules: func(r *tenant) { r.Issuer, r.AnyIssuer = "", true }},
		{name: "any iss, of the wrong type", claims: with(`"iss":1`), rules: func(r *tenant) { r.Issuer, r.AnyIssuer = "", true }, want: verifier.ErrIssuer},
		{name: "issuer before audience", claims: `{"exp":1800003600}`, want: verifier.ErrIssuer},
		{name: "no aud", claims: without("aud"), want: verifier.ErrAudience},
		{name: "another aud", claims: with(`"aud":"apis"`), want: verifier.ErrAudience},
		{name: "aud in an array", claims: with(`"aud":["x", "a\u0070i" ,"y"]`)},
		{name: "the other aud", claims: with(`"aud":["other"]`)},
		{name: "aud array without ours", claims: with(`"aud":["x","y"]`), want: verifier.ErrAudience},
		{name: "aud array empty", claims: with(`"aud":[]`), want: verifier.ErrAudience},
		{name: "aud array with a number", claims: with(`"aud":["api",1]`), want: verifier.ErrAudience},
		{name: "aud nested", claims: with(`"aud":[["api"]]`), want: verifier.ErrAudience},
		{name: "aud an object", claims: with(`"aud":{"api":true}`), want: verifier.ErrAudience},
		{name: "any aud", claims: with(`"aud":"x"`), rules: func(r *tenant) { r.Audiences, r.AnyAudience = nil, true }},
		{name: "any aud, none", claims: without("aud"), rules: func(r *tenant) { r.Audiences, r.AnyAudience = nil, true }},
		{name: "any aud, of the wrong type", claims: with(`"aud":null`), rules: func(r *tenant) { r.Audiences, r.AnyAudience = nil, true }, want: verifier.ErrAudience},
		{name: "sub null", claims: with(`"sub":null`), want: verifier.ErrClaim},
		{name: "no sub", claims: without("sub")},
		{name: "jti a number", claims: with(`"jti":1`), want: verifier.ErrClaim},
		{name: "jti", claims: with(`"jti":"1"`)},
		// 14. folding
		{name: "EXP", claims: with(`"EXP":1`), want: verifier.ErrClaim},
		{name: "iss with long s", claims: with("\"i\u017f\u017f\":\"x\""), want: verifier.ErrClaim},
		{name: "sub with long s, escaped", claims: with(`"\u017fub":"x"`), want: verifier.ErrClaim},
		{name: "no fold of a registered name", claims: with(`"Expires":1,"SCOPE":"x","issue":2,"\u0131at":1`)},
		// 15. typ
		{name: "no typ", header: kid(`"1"`)},
		{name: "typ in lower case", header: `{"alg":"HS256","kid":"1","typ":"jwt"}`},
		{name: "typ in full", header: `{"alg":"HS256","kid":"1","typ":"Application/AT+jwt"}`},
		{name: "another typ", header: `{"alg":"HS256","kid":"1","typ":"logout+jwt"}`, want: verifier.ErrType},
		{name: "typ empty", header: `{"alg":"HS256","kid":"1","typ":""}`, want: verifier.ErrType},
		{name: "typ application/ alone", header: `{"alg":"HS256","kid":"1","typ":"application/"}`, want: verifier.ErrType},
		{name: "typ with another slash", header: `{"alg":"HS256","kid":"1","typ":"application/x/jwt"}`, want: verifier.ErrType},
		{name: "own types: no typ", header: kid(`"1"`), rules: func(r *tenant) { r.Types = []string{"at+jwt"} }, want: verifier.ErrType},
		{name: "own types: JWT", rules: func(r *tenant) { r.Types = []string{"at+jwt"} }, want: verifier.ErrType},
		{name: "own types: in full", header: `{"alg":"HS256","kid":"1","typ":"at+jwt"}`, rules: func(r *tenant) { r.Types = []string{"application/at+jwt"} }},
		{name: "typ with the Kelvin sign", header: `{"alg":"HS256","kid":"1","typ":"` + "\u212a" + `b+jwt"}`, rules: func(r *tenant) { r.Types = []string{"kb+jwt"} }, want: verifier.ErrType},
		// 16. the tenant's own
		{name: "tenant claim", claims: with(`"tid":"acme"`), rules: func(r *tenant) { r.TenantClaim = "tid" }},
		{name: "tenant claim of another", claims: with(`"tid":"globex"`), rules: func(r *tenant) { r.TenantClaim = "tid" }, want: verifier.ErrTenantMismatch},
		{name: "tenant claim missing", rules: func(r *tenant) { r.TenantClaim = "tid" }, want: verifier.ErrTenantMismatch},
		{name: "tenant claim not a string", claims: with(`"tid":["acme"]`), rules: func(r *tenant) { r.TenantClaim = "tid" }, want: verifier.ErrTenantMismatch},
		{name: "required", rules: func(r *tenant) { r.Required = []string{"sub", "iat"} }},
		{name: "required missing", rules: func(r *tenant) { r.Required = []string{"sub", "jti"} }, want: verifier.ErrMissingClaim},
		{name: "required null", claims: with(`"role":null`), rules: func(r *tenant) { r.Required = []string{"role"} }, want: verifier.ErrMissingClaim},
		{name: "required is no fold", claims: with(`"Role":"x"`), rules: func(r *tenant) { r.Required = []string{"role"} }, want: verifier.ErrMissingClaim},
		{name: "check says yes", rules: func(r *tenant) { r.Check = func(*verifier.Token) error { return nil } }},
		{name: "check says no", rules: func(r *tenant) { r.Check = func(*verifier.Token) error { return errCheck } }, want: verifier.ErrClaim},
		{name: "its own error", rules: func(r *tenant) { r.Check = func(*verifier.Token) error { return errCheck } }, want: errCheck},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			token := tt.token
			if token == "" && tt.header != "-" {
				header, claims := tt.header, tt.claims
				if header == "" {
					header = goodHeader
				}
				if claims == "" {
					claims = goodPayload
				}
				token = sign(header, claims)
			}
			rules := acme(t)
			if tt.rules != nil {
				tt.rules(&rules)
			}
			now := tt.now
			if now == 0 {
				now = nowUnix
			}
			v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{rules}, Now: at(now)})
			if err != nil {
				t.Fatal(err)
			}
			got, err := v.Verify(t.Context(), token)
			check(t, token, got, err, tt.want)
			got, err = v.VerifyTenant(t.Context(), "acme", token)
			check(t, "with a hint: "+token, got, err, tt.want)
		})
	}
}

var errCheck = errors.New("secret-looking-text-of-a-check")

// padTo returns a good token of n bytes.
func padTo(n int) string {
	for space := range 3 {
		for pad := n / 2; pad < n; pad++ {
			token := sign(strings.Repeat(" ", space)+goodHeader, with(`"x":"`+strings.Repeat("x", pad)+`"`))
			if len(token) == n {
				return token
			}
		}
	}
	panic("no token of that length")
}

// TestOneBit: any change of a good token is refused: each bit of it flipped,
// each byte dropped, doubled, or put in.
func TestOneBit(t *testing.T) {
	v := newVerifier(t, acme(t))
	good := sign(goodHeader, goodPayload)
	if tok, err := v.Verify(t.Context(), good); err != nil || tok == nil {
		t.Fatal(err)
	}
	refuse := func(what, token string) {
		t.Helper()
		if tok, err := v.Verify(t.Context(), token); !errors.Is(err, verifier.ErrInvalid) || tok != nil {
			t.Errorf("%s: %v, %v", what, tok, err)
		}
	}
	for i := range len(good) {
		for bit := range 8 {
			b := []byte(good)
			b[i] ^= 1 << bit
			refuse(fmt.Sprintf("bit %d of byte %d", bit, i), string(b))
		}
		refuse("a byte dropped", good[:i]+good[i+1:])
		refuse("a byte doubled", good[:i]+good[i:i+1]+good[i:])
		for _, c := range []string{"\n", "\r\n", "=", " ", "\x00", "\u200b", "A"} {
			refuse("put in", good[:i]+c+good[i:])
		}
	}
	for _, tail := range []string{"\n", "=", "==", ".", " ", "A", "AAAA"} {
		refuse("a tail", good+tail)
		refuse("a head", tail+good)
	}
}

func TestErrorTellsTheOperator(t *testing.T) {
	v := newVerifier(t, acme(t))
	_, err := v.Verify(t.Context(), sign(`{"alg":"HS256","kid":"x\"\r\ny"}`, goodPayload))
	e := new(verifier.Error)
	if !errors.As(err, &e) || e.Reason != verifier.ReasonUnknownKey || e.Tenant != "acme" || e.Key.KID != "x\"\r\ny" {
		t.Errorf("error = %#v", err)
	}
	if want := `verifier: key "acme"/"x\"\r\ny": unknown key`; err.Error() != want {
		t.Errorf("error = %s, want %s", err, want)
	}
	_, err = v.Verify(t.Context(), sign(goodHeader, with(`"exp":12345`)))
	if want := `verifier: key "acme"/"1": token expired: claim "exp"`; err == nil || err.Error() != want {
		t.Errorf("error = %v, want %s", err, want)
	}
	_, err = v.VerifyTenant(t.Context(), "nobody", sign(goodHeader, goodPayload))
	if !errors.As(err, &e) || e.Tenant != "" || !errors.Is(err, verifier.ErrUnknownTenant) {
		t.Errorf("a tenant that is not configured: %#v", err)
	}
}

// TestEndedContext: a token whose key is at hand is judged, whoever waits.
func TestEndedContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newVerifier(t, acme(t)).Verify(ctx, sign(goodHeader, goodPayload)); err != nil {
		t.Error(err)
	}
}
