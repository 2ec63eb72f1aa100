package verifier_test

import (
	"cmp"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/verifier"
)

// A ruleTest is a token on one side of a rule's edge.
type ruleTest struct {
	name   string
	header string // goodHeader if empty
	claims string // goodPayload if empty
	token  string // instead of both
	rules  func(*verifier.Tenant)
	now    float64
	want   error
}

func (tt *ruleTest) run(t *testing.T) {
	token := tt.token
	if token == "" && tt.header != "-" {
		token = sign(cmp.Or(tt.header, goodHeader), cmp.Or(tt.claims, goodPayload))
	}
	rules := acme(t)
	if tt.rules != nil {
		tt.rules(&rules)
	}
	v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{rules}, Now: at(cmp.Or(tt.now, nowUnix))})
	if err != nil {
		t.Fatal(err)
	}
	got, err := v.Verify(t.Context(), token)
	check(t, token, got, err, tt.want)
	got, err = v.VerifyTenant(t.Context(), "acme", token)
	check(t, "with a hint: "+token, got, err, tt.want)
}

// TestRules pins each rule of the package comment on both sides of its edge.
func TestRules(t *testing.T) {
	for _, group := range []struct {
		name  string
		tests []ruleTest
	}{
		{"size and parts", partsTests}, {"header", headerTests}, {"payload", payloadTests}, {"key", keyTests}, {"times", timeTests},
		{"issuer and audience", registeredTests}, {"spelling", spellingTests}, {"type", typeTests}, {"tenant", tenantTests},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, tt := range group.tests {
				t.Run(tt.name, tt.run)
			}
		})
	}
}

// withKID returns a header without typ, with kid as given.
func withKID(kid string) string { return `{"alg":"HS256","kid":` + kid + `}` }

// nested returns a payload of the given depth.
func nested(depth int) string {
	return with(`"x":` + strings.Repeat("[", depth-1) + strings.Repeat("]", depth-1))
}

// Rules 1 and 2.
var partsTests = []ruleTest{
	{name: "good"},
	// 1. size
	{name: "16 KiB", token: padTo(16 << 10)},
	{name: "16 KiB and a byte", token: padTo(16<<10) + "A", want: verifier.ErrTooLarge},
	{name: "too large, whatever it is", token: strings.Repeat(".", 16<<10+1), want: verifier.ErrTooLarge},
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
}

// Rule 3.
var headerTests = []ruleTest{
	// 3. header
	{name: "header not an object", header: `["HS256"]`, want: verifier.ErrMalformed},
	{name: "header with text behind", header: goodHeader + "x", want: verifier.ErrMalformed},
	{name: "white space in the header", header: " {\r\n\"alg\" :\t\"HS256\", \"kid\":\"1\"} "},
	{name: "no alg", header: `{"kid":"1"}`, want: verifier.ErrMalformed},
	{name: "alg not a string", header: `{"alg":["HS256"],"kid":"1"}`, want: verifier.ErrMalformed},
	{name: "alg with an escape", header: `{"alg":"HS\u003256","kid":"1"}`},
	{name: "kid empty", header: withKID(`""`), want: verifier.ErrMalformed},
	{name: "kid null", header: withKID(`null`), want: verifier.ErrMalformed},
	{name: "kid a number", header: withKID(`1`), want: verifier.ErrMalformed},
	{name: "kid of 256 bytes", header: withKID(`"` + strings.Repeat("k", 256) + `"`), want: verifier.ErrUnknownKey},
	{name: "kid of 257 bytes", header: withKID(`"` + strings.Repeat("k", 257) + `"`), want: verifier.ErrMalformed},
	{name: "kid of 256 bytes, longer as written", header: withKID(`"` + strings.Repeat(`\u006b`, 256) + `"`), want: verifier.ErrUnknownKey},
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
}

// Rule 4.
var payloadTests = []ruleTest{
	// 4. payload
	{name: "payload an array", claims: `[` + goodPayload + `]`, want: verifier.ErrMalformed},
	{name: "payload null", claims: `null`, want: verifier.ErrMalformed},
	{name: "depth 32", claims: nested(32)},
	{name: "depth 33", claims: nested(33), want: verifier.ErrMalformed},
	{name: "a name twice, deep", claims: with(`"x":[{"a":1,"a":2}]`), want: verifier.ErrMalformed},
	{name: "a number beyond float64", claims: with(`"x":1e309`), want: verifier.ErrMalformed},
	{name: "a number within float64", claims: with(`"x":1e308`)},
	{name: "a lone surrogate", claims: with(`"x":"\ud800"`), want: verifier.ErrMalformed},
	{name: "bad UTF-8", claims: with("\"x\":\"\xff\""), want: verifier.ErrMalformed},
}

