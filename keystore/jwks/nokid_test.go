package jwks_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
	"github.com/keyturn/keyturn/verifier"
)

// withoutKID returns a token of a tenant that does not name its key.
func withoutKID(key *jwkstest.Key, tenant string) string {
	claims := fmt.Sprintf(`{"iss":%q,"exp":%d}`, issuerOf(tenant), time.Now().Add(time.Hour).Unix())
	text := b64([]byte(`{"alg":"`+key.Algorithm+`"}`)) + "." + b64([]byte(claims))
	return text + "." + b64(key.Sign([]byte(text)))
}

// rotations are the sets of an issuer before and after it rotates. The first key of each set signs.
var rotations = []struct {
	name          string
	before, after []string // kids
	overlaps      bool     // the old key stays
}{
	{name: "one key without kid", before: []string{""}, after: []string{""}},
	{name: "a key with a kid", before: []string{"a"}, after: []string{"c"}},
	{name: "a kid comes", before: []string{""}, after: []string{"c"}},
	{name: "a kid goes", before: []string{"a"}, after: []string{""}},
	{name: "the kid stays", before: []string{"a"}, after: []string{"a"}},
	{name: "the old key stays", before: []string{""}, after: []string{"", ""}, overlaps: true},
	{name: "the old key with a kid stays", before: []string{"a"}, after: []string{"c", "a"}, overlaps: true},
}

// A token without kid names no key, so one of a key that is not held yet looks like a forged one. Its issuer is asked
// once, and the token is verified at once.
func TestTokenWithoutKIDOfRotatedIssuer(t *testing.T) {
	for _, tt := range rotations {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) { rotateWithoutKID(t, w, tt.before, tt.after, tt.overlaps) })
		})
	}
}

func rotateWithoutKID(t *testing.T, w *world, before, after []string, overlaps bool) {
	old, next := jwkstest.NewKey(before[0], "ES256"), jwkstest.NewKey(after[0], "ES256")
	w.issuer.Publish(old)
	v := verifyAll(t, map[string]keystore.KeyStore{"acme": w.ready(jwks.SourceConfig{})})
	oldToken := withoutKID(old, "acme")
	if _, err := v.Verify(t.Context(), oldToken); err != nil {
		t.Fatal(err)
	}
	if overlaps {
		w.issuer.Publish(next, old)
	} else {
		w.issuer.Publish(next)
	}
	for range 2 {
		if _, err := v.Verify(t.Context(), withoutKID(next, "acme")); err != nil {
			t.Errorf("a good token of the new key: %v", err)
		}
	}
	if _, err := v.Verify(t.Context(), oldToken); overlaps && err != nil || !overlaps && !errors.Is(err, verifier.ErrSignature) {
		t.Errorf("a token of the old key: %v", err)
	}
	if got := len(w.issuer.Requests()); got != 2 {
		t.Errorf("%d requests, want 2: the first, and one for the new key", got)
	}
}

// verdict returns what a verifier says of a token, as an HTTP status.
func verdict(t *testing.T, v *verifier.Verifier, token string) int {
	t.Helper()
	_, err := v.Verify(t.Context(), token)
	switch {
	case err == nil:
		return http.StatusOK
	case errors.Is(err, verifier.ErrUnavailable) && !errors.Is(err, verifier.ErrInvalid):
		return http.StatusServiceUnavailable
	case errors.Is(err, verifier.ErrInvalid) && !errors.Is(err, verifier.ErrUnavailable):
		return http.StatusUnauthorized
	}
	t.Fatalf("a verdict that is neither: %v", err)
	return 0
}

