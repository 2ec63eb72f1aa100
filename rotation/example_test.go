package rotation_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier"
)

func ExampleNewStaticSigner() {
	id := keystore.ID{Tenant: "acme", KID: "2026-11"}
	secret := []byte(strings.Repeat("not a secret, ", 3)) // in truth from a file or the environment

	signer, err := rotation.NewStaticSigner(id, keystore.HS256, secret, rotation.SignerConfig{
		TTL:      5 * time.Minute,
		Issuer:   func(tenant string) string { return "https://" + tenant + ".example" },
		Audience: func(string) []string { return []string{"orders"} },
	})
	if err != nil {
		panic(err)
	}
	token, err := signer.Sign(context.Background(), "acme", map[string]any{"sub": "ann", "scope": "orders:read"})
	if err != nil {
		panic(err)
	}

	key, err := keystore.NewSecret(id, keystore.HS256, secret)
	if err != nil {
		panic(err)
	}
	keys, err := keystore.NewStatic(key)
	if err != nil {
		panic(err)
	}
	v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{{
		ID: "acme", Keys: keys, Algorithms: []keystore.Algorithm{keystore.HS256},
		Issuer: "https://acme.example", Audiences: []string{"orders"},
	}}})
	if err != nil {
		panic(err)
	}
	t, err := v.Verify(context.Background(), token)
	if err != nil {
		panic(err)
	}
	fmt.Println(t.Subject(), t.Scopes(), t.Expires().Sub(t.IssuedAt()))
	// Output: ann [orders:read] 5m0s
}
