package jwkstest_test

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

// What does a service answer while its issuer is down?
func Example() {
	issuer := jwkstest.Start() // in a test: jwkstest.New(t)
	defer issuer.Close()
	issuer.Publish(jwkstest.NewKey("2026-11", "ES256"))

	client := jwks.New(jwks.Config{TLS: issuer.TLS(), LookupNetIP: issuer.LookupNetIP, DialContext: issuer.DialContext})
	defer client.Close(context.Background())
	source, err := client.Open("acme", issuer.URL(), jwks.SourceConfig{})
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := source.WaitReady(ctx); err != nil {
		panic(err)
	}

	issuer.Misbehave(jwkstest.RetryAfter(http.StatusServiceUnavailable, "30"))
	fmt.Println(source.Lookup(keystore.ID{Tenant: "acme", KID: "2026-11"}, keystore.ES256))
	fmt.Println(source.Refresh(ctx, keystore.ID{Tenant: "acme", KID: "2026-12"}))
	// Output:
	// [key "acme"/"2026-11" (ES256)] <nil>
	// keystore: unavailable: jwks: status: status 503
}