// A stranger sends tokens that only their signature shows to be forged. Without kid they cost the issuer at most as much
// as with unknown kids, delay no token of a key that is held, and none of another tenant. A new key is learned within
// ten seconds.
func TestForgedTokensWithoutKIDCostWhatUnknownKidsCost(t *testing.T) {
	parallel(t)
	const seconds, latency = 30, 200 * time.Millisecond
	crowd := 20
	if raceEnabled {
		crowd = 5 // make test has the whole flood without the race detector
	}
	for _, named := range []bool{true, false} {
		t.Run(fmt.Sprint("with unknown kids: ", named), func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				kid, sign := "", withoutKID
				if named {
					kid, sign = "c", signed
				}
				a, c, stranger := jwkstest.NewKey("a", "ES256"), jwkstest.NewKey(kid, "ES256"), jwkstest.NewKey("", "ES256")
				var rotated atomic.Bool
				network := &network{maxAge: 3600, set: func(_ string, r *http.Request) string {
					if time.Sleep(latency); rotated.Load() {
						return jwkstest.Set(a, c)
					}
					return jwkstest.Set(a)
				}}
				defer network.answering.Wait()
				client := jwks.New(jwks.Config{DialContext: network.dial})
				defer client.Close(t.Context())
				v := verifyAll(t, map[string]keystore.KeyStore{
					"acme": network.open(t, client, "acme", "127.9.0.1"), "globex": network.open(t, client, "globex", "127.9.0.2"),
				})
				ctx, stop := context.WithCancel(t.Context())
				var flood sync.WaitGroup
				defer flood.Wait()
				defer stop()
				for g := range crowd {
					flood.Go(func() {
						token := withoutKID(stranger, "acme")
						for i := 0; ctx.Err() == nil; i++ {
							if named {
								token = unsigned(fmt.Sprint(g, "-", i), issuerOf("acme"))
							}
							if got := verdict(t, v, token); got != http.StatusUnauthorized {
								t.Errorf("a forged token gets %d", got)
							}
							time.Sleep(100 * time.Millisecond)
						}
					})
				}
				learned := time.Duration(-1)
				for begin := time.Now(); time.Since(begin) < seconds*time.Second; time.Sleep(time.Second) {
					now := time.Now()
					for _, tenant := range []string{"acme", "globex"} {
						if got := verdict(t, v, sign(a, tenant)); got != http.StatusOK || time.Since(now) != 0 {
							t.Fatalf("a good token of %s gets %d after %v", tenant, got, time.Since(now))
						}
					}
					if rotated.Store(time.Since(begin) >= 12*time.Second); rotated.Load() && learned < 0 && verdict(t, v, sign(c, "acme")) == http.StatusOK {
						learned = time.Since(begin) - 12*time.Second
					}
				}
				stop()
				flood.Wait()
				if learned < 0 || learned > 11*time.Second {
					t.Errorf("the new key was learned after %v", learned)
				}
				if got, most := len(network.requests("127.9.0.1:80")), 1+3+seconds/10; got > most {
					t.Errorf("%d requests, want at most %d", got, most)
				}
				if got := len(network.requests("127.9.0.2:80")); got != 1 {
					t.Errorf("the other tenant's issuer was asked %d times", got)
				}
			})
		})
	}
}

// What a token of no held key gets, without kid and with an unknown one, while its issuer fails, and after that. A token
// of a key that is held passes as long as the source has keys.
func TestTokensWithoutKIDWhileIssuerFails(t *testing.T) {
	const ok, bad, unclear = http.StatusOK, http.StatusUnauthorized, http.StatusServiceUnavailable
	for _, fault := range []jwkstest.Fault{jwkstest.Status(http.StatusInternalServerError), jwkstest.HangHeader()} {
		for _, named := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, with unknown kids: %v", fault, named), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					sign := withoutKID
					if named {
						sign = signed
					}
					c, forged := jwkstest.NewKey("c", "ES256"), jwkstest.NewKey("x", "ES256")
					v := verifyAll(t, map[string]keystore.KeyStore{"acme": w.ready(jwks.SourceConfig{})})
					want := func(when string, held, fresh, other int) {
						t.Helper()
						now := time.Now()
						if got := verdict(t, v, sign(w.a, "acme")); got != held || time.Since(now) != 0 {
							t.Errorf("%s: a token of a held key gets %d after %v, want %d", when, got, time.Since(now), held)
						}
						if got := verdict(t, v, sign(c, "acme")); got != fresh {
							t.Errorf("%s: a token of the new key gets %d, want %d", when, got, fresh)
						}
						if got := verdict(t, v, sign(forged, "acme")); got != other || time.Since(now) > 2*2*time.Second {
							t.Errorf("%s: a forged token gets %d after %v, want %d", when, got, time.Since(now), other)
						}
					}
					want("before", ok, bad, bad)
					time.Sleep(11 * time.Second)
					w.issuer.Publish(w.a, c)
					w.issuer.Misbehave(fault)
					want("failing", ok, unclear, unclear)
					for range 8 { // beyond all budgets
						want("failing", ok, unclear, unclear)
					}
					for range 15 {
						time.Sleep(time.Minute)
						want("stale", ok, unclear, unclear)
					}
					w.issuer.Behave()
					time.Sleep(6 * time.Minute)
					want("afterwards", ok, ok, bad)
				})
			})
		}
	}
}
