package rotation_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/rotation/rotationtest"
	"github.com/keyturn/keyturn/verifier"
)

// An instance of a service signs and verifies tokens with keys that rotate by themselves.
func Example() {
	ctx, stop := context.WithCancel(context.Background())
	redis, err := miniredis.Run() // in production: your Redis
	must(err)
	defer redis.Close()
	client, err := rediskeys.Open("redis://" + redis.Addr())
	must(err)
	defer client.Close()
	store, err := rediskeys.New(client, rediskeys.Config{})
	must(err)

	secret := make([]byte, 32) // in production: all instances read the same secret
	rand.Read(secret)
	keks, err := rotation.ParseKEKs([]byte(base64.StdEncoding.EncodeToString(secret)))
	must(err)
	keys, err := rotation.Open(ctx, store, rotation.Config{
		KEKs:           keks,
		Tenants:        []string{"acme"},
		TrustFirstRead: true, // only because this Redis was started a moment ago
	})
	must(err)
	defer keys.Close(context.Background())

	// Create makes the ring, once for each tenant. Run rotates its keys from then on.
	rotator, err := rotation.NewRotator(keys)
	must(err)
	_, err = rotator.Create(ctx, "acme", rotation.Policy{
		Every: 30 * 24 * time.Hour, MaxTokenTTL: 10 * time.Minute, Algorithm: keystore.ES256,
	})
	must(err)
	var running sync.WaitGroup
	running.Go(func() { rotator.Run(ctx) })
	defer running.Wait()
	defer stop()

	must(keys.WaitReady(ctx)) // then serve
	signer, err := rotation.NewSigner(keys, rotation.SignerConfig{
		Issuer:   func(tenant string) string { return "https://" + tenant + ".example" },
		Audience: func(string) []string { return []string{"orders"} },
	})
	must(err)
	token, err := signer.Sign(ctx, "acme", map[string]any{"sub": "ann", "scope": "orders:read"})
	must(err)

	v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{{
		ID: "acme", Keys: keys, Algorithms: []keystore.Algorithm{keystore.ES256},
		Issuer: "https://acme.example", Audiences: []string{"orders"},
	}}})
	must(err)
	t, err := v.Verify(ctx, token)
	must(err)
	fmt.Println(t.Subject(), t.Scopes(), t.Expires().Sub(t.IssuedAt()))
	// Output: ann [orders:read] 10m0s
}

// The newest key comes first. The older one still opens what it has sealed.
func ExampleParseKEKs() {
	text := `2026-11:` + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("new KEK.", 4))) + `
2026-05:` + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("old KEK.", 4)))
	keks, err := rotation.ParseKEKs([]byte(text))
	must(err)
	fmt.Println(keks.IDs())
	fmt.Printf("%+v\n", keks) // no verb prints a key
	// Output:
	// [2026-11 2026-05]
	// KEKs "2026-11", "2026-05"
}

// A service without a store signs with one key of its own.
func ExampleNewStaticSigner() {
	id := keystore.ID{Tenant: "acme", KID: "2026-11"}
	secret := []byte(strings.Repeat("not a secret, ", 3)) // in truth from a file or the environment

	signer, err := rotation.NewStaticSigner(id, keystore.HS256, secret, rotation.SignerConfig{
		TTL:      5 * time.Minute,
		Issuer:   func(tenant string) string { return "https://" + tenant + ".example" },
		Audience: func(string) []string { return []string{"orders"} },
	})
	must(err)
	token, err := signer.Sign(context.Background(), "acme", map[string]any{"sub": "ann", "scope": "orders:read"})
	must(err)

	key, err := keystore.NewSecret(id, keystore.HS256, secret)
	must(err)
	keys, err := keystore.NewStatic(key)
	must(err)
	v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{{
		ID: "acme", Keys: keys, Algorithms: []keystore.Algorithm{keystore.HS256},
		Issuer: "https://acme.example", Audiences: []string{"orders"},
	}}})
	must(err)
	t, err := v.Verify(context.Background(), token)
	must(err)
	fmt.Println(t.Subject(), t.Scopes(), t.Expires().Sub(t.IssuedAt()))
	// Output: ann [orders:read] 5m0s
}

// An operator revokes a leaked key. Its tokens are rejected from then on.
func ExampleRotator_Revoke() {
	ctx := context.Background()
	cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{}) // in production: rediskeys.New
	keys, err := rotation.Open(ctx, cluster.Connect("one"), rotation.Config{
		KEKs:           rotation.InsecurePlaintext(), // in production: rotation.ParseKEKs
		Tenants:        []string{"acme"},
		TrustFirstRead: true, // only because this store was started a moment ago
	})
	must(err)
	defer keys.Close(ctx)
	v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{{
		ID: "acme", Keys: keys, Algorithms: []keystore.Algorithm{keystore.ES256}, AnyIssuer: true, AnyAudience: true,
	}}})
	must(err)

	rotator, err := rotation.NewRotator(keys) // let rotator.Run rotate the keys by schedule
	must(err)
	policy := rotation.Policy{Every: 24 * time.Hour, MaxTokenTTL: time.Hour, Algorithm: keystore.ES256}
	_, err = rotator.Create(ctx, "acme", policy)
	must(err)
	signer, err := rotation.NewSigner(keys, rotation.SignerConfig{})
	must(err)
	text, err := signer.Sign(ctx, "acme", map[string]any{"sub": "ann"})
	must(err)
	token, err := v.Verify(ctx, text)
	must(err)
	fmt.Println("signed for", token.Subject())

	// The pending key is too new to be known everywhere, so without this key no instance could sign
	// for a while. Force accepts that.
	_, err = rotator.Revoke(ctx, "acme", token.KeyID())
	fmt.Println("refused:", errors.Is(err, rotation.ErrRefused))
	_, err = rotator.Revoke(ctx, "acme", token.KeyID(), rotation.Force)
	must(err)
	_, err = v.Verify(ctx, text)
	fmt.Println("revoked:", errors.Is(err, verifier.ErrUnknownKey))
	// Output:
	// signed for ann
	// refused: true
	// revoked: true
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
