package main

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/providertest"
	"github.com/keyturn/keyturn/keystore/jwks"
)

// TestProvidersYAML: serve, with each file of docs/providers.md, accepts the provider's tokens and
// refuses the nearest wrong ones for the right reason. Those that the page says only Go can refuse
// pass.
func TestProvidersYAML(t *testing.T) {
	configs := providerConfigs(t)
	for _, p := range providertest.All() {
		config, ok := configs[p.Name]
		if delete(configs, p.Name); !ok {
			t.Errorf("%s: docs/providers.md has no YAML", p.Name)
			continue
		}
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			s, _ := serveProvider(t, providertest.NewNetwork(t, p), p, config)
			for _, token := range p.Tokens {
				before := len(s.log.String())
				a := askWith(t, s.url, "GET", "/api/x", providerHeaders(p, token))
				if token.Reason == "" || token.NeedsGo {
					if a.status != http.StatusOK {
						t.Errorf("%s: %d %s\n%s", token.Name, a.status, a.body, s.log.String()[before:])
					} else if !token.NeedsGo {
						a.wantOK(t, token.Tenant, token.Subject, "/api/x")
					}
					continue
				}
				a.wantRefused(t)
				if said := s.log.String()[before:]; !strings.Contains(said, "reason="+token.Reason+" ") {
					t.Errorf("%s: want reason=%s in the log, which says %s", token.Name, token.Reason, said)
				}
			}
		})
	}
	for name := range configs {
		t.Errorf("docs/providers.md has YAML after %s, and there is no such provider", name)
	}
}

// providerHeaders returns how the provider presents a token. Its proxies pass the client's own
// Authorization on.
func providerHeaders(p providertest.Provider, token providertest.Token) string {
	if p.Header == "" {
		return "Authorization: Bearer " + token.Text + "\r\n"
	}
	return p.Header + ": " + token.Text + "\r\nAuthorization: Bearer of.the.client\r\n"
}

// providerConfigs returns the YAML blocks of docs/providers.md by the function that stands before
// them.
func providerConfigs(t *testing.T) map[string]string {
	t.Helper()
	page, err := os.ReadFile("../../docs/providers.md")
	if err != nil {
		t.Fatal(err)
	}
	configs, last := make(map[string]string), ""
	function := regexp.MustCompile(`(?m)^func (\w+)\(`)
	for _, block := range regexp.MustCompile("(?s)```(go|yaml)\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		if block[1] == "go" {
			if f := function.FindStringSubmatch(block[2]); f != nil {
				last = f[1]
			}
			continue
		}
		if configs[last] != "" {
			t.Errorf("docs/providers.md: two YAML blocks after %s", last)
		}
		configs[last] = block[2]
	}
	return configs
}

// TestProviderTokenFileIsRotated: bearer_token_file is read at each fetch, because the kubelet renews
// it. While it holds a token that the API server does not take, serve answers 503 for a new key.
func TestProviderTokenFileIsRotated(t *testing.T) {
	const podToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"
	before, after := providertest.KubernetesRotated()
	n := providertest.NewNetwork(t, before)
	s, dir := serveProvider(t, n, before, providerConfigs(t)["kubernetes"])
	old, turned := before.Tokens[0], after.Tokens[0]
	s.ask(t, "GET", "/api/x", old.Text).wantOK(t, old.Tenant, old.Subject, "/api/x")
	n.Publish(after)
	if a := s.ask(t, "GET", "/api/x", turned.Text); a.status != http.StatusServiceUnavailable {
		t.Errorf("a token of a new key, while the file is old: %d %s", a.status, a.body)
	}
	if err := os.WriteFile(filepath.Join(dir, filepath.Base(podToken)), []byte(after.Files[podToken]), 0o600); err != nil {
		t.Fatal(err)
	}
	s.ask(t, "GET", "/api/x", turned.Text).wantOK(t, turned.Tenant, turned.Subject, "/api/x")
	s.ask(t, "GET", "/api/x", old.Text).wantRefused(t)
	if said := s.log.String() + s.out.String(); strings.Contains(said, "token-of-this-pod") {
		t.Errorf("the token of the pod is in what serve prints: %s", said)
	}
}

// serveProvider starts serve with a file of the page, in n. The files of p are in dir.
func serveProvider(t *testing.T, n *providertest.Network, p providertest.Provider, config string) (s *served, dir string) {
	t.Helper()
	dir = t.TempDir()
	for path, text := range p.Files {
		if filepath.Ext(path) == ".crt" {
			text = string(n.CA())
		}
		file := filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		config = strings.ReplaceAll(config, " "+path+"\n", " "+file+"\n")
	}
	network := jwks.Config{TLS: n.TLS(), LookupNetIP: n.LookupNetIP, DialContext: n.DialContext}
	return startServeIn(t, network, p.Env, "--config", configFolder(t, config, nil)), dir
}

// TestConfigSecretBesideSet: a secret beside the set of an issuer needs algorithms for both.
func TestConfigSecretBesideSet(t *testing.T) {
	for more, want := range map[string]string{
		"jwks_url: https://x.example, secret_env: S, algorithms: [ES256]":                           "none is for the secret: add HS256",
		"issuer_url: https://x.example, secret_file: s, algorithms: [HS256]":                        "all are for the secret",
		"jwks_url: https://x.example, secret_env: S, secret_file: s, algorithms: [ES256, HS256]":    "secret_file and secret_env: give one",
		"jwks_url: https://x.example, kid: k, algorithms: [ES256]":                                  "kid is for tenants of kind static",
		"jwks_url: https://x.example, algorithms: [ES256, HS256]":                                   "name the secret too",
		"jwks_file: set, secret_env: S, algorithms: [ES256, HS256]":                                 "secret_env is for tenants of kind static",
		"secret_env: S, algorithms: [ES256, HS256]":                                                 "secret_env is for tenants of kind static",
		"jwks_url: https://x.example, secret_env: S, algorithms: [ES256, HS256], issuer_url: 'a:b'": "want one of",
	} {
		config := "tenants:\n  - {id: a, kind: jwks, issuer: i, audiences: [a], " + more + "}\n"
		if _, err := parseConfig([]byte(config)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", more, err, want)
		}
	}
}
