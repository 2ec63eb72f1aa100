package providers_test

import (
	"context"
	"errors"
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
)

// trapPages are what the page warns of. The key of Oracle is one of its public samples.
var trapPages = map[string]providertest.Page{
	entraTemplate + "/.well-known/openid-configuration": {
		Body: `{"issuer":"https://login.microsoftonline.com/{tenantid}/v2.0","jwks_uri":"https://login.microsoftonline.com/common/discovery/v2.0/keys"}`,
	},
	firebasePEMs:    {Body: `{"d4e0edfe2a8b":"-----BEGIN CERTIFICATE-----\nMIIDHDCC\n-----END CERTIFICATE-----\n"}`},
	supabaseUnmoved: {Body: `{"keys":[]}`},
	oracleKeys: {Body: `{"keys":[{"kty":"RSA","e":"AQAB","kid":"SIGNING_KEY","key_ops":["sig","encrypt"],"alg":"RS256","n":"` +
		`khfJqiO57xMlci4mtvirEGoDfPflsLWQd3G0ZkQQlQK2QcraQRQPkaoP8Lo6KMKA-1mV1TxGfd9QMx9ONmtRL8RIWvt0543Fae6wPfRpaeIcDpknsHAovsTd` +
		`Q9SwfqwhF7slDg4ciEJ7-gdpCJKMVQcnsiWBDPCoIC1xzB7KbGKrWvaPAmxx1hoM4etjPwBy8h_JvHMfDEF1GkrUtCDiLFPyGBLPv50hmyN6mnTu47lBhzI` +
		`wzeZ4HqZLgrOdqdA6iSZrBxRzHDi1IWqoj87FYpztkWXnV7VkIN37RwrG6bFKOHGaYEydoF0LmI4pltssTxsdtLyN-Hr8fM402cs7Iw"}]}`},
}

// TestTraps: sources of keys that the page warns of fail at the step that it names, and say why.
func TestTraps(t *testing.T) {
	n := providertest.NewNetwork(t, providertest.Provider{Pages: trapPages})
	client := jwks.New(jwks.Config{TLS: n.TLS(), LookupNetIP: n.LookupNetIP, DialContext: n.DialContext})
	t.Cleanup(func() { client.Close(context.Background()) })
	open, discover := client.Open, client.Discover
	for _, tt := range []struct {
		name string
		open func(tenant, url string, cfg jwks.SourceConfig) (*jwks.Source, error)
		url  string
		step jwks.Step
		says string
	}{
		{"the template of Entra", discover, entraTemplate, jwks.StepDiscovery, "issuer"},
		{"the PEM map of Firebase", open, firebasePEMs, jwks.StepSet, ""},
		{"a Supabase project that has not moved", open, supabaseUnmoved, jwks.StepSet, ""},
		{"key_ops of Oracle", open, oracleKeys, jwks.StepSet, "key_ops"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			source, err := tt.open("acme", tt.url, jwks.SourceConfig{})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
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
