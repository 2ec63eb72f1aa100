package verifier_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/verifier"
)

var padded64 = base64.URLEncoding.EncodeToString

// signPadded signs as AWS's load balancers do: every part is padded, and the signature covers that.
func signPadded(header, payload string) string {
	token := signText(secret, padded64([]byte(header))+"."+padded64([]byte(payload)))
	return token + strings.Repeat("=", -(len(token)-strings.LastIndexByte(token, '.')-1)&3)
}

func tolerating(t testing.TB, list ...verifier.Tolerance) verifier.Tenant {
	r := acme(t)
	r.Tolerate = list
	return r
}

// A tolerateTest is a token that needs tolerances, and its verdict where they are given.
type tolerateTest struct {
	name   string
	token  string
	needs  []verifier.Tolerance
	strict error // without any tolerance
	with   error // with the tolerances of needs
}

func header(members string) string { return `{"alg":"HS256","kid":"1",` + members + `}` }

var (
	null    = []verifier.Tolerance{verifier.NullMembers}
	number  = []verifier.Tolerance{verifier.NumericSubject}
	cty     = []verifier.Tolerance{verifier.ContentType}
	zip     = []verifier.Tolerance{verifier.Zip}
	padding = []verifier.Tolerance{verifier.Padding}
)

var headerTolerances = []tolerateTest{
	{"typ null", sign(header(`"typ":null`), goodPayload), null, verifier.ErrMalformed, nil},
	{"kid null", sign(`{"alg":"HS256","kid":null}`, goodPayload), null, verifier.ErrMalformed, nil},
	{"enc null", sign(header(`"enc":null`), goodPayload), null, verifier.ErrMalformed, nil},
	{"zip null", sign(header(`"zip":null`), goodPayload), null, verifier.ErrCritical, nil},
	{"cty null", sign(header(`"cty":null`), goodPayload), null, verifier.ErrType, nil},
	{"alg null", sign(`{"alg":null}`, goodPayload), nil, verifier.ErrMalformed, verifier.ErrMalformed},
	{"kid empty", sign(`{"alg":"HS256","kid":""}`, goodPayload), nil, verifier.ErrMalformed, verifier.ErrMalformed},
	{"crit null", sign(header(`"crit":null`), goodPayload), nil, verifier.ErrCritical, verifier.ErrCritical},
	{"b64 null", sign(header(`"b64":null`), goodPayload), nil, verifier.ErrCritical, verifier.ErrCritical},
	{"crit and zip", sign(header(`"zip":"DEF","crit":["exp"]`), goodPayload), nil, verifier.ErrCritical, verifier.ErrCritical},
	{"crit and kid null", sign(`{"alg":"HS256","kid":null,"crit":["exp"]}`, goodPayload), null, verifier.ErrMalformed, verifier.ErrCritical},
	{"enc", sign(header(`"enc":"A128GCM"`), goodPayload), nil, verifier.ErrMalformed, verifier.ErrMalformed},
	{"ENC", sign(header(`"ENC":"A128GCM"`), goodPayload), nil, verifier.ErrMalformed, verifier.ErrMalformed},
	{"cty json", sign(header(`"cty":"json"`), goodPayload), cty, verifier.ErrType, nil},
	{"cty of any type", sign(header(`"cty":[1]`), goodPayload), cty, verifier.ErrType, nil},
	{"CTY", sign(header(`"CTY":"json"`), goodPayload), nil, verifier.ErrMalformed, verifier.ErrMalformed},
	{"cty, and no claims object", sign(header(`"cty":"JWT"`), "e30.e30.e30"), cty, verifier.ErrType, verifier.ErrMalformed},
	{"zip", sign(header(`"zip":"GZIP"`), goodPayload), zip, verifier.ErrCritical, nil},
	{"zip, and a payload that is compressed", sign(header(`"zip":"DEF"`), "\x4b\x4c\x04\x00"), zip, verifier.ErrCritical, verifier.ErrMalformed},
	{"zip and cty", sign(header(`"zip":"GZIP","cty":"JWT"`), goodPayload), []verifier.Tolerance{verifier.ContentType, verifier.Zip}, verifier.ErrCritical, nil},
	{"padding", signPadded(goodHeader, goodPayload), padding, verifier.ErrMalformed, nil},
	{"padding and cty", signPadded(header(`"cty":"JWT"`), goodPayload), []verifier.Tolerance{verifier.ContentType, verifier.Padding}, verifier.ErrMalformed, nil},
	{"padding of one part", signText(secret, padded64([]byte(goodHeader+" "))+"."+b64([]byte(goodPayload))), nil, verifier.ErrMalformed, verifier.ErrMalformed},
	{"padding too long", strings.Replace(signPadded(goodHeader+" ", goodPayload), ".", "====.", 1), nil, verifier.ErrMalformed, verifier.ErrMalformed},
	{"forged, with cty", signWith(secretOf("x"), header(`"cty":"JWT"`), goodPayload), cty, verifier.ErrType, verifier.ErrSignature},
}

