package jwks_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
	"github.com/keyturn/keyturn/verifier"
)

// verify returns a verifier of one tenant, whose keys are the source.
func verify(t *testing.T, s *jwks.Source) *verifier.Verifier {
	t.Helper()
	v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{{
		ID: "acme", Keys: s, Algorithms: []keystore.Algorithm{keystore.ES256}, AnyIssuer: true, AnyAudience: true,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func token(key *jwkstest.Key, life time.Duration) string {
	return key.Token(map[string]any{"sub": "ann", "exp": time.Now().Add(life).Unix()})
}

func TestCachedTokenEndsWithKey(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		v := verify(t, s)
		a := token(w.a, time.Hour)
		for range 2 {
			if _, err := v.Verify(t.Context(), a); err != nil {
				t.Fatal(err)
			}
		}
		if v.CacheStats().Hits == 0 {
			t.Fatal("the token was not cached")
		}
		c := jwkstest.NewKey("c", "ES256")
		w.issuer.Publish(c)
		if _, err := v.Verify(t.Context(), token(c, time.Hour)); err != nil {
			t.Fatalf("a token of a new key: %v", err)
		}
		time.Sleep(jwks.MaxWait)
		if _, err := v.Verify(t.Context(), a); !errors.Is(err, verifier.ErrUnknownKey) {
			t.Errorf("a cached token of a removed key: %v, want ErrUnknownKey", err)
		}
	})
}

// If all tokens of a source are cached, no lookup asks it for longer than its TTL. It still does
// not sleep past the TTL, and no token waits.
func TestCachedTokensKeepSourceAwake(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.issuer.SetHeader("Cache-Control", "max-age=60")
		s := w.ready(jwks.SourceConfig{})
		v := verify(t, s)
		a := token(w.a, 24*time.Hour)
		for range 3 * 3600 {
			before := time.Now()
			if _, err := v.Verify(t.Context(), a); err != nil {
				t.Fatal(err)
			}
			if time.Since(before) != 0 {
				t.Fatal("a token waited")
			}
			time.Sleep(time.Second)
		}
		if got := s.Status().Fetches; got < 150 || inSync(s) == false {
			t.Errorf("%d fetches in three hours, %+v", got, s.Status())
		}
		for _, r := range w.issuer.Requests() {
			if r.Header.Get("Cache-Control") != "" {
				t.Fatal("it slept, and a token had to wake it")
			}
		}
	})
}

// A forged signature on a known kid costs no fetch. A flood of unsigned tokens with unknown kids
// costs four.
func TestFloodOfTokens(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		v := verify(t, s)
		forged := jwkstest.NewKey("a", "ES256")
		for range 100 {
			if _, err := v.Verify(t.Context(), token(forged, time.Hour)); !errors.Is(err, verifier.ErrSignature) {
				t.Fatalf("a forged token: %v", err)
			}
		}
		w.wantFetches(1)
		for range 1000 {
			forged.KID += "x"
			if len(forged.KID) > 200 {
				forged.KID = "b" + forged.KID[:1]
			}
			if _, err := v.Verify(t.Context(), token(forged, time.Hour)); !errors.Is(err, verifier.ErrUnknownKey) {
				t.Fatalf("a token of an unknown kid: %v", err)
			}
		}
		w.wantFetches(4)

		// An outage is 503, not 401.
		w.issuer.Misbehave(jwkstest.Refused())
		time.Sleep(time.Minute)
		if _, err := v.Verify(t.Context(), token(forged, time.Hour)); !errors.Is(err, verifier.ErrUnavailable) {
			t.Errorf("an unknown kid in an outage: %v, want ErrUnavailable", err)
		}
		if _, err := v.Verify(t.Context(), token(w.a, time.Hour)); err != nil {
			t.Errorf("a known kid in an outage: %v", err)
		}
		synctest.Wait()
	})
}
