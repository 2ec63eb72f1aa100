package middleware_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

func TestRequireClaim(t *testing.T) {
	v := newVerifier(t, "acme")
	for _, tt := range []struct {
		name, claim, claims string // claims is JSON
		status              int
	}{
		{"string", "role", `{"role":"admin"}`, 200},
		{"string, the other value", "role", `{"role":"ops"}`, 200},
		{"string with an escape", "role", `{"role":"\u0061dmin"}`, 200},
		{"array", "roles", `{"roles":["x","admin"]}`, 200},
		{"in an object", "realm_access.roles", `{"realm_access":{"roles":["ops"]}}`, 200},
		{"a name with dots", "https://acme.example/roles", `{"https://acme.example/roles":["admin"]}`, 200},
		{"the exact name comes first", "a.b", `{"a.b":"admin","a":{"b":"x"}}`, 200},
		{"the exact name comes first, and refuses", "a.b", `{"a.b":"x","a":{"b":"admin"}}`, 403},
		{"missing", "role", `{}`, 403},
		{"null", "role", `{"role":null}`, 403},
		{"empty", "role", `{"role":""}`, 403},
		{"empty array", "role", `{"role":[]}`, 403},
		{"array of an empty text", "role", `{"role":[""]}`, 403},
		{"another", "role", `{"role":"user"}`, 403},
		{"another case", "role", `{"role":"Admin"}`, 403},
		{"a longer one", "role", `{"role":"admins"}`, 403},
		{"several in one string", "role", `{"role":"admin ops"}`, 403},
		{"with a space", "role", `{"role":"admin "}`, 403},
		{"the name in another case", "role", `{"Role":"admin"}`, 403},
		{"number", "role", `{"role":1}`, 403},
		{"boolean", "role", `{"role":true}`, 403},
		{"object with it as a name", "role", `{"role":{"admin":true}}`, 403},
		{"object with it as a value", "role", `{"role":{"role":"admin"}}`, 403},
		{"nested array", "role", `{"role":[["admin"]]}`, 403},
		{"array with an object before it", "role", `{"role":[{"name":"x"},"admin"]}`, 403},
		{"array with a number after it", "role", `{"role":["admin",1]}`, 403},
		{"its JSON as a string", "role", `{"role":"[\"admin\"]"}`, 403},
		{"an object in an array", "a.b", `{"a":[{"b":"admin"}]}`, 403},
		{"a string where an object must be", "a.b", `{"a":"b"}`, 403},
		{"an object where a part is missing", "a.b.c", `{"a":{"b":"admin"}}`, 403},
		{"too short a name", "a", `{"a":{"b":"admin"}}`, 403},
		{"a part that is only dots", "a..b", `{"a":{"b":"admin"}}`, 403},
	} {
		t.Run(tt.name, func(t *testing.T) {
			claims := claimsOf("acme")
			if err := json.Unmarshal([]byte(tt.claims), &claims); err != nil {
				t.Fatal(err)
			}
			r := request("GET", "/", bearer(sign(secretOf("acme"), "kid-acme", claims))...)
			h := middleware.RequireClaim(tt.claim, "admin", "ops")(whoami)
			w := serve(middleware.Require(v)(h), r)
			if w.Code != tt.status || (w.Body.String() == "ann of acme") != (tt.status == 200) {
				t.Errorf("got %d %s, want %d", w.Code, w.Body, tt.status)
			}
			if len(tt.claim) > 1 && strings.Contains(answerOf(w), tt.claim) || strings.Contains(answerOf(w), "admin") || strings.Contains(answerOf(w), "ops") {
				t.Errorf("the answer tells what is wanted: %s", answerOf(w))
			}
			var c capture
			serve(middleware.Require(v, middleware.WithErrorHandler(c.handle))(h), r)
			if tt.status == 403 && (!errors.Is(c.err, middleware.ErrForbidden) || errors.Is(c.err, verifier.ErrInvalid) ||
				c.err.Error() != `middleware: forbidden: claim "`+tt.claim+`" is none of ["admin" "ops"]`) {
				t.Errorf("error %v, want ErrForbidden with what is wanted", c.err)
			}
		})
	}
}

// The caller's slice may change afterwards: the demand does not.
func TestRequireClaimKeepsItsValues(t *testing.T) {
	values := []string{"admin"}
	h := middleware.Require(newVerifier(t, "acme"))(middleware.RequireClaim("role", values...)(whoami))
	values[0] = "user"
	for role, want := range map[string]int{"admin": 200, "user": 403} {
		if w := serve(h, request("GET", "/", bearer(good("acme", "role", role))...)); w.Code != want {
			t.Errorf("%s: got %d, want %d", role, w.Code, want)
		}
	}
}
