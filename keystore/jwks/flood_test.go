package jwks_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
	"github.com/keyturn/keyturn/verifier"
)

// counted counts the calls of a source by a verifier.
type counted struct {
	*jwks.Source
	lookups, refreshes atomic.Int64
}

func (c *counted) Lookup(id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
	c.lookups.Add(1)
	return c.Source.Lookup(id, alg)
}

func (c *counted) Refresh(ctx context.Context, id keystore.ID) error {
	c.refreshes.Add(1)
	return c.Source.Refresh(ctx, id)
}

func issuerOf(tenant string) string { return "https://" + tenant + ".example" }

// verifyAll returns a verifier of several tenants, each with the issuer of its name.
func verifyAll(t *testing.T, keys map[string]keystore.KeyStore) *verifier.Verifier {
	t.Helper()
	var tenants []verifier.Tenant
	for id, store := range keys {
		tenants = append(tenants, verifier.Tenant{
			ID: id, Keys: store, Issuer: issuerOf(id), Algorithms: []keystore.Algorithm{keystore.ES256}, AnyAudience: true,
		})
	}
	v, err := verifier.New(verifier.Config{Tenants: tenants})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// unsigned returns a token without a valid signature.
func unsigned(kid, iss string) string {
	header, err := json.Marshal(map[string]string{"alg": "ES256", "kid": kid})
	if err != nil {
		panic(err)
	}
	claims := fmt.Sprintf(`{"iss":%q,"exp":%d}`, iss, time.Now().Add(time.Hour).Unix())
	return b64(header) + "." + b64([]byte(claims)) + "." + strings.Repeat("A", 86)
}

// signed returns a token of a tenant.
func signed(key *jwkstest.Key, tenant string) string {
	return key.Token(map[string]any{"iss": issuerOf(tenant), "exp": time.Now().Add(time.Hour).Unix()})
}

// heap returns how many bytes are in use.
func heap() int64 {
	runtime.GC()
	runtime.GC() // for the content of pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A hundred thousand tokens, each with an unknown kid of the greatest length, cost four fetches,
// the first included, and leave no garbage. Keys that are really new are fetched within ten
// seconds, even if the flood goes on and names their kids.
func TestHundredThousandTokensOfUnknownKids(t *testing.T) {
	const crowd = 100 // send them
	tokens := 100_000
	if raceEnabled {
		tokens = 20_000 // make test runs all of them without the race detector
	}
	padding := strings.Repeat("x", 240)
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		v := verifyAll(t, map[string]keystore.KeyStore{"acme": s})
		before := heap()
		var flood sync.WaitGroup
		for g := range crowd {
			flood.Go(func() {
				for i := range tokens / crowd {
					kid := fmt.Sprint(g, "-", i, "-", padding)
					if _, err := v.Verify(t.Context(), unsigned(kid, issuerOf("acme"))); !errors.Is(err, verifier.ErrUnknownKey) {
						t.Errorf("a token of an unknown kid: %v", err)
						return
					}
					if i%10 == 9 {
						time.Sleep(30 * time.Millisecond)
					}
				}
			})
		}
		flood.Wait()
		w.wantFetches(4)
		if got := jwks.Missing(s); got > 256 {
			t.Errorf("%d kids are remembered", got)
		}
		if more := heap() - before; more > 4<<20 { // 256 kids, and overhead of the runtime
			t.Errorf("the flood left %d bytes", more)
		}

		ctx, stop := context.WithCancel(t.Context())
		defer flood.Wait()
		defer stop()
		c, d := jwkstest.NewKey("c", "ES256"), jwkstest.NewKey("d", "ES256")
		flood.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				for _, kid := range []string{fmt.Sprint("more-", i), "c", "d"} {
					_, _ = v.Verify(ctx, unsigned(kid, issuerOf("acme")))
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
		// The second key appears just after the attempt that brought the first.
		for i, keys := range [][]*jwkstest.Key{{w.a, w.b, c}, {w.a, w.b, c, d}} {
			w.issuer.Publish(keys...)
			published := time.Now()
			for {
				_, err := v.Verify(t.Context(), signed(keys[2+i], "acme"))
				if err == nil {
					break
				}
				if time.Since(published) > 10*time.Second {
					t.Fatalf("the new key %s was not learned within 10 s: %v", keys[2+i].KID, err)
				}
				time.Sleep(10 * time.Millisecond)
			}
		}
	})
}

// Forged signatures under a known kid cause no fetch.
func TestForgedTokensCostNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		v := verifyAll(t, map[string]keystore.KeyStore{"acme": s})
		forged := jwkstest.NewKey("a", "ES256")
		for _, token := range []string{signed(forged, "acme"), unsigned("a", issuerOf("acme"))} {
			for range 500 {
				if _, err := v.Verify(t.Context(), token); !errors.Is(err, verifier.ErrSignature) {
					t.Fatalf("a forged token: %v, want ErrSignature", err)
				}
			}
		}
		synctest.Wait()
		w.wantFetches(1)
		if got := s.Status().Fetches; got != 1 {
			t.Errorf("%d attempts", got)
		}
	})
}