// Rules 8, 10 and 11.
var keyTests = []ruleTest{
	// 8. algorithm
	{name: "none", header: `{"alg":"none","kid":"1"}`, want: verifier.ErrAlgorithm},
	{name: "alg in lower case", header: `{"alg":"hs256","kid":"1"}`, want: verifier.ErrAlgorithm},
	{name: "alg not listed", header: `{"alg":"HS512","kid":"1"}`, want: verifier.ErrAlgorithm},
	// 10. key
	{name: "unknown kid", header: withKID(`"2"`), want: verifier.ErrUnknownKey},
	{name: "no kid, one key", header: `{"alg":"HS256"}`},
	// 11. signature
	{name: "signed by another", token: signWith([]byte(strings.Repeat("x", 32)), goodHeader, goodPayload), want: verifier.ErrSignature},
	{name: "bad signature before expired", token: signWith([]byte(strings.Repeat("x", 32)), goodHeader, with(`"exp":1`)), want: verifier.ErrSignature},
}

// Rule 12.
var timeTests = []ruleTest{
	// 12. times
	{name: "no exp", claims: without("exp"), want: verifier.ErrMissingClaim},
	{name: "no exp, waived", claims: without("exp"), rules: func(r *verifier.Tenant) { r.AllowNoExpiry = true }},
	{name: "exp null, waived", claims: with(`"exp":null`), rules: func(r *verifier.Tenant) { r.AllowNoExpiry = true }, want: verifier.ErrClaim},
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
	{name: "leeway covers exp", claims: with(`"exp":1799999971`), rules: func(r *verifier.Tenant) { r.Leeway = 30 * time.Second }},
	{name: "leeway ends at exp", claims: with(`"exp":1799999970`), rules: func(r *verifier.Tenant) { r.Leeway = 30 * time.Second }, want: verifier.ErrExpired},
	{name: "leeway 0 is 30s", claims: with(`"exp":1799999971`), rules: func(r *verifier.Tenant) { r.Leeway = 0 }},
	{name: "leeway 0 is not 31s", claims: with(`"exp":1799999970`), rules: func(r *verifier.Tenant) { r.Leeway = 0 }, want: verifier.ErrExpired},
	{name: "nbf is inclusive", claims: with(`"nbf":1800000000`)},
	{name: "nbf ahead", claims: with(`"nbf":1800000001`), want: verifier.ErrNotYetValid},
	{name: "leeway covers nbf", claims: with(`"nbf":1800000030`), rules: func(r *verifier.Tenant) { r.Leeway = 0 }},
	{name: "leeway ends at nbf", claims: with(`"nbf":1800000031`), rules: func(r *verifier.Tenant) { r.Leeway = 0 }, want: verifier.ErrNotYetValid},
	{name: "nbf a string", claims: with(`"nbf":"1"`), want: verifier.ErrClaim},
	{name: "iat now", claims: with(`"iat":1800000000`)},
	{name: "iat ahead", claims: with(`"iat":1800000001`), want: verifier.ErrNotYetValid},
	{name: "leeway covers iat", claims: with(`"iat":1800000030`), rules: func(r *verifier.Tenant) { r.Leeway = 0 }},
	{name: "iat of the wrong type", claims: with(`"iat":{}`), want: verifier.ErrClaim},
	{name: "no iat", claims: without("iat")},
	{name: "no iat under MaxAge", claims: without("iat"), rules: func(r *verifier.Tenant) { r.MaxAge = time.Hour }, want: verifier.ErrMissingClaim},
	{name: "as old as MaxAge", claims: with(`"iat":1799996400`), rules: func(r *verifier.Tenant) { r.MaxAge = time.Hour }},
	{name: "older than MaxAge", claims: with(`"iat":1799996399`), rules: func(r *verifier.Tenant) { r.MaxAge = time.Hour }, want: verifier.ErrTooOld},
	{name: "MaxAge has leeway", claims: with(`"iat":1799996370`), rules: func(r *verifier.Tenant) { r.MaxAge = time.Hour; r.Leeway = 0 }},
	{name: "wrong type before expired", claims: `{"iss":"https://acme.example","aud":"api","exp":1,"nbf":true}`, want: verifier.ErrClaim},
}

