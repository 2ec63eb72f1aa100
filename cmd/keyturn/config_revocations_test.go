package main

import (
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/server"
)

// An error about revocations names the field of the file, and no value of it.
func TestConfigOfRevocationsUsage(t *testing.T) {
	const redis = "redis: 'redis://127.0.0.1:1'"
	client := func(more string) string { return redis + ", clients: [{id: orders, " + more + "}]" }
	for _, tt := range []struct{ section, phrase string }{
		{"", "revocations.redis is missing: the URL of the Redis"},
		{"redis: 'redis://u:hush@x'", "revocations.redis has a password"},
		{"redis_password_file: s", "revocations.redis is missing: without it the list is in the Redis of rings"},
		{"redis_tls: {min_version: '1.3'}", "revocations.redis is missing: without it"},
		{redis + ", redis_tls: {ca_file: none}", "revocations.redis_tls.ca_file in the file of --config"},
		{redis + ", redis_password_file: none", "revocations.redis_password_file in the file of --config"},
		{redis + ", kek_file: none", "revocations.kek_file in the file of --config"},
		{redis + ", kek_file: s", "revocations.kek_file in the file of --config"},
		{redis + ", realm: production", "revocations.realm goes with a KEK"},
		{redis + ", max_stale: hush", "revocations.max_stale: want a duration"},
		{redis + ", max_stale: 5s", "revocations.max_stale: want at least 10s"},
		{redis + ", max_token_ttl: 9601h", "revocations.max_token_ttl: want at most 9600h"},
		{redis + ", stale: true", `unknown field "stale"`},
		{redis + ", clients: [{secret_file: s, may: [revoke]}]", "revocations.clients: one has no id"},
		{client("may: [revoke]"), `client "orders" has no secret_file`},
		{client("secret_file: s"), `client "orders" may do nothing`},
		{client("secret_file: s, may: [revoke], tenants: []"), `client "orders": tenants is an empty list`},
		{client("secret_file: s, may: [hush]"), `client "orders": may is a list of introspect and revoke`},
		{client("secret_file: none, may: [revoke]"), `cannot read the file of secret_file of client "orders"`},
		{client("secret_file: short, may: [revoke]"), "at least 32"},
		{client("secret_file: s, may: [revoke], tenants: [globex]"), `client "orders": there is no tenant "globex"`},
		{redis + ", clients: [{id: 'a:b', secret_file: s, may: [revoke]}]", "without a colon"},
		{redis + ", clients: [{id: a, secret_file: s, may: [revoke]}, {id: a, secret_file: s, may: [revoke]}]", `client "a" is there twice`},
		{redis + ", logout: {acme: {}}", "revocations.logout.acme.client_id is missing"},
		{redis + ", logout: {globex: {client_id: shop}}", `revocations.logout: there is no tenant "globex"`},
	} {
		path := configFolder(t, "revocations: {"+tt.section+"}\ntenants:\n"+acmeTenant, map[string]string{"s": testSecret, "short": "hush"})
		r := keyturn(t, "serve", "--check", "--config", path)
		r.wantUsage(t, tt.phrase)
		if strings.Contains(r.stderr, "hush") || strings.Contains(r.stderr, testSecret) {
			t.Errorf("%s: stderr = %s", tt.section, r.stderr)
		}
	}
	alone := configFolder(t, "revocations: {"+redis+", logout: {acme: {client_id: shop}}}\ntenants:\n  - {id: acme, kind: static, secret_file: s, any_issuer: true, any_audience: true}\n", map[string]string{"s": testSecret})
	keyturn(t, "serve", "--check", "--config", alone).wantUsage(t, `revocations.logout.acme`, "issuer")
}

// offered returns the configuration of the server for a file.
func offered(t *testing.T, env map[string]string, config string, files map[string]string) server.Config {
	t.Helper()
	s := newServeCommand(&app{env: func(name string) (string, bool) { v, ok := env[name]; return v, ok }, stderr: new(syncBuffer), now: time.Now})
	if err := s.configFile.Set(configFolder(t, config, files)); err != nil {
		t.Fatal(err)
	}
	o, err := s.offer()
	if err != nil {
		t.Fatal(err)
	}
	return o.server
}

