package main

import (
	"strings"
	"testing"
	"time"
)

// The file says which profiles there are, and which headers tell whose request it is.
func TestServeAuthz(t *testing.T) {
	config := "identity: {prefix: Remote-, claims: {Email: email}}\n" +
		"authz: {wait: 100ms, cannot_tell: 403, forward_token: true, profiles: {default: {}, orders-write: {scopes: [orders:write], audiences: [api], tenant: acme}, web: {audiences: [web]}}}\n" +
		"tenants:\n" + acmeTenant
	s := startServe(t, nil, "--config", configFolder(t, config, map[string]string{"s": testSecret}))
	token := func(more string) string {
		return hs256(testSecret, plainHeader, in(time.Hour, `,"iss":"https://acme.example","aud":"api","sub":"ann"`+more))
	}
	a := s.ask(t, "POST", "/authz", token(`,"email":"a@b.example"`))
	if h := a.header; a.status != 200 || h.Get("Remote-Tenant") != "acme" || h.Get("Remote-Subject") != "ann" || h.Get("Remote-Email") != "a@b.example" ||
		h.Get("X-Envoy-Auth-Headers-To-Remove") != "remote-scopes,remote-token-id" || a.body != "" {
		t.Errorf("got %d %v %q", a.status, h, a.body)
	}
	for path, want := range map[string]int{"/authz/orders-write": 403, "/ext-authz/orders-write/orders?x=1": 403, "/authz/web": 403, "/authz/none": 404, "/ext-authz/default/api/x": 200} {
		if a := s.ask(t, "GET", path, token("")); a.status != want {
			t.Errorf("%s: %d, want %d", path, a.status, want)
		}
	}
	if a := s.ask(t, "GET", "/ext-authz/orders-write/../../api/x", token(`,"scope":"orders:write"`)); a.status != 200 || a.header.Get("Remote-Scopes") != "orders:write" {
		t.Errorf("got %d %v", a.status, a.header)
	}
	if a := s.ask(t, "GET", "/authz", "x"); a.status != 401 || !strings.Contains(a.header.Get("WWW-Authenticate"), "invalid_token") {
		t.Errorf("got %d %v", a.status, a.header)
	}
}

// Without a file there is one profile, in every mode.
func TestServeAuthzWithoutConfig(t *testing.T) {
	s := startServeAlone(t, map[string]string{envSecret: testSecret})
	a := s.ask(t, "GET", "/authz", hs256(testSecret, plainHeader, in(time.Hour, `,"sub":"ann"`)))
	if a.status != 200 || a.header.Get("X-Auth-Subject") != "ann" || a.header.Get("X-Auth-Tenant") != defaultTenant {
		t.Errorf("got %d %v", a.status, a.header)
	}
	if a := s.ask(t, "GET", "/authz/none", ""); a.status != 404 {
		t.Errorf("no profile: %d", a.status)
	}
}

func TestConfigAuthz(t *testing.T) {
	for text, want := range map[string]string{
		"identity: {prefix: X-}":                                             `identity: prefix is "X-"`,
		"identity: {prefix: X_Auth-}":                                        `prefix is "X_Auth-"`,
		"identity: {claims: {Email: }}":                                      `claims: "Email" has no claim`,
		"identity: {claims: {Tenant: tid}}":                                  `"Tenant" has the name of`,
		"identity: {claims: {Groups: groups}}":                               "is a list or an object",
		"identity: {claim: {}}":                                              `unknown field "claim"`,
		"identity: {assertion: {audience: a}}":                               "assertion.tenant is missing",
		"identity: {assertion: {tenant: acme}}":                              "assertion.audience is missing",
		"identity: {assertion: {tenant: acme, audience: a}}":                 `"acme" is no tenant of kind ring`,
		"identity: {assertion: {tenant: acme, audience: a, ttl: 10m}}":       "assertion.ttl: want at most 5m",
		"authz: {wait: 0s}":                                                  "authz.wait: want at least 1ms",
		"authz: {wait: soon}":                                                "authz.wait: want a duration",
		"authz: {cannot_tell: 200}":                                          "cannot_tell is 200: want 503 or 403",
		"authz: {profiles: {}}":                                              "profiles is empty",
		"authz: {profiles: {a/b: {}}}":                                       `profiles: "a/b" is not a name`,
		"authz: {profiles: {'': {}}}":                                        `profiles: "" is not a name`,
		"authz: {profiles: {a: {scopes: [x y]}}}":                            `"x y" is not a scope`,
		"authz: {profiles: {a: {scope: [x]}}}":                               `unknown field "scope"`,
		"authz: {profiles: {a: {audiences: ['']}}}":                          "an audience is empty",
		"authz: {profiles: {a: {tenant: globex}}}":                           `authz.profiles.a.tenant: there is no tenant "globex"`,
		"authz: {forward_token: 1}":                                          "wrong type",
		"authz: {profiles: {default: {}}}\nauthz: {profiles: {default: {}}}": "is there twice",
	} {
		path := configFolder(t, text+"\ntenants:\n"+acmeTenant, map[string]string{"s": testSecret})
		r := keyturn(t, "serve", "--check", "--config", path)
		r.wantUsage(t, want)
		if strings.Contains(r.stderr, "middleware") {
			t.Errorf("%s: %s", text, r.stderr)
		}
	}
}
