package verifier_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
)

const balancer = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/a/1"

// signerHeader returns a header with a parameter more.
func signerHeader(parameter string) string { return `{"alg":"HS256","kid":"1",` + parameter + `}` }

// TestMatchHeader: the load balancers of AWS share their keys, and tell themselves apart in a
// parameter of the header.
func TestMatchHeader(t *testing.T) {
	r := acme(t)
	r.MatchHeader = map[string][]string{"signer": {"other", balancer}}
	w := newTwin(t, r)
	for parameter, want := range map[string]error{
		`"signer":"` + balancer + `"`:        nil,
		`"client":"x","signer":"other"`:      nil,
		`"\u0073igner":"` + balancer + `"`:   nil,
		`"signer":["x","other"]`:             nil,
		`"signer":"` + balancer + `2"`:       verifier.ErrClaim,
		`"signer":"` + balancer[:10] + `"`:   verifier.ErrClaim,
		`"signer":"OTHER"`:                   verifier.ErrClaim,
		`"signer":""`:                        verifier.ErrClaim,
		`"signer":null`:                      verifier.ErrClaim,
		`"signer":7`:                         verifier.ErrClaim,
		`"signer":["other",7]`:               verifier.ErrClaim,
		`"signer":{"other":"other"}`:         verifier.ErrClaim,
		`"Signer":"other"`:                   verifier.ErrClaim,
		`"signer":"other","\u017figner":"x"`: verifier.ErrClaim,
		`"SIGNER":"x","signer":"other"`:      verifier.ErrClaim,
		`"signer":"other","signer":"x"`:      verifier.ErrMalformed,
		`"x":"other"`:                        verifier.ErrClaim,
		`"signer":"other","crit":["signer"]`: verifier.ErrCritical,
	} {
		w.verify(parameter, sign(signerHeader(parameter), goodPayload), want)
	}
	w.verify("in the claims", sign(goodHeader, with(`"signer":"other"`)), verifier.ErrClaim)
	w.verify("forged", signWith(secretOf("x"), signerHeader(`"signer":"x"`), goodPayload), verifier.ErrSignature)
	w.verify("the audience comes first", sign(signerHeader(`"signer":"x"`), with(`"aud":"x"`)), verifier.ErrAudience)

	_, err := w.off.Verify(t.Context(), sign(signerHeader(`"signer":"seen"`), goodPayload))
	if e := new(verifier.Error); !errors.As(err, &e) || e.Claim != "" || !strings.Contains(err.Error(), `header parameter "signer": want "other" or "`+balancer+`"`) || strings.Contains(err.Error(), "seen") {
		t.Errorf("error %v", err)
	}
}

// TestMatchHeaderIsOfOneTenant: a header that is known from another tenant's tokens is judged by the
// tenant's own rules, and cached tokens do not outlive a change.
func TestMatchHeaderIsOfOneTenant(t *testing.T) {
	strict, lax := acme(t), tenant(t, "lax", "https://lax.example", nil)
	strict.MatchHeader = map[string][]string{"signer": {"a"}}
	w := newTwin(t, strict, lax)
	token := sign(signerHeader(`"signer":"b"`), goodPayload)
	w.hit("lax", signWith(secretOf("lax"), signerHeader(`"signer":"b"`), `{"iss":"https://lax.example","exp":1800003600}`))
	w.verify("strict", token, verifier.ErrClaim)
	strict.MatchHeader["signer"][0] = "b"
	w.verify("the caller's map", token, verifier.ErrClaim)
	w.do(func(v *verifier.Verifier) error { return v.Put(strict) })
	w.hit("changed", token)
	strict.MatchHeader = map[string][]string{"signer": {"a"}}
	w.do(func(v *verifier.Verifier) error { return v.Put(strict) })
	w.verify("changed back", token, verifier.ErrClaim)
}

// TestMatchHeaderOfPaddedTokens: AWS pads each part, and has the parameter.
func TestMatchHeaderOfPaddedTokens(t *testing.T) {
	for _, signer := range []string{"a", "ab", "abc"} { // of each padding
		r := acme(t)
		r.Tolerate = []verifier.Tolerance{verifier.Padding}
		r.MatchHeader = map[string][]string{"signer": {signer}}
		newTwin(t, r).verify(signer, signPadded(signerHeader(`"signer":"`+signer+`"`), goodPayload), nil)
		newTwin(t, r).verify(signer, signPadded(signerHeader(`"signer":"x"`), goodPayload), verifier.ErrClaim)
	}
}

// TestMatchHeaderIsPlausible: a token that MatchHeader refuses makes no store ask its source.
func TestMatchHeaderIsPlausible(t *testing.T) {
	r, store := acme(t), &scripted{lookupErr: keystore.ErrUnavailable}
	r.Keys, r.MatchHeader = store, map[string][]string{"signer": {"a"}}
	tok, err := newVerifier(t, r).Verify(t.Context(), sign(goodHeader, goodPayload))
	check(t, "implausible", tok, err, verifier.ErrUnknownKey)
	if store.asked != 0 {
		t.Error("the store was asked")
	}
}

func TestMatchHeaderThatNoTokenKeeps(t *testing.T) {
	for want, match := range map[string]map[string][]string{
		"an empty name":           {"": {"x"}},
		`of "signer" has no`:      {"signer": nil},
		"empty string":            {"signer": {"x", ""}},
		`"alg" is read by a rule`: {"alg": {"HS256"}},
		`"kid" is read by a rule`: {"kid": {"1"}},
		`"jwk" is read by a rule`: {"jwk": {"1"}},
		`"Typ" differs only`:      {"Typ": {"JWT"}},
		"names differ only":       {"signer": {"x"}, "Signer": {"x"}},
	} {
		r := acme(t)
		r.MatchHeader = match
		if _, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{r}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", match, err, want)
		}
	}
}
