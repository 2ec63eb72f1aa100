package main

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

const proxyDocs = "../../docs/proxies/"

// The pages show the files that the tests run, byte for byte.
func TestProxyPagesShowTheFiles(t *testing.T) {
	for file, page := range map[string]string{"nginx.conf": "nginx.md", "Caddyfile": "caddy.md", "traefik.yaml": "traefik.md", "envoy.yaml": "envoy.md", "keyturn.yaml": "README.md"} {
		text, err := os.ReadFile(proxyDocs + file)
		if err != nil {
			t.Fatal(err)
		}
		shown, err := os.ReadFile(proxyDocs + page)
		if err != nil || !strings.Contains(string(shown), "\n"+string(text)+"```\n") {
			t.Errorf("%s does not show %s byte for byte; %v", page, file, err)
		}
	}
	// And the examples of the package do what the page says.
	page, err := os.ReadFile(proxyDocs + "README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(page), "```go\n")
	block, _, _ = strings.Cut(block, "```")
	example, err := os.ReadFile("../../middleware/example_forwardauth_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(block) {
		if !strings.Contains(string(example), strings.TrimSpace(line)) {
			t.Errorf("README.md: the example does not hold %s", line)
		}
	}
}

// Everything in a file is as this test knows it, so that a file which names a field that is not there
// does not go unseen.
func readProxyYAML(t *testing.T, name string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(proxyDocs, name))
	if err == nil {
		err = yaml.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// The file for Traefik asks at paths that answer, and replaces every header of the identity. What
// Traefik does with it is replayed in package middleware.
func TestTraefikFile(t *testing.T) {
	var file struct {
		HTTP struct {
			Routers map[string]struct {
				Rule        string
				Middlewares []string
			}
			Middlewares map[string]struct {
				ForwardAuth *struct {
					Address             string
					TrustForwardHeader  bool     `yaml:"trustForwardHeader"`
					AuthResponseHeaders []string `yaml:"authResponseHeaders"`
					AuthRequestHeaders  []string `yaml:"authRequestHeaders"`
				} `yaml:"forwardAuth"`
			}
		}
	}
	readProxyYAML(t, "traefik.yaml", &file)
	s := startProxied(t)
	for name, router := range file.HTTP.Routers {
		if !strings.HasPrefix(router.Middlewares[0], "keyturn") || !strings.Contains(router.Rule, "!HeaderRegexp(`Connection`") || !strings.Contains(router.Rule, "!HeaderRegexp(`Upgrade`") {
			t.Errorf("router %s: %+v", name, router)
		}
		ask := file.HTTP.Middlewares[router.Middlewares[0]].ForwardAuth
		path := strings.TrimPrefix(ask.Address, "http://127.0.0.1:4111")
		if ask.TrustForwardHeader || len(ask.AuthRequestHeaders) > 0 || !slices.Equal(ask.AuthResponseHeaders, identityNames) {
			t.Errorf("router %s asks with %+v", name, ask)
		}
		wantProfile(t, s, path)
	}
	if len(file.HTTP.Routers) != 2 {
		t.Errorf("%d routers", len(file.HTTP.Routers))
	}
}

func TestEnvoyFile(t *testing.T) {
	var file any
	readProxyYAML(t, "envoy.yaml", &file)
	at := func(name string) any { return member(file, name) }
	prefix, _ := at("path_prefix").(string)
	for name, want := range map[string]any{"failure_mode_allow": false, "headers_with_underscores_action": "REJECT_REQUEST", "upgrade_type": "websocket", "code": "ServiceUnavailable"} {
		if got := at(name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if !strings.HasPrefix(prefix, "/ext-authz/") || !strings.HasSuffix(prefix, "/") {
		t.Errorf("path_prefix is %q", prefix)
	}
	wantProfile(t, startProxied(t), prefix+"/a/../b?c")
}

// member returns the first member of this name anywhere in a document.
func member(doc any, name string) any {
	switch doc := doc.(type) {
	case map[string]any:
		if v, ok := doc[name]; ok {
			return v
		}
		for _, v := range doc {
			if found := member(v, name); found != nil {
				return found
			}
		}
	case []any:
		for _, v := range doc {
			if found := member(v, name); found != nil {
				return found
			}
		}
	}
	return nil
}

// startProxied starts keyturn with the file of the pages.
func startProxied(t *testing.T) *served {
	t.Helper()
	config, err := os.ReadFile(proxyDocs + "keyturn.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return startServeAlone(t, nil, "--config", configFolder(t, string(config), map[string]string{"acme.secret": testSecret}))
}

// wantProfile checks that a profile is at a path, and that it refuses a request without a token.
func wantProfile(t *testing.T, s *served, path string) {
	t.Helper()
	token := hs256(testSecret, plainHeader, in(time.Hour, `,"iss":"https://acme.example","aud":"api","scope":"orders:write"`))
	if a := s.ask(t, "GET", path, token); a.status != http.StatusOK {
		t.Errorf("%s: %d", path, a.status)
	}
	if a := s.ask(t, "GET", path, ""); a.status != http.StatusUnauthorized {
		t.Errorf("%s without a token: %d", path, a.status)
	}
}
