package main

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The parts of the logins in URLs. No output may have one. The last is a password that begins like a
// port.
var loginParts = []string{"userpart70", "leftpart71", "rightpart72", "48151"}

// hostileLogins returns URLs whose user or password has a raw character that may end it too early.
func hostileLogins(schemes ...string) (urls []string) {
	for _, scheme := range schemes {
		for _, c := range []string{"/", "#", "?", "%zz", "%", "@", " ", "\\", ":", "[", "\n", "\xff", "é", ";", ",", "{", "'", "\"", ": ", " #"} {
			urls = append(urls, scheme+"userpart70:leftpart71"+c+"rightpart72@127.0.0.1:1", scheme+"userpart70:48151"+c+"rightpart72@127.0.0.1:1/0")
		}
	}
	return urls
}

// wantNoLogin runs the command up to its first call of Redis or an issuer, and looks for the parts of a
// login in its output.
func wantNoLogin(t *testing.T, env map[string]string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out bytes.Buffer
	run(ctx, args, func(name string) (string, bool) { v, ok := env[name]; return v, ok }, strings.NewReader(""), &out, &out)
	for _, part := range loginParts {
		if strings.Contains(out.String(), part) {
			t.Fatalf("%q, environment %q: the output has %s: %s", args, env, part, out.String())
		}
	}
}

// A loginTest gives URLs to a command in each place.
type loginTest struct {
	*testing.T
	files map[string]string // by the flags with which a command goes further
}

// all runs every command at and below cmd.
func (t loginTest) all(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		t.all(sub)
	}
	path := strings.Fields(cmd.CommandPath())[1:]
	if cmd.HasSubCommands() || slices.Contains(path, "help") {
		return
	}
	args := path
	for _, name := range []string{"kek-file", "secret-file"} {
		if cmd.Flags().Lookup(name) != nil && len(args) == len(path) { // the two exclude each other
			args = slices.Concat(path, []string{"--" + name, t.files[name]})
		}
	}
	if cmd.Name() == "serve" {
		args = append(args, "--check")
	}
	for _, url := range hostileLogins("redis://") {
		wantNoLogin(t.T, map[string]string{envRedis: url, envKEKFile: t.files["kek-file"]}, path...)
		wantNoLogin(t.T, nil, slices.Concat(path, []string{"--", url})...)
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		urls := hostileLogins("redis://")[:2] // in the wrong place
		switch {
		case f.Value.Type() == "bool" || cmd.Name() == "acl" && f.Name == "user": // prints a command with that user
			return
		case f.Value.Type() == "URL":
			urls = hostileLogins("redis://", "unix://", "https://", "")
		}
		for _, url := range urls {
			wantNoLogin(t.T, nil, slices.Concat(args, []string{"--" + f.Name, url})...)
		}
	})
}

// No part of a login of a URL is in an error or a note of a command, in whichever flag, argument or
// variable the URL is, and whichever character of it should have been percent-encoded.
func TestNoLoginInErrors(t *testing.T) {
	test := loginTest{t, map[string]string{"kek-file": file(t, "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n"), "secret-file": file(t, testSecret)}}
	test.all(newRoot(&app{env: func(string) (string, bool) { return "", false }}))
}

// The same of the file of --config. VALUE stands for a URL, in quotes and without.
func TestNoLoginInErrorsOfConfig(t *testing.T) {
	const (
		acme   = "tenants:\n  - {id: acme, kind: static, secret_file: s, issuer: https://acme.example, audiences: [api]}\n"
		rings  = "tenants:\n  - {id: acme, kind: ring, issuer: https://acme.example, audiences: [api]}\n"
		jwks   = "tenants:\n  - {id: acme, kind: jwks, audiences: [api], "
		proxy  = jwks + "issuer_url: 'https://acme.example', "
		static = "tenants:\n  - {id: acme, kind: static, secret_file: s, audiences: [api], "
		admin  = "admin: {addr: 127.0.0.1:0}\n"
	)
	for _, text := range []string{
		"rings: {redis: VALUE, kek_file: kek}\n" + rings, "rings:\n  redis: VALUE\n  kek_file: kek\n" + rings, "rings: VALUE\n" + rings,
		"rings: {redis: redis://127.0.0.1:1, redis_password_file: VALUE, kek_file: kek}\n" + rings, "rings: {VALUE: 1, kek_file: kek}\n" + rings,
		"revocations: {redis: VALUE}\n" + acme, "revocations:\n  redis: VALUE\n" + acme, "revocations: VALUE\n" + acme,
		"revocations: {redis: redis://127.0.0.1:1, max_stale: VALUE}\n" + acme, "revocations: {redis: redis://127.0.0.1:1, logout: {VALUE: {client_id: a}}}\n" + acme,
		admin + "upstream: {url: VALUE}\n" + acme, admin + "upstream:\n  url: VALUE\n" + acme, admin + "upstream: {url: http://127.0.0.1:1, public: [VALUE]}\n" + acme,
		jwks + "issuer: i, jwks_url: VALUE}\n", jwks + "issuer_url: VALUE}\n", jwks + "issuer: i, pem_url: VALUE}\n", proxy + "proxy: VALUE}\n", proxy + "allow_cidr: [VALUE]}\n",
		static + "issuer: VALUE}\n", static + "issuer: VALUE, other_issuers: [VALUE]}\n", static + "issuer: i, leeway: VALUE}\n", static + "issuer: i, secret_env: VALUE}\n",
		"listen: {addr: VALUE}\n" + acme, "admin: {addr: VALUE}\n" + acme, "from_header: [VALUE]\n" + acme, "tenants_dir: VALUE\n", "trusted_proxies: [VALUE]\n" + acme,
		"identity: {prefix: VALUE}\n" + acme, "authz: {profiles: {VALUE: {}}}\n" + acme, "authz: {profiles: {a: {tenant: VALUE}}}\n" + acme, "VALUE: 1\n" + acme, "VALUE\n",
	} {
		for i, url := range hostileLogins("redis://", "https://") {
			quoted, err := json.Marshal(url)
			if err != nil {
				t.Fatal(err)
			}
			for _, value := range []string{url, string(quoted)} {
				isURL := strings.Contains(text, "url: VALUE") || strings.Contains(text, "redis: VALUE") || strings.Contains(text, "proxy: VALUE")
				if !isURL && (i > 1 || value == url) {
					continue // a URL in the wrong place
				}
				path := configFolder(t, strings.ReplaceAll(text, "VALUE", value), map[string]string{"s": testSecret, "kek": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n"})
				wantNoLogin(t, nil, "serve", "--check", "--config", path)
			}
		}
	}
}
