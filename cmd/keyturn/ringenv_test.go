package main

import (
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"
)

// Every command that has --redis and --kek-file takes them from the environment too, and a flag beats
// the environment.
func TestRingFromEnvironment(t *testing.T) {
	m := miniredis.RunT(t)
	kek := newKEK()
	env := map[string]string{envRedis: "redis://" + m.Addr(), envKEKFile: file(t, kek)}
	c := call{env: env}
	c.run(t, "keys", "create", "--tenant", "acme").wantCode(t, exitYes)
	c.run(t, "keys", "list", "--tenant", "acme").wantCode(t, exitYes, "signing")
	c.run(t, "keys", "rekey", "--check").wantCode(t, exitYes)
	token := strings.TrimSpace(c.run(t, "sign", "--tenant", "acme").wantCode(t, exitYes).stdout)
	c.run(t, "verify", "--tenant", "acme", "--alg", "HS256", "--json", token).wantCode(t, exitYes, `"ok":true`)

	// A flag beats it.
	c.run(t, "keys", "list", "--tenant", "acme", "--redis", "redis://127.0.0.1:1").wantCode(t, exitCannotTell, "cannot be reached")
	c.run(t, "keys", "list", "--tenant", "acme", "--kek-file", file(t, newKEK())).wantCode(t, exitCannotTell, "wrong KEK")
	secret := file(t, testSecret)
	c.run(t, "sign", "--secret-file", secret).wantCode(t, exitYes)
	c.run(t, "verify", "--secret-file", secret, "--alg", "HS256", hs256(testSecret, plainHeader, in(-1, ""))).wantCode(t, exitNo, "expired")
}

// A guess between two settings could sign with the wrong key.
func TestRingEnvironmentContradicts(t *testing.T) {
	url, path := "redis://127.0.0.1:1", file(t, newKEK())
	with := func(env map[string]string, args ...string) result { return call{env: env}.run(t, args...) }
	for _, args := range [][]string{{"sign"}, {"verify", "--alg", "HS256", "x"}, {"serve"}} {
		with(map[string]string{envRedis: url, envKEKFile: path, envSecret: testSecret}, args...).wantUsage(t, envRedis, envSecret, "unset one")
	}
	with(map[string]string{envRedis: url, envKEKFile: path, envKEK: newKEK()}, "keys", "list").wantUsage(t, envKEK, envKEKFile, "unset one")
	with(map[string]string{envRedis: "", envKEK: newKEK()}, "keys", "list").wantUsage(t, envRedis+": is empty")
	with(map[string]string{envRedis: url, envKEKFile: ""}, "keys", "list").wantUsage(t, envKEKFile+": is empty")
	with(map[string]string{envRedis: url, envKEKFile: "/nowhere"}, "keys", "list").wantUsage(t, "the file of "+envKEKFile)
	with(map[string]string{envRedis: "http://hush", envKEKFile: path}, "keys", "list").wantUsage(t, envRedis, "want redis://")
	with(map[string]string{envRedis: url}, "keys", "list").wantUsage(t, "no KEK", "--kek-file", envKEKFile, envKEK)
	with(map[string]string{envKEKFile: path}, "keys", "list").wantUsage(t, "--redis is missing", envRedis)
}

// serve takes both from the environment, except where a flag or a file says whose tokens are good.
func TestServeRingFromEnvironment(t *testing.T) {
	m := miniredis.RunT(t)
	env := map[string]string{envRedis: "redis://" + m.Addr(), envKEKFile: file(t, newKEK())}
	call{env: env}.run(t, "keys", "create").wantCode(t, exitYes)
	token := strings.TrimSpace(call{env: env}.run(t, "sign", "--claim", "sub=ann").wantCode(t, exitYes).stdout)
	s := startServe(t, env)
	s.ask(t, "GET", "/api/x", token).wantOK(t, "default", "ann", "/api/x")

	s = startServe(t, map[string]string{envRedis: "redis://127.0.0.1:1"}, "--secret-file", file(t, testSecret))
	s.ask(t, "GET", "/api/x", hs256(testSecret, plainHeader, in(3600e9, `,"sub":"ann"`))).wantOK(t, "default", "ann", "/api/x")
}

// The environment beats the file of --config, which needs no rings then.
func TestServeConfigEnvironmentBeatsFile(t *testing.T) {
	m := miniredis.RunT(t)
	kek := newKEK()
	env := map[string]string{envRedis: "redis://" + m.Addr(), envKEKFile: file(t, kek)}
	call{env: env}.run(t, "keys", "create").wantCode(t, exitYes)
	token := strings.TrimSpace(call{env: env}.run(t, "sign", "--claim", "sub=ann").wantCode(t, exitYes).stdout)
	const tenants = "tenants: [{id: default, kind: ring, any_issuer: true, any_audience: true}]\n"
	elsewhere := configFolder(t, "rings: {redis: 'redis://127.0.0.1:1', kek_file: kek}\n"+tenants, map[string]string{"kek": newKEK()})
	for _, path := range []string{elsewhere, configFolder(t, tenants, nil)} {
		s := startServe(t, env, "--config", path)
		s.ask(t, "GET", "/api/x", token).wantOK(t, "default", "ann", "/api/x")
		for _, says := range []string{"KEYTURN_REDIS is used in place of rings.redis", "KEYTURN_KEK_FILE is used in place of rings.kek_file"} {
			if strings.Contains(s.log.String(), says) != (path == elsewhere) {
				t.Errorf("the log with %s: %s", path, s.log)
			}
		}
	}
	bare := configFolder(t, tenants, nil)
	call{env: map[string]string{envKEK: kek}}.run(t, "serve", "--config", bare).wantUsage(t, "need rings.redis", envRedis)
	call{env: map[string]string{envRedis: "redis://127.0.0.1:1"}}.run(t, "serve", "--config", bare).wantUsage(t, "no KEK", envKEKFile)
	env[envKEK] = kek
	call{env: env}.run(t, "serve", "--config", elsewhere).wantUsage(t, envKEK, envKEKFile, "unset one")
}
