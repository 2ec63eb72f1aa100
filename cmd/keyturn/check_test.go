package main

import (
	"encoding/json"
	"net"
	"strings"
	"testing"
)

// serve --check reads all files, and opens nothing on the network: it may run beside the server that has
// the address, and where neither Redis nor an issuer can be reached.
func TestServeCheck(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// No Redis and no issuer: a connection to either would fail this test.
	asked := make(chan struct{}, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			c.Close()
			asked <- struct{}{}
		}
	}()
	at := l.Addr().String()
	config := "listen: {addr: '" + at + "', unix: sock}\nadmin: {addr: '" + at + "'}\nrings: {redis: 'redis://" + at + "', kek_file: kek}\ntenants:\n" + acmeTenant +
		"  - {id: j, kind: jwks, jwks_url: 'http://" + at + "/k', allow_loopback: true, issuer: j, algorithms: [RS256], any_audience: true}\n" +
		"  - {id: r, kind: ring, issuer: r, audiences: [api]}\n"
	path := configFolder(t, config, map[string]string{"s": testSecret, "kek": newKEK()})
	keyturn(t, "serve", "--check", "--config", path).wantCode(t, exitYes, "the configuration is good: 3 tenants", `tenant \"j\" has waivers`)
	r := keyturn(t, "serve", "--check", "--json", "--config", path).wantCode(t, exitYes)
	var got struct {
		OK       bool
		Tenants  int
		Warnings []string
	}
	if err := json.Unmarshal([]byte(r.stdout), &got); err != nil || !got.OK || got.Tenants != 3 || len(got.Warnings) != 1 {
		t.Errorf("stdout = %s, %v", r.stdout, err)
	}
	if len(asked) > 0 {
		t.Error("--check has opened a connection")
	}
	call{env: map[string]string{envSecret: testSecret}}.run(t, "serve", "--check").want(t, exitYes, "the configuration is good: one tenant\n")
	keyturn(t, "serve", "--check").want(t, exitYes, "the configuration is good: 2 tenants\n") // the demo
}

// What a start would refuse, --check refuses, in the same words and with the same exit code.
func TestServeCheckRefuses(t *testing.T) {
	files := map[string]string{"s": testSecret, "kek": newKEK(), "cert.pem": "rubbish"}
	for _, tt := range []struct{ config, phrase string }{
		{"tenants: []\n", "has no tenants"},
		{"tenants:\n" + strings.Replace(acmeTenant, "secret_file: s", "secret_file: gone", 1), "secret_file"},
		{"listen: {addr: 4111}\ntenants:\n" + acmeTenant, "listen.addr in the file of --config: want HOST:PORT"},
		{"listen: {addr: ':http2'}\ntenants:\n" + acmeTenant, "listen.addr in the file of --config: cannot listen there"},
		{"admin: {addr: ':70000'}\ntenants:\n" + acmeTenant, "admin.addr in the file of --config"},
		{"listen: {}\ntenants:\n" + acmeTenant, "listen.addr is missing"},
		{"listen: {addr: ':1', unix_mode: '0660'}\ntenants:\n" + acmeTenant, "listen.unix_mode goes with unix"},
		{"listen: {unix: s, unix_mode: '0066'}\ntenants:\n" + acmeTenant, "listen.unix_mode: want the mode"},
		{"listen: {unix: nowhere/s}\ntenants:\n" + acmeTenant, "listen.unix in the file of --config: cannot listen there: its folder does not exist"},
		{"listen: {unix: " + strings.Repeat("s", 120) + "}\ntenants:\n" + acmeTenant, "longer than 103 bytes"},
		{"listen: {unix: s, tls: {cert_file: c, key_file: k}}\ntenants:\n" + acmeTenant, "listen.tls goes with addr"},
		{"listen: {addr: ':1', tls: {cert_file: cert.pem}}\ntenants:\n" + acmeTenant, "listen.tls: want cert_file and key_file"},
		{"listen: {addr: ':1', tls: {cert_file: cert.pem, key_file: s}}\ntenants:\n" + acmeTenant, "listen.tls: cert_file and key_file"},
		{"listen: {addr: ':1', tls: {cert_file: c, key_file: k, client_names: [x]}}\ntenants:\n" + acmeTenant, "listen.tls.client_names goes with client_ca_file"},
		{"rings: {redis: 'http://x', kek_file: kek}\ntenants: [{id: r, kind: ring, issuer: r, audiences: [api]}]\n", "redis"},
		{"tenants: [{id: j, kind: jwks, jwks_url: 'http://x.example/k', issuer: j, algorithms: [RS256], audiences: [api]}]\n", "jwks_url"},
	} {
		path := configFolder(t, tt.config, files)
		keyturn(t, "serve", "--check", "--config", path).wantUsage(t, tt.phrase)
		r := keyturn(t, "serve", "--check", "--json", "--config", path)
		var got struct {
			OK    bool
			Error string
		}
		if err := json.Unmarshal([]byte(r.stdout), &got); err != nil || r.code != exitUsage || got.OK || !strings.Contains(got.Error, tt.phrase) {
			t.Errorf("--json: %d %s, %v", r.code, r.stdout, err)
		}
		if strings.Contains(r.stdout+r.stderr, testSecret) {
			t.Errorf("a secret is in the output: %s", r.stderr)
		}
	}
	keyturn(t, "serve", "--json").wantUsage(t, "--json goes with --check")
}
