package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
	"go.uber.org/goleak"
)

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

// Tenants of three kinds stand beside each other. Only each tenant's own tokens open the API for it. An
// issuer that does not answer affects its own tenant alone.
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

// A ring beside a static tenant is opened with the KEK of the file, and published.
func TestServeConfigRing(t *testing.T) {
	t.Parallel()
	redistest.Need(t)
	redis := redistest.Run(t, redistest.Options{})
	c := newRingCLI(t, redis.Addr())
	c.run("keys", "create", "--tenant", "initech", "--alg", "ES256", "--freshness", "6s", "--skew", "500ms", "--dwell", "1s").wantCode(t, exitYes)
	path := configFolder(t, "rings:\n  redis: "+c.url+"\n  kek_file: kek\n  bootstrap: true\n  policy: {alg: ES256, freshness: 6s, max-ttl: 10m}\ntenants:\n"+acmeTenant+
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