var claimTolerances = []tolerateTest{
	{"sub null", sign(goodHeader, with(`"sub":null`)), null, verifier.ErrClaim, nil},
	{"jti null", sign(goodHeader, with(`"jti":null`)), null, verifier.ErrClaim, nil},
	{"nbf null", sign(goodHeader, with(`"nbf":null`)), null, verifier.ErrClaim, nil},
	{"iat null", sign(goodHeader, with(`"iat":null`)), null, verifier.ErrClaim, nil},
	{"exp null", sign(goodHeader, with(`"exp":null`)), null, verifier.ErrClaim, verifier.ErrMissingClaim},
	{"iss null", sign(goodHeader, with(`"iss":null`)), null, verifier.ErrIssuer, verifier.ErrIssuer},
	{"aud null", sign(goodHeader, with(`"aud":null`)), null, verifier.ErrAudience, verifier.ErrAudience},
	{"null in aud", sign(goodHeader, with(`"aud":["api",null]`)), nil, verifier.ErrAudience, verifier.ErrAudience},
	{"SUB null", sign(goodHeader, with(`"SUB":null`)), nil, verifier.ErrClaim, verifier.ErrClaim},
	{"sub 7", sign(goodHeader, with(`"sub":7`)), number, verifier.ErrClaim, nil},
	{"sub -7", sign(goodHeader, with(`"sub":-7`)), number, verifier.ErrClaim, nil},
	{"sub of thirty digits", sign(goodHeader, with(`"sub":123456789012345678901234567890`)), number, verifier.ErrClaim, nil},
	{"jti 7", sign(goodHeader, with(`"jti":7`)), number, verifier.ErrClaim, nil},
	{"sub 7.0", sign(goodHeader, with(`"sub":7.0`)), nil, verifier.ErrClaim, verifier.ErrClaim},
	{"sub 7e0", sign(goodHeader, with(`"sub":7e0`)), nil, verifier.ErrClaim, verifier.ErrClaim},
	{"sub -0", sign(goodHeader, with(`"sub":-0`)), nil, verifier.ErrClaim, verifier.ErrClaim},
	{"sub true", sign(goodHeader, with(`"sub":true`)), nil, verifier.ErrClaim, verifier.ErrClaim},
	{"iss 7", sign(goodHeader, with(`"iss":7`)), nil, verifier.ErrIssuer, verifier.ErrIssuer},
	{"exp of the wrong type", sign(goodHeader, with(`"exp":"1800003600"`)), nil, verifier.ErrClaim, verifier.ErrClaim},
}

// TestTolerate pins what each tolerance lets in, alone and with all others, and that nothing else
// does. A token that is let in is cached as any other.
func TestTolerate(t *testing.T) {
	for _, tt := range slices.Concat(headerTolerances, claimTolerances) {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := verifier.Needs(tt.token); err == nil && !slices.Equal(got, tt.needs) {
				t.Errorf("Needs = %v, want %v", got, tt.needs)
			} else if err != nil && tt.with == nil {
				t.Errorf("Needs: %v", err)
			}
			newTwin(t, acme(t)).verify("strict", tt.token, tt.strict)
			newTwin(t, tolerating(t, tt.needs...)).verify("tolerated", tt.token, tt.with)
			all := slices.DeleteFunc(verifier.Tolerances(), func(one verifier.Tolerance) bool {
				return one == verifier.Padding && !slices.Contains(tt.needs, one)
			})
			newTwin(t, tolerating(t, all...)).verify("all", tt.token, tt.with)
			for _, one := range verifier.Tolerances() {
				if slices.Contains(tt.needs, one) || tt.strict == nil || tt.name == "zip null" || tt.name == "cty null" {
					continue
				}
				if tok, err := newVerifier(t, tolerating(t, one)).Verify(t.Context(), tt.token); err == nil || tok != nil {
					t.Errorf("%s lets it in", one)
				}
			}
		})
	}
}

// TestTolerancesAreNamed: an error that a tolerance would have prevented says which one.
func TestTolerancesAreNamed(t *testing.T) {
	for _, tt := range slices.Concat(headerTolerances, claimTolerances) {
		_, err := newVerifier(t, acme(t)).Verify(t.Context(), tt.token)
		for _, need := range tt.needs {
			named := strings.HasSuffix(err.Error(), "Tolerate "+string(need)) || strings.Contains(err.Error(), "Tolerate "+string(need)+": claim ")
			first := len(tt.needs) == 1 && tt.with == nil && tt.name != "zip null" && tt.name != "cty null"
			if first && !named {
				t.Errorf("%s: %v, want it to name %s", tt.name, err, need)
			}
		}
	}
	_, err := newVerifier(t, acme(t)).Verify(t.Context(), sign(goodHeader, with(`"sub":7`)))
	const want = `claim "sub" is a number; RFC 7519 wants a string. If this issuer always does that: Tolerate numeric-sub`
	if !strings.HasSuffix(err.Error(), want) {
		t.Errorf("error %v, want %q", err, want)
	}
}