// Rule 13.
var registeredTests = []ruleTest{
	// 13. iss, aud, sub, jti
	{name: "no iss", claims: without("iss"), want: verifier.ErrIssuer},
	{name: "iss an array", claims: with(`"iss":["https://acme.example"]`), want: verifier.ErrIssuer},
	{name: "iss with a slash more", claims: with(`"iss":"https://acme.example/"`), want: verifier.ErrIssuer},
	{name: "iss in another case", claims: with(`"iss":"https://ACME.example"`), want: verifier.ErrIssuer},
	{name: "iss with escapes", claims: with(`"iss":"https:\/\/acme.ex\u0061mple"`)},
	{name: "any iss", claims: with(`"iss":"x"`), rules: func(r *verifier.Tenant) { r.Issuer, r.AnyIssuer = "", true }},
	{name: "any iss, none", claims: without("iss"), rules: func(r *verifier.Tenant) { r.Issuer, r.AnyIssuer = "", true }},
	{name: "any iss, of the wrong type", claims: with(`"iss":1`), rules: func(r *verifier.Tenant) { r.Issuer, r.AnyIssuer = "", true }, want: verifier.ErrIssuer},
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
	{name: "any aud", claims: with(`"aud":"x"`), rules: func(r *verifier.Tenant) { r.Audiences, r.AnyAudience = nil, true }},
	{name: "any aud, none", claims: without("aud"), rules: func(r *verifier.Tenant) { r.Audiences, r.AnyAudience = nil, true }},
	{name: "any aud, of the wrong type", claims: with(`"aud":null`), rules: func(r *verifier.Tenant) { r.Audiences, r.AnyAudience = nil, true }, want: verifier.ErrAudience},
	{name: "sub null", claims: with(`"sub":null`), want: verifier.ErrClaim},
	{name: "no sub", claims: without("sub")},
	{name: "jti a number", claims: with(`"jti":1`), want: verifier.ErrClaim},
	{name: "jti", claims: with(`"jti":"1"`)},
}

// Rule 14.
var spellingTests = []ruleTest{
	// 14. folding
	{name: "EXP", claims: with(`"EXP":1`), want: verifier.ErrClaim},
	{name: "iss with long s", claims: with("\"i\u017f\u017f\":\"x\""), want: verifier.ErrClaim},
	{name: "sub with long s, escaped", claims: with(`"\u017fub":"x"`), want: verifier.ErrClaim},
	{name: "no fold of a registered name", claims: with(`"Expires":1,"SCOPES":"x","issue":2,"\u0131at":1`)},
	{name: "SCOPE", claims: with(`"SCOPE":"admin"`), want: verifier.ErrClaim},
	{name: "scope beside Scope", claims: with(`"scope":"read","Scope":"admin"`), want: verifier.ErrClaim},
	{name: "scp with long s", claims: with("\"\u017fcp\":\"admin\""), want: verifier.ErrClaim},
	{name: "scope and scp", claims: with(`"scope":"read","scp":["read"]`)},
	{name: "tenant claim beside another spelling", claims: with(`"tid":"acme","TID":"globex"`), rules: tid("tid"), want: verifier.ErrClaim},
	{name: "tenant claim in another spelling", claims: with(`"Tid":"acme"`), rules: tid("tid"), want: verifier.ErrClaim},
	{name: "tenant claim in capitals", claims: with(`"tenantId":"acme"`), rules: tid("tenantId")},
	{name: "tenant claim in capitals, beside small letters", claims: with(`"tenantId":"acme","tenantid":"globex"`), rules: tid("tenantId"), want: verifier.ErrClaim},
	{name: "tenant claim with other letters", claims: with("\"kunde\":\"acme\",\"\u212aunde\":\"globex\""), rules: tid("kunde"), want: verifier.ErrClaim},
	{name: "tenant claim of other letters", claims: with(`"größe":"acme","GRÖSSE":"x"`), rules: tid("größe")},
	{name: "tenant claim of other letters, in capitals", claims: with(`"größe":"acme","GRÖßE":"x"`), rules: tid("größe"), want: verifier.ErrClaim},
	{name: "a long name", claims: with(`"https://acme.example/tenant":"acme","https://acme.example/Tenant":"globex"`), rules: tid("https://acme.example/tenant"), want: verifier.ErrClaim},
	{name: "required beside another spelling", claims: with(`"role":"user","Role":"admin"`), rules: required("role"), want: verifier.ErrClaim},
	{name: "the second required one", claims: with(`"role":"user","org":"x","ORG":"y"`), rules: required("role", "org"), want: verifier.ErrClaim},
	{name: "two spellings that no rule reads", claims: with(`"role":"user","Role":"admin","tid":"x","TID":"y"`)},
	{name: "required deep inside", claims: with(`"role":"user","x":{"Role":"admin"}`), rules: required("role")},
	{name: "spelling before typ", header: `{"alg":"HS256","kid":"1","typ":"x"}`, claims: with(`"SCOPE":"x"`), want: verifier.ErrClaim},
	{name: "spelling after audience", claims: with(`"aud":"x","SCOPE":"x"`), want: verifier.ErrAudience},
}

