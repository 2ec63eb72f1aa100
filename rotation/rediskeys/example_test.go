package rediskeys_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"strings"

	"github.com/alicebob/miniredis/v2"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/verifier"
)

// An instance of a service keeps its rings in Redis, signs a token and verifies it.
func Example() {
	redis, err := miniredis.Run() // in production: your Redis
	must(err)
	defer redis.Close()
	ctx := context.Background()

	client, err := rediskeys.Open("redis://" + redis.Addr())
	must(err)
	defer client.Close()
	store, err := rediskeys.New(client, rediskeys.Config{})
	must(err)

	kek := make([]byte, 32) // in production: a secret that all instances share, see rotation.ParseKEKs
	rand.Read(kek)
	keks, err := rotation.NewKEKs(kek)
	must(err)
	keys, err := rotation.Open(ctx, store, rotation.Config{
		KEKs:           keks,
		Tenants:        []string{"acme"},
		TrustFirstRead: true, // only because this Redis was started a moment ago
	})
	must(err)
	defer keys.Close(ctx)

	// Once for each tenant. Afterwards Rotator.Run rotates the keys.
	rotator, err := rotation.NewRotator(keys)
	must(err)
	_, err = rotator.Create(ctx, "acme", rotation.Policy{Algorithm: keystore.HS256})
	must(err)

	signer, err := rotation.NewSigner(keys, rotation.SignerConfig{
		Issuer:   func(tenant string) string { return "https://" + tenant + ".example" },
		Audience: func(string) []string { return []string{"orders"} },
	})
	must(err)
	text, err := signer.Sign(ctx, "acme", map[string]any{"sub": "ann"})
	must(err)

	v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{{
		ID: "acme", Keys: keys, Algorithms: []keystore.Algorithm{keystore.HS256},
		Issuer: "https://acme.example", Audiences: []string{"orders"},
	}}})
	must(err)
	token, err := v.Verify(ctx, text)
	must(err)
	fmt.Println(token.Subject(), "of", token.Tenant())
	// Output: ann of acme
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// A password that Kubernetes or Vault keeps in a file is read at each connection, so a new one needs no
// restart.
func ExampleOpenWith() {
	password := func(context.Context) (user, password string, err error) {
		text, err := os.ReadFile("/run/secrets/redis-password")
		return "keyturn", strings.TrimSuffix(string(text), "\n"), err
	}
	client, err := rediskeys.OpenWith("redis://localhost:6379", rediskeys.Options{Credentials: password})
	must(err)
	defer client.Close() // OpenWith does not connect
}

// The least rights of a user, to paste into redis-cli.
func ExampleConfig_ACL() {
	acl, err := rediskeys.Config{}.ACL("redis://localhost:6379", rediskeys.RoleReader)
	must(err)
	fmt.Println("ACL SETUSER verifier", strings.Join(acl.Server[:6], " "), "...")
	// Output: ACL SETUSER verifier on resetkeys resetchannels -@all ~kt:* &kt:* ...
}