// TestPaddingIsDemanded: where padding is tolerated, a token without it is another spelling, and
// refused.
func TestPaddingIsDemanded(t *testing.T) {
	v := newVerifier(t, tolerating(t, verifier.Padding))
	padded := signPadded(goodHeader, goodPayload)
	for what, token := range map[string]string{
		"bare":             sign(goodHeader, goodPayload),
		"padding stripped": strings.ReplaceAll(padded, "=", ""),
		"sig stripped":     strings.TrimRight(padded, "="),
	} {
		for range 3 {
			tok, err := v.Verify(t.Context(), token)
			check(t, what, tok, err, verifier.ErrMalformed)
			if _, err := v.Verify(t.Context(), padded); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestNullNeverSatisfies: null counts as missing, and what is required stays required.
func TestNullNeverSatisfies(t *testing.T) {
	for name, edit := range map[string]func(*verifier.Tenant){
		"Required":    func(r *verifier.Tenant) { r.Required = []string{"sub"} },
		"MaxAge":      func(r *verifier.Tenant) { r.MaxAge = 3600e9 },
		"TenantClaim": func(r *verifier.Tenant) { r.TenantClaim = "sub" },
		"Match":       func(r *verifier.Tenant) { r.Match = map[string][]string{"sub": {"null", "ann"}} },
	} {
		r := tolerating(t, verifier.NullMembers)
		edit(&r)
		token := sign(goodHeader, `{"iss":"https://acme.example","sub":null,"aud":"api","exp":1800003600,"iat":null}`)
		if tok, err := newVerifier(t, r).Verify(t.Context(), token); !errors.Is(err, verifier.ErrInvalid) || tok != nil {
			t.Errorf("%s: %v, %v", name, tok, err)
		}
	}
	r := tolerating(t, verifier.NullMembers)
	r.AllowNoExpiry = true
	tok, err := newVerifier(t, r).Verify(t.Context(), sign(goodHeader, `{"iss":"https://acme.example","sub":null,"aud":"api","exp":null,"iat":null,"jti":null,"nbf":null}`))
	if err != nil || tok.Subject() != "" || tok.ID() != "" || !tok.Expires().IsZero() || !tok.IssuedAt().IsZero() {
		t.Errorf("%v, %v: want a token without sub, jti, exp and iat", tok, err)
	}
}

// TestNumericSubject: the subject is the decimal text, so a revocation of "7" reaches 7 too.
func TestNumericSubject(t *testing.T) {
	w := newTwin(t, tolerating(t, verifier.NumericSubject))
	number, text := sign(goodHeader, with(`"sub":7`)), sign(goodHeader, with(`"sub":"7"`))
	id := sign(goodHeader, with(`"jti":-12345678901234567890`))
	for _, token := range []string{number, text, id} {
		w.hit("at first", token)
	}
	tok, err := w.on.Verify(t.Context(), number)
	if err != nil || tok.Subject() != "7" || !tok.HasAny("sub", "7") || tok.HasAny("sub", "07") {
		t.Errorf("Subject = %q, %v", tok.Subject(), err)
	}
	if tok, err = w.on.Verify(t.Context(), id); err != nil || tok.ID() != "-12345678901234567890" {
		t.Errorf("ID = %q, %v", tok.ID(), err)
	}
	if err := errors.Join(w.revocations.RevokeSubject("acme", "7", w.now), w.revocations.RevokeToken("acme", "-12345678901234567890", w.now)); err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{number, text, id} {
		w.verify("revoked", token, verifier.ErrRevoked)
	}
}

// TestToleratesOneTenant: a header that one tenant's tokens made known is refused at another, and a
// change of Tolerate ends the tokens that it let in.
func TestToleratesOneTenant(t *testing.T) {
	a := tenant(t, "a", "https://a.example", func(r *verifier.Tenant) { r.Tolerate = []verifier.Tolerance{verifier.Zip} })
	w := newTwin(t, a, tenant(t, "b", "https://b.example", nil))
	tokenFor := func(id string) string {
		return signWith(secretOf(id), header(`"zip":"GZIP"`), fmt.Sprintf(`{"exp":1800003600,"iss":"https://%s.example"}`, id))
	}
	w.hit("tolerated", tokenFor("a"))
	w.verify("not tolerated", tokenFor("b"), verifier.ErrCritical)
	w.verify("not tolerated", tokenFor("b"), verifier.ErrCritical, "b")
	w.verify("unknown tenant", tokenFor("c"), verifier.ErrCritical)
	a.Tolerate = nil
	w.do(func(v *verifier.Verifier) error { return v.Put(a) })
	w.verify("not tolerated any more", tokenFor("a"), verifier.ErrCritical)
	a.Tolerate = []verifier.Tolerance{verifier.Zip, verifier.Padding}
	w.do(func(v *verifier.Verifier) error { return v.Put(a) })
	w.verify("without padding", tokenFor("a"), verifier.ErrMalformed)
}

func TestUnknownTolerances(t *testing.T) {
	for _, name := range []verifier.Tolerance{"crit", "b64", "", "Zip", "typ"} {
		_, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{tolerating(t, verifier.Zip, name)}})
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("Tolerate holds %q", string(name))) {
			t.Errorf("New with %q: %v", name, err)
		}
	}
}