// While one tenant is flooded and its issuer hangs, tokens of another tenant do not wait, and its
// new key is fetched at once.
func TestTokenFloodDoesNotDelayOtherTenants(t *testing.T) {
	parallel(t)
	crowd := 100
	if raceEnabled {
		crowd = 25 // make test has the whole flood without the race detector
	}
	for _, hangs := range []bool{false, true} {
		t.Run(fmt.Sprint("its issuer hangs: ", hangs), func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				a, c := jwkstest.NewKey("a", "ES256"), jwkstest.NewKey("c", "ES256")
				var later atomic.Bool // than before the flood
				network := &network{set: func(addr string, _ *http.Request) string {
					switch {
					case !later.Load():
						return jwkstest.Set(a)
					case addr == "127.9.0.1:80" && hangs:
						time.Sleep(2 * jwks.FetchTimeout)
					}
					return jwkstest.Set(a, c)
				}}
				defer network.answering.Wait()
				client := jwks.New(jwks.Config{DialContext: network.dial})
				defer client.Close(t.Context())
				v := verifyAll(t, map[string]keystore.KeyStore{
					"acme": network.open(t, client, "acme", "127.9.0.1"), "globex": network.open(t, client, "globex", "127.9.0.2"),
				})
				later.Store(true)

				ctx, stop := context.WithCancel(t.Context())
				var flood sync.WaitGroup
				defer flood.Wait()
				defer stop()
				for g := range crowd {
					flood.Go(func() {
						for i := 0; ctx.Err() == nil; i++ {
							_, _ = v.Verify(ctx, unsigned(fmt.Sprint(g, "-", i), issuerOf("acme")))
							time.Sleep(10 * time.Millisecond)
						}
					})
				}
				for i := range 300 {
					key := a
					if i == 200 {
						key = c
					}
					start := time.Now()
					if _, err := v.Verify(t.Context(), signed(key, "globex")); err != nil || time.Since(start) != 0 {
						t.Fatalf("another tenant's token of key %s: %v after %v", key.KID, err, time.Since(start))
					}
					time.Sleep(10 * time.Millisecond)
				}
				stop()
				flood.Wait()
				if got := len(network.requests("127.9.0.2:80")); got != 2 {
					t.Errorf("the other tenant's issuer was asked %d times, want 2", got)
				}
				if got := len(network.requests("127.9.0.1:80")); got > 4 {
					t.Errorf("the flooded one's was asked %d times", got)
				}
			})
		})
	}
}

// Tokens that no configured issuer can have made cause no fetch, whatever their kid.
func TestTokensOfRandomIssuersCostNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := &counted{Source: w.ready(jwks.SourceConfig{})}
		globex := &counted{Source: w.openFor("globex", jwks.SourceConfig{})} // a tenant that is alone is not chosen by issuer
		v := verifyAll(t, map[string]keystore.KeyStore{"acme": s, "globex": globex})
		for i := range 10_000 {
			iss := fmt.Sprintf("https://issuer-%d.example", i)
			for _, kid := range []string{"a", fmt.Sprint("unknown-", i)} {
				if _, err := v.Verify(t.Context(), unsigned(kid, iss)); !errors.Is(err, verifier.ErrUnknownTenant) {
					t.Fatalf("a token of %s: %v, want ErrUnknownTenant", iss, err)
				}
			}
		}
		for _, s := range []*counted{s, globex} {
			if n := s.lookups.Load() + s.refreshes.Load(); n != 0 {
				t.Errorf("a source was asked %d times", n)
			}
		}
		// Nor do tokens that name the tenant's issuer and are bad in another way.
		for i := range 1000 {
			kid := fmt.Sprint("unknown-", i)
			if _, err := v.VerifyTenant(t.Context(), "acme", unsigned(kid, "https://issuer.example")); !errors.Is(err, verifier.ErrIssuer) {
				t.Fatalf("a token of another issuer: %v, want ErrIssuer", err)
			}
			expired := strings.Split(unsigned(kid, issuerOf("acme")), ".")
			expired[1] = b64([]byte(fmt.Sprintf(`{"iss":%q,"exp":1}`, issuerOf("acme"))))
			if _, err := v.Verify(t.Context(), strings.Join(expired, ".")); !errors.Is(err, verifier.ErrUnknownKey) {
				t.Fatalf("an expired token of an unknown kid: %v, want ErrUnknownKey", err)
			}
		}
		if n := s.refreshes.Load(); n != 0 {
			t.Errorf("the source was asked for news %d times", n)
		}
		synctest.Wait()
		w.wantFetches(1)
	})
}
