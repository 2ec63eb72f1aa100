package verifier_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/keyturn/keyturn/verifier"
)

// TestHitAllocatesNothing counts the allocations of a hit with a hint, without one, and
// without a kid, while a revocation list is in use.
func TestHitAllocatesNothing(t *testing.T) {
	list := verifier.NewRevocationList(10)
	if err := errors.Join(list.RevokeToken("acme", "x", time.Time{}), list.RevokeSubject("acme", "x", time.Unix(1, 0)), list.RevokeTenant("x", time.Unix(1, 0))); err != nil {
		t.Fatal(err)
	}
	v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{acme(t)}, Now: at(nowUnix), Revocations: list,
		Observe: func(context.Context, verifier.Event) {}})
	if err != nil {
		t.Fatal(err)
	}
	token, ctx := sign(goodHeader, with(`"jti":"7"`)), t.Context()
	v.Verify(ctx, token)
	v.VerifyTenant(ctx, "acme", token)
	noKID := sign(`{"alg":"HS256"}`, goodPayload)
	v.Verify(ctx, noKID)
	if n := testing.AllocsPerRun(1000, func() {
		if tok, err := v.Verify(ctx, noKID); err != nil || !tok.Cached() {
			t.Error(err)
		}
		if tok, err := v.Verify(ctx, token); err != nil || !tok.Cached() {
			t.Error(err)
		}
		if tok, err := v.VerifyTenant(ctx, "acme", token); err != nil || !tok.Cached() {
			t.Error(err)
		}
	}); n != 0 && !raceEnabled {
		t.Errorf("%v allocations", n)
	}
}

// TestResolvedHitAllocatesNothing: the same for a tenant of Config.Resolve, whose use is noted.
func TestResolvedHitAllocatesNothing(t *testing.T) {
	now := time.Unix(nowUnix, 0)
	r := acme(t)
	v, err := verifier.New(verifier.Config{Now: func() time.Time { return now },
		Resolve: func(context.Context, verifier.Hint) (verifier.Tenant, error) { return r, nil }})
	if err != nil {
		t.Fatal(err)
	}
	token, ctx := sign(goodHeader, goodPayload), t.Context()
	v.Verify(ctx, token)
	v.VerifyTenant(ctx, "acme", token)
	if n := testing.AllocsPerRun(1000, func() {
		now = now.Add(10 * time.Millisecond)
		if tok, err := v.Verify(ctx, token); err != nil || !tok.Cached() {
			t.Error(err)
		}
		if tok, err := v.VerifyTenant(ctx, "acme", token); err != nil || !tok.Cached() {
			t.Error(err)
		}
	}); n != 0 && !raceEnabled {
		t.Errorf("%v allocations", n)
	}
}

func TestMissAllocatesLittle(t *testing.T) {
	r := acme(t)
	v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{r}, Now: at(nowUnix), CacheTTL: -1})
	if err != nil {
		t.Fatal(err)
	}
	token, ctx := sign(goodHeader, goodPayload), t.Context()
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := v.Verify(ctx, token); err != nil {
			t.Error(err)
		}
	}); n > 4 && !raceEnabled {
		t.Errorf("%v allocations", n)
	}
}
