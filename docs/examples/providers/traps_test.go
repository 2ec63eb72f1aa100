package providers_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/providertest"
	"github.com/keyturn/keyturn/keystore/jwks"
)

const (
	entraTemplate   = "https://login.microsoftonline.com/common/v2.0"
	firebasePEMs    = "https://www.googleapis.com/robot/v1/metadata/x509/securetoken@system.gserviceaccount.com"
	oracleKeys      = "https://idcs-1a2b3c4d5e6f.identity.oraclecloud.com/admin/v1/SigningCert/jwk"
	supabaseUnmoved = "https://abcdefghijklmnopqrst.supabase.co/auth/v1/.well-known/jwks.json"
	oracleDomain    = "https://idcs-1a2b3c4d5e6f.identity.oraclecloud.com"
	keycloakService = "http://keycloak:8080/realms/acme"
)

// trapPages are what the page warns of. The key of Oracle is one of its public samples.
var trapPages = map[string]providertest.Page{
	entraTemplate + "/.well-known/openid-configuration": {
		Body: `{"issuer":"https://login.microsoftonline.com/{tenantid}/v2.0","jwks_uri":"https://login.microsoftonline.com/common/discovery/v2.0/keys"}`,
	},
	firebasePEMs:    {Body: `{"d4e0edfe2a8b":"-----BEGIN CERTIFICATE-----\nMIIDHDCC\n-----END CERTIFICATE-----\n"}`},
	supabaseUnmoved: {Body: `{"keys":[]}`},
	oracleDomain + "/.well-known/openid-configuration": {Body: `{"issuer":"https://identity.oraclecloud.com/","jwks_uri":"` + oracleKeys + `"}`},
	keycloakService + "/.well-known/openid-configuration": {
		Body: `{"issuer":"https://login.acme.example/realms/acme","jwks_uri":"` + keycloakService + `/protocol/openid-connect/certs"}`,
	},
	keycloakService + "/protocol/openid-connect/certs": {Body: `{"keys":[]}`},
	oracleKeys: {Body: `{"keys":[{"kty":"RSA","e":"AQAB","kid":"SIGNING_KEY","key_ops":["sig","encrypt"],"alg":"RS256","n":"` +
		`khfJqiO57xMlci4mtvirEGoDfPflsLWQd3G0ZkQQlQK2QcraQRQPkaoP8Lo6KMKA-1mV1TxGfd9QMx9ONmtRL8RIWvt0543Fae6wPfRpaeIcDpknsHAovsTd` +
		`Q9SwfqwhF7slDg4ciEJ7-gdpCJKMVQcnsiWBDPCoIC1xzB7KbGKrWvaPAmxx1hoM4etjPwBy8h_JvHMfDEF1GkrUtCDiLFPyGBLPv50hmyN6mnTu47lBhzI` +
		`wzeZ4HqZLgrOdqdA6iSZrBxRzHDi1IWqoj87FYpztkWXnV7VkIN37RwrG6bFKOHGaYEydoF0LmI4pltssTxsdtLyN-Hr8fM402cs7Iw"}]}`},
}

// TestHTTPByName: http needs to be allowed by name, and a network for it.
func TestHTTPByName(t *testing.T) {
	client := jwks.New(jwks.Config{})
	t.Cleanup(func() { client.Close(context.Background()) })
	for _, cfg := range []jwks.SourceConfig{{}, {AllowHTTP: true}, {AllowCIDR: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}}} {
		if _, err := client.Open("acme", keycloakService+"/protocol/openid-connect/certs", cfg); err == nil {
			t.Errorf("a source over http is opened with %+v", cfg)
		}
	}
}

// TestTraps: sources of keys that the page warns of fail at the step that it names, and say why.
func TestTraps(t *testing.T) {
	n := providertest.NewNetwork(t, providertest.Provider{Pages: trapPages})
	client := jwks.New(jwks.Config{TLS: n.TLS(), LookupNetIP: n.LookupNetIP, DialContext: n.DialContext})
	t.Cleanup(func() { client.Close(context.Background()) })
	open, discover := client.Open, client.Discover
	services := []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}
	for _, tt := range []struct {
		name string
		open func(tenant, url string, cfg jwks.SourceConfig) (*jwks.Source, error)
		url  string
		cfg  jwks.SourceConfig
		step jwks.Step
		says string
	}{
		{"the template of Entra", discover, entraTemplate, jwks.SourceConfig{}, jwks.StepDiscovery, "issuer"},
		{"the PEM map of Firebase", open, firebasePEMs, jwks.SourceConfig{}, jwks.StepSet, "PEM"},
		{"a Supabase project that has not moved", open, supabaseUnmoved, jwks.SourceConfig{}, jwks.StepSet, "no key"},
		{"key_ops of Oracle", open, oracleKeys, jwks.SourceConfig{}, jwks.StepSet, "key_ops"},
		{"a domain of Oracle", discover, oracleDomain, jwks.SourceConfig{}, jwks.StepDiscovery, "issuer"},
		{"Keycloak by discovery at its name in the cluster", discover, keycloakService, jwks.SourceConfig{AllowHTTP: true, AllowCIDR: services}, jwks.StepDiscovery, "issuer"},
		{"Keycloak outside of the networks that are allowed", open, keycloakService + "/protocol/openid-connect/certs",
			jwks.SourceConfig{AllowHTTP: true, AllowCIDR: []netip.Prefix{netip.MustParsePrefix("10.112.0.0/12")}}, jwks.StepAddress, "10.96.0.10"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			source, err := tt.open("acme", tt.url, tt.cfg)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for source.Status().Failures == 0 && ctx.Err() == nil {
				time.Sleep(time.Millisecond)
			}
			bad := new(jwks.Error)
			if err := source.Status().LastError; !errors.As(err, &bad) || bad.Step != tt.step || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("the source says %v, want step %s and %q", err, tt.step, tt.says)
			}
		})
	}
}
