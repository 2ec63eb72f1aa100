package server

import (
	"context"
	"regexp"
	"strings"
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
						if all = one.ready(forVerify).Status; all != stateNotReady {
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

// A token wakes a source that has slept for hours. Until its issuer has answered its keys are too old,
// but that token waits for new ones, so no probe may take the service away.
func TestReadyWhileSourceWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := jwkstest.NewInMemory(t)
		issuer.Publish(jwkstest.NewKey("a", "ES256"))
		client := jwks.New(jwks.Config{TLS: issuer.TLS(), LookupNetIP: issuer.LookupNetIP, DialContext: issuer.DialContext})
		defer client.Close(t.Context())
		s, err := client.Open("acme", issuer.URL(), jwks.SourceConfig{})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Hour)
		issuer.Misbehave(jwkstest.HangHeader())
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := s.Refresh(ctx, keystore.ID{Tenant: "acme", KID: "a"}); err == nil {
			t.Fatal("the issuer hangs, and Refresh has news")
		}
		one := &tenants{all: []Tenant{{Rules: verifier.Tenant{ID: "acme"}, Source: &Source{}}}, sources: map[string]*jwks.Source{"acme": s}}
		if all := one.ready(forVerify); all.Status != stateReady || all.Tenants["acme"].Reason != "waking: the issuer is being asked" {
			t.Errorf("%+v", all)
		}
		time.Sleep(3 * time.Second)
		if all := one.ready(forVerify); all.Status != stateNotReady {
			t.Errorf("the issuer did not answer: %+v", all)
		}
	})
}

// Keys of an issuer that are skipped or irregular are named, and change nothing else. The list has an
// end.
func TestReadyWarnsOfKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := jwkstest.NewInMemory(t)
		good := jwkstest.NewKey("a", "ES256")
		issuer.Publish(good)
		client := jwks.New(jwks.Config{TLS: issuer.TLS(), LookupNetIP: issuer.LookupNetIP, DialContext: issuer.DialContext})
		defer client.Close(t.Context())
		open := func(body string) tenantReady {
			issuer.PublishBody(body)
			s, err := client.Open("acme", issuer.URL(), jwks.SourceConfig{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close(t.Context())
			synctest.Wait()
			one := &tenants{all: []Tenant{{Rules: verifier.Tenant{ID: "acme"}, Source: &Source{}}}, sources: map[string]*jwks.Source{"acme": s}}
			return one.ready(forVerify).Tenants["acme"]
		}
		if one := open(jwkstest.Set(good)); one.Status != stateReady || one.Warnings != nil {
			t.Errorf("an ordinary set: %+v", one)
		}
		odd := strings.TrimSuffix(jwkstest.Set(good), "]}")
		few := odd + "," + regexp.MustCompile(`"(x|y)":"([^"]{43})"`).ReplaceAllString(jwkstest.NewKey("odd", "ES256").JWK(), `"$1":"$2="`) + `,{"kid":"e","kty":"RSA","use":"enc"}]}`
		one := open(few)
		if one.Status != stateReady || len(one.Warnings) != 2 || one.Warnings[0] != `skipped key 2 ("e"): its use is "enc", not "sig"` || !strings.HasPrefix(one.Warnings[1], `irregular key 1 ("odd"): "x" is padded`) {
			t.Errorf("%+v", one)
		}
		if one := open(odd + strings.Repeat(`,{"use":"enc","kty":"RSA"}`, 100) + "]}"); len(one.Warnings) != 17 || one.Warnings[16] != "and 84 more" {
			t.Errorf("%+v", one)
		}
	})
}
