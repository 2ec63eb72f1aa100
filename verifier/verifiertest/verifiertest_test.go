package verifiertest_test

import (
	"errors"
	"testing"
	"time"

	"github.com/keyturn/keyturn/verifier"
	"github.com/keyturn/keyturn/verifier/verifiertest"
)

func TestIssuer(t *testing.T) {
	issuer := verifiertest.New(t)
	v := issuer.Verifier()
	token := issuer.Token(map[string]any{"sub": "ann", "scope": "read"})
	tok, err := v.Verify(t.Context(), token)
	if err != nil || tok.Tenant() != verifiertest.Tenant || tok.Subject() != "ann" || !tok.HasScope("read") ||
		tok.Issuer() != verifiertest.URL || !tok.HasAudience(verifiertest.Audience) || tok.ID() == "" {
		t.Errorf("%v, %v", tok, err)
	}
	if tok, err := v.Verify(t.Context(), issuer.Token(nil)); err != nil || tok.Subject() != "" {
		t.Errorf("without claims: %v, %v", tok, err)
	}
	if _, err := verifiertest.New(t).Verifier().Verify(t.Context(), token); !errors.Is(err, verifier.ErrSignature) {
		t.Errorf("another issuer: %v", err)
	}
	for claim, want := range map[string]error{"iss": verifier.ErrIssuer, "aud": verifier.ErrAudience} {
		if _, err := v.Verify(t.Context(), issuer.Token(map[string]any{claim: "x"})); !errors.Is(err, want) {
			t.Errorf("%s x: %v, want %v", claim, err, want)
		}
	}
	issuer.Advance(15*time.Minute - 1)
	if _, err := v.Verify(t.Context(), token); err != nil {
		t.Error(err)
	}
	issuer.Advance(1)
	if _, err := v.Verify(t.Context(), token); !errors.Is(err, verifier.ErrExpired) {
		t.Errorf("after 15 minutes: %v", err)
	}
	issuer.Advance(-time.Hour)
	if _, err := v.Verify(t.Context(), token); !errors.Is(err, verifier.ErrNotYetValid) {
		t.Errorf("before it was made: %v", err)
	}
}
