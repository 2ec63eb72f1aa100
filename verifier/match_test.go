package verifier_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/verifier"
)

// matchTests have a claim and what a Match or HasAny of it says of the values "a" and "b".
var matchTests = []struct {
	name, claims, claim string
	want                bool
}{
	{"a string", `"azp":"a"`, "azp", true},
	{"the second value", `"azp":"b"`, "azp", true},
	{"an escape", `"azp":"\u0061"`, "azp", true},
	{"an escape in the name", `"\u0061zp":"a"`, "azp", true},
	{"another string", `"azp":"c"`, "azp", false},
	{"another case", `"azp":"A"`, "azp", false},
	{"missing", `"x":"a"`, "azp", false},
	{"null", `"azp":null`, "azp", false},
	{"a number", `"azp":7`, "azp", false},
	{"an object", `"azp":{"a":"a"}`, "azp", false},
	{"an array", `"azp":[ "c" , "b" ]`, "azp", true},
	{"an empty array", `"azp":[]`, "azp", false},
	{"an array of others", `"azp":["c","ab"]`, "azp", false},
	{"an array with a number", `"azp":["a",1]`, "azp", false},
	{"an array in an array", `"azp":[["a"]]`, "azp", false},
	{"in an object", `"realm_access":{"x":[{"roles":"a"},1.5e3,true],"y":"}","roles":["c","a"]}`, "realm_access.roles", true},
	{"in an object, with white space", "\"r\" : { \"x\" : 1 , \"roles\" : \"a\" }", "r.roles", true},
	{"not in an object", `"realm_access":{"roles":["c"]}`, "realm_access.roles", false},
	{"deep", `"a":{"b":{"c":"a"}}`, "a.b.c", true},
	{"too deep", `"a":{"b":{"c":"a"}}`, "a.b", false},
	{"through a string", `"a":"a"`, "a.b", false},
	{"through an array", `"a":[{"b":"a"}]`, "a.b", false},
	{"the exact name", `"https://x.example/roles":["a"]`, "https://x.example/roles", true},
	{"the exact name comes first", `"r.roles":"c","r":{"roles":"a"}`, "r.roles", false},
	{"the exact name, though null", `"r.roles":null,"r":{"roles":"a"}`, "r.roles", false},
	{"the exact name does not need the object", `"r.roles":"a","r":{"roles":"c"}`, "r.roles", true},
	{"a name with a dot inside an object", `"a":{"b.c":"a"}`, "a.b.c", true},
	{"through a name with a dot", `"kubernetes.io":{"namespace":"a"}`, "kubernetes.io.namespace", true},
	{"through and to names with a dot", `"kubernetes.io":{"x":0,"pod":{"a.b":"a"}}`, "kubernetes.io.pod.a.b", true},
	{"the longest name", `"a.b":{"c":"a"},"a":{"b":{"c":"c"}}`, "a.b.c", true},
	{"the longest name, wherever it stands", `"a":{"b":{"c":"a"}},"a.b":{"c":"c"}`, "a.b.c", false},
	{"the longest name, though it leads nowhere", `"a":{"b":{"c":"a"}},"a.b":{"d":"a"}`, "a.b.c", false},
	{"the longest name, though it is null", `"a":{"b":{"c":"a"}},"a.b":null`, "a.b.c", false},
	{"the longest name in an object", `"a":{"b.c":{"d":"c"},"b":{"c.d":"a"}}`, "a.b.c.d", false},
	{"a part of a name", `"ab.c":{"d":"a"}`, "b.c.d", false},
	{"a name with an escaped dot", `"a\u002eb":"a"`, "a.b", true},
	{"half of the name", `"a":{"bc":"a"}`, "a.b", false},
	{"empty parts", `"a":{"":{"b":"a"}}`, "a..b", true},
	{"a registered claim", `"sub":"a"`, "sub", true},
}

func TestMatch(t *testing.T) {
	for _, tt := range matchTests {
		t.Run(tt.name, func(t *testing.T) {
			payload := with(tt.claims)
			if tok := verified(t, payload); tok.HasAny(tt.claim, "a", "b") != tt.want || tok.HasAny(tt.claim) {
				t.Errorf("HasAny(%q) = %v, want %v", tt.claim, !tt.want, tt.want)
			}
			r := acme(t)
			r.Match = map[string][]string{tt.claim: {"a", "b"}}
			var want error
			if !tt.want {
				want = verifier.ErrClaim
			}
			newTwin(t, r).verify(payload, sign(goodHeader, payload), want)
		})
	}
}

