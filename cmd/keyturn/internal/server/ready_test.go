package server

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
	"github.com/keyturn/keyturn/verifier"
)

// A server that is not ready gets no request from a load balancer. So it must find out by itself that
// the issuer answers again.
func TestReadyAgainWithoutRequest(t *testing.T) {
	for name, hadKeys := range map[string]bool{"from the start": false, "with keys that are too old": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				issuer := jwkstest.NewInMemory(t)
				issuer.Publish(jwkstest.NewKey("a", "ES256"))
				client := jwks.New(jwks.Config{TLS: issuer.TLS(), LookupNetIP: issuer.LookupNetIP, DialContext: issuer.DialContext})
				defer client.Close(t.Context())
				if !hadKeys {
					issuer.Misbehave(jwkstest.Status(503))
				}
				s, err := client.Open("acme", issuer.URL(), jwks.SourceConfig{})
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				issuer.Misbehave(jwkstest.Status(503))
				one := &tenants{
					all:     []Tenant{{Rules: verifier.Tenant{ID: "acme"}, Source: &Source{JWKSURL: issuer.URL()}}},
					sources: map[string]*jwks.Source{"acme": s},
				}
				// look asks /readyz every ten seconds for d, and uses the API while that is ready.
				look := func(d time.Duration) (all string) {
					for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * time.Second) {
						if all = one.ready().Status; all != stateNotReady {
							_, _ = s.Lookup(keystore.ID{Tenant: "acme", KID: "a"}, keystore.ES256)
						}
					}
					return all
				}
				if all := look(5 * time.Hour); all != stateNotReady {
					t.Errorf("after five hours without an issuer: %s", all)
				}
				issuer.Behave()
				if all := look(6 * time.Minute); all != stateReady {
					t.Errorf("six minutes after the issuer is well: %s", all)
				}
			})
		})
	}
}
