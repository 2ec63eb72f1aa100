// The command auth0 is the program of docs/providers.md: an API that takes the access tokens of an
// Auth0 domain. To try it, put in the names of your own.
package main

import (
	"fmt"
	"log"
	"log/slog"
	"net/http"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

func main() {
	client := jwks.New(jwks.Config{Logger: slog.Default()}) // one per process; without a Logger, failed fetches are silent
	tenant, err := auth0(client)                            // or another function of this page
	if err != nil {
		log.Fatal(err)
	}
	v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{tenant}})
	if err != nil {
		log.Fatal(err)
	}
	protect := middleware.Require(v, middleware.WithErrorHandler(func(w http.ResponseWriter, _ *http.Request, err error) {
		slog.Warn("request refused", "err", err) // says what was wanted, and holds no part of the token but its kid
		w.WriteHeader(middleware.Status(err))    // 400, 401 or 403, and 503 if it cannot tell now
	}))
	http.Handle("/", protect(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, _ := middleware.TokenFrom(r.Context())
		fmt.Fprintln(w, "hello", token.Subject(), "of", token.Tenant())
	})))
	log.Fatal(http.ListenAndServe("127.0.0.1:8080", nil))
}

func auth0(client *jwks.Client) (verifier.Tenant, error) {
	const issuer = "https://acme.eu.auth0.com/"
	keys, err := client.Discover("acme", issuer, jwks.SourceConfig{})
	return verifier.Tenant{
		ID: "acme", Keys: keys, Algorithms: []keystore.Algorithm{keystore.RS256},
		Issuer: issuer, Audiences: []string{"https://api.acme.example"},
		Match: map[string][]string{"azp": {"wEb4ppCl13ntId"}},
	}, err
}
