package main

import (
	"strings"
	"testing"
)

// Rings of one realm do not open in another, and the error names the flag. serve has the flag, and a
// field in its file.
func TestRealm(t *testing.T) {
	c := newRingCLI(t, redisAddr(t))
	c.run("keys", "create", "--realm", "staging").wantCode(t, exitYes)
	token := strings.TrimSpace(c.run("sign", "--realm", "staging").wantCode(t, exitYes).stdout)
	c.run("verify", "--realm", "staging", "--alg", "HS256", token).wantCode(t, exitYes)
	for _, args := range [][]string{
		{"keys", "list"}, {"keys", "create"}, {"keys", "rotate", "--realm", "production"}, {"sign"}, {"verify", "--alg", "HS256", token},
	} {
		r := c.run(args...).wantCode(t, exitCannotTell, "in another realm", "give the realm that the service has, with --realm")
		if strings.Contains(r.stderr, "--kek-file") {
			t.Errorf("it is about the KEK: %s", r.stderr)
		}
	}
	keyturn(t, "sign", "--realm", "x", "--secret-file", "s").wantUsage(t, "--realm goes with --redis")
	keyturn(t, "verify", "--realm", "x", "--secret-file", "s", "--alg", "HS256", "a.b.c").wantUsage(t, "--realm goes with --redis")
	keyturn(t, "keys", "list", "--realm", strings.Repeat("x", 65)).wantUsage(t, "--realm: has 65 bytes")

	env := map[string]string{envKEK: c.kek}
	s := startServe(t, env, "--redis", c.url, "--realm", "staging")
	wait(t, func() bool { return strings.Contains(s.out.String(), "--realm staging") })
	s.ask(t, "GET", "/api/x", token).wantOK(t, defaultTenant, "", "/api/x")
	for _, realms := range []string{"realm: staging", "realm: live, other_realms: ['', staging]"} {
		config := "rings: {redis: '" + c.url + "', " + realms + "}\ntenants:\n  - {id: default, kind: ring, any_issuer: true, any_audience: true}\n"
		s = startServe(t, env, "--config", configFolder(t, config, nil))
		s.ask(t, "GET", "/api/x", token).wantOK(t, defaultTenant, "", "/api/x")
	}

	s = startServe(t, env, "--redis", c.url, "--realm", "live", "--other-realm", "", "--other-realm", "staging")
	wait(t, func() bool {
		return strings.Contains(s.out.String(), "--realm live --other-realm '' --other-realm staging")
	})
	s.ask(t, "GET", "/api/x", token).wantOK(t, defaultTenant, "", "/api/x")
	c.run("verify", "--realm", "live", "--other-realm", "staging", "--alg", "HS256", token).wantCode(t, exitYes)
}
