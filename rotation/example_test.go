package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rotationtest"
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

// A service opens its rings, creates one for a tenant, signs with it, and revokes a leaked key. The
// key that was pending takes over in the same step.
func ExampleOpen() {
	ctx := context.Background()
	cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{}) // in production: rediskeys.New
	keys, err := rotation.Open(ctx, cluster.Connect("one"), rotation.Config{
		KEKs:           rotation.InsecurePlaintext(), // in production: rotation.ParseKEKs
		Tenants:        []string{"acme"},
		TrustFirstRead: true, // only because this store was started a moment ago
	})
	if err != nil {
		panic(err)
	}
	defer keys.Close(ctx)
	v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{{
		ID: "acme", Keys: keys, Algorithms: []keystore.Algorithm{keystore.ES256}, AnyIssuer: true, AnyAudience: true,
	}}})
	if err != nil {
		panic(err)
	}

	rotator, err := rotation.NewRotator(keys) // let rotator.Run rotate the keys by schedule
	if err != nil {
		panic(err)
	}
	policy := rotation.Policy{Every: 24 * time.Hour, MaxTokenTTL: time.Hour, Algorithm: keystore.ES256}
	if err := rotator.Create(ctx, "acme", policy); err != nil {
		panic(err)
	}
	signer, err := rotation.NewSigner(keys, rotation.SignerConfig{})
	if err != nil {
		panic(err)
	}
	text, err := signer.Sign(ctx, "acme", map[string]any{"sub": "ann"})
	if err != nil {
		panic(err)
	}
	token, err := v.Verify(ctx, text)
	if err != nil {
		panic(err)
	}
	fmt.Println("signed for", token.Subject())

	// The pending key is too new to be known everywhere, so only Force lets it take over at once.
	_, err = rotator.Revoke(ctx, "acme", token.KeyID())
	fmt.Println("refused:", errors.Is(err, rotation.ErrRefused))
	if _, err := rotator.Revoke(ctx, "acme", token.KeyID(), rotation.Force); err != nil {
		panic(err)
	}
	_, err = v.Verify(ctx, text)
	fmt.Println("revoked:", errors.Is(err, verifier.ErrUnknownKey))
	// Output:
	// signed for ann
	// refused: true
	// revoked: true
}