func tid(name string) func(*verifier.Tenant) {
	return func(r *verifier.Tenant) { r.TenantClaim = name }
}

func required(names ...string) func(*verifier.Tenant) {
	return func(r *verifier.Tenant) { r.Required = names }
}

// Rule 15.
var typeTests = []ruleTest{
	// 15. typ
	{name: "no typ", header: withKID(`"1"`)},
	{name: "typ in lower case", header: `{"alg":"HS256","kid":"1","typ":"jwt"}`},
	{name: "typ in full", header: `{"alg":"HS256","kid":"1","typ":"Application/AT+jwt"}`},
	{name: "another typ", header: `{"alg":"HS256","kid":"1","typ":"logout+jwt"}`, want: verifier.ErrType},
	{name: "typ empty", header: `{"alg":"HS256","kid":"1","typ":""}`, want: verifier.ErrType},
	{name: "typ application/ alone", header: `{"alg":"HS256","kid":"1","typ":"application/"}`, want: verifier.ErrType},
	{name: "typ with another slash", header: `{"alg":"HS256","kid":"1","typ":"application/x/jwt"}`, want: verifier.ErrType},
	{name: "own types: no typ", header: withKID(`"1"`), rules: func(r *verifier.Tenant) { r.Types = []string{"at+jwt"} }, want: verifier.ErrType},
	{name: "own types: JWT", rules: func(r *verifier.Tenant) { r.Types = []string{"at+jwt"} }, want: verifier.ErrType},
	{name: "own types: in full", header: `{"alg":"HS256","kid":"1","typ":"at+jwt"}`, rules: func(r *verifier.Tenant) { r.Types = []string{"application/at+jwt"} }},
	{name: "typ with the Kelvin sign", header: `{"alg":"HS256","kid":"1","typ":"` + "\u212a" + `b+jwt"}`, rules: func(r *verifier.Tenant) { r.Types = []string{"kb+jwt"} }, want: verifier.ErrType},
}

// Rule 16.
var tenantTests = []ruleTest{
	// 16. the tenant's own
	{name: "tenant claim", claims: with(`"tid":"acme"`), rules: func(r *verifier.Tenant) { r.TenantClaim = "tid" }},
	{name: "tenant claim of another", claims: with(`"tid":"globex"`), rules: func(r *verifier.Tenant) { r.TenantClaim = "tid" }, want: verifier.ErrTenantMismatch},
	{name: "tenant claim missing", rules: func(r *verifier.Tenant) { r.TenantClaim = "tid" }, want: verifier.ErrTenantMismatch},
	{name: "tenant claim not a string", claims: with(`"tid":["acme"]`), rules: func(r *verifier.Tenant) { r.TenantClaim = "tid" }, want: verifier.ErrTenantMismatch},
	{name: "required", rules: func(r *verifier.Tenant) { r.Required = []string{"sub", "iat"} }},
	{name: "required missing", rules: func(r *verifier.Tenant) { r.Required = []string{"sub", "jti"} }, want: verifier.ErrMissingClaim},
	{name: "required null", claims: with(`"role":null`), rules: func(r *verifier.Tenant) { r.Required = []string{"role"} }, want: verifier.ErrMissingClaim},
	{name: "required is no fold", claims: with(`"Role":"x"`), rules: func(r *verifier.Tenant) { r.Required = []string{"role"} }, want: verifier.ErrClaim},
	{name: "check says yes", rules: func(r *verifier.Tenant) { r.Check = func(*verifier.Token) error { return nil } }},
	{name: "check says no", rules: func(r *verifier.Tenant) { r.Check = func(*verifier.Token) error { return errCheck } }, want: verifier.ErrClaim},
	{name: "its own error", rules: func(r *verifier.Tenant) { r.Check = func(*verifier.Token) error { return errCheck } }, want: errCheck},
}

var errCheck = errors.New("secret-looking-text-of-a-check")
