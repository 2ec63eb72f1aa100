package jwks_test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

// Metadata is at the place of OpenID Connect, and where that is 404, at that of RFC 8414. Nothing but
// 404 leads from the one to the other, and the issuer counts byte for byte in both.
func TestMetadataOfAuthorizationServers(t *testing.T) {
	const host = "http://127.0.0.1"
	for _, tt := range []struct {
		name, issuer string
		docs         map[string]string // by path; what is missing is 404
		status       map[string]int
		want         []string // the paths that are asked for
		step         jwks.Step
		text         string
	}{
		{name: "of OpenID Connect", issuer: host + "/t", docs: map[string]string{"/t/.well-known/openid-configuration": host + "/t"},
			want: []string{"/t/.well-known/openid-configuration", "/jwks.json"}},
		{name: "without a path", issuer: host, docs: map[string]string{"/.well-known/oauth-authorization-server": host},
			want: []string{"/.well-known/openid-configuration", "/.well-known/oauth-authorization-server", "/jwks.json"}},
		{name: "with a path", issuer: host + "/realms/a", docs: map[string]string{"/.well-known/oauth-authorization-server/realms/a": host + "/realms/a"},
			want: []string{"/realms/a/.well-known/openid-configuration", "/.well-known/oauth-authorization-server/realms/a", "/jwks.json"}},
		{name: "with a slash at the end", issuer: host + "/a/", docs: map[string]string{"/.well-known/oauth-authorization-server/a": host + "/a/"},
			want: []string{"/a/.well-known/openid-configuration", "/.well-known/oauth-authorization-server/a", "/jwks.json"}},
		{name: "another issuer", issuer: host + "/a", docs: map[string]string{"/.well-known/oauth-authorization-server/a": host + "/a/"},
			want: []string{"/a/.well-known/openid-configuration", "/.well-known/oauth-authorization-server/a"},
			step: jwks.StepDiscovery, text: "oauth-authorization-server/a: the metadata is of another issuer"},
		{name: "neither", issuer: host + "/a",
			want: []string{"/a/.well-known/openid-configuration", "/.well-known/oauth-authorization-server/a"},
			step: jwks.StepStatus, text: host + "/a/.well-known/openid-configuration is 404, and " + host + "/.well-known/oauth-authorization-server/a: status 404"},
		{name: "gone", issuer: host + "/a", status: map[string]int{"/a/.well-known/openid-configuration": 410},
			docs: map[string]string{"/.well-known/oauth-authorization-server/a": host + "/a"},
			want: []string{"/a/.well-known/openid-configuration"}, step: jwks.StepStatus, text: "discovery: status 410"},
		{name: "an error", issuer: host + "/a", status: map[string]int{"/a/.well-known/openid-configuration": 500},
			docs: map[string]string{"/.well-known/oauth-authorization-server/a": host + "/a"},
			want: []string{"/a/.well-known/openid-configuration"}, step: jwks.StepStatus, text: "discovery: status 500"},
		{name: "not metadata", issuer: host + "/a", docs: map[string]string{"/a/.well-known/openid-configuration": "https://evil.test", "/.well-known/oauth-authorization-server/a": host + "/a"},
			want: []string{"/a/.well-known/openid-configuration"}, step: jwks.StepDiscovery, text: "another issuer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				var mu sync.Mutex
				var paths []string
				keys := jwkstest.Set(jwkstest.NewKey("a", "ES256"))
				client := jwks.New(jwks.Config{DialContext: raw(t, func(conn net.Conn, r *http.Request) {
					mu.Lock()
					paths = append(paths, r.URL.Path)
					mu.Unlock()
					status, body := 404, "no"
					if s := tt.status[r.URL.Path]; s != 0 {
						status = s
					} else if r.URL.Path == "/jwks.json" {
						status, body = 200, keys
					} else if issuer := tt.docs[r.URL.Path]; issuer != "" {
						status, body = 200, fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, issuer, host+"/jwks.json")
					}
					fmt.Fprintf(conn, "HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", status, len(body), body)
				})})
				defer client.Close(t.Context())
				s, err := client.Discover("acme", tt.issuer, jwks.SourceConfig{AllowLoopback: true})
				if err != nil {
					t.Fatal(err)
				}
				err = attempted(s)
				if stepOf(err) != tt.step || tt.step != "" && !strings.Contains(err.Error(), tt.text) {
					t.Errorf("%v, want step %q: %s", err, tt.step, tt.text)
				}
				mu.Lock()
				defer mu.Unlock()
				if !slices.Equal(paths, tt.want) {
					t.Errorf("asked for %q, want %q", paths, tt.want)
				}
			})
		})
	}
}

// Of the bytes of an address that nothing was asked of, none is in the error of discovery: the issuer
// is the operator's, and has no userinfo and no query.
func TestDiscoveryErrorHasNoSecret(t *testing.T) {
	client := jwks.New(jwks.Config{})
	defer client.Close(t.Context())
	for _, issuer := range []string{"https://u:secret@a.example", "https://a.example/?secret"} {
		if _, err := client.Discover("acme", issuer, jwks.SourceConfig{}); err == nil || bytes.Contains([]byte(err.Error()), []byte("secret")) {
			t.Errorf("Discover(%q) = %v", issuer, err)
		}
	}
}
