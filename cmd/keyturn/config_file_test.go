package main

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/keystore/jwks"
)

// An error names the line and the field of the file. It does not print a value.
func TestConfigUsage(t *testing.T) {
	ring := "  - {id: r, kind: ring, issuer: i, any_audience: true}\n"
	jwks := func(more string) string { return "tenants:\n  - {id: j, kind: jwks, " + more + "}\n" }
	static := func(more string) string { return "tenants:\n  - {id: a, kind: static, " + more + "}\n" }
	for _, tt := range []struct{ config, phrase string }{
		{"", "is empty"},
		{"tenants: []", "has no tenants"},
		{"tenants:\n" + acmeTenant + "cors: true\n", `line 3: unknown field "cors"`},
		{"tenants:\n  - id: a\n    secret: hush\n", `line 3: unknown field "secret"`},
		{"admin:\n  addrs: hush\ntenants:\n" + acmeTenant, `line 2: unknown field "addrs"`},
		{"admin: {}\ntenants:\n" + acmeTenant, "admin.addr is missing"},
		{"admin: {addr: hush}\ntenants:\n" + acmeTenant, "admin.addr in the file of --config: want HOST:PORT"},
		{"tenants:\n  - id: a\n    id: hush\n", `line 3: "id" is there twice`},
		{"tenants:\n  - id: a\n    audiences: hush\n", "line 3: the value is of the wrong type"},
		{"tenants:\n  - id: \"hush\n", "this is not YAML"},
		{"rings: {redis: 'redis://127.0.0.1:1', realm: " + strings.Repeat("x", 65) + "}\ntenants:\n" + ring, "rings.realm: it has 65 bytes: want at most 64"},
		{"hush", "line 1: the value is of the wrong type"},
		{"tenants:\n" + acmeTenant + "---\ntenants: []\n", "more than one document"},
		{"tenants:\n" + acmeTenant + acmeTenant, `line 3 (tenant "acme"): the same id is on line 2`},
		{"tenants:\n  - {kind: static, secret_file: s}\n", "line 2: id is empty"},
		{"tenants:\n  - {id: a}\n", `line 2 (tenant "a"): kind: want static, jwks or ring`},
		{"tenants:\n  - {id: a, kind: hush}\n", "kind: want static, jwks or ring"},
		{static("issuer: i, audiences: [a]"), "want one of secret_file or secret_env"},
		{static("secret_file: s, secret_env: S, issuer: i, audiences: [a]"), "want one of secret_file or secret_env"},
		{static("secret_file: s, jwks_url: hush"), "jwks_url is for tenants of kind jwks"},
		{static("secret_file: none, issuer: i, audiences: [a]"), `cannot read the file of secret_file of tenant "a"`},
		{static("secret_file: short, issuer: i, audiences: [a]"), "want at least 32"},
		{static("secret_env: NONE, issuer: i, audiences: [a]"), "secret_env: there is no such variable"},
		{static("secret_file: s, algorithms: [RS256], issuer: i, audiences: [a]"), "a shared secret verifies HS256"},
		{static("secret_file: s, algorithms: [hush], issuer: i, audiences: [a]"), "algorithms: one holds an unknown algorithm"},
		{static("secret_file: s, audiences: [a]"), "issuer is missing"},
		{static("secret_file: s, issuer: i"), "audiences are missing"},
		{static("secret_file: s, issuer: i, any_issuer: true, audiences: [a]"), "issuer and any_issuer: give one"},
		{static("secret_file: s, issuer: i, any_audience: true, audiences: [a]"), "audiences and any_audience: give one"},
		{static("secret_file: s, issuer: i, audiences: [a], leeway: 1h"), "leeway: want at most 5m"},
		{"tenants:\n" + acmeTenant + "  - {id: b, kind: static, secret_file: s, any_issuer: true, any_audience: true}\n", "any_issuer is for a tenant that is alone"},
		{"tenants:\n" + acmeTenant + "  - {id: b, kind: static, secret_file: s, issuer: https://acme.example, any_audience: true}\n", `line 3 (tenant "b"): line 2 has the same issuer`},
		{"tenants:\n  -\n" + acmeTenant, "line 2: an element of a list is empty"},
		{"tenants:\n" + acmeTenant + "  - \n  - {id: hush}\n", "line 3: an element of a list is empty"},
		{"tenants:\n" + acmeTenant + "  - ~\n", "line 3: an element of a list is empty"},
		{static("secret_file: s, issuer: i, audiences: [a, null]"), "line 2: an element of a list is empty"},
		{static("secret_file: s, kid: &x, issuer: i, audiences: [a, *x]"), "line 2: an element of a list is empty"},
		{jwks("algorithms: [ES256, HS256], issuer_url: https://x.example, audiences: [a]"), "algorithms: HS256, HS384 and HS512 are for shared secrets"},
		{jwks("algorithms: [HS512], jwks_url: https://x.example, issuer: i, audiences: [a]"), "algorithms: HS256, HS384 and HS512 are for shared secrets"},
		{jwks("issuer_url: https://x.example, audiences: [a]"), "algorithms are missing"},
		{jwks("algorithms: [ES256], issuer_url: https://x.example, jwks_url: https://x.example, audiences: [a]"), "want one of jwks_file, jwks_url, issuer_url or pem_url"},
		{jwks("algorithms: [ES256], pem_url: https://x.example, issuer: i, audiences: [a]"), "pem_url: "},
		{jwks("algorithms: [ES256], jwks_file: s, allow_loopback: true"), "allow_loopback goes with"},
		{jwks("algorithms: [ES256], jwks_file: s, uses: [jwt-svid]"), "uses goes with"},
		{jwks("algorithms: [ES256], jwks_file: s, max_keys: 3"), "max_keys goes with"},
		{jwks("algorithms: [ES256], jwks_url: https://x.example, issuer: i, audiences: [a], uses: [enc]"), "uses: want values such as jwt-svid"},
		{jwks("algorithms: [ES256], jwks_url: https://x.example, issuer: i, audiences: [a], uses: [sign, wrapKey]"), "uses: want values such as jwt-svid"},
		{jwks("algorithms: [ES256], jwks_url: https://x.example, issuer: i, audiences: [a], uses: ['']"), "uses: want values such as jwt-svid"},
		{jwks("algorithms: [ES256], jwks_url: https://x.example, issuer: i, audiences: [a], max_keys: 8193"), "max_keys: want a number up to 8192"},
		{jwks("algorithms: [ES256], jwks_url: https://x.example, issuer: i, audiences: [a], max_bytes: -1"), "max_bytes: want a number up to 16777216"},
		{static("secret_file: s, max_bytes: 10, issuer: i, audiences: [a]"), "max_bytes is for tenants of kind jwks"},
		{jwks("algorithms: [ES256], jwks_file: s, issuer: i, audiences: [a]"), "jwks_file: "},
		{jwks("algorithms: [ES256], jwks_file: none.json, issuer: i, audiences: [a]"), "cannot read the file of jwks_file"},
		{jwks("algorithms: [ES256], jwks_file: empty.json, issuer: i, audiences: [a]"), "no key of the set is usable"},
		{jwks("algorithms: [ES256], issuer_url: 'http://127.0.0.1:1', audiences: [a]"), "issuer_url: scheme http: want https (allow_loopback: true allows"},
		{jwks("algorithms: [ES256], jwks_url: 'https://u:hush@x.example', issuer: i, audiences: [a]"), "jwks_url: user or password"},
		{"tenants:\n" + ring, "need rings.redis"},
		{"rings: {redis: redis://x}\ntenants:\n" + acmeTenant, "no tenant of kind ring"},
		{"rings: {redis: 'redis://u:hush@x'}\ntenants:\n" + ring, "set KEYTURN_REDIS_PASSWORD"},
		{"rings: {redis: redis://x}\ntenants:\n" + ring, "no KEK"},
		{"rings: {redis: redis://x, kek_file: kek, policy: {alg: ES256}}\ntenants:\n" + ring, "rings that bootstrap makes"},
		{"rings: {redis: redis://x, kek_file: kek, bootstrap: true, policy: {evry: hush}}\ntenants:\n" + ring, `line 1: rings.policy: unknown field "evry"`},
		{"rings: {redis: redis://x, kek_file: kek, bootstrap: true, policy: {every: hush}}\ntenants:\n" + ring, "line 1: rings.policy: every: want a duration"},
		{"rings: {redis: redis://x}\ntenants:\n  - {id: r, kind: ring, algorithms: [ES256], issuer: i, any_audience: true}\n", "algorithms are not for rings"},
		{"rings: {redis: redis://x}\ntenants:\n  - {id: r, kind: ring, allow_no_exp: true, issuer: i, any_audience: true}\n", "allow_no_exp is not for rings"},
	} {
		path := configFolder(t, tt.config, map[string]string{"s": testSecret, "short": "hush", "kek": newKEK(), "empty.json": `{"keys":[]}`})
		r := keyturn(t, "serve", "--addr", "127.0.0.1:0", "--config", path)
		r.wantUsage(t, tt.phrase)
		if strings.Contains(r.stderr, "hush") || strings.Contains(r.stderr, testSecret) {
			t.Errorf("%s: stderr = %s", tt.config, r.stderr)
		}
	}
}

