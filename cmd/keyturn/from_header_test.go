package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestServeFromHeader: the token comes from the headers that the file names, and from no other.
func TestServeFromHeader(t *testing.T) {
	claims := func(more string) string {
		return fmt.Sprintf(`{"sub":"ann","iss":"https://acme.example","aud":"api","exp":%d%s}`, time.Now().Add(time.Hour).Unix(), more)
	}
	token, other := hs256(testSecret, plainHeader, claims("")), hs256(testSecret, plainHeader, claims(`,"x":1`))
	ask := func(t *testing.T, s *served, headers ...string) int {
		r, err := http.NewRequestWithContext(t.Context(), "GET", s.url+"/api/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(headers); i += 2 {
			r.Header.Add(headers[i], headers[i+1])
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if body, err := io.ReadAll(res.Body); err != nil || strings.Contains(string(body), token) {
			t.Errorf("%s, %v", body, err)
		}
		return res.StatusCode
	}
	only := startServe(t, nil, "--config", configFolder(t, "from_header: [cf-access-jwt-assertion, X-Jwt]\ntenants:\n"+acmeTenant, map[string]string{"s": testSecret}))
	both := startServe(t, nil, "--config", configFolder(t, "from_header: [X-Jwt, authorization]\ntenants:\n"+acmeTenant, map[string]string{"s": testSecret}))
	for _, tt := range []struct {
		name       string
		headers    []string
		only, both int
	}{
		{"the header", []string{"X-Jwt", token}, 200, 200},
		{"the other header", []string{"Cf-Access-Jwt-Assertion", token}, 200, 401},
		{"Authorization", []string{"Authorization", "Bearer " + token}, 401, 200},
		{"the header, and another token in Authorization", []string{"X-Jwt", token, "Authorization", "Bearer " + other}, 200, 400},
		{"the header, and the same token in Authorization", []string{"X-Jwt", token, "Authorization", "Bearer " + token}, 200, 200},
		{"a bad one, and a good one in Authorization", []string{"X-Jwt", token + "x", "Authorization", "Bearer " + token}, 401, 400},
		{"twice", []string{"X-Jwt", token, "X-Jwt", other}, 400, 400},
		{"with a scheme", []string{"X-Jwt", "Bearer " + token}, 400, 400},
		{"none", nil, 401, 401},
	} {
		if got := ask(t, only, tt.headers...); got != tt.only {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.only)
		}
		if got := ask(t, both, tt.headers...); got != tt.both {
			t.Errorf("%s, with Authorization: %d, want %d", tt.name, got, tt.both)
		}
	}
	const hint = "does not begin with Bearer" // of no help where Authorization is not read
	ask(t, both, "Authorization", "Basic eDp5")
	ask(t, only, "Authorization", "Basic eDp5")
	if log := both.log.String(); !strings.Contains(log, hint) {
		t.Errorf("with Authorization: no hint in %s", log)
	}
	if log := only.log.String(); strings.Contains(log, hint) || strings.Contains(log, token) {
		t.Errorf("the log has the hint, or a token: %s", log)
	}
}

func TestConfigFromHeader(t *testing.T) {
	for list, want := range map[string]string{
		"[]":                             "from_header is empty",
		"['']":                           `"" is not the name of a header`,
		"['X Jwt']":                      `"X Jwt" is not the name of a header`,
		"[Cookie]":                       "Cookie",
		"[Host]":                         "proxies and net/http do not pass it on",
		"[X-Jwt, x-jwt]":                 `"X-Jwt" twice`,
		"[Authorization, AUTHORIZATION]": `"Authorization" twice`,
		"[A, B, C, D, E, F, G, H, I]":    "9 names: want at most 8",
		"X-Jwt":                          "wrong type",
	} {
		if _, err := parseConfig([]byte("from_header: " + list + "\ntenants:\n" + acmeTenant)); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "middleware") {
			t.Errorf("%s: %v, want %q", list, err, want)
		}
	}
}

// TestConfigOfRules: the file can demand what a program can in Go, and a rule that no token can keep is
// an error that names the tenant.
func TestConfigOfRules(t *testing.T) {
	const rules = ", match_header: {signer: [arn:a, arn:b]}, required: [email], types: [at+jwt, '']}\n"
	config := "tenants:\n" + strings.Replace(acmeTenant, "}\n", rules, 1)
	s := startServe(t, nil, "--config", configFolder(t, config, map[string]string{"s": testSecret}))
	sign := func(header, more string) string {
		return hs256(testSecret, header, fmt.Sprintf(`{"sub":"ann","iss":"https://acme.example","aud":"api","exp":%d%s}`, time.Now().Add(time.Hour).Unix(), more))
	}
	s.ask(t, "GET", "/api/x", sign(`{"alg":"HS256","signer":"arn:b"}`, `,"email":"a"`)).wantOK(t, "acme", "ann", "/api/x")
	s.ask(t, "GET", "/api/x", sign(`{"alg":"HS256","typ":"at+jwt","signer":"arn:a"}`, `,"email":"a"`)).wantOK(t, "acme", "ann", "/api/x")
	s.ask(t, "GET", "/api/x", sign(`{"alg":"HS256","typ":"JWT","signer":"arn:a"}`, `,"email":"a"`)).wantRefused(t)
	s.ask(t, "GET", "/api/x", sign(`{"alg":"HS256","signer":"arn:c"}`, `,"email":"a"`)).wantRefused(t)
	s.ask(t, "GET", "/api/x", sign(`{"alg":"HS256","signer":"arn:a"}`, ``)).wantRefused(t)
	for change, want := range map[string]string{
		"signer: [arn:a, arn:b]->kid: [a]":  `tenant "acme": MatchHeader of "kid"`,
		"[arn:a, arn:b]->[]":                `tenant "acme": MatchHeader of "signer" has no values`,
		"required: [email]->required: ['']": `tenant "acme": Required holds an empty string`,
	} {
		from, to, _ := strings.Cut(change, "->")
		path := configFolder(t, strings.Replace(config, from, to, 1), map[string]string{"s": testSecret})
		keyturn(t, "serve", "--addr", "127.0.0.1:0", "--config", path).wantUsage(t, want)
	}
}
