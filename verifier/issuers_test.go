package verifier_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/verifier"
)

func others(list ...string) func(*verifier.Tenant) {
	return func(r *verifier.Tenant) { r.OtherIssuers = list }
}

func issued(by, iss string) string { return tokenOf(by, `"iss":"`+iss+`"`) }

// TestOtherIssuers: each issuer routes to its tenant, byte for byte, and to no other.
func TestOtherIssuers(t *testing.T) {
	a := tenant(t, "a", "https://a.example", others("a.example", "https://a.example/v2"))
	w := newTwin(t, a, tenant(t, "b", "https://b.example", nil))
	for _, iss := range []string{"https://a.example", "a.example", "https://a.example/v2"} {
		w.hit(iss, issued("a", iss))
		w.hit(iss, issued("a", iss), "a")
		w.verify("b's key", issued("b", iss), verifier.ErrSignature)
		w.verify("b's hint", issued("b", iss), verifier.ErrIssuer, "b")
		tok, err := w.on.Verify(t.Context(), issued("a", iss))
		if err != nil || tok.Issuer() != iss || tok.Tenant() != "a" {
			t.Errorf("%s: issuer %q of %q, %v", iss, tok.Issuer(), tok.Tenant(), err)
		}
	}
	for _, iss := range []string{"A.example", "a.example/", "https://a.example/v", "https://a.example/v2/", "", "https://b.example/v2"} {
		w.verify(iss, issued("a", iss), verifier.ErrUnknownTenant)
		w.verify(iss, issued("a", iss), verifier.ErrIssuer, "a")
	}
	w.verify("b's issuer, a's key", issued("a", "https://b.example"), verifier.ErrSignature)
}

// TestOtherIssuersChange: a change of who has an issuer ends the tokens that it routed.
func TestOtherIssuersChange(t *testing.T) {
	a, b := tenant(t, "a", "https://a.example", others("shared")), tenant(t, "b", "https://b.example", nil)
	w := newTwin(t, a, b)
	w.hit("a has it", issued("a", "shared"))
	a.OtherIssuers = nil
	w.do(func(v *verifier.Verifier) error { return v.Put(a) })
	w.verify("a gave it up", issued("a", "shared"), verifier.ErrUnknownTenant)
	b.OtherIssuers = []string{"shared"}
	w.do(func(v *verifier.Verifier) error { return v.Put(b) })
	w.verify("b has it", issued("a", "shared"), verifier.ErrSignature)
	w.hit("b has it", issued("b", "shared"))
	w.do(func(v *verifier.Verifier) error { return v.Remove("b") })
	w.verify("a is alone", issued("b", "shared"), verifier.ErrSignature)
	w.verify("a is alone", issued("a", "shared"), verifier.ErrIssuer)

	// c shares it too: only a hint tells them apart, for tokens that are cached as well.
	tid := func(r *verifier.Tenant) { r.TenantClaim = "tid" }
	c, d := tenant(t, "c", "https://c.example", tid), tenant(t, "d", "https://d.example", tid)
	c.OtherIssuers = []string{"common"}
	token := tokenOf("c", `"iss":"common","tid":"c"`)
	w.do(func(v *verifier.Verifier) error { return v.Put(c, d) })
	w.hit("c has it", token)
	d.OtherIssuers = []string{"common"}
	w.do(func(v *verifier.Verifier) error { return v.Put(d) })
	w.verify("c and d have it", token, verifier.ErrUnknownTenant)
	w.hit("c by hint", token, "c")
	w.verify("d by hint", token, verifier.ErrSignature, "d")
}

func TestIssuersBelongToOneTenant(t *testing.T) {
	for name, tt := range map[string]struct {
		a, b func(*verifier.Tenant)
		want string
	}{
		"other and other":      {others("x"), others("x"), `tenants "a" and "b" share the issuer "x"`},
		"other and issuer":     {others("https://b.example"), nil, `tenants "a" and "b" share the issuer "https://b.example"`},
		"twice":                {others("x", "x"), nil, `have "x" twice`},
		"twice, in Issuer too": {others("https://a.example"), nil, `have "https://a.example" twice`},
		"empty":                {others(""), nil, "OtherIssuers holds an empty string"},
		"AnyIssuer":            {func(r *verifier.Tenant) { r.Issuer, r.AnyIssuer, r.OtherIssuers = "", true, []string{"x"} }, nil, "OtherIssuers and AnyIssuer contradict"},
	} {
		_, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{tenant(t, "a", "https://a.example", tt.a), tenant(t, "b", "https://b.example", tt.b)}})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// TestErrorsSayWhatWasWanted: the errors name the configuration, and never what the token had.
func TestErrorsSayWhatWasWanted(t *testing.T) {
	r := acme(t)
	r.Types, r.TenantClaim, r.OtherIssuers = []string{"JWT", ""}, "tid", []string{"acme/"}
	r.Match = map[string][]string{"azp": {"app", "web"}}
	tid := `"tid":"acme","azp":"app"`
	for _, tt := range []struct{ token, want string }{
		{sign(goodHeader, with(`"iss":"theirs"`)), `wrong issuer: want "https://acme.example" or "acme/": claim "iss"`},
		{sign(goodHeader, with(`"iss":"https://acme.example/"`)), `wrong issuer: want "https://acme.example", and the token's has a slash too many at its end: claim "iss"`},
		{sign(goodHeader, with(`"iss":"acme"`)), `wrong issuer: want "acme/", and the token's lacks the slash at its end: claim "iss"`},
		{sign(goodHeader, with(`"aud":"theirs"`)), `wrong audience: want "api" or "other": claim "aud"`},
		{sign(goodHeader, with(`"aud":["theirs","api/"]`)), `wrong audience: want "api", and the token's has a slash too many at its end: claim "aud"`},
		{sign(`{"alg":"HS512","kid":"1"}`, goodPayload), `algorithm not allowed: want HS256`},
		{sign(`{"alg":"HS256","kid":"1","typ":"theirs"}`, with(tid)), `token type not accepted: want typ "JWT" or no typ`},
		{sign(goodHeader, with(`"azp":"app","tid":"theirs"`)), `token of another tenant: want "acme": claim "tid"`},
		{sign(goodHeader, with(`"azp":"theirs"`)), `claim not accepted: claim "azp": want "app" or "web"`},
		{strings.Repeat("a", 16<<10+1), `token too large: 16385 bytes, and MaxTokenBytes allows 16384`},
	} {
		_, err := newVerifier(t, r).Verify(t.Context(), tt.token)
		if err == nil || !strings.HasSuffix(err.Error(), ": "+tt.want) || strings.Contains(err.Error(), "theirs") {
			t.Errorf("error %v, want %q", err, tt.want)
		}
		if full := fmt.Sprintf("%+v", err); full != err.Error() {
			t.Errorf("%%+v prints %q", full)
		}
	}
	two := newVerifier(t, tenant(t, "a", "https://a.example/", nil), tenant(t, "b", "https://b.example", nil))
	for iss, want := range map[string]string{
		"https://a.example":  `unknown tenant: want "https://a.example/", and the token's lacks the slash at its end: claim "iss"`,
		"https://b.example/": `unknown tenant: want "https://b.example", and the token's has a slash too many at its end: claim "iss"`,
		"https://c.example":  `unknown tenant: claim "iss"`,
	} {
		if _, err := two.Verify(t.Context(), issued("a", iss)); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: %v, want %q", iss, err, want)
		}
	}
}
