package jwks_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
	"github.com/keyturn/keyturn/verifier"
)

func Example() {
	set := []byte(`{"keys":[
		{"kty":"EC","crv":"P-256","kid":"2026-11","alg":"ES256","use":"sig",
		 "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},
		{"kty":"OKP","crv":"X25519","kid":"ecdh","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
		{"kty":"oct","kid":"oops","k":"c2VjcmV0LCBub3QgYW55IG1vcmUuLi4uLi4uLi4u"}
	]}`)
	keys, skipped, err := jwks.Parse("acme", set)
	if err != nil {
		panic(err)
	}
	for _, s := range skipped {
		fmt.Println("skipped", s)
	}
	store, err := keystore.NewStatic(keys...)
	if err != nil {
		panic(err)
	}
	fmt.Println(store.Lookup(keystore.ID{Tenant: "acme", KID: "2026-11"}, keystore.ES256))
	// Output:
	// skipped key 1 ("ecdh"): unsupported crv "X25519": only Ed25519 of the OKP curves
	// skipped key 2 ("oops"): ALARM: holds a shared secret, with which whoever reads the set can sign
	// [key "acme"/"2026-11" (ES256)] <nil>
}

// A tenant whose issuer publishes its keys at a URL.
func ExampleClient() {
	issuer := jwkstest.Start() // stands in for https://login.example.com
	defer issuer.Close()
	key := jwkstest.NewKey("2026-11", "ES256")
	issuer.Publish(key)

	// In production, jwks.Config{} will do. This one reaches the stand-in.
	client := jwks.New(jwks.Config{
		TLS: issuer.TLS(), LookupNetIP: issuer.LookupNetIP, DialContext: issuer.DialContext,
	})
	defer client.Close(context.Background())

	source, err := client.Open("acme", issuer.URL(), jwks.SourceConfig{})
	if err != nil {
		panic(err) // the URL or a setting is wrong
	}
	v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{{
		ID: "acme", Keys: source, Issuer: "https://login.example.com", Audiences: []string{"orders"},
		Algorithms: []keystore.Algorithm{keystore.ES256},
	}}})
	if err != nil {
		panic(err)
	}

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := source.WaitReady(ctx); err != nil { // optional: the first token would wait, too
		panic(err)
	}
	claims := map[string]any{
		"iss": "https://login.example.com", "aud": "orders", "sub": "ann", "exp": time.Now().Add(time.Hour).Unix(),
	}
	token, err := v.Verify(ctx, key.Token(claims))
	if err != nil {
		panic(err)
	}
	fmt.Println(token.Subject(), token.KeyID())

	// A token under a key that the issuer does not publish makes the source ask once.
	_, err = v.Verify(ctx, jwkstest.NewKey("2026-12", "ES256").Token(claims))
	fmt.Println(errors.Is(err, verifier.ErrUnknownKey), source.Status().Fetches)
	// Output:
	// ann 2026-11
	// true 2
}

// A tenant whose tokens an OpenID Connect issuer signs.
func ExampleClient_Discover() {
	issuer := jwkstest.Start() // stands in for https://login.example.com
	defer issuer.Close()
	key := jwkstest.NewKey("2026-11", "ES256")
	issuer.Publish(key)

	client := jwks.New(jwks.Config{ // in production, jwks.Config{}
		TLS: issuer.TLS(), LookupNetIP: issuer.LookupNetIP, DialContext: issuer.DialContext,
	})
	defer client.Close(context.Background())
	source, err := client.Discover("acme", issuer.Issuer(), jwks.SourceConfig{})
	if err != nil {
		panic(err)
	}
	v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{{
		ID: "acme", Keys: source, Issuer: issuer.Issuer(), Audiences: []string{"orders"},
		Algorithms: []keystore.Algorithm{keystore.ES256},
	}}})
	if err != nil {
		panic(err)
	}

	// No need to wait for the first fetch: the first token waits for it.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	token, err := v.Verify(ctx, key.Token(map[string]any{
		"iss": issuer.Issuer(), "aud": "orders", "sub": "ann", "exp": time.Now().Add(time.Hour).Unix(),
	}))
	if err != nil {
		panic(err)
	}
	fmt.Println(token.Subject(), source.Status().State, source.HasKey("2026-11"), source.HasKey("2026-12"))
	// Output: ann fresh true false
}

// Keys of a URL that may be down when the service starts.
func ExampleClient_Open() {
	issuer := jwkstest.Start()
	defer issuer.Close()
	issuer.Misbehave(jwkstest.CertificateExpired())

	client := jwks.New(jwks.Config{TLS: issuer.TLS(), LookupNetIP: issuer.LookupNetIP, DialContext: issuer.DialContext})
	defer client.Close(context.Background())
	source, err := client.Open("acme", issuer.URL(), jwks.SourceConfig{StaleIfError: time.Hour})
	if err != nil {
		panic(err) // the URL or a setting is wrong; the issuer was not asked
	}
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	if err := source.WaitReady(ctx); err != nil {
		fmt.Println(source.Status().State, source.Status().LastError)
	}
	// Output: cold jwks: tls: the certificate has expired, or is not valid yet
}