// The examples in the help and in the guide are valid.
func TestConfigExamples(t *testing.T) {
	guide, err := os.ReadFile("../../docs/guide.md")
	if err != nil {
		t.Fatal(err)
	}
	_, fromGuide, _ := strings.Cut(string(guide), "```yaml\n")
	fromGuide, _, _ = strings.Cut(fromGuide, "```")
	_, fromHelp, _ := strings.Cut(configForm, "\n\n")
	fromHelp, _, _ = strings.Cut(fromHelp, "\n\n")
	for where, text := range map[string]string{"guide": fromGuide, "help": fromHelp} {
		c, err := parseConfig([]byte(text))
		if err != nil || len(c.Tenants) != 3 {
			t.Errorf("the example in the %s: %v\n%s", where, err, text)
		}
	}
}

// What the file says of a set that is read over HTTP reaches its reader.
func TestConfigOfSets(t *testing.T) {
	c, err := parseConfig([]byte("tenants:\n  - {id: a, kind: jwks, issuer_url: https://x.example, algorithms: [ES256], audiences: [a], " +
		"uses: [jwt-svid, wit-svid], max_keys: 700, max_bytes: 2000000}\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := jwks.SourceConfig{Uses: []string{"jwt-svid", "wit-svid"}, MaxKeys: 700, MaxBytes: 2_000_000}
	if got := c.Tenants[0].sourceConfig(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}
