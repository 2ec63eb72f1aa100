package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/server"
	"github.com/keyturn/keyturn/verifier"
)

// toleranceTests are tokens that need a tolerance, by its name.
var toleranceTests = map[string]string{
	"numeric-sub":  hs256(testSecret, plainHeader, `{"sub":7,"exp":4102444800}`),
	"null-members": hs256(testSecret, plainHeader, `{"sub":"ann","nbf":null,"exp":4102444800}`),
	"zip":          hs256(testSecret, `{"alg":"HS256","zip":"GZIP"}`, `{"sub":"ann","exp":4102444800}`),
	"cty":          hs256(testSecret, `{"alg":"HS256","cty":"json"}`, `{"sub":"ann","exp":4102444800}`),
}

func TestVerifyTolerates(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(testSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, token := range toleranceTests {
		args := []string{"verify", "--secret-file", secret, "--alg", "HS256", "--json", token}
		r := keyturn(t, args...)
		if r.code != exitNo || !strings.Contains(r.stdout, "Tolerate "+name) || !strings.Contains(r.stderr, "--tolerate "+name+"\n") {
			t.Errorf("%s: %+v", name, r)
		}
		for _, list := range []string{name, "zip,cty," + name} {
			if r := keyturn(t, append(args, "--tolerate", list)...); r.code != exitYes {
				t.Errorf("--tolerate %s: %+v", list, r)
			}
		}
		if r := keyturn(t, append(args, "--tolerate", "zip", "--tolerate", name)...); r.code != exitYes {
			t.Errorf("%s given beside zip: %+v", name, r)
		}
		if r := keyturn(t, "inspect", "--json", token); !strings.Contains(r.stdout, `"tolerate":["`+name+`"]`) || !strings.Contains(r.stdout, "without --tolerate "+name) {
			t.Errorf("inspect: %+v", r)
		}
	}
	for _, name := range []string{"crit", "b64", "", "Zip", "zip, cty", "typ"} {
		for _, args := range [][]string{{"verify", "--secret-file", secret, "--alg", "HS256", "--tolerate", name, "x"}, {"serve", "--secret-file", secret, "--tolerate", name}} {
			if r := keyturn(t, args...); r.code != exitUsage || r.stdout != "" || !strings.Contains(r.stderr, "--tolerate: ") {
				t.Errorf("%q: %+v", args, r)
			}
		}
	}
	if r := keyturn(t, "serve", "--tolerate", "zip"); r.code != exitUsage {
		t.Errorf("the demo with --tolerate: %+v", r)
	}
}

func TestMaxTokenBytes(t *testing.T) {
	token := hs256(testSecret, plainHeader, `{"exp":4102444800,"x":"`+strings.Repeat("x", 20000)+`"}`)
	in := func(args ...string) result {
		return call{env: map[string]string{envSecret: testSecret}, stdin: strings.NewReader(token)}.run(t, append([]string{"verify", "--alg", "HS256"}, append(args, "-")...)...)
	}
	if r := in(); r.code != exitNo || !strings.Contains(r.stderr, "bytes, and MaxTokenBytes allows 16384") || !strings.Contains(r.stderr, "--max-token-bytes") {
		t.Errorf("%+v", r)
	}
	if r := in("--max-token-bytes", "30000"); r.code != exitYes {
		t.Errorf("--max-token-bytes 30000: %+v", r)
	}
	for _, n := range []string{"0", "-1", "1048577", "16k", ""} {
		if r := in("--max-token-bytes", n); r.code != exitUsage {
			t.Errorf("--max-token-bytes %q: %+v", n, r)
		}
	}
}

// TestConfigOfIssuers: the file says what a program would say in Go.
func TestConfigOfIssuers(t *testing.T) {
	const good = `
max_token_bytes: 32768
tenants:
  - {id: a, kind: jwks, issuer_url: https://a.example, algorithms: [RS256], audiences: [api],
     other_issuers: [a.example], match: {azp: [web, app], realm_access.roles: [admin]}, tolerate: [numeric-sub, zip]}
  - {id: b, kind: jwks, issuer_url: https://b.example, algorithms: [RS256], audiences: [api]}
`
	c, err := parseConfig([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	s := newServeCommand(&app{stderr: io.Discard})
	tenant, err := s.fileTenant(&c.Tenants[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	got := tenant.Rules
	if c.MaxTokenBytes != 32768 || got.OtherIssuers[0] != "a.example" || got.Match["azp"][1] != "app" || got.Match["realm_access.roles"][0] != "admin" || got.Tolerate[1] != verifier.Zip {
		t.Errorf("%d, %+v", c.MaxTokenBytes, got)
	}
	for change, want := range map[string]string{
		"other_issuers: [a.example]->other_issuers: [https://b.example]":                "has the same issuer",
		"other_issuers: [a.example]->other_issuers: [https://a.example]":                "one issuer twice",
		"other_issuers: [a.example]->other_issuers: ['']":                               "one is empty",
		"numeric-sub, zip->crit":                                                        "tolerate: crit can never be tolerated",
		"numeric-sub, zip->zipp":                                                        "tolerate: holds an unknown name",
		"32768->1048577":                                                                "max_token_bytes: want",
		"azp: [web, app]->azp: web":                                                     "the value is of the wrong type",
		"issuer_url: https://b.example->issuer: a.example, jwks_url: https://b.example": "has the same issuer",
	} {
		from, to, _ := strings.Cut(change, "->")
		_, err := parseConfig([]byte(strings.Replace(good, from, to, 1)))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", change, err, want)
		}
	}
	if server.DefaultMaxTokenBytes != 16<<10 {
		t.Error("the default is not that of package verifier")
	}
}
