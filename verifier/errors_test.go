package verifier_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/keyturn/keyturn/verifier"
)

// TestVerdictsDoNotMix: the errors that a store or a Check wraps never turn "cannot
// tell" into a verdict, or a verdict into "cannot tell".
func TestVerdictsDoNotMix(t *testing.T) {
	token := sign(goodHeader, goodPayload)
	r := acme(t)
	r.Check = func(*verifier.Token) error { return fmt.Errorf("%w: %w", verifier.ErrUnavailable, errOdd) }
	tok, err := newVerifier(t, r).Verify(t.Context(), token)
	check(t, "a Check that cannot tell", tok, err, verifier.ErrClaim)
	check(t, "its own error", tok, err, errOdd)

	r = acme(t)
	refusal := &verifier.Error{Reason: verifier.ReasonExpired, Err: verifier.ErrExpired}
	r.Keys = onlyLookup{&scripted{lookupErr: fmt.Errorf("%w: %w", errOdd, refusal)}}
	tok, err = newVerifier(t, r).Verify(t.Context(), token)
	check(t, "a store that wraps a verdict", tok, err, verifier.ErrUnavailable)
	check(t, "its own error", tok, err, errOdd)
	if errors.Is(err, verifier.ErrExpired) {
		t.Errorf("%v is a verdict", err)
	}
}

func TestErrorTellsOperator(t *testing.T) {
	v := newVerifier(t, acme(t))
	_, err := v.Verify(t.Context(), sign(`{"alg":"HS256","kid":"x\"\r\ny"}`, goodPayload))
	e := new(verifier.Error)
	if !errors.As(err, &e) || e.Reason != verifier.ReasonUnknownKey || e.Tenant != "acme" || e.Key.KID != "x\"\r\ny" {
		t.Errorf("error = %#v", err)
	}
	if want := `verifier: key "acme"/"x\"\r\ny": unknown key`; err.Error() != want {
		t.Errorf("error = %s, want %s", err, want)
	}
	_, err = v.Verify(t.Context(), sign(goodHeader, with(`"exp":12345`)))
	if want := `verifier: key "acme"/"1": token expired: claim "exp"`; err == nil || err.Error() != want {
		t.Errorf("error = %v, want %s", err, want)
	}
	_, err = v.VerifyTenant(t.Context(), "nobody", sign(goodHeader, goodPayload))
	if !errors.As(err, &e) || e.Tenant != "" || !errors.Is(err, verifier.ErrUnknownTenant) {
		t.Errorf("a tenant that is not configured: %#v", err)
	}
}
