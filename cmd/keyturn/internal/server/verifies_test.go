package server

import (
	"slices"
	"testing"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
)

// An instance says of an algorithm that it is accepted only if the rules of all tenants with a ring
// list it. Rules that name none take all.
func TestVerifies(t *testing.T) {
	tenant := func(ring bool, algs ...keystore.Algorithm) Tenant {
		return Tenant{Ring: ring, Rules: verifier.Tenant{Algorithms: algs}}
	}
	for _, tt := range []struct {
		name    string
		tenants []Tenant
		want    []keystore.Algorithm
	}{
		{"none names any", []Tenant{tenant(true), tenant(false, keystore.HS256)}, nil},
		{"one does", []Tenant{tenant(true), tenant(true, keystore.HS256)}, []keystore.Algorithm{keystore.HS256}},
		{"two do", []Tenant{tenant(true, keystore.HS256, keystore.EdDSA), tenant(true, keystore.Ed25519, keystore.ES256)}, []keystore.Algorithm{keystore.EdDSA}},
		{"three have none in common", []Tenant{tenant(true, keystore.HS256), tenant(true, keystore.ES256), tenant(true, keystore.HS256)}, []keystore.Algorithm{"none"}},
	} {
		if got := verifies(tt.tenants); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