func TestConfigOfRevocations(t *testing.T) {
	files := map[string]string{"s": testSecret, "kek": newKEK(), "password": "pw"}
	own := offered(t, nil, `revocations:
  redis: redis://own:1
  redis_password_file: password
  kek_file: kek
  realm: production
  max_stale: 5m
  max_token_ttl: 24h
  stale_ok: true
  clients: [{id: orders, secret_file: s, may: [introspect], tenants: [acme]}, {id: admin, secret_file: s, may: [revoke, introspect]}]
  logout: {acme: {client_id: shop, types: [JWT], tokens_have_sid: true}}
tenants:
`+acmeTenant, files).Revocations
	switch {
	case own.URL != "redis://own:1" || own.Link.Credentials == nil || own.KEKs == nil || own.Realm != "production":
		t.Errorf("the store: %q, %v, %v, %q", own.URL, own.Link.Credentials != nil, own.KEKs, own.Realm)
	case own.MaxStale != 5*time.Minute || own.MaxTokenTTL != 24*time.Hour || !own.StaleOK:
		t.Errorf("the times: %v, %v, %v", own.MaxStale, own.MaxTokenTTL, own.StaleOK)
	case len(own.Clients) != 2 || string(own.Clients[0].Secret) != testSecret || !own.Clients[0].Introspect || own.Clients[0].Revoke || own.Clients[0].Tenants[0] != "acme" || !own.Clients[1].Revoke:
		t.Errorf("the clients: %d", len(own.Clients))
	case own.Logout["acme"].ClientID != "shop" || own.Logout["acme"].Types[0] != "JWT" || !own.Logout["acme"].TokensHaveSID:
		t.Errorf("the logouts: %+v", own.Logout)
	}
	const ring = "tenants:\n  - {id: r, kind: ring, issuer: i, any_audience: true}\n"
	shared := offered(t, nil, "rings: {redis: 'redis://rings:1', kek_file: kek, realm: test}\nrevocations: {}\n"+ring, files).Revocations
	if shared.URL != "redis://rings:1" || shared.KEKs == nil || shared.Realm != "test" {
		t.Errorf("where the rings are: %q, %v, %q", shared.URL, shared.KEKs, shared.Realm)
	}
	env := map[string]string{envRedis: "redis://env:1"}
	if got := offered(t, env, "revocations: {}\ntenants:\n"+acmeTenant, files).Revocations; got.URL != "redis://env:1" || got.KEKs != nil {
		t.Errorf("of the environment: %q, %v", got.URL, got.KEKs)
	}
	if got := offered(t, env, "revocations: {redis: 'redis://own:1'}\ntenants:\n"+acmeTenant, files).Revocations; got.URL != "redis://own:1" {
		t.Errorf("one of its own: %q", got.URL)
	}
}

// The clients and the logouts change with the file. Where the list is needs a restart.
func TestReloadOfRevocations(t *testing.T) {
	t.Parallel()
	section := func(more string) string {
		return "revocations: {redis: 'redis://127.0.0.1:1', " + more + "}\ntenants:\n" + tenantLine("acme", "")
	}
	f := follow(t, configFolder(t, section("clients: [{id: orders, secret_file: orders.secret, may: [introspect]}]"), map[string]string{
		"acme.secret": secretOf("acme"), "orders.secret": secretOf("orders"), "b.secret": secretOf("b"),
	}))
	if a := askWith(t, f.url, "POST", "/introspect", ""); a.status != 401 {
		t.Errorf("/introspect: %d %s", a.status, a.body)
	}
	f.write("keyturn.yaml", section("max_stale: 20s, clients: [{id: orders, secret_file: orders.secret, may: [revoke]}]"))
	f.reload(`restart needed: this setting is read at the start alone" setting=revocations.max_stale`)
	for path, want := range map[string]int{"/introspect": 404, "/revoke": 401} {
		if a := askWith(t, f.url, "POST", path, ""); a.status != want {
			t.Errorf("%s: %d, want %d", path, a.status, want)
		}
	}
	if strings.Contains(f.log.String(), "setting=revocations.clients") {
		t.Errorf("the clients need no restart: %s", f.log)
	}
	f.write("orders.secret", "short")
	f.reload("the configuration is not reloaded")
}