// TestMatchAfterWhiteSpace: white space around the claims object does not hide them.
func TestMatchAfterWhiteSpace(t *testing.T) {
	r := acme(t)
	r.Match = map[string][]string{"sub": {"ann"}}
	newTwin(t, r).verify("white space", sign(goodHeader, "\r\n\t "+goodPayload+" \n"), nil)
}

// TestMatchIsOrdered: Match comes after the audience, and the first name decides.
func TestMatchIsOrdered(t *testing.T) {
	r := acme(t)
	r.Match = map[string][]string{"b": {"x"}, "a": {"x"}, "c": {"x"}}
	w := newTwin(t, r)
	w.verify("audience", sign(goodHeader, with(`"aud":"x"`)), verifier.ErrAudience)
	for range 20 {
		_, err := w.off.Verify(t.Context(), sign(goodHeader, goodPayload))
		e := new(verifier.Error)
		if !errors.As(err, &e) || e.Claim != "a" || e.Reason != verifier.ReasonClaim {
			t.Fatalf("error %v, want that of a", err)
		}
	}
	good := sign(goodHeader, with(`"a":"x","b":"x","c":["x"]`))
	w.hit("matches", good)
	w.verify("another case", sign(goodHeader, with(`"a":"x","b":"x","c":["x"],"A":"x"`)), verifier.ErrClaim)
	r.Match = map[string][]string{"a": {"y"}}
	w.do(func(v *verifier.Verifier) error { return v.Put(r) })
	w.verify("matches no more", good, verifier.ErrClaim)
}

// TestMatchSpelling: no claim that Match may read has another case beside it, which a service that
// ignores case would read in its place.
func TestMatchSpelling(t *testing.T) {
	r := acme(t)
	r.Match = map[string][]string{"a.b.c": {"x"}}
	w := newTwin(t, r)
	for _, good := range []string{`"a":{"b":{"c":"x"}}`, `"a.b":{"c":"x"}`, `"a.b.c":"x"`} {
		w.hit(good, sign(goodHeader, with(good)))
		for _, other := range []string{`"A":{}`, `"a.B":{}`, `"a.b.C":"y"`} {
			w.verify(good+other, sign(goodHeader, with(good+","+other)), verifier.ErrClaim)
		}
	}
}

// TestMatchSpellingInObjects: the rule of case holds on the whole way of a name, and nowhere else.
func TestMatchSpellingInObjects(t *testing.T) {
	r := acme(t)
	r.Match = map[string][]string{"realm_access.roles": {"admin"}, "k.io.b.c": {"x"}}
	w := newTwin(t, r)
	const roles, way = `"realm_access":{"roles":["admin"]}`, `"k.io":{"b":{"c":"x"}}`
	for claims, want := range map[string]error{
		roles + "," + way: nil,
		`"realm_access":{"roles":["admin"],"ROLES":["user"]},` + way: verifier.ErrClaim,
		`"realm_access":{"Role\u017f":[],"roles":["admin"]},` + way:  verifier.ErrClaim,
		`"realm_access":{"roles":["admin"],"Other":1},` + way:        nil,
		roles + `,"k.io":{"b":{"c":"x"},"B":{}}`:                     verifier.ErrClaim,
		roles + `,"k.io":{"b":{"c":"x","C":"y"}}`:                    verifier.ErrClaim,
		roles + `,"k.io":{"b":{"c":"x","d":{"C":"y"}}}`:              nil,
		roles + "," + way + `,"other":{"ROLES":[],"B":{}}`:           nil,
	} {
		w.verify(claims, sign(goodHeader, with(claims)), want)
	}
}

// TestMatchKeepsACopy: what the caller does to its map later changes nothing.
func TestMatchKeepsACopy(t *testing.T) {
	r := acme(t)
	r.Match = map[string][]string{"sub": {"bob"}}
	w := newTwin(t, r)
	r.Match["sub"][0] = "ann"
	delete(r.Match, "sub")
	w.verify("ann", sign(goodHeader, goodPayload), verifier.ErrClaim)
}

func TestMatchThatNoTokenKeeps(t *testing.T) {
	for want, match := range map[string]map[string][]string{
		"an empty name":          {"": {"x"}},
		`Match of "azp" has no`:  {"azp": nil},
		"empty string":           {"azp": {"x", ""}},
		`Match of "exp"`:         {"exp": {"1800003600"}},
		"differ only by case":    {"azp": {"x"}, "AZP": {"x"}},
		`"sub" and "SUB" differ`: {"SUB": {"x"}},
	} {
		r := acme(t)
		r.Match = match
		if _, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{r}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", match, err, want)
		}
	}
}
