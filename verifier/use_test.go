package verifier_test

import (
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
)

// A noting store counts the calls that may wake a sleeping source.
type noting struct {
	keystore.KeyStore
	noted []string // the tenants of NoteUse
}

func (n *noting) NoteUse(tenant string) { n.noted = append(n.noted, tenant) }

// TestUseIsNoted: a token that passes every rule keeps its tenant's source awake, each
// time, and a token that is refused never does.
func TestUseIsNoted(t *testing.T) {
	forged := signWith(secretOf("x"), goodHeader, goodPayload)
	for _, tt := range []struct {
		name, token string
		edit        func(*verifier.Tenant)
		want        error
	}{
		{name: "good", token: sign(goodHeader, goodPayload)},
		{name: "good, without kid", token: sign(`{"alg":"HS256"}`, goodPayload)},
		{name: "expired and unsigned", token: forged[:strings.LastIndexByte(forged, '.')+1], want: verifier.ErrSignature},
		{name: "forged", token: forged, want: verifier.ErrSignature},
		{name: "expired", token: sign(goodHeader, with(`"exp":1`)), want: verifier.ErrExpired},
		{name: "another audience", token: sign(goodHeader, with(`"aud":"x"`)), want: verifier.ErrAudience},
		{name: "unknown key", token: sign(withKID(`"2"`), goodPayload), want: verifier.ErrUnknownKey},
		{name: "another algorithm", token: sign(`{"alg":"HS512","kid":"1"}`, goodPayload), want: verifier.ErrAlgorithm},
		{name: "the tenant's own check", token: sign(goodHeader, goodPayload), edit: func(r *verifier.Tenant) { r.Check = func(*verifier.Token) error { return errOdd } }, want: verifier.ErrClaim},
		{name: "revoked", token: sign(goodHeader, with(`"jti":"revoked"`)), want: verifier.ErrRevoked},
	} {
		for _, ttl := range []time.Duration{-1, 0} {
			r := acme(t)
			store := &noting{KeyStore: r.Keys}
			r.Keys = store
			if tt.edit != nil {
				tt.edit(&r)
			}
			revoked := verifier.NewRevocationList(1)
			if err := revoked.RevokeToken("acme", "revoked", time.Time{}); err != nil {
				t.Fatal(err)
			}
			v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{r}, Now: at(nowUnix), CacheTTL: ttl, Revocations: revoked})
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				tok, err := v.Verify(t.Context(), tt.token)
				check(t, tt.name, tok, err, tt.want)
			}
			want := "acme acme acme"
			if tt.want != nil {
				want = ""
			}
			if got := strings.Join(store.noted, " "); got != want {
				t.Errorf("%s, cache %v: noted %q, want %q", tt.name, ttl == 0, got, want)
			}
		}
	}
}

// TestUseIsNotedAfterChanges: new rules of a tenant note the use too.
func TestUseIsNotedAfterChanges(t *testing.T) {
	r := acme(t)
	store := &noting{KeyStore: r.Keys}
	r.Keys = store
	v := newVerifier(t, r)
	token := sign(goodHeader, goodPayload)
	for i, change := range []func() error{
		func() error { return nil },
		func() error { return v.Suspend("acme") },
		func() error { return v.Resume("acme") },
		func() error { return v.Put(tenant(t, "other", "https://other", nil)) },
		func() error { return v.Put(r) },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		store.noted = nil
		_, err := v.Verify(t.Context(), token)
		if (err == nil) != (len(store.noted) == 1) {
			t.Errorf("after change %d: %v, noted %q", i, err, store.noted)
		}
	}
}
