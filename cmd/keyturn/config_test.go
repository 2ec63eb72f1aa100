package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

// configFolder writes a keyturn.yaml with files beside it, and returns its path.
func configFolder(t *testing.T, config string, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "keyturn.yaml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const acmeTenant = "  - {id: acme, kind: static, secret_file: s, issuer: https://acme.example, audiences: [api]}\n"

// What the file may not say is named by line and field, and no value of it is printed.
func TestConfigUsage(t *testing.T) {
	ring := "  - {id: r, kind: ring, issuer: i, any_audience: true}\n"
	jwks := func(more string) string { return "tenants:\n  - {id: j, kind: jwks, " + more + "}\n" }
	static := func(more string) string { return "tenants:\n  - {id: a, kind: static, " + more + "}\n" }
	for _, tt := range []struct{ config, phrase string }{
		{"", "is empty"},
		{"tenants: []", "has no tenants"},
		{"tenants:\n" + acmeTenant + "cors: true\n", `line 3: unknown field "cors"`},
		{"tenants:\n  - id: a\n    secret: hush\n", `line 3: unknown field "secret"`},
		{"tenants:\n  - id: a\n    id: hush\n", `line 3: "id" is there twice`},
		{"tenants:\n  - id: a\n    audiences: hush\n", "line 3: the value is of the wrong type"},
		{"tenants:\n  - id: \"hush\n", "this is not YAML"},
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
		{jwks("algorithms: [ES256], issuer_url: https://x.example, jwks_url: https://x.example, audiences: [a]"), "want one of jwks_file, jwks_url or issuer_url"},
		{jwks("algorithms: [ES256], jwks_file: s, allow_loopback: true"), "allow_loopback goes with"},
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

func TestConfigAndFlags(t *testing.T) {
	path := configFolder(t, "tenants:\n"+acmeTenant, map[string]string{"s": testSecret})
	for flag, value := range map[string]string{
		"--redis": "redis://x", "--secret-file": path, "--kek-file": path, "--tenant": "acme", "--iss": "i", "--aud": "a", "--every": "30d",
	} {
		keyturn(t, "serve", "--config", path, flag, value).wantUsage(t, "--config and "+flag)
	}
	keyturn(t, "serve", "--config", path, "--allow-no-exp").wantUsage(t, "--config and --allow-no-exp")
	keyturn(t, "serve", "--config", path, "--bootstrap").wantUsage(t, "--config and --bootstrap")
	keyturn(t, "serve", "--config", path+"x").wantUsage(t, "cannot read the file of --config")
}

// Tenants of three kinds beside each other: each one's tokens open the API and no other's do. An
// issuer that is away is its own tenant's trouble.
func TestServeConfig(t *testing.T) {
	running := goleak.IgnoreCurrent()
	key, filed := jwkstest.NewKey("1", "ES256"), jwkstest.NewKey("f", "ES256")
	issuer := startPlainIssuer(t, key)
	path := configFolder(t, "tenants:\n"+acmeTenant+
		"  - {id: env, kind: static, secret_env: ENV_SECRET, kid: e1, issuer: https://env.example, audiences: [api]}\n"+
		"  - {id: globex, kind: jwks, issuer_url: '"+issuer.url+"', allow_loopback: true, algorithms: [ES256], audiences: [api]}\n"+
		"  - {id: filed, kind: jwks, jwks_file: set.json, algorithms: [ES256], issuer: https://filed.example, any_audience: true}\n"+
		"  - {id: away, kind: jwks, jwks_url: 'http://"+closedPort(t)+"/jwks', allow_loopback: true, algorithms: [ES256], issuer: https://away.example, audiences: [api]}\n",
		map[string]string{"s": testSecret, "set.json": jwkstest.Set(filed)})
	other := "another" + testSecret
	s := startServe(t, map[string]string{"ENV_SECRET": other, envSecret: testSecret}, "--config", path)

	claims := func(iss string) string {
		return fmt.Sprintf(`{"sub":"ann","iss":%q,"aud":"api","exp":%d}`, iss, time.Now().Add(time.Hour).Unix())
	}
	s.ask(t, "GET", "/api/x", hs256(testSecret, plainHeader, claims("https://acme.example"))).wantOK(t, "acme", "ann", "/api/x")
	s.ask(t, "GET", "/api/x", hs256(other, `{"alg":"HS256","kid":"e1"}`, claims("https://env.example"))).wantOK(t, "env", "ann", "/api/x")
	s.ask(t, "GET", "/api/x", key.Token(liveClaims(`,"aud":"api","iss":"`+issuer.url+`"`))).wantOK(t, "globex", "ann", "/api/x")
	s.ask(t, "GET", "/api/x", filed.Token(liveClaims(`,"iss":"https://filed.example"`))).wantOK(t, "filed", "ann", "/api/x")
	s.ask(t, "GET", "/api/x", hs256(testSecret, plainHeader, claims("https://env.example"))).wantRefused(t)
	s.ask(t, "GET", "/api/x", filed.Token(liveClaims(`,"aud":"api","iss":"`+issuer.url+`"`))).wantRefused(t)
	if a := s.ask(t, "GET", "/api/x", key.Token(liveClaims(`,"aud":"api","iss":"https://away.example"`))); a.status < 500 {
		t.Errorf("a token of an issuer that is away: %d %s", a.status, a.body)
	}

	status, all, each := s.readiness(t)
	if status != http.StatusOK || all != stateDegraded || len(each) != 5 || each["globex"].Status != stateReady || each["acme"].Status != stateReady {
		t.Errorf("/readyz = %d %s %v", status, all, each)
	}
	if away := each["away"]; away.Status != stateNotReady || away.Reason != "the issuer has not answered yet; last failure: connect" {
		t.Errorf("/readyz of the one that is away = %v", away)
	}
	for _, want := range []string{"KEYTURN_SECRET is not used", "any_audience"} {
		if !strings.Contains(s.log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, s.log)
		}
	}
	if code := s.stop(); code != exitYes {
		t.Errorf("exit code = %d", code)
	}
	issuer.close()
	wait(t, func() bool { return strings.HasSuffix(s.out.String(), "\nstopped\n") })
	http.DefaultClient.CloseIdleConnections()
	goleak.VerifyNone(t, running)
}

// A tenant whose only source is away makes a service that can verify nothing.
func TestServeConfigNotReady(t *testing.T) {
	path := configFolder(t, "tenants:\n  - {id: away, kind: jwks, jwks_url: 'http://"+closedPort(t)+"/jwks', allow_loopback: true, algorithms: [ES256], any_issuer: true, any_audience: true}\n", nil)
	s := startServe(t, nil, "--config", path)
	if status, all, _ := s.readiness(t); status != http.StatusServiceUnavailable || all != stateNotReady {
		t.Errorf("/readyz = %d %s", status, all)
	}
}

// A ring beside a static tenant is opened with the KEK of the file, and published.
func TestServeConfigRing(t *testing.T) {
	redistest.Need(t)
	redis := redistest.Run(t, redistest.Options{})
	c := newRingCLI(t, redis.Addr())
	c.run("keys", "create", "--tenant", "initech", "--alg", "ES256", "--freshness", "3s", "--skew", "500ms", "--dwell", "1s").wantCode(t, exitYes)
	path := configFolder(t, "rings:\n  redis: "+c.url+"\n  kek_file: kek\n  bootstrap: true\n  policy: {alg: ES256, freshness: 3s, max-ttl: 10m}\ntenants:\n"+acmeTenant+
		"  - {id: initech, kind: ring, issuer: https://auth.example/initech, audiences: [api]}\n", map[string]string{"s": testSecret, "kek": c.kek})
	s := startServe(t, nil, "--config", path)
	wait(t, func() bool { return strings.Contains(s.log.String(), "ready: all rings are in step") })
	if status, all, each := s.readiness(t); status != http.StatusOK || all != stateReady || len(each) != 2 {
		t.Errorf("/readyz = %d %s %v", status, all, each)
	}
	token := strings.TrimSpace(c.run("sign", "--tenant", "initech", "--claim", "sub=bob", "--iss", "https://auth.example/initech", "--aud", "api").wantCode(t, exitYes).stdout)
	s.ask(t, "GET", "/api/x", token).wantOK(t, "initech", "bob", "/api/x")
	if a := s.ask(t, "GET", "/initech"+discoveryPath, ""); a.status != http.StatusOK || !strings.HasPrefix(a.body, `{"issuer":"https://auth.example/initech",`) {
		t.Errorf("metadata: %d %s", a.status, a.body)
	}
	if a := s.ask(t, "GET", "/acme"+jwksPath, ""); a.status != http.StatusNotFound {
		t.Errorf("the keys of a static tenant: %d %s", a.status, a.body)
	}
}

// The examples in the help and in the guide are ones that are taken.
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
