package server

import (
	"testing"

	"github.com/alicebob/miniredis/v2"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier"
)

// A ring completes the rules of its tenant, and the order of the tenants decides nothing: the server
// is as ready as the least ready ring.
func TestRingTenants(t *testing.T) {
	keks, err := rotation.NewKEKs([]byte("0123456789abcdef0123456789ABCDEF"))
	if err != nil {
		t.Fatal(err)
	}
	ring := Tenant{Ring: true, Rules: verifier.Tenant{ID: "ring", Issuer: "https://auth.example/ring", AnyAudience: true}}
	for _, all := range [][]Tenant{{static(t, "acme"), ring}, {ring, static(t, "acme")}} {
		cfg := Config{Tenants: all, Rings: &Rings{URL: "redis://" + miniredis.RunT(t).Addr(), KEKs: keks}}.withDefaults()
		tenants, err := openTenants(t.Context(), &cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer tenants.close()
		if got := tenants.ready(forVerify); got.Status != stateNotReady || got.Tenants["ring"].Status != stateNotReady || got.Tenants["acme"].Status != stateReady {
			t.Errorf("ready = %v", got)
		}
		for _, rules := range tenants.rules() {
			if rules.ID != "ring" {
				continue
			}
			if rules.Keys == nil || !rules.MixedFamilies || len(rules.Algorithms) != len(keystore.Algorithms()) || rules.Leeway != leeway {
				t.Errorf("rules = %+v", rules)
			}
		}
		if got := tenants.publicIssuer("ring"); got != ring.Rules.Issuer {
			t.Errorf("publicIssuer = %q", got)
		}
		if got := tenants.publicIssuer("acme"); got != "" {
			t.Errorf("publicIssuer of a tenant with any issuer = %q", got)
		}
	}
}
