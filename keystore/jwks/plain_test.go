package jwks_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

// cluster is what an operator allows for an issuer in a cluster's network.
func cluster(cidr string) jwks.SourceConfig {
	cfg := allowCIDR(cidr)
	cfg.AllowHTTP = true
	return cfg
}

// keycloak answers as a realm of Keycloak does whose frontend is http://keycloak:8080.
func keycloak(keys string) func(conn net.Conn, r *http.Request) {
	const realm = "http://keycloak:8080/realms/acme"
	return func(conn net.Conn, r *http.Request) {
		body := map[string]string{
			"/realms/acme/.well-known/openid-configuration":   fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, realm, realm+"/protocol/openid-connect/certs"),
			"/realms/acme/protocol/openid-connect/certs":      keys,
			"/realms/public/.well-known/openid-configuration": fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, "http://keycloak:8080/realms/public", "http://8.8.8.8/certs"),
		}[r.URL.Path]
		status := 200
		if r.Host != "keycloak:8080" || body == "" {
			status = 400
		}
		fmt.Fprintf(conn, "HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", status, len(body), body)
	}
}

// An issuer in a cluster is read over http by its name, at the addresses that are allowed by name,
// and nowhere else.
func TestHTTPInCluster(t *testing.T) {
	loopback := cluster("10.1.0.0/16")
	loopback.AllowLoopback = true
	for _, tt := range []struct {
		name  string
		realm string
		addrs []string
		cfg   jwks.SourceConfig
		step  jwks.Step
		want  []string // what is dialled
	}{
		{"in the network", "acme", []string{"10.1.2.3"}, cluster("10.1.0.0/16"), "", []string{"10.1.2.3:8080", "10.1.2.3:8080"}},
		{"in the network, among others", "acme", []string{"8.8.8.8", "10.2.0.1", "10.1.2.3"}, cluster("10.1.0.0/16"), "", []string{"10.1.2.3:8080", "10.1.2.3:8080"}},
		{"a public network that is named", "acme", []string{"8.8.8.8"}, cluster("8.8.8.0/24"), "", []string{"8.8.8.8:8080", "8.8.8.8:8080"}},
		{"another network", "acme", []string{"10.2.0.1"}, cluster("10.1.0.0/16"), jwks.StepAddress, nil},
		{"a public address", "acme", []string{"8.8.8.8"}, cluster("10.1.0.0/16"), jwks.StepAddress, nil},
		{"loopback", "acme", []string{"127.0.0.1"}, cluster("10.1.0.0/16"), jwks.StepAddress, nil},
		{"loopback that is allowed", "acme", []string{"127.0.0.1"}, loopback, "", []string{"127.0.0.1:8080", "127.0.0.1:8080"}},
		{"a cloud's metadata", "acme", []string{"169.254.169.254"}, cluster("10.0.0.0/8"), jwks.StepAddress, nil},
		{"a jwks_uri at a public address", "public", []string{"10.1.2.3"}, cluster("10.1.0.0/16"), jwks.StepAddress, []string{"10.1.2.3:8080"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				log := new(locked)
				r := &recorder{addrs: [][]string{tt.addrs}}
				serve := raw(t, keycloak(jwkstest.Set(jwkstest.NewKey("a", "RS256"))))
				client := jwks.New(jwks.Config{LookupNetIP: r.lookup, Logger: slog.New(slog.NewTextHandler(log, nil)),
					DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
						_, _ = r.dial(ctx, network, addr)
						return serve(ctx, network, addr)
					}})
				defer client.Close(t.Context())
				s, err := client.Discover("acme", "http://keycloak:8080/realms/"+tt.realm, tt.cfg)
				if err != nil {
					t.Fatal(err)
				}
				if err := attempted(s); stepOf(err) != tt.step || (tt.step == "") != s.HasKey("a") {
					t.Errorf("%v, want step %q", err, tt.step)
				}
				if got := r.all(); !slices.Equal(got, tt.want) {
					t.Errorf("dialled %v, want %v", got, tt.want)
				}
				if !strings.Contains(log.String(), "level=WARN msg=\"jwks: http is allowed") {
					t.Errorf("no warning in %s", log)
				}
			})
		})
	}
}

// AllowHTTP allows nothing by itself, and http is refused without it.
func TestHTTPNeedsBothSettings(t *testing.T) {
	client := jwks.New(jwks.Config{DialContext: noDial(t)})
	defer client.Close(t.Context())
	for _, tt := range []struct {
		url     string
		cfg     jwks.SourceConfig
		setting jwks.Setting
	}{
		{"http://keycloak:8080/", jwks.SourceConfig{AllowHTTP: true}, jwks.SettingAllowCIDR},
		{"https://keycloak/", jwks.SourceConfig{AllowHTTP: true}, jwks.SettingAllowCIDR},
		{"http://keycloak:8080/", jwks.SourceConfig{AllowLoopback: true}, jwks.SettingAllowHTTP},
		{"http://keycloak:8080/", allowCIDR("10.0.0.0/8"), jwks.SettingAllowLoopback},
		{"http://127.0.0.1/", cluster("10.0.0.0/8"), jwks.SettingAllowCIDR},
		{"http://localhost/", cluster("10.0.0.0/8"), jwks.SettingAllowLoopback},
		{"http://10.0.0.1/", cluster("10.1.0.0/16"), jwks.SettingAllowCIDR},
	} {
		_, err := client.Open("acme", tt.url, tt.cfg)
		e, ok := err.(*jwks.Error)
		if !ok || e.Setting != tt.setting {
			t.Errorf("Open(%s) with %+v = %v, want one that names %s", tt.url, tt.cfg, err, tt.setting)
		}
	}
}

// No redirect leads from https to http, whatever is allowed. Metadata may name a jwks_uri on http if
// AllowHTTP is set.
func TestHTTPSIsNotDowngraded(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.issuer.Misbehave(jwkstest.RedirectFrom("/jwks.json", "http://"+jwkstest.Host+"/keys"))
		w.issuer.AlsoAt("/keys")
		cfg := cluster("2d00::/16")
		cfg.AllowRedirects = true
		s := w.open(cfg)
		synctest.Wait()
		if err := s.Status().LastError; stepOf(err) != jwks.StepRedirect {
			t.Errorf("a redirect to http: %v", err)
		}
		// Sources share no fetch with one that allows less.
		w.issuer.Behave()
		strict := w.open(jwks.SourceConfig{AllowCIDR: cfg.AllowCIDR, AllowRedirects: true})
		synctest.Wait()
		if !strict.HasKey("a") || s.HasKey("a") {
			t.Error("sources with and without AllowHTTP share a fetch")
		}
	})
	for _, cfg := range []jwks.SourceConfig{cluster("10.1.0.0/16"), {AllowCIDR: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}}} {
		_, err := jwks.JWKSURI([]byte(`{"issuer":"https://a.example","jwks_uri":"http://keycloak:8080/certs"}`), "https://a.example", cfg)
		if (err == nil) != cfg.AllowHTTP {
			t.Errorf("a jwks_uri on http with %+v: %v", cfg, err)
		}
	}
}
